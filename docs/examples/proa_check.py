"""Uses proa.py for all it can do against the servers named as HOST:PORT, and
exits with 0 if each answered as docs/protocol.md says."""

import sys
import threading
import time

import proa
from proa import Client, op_delete, op_get, op_incr, op_put


def check(what, got, want):
    if got != want:
        raise SystemExit(f"{what}: got {got!r}, want {want!r}")


def refused(what, status, call):
    try:
        got = call()
    except proa.ProaError as e:
        check(what, e.status, status)
        check(what + ": known to be not done", e.unknown, False)
        return
    raise SystemExit(f"{what}: got {got!r}, want status {status}")


def rows(c):
    check("put", c.put(b"py/k", b"hello").done, True)
    row = c.get(b"py/k")
    check("get", (row.value, row.ttl_ms), (b"hello", 0))
    check("absent", c.get(b"py/absent"), None)
    check("exists", (c.exists(b"py/k"), c.exists(b"py/absent")), (True, False))
    w = c.put(b"py/k", b"bye", if_version=row.version, previous=True)
    check("put at a version", (w.done, w.previous.value), (True, b"hello"))
    w = c.put(b"py/k", b"no", if_version=row.version, previous=True)
    check("put at an old version", (w.status, w.previous.value), (proa.CONDITION_FAILED, b"bye"))
    check("put if absent", c.put(b"py/k", b"no", if_absent=True).done, False)
    check("put for a minute", c.put(b"py/ttl", b"v", ttl_ms=60_000).done, True)
    check("time left", 0 < c.get(b"py/ttl").ttl_ms <= 60_000, True)
    check("expire", c.expire(b"py/k", 3_600_000).done, True)
    check("expire of an absent key", c.expire(b"py/absent", 1000).status, proa.NOT_FOUND)
    check("delete of an absent key", c.delete(b"py/absent").status, proa.NOT_FOUND)
    check("delete of an absent key at version 0", c.delete(b"py/absent", if_version=0).status, proa.NOT_FOUND)
    check("delete of an absent key at version 7", c.delete(b"py/absent", if_version=7).status, proa.CONDITION_FAILED)
    c.delete(b"py/n")
    check("incr", [c.incr(b"py/n"), c.incr(b"py/n", 41), c.incr(b"py/n", -42)], [1, 42, 0])
    refused("incr of text", proa.NOT_INTEGER, lambda: c.incr(b"py/k"))
    c.delete(b"py/a")
    check("append", [c.append(b"py/a", b"one"), c.append(b"py/a", b"two")], [3, 6])
    check("rename", c.rename(b"{py}absent", b"{py}b").status, proa.NOT_FOUND)
    refused("empty key", proa.BAD_REQUEST, lambda: c.put(b"", b"v"))
    refused("long key", proa.TOO_LARGE, lambda: c.get(b"k" * (c.key_max + 1)))
    binary = bytes(range(256))
    c.put(b"py/" + binary, binary)
    check("any bytes", c.get(b"py/" + binary).value, binary)
    large = binary * 4096
    c.put(b"py/large", large)
    check("a megabyte", c.get(b"py/large").value == large, True)


def several(c):
    keys = [b"py/m%d" % i for i in range(100)]
    results = c.batch([op_put(k, b"v" * i) for i, k in enumerate(keys)], atomic=False)
    check("batch", [status for status, _ in results], [proa.OK] * 100)
    check("mget", [r and len(r.value) for r in c.mget(keys + [b"py/absent"])], list(range(100)) + [None])
    many = [b"py/m99"] * 5000
    check("mget of several frames", {len(r.value) for r in c.mget(many)}, {99})
    want = sorted(keys)
    check("scan", [k for k, _ in c.scan(prefix=b"py/m", page=7)], want)
    check("scan in reverse", [k for k, _ in c.scan(prefix=b"py/m", page=13, reverse=True)], want[::-1])
    check("scan of a range", [k for k, _ in c.scan(b"py/m10", b"py/m20")], [k for k in want if b"py/m10" <= k < b"py/m20"])
    for bounds in ({"prefix": b"py/m1"}, {"start": b"py/m2", "end": b"py/m3"}):
        check("delete of a range", [status for status, _ in c.delete_range(**bounds)], [proa.OK] * c.shards)
    want = [k for k in want if k[4:5] not in (b"1", b"2")]
    check("scan of what is left", [k for k, _ in c.scan(prefix=b"py/m")], want)
    c.batch([op_put(k, b"v" * i) for i, k in enumerate(keys)], atomic=False)
    ok, results = c.txn([proa.if_value(b"{py}x", b"0", relation=2)], [op_put(b"{py}x", b"no")], [op_put(b"{py}x", b"0"), op_incr(b"{py}x", 5), op_get(b"{py}x")])
    check("txn, else", (ok, [s for s, _ in results], results[2][1][16:]), (False, [0, 0, 0], b"5"))
    ok, results = c.txn([proa.if_version(b"{py}none", 0)], [op_delete(b"{py}x", proa.RETURN_PREVIOUS)])
    check("txn, then", (ok, [s for s, _ in results]), (True, [0]))
    for _ in range(1000):  # a shard may be without a leader for a moment
        replies = c.pipeline([op_get(b"py/m%d" % i) for i in range(100)])
        if not any(s in proa.RETRY for s, _ in replies):
            break
        time.sleep(0.01)
    check("pipeline", [(s, len(b) - 16) for s, b in replies], [(0, i) for i in range(100)])
    check("ping", c.ping(b"are you there?"), b"are you there?")


def places(c):
    check("slot", (proa.slot(b"123456789"), proa.slot(b"{user1000}.following")), (0x31C3, proa.slot(b"user1000")))
    check("slot of odd braces", (proa.slot(b"foo{{bar}}zap"), proa.slot(b"foo{bar}{zap}")), (proa.slot(b"{bar"), proa.slot(b"bar")))
    _, nodes, shards = c.routes()
    check("shards", sorted(s for s, _, _ in shards), list(range(c.shards)))
    owners = [s for _, s in sorted((x, s) for s, _, ranges in shards for first, last in ranges for x in range(first, last + 1))]
    check("each slot once", len(owners), 16384)
    check("slots of a shard", all(s == x * c.shards // 16384 for x, s in enumerate(owners)), True)
    check("leaders are nodes", all(leader == 0 or leader in nodes for _, leader, _ in shards), True)
    stale = c.get(b"py/k", consistency=proa.STALE)
    check("a stale read", stale is None or stale.value in (b"hello", b"bye"), True)


def threads(endpoints):
    """Increments from a connection to each server add up."""
    total, each = b"py/total", 50

    def count(host, port):
        with Client(host, port) as c:
            for _ in range(each):
                c.incr(total)

    with Client(*endpoints[0]) as c:
        c.delete(total)
        work = [threading.Thread(target=count, args=e) for e in endpoints * 2]
        for t in work:
            t.start()
        for t in work:
            t.join()
        check("increments", c.get(total).value, b"%d" % (each * len(work)))


def main():
    endpoints = [(a.rsplit(":", 1)[0], int(a.rsplit(":", 1)[1])) for a in sys.argv[1:]]
    if not endpoints:
        raise SystemExit("usage: proa_check.py HOST:PORT …")
    for host, port in endpoints:
        with Client(host, port) as c:
            rows(c)
            several(c)
            places(c)
    threads(endpoints)
    print(f"{len(endpoints)} servers answer as they should")


main()

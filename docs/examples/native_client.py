"""Writes and reads in Proa: native_client.py HOST:PORT"""
import sys

import proa  # docs/examples/proa.py

host, port = sys.argv[1].rsplit(":", 1)
with proa.Client(host, int(port)) as c:
    c.put(b"greeting", b"hello", ttl_ms=3_600_000)
    print(c.get(b"greeting").value.decode())

    try:
        print(c.incr(b"visits"))
    except proa.ProaError as e:
        # After a lost connection a write may have happened: e.unknown tells.
        sys.exit(f"incr: {e}, outcome unknown: {e.unknown}")

    if c.get(b"nothing") is None:
        print("not found")

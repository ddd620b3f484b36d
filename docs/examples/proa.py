"""A client of Proa in Python's standard library, written from docs/protocol.md.

It is an example: blocking, one connection, one request at a time but for
`pipeline`. It shows framing, the handshake, errors with what is known of their
outcome, retries that are safe, sessions, scans and transactions.

    with Client("127.0.0.1", 7400) as c:
        c.put(b"greeting", b"hello")
        print(c.get(b"greeting").value)
"""

import random
import socket
import struct
import time
from dataclasses import dataclass

HEADER = struct.Struct("<IBBHQ")  # length, version, code, flags, request id
VERSION = 1
REPLY, EXTENSIONS, MORE = 0x0001, 0x0002, 0x0004
FLAGS = REPLY | EXTENSIONS | MORE
FRAME_MAX = 16 << 20  # of replies

OPCODES = {
    "HELLO": 1, "PING": 2, "GET": 3, "PUT": 4, "DELETE": 5, "INCR": 6, "EXPIRE": 7, "PERSIST": 8, "EXISTS": 9,
    "MGET": 10, "BATCH": 11, "TXN": 12, "SCAN": 13, "ROUTES": 14, "APPEND": 17, "RENAME": 22,
    "DELETE_RANGE": 25,
}

OK, NOT_FOUND, CONDITION_FAILED = 0, 1, 2
NOT_INTEGER, OVERFLOW, BAD_REQUEST, TOO_LARGE, UNSUPPORTED, CROSS_SHARD = 3, 4, 5, 6, 7, 8
BUSY, NOT_LEADER, NO_QUORUM, DROPPED, SHUTTING_DOWN, TOO_MANY_CONNECTIONS, GOAWAY, IDLE = 11, 12, 13, 16, 17, 18, 25, 26
RETRY = {BUSY, NOT_LEADER, NO_QUORUM, DROPPED, SHUTTING_DOWN, TOO_MANY_CONNECTIONS, GOAWAY, IDLE}
# A status that is not listed here and carries no result leaves the outcome unknown.
NOT_DONE = {3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21, 22, 27, 28, 29}

TTL, KEEP_TTL, IF_ABSENT, IF_PRESENT, IF_VERSION, RETURN_PREVIOUS = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
DEADLINE, SESSION, CONSISTENCY, EPOCH, LEADER, AGE = 1, 2, 3, 5, 6, 7
CRITICAL = 0x80
LINEARIZABLE, SESSION_READS, STALE = 0, 1, 2


class ProaError(Exception):
    """A reply without a result. `unknown` says that a write may have happened."""

    def __init__(self, status, message, retry_after=0.0):
        super().__init__(f"status {status}: {message}")
        self.status, self.message, self.retry_after = status, message, retry_after
        self.unknown = status not in NOT_DONE
        self.retry = status in RETRY


class ConnectionLost(ProaError):
    """The connection ended before the reply: a write's outcome is unknown."""

    def __init__(self, reason):
        super().__init__(-1, reason)


@dataclass
class Row:
    version: int
    ttl_ms: int  # 0: does not expire
    value: bytes
    age_ms: int | None = None  # of a stale read


@dataclass
class Written:
    done: bool  # False: NOT_FOUND or CONDITION_FAILED, and nothing was changed
    status: int
    version: int
    previous: Row | None = None


@dataclass
class Reply:
    status: int
    extensions: dict
    frames: list  # bodies


def string16(b):
    return struct.pack("<H", len(b)) + b


def extension(kind, payload):
    return bytes([kind, len(payload)]) + payload


def slot(key):
    """CRC-16/XMODEM of the key, or of its {tag}, modulo 16384."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1:end]
    crc = 0
    for byte in key:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc % 16384


# Bodies of writes, for requests of their own and inside BATCH and TXN.

def op_put(key, value, options=0, ttl_ms=0, version=0):
    body = struct.pack("<BH", options, len(key))
    if options & TTL:
        body += struct.pack("<Q", ttl_ms)
    if options & IF_VERSION:
        body += struct.pack("<Q", version)
    return OPCODES["PUT"], body + key + value


def op_delete(key, options=0, version=0):
    body = bytes([options])
    if options & IF_VERSION:
        body += struct.pack("<Q", version)
    return OPCODES["DELETE"], body + key


def op_incr(key, delta=1):
    return OPCODES["INCR"], struct.pack("<q", delta) + key


def op_get(key):
    return OPCODES["GET"], key


def if_version(key, version, relation=1):
    """A comparison of a TXN: relation 1 equal, 2 not equal, 3 less, 4 greater."""
    return bytes([1, relation]) + string16(key) + struct.pack("<Q", version)


def if_value(key, value, relation=1):
    return bytes([2, relation]) + string16(key) + struct.pack("<I", len(value)) + value


def operations(ops):
    return struct.pack("<I", len(ops)) + b"".join(
        struct.pack("<BI", code, len(body)) + body for code, body in ops)


class Client:
    """One connection. Not safe for use by several threads at once."""

    def __init__(self, host, port=7400, timeout=30.0, name="proa.py", user="", secret=""):
        self.address, self.timeout = (host, port), timeout
        self.name, self.user, self.secret = name.encode(), user.encode(), secret.encode()
        self.socket = None
        self.next_id = 1
        self.session, self.sequence = random.SystemRandom().randrange(1, 1 << 64), 0
        self.goaway = False
        self._connect()

    def close(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # Frames

    def _connect(self):
        self.close()
        self.socket = socket.create_connection(self.address, self.timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.goaway, self.frame_max = False, FRAME_MAX
        hello = struct.pack("<BBQ", VERSION, VERSION, 1) + string16(self.name) + string16(self.user) + string16(self.secret)
        body = self._call(OPCODES["HELLO"], hello).frames[0]
        (self.version, self.features, self.node, self.cluster, self.connection, self.frame_max, self.key_max,
         self.value_max, self.in_flight_max, self.shards, n) = struct.unpack_from("<BQQQQIIIIHH", body)
        self.server_version = body[-n:].decode() if n else ""

    def _send(self, opcode, body, extensions=b""):
        request_id, self.next_id = self.next_id, self.next_id + 1
        flags, head = 0, b""
        if extensions:
            flags, head = EXTENSIONS, struct.pack("<H", len(extensions)) + extensions
        length = HEADER.size + len(head) + len(body)
        if length > self.frame_max:
            raise ProaError(TOO_LARGE, f"a request of {length} bytes, the server takes {self.frame_max}")
        try:
            self.socket.sendall(HEADER.pack(length, VERSION, opcode, flags, request_id) + head + body)
        except OSError as e:
            self.close()
            raise ConnectionLost(f"sending: {e}") from e
        return request_id

    def _read(self, n):
        b = bytearray()
        while len(b) < n:
            try:
                part = self.socket.recv(min(n - len(b), 1 << 20))
            except OSError as e:
                self.close()
                raise ConnectionLost(f"receiving: {e}") from e
            if not part:
                self.close()
                raise ConnectionLost("the server closed the connection")
            b += part
        return bytes(b)

    def _frame(self):
        """Reads one frame: request id, status, flags, extensions, body."""
        length, version, status, flags, request_id = HEADER.unpack(self._read(HEADER.size))
        if not HEADER.size <= length <= FRAME_MAX or version != VERSION or flags & ~FLAGS or not flags & REPLY:
            self.close()
            raise ConnectionLost("the stream is out of step")
        body, extensions = self._read(length - HEADER.size), {}
        if flags & EXTENSIONS:
            (n,) = struct.unpack_from("<H", body)
            at, end = 2, 2 + n
            while at < end:
                kind, size = body[at] & 0x7F, body[at + 1]
                extensions[kind] = body[at + 2:at + 2 + size]
                at += 2 + size
            body = body[end:]
        return request_id, status, flags, extensions, body

    def _receive(self, request_id, others=None):
        """Reads until the reply to request_id is whole. Frames of other
        requests go to others, a dict of lists by id."""
        frames = []
        while True:
            got, status, flags, extensions, body = self._frame()
            if got == 0:
                if status == GOAWAY:
                    self.goaway = True  # what is in flight will be answered
                    continue
                self.close()
                raise self._error(status, body)
            if got != request_id:
                if others is not None:
                    others.setdefault(got, []).append((status, flags, extensions, body))
                continue
            if status > CONDITION_FAILED:
                raise self._error(status, body)
            frames.append(body)
            if not flags & MORE:
                return Reply(status, extensions, frames)

    @staticmethod
    def _error(status, body):
        retry_after, n = struct.unpack_from("<IH", body)
        return ProaError(status, body[6:6 + n].decode(errors="replace"), retry_after / 1000)

    def _call(self, opcode, body, extensions=b""):
        return self._receive(self._send(opcode, body, extensions))

    # Retries

    def _until(self, write, opcode, body, extensions=b""):
        """Repeats a request while that is safe, until the client's timeout. A
        write carries the session, so that it takes effect once however often it
        is sent."""
        end = time.monotonic() + self.timeout
        if write:
            self.sequence += 1
            mark = struct.pack("<QQQ", self.session, self.sequence, self.sequence - 1)
        unknown = False
        while True:
            left = end - time.monotonic()
            try:
                if self.socket is None or self.goaway:
                    self._connect()
                list_ = extensions + extension(DEADLINE, struct.pack("<I", max(1, int(left * 1000))))
                if write:
                    list_ += extension(SESSION | CRITICAL, mark)
                return self._call(opcode, body, list_)
            except ProaError as e:
                unknown = unknown or e.unknown
                # TIMEOUT, INTERNAL and a lost connection are safe to repeat for
                # reads, and for writes of a session.
                if not e.retry and not e.unknown or left <= 0:
                    if e.status >= 0:
                        e.unknown = unknown
                    raise
                pause = max(e.retry_after, 0.01)
            except OSError as e:
                if left <= 0:
                    raise ConnectionLost(f"connecting: {e}") from e
                pause = 0.1
            time.sleep(min(pause, max(left, 0)))

    # Operations

    def ping(self, body=b""):
        return self._call(OPCODES["PING"], body).frames[0]

    def get(self, key, consistency=LINEARIZABLE, token=0):
        """Returns the Row, or None."""
        extensions = b""
        if consistency != LINEARIZABLE:
            extensions = extension(CONSISTENCY, struct.pack("<BQ", consistency, token))
        r = self._until(False, OPCODES["GET"], key, extensions)
        if r.status == NOT_FOUND:
            return None
        version, ttl = struct.unpack_from("<QQ", r.frames[0])
        age = struct.unpack("<I", r.extensions[AGE])[0] if AGE in r.extensions else None
        return Row(version, ttl, r.frames[0][16:], age)

    def exists(self, key):
        return self._until(False, OPCODES["EXISTS"], key).status == OK

    def _written(self, r):
        version, presence = struct.unpack_from("<QB", r.frames[0])
        previous = None
        if presence:
            v, ttl = struct.unpack_from("<QQ", r.frames[0], 9)
            previous = Row(v, ttl, r.frames[0][25:])
        return Written(r.status == OK, r.status, version, previous)

    def put(self, key, value, ttl_ms=None, if_absent=False, if_present=False, if_version=None, previous=False):
        options = (TTL if ttl_ms is not None else 0) | (IF_ABSENT if if_absent else 0) | (IF_PRESENT if if_present else 0) \
            | (IF_VERSION if if_version is not None else 0) | (RETURN_PREVIOUS if previous else 0)
        return self._written(self._until(True, *op_put(key, value, options, ttl_ms or 0, if_version or 0)))

    def delete(self, key, if_version=None, previous=False):
        options = (IF_VERSION if if_version is not None else 0) | (RETURN_PREVIOUS if previous else 0)
        return self._written(self._until(True, *op_delete(key, options, if_version or 0)))

    def incr(self, key, delta=1):
        version, value = struct.unpack("<Qq", self._until(True, *op_incr(key, delta)).frames[0])
        return value

    def expire(self, key, ttl_ms):
        return self._written(self._until(True, OPCODES["EXPIRE"], struct.pack("<Q", ttl_ms) + key))

    def append(self, key, value):
        """Returns the length of the value after it."""
        r = self._until(True, OPCODES["APPEND"], string16(key) + value)
        return struct.unpack("<Qq", r.frames[0])[1]

    def rename(self, source, destination, if_absent=False):
        body = bytes([0x02 if if_absent else 0]) + string16(source) + destination
        return self._written(self._until(True, OPCODES["RENAME"], body))

    def mget(self, keys):
        """Returns a list of Rows and Nones, in the order of the keys."""
        body = struct.pack("<I", len(keys)) + b"".join(string16(k) for k in keys)
        rows = []
        for frame in self._until(False, OPCODES["MGET"], body).frames:
            at = 0
            while at < len(frame):
                if frame[at] != OK:
                    rows.append(None)
                    at += 1
                    continue
                version, ttl, n = struct.unpack_from("<QQI", frame, at + 1)
                at += 21
                rows.append(Row(version, ttl, frame[at:at + n]))
                at += n
        return rows

    @staticmethod
    def _results(b):
        (count,) = struct.unpack_from("<I", b)
        at, results = 4, []
        for _ in range(count):
            status, n = struct.unpack_from("<BI", b, at)
            results.append((status, b[at + 5:at + 5 + n]))
            at += 5 + n
        return results

    def batch(self, ops, atomic=True):
        """Carries out writes made by op_put and its neighbours. Returns a list
        of (status, body)."""
        body = bytes([0 if atomic else 1]) + operations(ops)
        return self._results(self._until(True, OPCODES["BATCH"], body).frames[0])

    def txn(self, compares, then, otherwise=()):
        """Returns whether every comparison held, and the results of the branch
        that was carried out."""
        body = struct.pack("<I", len(compares)) + b"".join(compares) + operations(list(then)) + operations(list(otherwise))
        b = self._until(True, OPCODES["TXN"], body).frames[0]
        return b[0] == 1, self._results(b[1:])

    def scan(self, start=b"", end=b"", prefix=None, reverse=False, page=1000):
        """Yields (key, Row) in the order of the keys."""
        options = (0x01 if reverse else 0) | (0x04 if prefix is not None else 0)
        if prefix is not None:
            start, end = prefix, b""
        cursor = b""
        while True:
            body = struct.pack("<BII", options, page, 0) + string16(start) + string16(end) + string16(cursor)
            for frame in self._until(False, OPCODES["SCAN"], body).frames:
                (n,) = struct.unpack_from("<H", frame)
                cursor, at = frame[2:2 + n], 2 + n
                while at < len(frame):
                    version, ttl, k, v = struct.unpack_from("<QQHI", frame, at)
                    at += 22
                    yield frame[at:at + k], Row(version, ttl, frame[at + k:at + k + v])
                    at += k + v
            if not cursor:
                return

    def delete_range(self, start=b"", end=b"", prefix=None, everything=False):
        """Deletes the rows of a range. Returns what became of it in each shard,
        a list of (status, body): those that are not OK have kept their rows, or
        may have, and a repetition completes it."""
        options = (0x01 if prefix is not None else 0) | (0x02 if everything else 0)
        if prefix is not None:
            start, end = prefix, b""
        body = bytes([options]) + string16(start) + string16(end)
        return self._results(self._until(True, OPCODES["DELETE_RANGE"], body).frames[0])

    def routes(self):
        """Returns the epoch, the nodes' addresses by number, and for each shard
        its leader and its ranges of slots."""
        b, at = self._until(False, OPCODES["ROUTES"], b"").frames[0], 10
        epoch, count = struct.unpack_from("<QH", b)
        nodes, shards = {}, []
        for _ in range(count):
            node, n = struct.unpack_from("<QH", b, at)
            nodes[node] = b[at + 10:at + 10 + n].decode()
            at += 10 + n
        (count,) = struct.unpack_from("<H", b, at)
        at += 2
        for _ in range(count):
            shard, leader, ranges = struct.unpack_from("<HQH", b, at)
            at += 12
            shards.append((shard, leader, [struct.unpack_from("<HH", b, at + 4 * i) for i in range(ranges)]))
            at += 4 * ranges
        return epoch, nodes, shards

    def pipeline(self, requests):
        """Sends (opcode, body) pairs, at most the in-flight limit, without
        waiting, and returns their (status, body) in order. They may be carried
        out in any order, and none is repeated."""
        if len(requests) > self.in_flight_max:
            raise ProaError(TOO_LARGE, f"{len(requests)} requests, at most {self.in_flight_max} may be in flight")
        ids = [self._send(opcode, body) for opcode, body in requests]
        replies = {}
        while len(replies) < len(ids):
            request_id, status, flags, _, body = self._frame()
            if request_id == 0 and status != GOAWAY:
                self.close()
                raise self._error(status, body)
            if request_id != 0:
                replies[request_id] = (status, body)
        return [replies[i] for i in ids]

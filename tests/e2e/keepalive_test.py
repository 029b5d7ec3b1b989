"""How often a client may ping: every 10 s with and without a call; a ping every second ends the connection.

Pings are raw HTTP/2 frames (RFC 9113), sent more often than every 10 s so that the test is short: the server's least is 5 s.
"""

import socket
import struct
import time
import unittest

import hotlora_server as e2e

DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
ACK, END_HEADERS, END_STREAM = 1, 4, 1
ENHANCE_YOUR_CALM = 11


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header that HPACK's tables do not hold (RFC 7541, 6.2.2), names and values under 127 bytes."""
    return b"".join([b"\0", bytes([len(name)]), name, bytes([len(value)]), value])


WATCH = frame(HEADERS, END_HEADERS, 1, b"".join(literal(*field) for field in [
    (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/grpc.health.v1.Health/Watch"),
    (b":authority", b"localhost"), (b"content-type", b"application/grpc"), (b"te", b"trailers"),
])) + frame(DATA, END_STREAM, 1, b"\0" * 5)


class Connection:
    """An HTTP/2 connection that reads what comes and remembers acknowledged pings and how it ended."""

    def __init__(self, address, first=b""):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=e2e.PATIENCE)
        self.unread, self.answered, self.streams, self.goaway = b"", 0, set(), None
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0) + first)

    def ping(self):
        self.socket.sendall(frame(PING, 0, 0, b"hotlora!"))

    def read(self, until):
        """Reads until `until()` is true or the server has gone away."""
        end = time.monotonic() + e2e.PATIENCE
        while not until() and self.goaway is None:
            if time.monotonic() > end:
                raise AssertionError("the server does not answer")
            data = self.socket.recv(65536)
            if not data:
                raise AssertionError("closed without GOAWAY")
            self.unread += data
            while len(self.unread) >= 9 and len(self.unread) >= 9 + int.from_bytes(self.unread[:3], "big"):
                length, kind, flags = int.from_bytes(self.unread[:3], "big"), self.unread[3], self.unread[4]
                stream, payload = int.from_bytes(self.unread[5:9], "big"), self.unread[9:9 + length]
                self.unread = self.unread[9 + length:]
                self.take(kind, flags, stream, payload)

    def take(self, kind, flags, stream, payload):
        if kind == SETTINGS and not flags & ACK:
            self.socket.sendall(frame(SETTINGS, ACK, 0))
        elif kind == PING and flags & ACK:
            self.answered += 1
        elif kind == PING:
            self.socket.sendall(frame(PING, ACK, 0, payload))
        elif kind == DATA:
            self.streams.add(stream)
        elif kind == GOAWAY:
            self.goaway = (int.from_bytes(payload[4:8], "big"), payload[8:])

    def close(self):
        self.socket.close()


class KeepaliveTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = e2e.Server(model=e2e.GOLDEN / "pipeline")
        cls.addClassCleanup(cls.server.stop)

    def connect(self, first=b""):
        connection = Connection(self.server.target, first)
        self.addCleanup(connection.close)
        return connection

    def test_pings_within_the_permitted_interval_are_answered_with_and_without_a_call(self):
        idle, watching = self.connect(), self.connect(WATCH)
        watching.read(lambda: 1 in watching.streams)  # a message resets the count of strikes; after the first none comes
        for number in range(1, 6):  # the fifth is beyond the two strikes that a server forgives
            for connection in (idle, watching):
                connection.ping()
                connection.read(lambda: connection.answered >= number)
                self.assertIsNone(connection.goaway, f"ping {number}")
            if number < 5:
                time.sleep(5.5)  # the interval is what is tested

    def test_a_ping_every_second_ends_the_connection(self):
        for name, first in [("without a call", b""), ("with a call", WATCH)]:
            with self.subTest(name):
                connection = self.connect(first)
                if first:
                    connection.read(lambda: 1 in connection.streams)
                for number in range(1, 11):
                    connection.ping()
                    connection.read(lambda: connection.answered >= number)
                    if connection.goaway is not None:
                        break
                    time.sleep(1)
                self.assertEqual(connection.goaway, (ENHANCE_YOUR_CALM, b"too_many_pings"))


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of the NBD protocol that says what one wants it to say, also what no client should; and the server of the
program under test."""
import signal
import socket
import struct
import subprocess

from program import TABIQUE

READ, WRITE, DISCONNECT, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16
EXPORT_NAME, ABORT, LIST, _, STARTTLS, INFO, GO, STRUCTURED_REPLY, LIST_META_CONTEXT, SET_META_CONTEXT = range(1, 11)
ACK = 1


class Failed(Exception):
    """The server's error number."""


def name(text):
    return struct.pack(">I", len(text)) + text.encode()


class Client:
    def __init__(self, path, timeout=20):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.structured = False
        self.cookie = 0

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.socket.sendall(data)

    def take(self, n):
        data = b""
        while len(data) < n:
            more = self.socket.recv(n - len(data))
            if not more:
                raise ConnectionError(f"the server closed the connection after {len(data)} of {n} bytes")
            data += more
        return data

    # ---- before an export is chosen

    def hello(self, flags=3):
        assert self.take(16) == b"NBDMAGICIHAVEOPT"
        assert struct.unpack(">H", self.take(2))[0] == 3
        self.send(struct.pack(">I", flags))
        return self

    def option(self, number, data=b""):
        """All answers to it: (type, data)."""
        self.send(b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data)
        answers = []
        while True:
            magic, option, kind, length = struct.unpack(">QIII", self.take(20))
            assert magic == 0x3e889045565a9 and option == number
            answers.append((kind, self.take(length)))
            if kind == ACK or kind >> 31:
                return answers

    def go(self, export="", structured=True, contexts=("base:allocation",)):
        if structured:
            assert self.option(STRUCTURED_REPLY)[0][0] == ACK
            self.structured = True
            self.option(SET_META_CONTEXT, name(export) + struct.pack(">I", len(contexts)) + b"".join(map(name, contexts)))
        answers = self.option(GO, name(export) + struct.pack(">HH", 1, 3))
        assert answers[-1][0] == ACK, answers
        for kind, data in answers:
            if kind == 3 and data[:2] == b"\0\0":
                self.size, self.flags = struct.unpack(">QH", data[2:])
        return self

    # ---- then

    def request(self, command, offset=0, length=0, flags=0, data=b""):
        self.cookie += 1
        self.send(struct.pack(">IHHQQI", 0x25609513, flags, command, self.cookie, offset, length) + data)
        return self.cookie

    def answer(self, command, offset=0, length=0):
        """Of the one request that is under way: bytes of a read, extents of a status by context, or None."""
        magic = struct.unpack(">I", self.take(4))[0]
        if magic == 0x67446698:
            error, cookie = struct.unpack(">IQ", self.take(12))
            assert cookie == self.cookie
            if error:
                raise Failed(error)
            return self.take(length) if command == READ else None
        result, data, told, done = None, bytearray(length if command == READ else 0), 0, False
        status, failure = {}, 0
        while True:
            assert magic == 0x668e33ef
            flags, kind, cookie, size = struct.unpack(">HHQI", self.take(16))
            assert cookie == self.cookie and size < 1 << 26
            body, done = self.take(size), flags & 1
            if kind == 1:
                at, = struct.unpack(">Q", body[:8])
                data[at - offset:at - offset + size - 8] = body[8:]
                told += size - 8
            elif kind == 2:
                at, n = struct.unpack(">QI", body)
                data[at - offset:at - offset + n] = bytes(n)
                told += n
            elif kind == 5:
                words = struct.unpack(f">{size // 4}I", body)
                status[words[0]] = list(zip(words[1::2], words[2::2]))
            elif kind >> 15:
                failure, = struct.unpack(">I", body[:4])
            if done:
                break
            magic, = struct.unpack(">I", self.take(4))
        if failure:
            raise Failed(failure)
        assert command != READ or told == length == len(data)
        result = bytes(data) if command == READ else status or None
        return result

    def do(self, command, offset=0, length=0, flags=0, data=b""):
        self.request(command, offset, length, flags, data)
        return self.answer(command, offset, length)


class Server:
    """`tabique disk serve`, until it can be used; ended, and held to have ended well, at the end."""

    def __init__(self, *words, status=0, **options):
        self.status = status
        self.process = subprocess.Popen([TABIQUE, "disk", "serve", *map(str, words)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        self.uri = self.process.stdout.readline().strip()

    def child(self):
        """The process that serves."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as file:
            return int(file.read())

    def end(self, sig=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err

    def __enter__(self):
        if not self.uri:
            raise AssertionError(self.end())
        return self

    def __exit__(self, kind, *_):
        status, _, err = self.end()
        assert kind or (status == self.status and not err), err

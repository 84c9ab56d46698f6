# SPDX-License-Identifier: GPL-2.0-or-later
"""Sockets between host and guest, with Debian's own driver: both directions, much data, half-closed connections, many at
once, and what becomes of them when the guest restarts or nobody listens."""
import hashlib
import os
import random
import socket
import threading
import time

import pytest

import program
from program import Terminal

PROMPT = rb"guest:\S*[#$] (\x1b\[6n)?$"
BOOT = 120  # seconds; other tests run at the same time
MIB = 1 << 20


@pytest.fixture
def initrd(suite):
    peer = program.BUILD / "tests/guest/vsock_peer"
    return program.initrd_with(suite, "initrd-vsock.gz", "--modules", "vmw_vsock_virtio_transport", "--add", f"bin/vsock_peer={peer}")


class Guest(Terminal):
    def __init__(self, engine, suite, initrd, path, *args):
        super().__init__("run", "--engine", engine, "--kernel", program.GUESTS / suite / "vmlinuz", "--initrd", initrd,
                         "--append", "quiet console=ttyS0", "--vsock", path, *args)
        self.path = str(path)
        self.shell()

    def shell(self):
        self.expect(PROMPT, BOOT)
        self.ask("stty -echo")

    def ask(self, command, timeout=BOOT):
        self.send(command.encode() + b"\r")
        return self.expect(rb"(?s)^(.*)" + PROMPT, timeout).group(1).decode(errors="replace").replace("\r", "").strip()

    def serve(self, port):
        self.ask(f"vsock_peer serve {port} >/tmp/log 2>&1 & while ! grep -q serving /tmp/log; do sleep 0.1; done")

    def connect(self, port, greeting=True):
        """A host program's connection to the guest's port."""
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(BOOT)
        s.connect(self.path)
        s.sendall(f"CONNECT {port}\n".encode())
        if greeting:
            line = b""
            while not line.endswith(b"\n"):
                byte = s.recv(1)
                assert byte, f"closed after {line!r}"
                line += byte
            assert line.startswith(b"OK ") and int(line[3:]) >= 1024
        return s

    def power_off(self):
        self.send(b"poweroff -f\r")
        assert self.wait(BOOT) == 0
        assert not os.path.exists(self.path)


class EchoServer:
    """What the guest reaches at CID 2 and this port."""

    def __init__(self, path, port):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(f"{path}_{port}")
        self.socket.listen(4)  # fewer than come at once: who finds no room waits
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    @staticmethod
    def _echo(connection):
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def echoed(connection, data):
    """Sends while it receives; what came back until the guest's end."""
    def send():
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    back = hashlib.sha256()
    count = 0
    while part := connection.recv(65536):
        back.update(part)
        count += len(part)
    sender.join(BOOT)
    return count, back.hexdigest()


def test_transfers(engine, suite, initrd, tmp_path):
    size = 100 * MIB if engine == "soft" and suite == "trixie" else 8 * MIB
    path = tmp_path / "sock"
    data = random.Random(1).randbytes(size)
    with Guest(engine, suite, initrd, path, "--cpus", "2", "--vsock-cid", "77") as guest, EchoServer(path, 99):
        guest.serve(7)
        with guest.connect(7) as connection:
            start = time.monotonic()
            assert echoed(connection, data) == (size, hashlib.sha256(data).hexdigest())
            print(f"host to guest and back: {2 * size / MIB / (time.monotonic() - start):.0f} MiB/s")
        start = time.monotonic()
        sent, got = guest.ask(f"vsock_peer send 99 {size}", 300).splitlines()
        print(f"guest to host and back: {2 * size / MIB / (time.monotonic() - start):.0f} MiB/s")
        assert sent.split()[0] == "sent" and got.split()[0] == "got"
        assert sent.split()[1:] == got.split()[1:] and got.split()[1] == str(size)
        assert guest.ask("dmesg -r | grep '^<[0-4]>' | grep -i -e vsock -e virtio || echo none") == "none"
        guest.power_off()


def test_many_and_refused(engine, suite, initrd, tmp_path):
    path = tmp_path / "sock"
    with Guest(engine, suite, initrd, path) as guest, EchoServer(path, 99):
        guest.serve(7)
        assert guest.ask("vsock_peer many 99 200") == "all 200"
        connections = [guest.connect(7) for _ in range(100)]
        for i, connection in enumerate(connections):
            connection.sendall(f"{i:08d}".encode())
        for i, connection in enumerate(connections):
            assert connection.recv(8, socket.MSG_WAITALL) == f"{i:08d}".encode()
        for connection in connections:
            connection.close()
        # Nobody listens, here or there; and who does not say CONNECT is shown the door.
        assert "reset" in guest.ask("vsock_peer send 98 1 2>&1").lower()
        assert guest.connect(8, greeting=False).recv(16) == b""
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(BOOT)
            stranger.connect(str(path))
            stranger.sendall(b"GET / HTTP/1.0\n")
            assert stranger.recv(16) == b""
        # One that does not read stops itself alone.
        with guest.connect(7) as lazy, guest.connect(7) as busy:
            lazy.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    lazy.send(b"x" * 65536)
            busy.sendall(b"hello")
            assert busy.recv(5, socket.MSG_WAITALL) == b"hello"
        guest.power_off()


def test_restart_in_the_middle(engine, suite, initrd, tmp_path):
    path = tmp_path / "sock"
    with Guest(engine, suite, initrd, path) as guest:
        guest.serve(7)
        connection = guest.connect(7)
        connection.settimeout(1)
        guest.send(b"sleep 1; reboot -f\r")
        deadline = time.monotonic() + BOOT
        with pytest.raises((ConnectionError, EOFError)):
            while time.monotonic() < deadline:
                try:
                    connection.sendall(b"x" * 4096)
                    if not connection.recv(65536):
                        raise EOFError
                except TimeoutError:
                    pass
        guest.shell()
        guest.serve(7)
        with guest.connect(7) as again:
            again.sendall(b"back")
            assert again.recv(4, socket.MSG_WAITALL) == b"back"
        guest.power_off()


def test_paths(echo_guest, tmp_path):
    """A dead process's socket is taken over; a living one's, and other files, are left alone."""
    path = tmp_path / "sock"
    command = ["run", "--kernel", echo_guest, "--append", "exit", "--debug-exit", "--vsock", path]
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    result = program.run(*command)
    assert result.returncode == 33 and result.stderr == ""  # the guest's own: it has passed
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        result = program.run(*command)
        assert result.returncode == 1 and "somebody listens there" in result.stderr
    path.unlink()
    path.write_text("mine")
    result = program.run(*command)
    assert result.returncode == 1 and "a file of another kind" in result.stderr
    assert path.read_text() == "mine"
    result = program.run(*command[:-1], tmp_path / "none/sock")
    assert result.returncode == 1 and "No such file or directory" in result.stderr

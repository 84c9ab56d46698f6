# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that an NBD server has: those of nbdkit, qemu-nbd and our own; with TLS; and servers that nobody would want."""
import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import threading
import time

import nbd
import pytest

from disk_programs import disk
from nbd import Client, Server
from program import TABIQUE, run
from test_disk_serve import STEPS, identities, image, tool  # noqa: F401 (a fixture)

MIB = 1 << 20


@contextlib.contextmanager
def other(*words, where):
    """Another program's server, until it can be used."""
    with subprocess.Popen([*map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 20
            while True:
                with socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET) as probe, \
                        contextlib.suppress(OSError):
                    probe.connect(where)
                    break
                assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
                time.sleep(0.05)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)


def uri(where, more=""):
    return f"nbd+unix:///?socket={where}{more}"


@pytest.mark.parametrize("server", ["nbdkit", "nbdkit-plain", "qemu-nbd"])
def test_others_servers(tmp_path, server):
    where = str(tmp_path / "s")
    source = image(tmp_path / "a.raw")
    odd = server == "nbdkit-plain"  # no structured replies, no zeroing, and a size that is no multiple of a sector
    if odd:
        os.truncate(source, 24 * MIB - 100)
    words = {"nbdkit": ["nbdkit", "-f", "-U", where, "file", source],
             "nbdkit-plain": ["nbdkit", "-f", "-U", where, "--no-sr", "--filter=nozero", "file", source],
             "qemu-nbd": ["qemu-nbd", "-t", "-k", where, "-f", "raw", "-e", "10", source]}[server]
    with other(*words, where=where):
        assert json.loads(disk("info", "--json", uri(where)).stdout)["virtual-size"] == 24 * MIB
        disk("convert", "-O", "qcow2", uri(where), tmp_path / "a.qcow2")
        disk("compare", "-s", uri(where), tmp_path / "a.qcow2")
        pieces = json.loads(disk("map", "--json", uri(where)).stdout)
        assert sum(p["length"] for p in pieces) == 24 * MIB
        assert odd or sum(p["length"] for p in pieces if p["zero"]) >= 20 * MIB
        if server == "qemu-nbd":  # nbdkit's file goes by any name
            assert "no export 'x'" in disk("info", f"nbd+unix:///x?socket={where}", status=1).stderr
    os.truncate(source, 24 * MIB)
    tool("qemu-img", "compare", "-f", "raw", "-F", "qcow2", source, tmp_path / "a.qcow2")


def test_converting_is_confined(tmp_path):
    """All threads of it, from before the first byte of the disk is read; who names the file reads nothing."""
    where, target = str(tmp_path / "s"), tmp_path / "a.qcow2"
    with other("nbdkit", "-f", "-U", where, "--filter=delay", "pattern", "64M", "delay-read=1", where=where):
        job = subprocess.Popen([TABIQUE, "disk", "convert", "-O", "qcow2", "-c", uri(where), target])
        try:
            tasks, deadline = [], time.monotonic() + 20
            while len(tasks) < 2 and time.monotonic() < deadline and job.poll() is None:
                time.sleep(0.01)
                tasks = list(pathlib.Path(f"/proc/{job.pid}/task").iterdir())
            assert len(tasks) >= 2
            for task in tasks:
                status = dict(line.split(":\t", 1) for line in (task / "status").read_text(encoding="ascii").splitlines())
                assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1"
            children = pathlib.Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text(encoding="ascii").split()
            assert [pathlib.Path(f"/proc/{c}/comm").read_text(encoding="ascii") for c in children] == ["tabique-namer\n"]
            assert not target.exists()
        finally:
            job.kill()
            job.wait()
        deadline = time.monotonic() + 10
        while pathlib.Path(f"/proc/{children[0]}").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert list(tmp_path.glob("*a.qcow2*")) == []


@pytest.mark.parametrize("server", ["ours", "qemu-nbd", "nbdkit-plain"])
def test_written_through_a_server_of_ours(tmp_path, server):
    """A disk of a server, served on by ours: requests of all kinds, many at once, go both ways."""
    size, chance = 3 * MIB, random.Random(11)
    path, where, front = tmp_path / "a.raw", str(tmp_path / "s"), tmp_path / "front"
    disk("create", path, size)
    model = bytearray(size)
    words = {"qemu-nbd": ["qemu-nbd", "-t", "-k", where, "-f", "raw", "-e", "10", path],
             "nbdkit-plain": ["nbdkit", "-f", "-U", where, "--no-sr", "--filter=nozero", "file", path]}.get(server)
    with other(*words, where=where) if words else Server(path, "--socket", where, "--persistent"), \
            Server(uri(where), "--socket", front, "--persistent"):
        client = Client(front).hello().go()
        for step in range(STEPS // 2):
            offset = chance.randrange(size) & ~511
            length = min(chance.choice([512, 4096, 70144, 1 << 20]), size - offset)
            kind = chance.choice([nbd.READ, nbd.WRITE, nbd.WRITE, nbd.WRITE_ZEROES, nbd.FLUSH])
            data = chance.randbytes(length) if kind == nbd.WRITE else b""
            got = client.do(kind, offset, length, 0, data) if kind != nbd.FLUSH else client.do(kind)
            if kind == nbd.READ:
                assert got == model[offset:offset + length], step
            elif kind in (nbd.WRITE, nbd.WRITE_ZEROES):
                model[offset:offset + length] = data or bytes(length)
        for i in range(100):  # at once
            client.request(nbd.WRITE, i * 20480, 20480, 0, bytes([i]) * 20480)
            model[i * 20480:(i + 1) * 20480] = bytes([i]) * 20480
        assert {struct.unpack(">IIQ", client.take(16))[1] for _ in range(100)} == {0}
        client.do(nbd.FLUSH)
        assert client.do(nbd.READ, 0, size) == model
        client.close()
    assert path.read_bytes() == model


def test_tls(tmp_path, identities):  # noqa: F811
    ours, keys, where = identities / "ours", identities / "keys.psk", str(tmp_path / "s")
    source = image(tmp_path / "a.raw")
    with other("nbdkit", "-f", "-p", "10871", "--tls=require", f"--tls-certificates={ours}", "--tls-verify-peer", "file", source,
               where=("127.0.0.1", 10871)):
        disk("compare", "-s", f"nbds://localhost:10871/?tls-certificates={ours}", source)
        disk("convert", f"nbds://127.0.0.1:10871?tls-certificates={ours}", tmp_path / "copy.raw")
        assert "wants TLS" in disk("info", "nbd://localhost:10871", status=1).stderr
        assert "certificate" in disk("info", f"nbds://localhost:10871/?tls-certificates={identities / 'theirs'}", status=1).stderr
        assert "certificate" in disk("info", f"nbds://localhost:10871/?tls-certificates={ours}&tls-hostname=other", status=1).stderr
    with other("nbdkit", "-f", "-U", where, "--tls=require", f"--tls-psk={keys}", "file", source, where=where):
        disk("compare", "-s", f"nbds+unix://bob@/?socket={where}&tls-psk-file={keys}", source)
        assert "TLS" in disk("info", f"nbds+unix://alice@/?socket={where}&tls-psk-file={identities / 'wrong.psk'}", status=1).stderr
        assert "none of 'eve'" in disk("info", f"nbds+unix://eve@/?socket={where}&tls-psk-file={keys}", status=1).stderr
    # Both ends ours.
    with Server(source, "--socket", where, "--persistent", "--read-only", "--tls-certificate", ours):
        disk("compare", "-s", f"nbds+unix:///?socket={where}&tls-certificates={ours}&tls-hostname=localhost", source)


def test_what_is_wrong_is_said(tmp_path):
    where = tmp_path / "s"
    for text, said in [(f"nbd+unix:///x?socket={where}", "No such file"), ("nbd+unix:///x", "say where the socket is"),
                       ("nbd://", "say nbd://HOST"), ("nbd://localhost:1/", "refused"), ("nbd://localhost/?what=1", "'what' is unknown"),
                       (f"nbds+unix:///?socket={where}", "TLS needs")]:
        assert said in disk("info", text, status=1).stderr, text
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(where))
        listener.listen(8)
        for says, said in [(b"", "closed"), (b"SSH-2.0-OpenSSH_9.2p1 and so on\r\n", "no server of NBD"),
                           (b"NBDMAGICIHAVEOPT\0\3" + bytes(20), "does not speak")]:
            def answer(text=says):
                connection = listener.accept()[0]
                connection.sendall(text)
                connection.shutdown(socket.SHUT_WR)
                with contextlib.suppress(OSError):
                    while connection.recv(100):
                        pass
                connection.close()
            thread = threading.Thread(target=answer)
            thread.start()
            assert said in disk("info", uri(where), status=1).stderr
            thread.join(20)
    # One that ends in the middle of a copy.
    where.unlink()
    source = image(tmp_path / "a.raw")
    with Server(source, "--socket", where, "--persistent", "--read-only") as server:
        assert "as raw" in disk("info", "-f", "qcow2", uri(where), status=1).stderr
        server.status = -signal.SIGKILL
        assert "read only" in run("disk", "serve", uri(where), "--socket", tmp_path / "front").stderr
        with Server(uri(where, "&reconnect=1"), "--socket", tmp_path / "front", "--read-only", "--persistent"):
            with Client(tmp_path / "front").hello().go() as client:
                assert client.do(nbd.READ, 0, 4096) == source.read_bytes()[:4096]
                server.process.kill()
                server.process.wait()
                with pytest.raises(nbd.Failed, match="^5$"):
                    client.do(nbd.READ, 8192, 4096)

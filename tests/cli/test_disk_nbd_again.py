# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers that end and come back: their clients go on, and what a server had lost it is told again."""
import os
import random
import shutil
import signal
import subprocess
import time

import nbd
import pytest

import program
from disk_programs import disk
from life import run_with_disks
from nbd import Client, Server
from program import TABIQUE
from test_disk_nbd import other, uri
from test_disk_serve import image

MIB = 1 << 20
STEPS = int(os.environ.get("TABIQUE_NBD_AGAIN_STEPS", "600"))
KILLS = 4

pytestmark = pytest.mark.skipif(not shutil.which("nbdkit"), reason="nbdkit is not there")


class Forgetful:
    """A server that keeps what is written in its memory until it is told to flush, and can be killed."""

    def __init__(self, path, where):
        # Its cache does not know of the file's holes, which are told as such whatever was written there.
        self.words = ["nbdkit", "-f", "-U", str(where), "--filter=noextents", "--filter=cache", "file", str(path),
                      "cache=writeback"]
        self.where, self.process = where, None

    def start(self):
        if os.path.exists(self.where):
            os.unlink(self.where)
        self.process = subprocess.Popen(self.words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not os.path.exists(self.where):
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()


def test_nothing_is_lost_with_a_server(tmp_path):
    """A disk served on by ours, whose own server is killed again and again: each read is right, and after a flush the file
    has everything. (Without what ours writes again, the file lacks what was not flushed: the killed server had it.)"""
    size, chance = 3 * MIB, random.Random(5)
    path, where, front = tmp_path / "a.raw", tmp_path / "s", tmp_path / "front"
    disk("create", path, size)
    model = bytearray(size)
    kills = sorted(chance.sample(range(10, STEPS), KILLS))
    with Forgetful(path, where) as server, Server(uri(where), "--socket", front, "--persistent"), Client(front, 60) as client:
        client.hello().go()
        for step in range(STEPS):
            kind = chance.choice([nbd.READ, nbd.WRITE, nbd.WRITE, nbd.WRITE, nbd.WRITE_ZEROES])
            offset = chance.randrange(size // 512) * 512
            length = min(chance.choice([512, 4096, 65536, 300 * 1024]), size - offset)
            if kind == nbd.READ:
                assert client.do(nbd.READ, offset, length) == model[offset:offset + length], step
            elif kind == nbd.WRITE:
                data = chance.randbytes(length)
                client.do(nbd.WRITE, offset, length, 0, data)
                model[offset:offset + length] = data
            else:
                client.do(nbd.WRITE_ZEROES, offset, length)
                model[offset:offset + length] = bytes(length)
            if step in kills:
                server.kill()
                if step == kills[1]:  # what is asked for while there is nobody
                    client.request(nbd.READ, 0, size)
                    time.sleep(0.7)
                server.start()
                if step == kills[1]:
                    assert client.answer(nbd.READ, 0, size) == model
        client.do(nbd.FLUSH)
        server.kill()
        assert path.read_bytes() == model
        server.start()


def copying(job):
    """Waits until the command has all that it needs, and reads."""
    deadline = time.monotonic() + 20
    while job.poll() is None and len(os.listdir(f"/proc/{job.pid}/task")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert job.poll() is None


def test_a_command_goes_on(tmp_path):
    where = str(tmp_path / "s")
    source = image(tmp_path / "a.raw")
    slow = ["nbdkit", "-f", "-U", where, "--filter=delay", "file", source, "delay-read=600ms"]
    with other(*slow, where=where) as server:
        job = subprocess.Popen([TABIQUE, "disk", "convert", "-O", "qcow2", uri(where), tmp_path / "a.qcow2"], stderr=subprocess.PIPE)
        copying(job)
        server.kill()
        server.wait()
    os.unlink(where)
    with other("nbdkit", "-f", "-U", where, "file", source, where=where):
        _, said = job.communicate(timeout=60)
    assert job.returncode == 0, said
    disk("compare", "-s", "-f", "raw", source, tmp_path / "a.qcow2")


@pytest.mark.parametrize("back", [None, "2M", "64M"], ids=["nobody", "smaller", "larger"])
def test_it_is_given_up(tmp_path, back):
    """Nobody comes back within the time that was said; or one who has another disk."""
    where = str(tmp_path / "s")
    with other("nbdkit", "-f", "-U", where, "--filter=delay", "pattern", "32M", "delay-read=100ms", where=where) as server:
        job = subprocess.Popen([TABIQUE, "disk", "convert", "-O", "raw", uri(where, "&reconnect=2"), tmp_path / "x"],
                               stderr=subprocess.PIPE, text=True)
        copying(job)
        server.send_signal(signal.SIGKILL)
        server.wait()
    os.unlink(where)
    start = time.monotonic()
    if back:
        with other("nbdkit", "-f", "-U", where, "pattern", back, where=where):
            _, said = job.communicate(timeout=30)
    else:
        _, said = job.communicate(timeout=30)
        assert 0.5 < time.monotonic() - start < 15
    assert job.returncode == 1 and "reading it" in said, said
    assert ("No such device" if back else "not connected") in said, said
    assert not (tmp_path / "x").exists()


def test_never(tmp_path):
    where = str(tmp_path / "s")
    assert "reconnect=x: give seconds" in disk("info", uri(where, "&reconnect=x"), status=1).stderr
    with other("nbdkit", "-f", "-U", where, "--filter=delay", "pattern", "32M", "delay-read=100ms", where=where) as server:
        job = subprocess.Popen([TABIQUE, "disk", "convert", "-O", "raw", uri(where, "&reconnect=0"), tmp_path / "x"],
                               stderr=subprocess.PIPE, text=True)
        copying(job)
        server.kill()
        _, said = job.communicate(timeout=10)
    assert job.returncode == 1 and "not connected" in said


@pytest.mark.skipif("soft" not in program.engines(), reason="this host can't run the engine soft")
@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_a_guest_goes_on(home, tmp_path, suite):
    """It reads and writes a server's disk from the confined process, and flushes what the killed server had forgotten."""
    path, where = tmp_path / "a.raw", tmp_path / "s"
    disk("create", path, "16M")
    with Forgetful(path, where) as server:
        guest = run_with_disks(suite, uri(where))
        fill = "tr '\\0' '\\{:03o}' </dev/zero | dd of=/dev/vda bs=1M count=1 seek={} iflag=fullblock oflag=direct conv=notrunc 2>&1"
        guest.ask(fill.format(1, 0))
        for i in range(2):
            server.kill()
            server.start()
            guest.ask(fill.format(2 + i, 1 + i))
        assert "1+0 records out" in guest.ask("dd if=/dev/vda of=/dev/null bs=1M count=1 iflag=direct 2>&1")
        assert "ok" in guest.ask("sync && blockdev --flushbufs /dev/vda && echo o''k; dd if=/dev/zero of=/dev/vda bs=512 seek=32000 "
                                 "count=1 conv=fsync 2>&1")
        server.kill()
        assert path.read_bytes()[:3 * MIB] == b"\1" * MIB + b"\2" * MIB + b"\3" * MIB
        server.start()
        home.do("kill", "web")

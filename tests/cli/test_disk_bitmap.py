# SPDX-License-Identifier: GPL-2.0-or-later
"""Persistent bitmaps of qcow2 images: what one of us and QEMU has recorded the other reads, and goes on with."""
import json
import os
import random
import signal
import struct
import subprocess
import time

import pytest

from disk_programs import disk, qemu_img, qemu_io
from nbd import BLOCK_STATUS, TRIM, WRITE, WRITE_ZEROES, Client, Server
from program import run

MIB = 1 << 20
KIB = 1 << 10
STEPS = int(os.environ.get("TABIQUE_BITMAP_STEPS", "60"))


def ours(image):
    return {b["name"]: b for b in json.loads(disk("bitmap", "--json", "list", image).stdout)}


def sound(image):
    """No space leaks, for either."""
    qemu_img("check", image)
    disk("check", image)


def mapped(uri, name):
    out = subprocess.run(["nbdinfo", "--json", f"--map=qemu:dirty-bitmap:{name}", uri], check=True, capture_output=True,
                         text=True, timeout=60).stdout
    return [(e["offset"], e["length"]) for e in json.loads(out) if e["type"] & 1]


def theirs(image, name):
    """What QEMU says has changed."""
    where = f"{image}.sock"
    with subprocess.Popen(["qemu-nbd", "-r", "-f", "qcow2", "-k", where, "-t", "-B", name, image]) as server:
        try:
            for _ in range(200):
                if os.path.exists(where):
                    break
                time.sleep(0.02)
            return mapped(f"nbd+unix:///?socket={where}", name)
        finally:
            server.terminate()


def units(pieces, unit):
    return {n for at, length in pieces for n in range(at // unit, (at + length + unit - 1) // unit)}


def record(image, sock, steps, seed, size=20 * MIB):
    """Requests of our own: all of what they touch."""
    chance = random.Random(seed)
    touched = []
    with Server(image, "-f", "qcow2", "--socket", sock, "--persistent", "--follow"), Client(sock) as client:
        client.hello().go()
        for _ in range(steps):
            at = chance.randrange(size // 512) * 512
            length = min(chance.choice([512, 4096, 70 * KIB, 300 * KIB]), size - at)
            what = chance.choice([WRITE, WRITE, TRIM, WRITE_ZEROES])
            client.do(what, at, length, 0, chance.randbytes(length) if what == WRITE else b"")
            touched.append((at, length))
    return touched


@pytest.mark.parametrize("options", ["", "cluster_size=512", "cluster_size=4k,refcount_bits=1", "cluster_size=2M"])
def test_recorded_by_both(tmp_path, options):
    image, base = tmp_path / "a", tmp_path / "base"
    qemu_img("create", "-q", "-f", "raw", base, "9M")
    qemu_img("create", "-q", "-f", "qcow2", *(["-o", options] if options else []), "-b", base, "-F", "raw", image, "20M")
    disk("bitmap", "add", image, "ours")
    qemu_img("bitmap", "--add", "-g", "512", image, "theirs")
    disk("bitmap", "add", "-g", "32k", image, "off")
    disk("bitmap", "disable", image, "off")
    info = json.loads(qemu_img("info", "--output=json", image).stdout)
    assert info["full-backing-filename"] == str(base) and info["backing-filename-format"] == "raw"
    listed = info["format-specific"]["data"]["bitmaps"]
    assert [(b["name"], b["granularity"], b["flags"]) for b in listed] == \
        [(b["name"], b["granularity"], b["flags"]) for b in ours(image).values()]
    assert json.loads(disk("info", "--json", image).stdout)["format-specific"]["bitmaps"] == 3
    touched = record(image, tmp_path / "s", STEPS, options)
    sound(image)
    qemu_io(image, "write 19M 100k", "discard 1M 64k")
    touched += [(19 * MIB, 100 * KIB), (MIB, 64 * KIB)]
    touched += record(image, tmp_path / "s", STEPS // 4, 2)
    sound(image)
    for name, bitmap in ours(image).items():
        unit = bitmap["granularity"]
        want = set() if name == "off" else units(touched, unit)
        assert units(theirs(image, name), unit) == want
        assert bitmap["dirty"] == sum(min(unit, 20 * MIB - n * unit) for n in want)
    for name in ("ours", "off", "theirs"):
        disk("bitmap", "remove", image, name)
    info = json.loads(qemu_img("info", "--output=json", image).stdout)
    assert info["full-backing-filename"] == str(base) and "bitmaps" not in info["format-specific"]["data"]
    sound(image)


def test_verbs(tmp_path):
    image = tmp_path / "a"
    qemu_img("create", "-q", "-f", "qcow2", image, "8M")
    disk("bitmap", "add", "-g", "4k", image, "a")
    qemu_io(image, "write 1M 8k")
    disk("bitmap", "add", image, "b")
    qemu_io(image, "write 3M 4k")
    disk("bitmap", "merge", image, "b", "a")
    assert ours(image)["b"]["dirty"] == 128 * KIB and units(theirs(image, "b"), 64 * KIB) == {16, 48}
    disk("bitmap", "clear", image, "a")
    disk("bitmap", "disable", image, "b")
    qemu_io(image, "write 5M 4k")
    record(image, tmp_path / "s", 3, 1, 64 * KIB)
    assert theirs(image, "b") == [(MIB, 64 * KIB), (3 * MIB, 64 * KIB)]
    disk("bitmap", "enable", image, "b")
    qemu_io(image, "write 7M 4k")
    assert (7 * MIB, 64 * KIB) in theirs(image, "b") and (7 * MIB, 4 * KIB) in theirs(image, "a")
    assert "has a bitmap 'a' already" in disk("bitmap", "add", image, "a", status=1).stderr
    assert "has no bitmap 'c'" in disk("bitmap", "clear", image, "c", status=1).stderr
    assert "power of 2" in disk("bitmap", "add", "-g", "3000", image, "c", status=1).stderr
    assert "needs NAME and SOURCE" in disk("bitmap", "merge", image, "a", status=2).stderr
    assert "greater granularity" in disk("bitmap", "add", "-g", "512", make_large(tmp_path), "c", status=1).stderr
    qemu_img("create", "-q", "-f", "qcow2", "-o", "compat=0.10", tmp_path / "two", "1M")
    assert "version 2" in disk("bitmap", "add", tmp_path / "two", "c", status=1).stderr
    assert "keeps no bitmaps" in disk("bitmap", "-f", "raw", "list", image, status=1).stderr
    sound(image)


def make_large(tmp_path):
    qemu_img("create", "-q", "-f", "qcow2", tmp_path / "large", "1T")
    return tmp_path / "large"


def test_sizes_and_snapshots(tmp_path):
    """Bits go with the disk's size; what is new, and what a snapshot brings back, has changed, all of it."""
    image = tmp_path / "a"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", image, "8M")
    disk("snapshot", "create", image, "s")
    disk("bitmap", "add", "-g", "512", image, "a")
    disk("bitmap", "add", "-g", "512", image, "off")
    qemu_io(image, "write 7M 1M")
    disk("bitmap", "disable", image, "off")
    disk("resize", image, "24M")
    assert theirs(image, "a") == [(7 * MIB, 17 * MIB)] and theirs(image, "off") == [(7 * MIB, MIB)]
    disk("resize", "--shrink", image, f"{7 * MIB + 512 * 3}")
    disk("resize", image, "16M")
    # What is beyond a smaller end is gone; where the disk has it again, it is zeros, which a copy of before has not.
    assert theirs(image, "a") == [(7 * MIB, 9 * MIB)] and theirs(image, "off") == [(7 * MIB, 512 * 3)]
    sound(image)
    disk("snapshot", "apply", image, "s")
    assert theirs(image, "a") == [(0, 8 * MIB)] and theirs(image, "off") == [(7 * MIB, 512 * 3)]
    disk("snapshot", "delete", image, "s")
    sound(image)


def test_base_renamed(tmp_path):
    image = tmp_path / "a"
    qemu_img("create", "-q", "-f", "qcow2", image, "8M")
    disk("bitmap", "add", image, "a")
    qemu_io(image, "write 1M 64k")
    qemu_img("create", "-q", "-f", "raw", tmp_path / ("b" * 200), "8M")
    disk("rebase", "-u", "-b", "b" * 200, "-F", "raw", image)
    assert theirs(image, "a") == [(MIB, 64 * KIB)]
    sound(image)


def test_unclean_end(tmp_path):
    image, sock = tmp_path / "a", tmp_path / "s"
    qemu_img("create", "-q", "-f", "qcow2", image, "8M")
    for name in ("on", "off"):
        disk("bitmap", "add", image, name)
    qemu_io(image, "write 1M 64k")
    disk("bitmap", "disable", image, "off")
    with Server(image, "-f", "qcow2", "--socket", sock, "--persistent", status=1) as server, Client(sock) as client:
        client.hello().go()
        assert client.do(WRITE, 0, 512, 0, bytes(512)) is None
        os.kill(server.child(), signal.SIGKILL)
        server.process.wait(timeout=30)
        server.end = lambda: (1, "", "")
    assert ours(image)["on"]["flags"] == ["in-use", "auto"] and "dirty" not in ours(image)["on"]
    assert theirs(image, "off") == [(MIB, 64 * KIB)]
    listed = json.loads(qemu_img("info", "--output=json", image).stdout)["format-specific"]["data"]["bitmaps"]
    assert listed[0]["flags"] == ["in-use", "auto"]
    for words in (("clear",), ("enable",), ("disable",)):
        assert "not stored by its last user" in disk("bitmap", *words, image, "on", status=1).stderr
    assert "not stored" in disk("bitmap", "merge", image, "off", "on", status=1).stderr
    qemu_io(image, "write 2M 64k")
    record(image, sock, 3, 1, 8 * MIB)
    disk("resize", image, "16M")
    assert ours(image)["on"]["flags"] == ["in-use", "auto"]
    disk("bitmap", "remove", image, "on")
    disk("repair", "-r", "leaks", image)
    assert list(ours(image)) == ["off"] and theirs(image, "off") == [(MIB, 64 * KIB)]
    sound(image)


def test_served(tmp_path):
    """What clients are told of a bitmap is what QEMU's server says of it, also beside other contexts."""
    image, sock = tmp_path / "a", tmp_path / "s"
    qemu_img("create", "-q", "-f", "qcow2", image, "20M")
    disk("bitmap", "add", "-g", "512", image, "a")
    record(image, sock, STEPS, 5)
    want = theirs(image, "a")
    with Server(image, "--socket", sock, "--persistent", "--bitmap", "a", "--read-only") as server:
        assert mapped(server.uri, "a") == want
        info = json.loads(subprocess.run(["nbdinfo", "--json", server.uri], check=True, capture_output=True, timeout=60).stdout)
        assert info["exports"][0]["contexts"] == ["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:a"]
        with Client(sock).hello().go(contexts=("qemu:dirty-bitmap:a", "base:allocation", "qemu:dirty-bitmap:b")) as client:
            answer = client.do(BLOCK_STATUS, 100, 10 * MIB)
            assert sorted(answer) == [1, 3] and sum(n for n, _ in answer[3]) <= 10 * MIB
            at = 100
            for length, state in answer[3]:
                assert state == any(start <= at < start + n for start, n in want)
                at += length
    # As it was when serving began, whatever is written since.
    with Server(image, "--socket", sock, "--persistent", "--bitmap", "a") as server:
        with Client(sock).hello().go() as client:
            client.do(WRITE_ZEROES, 0, 20 * MIB)
        assert mapped(server.uri, "a") == want
    assert theirs(image, "a") == [(0, 20 * MIB)]
    bad = run("disk", "serve", image, "--socket", sock, "--bitmap", "b", timeout=60)
    assert bad.returncode == 1 and "has no bitmap 'b'" in bad.stderr


def extension(image):
    """Where the bitmaps' extension has its data, and their directory."""
    with open(image, "rb") as file:
        head = file.read(4096)
    at = head.index(struct.pack(">II", 0x23852875, 24)) + 8
    return at, struct.unpack_from(">Q", head, at + 16)[0]


# Where, from the extension or the directory; the bytes; what is said; whether `list` can tell.
LIES = [
    ("e", 0, struct.pack(">I", 0), "none, more than"),
    ("e", 0, struct.pack(">I", 1 << 31), "none, more than"),
    ("e", 0, struct.pack(">I", 60000), "none, more than"),
    ("e", 0, struct.pack(">I", 2), "none, more than"),
    ("e", 8, struct.pack(">Q", 1 << 62), "more than"),
    ("e", 16, struct.pack(">Q", 0), "not in the file"),
    ("e", 16, struct.pack(">Q", 1 << 60), "not in the file"),
    ("d", 0, struct.pack(">Q", 1 << 55), "table is not in the file"),
    ("d", 0, struct.pack(">Q", 0), "table is not in the file"),
    ("d", 8, struct.pack(">I", 0xffffffff), "table is not in the file"),
    ("d", 12, struct.pack(">I", 0xf0), "mean nothing"),
    ("d", 16, b"\x09", "mean nothing"),
    ("d", 17, b"\x3f", "granularity"),
    ("d", 18, struct.pack(">H", 0), "a name has no byte"),
    ("d", 18, struct.pack(">H", 0xffff), "ends early"),
    ("d", 20, struct.pack(">I", 0xffffffff), "ends early"),
    ("t", 0, struct.pack(">Q", 1 << 50), "the table of bitmap 'a'"),
    ("t", 0, struct.pack(">Q", 0x1ff), "the table of bitmap 'a'"),
]


@pytest.mark.parametrize("where, at, data, said", LIES)
def test_lies(tmp_path, where, at, data, said):
    """Named; and who writes to the disk can, and leaves nothing behind that says more than it knows."""
    image = tmp_path / "a"
    qemu_img("create", "-q", "-f", "qcow2", image, "8M")
    disk("bitmap", "add", image, "a")
    qemu_io(image, "write 1M 64k")
    start, directory = extension(image)
    with open(image, "r+b") as file:
        file.seek(directory)
        table, = struct.unpack(">Q", file.read(8))
        file.seek({"e": start, "d": directory, "t": table}[where] + at)
        file.write(data)
    assert said in disk("bitmap", "list", image, status=1).stderr
    record(image, tmp_path / "s", 3, 1, 64 * KIB)
    left = json.loads(disk("bitmap", "--json", "list", image).stdout)
    assert all(b["flags"] == ["in-use", "auto"] for b in left)
    qemu_io(image, "read 1M 64k")

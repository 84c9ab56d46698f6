# SPDX-License-Identifier: GPL-2.0-or-later
"""Differencing VHD and VHDX images, which QEMU does not know: beside libvhdi's tools and a model of the format written here."""
import os
import random
import struct
import subprocess

import pytest

from disk_programs import disk, needs_libyal, qemu_img, read_by_libyal

MIB = 1 << 20
BLOCK = 2 * MIB
SIZE = 12 * MIB
mounts = needs_libyal("vhdimount", "libvhdi-utils")


class Vhd:
    """The bytes of a dynamic or differencing image that has its header at 512 and its table behind that."""

    def __init__(self, path):
        self.path, self.bytes = path, bytearray(path.read_bytes())
        self.table, self.blocks = struct.unpack_from(">Q", self.bytes, 512 + 16)[0], struct.unpack_from(">I", self.bytes, 512 + 28)[0]

    def checksums(self):
        for at, size, where in ((0, 512, 64), (512, 1024, 36)):
            self.bytes[at + where:at + where + 4] = bytes(4)
            total = ~sum(self.bytes[at:at + size]) & 0xffffffff
            self.bytes[at + where:at + where + 4] = struct.pack(">I", total)

    def save(self):
        self.checksums()
        self.bytes[-512:] = self.bytes[:512]
        self.path.write_bytes(self.bytes)

    def add_block(self, block, content):
        """`content`: sector -> 512 bytes. Only these are here, the others are the parent's, whatever lies in their place."""
        footer = self.bytes[-512:]
        del self.bytes[-512:]
        struct.pack_into(">I", self.bytes, self.table + 4 * block, len(self.bytes) // 512)
        bitmap, data = bytearray(512), bytearray(b"\xee" * BLOCK)
        for sector, value in content.items():
            bitmap[sector // 8] |= 0x80 >> sector % 8
            data[sector * 512:sector * 512 + 512] = value
        self.bytes += bitmap + data + footer


class Vhdx:
    """The same of a VHDX of ours with blocks of 1 MiB, whose table is at 3 MiB: of 4096 blocks an entry each, then one for
    the place of their sectors' bits."""

    table, block = 3 * MIB, MIB

    def __init__(self, path):
        self.path, self.bytes = path, bytearray(path.read_bytes())
        self.bits = len(self.bytes)
        self.bytes += bytes(MIB)
        struct.pack_into("<Q", self.bytes, self.table + 8 * 4096, self.bits | 6)

    def save(self):
        self.path.write_bytes(self.bytes)

    def add_block(self, block, content, state=7):
        struct.pack_into("<Q", self.bytes, self.table + 8 * block, len(self.bytes) | state)
        data = bytearray(b"\xee" * MIB)
        for sector, value in content.items():
            at = self.bits + 256 * block + sector // 8
            self.bytes[at] |= 1 << sector % 8
            data[sector * 512:sector * 512 + 512] = value
        self.bytes += data


@pytest.fixture
def vhdx(tmp_path):
    (tmp_path / "base.raw").write_bytes(random.Random(6).randbytes(7 * MIB) + bytes(SIZE - 7 * MIB))
    disk("convert", "-f", "raw", "-O", "vhdx", tmp_path / "base.raw", tmp_path / "base.vhdx")
    disk("create", "-f", "vhdx", "-b", "base.vhdx", "-F", "vhdx", "-o", "block_size=1M", tmp_path / "child.vhdx")
    return tmp_path / "child.vhdx"


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base.raw").write_bytes(random.Random(6).randbytes(7 * MIB) + bytes(SIZE - 7 * MIB))
    disk("convert", "-f", "raw", "-O", "vhd", tmp_path / "base.raw", tmp_path / "base.vhd")
    return tmp_path / "base.vhd"


@pytest.fixture
def child(tmp_path, base):
    disk("create", "-f", "vhd", "-b", "base.vhd", "-F", "vhd", tmp_path / "child.vhd")
    return tmp_path / "child.vhd"


def reads(image, out):
    disk("convert", "--follow", "-O", "raw", image, out)
    return out.read_bytes()


def check_new(tmp_path, image, base):
    """One that was just made: it shows what it is based on."""
    assert reads(image, tmp_path / "x") == (tmp_path / "base.raw").read_bytes()
    said = disk("info", image).stdout
    assert "type: differencing" in said and base in said
    assert "No errors" in disk("check", image).stdout
    assert "--follow" in disk("convert", image, tmp_path / "y", status=1).stderr


def test_a_new_one(tmp_path, child):
    check_new(tmp_path, child, "base.vhd")
    assert "can't have another size" in disk("resize", "--follow", child, "1G", status=1).stderr
    seen = subprocess.run(["vhdiinfo", child], capture_output=True, text=True, check=False, timeout=60).stdout
    assert "Differential" in seen and "base.vhd" in seen


@mounts
@pytest.mark.parametrize("eights", [True, False])
def test_sectors(tmp_path, child, eights):
    """Blocks of which only some sectors are here; ours, libvhdi's, and the model's reading of it. libvhdi takes all the
    sectors of a byte of the bitmap to be there that follow the first which is."""
    chance, model, image = random.Random(8), bytearray((tmp_path / "base.raw").read_bytes()), Vhd(child)
    for block in (0, 3, 4):
        sectors = [0, 1, 7, 8, 4095] + chance.sample(range(4096), 900)
        if eights:
            sectors = [s for first in sectors[::5] for s in range(first, first // 8 * 8 + 8)]
        content = {s: chance.randbytes(512) for s in sectors}
        image.add_block(block, content)
        for sector, value in content.items():
            model[block * BLOCK + sector * 512:block * BLOCK + sector * 512 + 512] = value
    image.save()
    assert reads(child, tmp_path / "x") == model
    assert "No errors" in disk("check", child).stdout
    if eights:
        assert read_by_libyal("vhdimount", child, tmp_path / "mount", 2) == model


@mounts
def test_written_and_read_by_libvhdi(tmp_path, child):
    """A chain of three, of which the last is written by a client of ours."""
    top, model = tmp_path / "top.vhd", bytearray((tmp_path / "base.raw").read_bytes())
    disk("create", "-f", "vhd", "-b", "child.vhd", "-F", "vhd", top)
    socket = tmp_path / "s"
    for image, commands in ((child, [(3, MIB, 70000 // 512 * 512)]), (top, [(4, 5 * MIB + 512, MIB), (5, 11 * MIB, 512)])):
        with subprocess.Popen([os.environ.get("TABIQUE", "build/tabique"), "disk", "serve", "--follow", image, "--socket",
                               socket, "--pid-file", tmp_path / "pid"], stdout=subprocess.PIPE) as server:
            server.stdout.readline()
            words = [w for value, at, n in commands for w in ("-c", f"write -P {value} {at} {n}")]
            subprocess.run(["qemu-io", "-f", "raw", *words, "-c", "flush", f"nbd+unix:///?socket={socket}"], check=True,
                           capture_output=True, timeout=60)
            server.wait(timeout=30)
        for value, at, n in commands:
            model[at:at + n] = bytes([value]) * n
        assert reads(image, tmp_path / "x") == model
    assert read_by_libyal("vhdimount", top, tmp_path / "mount", 3) == model
    assert len(json_map(top)) > 3


def json_map(image):
    return disk("map", "--follow", image).stdout.splitlines()


@pytest.mark.parametrize("name, part", [("child.vhd", "based on itself"), ("none.vhd", "none.vhd"), ("/dev/zero", "neither"),
                                        ("other.vhd", "another ID"), ("a.qcow2", "not a VHD")])
def test_parents_that_lie(tmp_path, child, name, part):
    disk("create", "-f", "vhd", tmp_path / "other.vhd", "12M")
    qemu_img("create", "-q", "-f", "qcow2", tmp_path / "a.qcow2", "12M")
    image = Vhd(child)
    offset = struct.unpack_from(">Q", image.bytes, 512 + 576 + 16)[0]
    new = name.replace("/", "\\").encode("utf-16-le")
    image.bytes[offset:offset + 128] = new.ljust(128, b"\0")
    struct.pack_into(">I", image.bytes, 512 + 576 + 8, len(new))
    image.save()
    assert part in disk("convert", "--follow", child, tmp_path / "x", status=1).stderr


@pytest.mark.parametrize("at, value, part", [(576 + 8, 0x7fffffff, "does not fit"), (576 + 16, 0xffffffff, "does not fit"),
                                             (576 + 16, 0x00000100, "behind its end")])
def test_locators_that_lie(tmp_path, child, at, value, part):
    image = Vhd(child)
    struct.pack_into(">I", image.bytes, 512 + at, value)
    image.save()
    assert part in disk("convert", "--follow", child, tmp_path / "x", status=1).stderr


def test_without_locators(tmp_path, child):
    """By the name alone, as that of the file beside it."""
    image = Vhd(child)
    image.bytes[512 + 576:512 + 576 + 24] = bytes(24)
    image.save()
    assert reads(child, tmp_path / "x") == (tmp_path / "base.raw").read_bytes()


def test_a_new_vhdx(tmp_path, vhdx):
    check_new(tmp_path, vhdx, "base.vhdx")
    subprocess.run(["qemu-io", "-f", "vhdx", "-c", "write -P 1 0 64k", tmp_path / "base.vhdx"], check=True, capture_output=True,
                   timeout=60)
    assert "written since" in disk("convert", "--follow", vhdx, tmp_path / "y", status=1).stderr


@mounts
@pytest.mark.parametrize("eights", [True, False])
def test_sectors_of_vhdx(tmp_path, vhdx, eights):
    """libvhdi goes by the bits alone, whatever the states of blocks say: it is asked where the two agree."""
    chance, model, image = random.Random(9), bytearray((tmp_path / "base.raw").read_bytes()), Vhdx(vhdx)
    for block in (0, 3, 6, 8, 11):
        sectors = [0, 1, 7, 8, 2047] + chance.sample(range(2048), 500)
        if eights:
            sectors = [s for first in sectors[::5] for s in range(first // 8 * 8, first // 8 * 8 + 8)]
        content = {s: chance.randbytes(512) for s in sectors}
        image.add_block(block, content)
        for sector, value in content.items():
            model[block * MIB + sector * 512:block * MIB + sector * 512 + 512] = value
    if eights:
        image.save()
        assert read_by_libyal("vhdimount", vhdx, tmp_path / "mount", 2) == model
    # "Zeros" hides what is behind.
    struct.pack_into("<Q", image.bytes, image.table + 8 * 5, 2)
    model[5 * MIB:6 * MIB] = bytes(MIB)
    image.save()
    assert reads(vhdx, tmp_path / "x") == model
    assert "No errors" in disk("check", vhdx).stdout


def test_written_vhdx(tmp_path, vhdx):
    model = bytearray((tmp_path / "base.raw").read_bytes())
    with subprocess.Popen([os.environ.get("TABIQUE", "build/tabique"), "disk", "serve", "--follow", vhdx, "--socket",
                           tmp_path / "s", "--pid-file", tmp_path / "pid"], stdout=subprocess.PIPE) as server:
        server.stdout.readline()
        subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 4 5242368 1M", "-c", "write -P 5 11M 512",
                        f"nbd+unix:///?socket={tmp_path / 's'}"], check=True, capture_output=True, timeout=60)
        server.wait(timeout=30)
    model[5242368:5242368 + MIB], model[11 * MIB:11 * MIB + 512] = b"\4" * MIB, b"\5" * 512
    assert reads(vhdx, tmp_path / "x") == model


@pytest.mark.parametrize("entry, value, part", [(4096, 0, "nothing says which sectors"), (4096, 1 << 50 | 6, "behind its end"),
                                                (0, 1 << 50 | 7, "behind its end"), (1, 5, "in state 5")])
def test_tables_of_vhdx_that_lie(tmp_path, vhdx, entry, value, part):
    image = Vhdx(vhdx)
    image.add_block(0, {1: bytes(512)})
    struct.pack_into("<Q", image.bytes, image.table + 8 * entry, value)
    image.save()
    assert part in disk("convert", "--follow", vhdx, tmp_path / "x", status=1).stderr


def test_locators_of_vhdx_that_lie(tmp_path, vhdx):
    good = vhdx.read_bytes()
    at = good.index("base.vhdx".encode("utf-16-le"))
    for name, part in (("cild.vhdx", "cild.vhdx"), ("/dev/zero", "neither"), ("a\\b\\c.vhd", "a/b/c.vhd")):
        bad = bytearray(good)
        bad[at - 4:at + 18] = (name + " " * 11)[:11].rstrip(" ").ljust(11, "\0").encode("utf-16-le")
        vhdx.write_bytes(bad)
        assert part in disk("convert", "--follow", vhdx, tmp_path / "x", status=1).stderr
    kind = good.index(bytes.fromhex("b7ef4ab09ed1814ab78925b8e9445913"))
    for offset, value, part in ((0, b"\0", "no VHDX"), (18, b"\0\0", "does not say which"), (18, b"\xff\xff", "is based on"),
                                (20 + 12, b"\xff" * 24, "does not say which")):
        bad = bytearray(good)
        bad[kind + offset:kind + offset + len(value)] = value
        vhdx.write_bytes(bad)
        done = disk("convert", "--follow", vhdx, tmp_path / "x", status=0 if value == b"\xff\xff" else 1)
        assert part in done.stderr or value == b"\xff\xff"


@pytest.mark.parametrize("name", ["vhd", "vhdx"])
def test_commit(tmp_path, name, request):
    """What a child has goes into its parent; that is another one then, so the child must not be kept unawares."""
    image = Vhd(request.getfixturevalue("child")) if name == "vhd" else Vhdx(request.getfixturevalue("vhdx"))
    path, model = image.path, bytearray((tmp_path / "base.raw").read_bytes())
    image.add_block(1, {s: b"\6" * 512 for s in range(100, 200)})
    image.save()
    at = (BLOCK if name == "vhd" else MIB) + 100 * 512
    model[at:at + 51200] = b"\6" * 51200
    assert "with -d" in disk("commit", "--follow", path, status=1).stderr
    assert reads(path, tmp_path / "x") == model
    disk("commit", "--follow", "-d", path)
    (tmp_path / "model").write_bytes(model)
    qemu_img("compare", "-f", "raw", "-F", "vpc" if name == "vhd" else name, tmp_path / "model", tmp_path / f"base.{name}")

# SPDX-License-Identifier: GPL-2.0-or-later
"""Differencing VHD images, which QEMU does not know: beside libvhdi's tools and a model of the format written here."""
import os
import random
import shutil
import struct
import subprocess

import pytest

from disk_programs import disk, qemu_img

MIB = 1 << 20
BLOCK = 2 * MIB
SIZE = 12 * MIB
mounts = pytest.mark.skipif(not shutil.which("vhdimount") or not os.path.exists("/dev/fuse") or os.geteuid() != 0,
                            reason="libvhdi-utils and FUSE are not there")


def libvhdi_reads(image, mount):
    """The last of the files there is the image, the one before that its parent."""
    mount.mkdir()
    subprocess.run(["vhdimount", image, mount], check=True, capture_output=True, timeout=60)
    try:
        files = sorted(mount.iterdir())
        return files[-1].read_bytes()
    finally:
        subprocess.run(["umount", mount], check=True, timeout=60)


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
    disk("convert", "--follow", "-f", "vhd", "-O", "raw", image, out)
    return out.read_bytes()


def test_a_new_one(tmp_path, child):
    assert reads(child, tmp_path / "x") == (tmp_path / "base.raw").read_bytes()
    said = disk("info", child).stdout
    assert "type: differencing" in said and "base.vhd" in said
    assert "No errors" in disk("check", child).stdout
    assert "--follow" in disk("convert", child, tmp_path / "y", status=1).stderr
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
        assert libvhdi_reads(child, tmp_path / "mount") == model


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
    assert libvhdi_reads(top, tmp_path / "mount") == model
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

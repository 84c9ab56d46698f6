# SPDX-License-Identifier: GPL-2.0-or-later
"""qcow2 images whose clusters have subclusters (extended L2 entries), beside QEMU's programs."""
import os
import random
import struct
import subprocess
import time

import pytest

from disk_programs import disk, qemu_img, qemu_io
from program import TABIQUE

MIB = 1 << 20
KINDS = ["extended_l2=on", "extended_l2=on,cluster_size=16k", "extended_l2=on,cluster_size=2M",
         "extended_l2=on,preallocation=metadata"]


def scribble(path, size, seed, count=60):
    """Writes, zeros and discards of every alignment, as QEMU does them."""
    chance, commands = random.Random(seed), []
    for _ in range(count):
        unit = chance.choice([512, 2048, 65536])
        at = chance.randrange(size // unit) * unit
        length = min(chance.choice([512, 2048, 4096, 70144, 262144]) * chance.randrange(1, 4), size - at)
        kind = chance.choice(["write -P %d" % chance.randrange(1, 255)] * 3 + ["write -z", "write -z -u", "discard"])
        commands.append(f"{kind} {at} {length}")
    qemu_io(path, *commands)


def theirs_to_raw(path, raw):
    qemu_img("convert", "-O", "raw", path, raw)
    return raw.read_bytes()


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("options", KINDS)
def test_reads_what_qemu_wrote(tmp_path, options, behind):
    size, image, base, raw = 12 * MIB + 1536, tmp_path / "a", tmp_path / "base", tmp_path / "ours.raw"
    follow, words = [], []
    if behind:
        base.write_bytes(random.Random(1).randbytes(7 * MIB))
        follow, words = ["--follow"], ["-b", base, "-F", "raw"]
        options = options.replace("metadata", "off")
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, *words, image, size)
    for seed in range(3):
        scribble(image, size, f"{options}{seed}")
        expected = theirs_to_raw(image, tmp_path / "theirs.raw")
        disk("convert", *follow, "-O", "raw", image, raw)
        assert raw.read_bytes() == expected
        disk("check", image)
    disk("compare", *follow, image, tmp_path / "theirs.raw")


def test_reads_packed_ones(tmp_path):
    source, image = tmp_path / "source", tmp_path / "a"
    source.write_bytes(b"the same again" * 300000 + bytes(MIB - 14 * 300000 % 512))
    os.truncate(source, source.stat().st_size & ~511)
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "extended_l2=on,compression_type=zstd", source, image)
    qemu_io(image, "write -P 7 100k 3k", "write -z 400k 8k")
    expected = theirs_to_raw(image, tmp_path / "theirs.raw")
    disk("convert", "-O", "raw", image, tmp_path / "ours.raw")
    assert (tmp_path / "ours.raw").read_bytes() == expected


def l2_of(path):
    """Where the first L2 table is."""
    with open(path, "rb") as file:
        header = file.read(104)
        file.seek(struct.unpack_from(">Q", header, 40)[0])
        return struct.unpack(">Q", file.read(8))[0] & 0x00fffffffffffe00


@pytest.mark.parametrize("word, status", [(None, 1 << 32 | 1), (0, 1), (1, 0), (1 << 62 | 0x50000, 1 << 40)])
def test_entries_that_cant_be(tmp_path, word, status):
    """Data and zeros at once; data nowhere; a bit that means nothing here; compressed, with subclusters."""
    image = tmp_path / "a"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "extended_l2=on", image, "4M")
    qemu_io(image, "write -P 7 0 64k")
    at = l2_of(image)
    with open(image, "r+b") as file:
        file.seek(at)
        old = struct.unpack(">Q", file.read(8))[0]
        file.seek(at)
        file.write(struct.pack(">QQ", old if word is None else word, status))
    assert "Input/output error" in disk("convert", "-O", "raw", image, tmp_path / "raw", status=1).stderr
    assert not (tmp_path / "raw").exists()


def entries(path):
    """The first L2 table's entries, as two words each."""
    at = l2_of(path)
    with open(path, "rb") as file:
        file.seek(at)
        return list(struct.iter_unpack(">QQ", file.read(64 * 16)))


def test_a_small_write_stays_small(tmp_path):
    """Of a cluster on top of another image only what was written is data, as QEMU has it; what is behind is told apart
    by the subcluster."""
    base, ours, theirs = tmp_path / "base", tmp_path / "ours", tmp_path / "theirs"
    base.write_bytes(random.Random(2).randbytes(2 * MIB))
    disk("create", "-f", "qcow2", "-o", "extended_l2=on", "-b", base, "-F", "raw", ours)
    qemu_img("create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", base, "-F", "raw", theirs)
    commands = ["write -P 7 4k 4k", "write -P 8 65k 1k", "write -z 200k 6k", "write -P 9 206k 2k", "write -P 1 300k 200k"]
    qemu_io(theirs, *commands)
    with subprocess.Popen([TABIQUE, "disk", "serve", "--follow", str(ours), "--socket", str(tmp_path / "s")],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as server:
        try:
            end = time.monotonic() + 20
            while not (tmp_path / "s").exists():
                assert time.monotonic() < end and server.poll() is None
                time.sleep(0.02)
            subprocess.run(["qemu-io", "-f", "raw", *[w for c in [*commands, "flush"] for w in ("-c", c)],
                            f"nbd+unix:///?socket={tmp_path / 's'}"], check=True, capture_output=True, timeout=60)
        finally:
            server.terminate()
            server.wait(timeout=30)
    assert theirs_to_raw(ours, tmp_path / "a.raw") == theirs_to_raw(theirs, tmp_path / "b.raw")
    assert qemu_img("check", ours).returncode == 0
    disk("check", ours)
    assert [status for _, status in entries(ours)] == [status for _, status in entries(theirs)]
    assert entries(ours)[0][1] == 0b1100 and entries(ours)[1][1] == 1

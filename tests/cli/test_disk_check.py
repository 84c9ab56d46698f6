# SPDX-License-Identifier: GPL-2.0-or-later
"""`disk check` and `disk repair` beside qemu-img: both find the same, and what one has repaired the other finds sound."""
import json
import os
import random
import struct
import subprocess

import pytest

from disk_programs import disk, qemu_img, qemu_io
from program import run

MIB = 1 << 20
MASK = 0x00fffffffffffe00


class Image:
    """The bytes of a qcow2 file, to be damaged."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            self.bytes = bytearray(file.read())
        self.cluster = 1 << self.u32(20)
        self.l1 = self.u64(40)
        self.reftable = self.u64(48)

    def u32(self, at):
        return struct.unpack_from(">I", self.bytes, at)[0]

    def u64(self, at):
        return struct.unpack_from(">Q", self.bytes, at)[0]

    def set(self, at, value, size=8):
        if at + size > len(self.bytes):
            self.bytes.extend(bytes(at + size - len(self.bytes)))
        self.bytes[at:at + size] = value.to_bytes(size, "big")

    def l2(self, i=0):
        return self.u64(self.l1 + 8 * i) & MASK

    def block(self, i=0):
        return self.u64(self.reftable + 8 * i)

    def refcount(self, cluster, value):
        self.set(self.block() + 2 * cluster, value, 2)

    def save(self):
        self.path.write_bytes(self.bytes)


def make(path, *options, snapshot=True):
    """With data, zeros, holes, what is shared with a snapshot, what is not."""
    qemu_img("create", "-q", "-f", "qcow2", *options, path, "64M")
    qemu_io(path, "write -P 5 0 3M", "write -P 3 40M 700k", "write -z 41M 1M")
    if snapshot:
        qemu_img("snapshot", "-c", "one", path)
        qemu_io(path, "write -P 6 1M 1M", "write -P 7 50M 100k")
    return path


OPTIONS = ["", "-o cluster_size=512", "-o cluster_size=2M", "-o compat=0.10", "-o refcount_bits=64,cluster_size=4k",
           "-o refcount_bits=8", "-o lazy_refcounts=on", "-o preallocation=metadata", "-o extended_l2=on",
           "-o extended_l2=on,cluster_size=16k"]


@pytest.mark.parametrize("options", OPTIONS)
def test_sound_images(tmp_path, options):
    image = make(tmp_path / "a", *options.split())
    ours = json.loads(disk("check", "--json", image).stdout)
    theirs = json.loads(qemu_img("check", "--output=json", image).stdout)
    for key in ("image-end-offset", "total-clusters", "allocated-clusters", "fragmented-clusters", "corruptions", "leaks"):
        assert ours[key] == theirs.get(key, 0), key
    assert "No errors" in disk("check", image).stdout


def test_one_bit_refcounts(tmp_path):
    image = make(tmp_path / "a", "-o", "refcount_bits=1", snapshot=False)
    disk("check", image)


def test_compressed(tmp_path):
    make(tmp_path / "source")
    for kind in ("zlib", "zstd"):
        qemu_img("convert", "-O", "qcow2", "-c", "-o", f"compression_type={kind}", tmp_path / "source", tmp_path / kind)
        ours = json.loads(disk("check", "--json", tmp_path / kind).stdout)
        theirs = json.loads(qemu_img("check", "--output=json", tmp_path / kind).stdout)
        assert ours["compressed-clusters"] == theirs["compressed-clusters"] > 0
        assert ours["fragmented-clusters"] == theirs["fragmented-clusters"]


def test_bitmaps_count(tmp_path):
    image = make(tmp_path / "a")
    qemu_img("bitmap", "--add", image, "b0")
    qemu_img("bitmap", "--add", "-g", "4k", image, "b1")
    qemu_io(image, "write -P 9 2M 64k")
    assert qemu_img("check", image).returncode == 0
    disk("check", image)


def too_low(i):
    i.refcount(9, 0)


def too_high(i):
    """Of clusters that are in the file and nobody's."""
    first = len(i.bytes) // i.cluster + 3
    i.bytes.extend(bytes(20 * i.cluster))
    for n in range(4):
        i.refcount(first + n, n + 1)


def copied_lies(i):
    i.set(i.l2(), i.u64(i.l2()) ^ 1 << 63)


def l1_copied_lies(i):
    i.set(i.l1, i.u64(i.l1) ^ 1 << 63)


def two_entries_one_cluster(i):
    i.set(i.l2() + 8 * 5, i.u64(i.l2() + 8 * 6))


def behind_the_end(i):
    i.set(i.l2() + 8 * 7, 1 << 63 | 1 << 40)


def not_aligned(i):
    i.set(i.l2() + 8 * 7, i.u64(i.l2() + 8 * 7) + 512)


def reserved_bits(i):
    i.set(i.l2() + 8 * 7, i.u64(i.l2() + 8 * 7) | 1 << 60)


def onto_the_header(i):
    i.set(i.l2() + 8 * 7, 1 << 63 | i.l1)


def onto_itself(i):
    i.set(i.l2() + 8 * 7, 1 << 63 | i.l2())


def l1_onto_l1(i):
    i.set(i.l1 + 8 * 3, 1 << 63 | i.l1)


def l1_nowhere(i):
    i.set(i.l1 + 8 * 3, 1 << 63 | 1 << 50)


def l1_onto_data(i):
    """What is there is another cluster's content: a repair must not touch it."""
    i.set(i.l1 + 8 * 3, 1 << 63 | i.u64(i.l2() + 8 * 4) & MASK)


def block_gone(i):
    i.set(i.reftable, 0)


def block_nowhere(i):
    i.set(i.reftable, 1 << 45)


def block_onto_l2(i):
    i.set(i.reftable, i.l2())


def block_unaligned(i):
    i.set(i.reftable, i.block() + 512)


def blocks_alike(i):
    i.set(i.reftable + 8, i.block())


def table_onto_l1(i):
    i.set(48, i.l1)


def table_nowhere(i):
    i.set(48, 1 << 40)


def marked(i):
    i.set(72, 2)


# What is damaged, and whether all of the disk's content is still there after a repair.
DAMAGES = [(too_low, True), (too_high, True), (copied_lies, True), (l1_copied_lies, True), (two_entries_one_cluster, False),
           (behind_the_end, False), (not_aligned, False), (reserved_bits, False), (onto_the_header, False),
           (onto_itself, False), (l1_onto_l1, True), (l1_nowhere, True), (l1_onto_data, True), (block_gone, True),
           (block_nowhere, True), (block_onto_l2, True), (block_unaligned, True), (blocks_alike, True), (table_onto_l1, True),
           (table_nowhere, True), (marked, True)]


@pytest.mark.parametrize("damage, whole", DAMAGES, ids=[d.__name__ for d, _ in DAMAGES])
def test_repair(tmp_path, damage, whole):
    good = make(tmp_path / "good", "-o", "cluster_size=4k")
    bad = tmp_path / "bad"
    bad.write_bytes(good.read_bytes())
    image = Image(bad)
    damage(image)
    image.save()
    before = bad.read_bytes()
    found = disk("check", bad, status=3 if damage is too_high else 2)
    assert ("corrupt: " in found.stdout or "leaked: " in found.stdout) and bad.read_bytes() == before
    mended = disk("repair", bad)
    assert "repaired: " in mended.stdout or "given back: " in mended.stdout
    disk("check", bad)
    assert qemu_img("check", bad).returncode == 0
    differ = qemu_img("compare", "-f", "qcow2", "-F", "qcow2", good, bad, check=False).returncode
    assert differ == 0 or (differ == 1 and not whole)
    # And it can be written again by everyone.
    qemu_io(bad, "write -P 1 0 20M", "read -P 1 0 20M")
    assert qemu_img("check", bad).returncode == 0


def test_repair_of_leaks_alone(tmp_path):
    bad = make(tmp_path / "a")
    image = Image(bad)
    too_high(image)
    image.save()
    assert qemu_img("check", bad, check=False).returncode == 3
    disk("check", bad, status=3)
    disk("repair", "-r", "leaks", bad)
    assert qemu_img("check", bad).returncode == 0
    # Where something is corrupt nothing is given back: the space may be what an entry meant.
    image = Image(bad)
    too_high(image)
    image.refcount(9, 0)
    image.save()
    disk("repair", "-r", "leaks", bad, status=2)
    assert json.loads(disk("check", "--json", bad, status=2).stdout)["leaks"] == 4


def test_dirty(tmp_path):
    """QEMU ends with lazy refcounts in its memory: counts are too low."""
    image = tmp_path / "a"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", image, "64M")
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 5 0 3M", "-c", "flush", "-c", "abort", image], check=False,
                   capture_output=True, timeout=60)
    assert qemu_img("check", image, check=False).returncode == 2
    assert "not closed" in disk("check", image, status=2).stdout
    disk("repair", image)
    assert qemu_img("check", image).returncode == 0
    qemu_io(image, "read -P 5 0 3M")


def test_random_damage(tmp_path):
    """Whatever bits are wrong: it ends, and what it calls repaired is sound for QEMU too."""
    good = make(tmp_path / "good", "-o", "cluster_size=4k").read_bytes()
    chance = random.Random(int(os.environ.get("TABIQUE_SEED", "7")))
    repaired = 0
    for _ in range(int(os.environ.get("TABIQUE_ROUNDS", "20"))):
        image = Image(tmp_path / "good")
        image.path = tmp_path / "bad"
        image.bytes = bytearray(good)
        places = [0, image.l1, image.reftable, image.block(), image.l2(), image.l2(20)]
        for _ in range(chance.randrange(1, 6)):
            at = chance.choice(places) + chance.randrange(104 if chance.random() < 0.2 else 4096)
            image.bytes[at % len(good)] ^= 1 << chance.randrange(8)
        image.save()
        done = run("disk", "repair", str(tmp_path / "bad"), timeout=120)
        assert done.returncode in (0, 1, 2), done.stderr
        assert done.returncode != 1 or done.stderr.count("\n") == 1, done.stderr
        if done.returncode == 0:
            repaired += 1
            disk("check", tmp_path / "bad")
            again = qemu_img("check", "-f", "qcow2", tmp_path / "bad", check=False)
            assert again.returncode == 0, again.stdout + again.stderr + done.stdout
    assert repaired > 5


@pytest.mark.parametrize("size", [1 << 40, 1 << 60, (1 << 63) - 512])
def test_huge_files(tmp_path, size):
    """A file that is nearly all hole: neither its length nor what points far away takes time or memory."""
    image = make(tmp_path / "a", "-o", "cluster_size=512", snapshot=False)
    try:
        os.truncate(image, min(size, 1 << 43))
    except OSError:
        pytest.skip("the file system has no files of this size")
    disk("check", image)
    at = (min(size, 1 << 43) - 512) & MASK
    damaged = Image.__new__(Image)
    with open(image, "r+b") as file:
        damaged.bytes = bytearray(file.read(65536))
        l2 = damaged.u64(damaged.u64(40)) & MASK
        file.seek(l2 + 8)
        file.write(struct.pack(">Q", 1 << 63 | at))
    assert disk("check", image, status=2).stdout.count("corrupt: ") < 5


def test_formats_without_check(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(MIB))
    assert "nothing that could be checked" in disk("check", "-f", "raw", tmp_path / "a.raw", status=63).stderr


def test_in_use(tmp_path):
    image = make(tmp_path / "a")
    with subprocess.Popen(["qemu-io", "-f", "qcow2", image], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        user.stdin.write(b"write 0 64k\n")
        user.stdin.flush()
        assert b"wrote" in user.stdout.readline()
        for verb in ("check", "repair"):
            assert "in use" in disk(verb, image, status=1).stderr
        user.communicate(b"quit\n", timeout=30)

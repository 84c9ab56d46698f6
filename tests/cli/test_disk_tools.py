# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs `disk ...` beside qemu-img: what one writes the other reads and finds sound; nothing half-made is left."""
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import time
import zlib

import pytest

from disk_programs import disk, needs_libyal, qemu_img, read_by_libyal
from program import TABIQUE, Terminal, run

MIB = 1 << 20
QCOW2 = ["", "-o cluster_size=512", "-o cluster_size=4k", "-o cluster_size=2M", "-c", "-c -o compression_type=zstd",
         "-c -o cluster_size=512", "-c -o cluster_size=2M,compression_type=zstd"]


def space(path):
    return os.stat(path).st_blocks * 512


def content(path, size, seed=1):
    """A disk with all that matters: holes, zeros that are written, text, noise, at places of every alignment."""
    chance = random.Random(seed)
    with open(path, "wb") as file:
        for _ in range(40):
            file.seek(chance.randrange(size) & ~511)
            n = chance.randrange(512, 700000)
            file.write(chance.choice([chance.randbytes(n), b"the same again " * (n // 15), bytes(n)]))
        file.truncate(size)
    return path


@pytest.fixture
def source(tmp_path):
    return content(tmp_path / "source.raw", 48 * MIB + 5 * 512)


@pytest.mark.parametrize("options", QCOW2)
def test_to_qcow2_and_back(tmp_path, source, options):
    target, back = tmp_path / "a.qcow2", tmp_path / "back.raw"
    assert disk("convert", "-O", "qcow2", *options.split(), source, target).stdout == ""
    qemu_img("check", "-q", target)
    qemu_img("compare", "-f", "raw", "-F", "qcow2", source, target)
    disk("compare", "-s", source, target)
    disk("convert", "-f", "qcow2", target, back)
    assert source.read_bytes() == back.read_bytes()
    assert space(back) <= space(source)
    assert space(target) <= space(source) + 12 * MIB  # five tables of a cluster each, up to 2 MiB


@pytest.mark.parametrize("options", ["", "-o compat=0.10", "-o cluster_size=512", "-c", "-c -o compression_type=zstd",
                                     "-o preallocation=metadata", "-c -o cluster_size=2M"])
def test_from_qemus_qcow2(tmp_path, source, options):
    qemu_img("convert", "-O", "qcow2", *options.split(), source, tmp_path / "a.qcow2")
    for target in ("raw", "qcow2"):
        disk("convert", "-O", target, tmp_path / "a.qcow2", tmp_path / target)
        qemu_img("compare", "-F", target, "-f", "raw", source, tmp_path / target)


# Format, QEMU's name of it, options that both have.
BLOCKS = [("vdi", "vdi", ""), ("vhd", "vpc", ""), ("vhd", "vpc", "-o subformat=fixed"), ("vhdx", "vhdx", ""),
          ("vhdx", "vhdx", "-o subformat=fixed"), ("vhdx", "vhdx", "-o block_size=1M"), ("vmdk", "vmdk", ""),
          ("vmdk", "vmdk", "-o subformat=streamOptimized"), ("vmdk", "vmdk", "-o subformat=monolithicFlat"),
          ("vmdk", "vmdk", "-o subformat=twoGbMaxExtentSparse"), ("vmdk", "vmdk", "-o subformat=twoGbMaxExtentFlat")]


@pytest.mark.parametrize("name, theirs, options", BLOCKS)
def test_blocks_both_ways(tmp_path, source, name, theirs, options):
    ours, back, made = tmp_path / "ours", tmp_path / "back.raw", tmp_path / "theirs"
    disk("convert", "-O", name, *options.split(), source, ours)
    qemu_img("compare", "-f", "raw", "-F", theirs, source, ours)
    if name != "vhd":
        qemu_img("check", "-q", "-f", theirs, ours)
    info = json.loads(disk("info", "-f", name, "--json", ours).stdout)
    assert info["virtual-size"] == source.stat().st_size
    disk("convert", "-f", name, ours, back)
    assert back.read_bytes() == source.read_bytes()
    assert space(ours) <= space(source) + 3 * MIB  # pieces of 64 KiB, and the table
    # QEMU makes some a little larger, for their geometry.
    qemu_img("convert", "-f", "raw", "-O", theirs, *options.split(), source, made)
    disk("compare", "-F", name, source, made)
    disk("convert", "-f", name, "-O", "qcow2", made, tmp_path / "a.qcow2")
    qemu_img("compare", "-f", "qcow2", "-F", "raw", tmp_path / "a.qcow2", source)
    if "streamOptimized" in options:
        return
    # An empty one, which QEMU then writes.
    disk("create", "-f", name, *options.split(), tmp_path / "empty", "40M")
    subprocess.run(["qemu-io", "-f", theirs, "-c", "write -P 5 9M 3M", tmp_path / "empty"], check=True,
                   capture_output=True, timeout=60)
    qemu_img("convert", "-f", theirs, "-O", "raw", tmp_path / "empty", tmp_path / "empty.raw")
    disk("compare", "-s", "-f", name, tmp_path / "empty", tmp_path / "empty.raw")


def marker_walk(image):
    """Reads a streamOptimized file from its beginning to its end by its markers, as who gets it over a network does:
    the grains' first sectors, and what kinds of markers follow."""
    grains, kinds, at = [], [], 128 * 512
    while at < len(image):
        value, size, kind = struct.unpack_from("<QII", image, at)
        if size:
            zlib.decompress(image[at + 12:at + 12 + size])
            grains.append(value)
            at += -(-(12 + size) // 512) * 512
        else:
            kinds.append(kind)
            at += 512 * (1 + (value if kind else 0))
    assert at == len(image)
    return grains, kinds


def test_stream_is_one(tmp_path, source):
    target = tmp_path / "a.vmdk"
    disk("convert", "-O", "vmdk", "-c", "-o", "subformat=streamOptimized", source, target)
    grains, kinds = marker_walk(target.read_bytes())
    assert grains == sorted(set(grains)) and len(grains) > 50
    assert kinds[-3:] == [2, 3, 0] and set(kinds[:-3]) == {1}
    # Cut off: its end says where all is.
    os.truncate(target, target.stat().st_size - 512)
    assert "cut off" in disk("map", target, status=1).stderr


# Where a format has an entry for its block 0, how to read one, and what makes it the one of the next block.
TABLES = {"vdi": lambda image: (512, "<I"), "vhd": lambda image: (1536, ">I"), "vhdx": lambda image: (3 * MIB, "<Q"),
          "vmdk": lambda image: (512 * struct.unpack_from("<I", image, 512 * struct.unpack_from("<Q", image, 56)[0])[0],
                                 "<I")}


@pytest.mark.parametrize("name", TABLES)
def test_check_and_repair_blocks(tmp_path, name):
    source, image = tmp_path / "full.raw", tmp_path / "a"
    source.write_bytes(b"all of it " * 2 * MIB)
    disk("convert", "-O", name, source, image)
    assert "No errors" in disk("check", "-f", name, image).stdout
    with open(image, "ab") as file:
        file.write(b"rest of a block" * MIB)
    found = disk("check", "-f", name, image, status=2 if name == "vhd" else 3).stdout
    assert "behind the last block" in found and ("footer is lost" in found) == (name == "vhd")
    assert "No errors" in disk("repair", "-r", "all", "-f", name, image).stdout
    assert image.stat().st_size < 30 * MIB
    disk("compare", "-s", "-f", name, image, source)
    # Two blocks in one place: nobody knows whose the content is.
    data = bytearray(image.read_bytes())
    at, kind = TABLES[name](data)
    size = struct.calcsize(kind)
    data[at:at + size] = data[at + size:at + 2 * size]
    image.write_bytes(data)
    found = disk("check", "-f", name, image, status=2).stdout
    assert found.count("in one place") == 1 and "blocks 0 and 1" in found or "blocks 1 and 0" in found
    disk("repair", "-r", "all", "-f", name, image, status=2)
    assert image.read_bytes() == data


def test_repair_a_number_of_blocks(tmp_path, source):
    """Where a VDI's header has another one than its table."""
    image = tmp_path / "vdi"
    qemu_img("convert", "-O", "vdi", source, image)
    with open(image, "r+b") as file:
        file.seek(0x184)
        file.write(b"\1\0\0\0")
    assert "1 things are corrupt" in disk("check", image, status=2).stdout
    assert "No errors" in disk("repair", "-r", "all", image).stdout
    qemu_img("check", "-q", "-f", "vdi", image)


@needs_libyal("vmdkmount", "libvmdk-utils")
@pytest.mark.parametrize("options", ["", "-o subformat=streamOptimized"])
def test_libvmdk_reads_our_vmdk(tmp_path, source, options):
    """A second reader of the format."""
    image = tmp_path / "a.vmdk"
    disk("convert", "-O", "vmdk", *options.split(), source, image)
    assert read_by_libyal("vmdkmount", image, tmp_path / "mount") == source.read_bytes()


@pytest.mark.parametrize("at, value, part", [
    (4, "04000000", "version 4"), (73, "0d0a0d0a", "transferred as if it were a text"),
    (12, "ffffffffffffff7f", "too large"), (12, "0000000000000000", "too large"), (20, "0300000000000000", "grains of 3"),
    (20, "0000000000000080", "grains of"), (44, "00000000", "tables of 0"), (44, "ffffffff", "tables of"),
    (56, "ffffffffffffff00", "lies behind its end"), (56, "ffffffffffffffff", "cut off"),
    (28, "ffffffffffffff00", "descriptor does not fit"), (36, "ffffffffffffff7f", "descriptor does not fit"),
    (8, "03000100", "not known"),
])
def test_vmdk_that_lies(tmp_path, source, at, value, part):
    bad = tmp_path / "bad.vmdk"
    qemu_img("convert", "-O", "vmdk", source, bad)
    with open(bad, "r+b") as file:
        file.seek(at)
        file.write(bytes.fromhex(value))
    message = disk("convert", bad, tmp_path / "x", status=1).stderr
    assert part in message and "bad.vmdk" in message and message.count("\n") == 1


def test_vmdk_grains_that_are_mixed_up(tmp_path, source):
    """A compressed grain says whose it is; one that grows to more than a grain is none."""
    good, bad = tmp_path / "good.vmdk", tmp_path / "bad.vmdk"
    disk("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", source, good)
    image = bytearray(good.read_bytes())
    directory = struct.unpack_from("<Q", image, len(image) - 1024 + 56)[0]
    table = struct.unpack_from("<I", image, directory * 512)[0] * 512
    entries = [at for at in range(table, table + 2048, 4) if struct.unpack_from("<I", image, at)[0]]
    mixed = bytearray(image)
    mixed[entries[0]:entries[0] + 4] = image[entries[1]:entries[1] + 4]
    bad.write_bytes(mixed)
    assert "reading it" in disk("convert", bad, tmp_path / "x", status=1).stderr
    grain = struct.unpack_from("<I", image, entries[0])[0] * 512
    bomb = zlib.compress(bytes(64 << 20))[:60000]
    image[grain + 8:grain + 12] = struct.pack("<I", len(bomb))
    image[grain + 12:grain + 12 + len(bomb)] = bomb
    bad.write_bytes(image)
    assert "reading it" in disk("convert", bad, tmp_path / "x", status=1).stderr
    assert not (tmp_path / "x").exists()


LUKS = ["--object", "secret,id=s,file=secret"]


def test_luks_both_ways(tmp_path, source, monkeypatch):
    """What QEMU encrypts we read, and the other way round; cryptsetup finds our key too."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("secret").write_bytes("no wörd\n".encode())
    pathlib.Path("wrong").write_bytes("no wörd".encode())
    disk("convert", "-O", "luks", "-o", "encrypt.key-file=secret,encrypt.iter-time=20", source, "ours")
    qemu_img("compare", *LUKS, "--image-opts", "driver=luks,key-secret=s,file.filename=ours",
             f"driver=raw,file.filename={source}")
    if shutil.which("cryptsetup"):
        for name, status in (("secret", 0), ("wrong", 2)):
            done = subprocess.run(["cryptsetup", "open", "--test-passphrase", "--key-file", name, "ours"], check=False,
                                  capture_output=True, timeout=60)
            assert done.returncode == status, done.stderr
    # Nothing of the disk is in the file.
    assert b"the same again" in source.read_bytes() and b"the same again" not in pathlib.Path("ours").read_bytes()
    qemu_img("convert", *LUKS, "-O", "luks", "-o", "key-secret=s,iter-time=20", source, "theirs")
    for image in ("ours", "theirs"):
        disk("compare", "-s", "-f", "luks", "--secret-file", "secret", image, source)
        assert "not by this secret" in disk("convert", "-f", "luks", "--secret-file", "wrong", image, "x", status=1).stderr
        assert "--secret-file FILE" in disk("convert", "-f", "luks", image, "x", status=1).stderr
        assert "aes-xts-plain64, 512 bits" in disk("info", "-f", "luks", image).stdout
    assert not pathlib.Path("x").exists()
    # An undeclared one may be the guest's own, of which we know no secret.
    disk("convert", "ours", "x")
    assert pathlib.Path("x").read_bytes() == pathlib.Path("ours").read_bytes()


@needs_libyal("vhdimount", "libvhdi-utils")
@pytest.mark.parametrize("name, options", [("vhd", ""), ("vhd", "-o subformat=fixed"), ("vhdx", ""),
                                           ("vhdx", "-o subformat=fixed"), ("vhdx", "-o block_size=64M")])
def test_libvhdi_reads_our_vhd(tmp_path, source, name, options):
    """A second reader of the formats, which looks at the bits of the sectors too."""
    image = tmp_path / "a"
    disk("convert", "-O", name, *options.split(), source, image)
    assert read_by_libyal("vhdimount", image, tmp_path / "mount") == source.read_bytes()


def test_map_is_qemus(tmp_path, source):
    qemu_img("convert", "-O", "qcow2", source, tmp_path / "a.qcow2")

    def known(items):
        return [(i["start"], i["length"], i["zero"], i.get("offset")) for i in items]

    def joined(items):
        """Neighbours that are both zeros, and data that goes on, in one: where they are cut is each program's own."""
        result = []
        for start, length, zero, offset in known(items):
            offset = None if zero else offset
            if result and result[-1][2] == zero and (zero or result[-1][3] + result[-1][1] == offset):
                result[-1] = (result[-1][0], result[-1][1] + length, zero, result[-1][3])
            else:
                result.append((start, length, zero, offset))
        return result

    ours = json.loads(disk("map", "--json", tmp_path / "a.qcow2").stdout)
    theirs = json.loads(qemu_img("map", "--output=json", tmp_path / "a.qcow2").stdout)
    assert joined(ours) == joined(theirs)
    assert sum(i["length"] for i in ours) == source.stat().st_size
    assert "data" in disk("map", tmp_path / "a.qcow2").stdout


def test_compare_finds_what_differs(tmp_path, source):
    disk("convert", "-O", "qcow2", source, tmp_path / "a.qcow2")
    other = tmp_path / "other.raw"
    shutil.copy(source, other)
    with open(other, "r+b") as file:
        file.seek(20 * MIB + 77)
        byte = file.read(1)[0]
        file.seek(20 * MIB + 77)
        file.write(bytes([byte ^ 1]))
    assert f"byte {20 * MIB + 77}" in disk("compare", other, tmp_path / "a.qcow2", status=1).stdout
    # A longer one is the same as long as zeros follow.
    shutil.copy(source, other)
    os.truncate(other, 60 * MIB)
    assert "identical" in disk("compare", tmp_path / "a.qcow2", other).stdout
    assert "sizes" in disk("compare", "-s", tmp_path / "a.qcow2", other, status=1).stdout
    with open(other, "r+b") as file:
        file.seek(60 * MIB - 1)
        file.write(b"x")
    assert f"byte {60 * MIB - 1}" in disk("compare", tmp_path / "a.qcow2", other, status=1).stdout
    assert disk("compare", other, tmp_path / "none", status=3).stderr.count("\n") == 1


@pytest.mark.parametrize("options", ["", "-o cluster_size=512", "-o cluster_size=2M"])
def test_create(tmp_path, options):
    path = tmp_path / "a.qcow2"
    disk("create", "-f", "qcow2", *options.split(), path, "3G")
    qemu_img("check", "-q", path)
    info = json.loads(qemu_img("info", "--output=json", path).stdout)
    ours = json.loads(disk("info", "--json", path).stdout)
    assert ours["virtual-size"] == info["virtual-size"] == 3 << 30
    assert ours["format-specific"]["cluster-size"] == info["cluster-size"]
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 5 1G 3M", path], check=True, capture_output=True, timeout=60)
    qemu_img("check", "-q", path)
    # What is there is not touched.
    assert "exists" in disk("create", "-f", "qcow2", path, "1G", status=1).stderr
    qemu_img("check", "-q", path)


def test_create_on_top(tmp_path, source):
    (tmp_path / "d").mkdir()
    child = tmp_path / "d/child.qcow2"
    disk("create", "-f", "qcow2", "-b", "../source.raw", "-F", "raw", child)
    qemu_img("compare", "-f", "qcow2", "-F", "raw", child, source)
    info = json.loads(disk("info", "--json", child).stdout)
    assert (info["backing-filename"], info["backing-filename-format"]) == ("../source.raw", "raw")
    assert info["virtual-size"] == source.stat().st_size
    assert "--backing-format" in disk("create", "-f", "qcow2", "-b", "x", tmp_path / "x", status=2).stderr
    assert not (tmp_path / "x").exists()


def test_named_files_are_opened_only_if_allowed(tmp_path, source):
    secret = tmp_path / "secret"
    shutil.copy(source, secret)
    qemu_img("create", "-f", "qcow2", "-b", secret, "-F", "raw", tmp_path / "evil.qcow2")
    for verb in (["convert", tmp_path / "evil.qcow2", tmp_path / "out"], ["map", tmp_path / "evil.qcow2"],
                 ["convert", "-f", "qcow2", tmp_path / "evil.qcow2", tmp_path / "out"]):
        message = disk(*verb, status=1).stderr
        assert "--follow" in message and str(secret) in message
    disk("compare", tmp_path / "evil.qcow2", source, status=3)
    assert not (tmp_path / "out").exists()
    assert disk("info", tmp_path / "evil.qcow2").stdout.count(str(secret)) == 1
    disk("convert", "--follow", tmp_path / "evil.qcow2", tmp_path / "out")
    disk("compare", tmp_path / "out", source)
    # What is behind has no declared format, and looks like one that names another: a guest may have written that.
    subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", tmp_path / "evil.qcow2", "-F", "qcow2",
                    tmp_path / "evil.qcow2"], check=False, capture_output=True, timeout=60)
    assert "is based on itself" in disk("map", "--follow", tmp_path / "evil.qcow2", status=1).stderr


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path, source):
    target = tmp_path / "target"
    target.write_bytes(b"old" * 1000)
    target.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to("target")
    # A source that is damaged in the middle.
    qemu_img("convert", "-O", "qcow2", "-c", source, tmp_path / "bad.qcow2")
    with open(tmp_path / "bad.qcow2", "r+b") as file:
        file.seek(5 * 65536)
        file.write(b"\xff" * 3 * MIB)
    assert "bad.qcow2': reading it" in disk("convert", tmp_path / "bad.qcow2", link, status=1).stderr
    assert target.read_bytes() == b"old" * 1000
    disk("convert", source, link)
    assert link.is_symlink() and target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.qcow2", "link", "source.raw", "target"]


def test_a_disk_in_use_is_not_replaced(tmp_path, source):
    target = tmp_path / "used.qcow2"
    qemu_img("create", "-f", "qcow2", target, "10M")
    user = subprocess.Popen(["qemu-io", "-f", "qcow2", target], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        user.stdin.write(b"write 0 1M\n")
        user.stdin.flush()
        assert b"wrote" in user.stdout.readline()
        assert "in use" in disk("convert", source, target, status=1).stderr
        assert "in use" in disk("convert", target, tmp_path / "x", status=1).stderr
    finally:
        user.communicate(b"quit\n", timeout=30)
    assert "in use" in disk("convert", target, target, status=1).stderr
    qemu_img("check", "-q", target)


def big(path):
    """So much that it takes a while."""
    with open(path, "wb") as file:
        file.truncate(4 << 30)
        for i in range(1500):
            file.seek(i * 2 * MIB)
            file.write(os.urandom(60000) + b"text " * 90000)
    return path


def test_interrupted_and_killed(tmp_path):
    source, target = big(tmp_path / "big.raw"), tmp_path / "out.qcow2"
    with Terminal("disk", "convert", "-O", "qcow2", "-c", source, target) as terminal:
        terminal.expect(rb"\[#*\.*\] +\d+% converting", 60)
        terminal.send(b"\x03")
        assert terminal.wait(60) == 130
        assert b"nothing has changed" in terminal.output
    assert [p.name for p in tmp_path.iterdir()] == ["big.raw"]
    for delay in (0.1, 0.4):
        process = subprocess.Popen([TABIQUE, "disk", "convert", "-O", "qcow2", "-c", source, target])
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
        assert [p.name for p in tmp_path.iterdir()] == ["big.raw"]
    source.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk(tmp_path, source):
    small = tmp_path / "small"
    small.mkdir()
    script = f"""mount -t tmpfs -o size=2m none {small} && cd {small} && echo old >kept || exit 99
                 {TABIQUE} disk convert -O qcow2 {source} kept 2>{tmp_path}/message; echo $? >{tmp_path}/status
                 {TABIQUE} disk convert -c -O qcow2 {source} new 2>>{tmp_path}/message; echo $? >>{tmp_path}/status
                 ls -A >{tmp_path}/list; cat kept >>{tmp_path}/list"""
    subprocess.run(["unshare", "-m", "sh", "-c", script], check=True, timeout=120)
    assert (tmp_path / "status").read_text() == "1\n1\n"
    message = (tmp_path / "message").read_text()
    assert message.count("No space left on device") == 2 and message.count("\n") == 2
    assert (tmp_path / "list").read_text() == "kept\nold\n"


@pytest.mark.parametrize("words, part", [
    (["convert", "-O", "qcow3", "a", "b"], "did you mean qcow2?"),
    (["convert", "-O"], "-O needs a value"),
    (["convert", "-Oqcow2", "-o", "clustersize=4k", "a", "b"], "unknown option 'clustersize': did you mean cluster_size?"),
    (["convert", "-Oqcow2", "-o", "cluster_size=4x", "a", "b"], "cluster_size=4x"),
    (["convert", "-Oqcow2", "-o", "compression_type", "a", "b"], "compression_type=VALUE"),
    (["convert", "-Oqcow2", "-o", "backing_file=x", "a", "b"], "based on nothing"),
    (["create", "a", "1000"], "not a multiple of 512"),
    (["create", "a"], "SIZE is missing"),
])
def test_wrong_words(tmp_path, words, part):
    done = run("disk", *words, cwd=tmp_path)
    assert done.returncode == 2 and part in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words, part", [
    (["-O", "qcow2", "-o", "cluster_size=3000"], "power of two"),
    (["-O", "qcow2", "-o", "cluster_size=256"], "power of two"),
    (["-O", "raw", "-c"], "no compression"),
    (["-O", "qcow2", "-o", "subformat=flat"], "no subformats"),
    (["-O", "vdi", "-c"], "no compression"),
    (["-O", "vdi", "-o", "encrypt.key-file=/dev/null"], "is not encrypted"),
    (["-O", "luks"], "-o encrypt.key-file=FILE"),
    (["-O", "luks", "-o", "encrypt.key-file=/dev/null"], "is empty"),
    (["-O", "luks", "-o", "encrypt.key-file=/etc/hostname", "-c"], "no compression"),
    (["-O", "vhd", "-o", "subformat=thin"], "choose dynamic or fixed"),
    (["-O", "vhdx", "-c"], "no compression"),
    (["-O", "vhdx", "-o", "block_size=64k"], "power of two from 1M to 256M"),
    (["-O", "vmdk", "-c"], "only subformat=streamOptimized is compressed"),
    (["-O", "vmdk", "-o", "subformat=monolithic"], "choose monolithicSparse, monolithicFlat"),
])
def test_options_that_a_format_has_not(tmp_path, source, words, part):
    assert part in disk("convert", *words, source, tmp_path / "out", status=1).stderr
    assert pathlib.Path.exists(tmp_path / "out") is False


def test_strange_images_are_read_in_confinement(tmp_path):
    """A map that nobody reads waits: meanwhile its process shows what it may do."""
    path = tmp_path / "pieces.raw"
    with open(path, "wb") as file:
        for at in range(4000):
            file.seek(at * 65536)
            file.write(b"x")
    with subprocess.Popen([TABIQUE, "disk", "map", "-f", "raw", path], stdout=subprocess.PIPE) as child:
        deadline = time.monotonic() + 60
        status = ""
        while "Seccomp:\t2" not in status and time.monotonic() < deadline:
            status = pathlib.Path(f"/proc/{child.pid}/status").read_text(encoding="ascii")
            time.sleep(0.01)
        assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status, status
        assert child.stdout.read().count(b"data") == 4000
    assert child.returncode == 0

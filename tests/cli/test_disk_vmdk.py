# SPDX-License-Identifier: GPL-2.0-or-later
"""VMDK images in several files: both ways with qemu-img, and descriptors that lie about what they consist of."""
import json
import os
import pathlib
import random
import subprocess

import pytest

from disk_programs import disk, needs_libyal, qemu_img, read_by_libyal

MIB = 1 << 20
KINDS = ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"]
SIZE = 5 * 1024 * MIB + 12 * MIB + 512


@pytest.fixture
def large(tmp_path):
    """More than two extents of 2 GiB, with content where one ends and the next begins, whoever cuts them."""
    with open(tmp_path / "large.raw", "wb") as file:
        file.truncate(SIZE)
        for at in (0, 5 * MIB + 512, 2047 * MIB - 3 * 512, 2048 * MIB - 70000, 4094 * MIB - 512, 5 * 1024 * MIB):
            file.seek(at)
            file.write(os.urandom(200000))
    return tmp_path / "large.raw"


@pytest.mark.parametrize("kind", KINDS)
def test_many_extents(tmp_path, large, kind):
    ours, theirs = tmp_path / "ours.vmdk", tmp_path / "theirs.vmdk"
    disk("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}", large, ours)
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}", large, theirs)
    assert len(list(tmp_path.glob("ours-*"))) == len(list(tmp_path.glob("theirs-*"))) == (1 if "mono" in kind else 3)
    for image in (ours, theirs):
        qemu_img("compare", "-f", "raw", "-F", "vmdk", large, image)
        disk("compare", "-s", large, image)
        qemu_img("check", "-q", image)
        assert "No errors" in disk("check", image).stdout
        assert f"type: {kind}\n" in disk("info", image).stdout
    assert len(disk("map", ours).stdout.splitlines()) > 6
    # Names are taken before anything is written, and what has one already stays.
    before = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert "is there already" in disk("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}", large, ours,
                                      status=1).stderr
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}


def write(image, at, byte):
    subprocess.run(["qemu-io", "-f", "vmdk", "-c", f"write -P {byte} {at} 64k", image], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("kind", KINDS)
def test_other_sizes(tmp_path, large, kind):
    """The last file takes the difference: what is new is zeros, and QEMU reads all of it."""
    image, size = tmp_path / "a.vmdk", SIZE
    disk("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}", large, image)
    for change in (300 * MIB, -(500 * MIB + 512), 512, 150 * MIB - 512):
        size += change
        disk("resize", "--shrink", image, str(size))
        os.truncate(large, size)
        assert len(list(tmp_path.glob("a-*"))) == (1 if "mono" in kind else 3)
        disk("check", image)
        disk("compare", "-s", large, image)
        qemu_img("compare", "-f", "raw", "-F", "vmdk", large, image)
        assert json.loads(qemu_img("info", "--output=json", image).stdout)["virtual-size"] == size
        # Something at its end, which a smaller one loses.
        with open(large, "r+b") as file:
            file.seek(size - 65536)
            file.write(b"\x4d" * 65536)
        write(image, size - 65536, 0x4d)
        disk("compare", "-s", large, image)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    if kind == "monolithicFlat":
        disk("resize", image, "10G")
    else:
        assert "begins its last file" in disk("resize", "--shrink", image, "3G", status=1).stderr
        assert "of room in the last one" in disk("resize", image, "10G", status=1).stderr
        assert {p: p.stat().st_size for p in tmp_path.iterdir()}.keys() == before.keys()
    disk("compare", large, image)


@pytest.mark.parametrize("kind", KINDS)
def test_a_size_whose_change_was_cut_off(tmp_path, kind):
    """The last file has grown and the descriptor does not say so yet; what somebody has left there is not seen later."""
    image, text = tmp_path / "a.vmdk", tmp_path / "before"
    disk("create", "-f", "vmdk", "-o", f"subformat={kind}", image, "3G")
    text.write_bytes(image.read_bytes())
    disk("resize", image, "+100M")
    write(image, 3 * 1024 * MIB + MIB, 0x4d)
    image.write_bytes(text.read_bytes())
    assert "No errors" in disk("check", image).stdout
    source = tmp_path / "b.raw"
    source.touch()
    os.truncate(source, 3 * 1024 * MIB)
    disk("compare", "-s", source, image)
    disk("resize", image, "+50M")
    os.truncate(source, 3 * 1024 * MIB + 50 * MIB)
    disk("compare", "-s", source, image)
    qemu_img("compare", "-f", "raw", "-F", "vmdk", source, image)


def test_an_end_between(tmp_path, large):
    """What could not be made leaves no file of it."""
    (tmp_path / "a-s002.vmdk").write_bytes(b"somebody's")
    assert "a-s002.vmdk' is there already" in disk("create", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse",
                                                  tmp_path / "a.vmdk", "5G", status=1).stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-s002.vmdk", "large.raw"]
    assert (tmp_path / "a-s002.vmdk").read_bytes() == b"somebody's"


@needs_libyal("vmdkmount", "libvmdk-utils")
@pytest.mark.parametrize("kind", ["twoGbMaxExtentFlat", "twoGbMaxExtentSparse"])
def test_libvmdk_reads_ours(tmp_path, kind):
    """A second reader of the format."""
    source, image = tmp_path / "source", tmp_path / "a.vmdk"
    source.write_bytes(random.Random(4).randbytes(5 * MIB) + bytes(9 * MIB) + b"end" * 512)
    disk("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}", source, image)
    assert read_by_libyal("vmdkmount", image, tmp_path / "mount") == source.read_bytes()


def descriptor(path, *lines):
    path.write_text("# Disk DescriptorFile\nversion=1\nCID=1234abcd\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentSparse\"\n\n"
                    + "".join(line + "\n" for line in lines) + "\nddb.adapterType = \"ide\"\n")
    return path


@pytest.fixture
def beside(tmp_path):
    """a-s1.vmdk, sparse, of 4 MiB, and flat a-f1.vmdk, of 3 MiB."""
    (tmp_path / "a.raw").write_bytes(bytes(2 * MIB) + b"\5" * 2 * MIB)
    qemu_img("convert", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", tmp_path / "a.raw", tmp_path / "a.vmdk")
    os.rename(tmp_path / "a-s001.vmdk", tmp_path / "a-s1.vmdk")
    (tmp_path / "a-f1.vmdk").write_bytes(b"flat" * (3 * MIB // 4))
    (tmp_path / "secret.raw").write_bytes(b"secret" * 512)
    return tmp_path


SPARSE, FLAT = 'RW 8192 SPARSE "a-s1.vmdk"', 'RW 6144 FLAT "a-f1.vmdk" 0'


def test_mixed(beside):
    """Sparse and flat ones in one disk, the second from its 6th sector on."""
    image = descriptor(beside / "a.vmdk", SPARSE, 'RW 6138 FLAT "a-f1.vmdk" 6')
    disk("convert", image, beside / "ours")
    assert (beside / "ours").read_bytes()[3 * MIB:] == b"\5" * MIB + b"flat" * ((3 * MIB - 3072) // 4)
    disk("check", image)


@pytest.mark.parametrize("lines, part", [
    ([FLAT, 'RW 6144 FLAT "/etc/passwd" 0'], "plain names"),
    ([FLAT, 'RW 6144 FLAT "../a-f1.vmdk" 0'], "plain names"),
    ([FLAT, 'RW 6144 FLAT ".." 0'], "plain names"),
    (['RW 6 FLAT "secret.raw" 0'], "not named after it"),
    (['RW 6144 FLAT "a-none.vmdk" 0'], "a-none.vmdk"),
    (['RW 6144 FLAT "a-link.vmdk" 0'], "symbolic link"),
    (['RW 6144 FLAT "a-directory" 0'], "directory"),
    (['RW 6144 FLAT "a-fifo" 0'], "no file"),
    ([FLAT, FLAT], "comes twice"),
    (['RW 8192 SPARSE "a-loop.vmdk"'], "is a descriptor"),
    (['RW 8192 SPARSE "a-f1.vmdk"'], "not a VMDK"),
    (['RW 8193 SPARSE "a-s1.vmdk"'], "cut off"), (['RW 8191 SPARSE "a-s1.vmdk"', FLAT], "cut off"),
    (['RW 6145 FLAT "a-f1.vmdk" 0'], "cut off"), (['RW 6144 FLAT "a-f1.vmdk" 1'], "cut off"),
    (['RW 6144 FLAT "a-f1.vmdk" 18446744073709551615'], "sectors from"),
    (['RW 99999999999999999999 FLAT "a-f1.vmdk" 0'], "no extent"),
    (['RW 18014398509481983 FLAT "a-f1.vmdk" 0', 'RW 1 FLAT "a-f2.vmdk" 0'], "too many sectors"),
    (['RW 0 FLAT "a-f1.vmdk" 0'], "0 sectors"), (['RW -1 FLAT "a-f1.vmdk" 0'], "no extent"),
    (['RW 6144 FLAT a-f1.vmdk 0'], "in quotes"), (['RW 6144 FLAT "" 0'], "in quotes"),
    (['RW 6144 FLAT "' + "a" * 300 + '" 0'], "in quotes"),
    (['RW 6144 FLAT "a-f1.vmdk" x'], "no number"),
    (['RDONLY 6144 FLAT "a-f1.vmdk" 0'], "RDONLY"), (['RW 6144 ZERO'], "ZERO"), (['RW 6144 VMFSRDM "a-f1.vmdk" 0'], "VMFSRDM"),
    ([], "names no extent"),
    ([f'RW 1 FLAT "a-{i}" 0' for i in range(1100)], "more than 1024"),
    (["x" * 70000], "more than 65536 bytes"),
])
def test_descriptors_that_lie(beside, lines, part):
    """Whatever it names: an error that says what is wrong, and no byte of what is elsewhere."""
    os.symlink("/etc/passwd", beside / "a-link.vmdk")
    os.mkfifo(beside / "a-fifo")
    (beside / "a-directory").mkdir()
    descriptor(beside / "a-loop.vmdk", SPARSE)
    image = descriptor(beside / "a.vmdk", *lines)
    for words in (["convert", image, beside / "x"], ["check", image]):
        message = disk(*words, status=1).stderr
        assert part in message and message.count("\n") == 1
    assert not (beside / "x").exists()


def test_whose_names_are_followed(beside):
    """An image whose name is not that of its parts: it may have been put there to be read together with them."""
    image = descriptor(beside / "other.vmdk", SPARSE, FLAT)
    assert "--follow" in disk("convert", image, beside / "x", status=1).stderr
    assert "not named after it" in disk("check", image, status=1).stderr
    disk("convert", "--follow", image, beside / "x")
    assert (beside / "x").read_bytes() == (beside / "a.raw").read_bytes() + b"flat" * (3 * MIB // 4)
    assert "virtual-size" in disk("info", "--json", image).stdout


def test_parts_are_locked(beside):
    image = descriptor(beside / "a.vmdk", SPARSE, FLAT)
    with subprocess.Popen(["qemu-io", "-f", "raw", beside / "a-f1.vmdk"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as user:
        user.stdin.write(b"write 0 64k\n")
        user.stdin.flush()
        assert b"wrote" in user.stdout.readline()
        assert "a-f1.vmdk' is in use" in disk("convert", image, beside / "x", status=1).stderr
        user.communicate(b"quit\n", timeout=30)


def test_a_part_that_is_damaged(beside):
    image = descriptor(beside / "a.vmdk", SPARSE, FLAT)
    part = pathlib.Path(beside / "a-s1.vmdk")
    with open(part, "ab") as file:
        file.write(bytes(MIB))
    found = disk("check", image, status=3).stdout
    assert "behind the last block" in found
    assert "No errors" in disk("repair", "-r", "all", image).stdout
    disk("convert", image, beside / "x")
    assert (beside / "x").read_bytes()[:4 * MIB] == (beside / "a.raw").read_bytes()


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base.raw").write_bytes(random.Random(5).randbytes(9 * MIB) + bytes(3 * MIB))
    disk("convert", "-f", "raw", "-O", "vmdk", tmp_path / "base.raw", tmp_path / "base.vmdk")
    return tmp_path / "base.vmdk"


@pytest.mark.parametrize("who", ["ours", "ours-split", "theirs"])
def test_on_top(tmp_path, base, who):
    """A child of ours that QEMU writes, one of QEMU's, and one whose extents are files of their own."""
    child, model = tmp_path / "child.vmdk", bytearray((tmp_path / "base.raw").read_bytes())
    if who == "theirs":
        qemu_img("create", "-q", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", child)
    else:
        options = ["-o", "subformat=twoGbMaxExtentSparse"] if who == "ours-split" else []
        disk("create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", *options, child)
    if who != "ours-split":
        subprocess.run(["qemu-io", "-f", "vmdk", "-c", "write -P 7 3M 100k", "-c", "write -P 9 10M 1M", child], check=True,
                       capture_output=True, timeout=60)
        model[3 * MIB:3 * MIB + 102400] = b"\7" * 102400
        model[10 * MIB:11 * MIB] = b"\11" * MIB
    (tmp_path / "model").write_bytes(model)
    assert "--follow" in disk("convert", child, tmp_path / "x", status=1).stderr
    disk("compare", "-s", "--follow", "-F", "raw", child, tmp_path / "model")
    qemu_img("compare", "-f", "vmdk", "-F", "raw", child, tmp_path / "model")
    disk("check", child)
    assert "base.vmdk" in disk("info", child).stdout
    assert "can't have another size" in disk("resize", "--follow", child, "1G", status=1).stderr \
        or who == "ours-split"
    # Whose base was written since is another disk.
    subprocess.run(["qemu-io", "-f", "vmdk", "-c", "write -P 1 0 64k", base], check=True, capture_output=True, timeout=60)
    assert "written since" in disk("convert", "--follow", child, tmp_path / "x", status=1).stderr


def test_bases_that_cant_be(tmp_path, base):
    qemu_img("create", "-q", "-f", "qcow2", tmp_path / "a.qcow2", "1M")
    assert "only be based on another VMDK" in disk("create", "-f", "vmdk", "-b", "a.qcow2", "-F", "qcow2", tmp_path / "x",
                                                  status=1).stderr
    assert "can't be based" in disk("create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "-o", "subformat=monolithicFlat",
                                    tmp_path / "x", status=1).stderr
    child = tmp_path / "child.vmdk"
    disk("create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", child)
    text = child.read_bytes()
    for name, part in ((b"child.vmdk", "based on itself"), (b"/dev/zero", "neither a file"), (b"", "does not say which")):
        new = text.replace(b'parentFileNameHint="base.vmdk"', b'parentFileNameHint="' + name + b'"')
        child.write_bytes(new[:512 + 20 * 512][:10752].ljust(10752, b"\0") + text[10752:])
        assert part in disk("convert", "--follow", child, tmp_path / "x", status=1).stderr

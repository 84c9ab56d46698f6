# SPDX-License-Identifier: GPL-2.0-or-later
"""`disk resize|snapshot|rebase|commit` beside qemu-img: what one has done the other reads, finds sound, and goes on with."""
import json
import os
import random
import shutil
import struct
import subprocess

import pytest

from disk_programs import disk, qemu_img, qemu_io
from program import run

MIB = 1 << 20
KINDS = ["", "cluster_size=512", "cluster_size=4k,refcount_bits=8", "compat=0.10", "lazy_refcounts=on",
         "preallocation=metadata", "extended_l2=on"]


def make(path, options, size="12M"):
    words = ["-o", options] if options else []
    qemu_img("create", "-q", "-f", "qcow2", *words, path, size)
    return path


def sound(image):
    assert qemu_img("check", image).returncode == 0
    disk("check", image)


def content(image):
    qemu_img("convert", "-O", "raw", image, f"{image}.content")
    with open(f"{image}.content", "rb") as file:
        return file.read()


def snapshots(image):
    ours = json.loads(disk("snapshot", "--json", "list", image).stdout)
    theirs = json.loads(qemu_img("info", "--output=json", image).stdout).get("snapshots", [])
    for a, b in zip(ours, theirs):
        assert {k: a[k] for k in ("id", "name", "vm-state-size", "date-sec", "date-nsec")} == \
            {k: b[k] for k in ("id", "name", "vm-state-size", "date-sec", "date-nsec")}
    assert len(ours) == len(theirs)
    return [s["name"] for s in ours]


@pytest.mark.parametrize("options", KINDS)
def test_snapshots(tmp_path, options):
    """Ours and QEMU's in one image, made, taken back and deleted by the other."""
    image = make(tmp_path / "a", options)
    was = {}
    tools = {"ours": lambda verb, name: disk("snapshot", verb, image, name),
             "theirs": lambda verb, name: qemu_img("snapshot", {"create": "-c", "apply": "-a", "delete": "-d"}[verb], name, image)}
    for i, who in enumerate(["ours", "theirs", "ours"]):
        qemu_io(image, f"write -P {i + 5} {i}M {i + 1}M", f"write -P 3 {8 + i}M 70k", f"write -z {i * 3}M 500k", "discard 2M 512k")
        was[f"s{i}"] = content(image)
        tools[who]("create", f"s{i}")
        sound(image)
    qemu_io(image, "write -P 99 0 5M")
    assert snapshots(image) == ["s0", "s1", "s2"]
    for who, name in (("ours", "s1"), ("theirs", "s0"), ("ours", "3"), ("theirs", "s2"), ("ours", "s0")):
        tools[who]("apply", name)
        sound(image)
        assert content(image) == was["s2" if name == "3" else name]
        qemu_io(image, "write -P 77 1M 2M")
        sound(image)
    for who, name in (("theirs", "s0"), ("ours", "s2"), ("ours", "s1")):
        tools[who]("delete", name)
        sound(image)
        del was[name]
        for kept, bytes_then in was.items():
            qemu_img("convert", "-l", f"snapshot.name={kept}", "-O", "raw", image, tmp_path / "kept")
            assert (tmp_path / "kept").read_bytes() == bytes_then
    assert snapshots(image) == []


def test_snapshots_and_sizes(tmp_path):
    """A snapshot has the size that the disk had."""
    image = make(tmp_path / "a", "cluster_size=4k", "30M")
    qemu_io(image, "write -P 5 0 30M")
    disk("snapshot", "create", image, "thirty")
    disk("resize", image, "+70M")
    qemu_io(image, "write -P 6 50M 50M")
    disk("snapshot", "create", image, "hundred")
    sound(image)
    disk("resize", "--shrink", image, "7M")
    sound(image)
    for name, size in (("thirty", 30), ("hundred", 100), ("thirty", 30)):
        disk("snapshot", "apply", image, name)
        sound(image)
        now = content(image)
        assert len(now) == size * MIB and now[:30 * MIB] == b"\5" * (30 * MIB)
        assert now[50 * MIB:] == b"\6" * max(0, (size - 50) * MIB)
    old = make(tmp_path / "old", "compat=0.10")
    disk("snapshot", "create", old, "x")
    assert "version 2" in disk("resize", old, "60M", status=1).stderr


def test_snapshots_that_cant_be(tmp_path):
    image = make(tmp_path / "a", "refcount_bits=1")
    qemu_io(image, "write -P 5 0 3M")
    assert "1 bits" in disk("snapshot", "create", image, "x", status=1).stderr
    sound(image)
    image = make(tmp_path / "b", "refcount_bits=2")
    qemu_io(image, "write -P 5 0 3M")
    disk("snapshot", "create", image, "1")
    disk("snapshot", "create", image, "2")
    assert "2 bits" in disk("snapshot", "create", image, "3", status=1).stderr
    sound(image)
    assert "already" in disk("snapshot", "create", image, "2", status=1).stderr
    assert "no snapshot 'four'" in disk("snapshot", "apply", image, "four", status=1).stderr
    assert "needs the NAME" in disk("snapshot", "create", image, status=2).stderr
    assert "keeps no snapshots" in disk("snapshot", "-f", "raw", "list", image, status=1).stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk(tmp_path):
    """A snapshot that finds no room has changed nothing; nor has one that loses its way later."""
    small = tmp_path / "small"
    small.mkdir()
    script = f"""mount -t tmpfs -o size=3m none {small} && cd {small} || exit 99
                 qemu-img create -q -f qcow2 -o cluster_size=512 a 100M && qemu-io -f qcow2 -c 'write -P 5 0 1900k' a >/dev/null
                 head -c 100000000 /dev/zero >rest 2>/dev/null
                 $TABIQUE disk snapshot create a one 2>$MESSAGE; echo $?; cat $MESSAGE; qemu-img check a | head -1
                 rm rest; $TABIQUE disk snapshot create a one; echo $?; qemu-img check a | head -1
                 qemu-io -f qcow2 -c 'read -P 5 0 1900k' a | head -1"""
    from program import TABIQUE
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], check=True, timeout=120, capture_output=True, text=True,
                          env={**os.environ, "TABIQUE": str(TABIQUE), "MESSAGE": str(tmp_path / "message")})
    lines = done.stdout.splitlines()
    assert lines[0] == "1" and "No space" in lines[1], done
    assert lines[3] == "0" and "No errors" in lines[4] and lines[5].startswith("read 1945600"), done


@pytest.mark.parametrize("options", KINDS)
def test_resize(tmp_path, options):
    """Larger and smaller, by us and by qemu-img, against a plain file."""
    image, model = make(tmp_path / "a", options), bytearray(12 * MIB)
    chance = random.Random(options)
    for step in range(9):
        size = chance.randrange(MIB, 60 * MIB if step % 4 == 3 else 14 * MIB) & ~511
        if step % 3 == 2:
            qemu_img("resize", "--shrink", image, size)
            # What QEMU leaves in the last cluster when it makes a disk smaller is not zeros.
            qemu_io(image, f"write -z {size & ~65535} {size & 65535}") if size & 65535 else None
            model[size & ~65535:] = bytes(size & 65535) if size < len(model) else model[size & ~65535:]
        else:
            disk("resize", "--shrink", image, size)
        model = model[:size] + bytes(max(0, size - len(model)))
        sound(image)
        at = chance.randrange(size) & ~511
        n = min(chance.randrange(512, MIB) & ~511, size - at)
        qemu_io(image, f"write -P {step + 1} {at} {n}", f"write -P {step + 100} {size - 512} 512")
        model[at:at + n] = bytes([step + 1]) * n
        model[size - 512:] = bytes([step + 100]) * 512
        if step % 3 != 2:
            assert content(image) == model, step


def test_resize_on_top(tmp_path):
    """Where the base is longer than the disk was, it does not come to light."""
    base = tmp_path / "base"
    base.write_bytes(os.urandom(9 * MIB))
    for options in ("", "compat=0.10", "cluster_size=512"):
        image = tmp_path / f"top{options}"
        words = ["-o", options] if options else []
        qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", *words, image, str(3 * MIB + 1536))
        assert "--follow" in disk("resize", image, "20M", status=1).stderr
        disk("resize", "--follow", image, "20M")
        sound(image)
        assert content(image) == base.read_bytes()[:3 * MIB + 1536] + bytes(17 * MIB - 1536)
        disk("resize", "--follow", "--shrink", image, "2M")
        disk("resize", "--follow", image, "5M")
        sound(image)
        assert content(image) == base.read_bytes()[:2 * MIB] + bytes(3 * MIB)


def test_resize_of_raw_and_mistakes(tmp_path):
    image = tmp_path / "a.raw"
    image.write_bytes(b"x" * MIB)
    disk("resize", "-f", "raw", image, "+1M")
    assert image.read_bytes() == b"x" * MIB + bytes(MIB)
    assert "--shrink" in disk("resize", "-f", "raw", image, "1M", status=1).stderr
    disk("resize", "-f", "raw", "--shrink", image, "--", "-1M")
    assert image.read_bytes() == b"x" * MIB
    for size in ("x", "1000", "-7M", "0", "+"):
        assert disk("resize", "-f", "raw", "--shrink", image, "--", size, status=1).stderr.count("\n") == 1
    small = make(tmp_path / "b", "cluster_size=512")
    assert "too large" in disk("resize", small, "1024T", status=1).stderr
    sound(small)


def chain(tmp_path, options=""):
    """base <- mid <- top, each with something of its own."""
    words = ["-o", options] if options else []
    base, mid, top = (tmp_path / n for n in ("base", "mid", "top"))
    qemu_img("create", "-q", "-f", "qcow2", base, "20M")
    qemu_io(base, "write -P 1 0 12M")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", *words, mid, "24M")
    qemu_io(mid, "write -P 2 3M 3M", "write -z 7M 1M", "write -P 5 22M 1M")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "mid", "-F", "qcow2", *words, top, "26M")
    qemu_io(top, "write -P 3 5M 2500k", "write -z 1M 300k", "write -P 4 25M 1M")
    return base, mid, top


@pytest.mark.parametrize("options", ["", "cluster_size=512", "compat=0.10"])
def test_commit(tmp_path, options):
    for who in ("ours", "theirs"):
        (tmp_path / who).mkdir()
        base, mid, top = chain(tmp_path / who, options)
        before = content(top)
        if who == "ours":
            assert "--follow" in disk("commit", top, status=1).stderr
            disk("commit", "--follow", top)
        else:
            qemu_img("commit", top)
        for image in (base, mid, top):
            sound(image)
        assert content(mid) == content(top) == before
        # Emptied.
        assert not any(i["data"] and i["depth"] == 0 for i in json.loads(qemu_img("map", "--output=json", top).stdout))
    assert content(tmp_path / "ours/base") == content(tmp_path / "theirs/base")


def test_commit_further_down(tmp_path):
    base, mid, top = chain(tmp_path)
    before, data = content(top), top.read_bytes()
    disk("commit", "--follow", "-b", base, top)
    assert content(base) == before and top.read_bytes() == data
    for image in (base, mid, top):
        sound(image)
    other = make(tmp_path / "other", "")
    assert "not in it" in disk("commit", "--follow", "-b", other, top, status=1).stderr
    assert "based on nothing" in disk("commit", "--follow", base, status=1).stderr
    disk("commit", "--follow", "-d", top)
    assert top.read_bytes() == data and content(mid) == before


@pytest.mark.parametrize("options", ["", "cluster_size=512", "compat=0.10"])
def test_rebase(tmp_path, options):
    base, mid, top = chain(tmp_path, options)
    before = content(top)
    other = tmp_path / "other.raw"
    other.write_bytes(b"\1" * (6 * MIB) + os.urandom(25 * MIB))
    for new, kind in (("base", "qcow2"), ("other.raw", "raw"), ("mid", "qcow2"), (f"{tmp_path}/base", "qcow2"), ("", None)):
        words = ["-F", kind] if kind else []
        disk("rebase", "--follow", "-b", new, *words, top)
        sound(top)
        assert content(top) == before
        info = json.loads(qemu_img("info", "--output=json", top).stdout)
        assert info.get("backing-filename", "") == new and info.get("backing-filename-format") == kind
    base.unlink()
    mid.unlink()
    assert content(top) == before
    assert disk("rebase", "-b", "", top).stdout == ""


def test_rebase_of_names(tmp_path):
    base, _, top = chain(tmp_path)
    before = content(top)
    long_name = "d" * 200
    (tmp_path / long_name).mkdir()
    shutil.copy(tmp_path / "mid", tmp_path / long_name / "mid")
    shutil.copy(base, tmp_path / long_name / "base")
    for name in (f"{long_name}/mid", "mid", f"./{long_name}/../{long_name}/../{long_name}/mid", f"{long_name}/mid", "mid"):
        disk("rebase", "-u", "-b", name, "-F", "qcow2", top)
        sound(top)
        assert content(top) == before
        assert json.loads(disk("info", "--json", top).stdout)["backing-filename"] == name
    assert "1023 bytes" in disk("rebase", "-u", "-b", "x" * 1100, "-F", "raw", top, status=1).stderr
    assert "--backing-format" in disk("rebase", "-u", "-b", "mid", top, status=2).stderr
    assert "missing.qcow2" in disk("rebase", "--follow", "-b", "missing.qcow2", "-F", "qcow2", top, status=1).stderr
    assert "can't be based" in disk("rebase", "-f", "raw", "-b", "mid", "-F", "qcow2", base, status=1).stderr
    assert content(top) == before


@pytest.mark.parametrize("options", ["compat=0.10", "compat=v3", "refcount_bits=1", "refcount_bits=64,cluster_size=4k",
                                     "lazy_refcounts=on", "refcount_bits=2,cluster_size=512", "extended_l2=on",
                                     "extended_l2=on,cluster_size=16k"])
def test_options_of_new_images(tmp_path, options):
    """As qemu-img makes them: what it says of ours, what it reads, and whether it finds them sound."""
    chance = random.Random(options)
    source = tmp_path / "source"
    source.write_bytes(b"".join(chance.choice([chance.randbytes(70000), bytes(200000), b"text " * 20000]) for _ in range(40)))
    os.truncate(source, source.stat().st_size & ~511)
    theirs = make(tmp_path / "theirs", options.replace("v3", "1.1"))
    for ours, verb in ((tmp_path / "made", "create"), (tmp_path / "converted", "convert"), (tmp_path / "packed", "convert -c")):
        if verb == "create":
            disk("create", "-f", "qcow2", "-o", options, ours, "12M")
        else:
            disk(*verb.split(), "-O", "qcow2", "-o", options, source, ours)
            assert content(ours) == source.read_bytes()
        sound(ours)
        facts = [json.loads(qemu_img("info", "--output=json", image).stdout)["format-specific"]["data"] for image in (ours, theirs)]
        assert all(facts[0].get(k) == facts[1].get(k) for k in ("compat", "refcount-bits", "lazy-refcounts", "extended-l2", "corrupt")), facts
        qemu_io(ours, "write -P 9 1M 1M", "discard 0 64k")
        sound(ours)


def test_options_that_cant_be(tmp_path):
    for options, part in (("compat=0.10,lazy_refcounts=on", "neither lazy_refcounts"), ("compat=0.10,refcount_bits=8", "alone"),
                          ("extended_l2=on,cluster_size=8k", "16K or more"), ("extended_l2=on,compat=0.10", "compat=1.1")):
        assert part in disk("create", "-f", "qcow2", "-o", options, tmp_path / "x", "1M", status=1).stderr
    assert "options of qcow2" in disk("create", "-f", "vdi", "-o", "compat=1.1", tmp_path / "x", "1M", status=1).stderr
    for options in ("compat=2", "refcount_bits=3", "lazy_refcounts=yes", "extended_l2=1"):
        assert "choose" in disk("create", "-f", "qcow2", "-o", options, tmp_path / "x", "1M", status=2).stderr
    assert not (tmp_path / "x").exists()


def allocation(path, name):
    """What qemu-img says of the disk's allocation: of each stretch that is alike, where it begins, its length, and
    whether it has a place in the file and holds data."""
    out = []
    for part in json.loads(qemu_img("map", "-f", name, "--output=json", path).stdout):
        alike = ("offset" in part, part["data"], part["present"], part["depth"])
        if out and out[-1][2] == alike:
            out[-1][1] += part["length"]
        else:
            out.append([part["start"], part["length"], alike])
    return out


@pytest.mark.parametrize("name, options", [("qcow2", ""), ("qcow2", ",cluster_size=4k"), ("qcow2", ",cluster_size=2M"),
                                           ("qcow2", ",compat=0.10"), ("raw", "")])
@pytest.mark.parametrize("how", ["off", "metadata", "falloc", "full"])
def test_preallocation(tmp_path, name, options, how):
    ours, theirs, size = tmp_path / "ours", tmp_path / "theirs", 9 * MIB + 512 * 3
    if name == "raw" and how == "metadata":
        assert "choose off, falloc or full" in disk("create", "-f", name, "-o", "preallocation=" + how, ours, size,
                                                    status=1).stderr
        assert not ours.exists()
        return
    disk("create", "-f", name, "-o", f"preallocation={how}{options}", ours, size)
    if name == "qcow2":
        qemu_img("create", "-q", "-f", name, "-o", f"preallocation={how}{options}", theirs, size)
        assert allocation(ours, name) == allocation(theirs, name)
    else:  # QEMU's begins with a block of zeros, to find out what alignment the file needs
        assert allocation(ours, name) == [[0, size, (True, how == "full", True, 0)]]
    blank = tmp_path / "blank"
    with open(blank, "wb") as file:
        file.truncate(size)
    qemu_img("compare", "-f", "raw", "-F", name, blank, ours)
    space = os.stat(ours).st_blocks * 512
    if how in ("falloc", "full"):
        assert space >= size
    elif "2M" not in options:  # where the tables take more than the rest
        assert space < 5 * MIB
    if name == "qcow2":
        qemu_img("check", "-q", ours)
        # A write finds all that it needs: the file stays as long as it is.
        length = ours.stat().st_size
        subprocess.run(["qemu-io", "-f", name, "-c", "write -P 3 5M 1M", ours], check=True, capture_output=True, timeout=60)
        assert how == "off" or ours.stat().st_size == length
        qemu_img("check", "-q", ours)


@pytest.mark.parametrize("name, how", [("qcow2", "metadata"), ("qcow2", "falloc"), ("qcow2", "full"), ("raw", "falloc"),
                                       ("raw", "full")])
def test_convert_preallocates(tmp_path, name, how):
    source, target, size = tmp_path / "source", tmp_path / "target", 11 * MIB
    with open(source, "wb") as file:
        file.truncate(size)
        for at in (0, 3 * MIB + 512, 7 * MIB):
            file.seek(at)
            file.write(os.urandom(300000))
    disk("convert", "-f", "raw", "-O", name, "-o", "preallocation=" + how, source, target)
    qemu_img("compare", "-f", "raw", "-F", name, source, target)
    assert all(place for _, _, (place, *_) in allocation(target, name))
    if how != "metadata":
        assert os.stat(target).st_blocks * 512 >= size
    if name == "qcow2":
        qemu_img("check", "-q", target)
    refused = ("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "preallocation=" + how, source, tmp_path / "b")
    assert "exclude one another" in disk(*refused, status=1).stderr
    refused = ("create", "-f", "qcow2", "-b", source, "-F", "raw", "-o", "preallocation=" + how, tmp_path / "b")
    assert "would hide" in disk(*refused, status=1).stderr
    assert not (tmp_path / "b").exists()


def test_preallocation_has_bounds(tmp_path):
    for options, status, part in (("cluster_size=512,preallocation=full", 1, "choose a larger cluster_size"),
                                  ("preallocation=some", 2, "choose off, metadata, falloc or full")):
        assert part in disk("create", "-f", "qcow2", "-o", options, tmp_path / "a", "100G", status=status).stderr
    assert "an option of qcow2 and raw" in disk("create", "-f", "vhdx", "-o", "preallocation=full", tmp_path / "a", "1G",
                                                status=1).stderr
    assert not (tmp_path / "a").exists()


# Who has made it, format, QEMU's name of it, and options.
BLOCKS = [("ours", "vdi", "vdi", ""), ("theirs", "vdi", "vdi", ""), ("theirs", "vdi", "vdi", "static=on"),
          ("ours", "vhd", "vpc", ""), ("ours", "vhd", "vpc", "subformat=fixed"),
          ("theirs", "vhd", "vpc", "force_size=on"), ("theirs", "vhd", "vpc", "force_size=on,subformat=fixed"),
          ("ours", "vhdx", "vhdx", ""), ("ours", "vhdx", "vhdx", "block_size=1M"), ("theirs", "vhdx", "vhdx", ""),
          ("ours", "vmdk", "vmdk", ""), ("theirs", "vmdk", "vmdk", "")]


def agree(image, name, theirs, model):
    """Ours and QEMU's reading of an image, and both checks."""
    disk("compare", "-f", name, "-F", "raw", image, model)
    qemu_img("compare", "-f", theirs, "-F", "raw", image, model)
    for said in (disk("info", "-f", name, "--json", image), qemu_img("info", "-f", theirs, "--output=json", image)):
        assert json.loads(said.stdout)["virtual-size"] == model.stat().st_size
    if theirs != "vpc":
        qemu_img("check", "-q", "-f", theirs, image)
    disk("check", "-f", name, image)


@pytest.mark.parametrize("who, name, theirs, options", BLOCKS)
def test_resize_of_blocks(tmp_path, who, name, theirs, options):
    """Further than there was room in the table of who made it, as far as that can be; and smaller, which takes blocks
    from the file's end to places that have become free."""
    image, model = tmp_path / "image", tmp_path / "model"
    with open(model, "wb") as f:
        f.truncate(60 * MIB)
        for at in (0, 7, 20, 33, 59):
            f.seek(at * MIB)
            f.write(os.urandom(MIB))
    words = ["-o", options] if options else []
    if who == "ours":
        disk("convert", "-f", "raw", "-O", name, *words, model, image)
    else:
        qemu_img("convert", "-f", "raw", "-O", theirs, *words, model, image)
    agree(image, name, theirs, model)
    # QEMU takes long to find nothing in a vhdx.
    most = 300 if name == "vhdx" else 3000
    for size in (most * MIB + 512, 61 * MIB - 1024, 21 * MIB + 512, 100 * MIB, 200 * MIB):
        if name == "vdi" and who == "theirs" and size > 128 * MIB:
            assert "has room" in disk("resize", "-f", name, image, size, status=1).stderr
            continue
        disk("resize", "-f", name, "--shrink", image, size)
        os.truncate(model, size)
        agree(image, name, theirs, model)
        for path, kind in ((image, theirs), (model, "raw")):
            subprocess.run(["qemu-io", "-f", kind, "-c", f"write -P 7 {size - 512} 512", "-c", "write -P 9 9M 3M", path],
                           check=True, capture_output=True, timeout=60)
        agree(image, name, theirs, model)
    assert "too large" in disk("resize", "-f", name, image, "1000000T", status=1).stderr
    agree(image, name, theirs, model)


def test_resize_of_vhdx_with_places_kept(tmp_path):
    """A block that says "zeros" may keep its place for whoever writes it again: the file goes on to have that."""
    image, model = tmp_path / "a.vhdx", tmp_path / "model"
    model.write_bytes(b"\5" * (10 * MIB) + bytes(50 * MIB))
    disk("convert", "-f", "raw", "-O", "vhdx", "-o", "block_size=1M", model, image)
    table, whole = 3 * MIB, image.stat().st_size
    with open(image, "r+b") as f:
        f.seek(table)
        entries = struct.unpack("<10Q", f.read(80))
        assert all(e & 7 == 6 for e in entries)
        last = max(range(10), key=lambda i: entries[i])
        assert (entries[last] >> 20) * MIB + MIB == whole
        f.seek(table + 8 * last)
        f.write(struct.pack("<Q", entries[last] & ~7 | 2))
    disk("resize", "-f", "vhdx", "--shrink", image, "20M")
    assert image.stat().st_size == whole
    model.write_bytes(b"".join(bytes(MIB) if i == last else b"\5" * MIB for i in range(10)) + bytes(10 * MIB))
    agree(image, "vhdx", "vhdx", model)
    qemu_img("check", "-q", "-f", "vhdx", image)


@pytest.mark.parametrize("words", ["check A", "repair -r all A", "resize --follow A 40M", "snapshot list A", "snapshot create A s", "bitmap list A",
                                   "bitmap add A b", "rebase --follow -b C -F qcow2 A", "rebase -u -b C -F qcow2 A", "commit --follow A",
                                   "convert --follow A D", "compare --follow A C", "map --follow A", "info A"])
def test_each_is_confined(tmp_path, words):
    """Where the list of system calls can't be had, nothing is read and nothing changes."""
    names = {n: tmp_path / f"{n}.qcow2" for n in "ABCD"}
    for n in "BC":
        disk("create", "-f", "qcow2", names[n], "16M")
    disk("create", "-f", "qcow2", "-b", names["B"], "-F", "qcow2", names["A"])
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    words = [str(names.get(w, w)) for w in words.split()]
    done = run("disk", *words, env=dict(os.environ, TABIQUE_SECCOMP="wrong"))
    assert done.returncode and "TABIQUE_SECCOMP=wrong" in done.stderr, done
    assert before == {p: p.read_bytes() for p in tmp_path.iterdir()}
    disk(*words)

# SPDX-License-Identifier: GPL-2.0-or-later
"""qcow2 images whose clusters are in a file of their own, beside QEMU's programs."""
import json
import os
import random

import pytest

from disk_programs import disk, qemu_img, qemu_io

MIB = 1 << 20
KINDS = ["", "data_file_raw=on", "cluster_size=4k", "extended_l2=on", "data_file_raw=on,extended_l2=on,cluster_size=16k"]


def theirs(path):
    qemu_img("convert", "-O", "raw", path, f"{path}.theirs")
    with open(f"{path}.theirs", "rb") as file:
        return file.read()


def ours(path, *words):
    disk("convert", *words, "-O", "raw", path, f"{path}.ours")
    with open(f"{path}.ours", "rb") as file:
        return file.read()


def sound(path):
    assert qemu_img("check", path).returncode == 0
    disk("check", path)


def options_of(name, more):
    return ",".join(filter(None, [f"data_file={name}", more]))


@pytest.mark.parametrize("options", KINDS)
def test_both_ways(tmp_path, monkeypatch, options):
    """Made here and there, written there, read by both; a raw data file shows the same, also to who knows nothing of qcow2."""
    monkeypatch.chdir(tmp_path)
    for maker in ("ours", "theirs"):
        image, data = f"{maker}.qcow2", f"{maker}-data"
        if maker == "ours":
            disk("create", "-f", "qcow2", "-o", options_of(data, options), image, str(9 * MIB + 1536))
        else:
            qemu_img("create", "-q", "-f", "qcow2", "-o", options_of(data, options), image, str(9 * MIB + 1536))
        facts = json.loads(qemu_img("info", "--output=json", image).stdout)["format-specific"]["data"]
        assert facts["data-file"] == data and facts["data-file-raw"] == ("raw" in options)
        assert f"data-file: {data}\n" in disk("info", image).stdout
        sound(image)
        qemu_io(image, "write -P 7 0 70k", "write -P 5 1M 3M", "write -z 2M 300k", "write -z -u 3M 64k", "discard 1M 128k", "write -P 9 9M 1536")
        content = theirs(image)
        assert ours(image) == content
        sound(image)
        if "raw" in options:
            with open(data, "rb") as file:
                assert file.read().rstrip(b"\0") == content.rstrip(b"\0")
        for piece in json.loads(disk("map", "--json", image).stdout):
            assert not piece["data"] or (piece["offset"] == piece["start"] and piece["filename"].endswith(data)), piece
        for size, who in ((str(20 * MIB), "ours"), (str(3 * MIB + 512), "ours"), (str(12 * MIB), "theirs"), (str(2 * MIB), "theirs"), (str(8 * MIB), "ours")):
            if who == "ours":
                disk("resize", "--shrink", image, size)
            else:
                qemu_img("resize", "-q", "--shrink", image, size)
            content = content[:int(size)] + bytes(max(0, int(size) - len(content)))
            assert theirs(image) == content and ours(image) == content
            sound(image)
            if "raw" in options:
                assert os.path.getsize(data) == int(size)
        assert qemu_img("resize", "-q", image, "9M", check=False).returncode == 0


@pytest.mark.parametrize("options", KINDS + ["preallocation=metadata", "preallocation=falloc", "preallocation=full"])
def test_convert(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    chance = random.Random(options)
    (tmp_path / "source").write_bytes(b"".join(chance.choice([chance.randbytes(70144), bytes(200192)]) for _ in range(40)) + b"end" * 512)
    source = (tmp_path / "source").read_bytes()
    disk("convert", "-f", "raw", "-O", "qcow2", "-o", options_of("a-data", options), "source", "a.qcow2")
    sound("a.qcow2")
    assert theirs("a.qcow2") == source == ours("a.qcow2")
    assert os.path.getsize("a-data") == len(source)
    assert os.path.getsize("a.qcow2") < 2 * MIB
    disk("compare", "a.qcow2", "source")
    if "raw" in options:
        assert (tmp_path / "a-data").read_bytes() == source
    if options.endswith(("falloc", "full")):
        assert os.stat("a-data").st_blocks * 512 >= len(source)
    elif "metadata" not in options:
        assert os.stat("a-data").st_blocks * 512 < len(source) - MIB
    # And back to one file, and to another that has one of its own.
    disk("convert", "-O", "qcow2", "-c", "a.qcow2", "b.qcow2")
    disk("convert", "-O", "qcow2", "-o", "data_file=c-data,data_file_raw=on", "b.qcow2", "c.qcow2")
    assert (tmp_path / "c-data").read_bytes() == source
    sound("c.qcow2")


@pytest.mark.parametrize("options", KINDS)
def test_chains(tmp_path, monkeypatch, options):
    """As what something is based on, and where that may be on top of something: committed, rebased, with bitmaps."""
    monkeypatch.chdir(tmp_path)
    qemu_img("create", "-q", "-f", "qcow2", "-o", options_of("base-data", options), "base", "8M")
    qemu_io("base", "write -P 1 0 5M")
    upper = options.replace("data_file_raw=on", "").strip(",")
    disk("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", "-o", options_of("top-data", upper), "top")
    qemu_io("top", "write -P 2 1M 1M", "write -z 3M 1M", "write -P 3 6M 700k")
    content = theirs("top")
    assert ours("top", "--follow") == content
    disk("bitmap", "add", "top", "b0")
    sound("top")
    disk("commit", "--follow", "top")
    assert theirs("base") == content and theirs("top") == content and ours("base") == content
    sound("base")
    sound("top")
    qemu_io("top", "write -P 4 2M 1M")
    content = theirs("top")
    disk("rebase", "-b", "", "--follow", "top")
    assert theirs("top") == content == ours("top")
    sound("top")
    if "raw" not in options:
        return
    qemu_img("create", "-q", "-f", "qcow2", "other", "8M")
    for words in (["-u"], ["--follow"]):
        assert "raw file" in disk("rebase", *words, "-b", "other", "-F", "qcow2", "base", status=1).stderr


def test_snapshots_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    disk("create", "-f", "qcow2", "-o", "data_file=a-data", "a", "4M")
    assert "another file" in disk("snapshot", "create", "a", "one", status=1).stderr
    assert disk("snapshot", "list", "a").stdout.count("\n") <= 1
    sound("a")


def test_whose_data_are_opened(tmp_path, monkeypatch):
    """What is named after the image is; else it takes --follow; what is in the image itself needs no other file."""
    monkeypatch.chdir(tmp_path)
    qemu_img("create", "-q", "-f", "qcow2", "-o", "data_file=secret", "a", "4M")
    qemu_io("a", "write -P 7 1M 1M")
    for verb in (["convert", "a", "x"], ["map", "a"], ["compare", "a", "a"], ["resize", "a", "8M"]):
        assert "--follow" in disk(*verb, status=3 if verb[0] == "compare" else 1).stderr
    content = theirs("a")
    assert ours("a", "--follow") == content
    disk("check", "a")
    disk("info", "a")
    disk("bitmap", "add", "a", "one")
    assert "one" in disk("bitmap", "list", "a").stdout
    disk("rebase", "-u", "-b", "", "a")
    os.rename("secret", "gone")
    disk("check", "a")
    assert "gone" not in disk("convert", "--follow", "a", "x", status=1).stderr
    os.symlink("gone", "secret")
    assert "symbolic link" in disk("convert", "--follow", "a", "x", status=1).stderr
    assert not os.path.exists("x")
    os.remove("secret")
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path}/b-data", "b", "4M")
    assert "plain names" in disk("convert", "--follow", "b", "x", status=1).stderr


def test_repair(tmp_path, monkeypatch):
    """Tables of the image are mended as ever; a cluster that has another place than the disk's is found."""
    monkeypatch.chdir(tmp_path)
    disk("create", "-f", "qcow2", "-o", "data_file=a-data,cluster_size=4k", "a", "4M")
    qemu_io("a", "write -P 7 0 1M")
    content = theirs("a")
    with open("a", "r+b") as file:
        header = file.read(104)
        at = int.from_bytes(header[48:56], "big")
        file.seek(at)
        block = int.from_bytes(file.read(8), "big")
        file.seek(block)
        file.write(bytes(8))
    disk("check", "a", status=2)
    disk("repair", "-r", "all", "a")
    sound("a")
    assert theirs("a") == content
    with open("a", "r+b") as file:
        file.seek(int.from_bytes(header[40:48], "big"))
        table = int.from_bytes(file.read(8), "big") & ~(1 << 63)
        file.seek(table + 8)
        file.write((1 << 63 | 0x8000).to_bytes(8, "big"))
    assert "another place" in disk("check", "a", status=2).stderr + disk("check", "a", status=2).stdout


def test_what_cant_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_bytes(b"mine")
    (tmp_path / "base").write_bytes(bytes(MIB))
    (tmp_path / ("b" * 240)).write_bytes(bytes(MIB))
    there = sorted(os.listdir())
    for options, part, more in (("data_file=/x", "name alone", []), ("data_file=..", "name alone", []), ("data_file_raw=on", "data_file=NAME", []),
                                ("data_file=a-data,compat=0.10", "compat=1.1", []), ("data_file=there", "is there already", []),
                                ("data_file=a-data,data_file_raw=on", "based on another", ["-b", "base", "-F", "raw"]),
                                (f"cluster_size=512,data_file={'n' * 250}", "cluster of 512", ["-b", "b" * 240, "-F", "raw"])):
        assert part in disk("create", "-f", "qcow2", "-o", options, *more, "a", "1M", status=1).stderr, options
        assert sorted(os.listdir()) == there, options
    assert "no compression" in disk("convert", "-c", "-O", "qcow2", "-o", "data_file=a-data", "base", "a", status=1).stderr
    assert "options of qcow2" in disk("create", "-f", "vdi", "-o", "data_file=a-data", "a", "1M", status=1).stderr
    assert (tmp_path / "there").read_bytes() == b"mine" and sorted(os.listdir()) == there

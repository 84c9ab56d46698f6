# SPDX-License-Identifier: GPL-2.0-or-later
"""qcow2 images that are encrypted inside, as LUKS has it, beside QEMU's programs."""
import json
import os
import random
import subprocess

import pytest

from disk_programs import disk, qemu_img

MIB = 1 << 20
KINDS = ["", "cluster_size=4k", "extended_l2=on", "data_file=a-data", "refcount_bits=64,cluster_size=512"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s").write_bytes(b"a secret\n")
    (tmp_path / "other").write_bytes(b"a secret")


def options_of(more):
    return ",".join(filter(None, ["encrypt.format=luks,encrypt.key-file=s,encrypt.iter-time=10", more]))


def theirs_make(image, more, size):
    words = ["create", "-q", "--object", "secret,id=s,file=s", "-f", "qcow2", "-o",
             ",".join(filter(None, ["encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", more])), image, size]
    # QEMU measures how fast it is, which now and then it can't where others are busy.
    assert any(qemu_img(*words, check=False).returncode == 0 for _ in range(5))


def theirs_as(image):
    return ["--object", "secret,id=s,file=s", "--image-opts", f"driver=qcow2,file.filename={image},encrypt.key-secret=s"]


def theirs(image):
    qemu_img("convert", "-O", "raw", *theirs_as(image), f"{image}.theirs")
    with open(f"{image}.theirs", "rb") as file:
        return file.read()


def ours(image, *words):
    disk("convert", "--secret-file", "s", *words, "-O", "raw", image, f"{image}.ours")
    with open(f"{image}.ours", "rb") as file:
        return file.read()


def scribble(image, *commands):
    subprocess.run(["qemu-io", *theirs_as(image), *[w for c in commands for w in ("-c", c)]], check=True, capture_output=True, timeout=120)


def sound(image):
    assert qemu_img("check", *theirs_as(image)).returncode == 0
    disk("check", image)


@pytest.mark.parametrize("options", KINDS)
def test_both_ways(options):
    for maker in ("ours", "theirs"):
        if maker == "ours":
            disk("create", "-f", "qcow2", "-o", options_of(options), "a", str(9 * MIB + 1536))
        else:
            os.remove("a")
            if os.path.exists("a-data"):
                os.remove("a-data")
            theirs_make("a", options, str(9 * MIB + 1536))
        assert "encryption: LUKS 1, aes-xts-plain64" in disk("info", "a").stdout
        sound("a")
        scribble("a", "write -P 7 0 70k", "write -P 5 1M 3M", "write -z 2M 300k", "discard 1M 128k", "write -P 9 9M 1536")
        content = theirs("a")
        assert ours("a") == content
        sound("a")
        for verb, name in (("create", "one"), ("create", "two")):
            disk("snapshot", verb, "a", name, status="data_file" in options)
            scribble("a", "write -P 8 512k 2M")
            sound("a")
        changed = theirs("a")
        assert changed != content and ours("a") == changed
        if "data_file" not in options:
            disk("snapshot", "delete", "a", "two")
            disk("snapshot", "apply", "a", "1")
            assert theirs("a") == content == ours("a")
            changed = content
        disk("resize", "--secret-file", "s", "a", "12M")
        disk("resize", "--secret-file", "s", "--shrink", "a", str(3 * MIB + 512))
        disk("resize", "--secret-file", "s", "a", "5M")
        assert theirs("a") == changed[:3 * MIB + 512] + bytes(2 * MIB - 512) == ours("a")
        sound("a")


@pytest.mark.parametrize("options", KINDS)
def test_convert(tmp_path, options):
    chance = random.Random(options)
    source = b"".join(chance.choice([chance.randbytes(70144), bytes(200192)]) for _ in range(40)) + b"end" * 512
    (tmp_path / "source").write_bytes(source)
    disk("convert", "-f", "raw", "-O", "qcow2", "-o", options_of(options), "source", "a")
    sound("a")
    assert theirs("a") == source == ours("a")
    disk("compare", "--secret-file", "s", "a", "source")
    assert all(p["data"] or p["zero"] for p in json.loads(disk("map", "--json", "--secret-file", "s", "a").stdout))
    # Nothing of it is there for who has no secret.
    there = (tmp_path / "a").read_bytes() + (tmp_path / "a-data").read_bytes() if "data_file" in options else (tmp_path / "a").read_bytes()
    assert b"endendend" not in there and source[:512].strip(b"\0")[:64] not in there[65536:] or not source[:512].strip(b"\0")


def test_chains():
    """On top of an image that is encrypted, and of one that is not; committed and rebased."""
    theirs_make("base", "", "6M")
    scribble("base", "write -P 1 0 5M")
    disk("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", "-o", options_of("extended_l2=on"), "top")
    # QEMU wants a secret for each file.
    top = ["--object", "secret,id=s,file=s", "--image-opts",
           "driver=qcow2,file.filename=top,encrypt.key-secret=s,backing.driver=qcow2,backing.file.filename=base,backing.encrypt.key-secret=s"]
    subprocess.run(["qemu-io", *top, "-c", "write -P 2 1M 1M", "-c", "write -z 3M 1M", "-c", "write -P 3 5M 700k"], check=True, capture_output=True, timeout=60)
    content = ours("top", "--follow")
    assert content == b"\1" * MIB + b"\2" * MIB + b"\1" * MIB + bytes(MIB) + b"\1" * MIB + b"\3" * 700 * 1024 + bytes(324 * 1024)
    qemu_img("convert", "-O", "raw", *top, "top.raw")
    with open("top.raw", "rb") as file:
        assert file.read() == content
    assert "--secret-file" in disk("commit", "--follow", "top", status=1).stderr
    assert ours("top", "--follow") == content
    disk("commit", "--follow", "--secret-file", "s", "top")
    assert theirs("base") == content == ours("top", "--follow")
    sound("base")
    disk("rebase", "--follow", "--secret-file", "s", "-b", "", "top")
    assert theirs("top") == content
    sound("top")


def test_secrets_that_do_not_fit():
    disk("create", "-f", "qcow2", "-o", options_of(""), "a", "4M")
    assert "not by this secret" in disk("convert", "--secret-file", "other", "a", "x", status=1).stderr
    assert "--secret-file" in disk("convert", "a", "x", status=1).stderr
    assert "--secret-file" in disk("resize", "a", "8M", status=1).stderr
    with open("a", "r+b") as file:
        file.seek(32)
        file.write((1).to_bytes(4, "big"))
    assert "method 1" in disk("convert", "--secret-file", "s", "a", "x", status=1).stderr
    assert not os.path.exists("x")


@pytest.mark.parametrize("at, value, part", [(104, 0x12345678, "no LUKS header"), (108, 8, "no LUKS header"), (112, 0x7fffffff, "not in the file"),
                                             (120, 0x7fffffff, "not in the file"), (116, 0x10200, "not in the file"), (0x10000, 0, "not a LUKS image"),
                                             (0x10000 + 104, 0, "begins within its header"), (0x10000 + 108, 65, "key of 65")])
def test_headers_that_lie(at, value, part):
    disk("create", "-f", "qcow2", "-o", options_of(""), "a", "4M")
    with open("a", "r+b") as file:
        file.seek(at)
        file.write(value.to_bytes(4, "big"))
    assert part in disk("convert", "--secret-file", "s", "a", "x", status=1).stderr
    if at in (112, 116, 120):
        disk("check", "a", status=2)


def test_what_cant_be(tmp_path):
    (tmp_path / "source").write_bytes(bytes(MIB))
    there = sorted(os.listdir())
    for options, part in (("encrypt.format=luks", "encrypt.key-file"), (options_of("compat=0.10"), "compat=1.1"), (options_of("preallocation=metadata"), "preallocation"),
                          (options_of("data_file=a-data,data_file_raw=on"), "data_file_raw"), ("encrypt.key-file=gone", "gone")):
        assert part in disk("create", "-f", "qcow2", "-o", options, "a", "1M", status=1).stderr
    assert "choose luks" in disk("create", "-f", "qcow2", "-o", "encrypt.format=aes", "a", "1M", status=2).stderr
    assert "no compression" in disk("convert", "-c", "-O", "qcow2", "-o", options_of(""), "source", "a", status=1).stderr
    assert sorted(os.listdir()) == there

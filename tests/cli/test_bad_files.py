# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels and initial RAM disks that can't work: exit status 1 and a message that says why, at once."""
import gzip
import os
import struct
import subprocess

import pytest

import program
from program import run

pytestmark = pytest.mark.skipif(not program.engines(), reason="this host can run no engine")


def elf(machine, bits=64):
    """The head of an ELF executable for another machine."""
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    return ident + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x1000, 64, 0, 0, 64, 56, 0, 0, 0, 0) + bytes(4096)


ARM64_IMAGE = struct.pack("<IIQQQQQQ4sI", 0x91005A4D, 0x14000000, 0, 0x10000, 0, 0, 0, 0, b"ARM\x64", 0) + bytes(65536)

KERNELS = {
    "empty": b"",
    "one byte": b"\x7f",
    "text": b"#!/bin/sh\necho this is no kernel\n" * 100,
    "zeros": bytes(1 << 20),
    "arm64 image": ARM64_IMAGE,
    "arm64 elf": elf(183),
    "riscv elf": elf(243),
    "gzip": gzip.compress(bytes(100000)),
    "elf magic only": b"\x7fELF",
    "x86-64 elf without an entry note": elf(62),
}


def failed(result, *words):
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("tabique run: ") and result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr
    return result.stderr


@pytest.mark.parametrize("kind", KERNELS)
def test_not_a_kernel(kind, tmp_path):
    path = tmp_path / "kernel"
    path.write_bytes(KERNELS[kind])
    message = failed(run("run", "--kernel", path), "kernel", str(path))
    if "arm64" in kind:
        assert "ARM" in message.upper()


def test_no_file(tmp_path):
    failed(run("run", "--kernel", tmp_path / "none"), "No such file or directory")
    failed(run("run", "--kernel", tmp_path), str(tmp_path))
    failed(run("run", "--kernel", "/dev/null"), "/dev/null")


def test_unreadable(tmp_path):
    path = tmp_path / "kernel"
    path.write_bytes(b"x")
    path.chmod(0)
    arguments = [program.TABIQUE, "run", "--kernel", str(path)]
    if os.geteuid() == 0:
        arguments = ["setpriv", "--reuid=65534", "--clear-groups", *arguments]
    result = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    if result.stderr.startswith("setpriv:"):
        pytest.skip(f"can't run as someone else than root: {result.stderr.strip()}")
    failed(result, "Permission denied")


def test_truncated_bzimage(suite, tmp_path):
    whole = (program.GUESTS / suite / "vmlinuz").read_bytes()
    for length in [100, 0x1FF, 0x202, 0x260, 1024, 20000, len(whole) // 2, len(whole) - 4096]:
        path = tmp_path / "kernel"
        path.write_bytes(whole[:length])
        failed(run("run", "--kernel", path))


def test_bad_initrd(suite, tmp_path):
    kernel = program.GUESTS / suite / "vmlinuz"
    failed(run("run", "--kernel", kernel, "--initrd", tmp_path / "none"), "initrd", "No such file or directory")
    failed(run("run", "--kernel", kernel, "--initrd", tmp_path), "initrd")
    big = tmp_path / "big"
    with open(big, "wb") as file:
        file.truncate(300 << 20)
    failed(run("run", "--kernel", kernel, "--initrd", big, "--memory", "128M"), "initrd", "--memory")
    huge = tmp_path / "huge"
    with open(huge, "wb") as file:
        file.truncate(1 << 40)
    failed(run("run", "--kernel", kernel, "--initrd", huge), "initrd", "--memory")


def test_too_little_memory(suite):
    failed(run("run", "--kernel", program.GUESTS / suite / "vmlinuz", "--memory", "8M"), "--memory")


def test_command_line_too_long(suite):
    failed(run("run", "--kernel", program.GUESTS / suite / "vmlinuz", "--append", "x" * 100000), "command line")


def test_kernel_from_a_pipe_without_end(tmp_path):
    """Interrupting while files are read ends the program at once."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    child = subprocess.Popen([program.TABIQUE, "run", "--kernel", str(fifo)], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        child.wait(0.5)
        assert child.returncode == 1
    except subprocess.TimeoutExpired:
        child.terminate()
        assert child.wait(5) == -15
    finally:
        child.kill()
        child.communicate()


def test_engine_that_cannot_run():
    for engine in program.host_report()["engines"]:
        if not engine["usable"]:
            failed(run("run", "--engine", engine["name"], "--kernel", program.BUILD / "tests/guest/hello.pvh.elf"),
                   engine["reason"])

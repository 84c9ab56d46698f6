# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are no kernel, no longer a kernel, or a kernel for something else: `tabique run` must say so, tell what to do,
and return 1 at once."""
import gzip
import os
import struct
import subprocess

import pytest

TABIQUE = os.environ.get("TABIQUE", "build/tabique")


def run(*args):
    return subprocess.run([TABIQUE, "run", *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)


def expect_error(result, *parts):
    assert result.returncode == 1, result
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    assert not result.stderr.rstrip().endswith(".")


def bzimage():
    """The smallest file that our loader takes for a bzImage: what it holds is never executed here."""
    data = bytearray(1024 + 4096)
    data[0x1f1] = 1
    struct.pack_into("<I", data, 0x1f4, 4096 // 16)
    struct.pack_into("<H", data, 0x1fe, 0xaa55)
    data[0x201] = 0x6a
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", data, 0x206, 0x20f)
    data[0x211] = 1
    struct.pack_into("<II", data, 0x22c, 0x7fffffff, 0x200000)
    data[0x234] = 1
    struct.pack_into("<HI", data, 0x236, 3, 2047)
    struct.pack_into("<QI", data, 0x258, 0x1000000, 0x2000000)
    return data


def elf(machine=62, bits=64, kind=2):
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    if bits == 64:
        return ident + struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0x100000, 64, 0, 0, 64, 56, 1, 0, 0, 0) + \
            struct.pack("<IIQQQQQQ", 1, 5, 0, 0x100000, 0x100000, 64, 64, 4096)
    return ident + struct.pack("<HHIIIIIHHHHHH", kind, machine, 1, 0x100000, 52, 0, 0, 52, 32, 1, 0, 0, 0) + \
        struct.pack("<IIIIIIII", 1, 0, 0x100000, 0x100000, 64, 64, 5, 4096)


WRONG_FILES = {
    "empty": (b"", "is empty"),
    "text": (b"console=ttyS0\n" * 100, "not a kernel this machine can boot"),
    "script": (b"#!/bin/sh\nexit 0\n", "script"),
    "arm64": (bytes(0x38) + b"ARM\x64" + bytes(4096), "AArch64"),
    "arm64-elf": (elf(machine=183), "ELF file for AArch64"),
    "riscv": (bytes(0x38) + b"RSC\x05" + bytes(4096), "RISC-V"),
    "i386-elf": (elf(machine=3, bits=32), "i386 ELF file without a PVH note"),
    "amd64-elf": (elf(), "give the bzImage"),
    "gzip": (gzip.compress(bytes(elf())), "gunzip"),
    "initramfs": (b"070701" + bytes(200), "--initrd"),
    "truncated": (bytes(bzimage()[:3000]), "cut short"),
    "truncated-header": (bytes(bzimage()[:0x220]), "cut short"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_wrong_file(tmp_path, name):
    content, part = WRONG_FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    expect_error(run("--kernel", path), f"'{path}'", part)


def test_missing_file(tmp_path):
    expect_error(run("--kernel", tmp_path / "none"), "kernel", "No such file or directory")


def test_directory(tmp_path):
    expect_error(run("--kernel", tmp_path), "is a directory")


def test_unreadable_initrd(tmp_path):
    kernel = tmp_path / "kernel"
    kernel.write_bytes(bzimage())
    expect_error(run("--kernel", kernel, "--initrd", tmp_path / "none"), "initrd", "No such file or directory")


def test_initrd_larger_than_ram(tmp_path):
    kernel, initrd = tmp_path / "kernel", tmp_path / "initrd"
    kernel.write_bytes(bzimage())
    with initrd.open("wb") as f:
        f.truncate(200 << 20)
    expect_error(run("--kernel", kernel, "--initrd", initrd, "--memory", "128M"), "200 MiB", "choose a larger --memory")


def test_initrd_that_does_not_fit_beside_the_kernel(tmp_path):
    kernel, initrd = tmp_path / "kernel", tmp_path / "initrd"
    kernel.write_bytes(bzimage())
    with initrd.open("wb") as f:
        f.truncate(100 << 20)
    expect_error(run("--kernel", kernel, "--initrd", initrd, "--memory", "128M"), "initrd", "choose a larger --memory")


def test_not_enough_memory(tmp_path):
    kernel = tmp_path / "kernel"
    kernel.write_bytes(bzimage())
    expect_error(run("--kernel", kernel, "--memory", "16M"), "needs 32 MiB", "choose a larger --memory")


def test_command_line_too_long(tmp_path):
    kernel = tmp_path / "kernel"
    kernel.write_bytes(bzimage())
    expect_error(run("--kernel", kernel, "--append", "x" * 2048), "takes 2047", "shorten --append")


def test_linux_takes_no_modules(tmp_path):
    kernel = tmp_path / "kernel"
    kernel.write_bytes(bzimage())
    expect_error(run("--kernel", kernel, "--module", f"{kernel}=arguments"), "use --initrd")

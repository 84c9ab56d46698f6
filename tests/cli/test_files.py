# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernels where they can't work, and files that can't be read: exit status 1 and why, at once. (Files that
are no kernel at all: test_kernel_files.py.)"""
import os
import subprocess

import pytest

import program
from program import run

pytestmark = pytest.mark.skipif(not program.engines(), reason="this host can run no engine")


def failed(result, *words):
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("tabique run: ") and result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr
    return result.stderr


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


def test_initrd_larger_than_any_memory(suite, tmp_path):
    huge = tmp_path / "huge"
    with open(huge, "wb") as file:
        file.truncate(1 << 40)
    failed(run("run", "--kernel", program.GUESTS / suite / "vmlinuz", "--initrd", huge), "initrd", "--memory")


def test_too_little_memory(suite):
    failed(run("run", "--kernel", program.GUESTS / suite / "vmlinuz", "--memory", "8M"), "--memory")


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

# SPDX-License-Identifier: GPL-2.0-or-later
"""Libraries that the program loads when they are needed: no command and no process that does without them has them, and
where one is missing, the error names the package."""
import os
import pathlib
import subprocess

import pytest

from program import BUILD, TABIQUE, run

LOADED = ["libarchive.so.13", "libcrypto.so.3", "libgnutls.so.30", "libslirp.so.0"]
KERNEL = BUILD / "tests/guest/hello.pvh.elf"
GUEST_ENDS = 60  # seconds at most


@pytest.fixture
def without(tmp_path):
    """The environment of a host that lacks them: where the dynamic linker looks first, there is something else."""
    directory = tmp_path / "libraries"
    directory.mkdir()
    for name in LOADED:
        (directory / name).write_bytes(b"no library\n")
    return dict(os.environ, LD_LIBRARY_PATH=str(directory), TABIQUE_HOME=str(tmp_path / "home"))


def refused(result, library, package):
    assert result.returncode == 1, result
    assert f"{library} can't be used: install the package {package} (" in result.stderr, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr


@pytest.mark.parametrize("words", [["--version"], ["ps", "-a"], ["image", "ls"], ["events"], ["generate", "man"]],
                         ids=" ".join)
def test_commands_without_them(without, words):
    result = run(*words, env=without)
    assert result.returncode == 0, result.stderr


def test_a_guest_without_them(without):
    result = run("run", "--kernel", KERNEL, "--net", "none", "--memory", "16M", "--debug-exit", env=without,
                 timeout=GUEST_ENDS)
    assert result.returncode == 33, result


def test_a_network_without_libslirp(without):
    refused(run("run", "--kernel", KERNEL, "--net", "user", "--memory", "16M", env=without, timeout=GUEST_ENDS),
            "libslirp.so.0", "libslirp0")


def test_serving_without_libgnutls(without, tmp_path):
    disk, keys = tmp_path / "disk.raw", tmp_path / "keys"
    disk.write_bytes(bytes(4096))
    keys.write_text("a:00\n")
    refused(run("disk", "serve", disk, "--socket", tmp_path / "socket", "--tls-psk", keys, env=without), "libgnutls.so.30",
            "libgnutls30")


def test_images_without_libarchive(without, tmp_path):
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(510) + b"\x55\xaa" + bytes(1 << 20))
    refused(run("image", "import", disk, env=without), "libarchive.so.13", "libarchive13")
    user_data = tmp_path / "user-data"
    user_data.write_text("#cloud-config\nhostname: web\n")
    refused(run("run", "--disk", f"{disk},format=raw", "--cloud-init", user_data, env=without, timeout=GUEST_ENDS),
            "libarchive.so.13", "libarchive13")


def test_images_without_libcrypto(without):
    refused(run("image", "build", "debian", env=without), "libcrypto.so.3", "libssl3")


def test_encrypted_disks_without_libcrypto(without, tmp_path):
    (tmp_path / "disk").write_bytes(b"LUKS\xba\xbe\0\1" + bytes(1 << 20))
    refused(run("disk", "map", "-f", "luks", "--secret-file", tmp_path / "disk", tmp_path / "disk", env=without),
            "libcrypto.so.3", "libssl3")


def test_only_the_networks_process_has_libslirp():
    """And none has what images are made with."""
    guest = subprocess.Popen([TABIQUE, "run", "--rm", "--net", "user", "--memory", "16M", "--kernel",
                              BUILD / "tests/guest/echo.pvh.elf"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        os.read(guest.stdout.fileno(), 1)  # it runs
        children = pathlib.Path(f"/proc/{guest.pid}/task/{guest.pid}/children").read_text(encoding="ascii").split()
        having = {}
        for pid in [str(guest.pid), *children]:
            process = pathlib.Path("/proc", pid)
            maps = (process / "maps").read_text(encoding="utf-8", errors="replace")
            name = (process / "comm").read_text(encoding="utf-8").strip()
            having[name] = [n for n in LOADED if f"/{n}" in maps]
    finally:
        guest.kill()
        guest.wait()
        guest.stdout.close()
        guest.stdin.close()
    assert having == {"tabique": [], "tabique-net": ["libslirp.so.0"], "tabique-vm": []}

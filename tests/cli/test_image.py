# SPDX-License-Identifier: GPL-2.0-or-later
"""Images: what is imported, built, listed and removed, and what of it is left when something goes wrong.

Building takes Debian's packages from the network. One image a suite is built for all tests and kept, as are the
packages, in build/home; the tests of broken-off builds use the same packages.
"""
import bz2
import contextlib
import fcntl
import gzip
import json
import lzma
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time

import pytest

from program import TABIQUE, TREE, Terminal, default_signals, run

sys.path.insert(0, str(TREE / "tests/guest"))
import built_image  # noqa: E402 pylint: disable=wrong-import-position
from built_image import HOME, SLOW  # noqa: E402 pylint: disable=wrong-import-position

IDS = r"[0-9a-f]{12}"


def tabique(home, *args, **options):
    return run(*args, env=dict(os.environ, TABIQUE_HOME=str(home)), **options)


def images(home):
    return json.loads(tabique(home, "image", "ls", "--json").stdout)


def work_of(home):
    """What is being made, or was left behind."""
    directory = home / "images/work"
    return sorted(os.listdir(directory)) if directory.exists() else []


def bootable(size=1 << 20, content=b""):
    """The content of a raw disk with a boot sector, and one partition."""
    disk = bytearray(size)
    disk[446:462] = struct.pack("<BBBBBBBBII", 0x80, 0, 0, 0, 0x83, 0, 0, 0, 64, size // 512 - 64)
    disk[510:512] = b"\x55\xaa"
    disk[65536:65536 + len(content)] = content
    return bytes(disk)


# ---- import ----


@pytest.mark.parametrize("ending, pack", [("raw", bytes), ("raw.gz", gzip.compress), ("img.xz", lzma.compress),
                                          ("bz2", bz2.compress)])
def test_import(tmp_path, ending, pack):
    disk = bootable(content=os.urandom(100000))
    (tmp_path / f"cloud-12.{ending}").write_bytes(pack(disk))
    result = tabique(tmp_path, "image", "import", tmp_path / f"cloud-12.{ending}")
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(rf"image cloud-12: import of cloud-12\.{re.escape(ending)}, {IDS}, a disk of 1M that takes \d+K\n",
                        result.stdout)
    (image,) = images(tmp_path)
    assert image["name"] == "cloud-12" and image["size"] == 1 << 20 and image["disk_format"] == "raw"
    assert image["kernel"] is None and image["guests"] == []
    with open(image["disk"], "rb") as file:
        assert file.read() == disk
    assert image["bytes"] < 1 << 19  # zeros take no room
    assert os.stat(image["disk"]).st_mode & 0o777 == 0o400
    assert work_of(tmp_path) == []


@pytest.mark.skipif(not shutil.which("zstd"), reason="the program zstd is not installed")
def test_import_of_zstd(tmp_path):
    (tmp_path / "disk.raw").write_bytes(bootable())
    subprocess.run(["zstd", "-q", tmp_path / "disk.raw"], check=True)
    assert tabique(tmp_path, "image", "import", tmp_path / "disk.raw.zst", "--name", "z").returncode == 0


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="the program qemu-img is not installed")
def test_import_of_qcow2(tmp_path):
    """As cloud images come: with compressed clusters. What is cut off is found, wherever."""
    raw, qcow2 = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(bootable(8 << 20, os.urandom(2 << 20)))
    subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, qcow2], check=True)
    result = tabique(tmp_path, "image", "import", qcow2)
    assert result.returncode == 0, result.stderr
    (image,) = images(tmp_path)
    assert image["disk_format"] == "qcow2" and image["size"] == 8 << 20
    subprocess.run(["qemu-img", "compare", "-q", image["disk"], raw], check=True)
    content = qcow2.read_bytes()
    for length in (50, 70000, len(content) // 2):
        (tmp_path / "cut.qcow2").write_bytes(content[:length])
        result = tabique(tmp_path, "image", "import", tmp_path / "cut.qcow2")
        assert result.returncode == 1 and f"{tmp_path}/cut.qcow2: " in result.stderr, length
    # An image is complete: one that is based on a file of the host would show that to a guest.
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", tmp_path / "based.qcow2",
                    "1M"], check=True)
    result = tabique(tmp_path, "image", "import", tmp_path / "based.qcow2")
    assert result.returncode == 1 and "based" in result.stderr
    assert [i["name"] for i in images(tmp_path)] == ["disk"] and work_of(tmp_path) == []


def test_the_same_disk_is_stored_once(tmp_path):
    (tmp_path / "a.raw").write_bytes(bootable())
    (tmp_path / "b.raw.gz").write_bytes(gzip.compress(bootable()))
    for name in ("a.raw", "b.raw.gz"):
        assert tabique(tmp_path, "image", "import", tmp_path / name).returncode == 0
    a, b = images(tmp_path)
    assert (a["name"], b["name"]) == ("a", "b") and a["id"] == b["id"] and a["disk"] == b["disk"]
    assert tabique(tmp_path, "image", "rm", "a").returncode == 0
    assert [i["name"] for i in images(tmp_path)] == ["b"]


def gpt(size):
    disk = bytearray(bootable(size))
    disk[450] = 0xEE
    disk[512:520] = b"EFI PART"
    disk[544:552] = struct.pack("<Q", size // 512 - 1)
    return bytes(disk)


DAMAGED = {
    "empty": (b"", "it is empty"),
    "zeros": (bytes(1 << 20), "nothing can boot from it: its first sector has no boot signature"),
    "text": (b"not a disk at all\n" * 100, "its 1800 bytes are no whole number of sectors: it is cut off, or no disk"),
    "cut": (bootable()[:1 << 19], "it is cut off: its partitions reach to sector 2048, and it has 1024"),
    "cut-gpt": (gpt(1 << 20)[:1 << 19], "it is cut off: its partitions reach to sector 2048, and it has 1024"),
    "cut.gz": (gzip.compress(bootable(content=os.urandom(300000)))[:100000], "decompressing it: "),
    "cut.xz": (lzma.compress(bootable(content=os.urandom(300000)))[:100000], "decompressing it: "),
    "bad.xz": (lzma.compress(bootable())[:40] + bytes(400), "decompressing it: "),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_import_of_what_is_damaged(tmp_path, name):
    content, why = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    result = tabique(tmp_path, "image", "import", tmp_path / name, "--name", "x")
    assert result.returncode == 1 and result.stdout == ""
    assert f"tabique image import: {tmp_path / name}: {why}" in result.stderr
    assert images(tmp_path) == [] and work_of(tmp_path) == []


def test_import_of_other_things(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for what, why in [("nothing", "No such file or directory"), (".", "is no regular file"),
                      ("fifo", "is no regular file"), ("/dev/null", "is no regular file")]:
        result = tabique(tmp_path, "image", "import", tmp_path / what, "--name", "x")
        assert result.returncode == 1 and why in result.stderr, what
    (tmp_path / "-odd name-").write_bytes(bootable())
    result = tabique(tmp_path, "image", "import", tmp_path / "-odd name-")
    assert result.returncode == 1 and "give the image a name (--name): '-odd name-' is no name" in result.stderr
    assert images(tmp_path) == []


def test_interrupted_import(tmp_path):
    """As much to read as takes its time."""
    with open(tmp_path / "disk.raw", "wb") as file:
        file.write(bootable())
        file.seek(8 << 30)
        file.write(b"end")
    process = start(tmp_path, "image", "import", str(tmp_path / "disk.raw"), "--format", "raw", "--name", "x")
    read_until(process, b"copying")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("it was faster than the signal")
    assert process.returncode in (1, 130) and out == b""
    assert images(tmp_path) == [] and work_of(tmp_path) == []


# ---- list, inspect, remove ----


def test_no_images(tmp_path):
    result = tabique(tmp_path, "image", "ls")
    assert result.returncode == 0 and result.stdout == "" and "image build debian" in result.stderr
    assert images(tmp_path) == []
    for verb in ("inspect", "rm"):
        result = tabique(tmp_path, "image", verb, "debian")
        assert result.returncode == 1 and "there is no image 'debian'" in result.stderr
    assert not (tmp_path / "images").exists()  # asking makes nothing


def test_list_inspect_and_remove(tmp_path):
    (tmp_path / "x").write_bytes(bootable())
    for name in ("two", "one"):
        assert tabique(tmp_path, "image", "import", tmp_path / "x", "--name", name).returncode == 0
    lines = tabique(tmp_path, "image", "ls").stdout.splitlines()
    assert re.match(r"NAME +ID +KIND +FROM +SIZE +ON HOST +CREATED +GUESTS$", lines[0])
    assert [line.split()[0] for line in lines[1:]] == ["one", "two"]
    assert tabique(tmp_path, "image", "ls", "--quiet").stdout == "one\ntwo\n"
    one = json.loads(tabique(tmp_path, "image", "inspect", "one").stdout)
    assert json.loads(tabique(tmp_path, "image", "inspect", one["id"][:12]).stdout)["id"] == one["id"]
    result = tabique(tmp_path, "image", "rm", "one", "three", "two")
    assert result.returncode == 1 and "no image 'three'" in result.stderr
    assert [i["name"] for i in images(tmp_path)] == ["two"]
    assert tabique(tmp_path, "image", "rm", "two").returncode == 0
    assert os.listdir(tmp_path / "images/content") == []


def test_an_image_in_use_is_not_removed(tmp_path):
    (tmp_path / "x").write_bytes(bootable())
    assert tabique(tmp_path, "image", "import", tmp_path / "x", "--name", "x").returncode == 0
    (image,) = images(tmp_path)
    guest = tmp_path / "guests/web"
    guest.mkdir(parents=True)
    holders = tmp_path / "images/content" / image["id"] / "guests"
    holders.mkdir()
    (holders / "web").symlink_to(guest)
    result = tabique(tmp_path, "image", "rm", "x")
    assert result.returncode == 1
    assert result.stderr == "tabique image rm: image 'x' is in use: 1 guest is built on it (web); remove it first\n"
    assert images(tmp_path)[0]["guests"] == ["web"]
    guest.rmdir()
    assert tabique(tmp_path, "image", "rm", "x").returncode == 0 and images(tmp_path) == []


def test_a_home_that_can_not_be_written(tmp_path):
    (tmp_path / "x").write_bytes(bootable())
    (tmp_path / "home").write_text("a file")
    result = tabique(tmp_path / "home", "image", "import", tmp_path / "x")
    assert result.returncode == 1 and str(tmp_path / "home") in result.stderr


@contextlib.contextmanager
def small_disk(path, size):
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this host does not let us mount a small file system")
    try:
        yield path
    finally:
        # The kernel lets go of the files of an io_uring a moment after the process has ended.
        deadline = time.monotonic() + SLOW
        while subprocess.run(["umount", str(path)], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, f"something keeps {path} in use"
            time.sleep(0.1)


def test_import_on_a_full_disk(tmp_path):
    (tmp_path / "x").write_bytes(bootable(8 << 20, os.urandom(6 << 20)))
    with small_disk(tmp_path / "home", "2m") as home:
        result = tabique(home, "image", "import", tmp_path / "x")
        assert result.returncode == 1 and "No space left on device" in result.stderr
        assert images(home) == [] and work_of(home) == []


# ---- build ----


def start(home, *args):
    return subprocess.Popen([TABIQUE, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=dict(os.environ, TABIQUE_HOME=str(home)), start_new_session=True,
                            preexec_fn=default_signals)


def read_until(process, text, timeout=SLOW):
    """Reads standard error to a line that has `text`."""
    deadline = time.monotonic() + timeout
    seen = b""
    while time.monotonic() < deadline:
        line = process.stderr.readline()
        seen += line
        if text in line:
            return seen
        assert line, f"ended before {text!r}: {seen!r}"
    raise AssertionError(f"no {text!r} within {timeout} s: {seen!r}")


needs_builder = pytest.mark.skipif(bool(built_image.missing()), reason="missing: " + " ".join(built_image.missing()))


@pytest.fixture(scope="session", params=built_image.SUITES)
def built(request):
    """An image of each suite."""
    if built_image.missing():
        pytest.skip("missing: " + " ".join(built_image.missing()))
    return built_image.build(TABIQUE, request.param)


@pytest.fixture
def packages(built, tmp_path):
    """A home of its own that has the packages already."""
    (tmp_path / "cache").symlink_to(HOME / "cache")
    return tmp_path


def test_a_built_image(built):
    assert built["origin"] == f"debian {built['suite']}" and built["size"] == 4 << 30
    assert built["bytes"] < 450 << 20
    assert os.path.getsize(built["initrd"]) < 6 << 20
    check = subprocess.run(["e2fsck", "-f", "-n", built["disk"]], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout + check.stderr

    def debugfs(command):
        return subprocess.run(["debugfs", "-R", command, built["disk"]], capture_output=True, text=True,
                              check=True).stdout

    assert "User:     0   Group:     0" in debugfs("stat /usr/bin/passwd")
    assert "Mode:  04755" in debugfs("stat /usr/bin/passwd")
    assert "Group:    42" in debugfs("stat /etc/shadow")
    assert re.search(r"^root:\*:", debugfs("cat /etc/shadow"), re.MULTILINE)
    assert debugfs("cat /etc/machine-id") == ""
    assert "ssh_host" not in debugfs("ls /etc/ssh")
    assert f"{built['suite']} main" in debugfs("cat /etc/apt/sources.list")


def test_what_was_built_is_not_built_again(built):
    before = time.monotonic()
    result = tabique(HOME, "image", "build", "debian", "--suite", built["suite"], "--name", built["name"])
    assert result.returncode == 0 and "it was there already" in result.stdout and result.stderr == ""
    assert time.monotonic() - before < 20


def test_one_build_of_a_name_at_a_time(built):
    """Who waits takes what the other has built."""
    with open(HOME / f"images/.build-{built['name']}", "w", encoding="ascii") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        process = start(HOME, "image", "build", "debian", "--suite", built["suite"], "--name", built["name"],
                        "--rebuild")
        read_until(process, b"waiting for another build of the same name")
        fcntl.flock(turn, fcntl.LOCK_UN)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and b"it was there already" in out


def processes_below(path):
    """Those that name `path` in their command line."""
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            with open(f"/proc/{int(entry)}/cmdline", "rb") as file:
                if str(path).encode() in file.read():
                    found.append(int(entry))
    return found


@pytest.mark.parametrize("built", ["trixie"], indirect=True)
def test_a_build_that_is_broken_off(packages):
    home = packages
    build = ["image", "build", "debian", "--suite", "trixie"]
    first, second = start(home, *build), None
    try:
        read_until(first, b"unpacking the base system")
        second = start(home, *build)
        read_until(second, b"waiting for another build of the same name")
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=120)
        assert first.returncode == 130 and out == b"" and err.endswith(b"tabique image build: interrupted (Interrupt)\n")
        # The other's turn, which has a worse end.
        read_until(second, b"unpacking the base system")
        assert len(work_of(home)) == 2  # a directory and its lock
        second.kill()
        second.communicate(timeout=60)
        deadline = time.monotonic() + 60
        while processes_below(home) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert processes_below(home) == []
    finally:
        for process in (first, second):
            if process and process.returncode is None:
                process.kill()
                process.communicate()
    assert images(home) == [] and len(work_of(home)) == 2
    with open("/proc/mounts", encoding="utf-8") as mounts:
        assert str(home) not in mounts.read()
    # The next that makes anything takes it away.
    (home / "x").write_bytes(bootable())
    assert tabique(home, "image", "import", home / "x", timeout=120).returncode == 0
    assert work_of(home) == []


@needs_builder
def test_a_mirror_out_of_reach(tmp_path):
    result = tabique(tmp_path, "image", "build", "debian", "--mirror", "http://127.0.0.1:9/debian", timeout=300)
    assert result.returncode == 1
    assert "the build failed:" in result.stderr and "127.0.0.1:9" in result.stderr
    assert f"all of its output is in {tmp_path}/cache/build-debian.log" in result.stderr
    assert images(tmp_path) == [] and work_of(tmp_path) == []


@pytest.mark.parametrize("built", ["trixie"], indirect=True)
def test_a_build_on_a_full_disk(built, tmp_path):
    with small_disk(tmp_path / "home", "60m") as home:
        result = tabique(home, "image", "build", "debian", "--suite", "trixie", timeout=SLOW)
        assert result.returncode == 1 and "the disk is full" in result.stderr, result.stderr
        assert images(home) == [] and work_of(home) == []


def test_wrong_requests(tmp_path):
    for args, status, why in [
        (["debain"], 2, "WHAT: 'debain' is none of debian: did you mean debian?"),
        (["debian", "--suite", "sid"], 2, "--suite: 'sid' is none of bookworm, trixie"),
        (["debian", "--size", "1M"], 2, "--size: '1M' is out of range"),
        (["debian", "--arch", "arm64"], 2, "--arch: 'arm64' is none of amd64"),
        (["debian", "--name", "a/b"], 1, "'a/b' is no name"),
        (["debian", "--package", "a b"], 1, "'a b' is no name of a package"),
        (["debian", "--package", "-x"], 1, "'-x' is no name of a package"),
    ]:
        result = tabique(tmp_path, "image", "build", *args)
        assert result.returncode == status and why in result.stderr, args
    assert not (tmp_path / "images").exists()


# ---- boot ----


def examine(guest, cpus):
    """A guest that boots: to the login prompt, with nothing that failed, and a network that nothing listens to."""
    guest.expect(rb"web login: root \(automatic login\)", timeout=SLOW)

    def ask(command):
        guest.expect(rb"root@web:~# ", timeout=SLOW)
        guest.send(f"{command}; echo d''one\n".encode())
        guest.expect(rb"\n", timeout=SLOW)
        return guest.expect(rb"(?s)(.*)done\r\n", timeout=SLOW).group(1).decode()

    state = ask("systemctl is-system-running --wait")
    assert "running" in state, ask("systemctl --failed --no-pager")
    # A message of the system on its console, while the shell waits at its prompt: the next keys are the shell's.
    ask("(sleep 2; echo to whom it concerns >/dev/ttyS0) & :")
    guest.expect(rb"to whom it concerns\r\n", timeout=SLOW)
    guest.send(b"\n")
    assert re.search(rf"\b{cpus}\b", ask("nproc"))
    assert re.search(r"\b[0-9a-f]{32}\b", ask("cat /etc/machine-id"))
    # The DHCP client's own port is no service.
    listening = re.findall(r"(\S+):(\d+) ", ask("ss -Hlntu | awk '{print $5 \" \"}'"))
    assert listening and all(a.startswith("127.") or p == "68" for a, p in listening), listening
    size, disk = (int(re.search(r"\b(\d{7,})\b", ask(c)).group(1))
                  for c in ("findmnt -nbo SIZE /", "blockdev --getsize64 /dev/vda"))
    assert size > 0.9 * disk, "the file system has not grown with its disk"
    guest.expect(rb"root@web:~# ", timeout=SLOW)
    guest.send(b"poweroff\n")
    assert guest.wait(SLOW) == 0
    return disk


@pytest.mark.parametrize("built, cpus", [("bookworm", 1), ("bookworm", 2), ("trixie", 1)], indirect=["built"])
def test_boot_of_an_image(built, cpus, monkeypatch):
    monkeypatch.setenv("TABIQUE_HOME", str(HOME))
    with Terminal("run", "--rm", "--engine", "soft", "--name", "web", "--cpus", cpus, built["name"]) as guest:
        assert examine(guest, cpus) == built["size"]


@pytest.mark.parametrize("built", ["trixie"], indirect=True)
def test_boot_of_a_larger_disk(built, tmp_path):
    """As files given one by one, with a disk that is larger than the image's, on two processors."""
    disk = tmp_path / "disk.raw"
    subprocess.run(["cp", "--sparse=always", "--no-preserve=mode", built["disk"], disk], check=True)
    os.truncate(disk, 5 << 30)
    with Terminal("run", "--engine", "soft", "--kernel", built["kernel"], "--initrd", built["initrd"], "--append",
                  built["append"] + " systemd.hostname=web", "--cpus", "2", "--disk", f"{disk},format=raw") as guest:
        assert examine(guest, 2) == 5 << 30
    check = subprocess.run(["e2fsck", "-f", "-n", disk], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout + check.stderr

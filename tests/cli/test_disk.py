# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian guest with disks: a file system that survives the end of its VM process at a bad moment, several disks at
once, discarding, serials, images that are refused."""
import functools
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

from disk_programs import check_whole, qemu_img
from program import BOOT, GUESTS, Shell, initrd_with, run

MIB = 1 << 20

only_bookworm = pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
only_trixie = pytest.mark.parametrize("suite", ["trixie"], indirect=True)


@functools.lru_cache
def with_ext4(suite):
    """The suite's initramfs with ext4, and this host's programs that make and check it."""
    programs = [shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin") for name in ("mke2fs", "e2fsck")]
    text = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    # Where the shell does not take its own for them.
    files = {f"/tests/{pathlib.Path(p).name}": p for p in programs}
    files.update({path: os.path.realpath(path) for path in re.findall(r"(/\S+) \(0x", text)})
    additions = [word for at, path in sorted(files.items()) for word in ("--add", f"{at}={path}")]
    return initrd_with(suite, "initrd-ext4.gz", "--modules", "ext4", *additions)


def boot(engine, suite, *disks, cpus=2):
    arguments = [word for disk in disks for word in ("--disk", disk)]
    return Shell("run", "--engine", engine, "--kernel", GUESTS / suite / "vmlinuz", "--initrd", with_ext4(suite),
                 "--append", "console=ttyS0 quiet", "--cpus", cpus, *arguments)


def end(guest):
    guest.send(b"exit\r")
    assert guest.wait(BOOT) == 0


def make(path, size, *options):
    qemu_img("create", "-q", "-f", "qcow2", *options, path, size)
    return path


def sparse(path, size):
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def space(path):
    return os.stat(path).st_blocks * 512


def vm_process(guest):
    """The process that runs the machine: the one with a thread for the disk."""
    children = pathlib.Path(f"/proc/{guest.pid}/task/{guest.pid}/children").read_text(encoding="ascii").split()
    for pid in children:
        names = [p.read_text(encoding="ascii").strip() for p in pathlib.Path(f"/proc/{pid}/task").glob("*/comm")]
        if "disk" in names:
            return int(pid)
    raise AssertionError(f"no process with a disk among {children}")


def wait_for_vm_process(guest):
    until = time.monotonic() + 60
    while True:
        try:
            return vm_process(guest)
        except (AssertionError, OSError):
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


@only_trixie
@pytest.mark.parametrize("kill", ["vm process", "supervisor"])
def test_synced_files_survive_a_kill(engine, suite, kill, tmp_path):
    """On a raw image and on the top of a qcow2 image: what was synced is there, and both file systems are sound."""
    base = make(tmp_path / "base.qcow2", "300M")
    images = [f"{sparse(tmp_path / 'a.raw', 300 * MIB)},format=raw",
              f"{make(tmp_path / 'b.qcow2', '300M', '-b', base, '-F', 'qcow2')},format=qcow2"]
    with boot(engine, suite, *images) as guest:
        guest.shell()
        sums = []
        for disk in ("vda", "vdb"):
            assert guest.ask(f"/tests/mke2fs -q -t ext4 /dev/{disk} && mkdir /{disk} && mount -t ext4 /dev/{disk} /{disk}; echo $?",
                             120).endswith("0")
            guest.ask(f"mkdir /{disk}/many; for i in $(seq 1 200); do echo $i >/{disk}/many/$i; done; "
                      f"head -c 20000000 /dev/urandom >/{disk}/large; sync", 120)
            sums.append(guest.ask(f"cd /{disk}; cat many/* large | md5sum; cd /"))
        # A good deal under way on both.
        guest.ask("for d in vda vdb; do (while true; do head -c 9000000 /dev/zero >/$d/x; sync; cp -r /$d/many /$d/m$RANDOM; "
                  "rm -rf /$d/m1*; done) >/dev/null 2>&1 & done; sleep 2", 60)
        time.sleep(1)
        os.kill(vm_process(guest) if kill == "vm process" else guest.pid, signal.SIGKILL)
        guest.wait(60)
    # The lock of both goes at once.
    check_whole(tmp_path / "b.qcow2")
    with boot(engine, suite, *images) as guest:
        guest.shell()
        for disk, before in zip(("vda", "vdb"), sums):
            # Mounting replays the journal.
            assert guest.ask(f"mkdir /{disk}; mount -t ext4 /dev/{disk} /{disk}; echo $?", 120).endswith("0")
            assert guest.ask(f"cd /{disk}; cat many/* large | md5sum; cd /", 120) == before
            assert guest.ask(f"umount /{disk}; /tests/e2fsck -f -n /dev/{disk} >/tmp/log 2>&1; echo $?; cat /tmp/log", 120)[0] == "0"
        end(guest)
    check_whole(tmp_path / "b.qcow2")
    qemu_img("compare", "-f", "qcow2", "-F", "raw", base, sparse(tmp_path / "empty", 300 * MIB))


@only_bookworm
def test_four_disks(engine, suite, tmp_path):
    """Each with its own size, serial and rights, in this order, used at the same time."""
    content = os.urandom(8 * MIB)
    (tmp_path / "c.raw").write_bytes(content)
    sparse(tmp_path / "a, b.raw", 40 * MIB)
    make(tmp_path / "b.qcow2", "50M")
    make(tmp_path / "d.qcow2", "16M", "-b", tmp_path / "c.raw", "-F", "raw")
    disks = [f"{tmp_path}/a,, b.raw,serial=first", f"{tmp_path}/b.qcow2", f"{tmp_path}/c.raw,readonly,serial=third",
             f"{tmp_path}/d.qcow2,format=qcow2,serial=12345678901234567890"]
    with boot(engine, suite, *disks) as guest:
        guest.shell()
        assert guest.ask("cd /sys/block; cat vd*/size; cd").split() == [str(n * 2048) for n in (40, 50, 8, 16)]
        assert guest.ask("for d in a b c d; do cat /sys/block/vd$d/serial; echo; done").split() == \
            ["first", "third", "12345678901234567890"]
        assert guest.ask("cat /sys/block/vd*/ro").split() == ["0", "0", "1", "0"]
        assert "write back" in guest.ask("cat /sys/block/vda/queue/write_cache")
        # The last two read the same, from two files.
        first, last = guest.ask("md5sum </dev/vdc; head -c 8388608 /dev/vdd | md5sum", 120).splitlines()
        assert first == last
        assert "ead-only" in guest.ask("echo x >/dev/vdc") or "not permitted" in guest.ask("echo x >/dev/vdc")
        patterns = guest.ask("for d in a b d; do head -c 8000000 /dev/urandom >/tmp/$d; done; "
                             "for d in a b d; do (dd if=/tmp/$d of=/dev/vd$d bs=64k conv=fsync 2>/dev/null) & done; wait; "
                             "echo 3 >/proc/sys/vm/drop_caches; "
                             "for d in a b d; do md5sum </tmp/$d; head -c 8000000 /dev/vd$d | md5sum; done", 120)
        sums = [line.split()[0] for line in patterns.splitlines() if re.match(r"[0-9a-f]{32} ", line)]
        assert len(sums) == 6 and sums[0::2] == sums[1::2] and len(set(sums)) == 3
        end(guest)
    assert (tmp_path / "c.raw").read_bytes() == content
    for name in ("b.qcow2", "d.qcow2"):
        qemu_img("check", "-f", "qcow2", tmp_path / name)


@only_bookworm
def test_disks_of_other_formats(engine, suite, tmp_path):
    """LUKS, VHDX and VMDK, the first with its key found in the confined process: what the guest writes QEMU reads."""
    (tmp_path / "secret").write_bytes(b"the secret\n")
    assert run("disk", "create", "-f", "luks", "-o", f"encrypt.key-file={tmp_path}/secret,encrypt.iter-time=20",
               tmp_path / "a.luks", "20M").returncode == 0
    for name in ("vhdx", "vmdk"):
        assert run("disk", "create", "-f", name, tmp_path / f"a.{name}", "20M").returncode == 0
    with boot(engine, suite, f"{tmp_path}/a.luks,format=luks,secret-file={tmp_path}/secret", f"{tmp_path}/a.vhdx",
              f"{tmp_path}/a.vmdk") as guest:
        guest.shell()
        assert guest.ask("cd /sys/block; cat vd*/size; cd").split() == ["40960"] * 3
        sums = guest.ask("head -c 5000000 /dev/urandom >/tmp/x; head -c 4194304 /tmp/x | md5sum; for d in a b c; do "
                         "dd if=/tmp/x of=/dev/vd$d bs=64k seek=33 conv=fsync 2>/dev/null; done", 120).split()[0]
        end(guest)
    for name, words in (("vhdx", ["-f", "vhdx", tmp_path / "a.vhdx"]), ("vmdk", ["-f", "vmdk", tmp_path / "a.vmdk"]),
                        ("luks", ["--object", f"secret,id=s,file={tmp_path}/secret", "--image-opts",
                                  f"driver=luks,key-secret=s,file.filename={tmp_path}/a.luks"])):
        qemu_img("convert", *words, "-O", "raw", tmp_path / "x")
        with open(tmp_path / "x", "rb") as file:
            file.seek(33 * 65536)
            assert hashlib.md5(file.read(4 * MIB)).hexdigest() == sums, name


@only_bookworm
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_discard_and_reboot(engine, suite, kind, tmp_path):
    """What the guest discards shrinks the file; the disk goes on after the guest's reboot."""
    image = tmp_path / "image"
    _ = sparse(image, 200 * MIB) if kind == "raw" else make(image, "200M")
    with boot(engine, suite, f"{image},format={kind}") as guest:
        guest.shell()
        guest.ask("/tests/mke2fs -q -t ext4 /dev/vda; mkdir /m; mount -t ext4 /dev/vda /m; "
                  "head -c 40000000 /dev/urandom >/m/f; cp /init /m/; sync", 120)
        full = space(image)
        assert full > 40_000_000
        guest.ask("rm /m/f; sync; fstrim /m; sync", 120)
        until = time.monotonic() + 60
        while space(image) > full - 38_000_000:
            assert time.monotonic() < until, f"{space(image)} of {full} bytes"
            time.sleep(0.2)
        guest.ask("umount /m")
        guest.send(b"reboot -f\r")
        guest.shell()
        assert guest.ask("mkdir /m; mount -t ext4 /dev/vda /m; cmp /init /m/init; echo $?").endswith("0")
        assert guest.ask("umount /m; /tests/e2fsck -f -n /dev/vda >/dev/null 2>&1; echo $?").endswith("0")
        end(guest)
    if kind == "qcow2":
        qemu_img("check", "-f", "qcow2", image)


@only_trixie
def test_full_host(engine, suite, tmp_path):
    """The host's file system is full: the guest gets errors, and goes on when there is room again; the image is whole."""
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", mount], capture_output=True, check=False).returncode:
        pytest.skip("a file system can't be mounted here")
    try:
        make(mount / "image", "100M")
        with boot(engine, suite, f"{mount}/image,format=qcow2") as guest:
            guest.shell()
            assert "rror" in guest.ask("head -c 40000000 /dev/urandom >/tmp/f; dd if=/tmp/f of=/dev/vda bs=1M conv=fsync", 120)
            check = guest.ask("dd if=/dev/vda of=/dev/null bs=1M; echo $?", 120)
            assert check.endswith("0")
            subprocess.run(["mount", "-o", "remount,size=200m", mount], check=True)
            assert guest.ask("dd if=/tmp/f of=/dev/vda bs=1M conv=fsync >/dev/null 2>&1; echo $?; "
                             "echo 3 >/proc/sys/vm/drop_caches; cmp -n 40000000 /tmp/f /dev/vda; echo $?", 120).split() == ["0", "0"]
            end(guest)
        check_whole(mount / "image")
    finally:
        subprocess.run(["umount", "-l", mount], check=False)


# ---- what is refused, before anything starts ----

def refused(suite, disk, *words):
    result = run("run", "--kernel", GUESTS / suite / "vmlinuz", "--disk", disk)
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


@only_bookworm
def test_refused(suite, tmp_path):
    refused(suite, tmp_path / "missing", "disk", "missing", "No such file")
    refused(suite, tmp_path, "is a directory")
    sparse(tmp_path / "empty", 0)
    refused(suite, tmp_path / "empty", "is empty")
    sparse(tmp_path / "base", MIB)
    make(tmp_path / "top", "1M", "-b", tmp_path / "base", "-F", "raw")
    refused(suite, tmp_path / "top", "say format=qcow2")
    (tmp_path / "junk").write_bytes(b"QFI\xfb" + bytes(range(250)))
    refused(suite, tmp_path / "junk", "junk", "qcow2 of version")
    (tmp_path / "junk").write_bytes(b"QFI\xfb" + b"\0\0\0\3" + b"\xff" * 600)
    refused(suite, tmp_path / "junk", "junk", "is damaged")


@only_bookworm
def test_one_writer(engine, suite, tmp_path):
    """A second VM is told; as soon as the first has been killed, its image is free."""
    image = sparse(tmp_path / "image", MIB)
    for _ in range(3):
        with boot(engine, suite, f"{image},format=raw") as guest:
            pid = wait_for_vm_process(guest)
            for disk in (image, f"{image},readonly"):
                refused(suite, disk, "is in use by another program")
            os.kill(pid, signal.SIGKILL)
            guest.wait(60)

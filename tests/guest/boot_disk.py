#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes disks laid out as Debian's generic cloud images are, from Debian's packages, without mounting anything:

    MBR with GRUB's boot.img | GPT | BIOS boot partition with GRUB's core.img | ext4 with kernel and all the rest

Usage: boot_disk.py kernel KERNEL INITRD APPEND DISK   a kernel with an initramfs, and nothing else
       boot_disk.py cloud SUITE DISK                   Debian with systemd and cloud-init; only root can make it
"""
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import uuid

SECTOR = 512
MIB = 1 << 20
BOOT_START = 1 * MIB
BOOT_SIZE = 3 * MIB
ROOT_START = 4 * MIB
TABLE_SIZE = 1 * MIB  # room for the second copy of the partition table
KERNEL_DISK = 64 * MIB
CLOUD_DISK = 2048 * MIB

BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
LINUX_ROOT = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"

PACKAGES = ["linux-image-cloud-amd64", "initramfs-tools", "systemd-sysv", "udev", "dbus", "cloud-init", "netplan.io", "login",
            "procps", "iproute2", "zstd"]
GRUB = pathlib.Path("/usr/lib/grub/i386-pc")
GRUB_MODULES = ["biosdisk", "part_gpt", "ext2", "search_fs_uuid", "normal", "configfile"]
ROOM_WANTED = 3 << 30
TOOLS = {"mkfs.ext4": "e2fsprogs", "sfdisk": "fdisk", "grub-mkimage": "grub-common"}

GRUB_CFG = """serial --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=1
insmod gzio
menuentry 'Debian GNU/Linux' --class debian {{
	search --no-floppy --fs-uuid --set=root {fs}
	linux {kernel} {append}
	initrd {initrd}
}}
"""
EARLY_CFG = "search.fs_uuid {fs} root\nset prefix=($root)/boot/grub\n"


def missing():
    """The packages that this host lacks for making a disk."""
    lacking = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    return lacking + ([] if (GRUB / "boot.img").exists() else ["grub-pc-bin"])


def mirror():
    """Where this host gets Debian from: perhaps the only mirror in reach."""
    result = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True, check=False)
    uris = [uri.rstrip("/") for uri in result.stdout.split()]
    return next((uri for uri in uris if uri.endswith("/debian")), "http://deb.debian.org/debian")


def run(*command, **options):
    result = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, check=False, **options)
    if result.returncode:
        sys.exit(f"{command[0]} ended with {result.returncode}:\n" + result.stdout.decode(errors="replace")[-3000:])


def add_grub(root, fs, kernel, initrd, append):
    """What grub-install and update-grub leave in /boot/grub."""
    grub = root / "boot/grub"
    shutil.copytree(GRUB, grub / "i386-pc", ignore=shutil.ignore_patterns("*.img"))
    (grub / "grub.cfg").write_text(GRUB_CFG.format(fs=fs, kernel=kernel, initrd=initrd, append=append))


def partition(disk, size, part):
    script = (f"label: gpt\nfirst-lba: 34\n"
              f"start={BOOT_START // SECTOR}, size={BOOT_SIZE // SECTOR}, type={BIOS_BOOT}\n"
              f"start={ROOT_START // SECTOR}, size={(size - ROOT_START - TABLE_SIZE) // SECTOR}, type={LINUX_ROOT}, "
              f"uuid={part}\n")
    with open(disk, "wb") as f:
        f.truncate(size)
    result = subprocess.run(["sfdisk", "--quiet", str(disk)], input=script, text=True, capture_output=True, check=False)
    if result.returncode:
        sys.exit(f"sfdisk: {result.stderr}")


def install_grub(disk, directory, fs):
    """What grub-bios-setup does, which insists on a real device: boot.img learns where core.img's first sector is, and
    that one (diskboot.img) where the rest is."""
    early, core_file = directory / "early.cfg", directory / "core.img"
    early.write_text(EARLY_CFG.format(fs=fs))
    run("grub-mkimage", "-O", "i386-pc", "-p", "/boot/grub", "-c", early, "-o", core_file, *GRUB_MODULES)
    boot = bytearray((GRUB / "boot.img").read_bytes()[:440])  # the rest of the sector is the partition table's
    core = bytearray(core_file.read_bytes())
    core += bytes(-len(core) % SECTOR)
    first = BOOT_START // SECTOR
    struct.pack_into("<Q", boot, 0x5c, first)
    # The last block list of the first sector: start (8 bytes), length (2), segment (2).
    struct.pack_into("<QH", core, 0x1f4, first + 1, len(core) // SECTOR - 1)
    assert len(core) <= BOOT_SIZE
    with open(disk, "r+b") as f:
        f.write(boot)
        f.seek(BOOT_START)
        f.write(core)


def roomy(beside):
    """Where a system's files go until they are in the disk: into memory if there is enough of it, since package
    managers sync each one."""
    memory = pathlib.Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK):
        room = os.statvfs(memory)
        if room.f_bavail * room.f_frsize >= ROOM_WANTED:
            return memory
    return beside


def make(disk, size, fill):
    """`fill` puts the system into a directory, and gives what GRUB needs to know: kernel, initrd, command line."""
    fs, part = str(uuid.uuid4()), str(uuid.uuid4())
    disk = pathlib.Path(disk).resolve()
    disk.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=disk.parent) as name, \
            tempfile.TemporaryDirectory(dir=roomy(disk.parent)) as files:
        directory = pathlib.Path(name)
        root, work = pathlib.Path(files) / "root", directory / "disk"
        add_grub(root, fs, *fill(root, part))
        partition(work, size, part)
        run("mkfs.ext4", "-q", "-F", "-U", fs, "-L", "root", "-d", root, "-E", f"offset={ROOT_START}", work,
            f"{(size - ROOT_START - TABLE_SIZE) // 1024}K")
        install_grub(work, directory, fs)
        work.rename(disk)  # complete or not there


def make_kernel_disk(kernel, initrd, append, disk):
    def fill(root, part):
        (root / "boot").mkdir(parents=True)
        shutil.copy(kernel, root / "boot/vmlinuz")
        shutil.copy(initrd, root / "boot/initrd.gz")
        return "/boot/vmlinuz", "/boot/initrd.gz", append

    make(disk, KERNEL_DISK, fill)


def make_cloud_disk(suite, disk):
    def fill(root, part):
        run("mmdebstrap", "--variant=minbase", "--mode=root", "--aptopt=Acquire::Retries \"3\"",
            "--include=" + ",".join(PACKAGES), suite, root, mirror())
        (root / "etc/fstab").write_text(f"PARTUUID={part} / ext4 rw,discard,errors=remount-ro 0 1\n")
        (root / "etc/hostname").write_text("localhost\n")
        kernel = max(root.glob("boot/vmlinuz-*")).name
        return (f"/boot/{kernel}", f"/boot/{kernel.replace('vmlinuz', 'initrd.img')}",
                f"root=PARTUUID={part} ro console=tty0 console=ttyS0,115200 consoleblank=0")

    make(disk, CLOUD_DISK, fill)


def main():
    kind, *words = sys.argv[1:] or [""]
    if (kind, len(words)) not in (("kernel", 4), ("cloud", 2)):
        sys.exit(__doc__)
    if missing():
        sys.exit("boot_disk: please install: " + " ".join(missing()))
    if kind == "kernel":
        make_kernel_disk(*words)
    elif os.geteuid():
        sys.exit("boot_disk: only root can make files of other owners")
    else:
        make_cloud_disk(*words)


if __name__ == "__main__":
    main()

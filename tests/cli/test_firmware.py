# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines that start with a firmware: SeaBIOS from Debian's package, and small images made here."""
import os
import pathlib
import subprocess
import sys

import pytest

from program import BOOT, GUESTS, TREE, Shell, Terminal, run

sys.path.insert(0, str(TREE / "tests/guest"))
import boot_disk
from explained import unexplained
from flat_image import LEAVE, RESET_ONCE, STORE_TO_ROM, assemble

BIOS = pathlib.Path("/usr/share/seabios/bios-256k.bin")
needs_bios = pytest.mark.skipif(not BIOS.exists(), reason="the package seabios is not installed")


def expect_error(result, *parts):
    assert result.returncode == 1, result
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr


@needs_bios
@pytest.mark.parametrize("cpus", [1, 2, 4])
def test_seabios_without_a_disk(engine, cpus, tmp_path):
    """Everything up to the search for a disk: it comes to the end of its work, on the serial line."""
    log = tmp_path / "log"
    with Terminal("run", "--engine", engine, "--firmware", "bios", "--firmware-log", log, "--memory", "256M",
                  "--cpus", cpus) as terminal:
        terminal.expect(rb"SeaBIOS \(version", timeout=120)
        terminal.expect(rb"No bootable device\.", timeout=120)
        terminal.send(b"\x1d")
        assert terminal.wait() == 130
    text = log.read_text(errors="replace")
    assert f"Found {cpus} cpu(s) max supported {cpus} cpu(s)" in text
    assert "QEMU fw_cfg DMA interface supported" in text
    assert "Copying SMBIOS from" in text
    assert "ACPI: parse DSDT at" in text
    assert "WARNING" not in text and "nternal error" not in text
    assert text.count("SeaBIOS (version") == 2  # at the start of its two halves: it was not reset


@needs_bios
def test_seabios_finds_all_memory(engine, tmp_path):
    log = tmp_path / "log"
    with Terminal("run", "--engine", engine, "--firmware", "bios", "--firmware-log", log, "--memory", "5G") as terminal:
        terminal.expect(rb"No bootable device\.", timeout=120)
    text = log.read_text(errors="replace")
    assert "addr 0x0000000100000000 len 0x0000000080000000 [RAM]" in text
    assert "0000000100000000 - 0000000180000000 = 1 RAM" in text
    assert "00000000e0000000 - 00000000e0100000 = 2 RESERVED" in text


@pytest.mark.parametrize("size", [4 << 10, 64 << 10, 1 << 20, 16 << 20])
def test_flat_image(engine, size, tmp_path):
    """It begins at the reset vector, and its end is below 1 MiB too."""
    image = tmp_path / "image"
    if size < 64 << 10:
        data = bytearray(b"\xf4" * size)
        data[-16:] = b"\xba\xf4\x00\xb0\x15\xee".ljust(16, b"\xf4")
        image.write_bytes(data)
    else:
        image.write_bytes(assemble(LEAVE % 0x15, size))
    result = run("run", "--engine", engine, "--firmware", image, "--memory", "16M", "--debug-exit", timeout=60)
    assert result.returncode == 0x2b, result


@pytest.mark.parametrize("code", [STORE_TO_ROM, RESET_ONCE], ids=["store to ROM", "reset"])
def test_code_in_rom(engine, code, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(assemble(code))
    result = run("run", "--engine", engine, "--firmware", image, "--memory", "16M", "--debug-exit", timeout=60)
    assert result.returncode == 0x2b, result


@pytest.mark.parametrize("size, part", [(0, "no flat firmware image"), (1000, "no flat firmware image"),
                                        (17 << 20, "no flat firmware image")])
def test_file_that_is_no_image(size, part, tmp_path):
    path = tmp_path / "image"
    with open(path, "wb") as f:
        f.truncate(size)
    expect_error(run("run", "--firmware", path), f"'{path}'", part, "give a file like")


def test_missing_image(tmp_path):
    expect_error(run("run", "--firmware", tmp_path / "none"), "firmware", "No such file or directory")


def test_log_that_cannot_be_written(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(assemble(LEAVE % 0))
    expect_error(run("run", "--firmware", image, "--firmware-log", tmp_path / "no" / "log"), "firmware log",
                 "No such file or directory")


def test_contradictions(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(assemble(LEAVE % 0))
    expect_error(run("run"), "nothing to boot: give --kernel FILE or --disk FILE")
    expect_error(run("run", "--firmware", image, "--kernel", image), "a kernel and a firmware")
    expect_error(run("run", "--firmware", image, "--append", "quiet"), "are for a kernel")


# ---- disks with a boot loader ----

needs_boot_disk = pytest.mark.skipif(bool(boot_disk.missing()), reason="missing: " + " ".join(boot_disk.missing()))


@pytest.fixture(scope="module")
def kernel_disk(tmp_path_factory):
    """By suite: a disk from which GRUB boots that suite's kernel, made once."""
    made = {}

    def get(suite):
        if suite not in made:
            made[suite] = tmp_path_factory.mktemp("disk") / f"{suite}.img"
            boot_disk.make_kernel_disk(GUESTS / suite / "vmlinuz", GUESTS / suite / "initrd.gz", "console=ttyS0 quiet",
                                       made[suite])
        return made[suite]

    return get


def acpi_tables(guest):
    """Name and checksum of each; the addresses in them are the firmware's choice, so without those that hold any."""
    text = guest.ask("cd /sys/firmware/acpi/tables && md5sum DSDT APIC MCFG; cd /")
    return [line.split()[::-1] for line in text.splitlines()]


@needs_bios
@needs_boot_disk
@pytest.mark.parametrize("suite, cpus", [("bookworm", 1), ("bookworm", 2), ("trixie", 1), ("trixie", 4)], indirect=["suite"])
def test_debian_by_way_of_grub(engine, suite, kernel_disk, cpus):
    arguments = ["--engine", engine, "--memory", "256M", "--cpus", cpus]
    with Shell("run", "--disk", kernel_disk(suite), *arguments) as guest:
        guest.expect(rb"SeaBIOS \(version", BOOT)
        guest.expect(rb"Booting from Hard Disk", BOOT)
        guest.expect(rb"GNU GRUB", BOOT)  # its menu is to be seen on the serial line
        guest.shell()
        assert guest.ask("nproc") == str(cpus)
        assert unexplained(guest.ask("dmesg -r | sed -n 's/^<[0-4]>//p'").splitlines()) == []
        assert guest.ask("cat /sys/class/dmi/id/product_name") == "Virtual Machine"
        assert guest.ask("cat /sys/devices/system/clocksource/clocksource0/current_clocksource") in ("kvm-clock", "tsc")
        assert "QEMU0002:00" in guest.ask("ls /sys/bus/acpi/devices")
        assert guest.ask("head -c 16 /dev/hwrng | wc -c") == "16"  # a device where SeaBIOS has put it
        tables = acpi_tables(guest)
        assert len(tables) == 3
        guest.send(b"poweroff -f\r")
        assert guest.wait(BOOT) == 0
    if cpus == 2:
        with Shell("run", "--kernel", GUESTS / suite / "vmlinuz", "--initrd", GUESTS / suite / "initrd.gz", "--append",
                   "console=ttyS0 quiet", *arguments) as guest:
            guest.shell()
            assert acpi_tables(guest) == tables


@needs_bios
@needs_boot_disk
@pytest.mark.parametrize("how", ["", "reboot=kbd"])
@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_reboot_goes_through_the_firmware(engine, suite, tmp_path, how):
    disk = tmp_path / "disk"
    boot_disk.make_kernel_disk(GUESTS / suite / "vmlinuz", GUESTS / suite / "initrd.gz", f"console=ttyS0 quiet {how}", disk)
    with Shell("run", "--engine", engine, "--memory", "256M", "--cpus", "2", "--disk", disk) as guest:
        guest.shell()
        guest.send(b"reboot -f\r")
        guest.expect(rb"SeaBIOS \(version", BOOT)
        guest.expect(rb"GNU GRUB", BOOT)
        guest.shell()
        assert guest.ask("nproc") == "2"
        guest.send(b"poweroff -f\r")
        assert guest.wait(BOOT) == 0


@needs_bios
@needs_boot_disk
@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_first_disk_boots(engine, suite, kernel_disk, tmp_path):
    """Of two, the one that was given first, and it is the kernel's first too."""
    second = tmp_path / "second"
    second.write_bytes(bytes(510) + b"\x55\xaa")  # a boot sector that does nothing
    with Shell("run", "--engine", engine, "--memory", "256M", "--disk", kernel_disk(suite), "--disk",
               f"{second},readonly") as guest:
        guest.shell()
        assert guest.ask("cat /sys/block/vda/size") == str(boot_disk.KERNEL_DISK // 512)
        assert guest.ask("cat /sys/block/vdb/ro") == "1"


@needs_bios
def test_disk_that_does_not_boot(engine, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    with Terminal("run", "--engine", engine, "--memory", "64M", "--disk", disk) as terminal:
        terminal.expect(rb"not a bootable disk", timeout=BOOT)
        terminal.expect(rb"No bootable device\.", timeout=BOOT)


# ---- cloud images ----

CLOUD_BOOT = 1500  # seconds at most: cloud-init is some minutes of Python on a busy machine without KVM

USER_DATA = """#cloud-config
users:
  - name: ana
    plain_text_passwd: secret
    lock_passwd: false
    shell: /bin/bash
write_files:
  - path: /etc/seeded
    content: "by cloud-init"
runcmd:
  - echo "RUNCMD $(cat /etc/seeded) for $(id -un ana) on $(hostname)" > /dev/console
  - poweroff
"""


def cloud_disk(suite):
    """Kept from run to run beside the other guests: making one takes minutes."""
    disk = GUESTS / suite / "cloud-disk.img"
    newest = pathlib.Path(boot_disk.__file__).stat().st_mtime
    if not disk.exists() or disk.stat().st_mtime < newest:
        boot_disk.make_cloud_disk(suite, disk)
    return disk


@needs_bios
@needs_boot_disk
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other owners")
@pytest.mark.parametrize("suite", os.environ.get("TABIQUE_CLOUD_SUITES", "bookworm").split())
def test_cloud_image_takes_its_user_data(engine, suite, tmp_path):
    disk, user_data, meta_data = tmp_path / "disk", tmp_path / "user-data", tmp_path / "meta-data"
    subprocess.run(["cp", "--sparse=always", cloud_disk(suite), disk], check=True)
    user_data.write_text(USER_DATA)
    meta_data.write_text("local-hostname: seeded\n")
    with Terminal("run", "--engine", engine, "--memory", "1G", "--cpus", "2", "--disk", disk, "--cloud-init",
                  f"{user_data},meta-data={meta_data}") as guest:
        guest.expect(rb"GNU GRUB", timeout=BOOT)
        guest.expect(rb"RUNCMD by cloud-init for ana on seeded", timeout=CLOUD_BOOT)
        assert guest.wait(CLOUD_BOOT) == 0

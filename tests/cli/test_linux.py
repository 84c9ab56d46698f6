# SPDX-License-Identifier: GPL-2.0-or-later
"""Unmodified Debian kernels at a shell on this terminal: what a person does in the first minute, and every end."""
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import termios
import time

import pytest

import program
from program import BOOT, GUESTS, PROMPT, TREE, Shell, Terminal

sys.path.insert(0, str(TREE / "tests/guest"))
from explained import unexplained

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "bench"))
import guests  # noqa: E402 pylint: disable=wrong-import-position


class Guest(Shell):
    """A Debian guest at its shell."""

    def __init__(self, engine, suite, *args, kernel=None, initrd=None, append="", console="ttyS0", **options):
        super().__init__("run", "--engine", engine, "--kernel", kernel or GUESTS / suite / "vmlinuz",
                         "--initrd", initrd or GUESTS / suite / "initrd.gz", "--append", f"console={console} {append}", *args,
                         **options)
        self.suite = suite


def complaints(guest):
    return unexplained(guest.ask("dmesg -r | sed -n 's/^<[0-4]>//p'").splitlines())


@pytest.mark.parametrize("cpus", [1, 2, 4, 8])
def test_shell_and_power_off(engine, suite, cpus):
    with Guest(engine, suite, "--cpus", cpus, append="quiet") as guest:
        guest.shell()
        assert guest.ask("nproc") == str(cpus)
        # Nothing is calibrated: the paravirtual clock tells the TSC's frequency, and kernels that trust the TSC then use
        # it.
        assert guest.ask("cat /sys/devices/system/clocksource/clocksource0/current_clocksource") in ("kvm-clock", "tsc")
        assert guest.ask("for c in $(seq 0 $(($(nproc)-1))); do taskset -c $c echo on $c; done").split("\n") == \
            [f"on {c}" for c in range(cpus)]
        assert guest.ask("head -c 16 /dev/hwrng | wc -c") == "16"
        assert complaints(guest) == []
        guest.send(b"poweroff -f\r")
        assert guest.wait(BOOT) == 0
        assert guest.is_restored()


@pytest.mark.parametrize("suite", ["trixie"], indirect=True)
def test_clock_and_idling(engine, suite):
    with Guest(engine, suite, "--cpus", "2", append="quiet") as guest:
        guest.shell()
        time.sleep(1)
        before = os.times(), program_cpu_seconds(guest.pid), guest_clock(guest)
        assert guest.ask("sleep 10; echo slept") == "slept"
        after = os.times(), program_cpu_seconds(guest.pid), guest_clock(guest)
        slept = after[2][1] - before[2][1]
        assert 10 <= slept < 10.5
        # The guest's clock against ours: as far apart as it was, but for the time that asking takes.
        (start, _), (end, _) = before[2], after[2]
        assert after[2][1] - before[2][1] - 0.05 < end - start < after[2][1] - before[2][1] + 0.3
        # Two shells ran, one slept. Under 2 % of a core.
        assert after[1] - before[1] < 0.02 * 10 + 0.1
        guest.send(b"exit\r")
        assert guest.wait(BOOT) == 0


def guest_clock(guest):
    """(our time when the guest answered, the guest's uptime in seconds)"""
    uptime = float(guest.ask("cut -d' ' -f1 /proc/uptime"))
    return time.monotonic(), uptime


def program_cpu_seconds(pid):
    """Of all the processes that `tabique run` is."""
    return sum(guests.process_cpu_seconds(process) for process in guests.process_tree(pid))


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_reboot(engine, suite):
    with Guest(engine, suite, "--cpus", "2") as guest:
        guest.shell()
        guest.send(b"reboot -f\r")
        guest.expect(rb"Restarting system", BOOT)
        guest.expect(rb"Linux version", BOOT)
        guest.shell()
        assert guest.ask("nproc") == "2"
        assert complaints(guest) == []
        guest.send(b"exit\r")
        assert guest.wait(BOOT) == 0


@pytest.mark.parametrize("suite", ["trixie"], indirect=True)
def test_panic_restarts(engine, suite):
    with Guest(engine, suite, "--cpus", "2", append="panic=-1") as guest:
        guest.shell()
        guest.send(b"echo c >/proc/sysrq-trigger\r")
        guest.expect(rb"Kernel panic - not syncing", BOOT)
        guest.expect(rb"Linux version", BOOT)
        guest.shell()
        guest.send(b"exit\r")
        assert guest.wait(BOOT) == 0


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_keys_reach_the_shell(engine, suite):
    """Ctrl-C ends the guest's command, not the program; Ctrl-] ends the program."""
    with Guest(engine, suite, append="quiet") as guest:
        guest.shell()
        guest.send(b"sleep 1000\r")
        time.sleep(0.5)
        guest.send(b"\x03")
        guest.expect(PROMPT)
        assert guest.ask("echo $((6 * 7))") == "42"
        guest.send(b"\x1d")
        assert guest.wait() == 130
        assert guest.is_restored()


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline


def test_virtio_console(engine, suite):
    with Guest(engine, suite, append="quiet", console="hvc0") as guest:
        guest.shell()
        assert guest.ask("tty") == "/dev/hvc0"
        termios.tcsetwinsize(guest.master, (57, 133))
        wait_until(lambda: guest.ask("stty size") == "57 133")
        # More than any queue or buffer holds.
        text = guest.ask("seq 1 50000 | md5sum; seq 1 50000 | tail -n 2000")
        expected = subprocess.run("seq 1 50000 | md5sum; seq 1 50000 | tail -n 2000", shell=True, check=True,
                                  capture_output=True, text=True).stdout.strip()
        assert text == expected
        guest.send(b"exit\r")
        assert guest.wait(BOOT) == 0


@pytest.mark.parametrize("suite", ["trixie"], indirect=True)
def test_memory_costs_what_is_touched(engine, suite):
    with Guest(engine, suite, "--memory", "8G", append="quiet") as guest:
        guest.shell()
        total = int(guest.ask("sed -n 's/^MemTotal: *//p' /proc/meminfo").split()[0])
        used = total - int(guest.ask("sed -n 's/^MemFree: *//p' /proc/meminfo").split()[0])
        assert total > 7.5 * 1024 * 1024
        resident = 0
        for pid in guests.process_tree(guest.pid):
            status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
            resident += int(re.search(r"RssShmem:\s*(\d+)", status).group(1))
        # What the kernel keeps for itself (its image, a page structure for each page) is not in MemTotal.
        assert resident < used + 400 * 1024
        guest.send(b"exit\r")
        assert guest.wait(BOOT) == 0


def vmlinux(suite, directory):
    """The ELF kernel that is packed in the bzImage: the payload's place is in the setup header."""
    image = (GUESTS / suite / "vmlinuz").read_bytes()
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1f1] + 1) * 512 + offset
    payload = image[start:start + length]
    tools = {b"\x28\xb5\x2f\xfd": "zstd", b"\x02\x21\x4c\x18": "lz4", b"\xfd7zX": "xz", b"\x1f\x8b\x08\x00": "gzip"}
    tool = tools.get(payload[:4])
    if not tool or not shutil.which(tool):
        pytest.skip(f"{tool or 'no known program'} is needed to unpack this kernel, and not installed")
    # Its size follows the compressed data, which these programs complain of after they have written all.
    unpacked = subprocess.run([tool, "-dc"], input=payload, capture_output=True, check=False).stdout
    assert unpacked[:4] == b"\x7fELF"
    path = directory / "vmlinux"
    path.write_bytes(unpacked)
    return path


def test_vmlinux_by_pvh(engine, suite, tmp_path):
    with Guest(engine, suite, "--cpus", "2", kernel=vmlinux(suite, tmp_path), append="quiet one=two") as guest:
        guest.shell()
        assert guest.ask("cat /proc/cmdline") == "console=ttyS0 quiet one=two"
        assert guest.ask("nproc") == "2"
        assert complaints(guest) == []
        guest.send(b"exit\r")
        assert guest.wait(BOOT) == 0

# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that the guest does not use costs the host nothing: Debian's balloon driver, and its reports of free pages."""
import json
import pathlib
import re
import time

import pytest

import program
from life import Home
from program import Terminal

PROMPT = rb"guest:\S*[#$] (\x1b\[6n)?$"
BOOT = 120  # seconds; other tests run at the same time
MIB = 1 << 20


@pytest.fixture
def initrd(suite):
    return program.initrd_with(suite, "initrd-balloon.gz", "--modules", "virtio_balloon")


class Guest(Terminal):
    def __init__(self, engine, suite, initrd, *args):
        super().__init__("run", "--engine", engine, "--kernel", program.GUESTS / suite / "vmlinuz", "--initrd", initrd,
                         "--append", "quiet console=ttyS0", *args)
        self.expect(PROMPT, BOOT)
        self.ask("stty -echo")

    def ask(self, command, timeout=BOOT):
        self.send(command.encode() + b"\r")
        return self.expect(rb"(?s)^(.*)" + PROMPT, timeout).group(1).decode(errors="replace").replace("\r", "").strip()

    def power_off(self):
        self.send(b"poweroff -f\r")
        assert self.wait(BOOT) == 0

    def resident(self):
        """Bytes of the guest's RAM that the host has: what the VM's process has of its memory file."""
        children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii").split()
        sizes = []
        for pid in [self.pid, *children]:
            status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
            sizes.append(int(re.search(r"RssShmem:\s+(\d+) kB", status).group(1)) * 1024)
        return max(sizes)

    def wait_resident(self, limit, timeout=60):
        """Waits until no more than `limit` bytes are; what there is at the end."""
        deadline = time.monotonic() + timeout
        while self.resident() > limit and time.monotonic() < deadline:
            time.sleep(0.5)
        return self.resident()

    def free(self):
        return int(re.search(r"MemFree:\s+(\d+) kB", self.ask("cat /proc/meminfo")).group(1)) * 1024


def test_freed_memory_returns(engine, suite, initrd):
    size = 256
    with Guest(engine, suite, initrd, "--memory", "768M") as guest:
        before = guest.wait_resident(200 * MIB)
        for round_ in range(2):
            guest.ask(f"dd if=/dev/zero of=/dev/shm/x bs=1M count={size} 2>/dev/null")
            peak = guest.resident()
            assert peak > before + size // 2 * MIB  # some of it was in the kernel's own freed pages
            guest.ask("rm /dev/shm/x")
            after = guest.wait_resident(before + size // 4 * MIB)
            print(f"round {round_}: {before >> 20} MiB before, {peak >> 20} at the peak, {after >> 20} after")
            assert after < before + size // 4 * MIB
        assert guest.ask("dmesg -r | grep '^<[0-4]>' | grep -i -e balloon -e virtio || echo none") == "none"
        guest.power_off()


def test_inflated_at_the_start(engine, suite, initrd):
    """Pages in the balloon are missing in the guest and on the host, until the driver goes."""
    with Guest(engine, suite, initrd, "--memory", "768M", "--balloon", "384M") as guest:
        deadline = time.monotonic() + BOOT
        while guest.free() > 330 * MIB:
            assert time.monotonic() < deadline, "the balloon does not grow"
            time.sleep(0.5)
        assert guest.resident() < 330 * MIB
        guest.ask("rmmod virtio_balloon")
        assert guest.free() > 500 * MIB
        # Again in the guest's hands, and good for something.
        assert guest.ask("dd if=/dev/zero bs=1M count=300 of=/dev/shm/z 2>/dev/null; wc -c </dev/shm/z") == str(300 * MIB)
        assert guest.ask("tr -d '\\0' </dev/shm/z | wc -c") == "0"
        guest.power_off()


def test_changed_while_it_runs(engine, suite, initrd, tmp_path, monkeypatch):
    """`balloon` says what the guest is to keep; `stats` tells how far it is."""
    home = Home(tmp_path / "home")
    monkeypatch.setenv("TABIQUE_HOME", str(home.path))

    def balloon():
        stats = json.loads(home.do("stats", "--json", "mem"))
        return stats["balloon-target-bytes"], stats["balloon-bytes"]

    def wait_for(kept):
        deadline = time.monotonic() + BOOT
        while balloon() != ((768 - kept) * MIB, (768 - kept) * MIB):
            assert time.monotonic() < deadline, f"{balloon()} and not what keeps {kept} MiB"
            time.sleep(0.2)

    with Guest(engine, suite, initrd, "--name", "mem", "--memory", "768M") as guest:
        free = guest.free()
        assert free > 500 * MIB
        assert home.do("balloon", "mem", "384M") == ""
        wait_for(384)
        assert guest.free() < free - 300 * MIB
        assert "384M of 384M" in home.do("stats", "mem")
        said = home.fail("balloon", "mem", "1G")
        assert "guest 'mem': the guest can't keep 1073741824 bytes: choose from 1 to its memory" in said and "768M" in said
        wait_for(384)
        home.do("balloon", "mem", "768M")
        wait_for(768)
        assert guest.free() > free - 100 * MIB
        guest.ask("rmmod virtio_balloon")
        assert "no driver serves the memory balloon in the guest: nothing was changed" in home.fail("balloon", "mem", "384M")
        assert balloon() == (0, 0)
        guest.power_off()
    assert "is not running" in home.fail("balloon", "mem", "384M")
    for wrong, why in (([], "NAME is missing"), (["mem"], "SIZE is missing"), (["mem", "much"], "SIZE"), (["mem", "1000"], "SIZE")):
        result = home.run("balloon", *wrong)
        assert result.returncode == 2 and why in result.stderr
    home.do("rm", "mem")

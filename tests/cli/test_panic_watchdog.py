# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest's kernel says when it can go no further, and what is done about one that says nothing: Debian's drivers
of the panic notifier and of the watchdog."""

import pytest

import program
from program import Terminal

PROMPT = rb"guest:[^ ]*# "
BOOT = 120  # seconds; other tests run at the same time
PANICKED, WATCHDOG, POWEROFF = 3, 5, 0


@pytest.fixture
def initrd(suite):
    return program.initrd_with(suite, "initrd-panic-watchdog.gz", "--modules", "pvpanic-mmio,wdat_wdt")


def boot(engine, suite, initrd, *args):
    return Terminal("run", "--engine", engine, "--kernel", program.GUESTS / suite / "vmlinuz", "--initrd", initrd,
                    "--append", "quiet console=ttyS0", *args)


def test_panic_ends_the_vm(engine, suite, initrd):
    with boot(engine, suite, initrd, "--cpus", "2") as guest:
        guest.expect(PROMPT, BOOT)
        guest.send(b"echo c >/proc/sysrq-trigger\r")
        guest.expect(rb"Kernel panic - not syncing: sysrq triggered crash", BOOT)
        assert guest.wait(BOOT) == PANICKED
        assert guest.is_restored()


# Opens the watchdog for 2 s, tells it nothing more, and keeps it open: only a driver that is closed stops it.
NEGLECT = b"watchdog -T 2 -t 1 -F /dev/watchdog & sleep 5; echo alive; kill -STOP $!\r"


@pytest.mark.parametrize("action, status", [("poweroff", WATCHDOG), ("none", None)])
def test_watchdog(engine, suite, initrd, action, status):
    with boot(engine, suite, initrd, "--watchdog", action) as guest:
        guest.expect(PROMPT, BOOT)
        guest.send(NEGLECT)
        guest.expect(rb"\r\nalive", BOOT)  # it was fed for longer than it waits
        if status is not None:
            assert guest.wait(BOOT) == status
            return
        guest.expect(rb"tabique: the guest's watchdog has expired", BOOT)
        guest.send(b"\recho still $((40 + 2))\r")
        guest.expect(rb"still 42", BOOT)
        guest.send(b"poweroff -f\r")
        assert guest.wait(BOOT) == POWEROFF


def test_watchdog_restarts(engine, suite, initrd):
    with boot(engine, suite, initrd) as guest:
        guest.expect(PROMPT, BOOT)
        guest.send(NEGLECT)
        guest.expect(rb"tabique: the guest's watchdog has expired", BOOT)
        guest.expect(PROMPT, BOOT)
        # The driver reads the cause of the restart, then has it forgotten.
        guest.send(b"echo status $(cat /sys/class/watchdog/watchdog0/bootstatus)\r")
        guest.expect(rb"status 32", BOOT)
        guest.send(b"poweroff -f\r")
        assert guest.wait(BOOT) == POWEROFF

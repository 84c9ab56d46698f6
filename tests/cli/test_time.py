# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's time is the host's: how long a sleep lasts, and how far its clock runs from ours, idle and with every
virtual processor busy.

The guest prints its clock again and again; how late a line comes here varies, so the least lateness of many is taken, at
the start and at the end of a while. Were both clocks the same, it would be the same. (What it prints ends at hundredths
of a second; the least lateness is that of a line printed right at a new one.)
"""
import pathlib
import sys
import time

import pytest

import program

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "bench"))
import guests  # noqa: E402 pylint: disable=wrong-import-position

BOOT = 90
CPUS = 2
BUSY_SECONDS = 20
MOST_DRIFT = 0.050 / 60  # seconds in a second
SAMPLES = 60


def lateness(vm):
    """The least difference of our clock and the guest's, in seconds; and when that was."""
    vm.send(f"for i in $(seq {SAMPLES}); do read up _ </proc/uptime; echo clock=$up; usleep 17000; done; "
            "echo shown-$((2 * 21))")
    seen = []
    for _ in range(SAMPLES):
        match, when = vm.wait_for(r"^clock=(\d+\.\d+)\n", 30)
        seen.append((when - float(match.group(1)), when))
    vm.wait_for(r"^shown-42\n", 30)
    vm.wait_for(guests.PROMPT, 30)
    return min(seen)


def drift(first, last):
    """Seconds that the guest's clock loses in a second of ours, between two results of lateness()."""
    return (last[0] - first[0]) / (last[1] - first[1])


@pytest.fixture
def vm(engine, suite):
    guest = program.GUESTS / suite / "vmlinuz", program.GUESTS / suite / "initrd.gz"
    with guests.Guest(guests.tabique_command(engine, guest, cpus=CPUS, append="quiet")) as running:
        running.wait_for(guests.PROMPT, BOOT)
        yield running


def test_sleep_and_clock_of_an_idle_guest(vm):
    first = lateness(vm)
    vm.send("echo asleep-$((2 * 21)); sleep 10; echo awake-$((2 * 21))")
    _, start = vm.wait_for(r"^asleep-42\n", 30)
    _, end = vm.wait_for(r"^awake-42\n", 30)
    vm.wait_for(guests.PROMPT, 30)
    assert 9.99 <= end - start < 10.3
    assert abs(drift(first, lateness(vm))) < MOST_DRIFT


@pytest.mark.parametrize("suite", ["trixie"], indirect=True)
def test_clock_of_a_busy_guest(vm):
    vm.shell(f"for i in $(seq {CPUS}); do (while :; do :; done) & done; sleep 1")
    first, busy = lateness(vm), vm.cpu_seconds()
    time.sleep(BUSY_SECONDS)
    assert vm.cpu_seconds() - busy > BUSY_SECONDS / 10, "the guest was not busy"
    assert abs(drift(first, lateness(vm))) < MOST_DRIFT

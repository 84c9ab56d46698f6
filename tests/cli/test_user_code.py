# SPDX-License-Identifier: GPL-2.0-or-later
"""What user code may do on the soft engine, whether it runs directly, in a stub process, or translated alone: programs of
tests/guest/linux/user_code/ in Debian guests, all of a boot's one after the other."""
import contextlib
import itertools
import json
import re
import threading

import pytest

import program
from program import BOOT, BUILD, GUESTS, Shell, initrd_with, run

LIMIT = 240  # seconds for one program, on a busy host
RUN_WITHOUT = BUILD / "tests/host/run_without"

# In the order in which they run; the last one leaves the guest's kernel with complaints.
ALL = ["code", "signals", "exceptions", "trace", "clock", "processor", "contexts", "compatibility", "seccomp", "attack", "calls",
       "mappings", "copies", "processes", "scattered", "pressure"]
# What depends on how many processors there are.
SINGLE = ["code", "signals", "trace", "processor", "contexts", "mappings", "copies"]

names = (f"user-code-{n}" for n in itertools.count())


@pytest.fixture
def initrd(suite):
    return initrd_with(suite, "initrd-user-code.gz", "--add", f"bin/user_code={BUILD / 'tests/guest/user_code'}",
                       "--add", f"bin/user_code_32={BUILD / 'tests/guest/user_code_32'}")


def samples(name):
    """How often the vCPUs have been found at what."""
    vcpus = json.loads(run("stats", name, "--json", timeout=LIMIT).stdout)["vcpus"]
    return {key: sum(vcpu["samples"][key] for vcpu in vcpus) for key in vcpus[0]["samples"]}


class Guest(Shell):
    def __init__(self, suite, initrd, *args, prefix=()):
        self.name = next(names)
        super().__init__("run", "--engine", "soft", "--name", self.name, "--rm", "--kernel", GUESTS / suite / "vmlinuz", "--initrd",
                         initrd, "--append", "console=ttyS0 quiet vsyscall=emulate", *args, prefix=prefix)
        self.shell()

    @contextlib.contextmanager
    def watched(self):
        """Somebody asks all the time, so that what the vCPUs are at is counted. Gives a dictionary of what they were at."""
        found = {}
        done = threading.Event()

        def ask():
            while not done.wait(1):
                samples(self.name)

        before = samples(self.name)
        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield found
        finally:
            done.set()
            thread.join()
        after = samples(self.name)
        found.update({key: after[key] - before[key] for key in after})

    def check(self, command):
        """Runs it; what is wrong, or None, and where the vCPUs were."""
        with self.watched() as found:
            said = self.ask(f"user_code {command}", LIMIT)
        return (None if said.splitlines()[-1:] == [f"ok {command}"] and "FAIL" not in said else said), found

    def power_off(self):
        self.send(b"poweroff -f\r")
        assert self.wait(BOOT) == 0


def direct_execution_is_possible():
    (check,) = [check for check in program.host_report()["checks"] if check["name"] == "direct code"]
    return check["ok"]


def check_watch(guest):
    """Who asks what time it is all the time stays where it is."""
    said, found = guest.check("watch")
    assert said is None and found["direct"] > 5 * found["translated"], (said, found)


def check_all(guest, commands, direct):
    wrong = []
    for command in commands:
        said, found = guest.check(command)
        print(command, found)
        if said is not None:
            wrong.append(said)
        if direct and not found["direct"]:
            wrong.append(f"{command} did not run directly: {found}")
        if not direct and found["direct"]:
            wrong.append(f"{command} ran directly: {found}")
    assert wrong == []
    assert not re.search("BUG|Oops|general protection|traps:.*init", guest.ask("dmesg -r | sed -n 's/^<[0-3]>//p'"))


@pytest.mark.parametrize("suite", ["trixie"], indirect=True)
def test_direct(suite, initrd):
    if not direct_execution_is_possible():
        pytest.skip("this host does not permit direct execution")
    with Guest(suite, initrd, "--cpus", "2", "--memory", "1G") as guest:
        assert "no-direct-execution" not in json.loads(run("inspect", guest.name).stdout)
        check_watch(guest)
        check_all(guest, ALL, True)
        assert guest.ask("user_code_32", LIMIT) == "ok 32"
        guest.power_off()


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_direct_on_one_processor(suite, initrd):
    if not direct_execution_is_possible():
        pytest.skip("this host does not permit direct execution")
    with Guest(suite, initrd) as guest:
        check_watch(guest)
        check_all(guest, SINGLE, True)
        guest.power_off()


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
@pytest.mark.parametrize("feature", ["xsave", "avx", "fsgsbase", "bmi2"])
def test_on_a_lesser_processor(suite, initrd, feature, monkeypatch):
    """As the engine sees it: tests/host/processor_without.c."""
    monkeypatch.setattr(program, "TABIQUE", str(BUILD / "tests/host/tabique_without"))
    monkeypatch.setenv("TABIQUE_WITHOUT", feature)
    with Guest(suite, initrd) as guest:
        flags = guest.ask("grep -m1 ^flags /proc/cpuinfo").split()
        assert "sse2" in flags and (feature in flags) == (feature == "fsgsbase")  # which does not need the host's
        check_all(guest, SINGLE, direct_execution_is_possible() and feature != "xsave")
        guest.power_off()


@pytest.mark.parametrize("suite", ["trixie"], indirect=True)
def test_translated(suite, initrd):
    """Where stubs can't be stopped."""
    without = [RUN_WITHOUT, "pidfd_send_signal"]
    with Guest(suite, initrd, "--cpus", "2", "--memory", "1G", prefix=without) as guest:
        why = json.loads(run("stats", guest.name, "--json", timeout=LIMIT).stdout)["no-direct-execution"]
        assert "pidfd_send_signal" in why
        assert json.loads(run("inspect", guest.name).stdout)["no-direct-execution"] == why
        check_all(guest, ALL, False)
        assert guest.ask("user_code_32", LIMIT) == "ok 32"
        guest.power_off()

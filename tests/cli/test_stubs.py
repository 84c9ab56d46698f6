# SPDX-License-Identifier: GPL-2.0-or-later
"""The stub processes of the soft engine's direct execution from outside: what they are, how many, and that none stays."""
import contextlib
import os
import pathlib
import re
import signal
import time

import pytest

from life import children, user_ticks, wait_until
from program import BOOT, GUESTS, Shell, host_report

PROCESSES = 2 * 4  # for each vCPU: a runner and a mapper for each of its stubs

# User code that computes for a long time and makes no system call.
COMPUTE = b"i=0; while [ $i -lt 1000000000 ]; do i=$((i+1)); done &\r"

(DIRECT,) = [check for check in host_report()["checks"] if check["name"] == "direct code"]
pytestmark = pytest.mark.skipif(not DIRECT["ok"], reason="this host does not permit direct execution")


def comm(pid):
    return pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()


def alive(pid):
    """A zombie is not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


class Guest(Shell):
    def __init__(self, *args):
        super().__init__("run", "--engine", "soft", "--kernel", GUESTS / "trixie/vmlinuz", "--initrd", GUESTS / "trixie/initrd.gz",
                         "--append", "console=ttyS0 quiet", "--cpus", "2", *args)
        self.shell()
        (self.vm,) = [child for child in children(self.pid) if comm(child) == "tabique-vm"]
        self.stubs = children(self.vm)

    def compute(self):
        """Returns a stub that runs the guest's code."""
        self.send(COMPUTE)
        return wait_until(lambda: next((stub for stub in self.stubs if user_ticks(stub) > 20), None), "code runs in a stub")

    def expect_no_stub(self):
        wait_until(lambda: not any(map(alive, self.stubs)), "the stubs end")


@pytest.fixture(autouse=True)
def guest_is_there():
    if not (GUESTS / "trixie/initrd.gz").exists():
        pytest.skip("no guest for trixie: tools/fetch-guest makes it")


def test_idle():
    """Stubs are there from the start, cost next to nothing, and sleep; runners have no descriptor, mappers the guest's memory and their own."""
    with Guest("--net", "none") as guest:
        assert len(guest.stubs) == 2 * PROCESSES
        mappers = 0
        before = sum(map(user_ticks, guest.stubs))
        time.sleep(1)
        assert sum(map(user_ticks, guest.stubs)) - before <= 2
        for stub in guest.stubs:
            status = pathlib.Path(f"/proc/{stub}/status").read_text(encoding="ascii")
            assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE) and re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
            # All its own memory is the host's, for its page tables.
            assert int(re.search(r"^RssAnon:\s+(\d+)", status, re.MULTILINE).group(1)) == 0
            assert int(re.search(r"^VmPTE:\s+(\d+)", status, re.MULTILINE).group(1)) <= 512
            with contextlib.suppress(PermissionError):
                files = sorted(os.readlink(f"/proc/{stub}/fd/{n}").split()[0] for n in os.listdir(f"/proc/{stub}/fd"))
                assert files in ([], ["/memfd:guest-ram", "/memfd:stub"])
                mappers += len(files) == 2
        assert mappers in (0, PROCESSES)  # 0 where nobody may look
        guest.send(b"poweroff -f\r")
        assert guest.wait(BOOT) == 0
        guest.expect_no_stub()


@pytest.mark.parametrize("whom", ["supervisor", "VM process"])
def test_killed(whom):
    with Guest() as guest:
        guest.compute()
        os.kill(guest.pid if whom == "supervisor" else guest.vm, signal.SIGKILL)
        guest.expect_no_stub()


def test_killed_stub():
    """The registers of the guest's code are lost with it, so the guest ends, and says why."""
    with Guest() as guest:
        os.kill(guest.compute(), signal.SIGKILL)
        guest.expect("the process that executed the guest's user code was killed".encode())
        assert guest.wait() == 4
        guest.expect_no_stub()


def test_killed_while_they_wait():
    """Those that run nothing are not missed: what they would have run is translated."""
    with Guest() as guest:
        assert guest.ask("sleep 1; echo $?") == "0"
        for stub in guest.stubs:
            os.kill(stub, signal.SIGKILL)
        guest.expect_no_stub()
        assert guest.ask("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo $i") == "100000"
        guest.send(b"poweroff -f\r")
        assert guest.wait(BOOT) == 0

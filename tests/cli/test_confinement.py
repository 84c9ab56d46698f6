# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole guests under confinement, whoever starts them and wherever: no thread of theirs leaves its list of system
calls, and what the host sees of their processes is what docs/threat-model.md says."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

import pytest

import life
from program import BUILD, GUESTS, TABIQUE, host_report

CASES = ["root", "user", "container-root", "container-user"]
RUN_AS = BUILD / "tests/host/run_as"
BOOT = 120  # seconds at most, on a busy machine
PROMPT = rb"guest:\S*[#$] "


@pytest.fixture(scope="module")
def place():
    """A directory that everybody may reach, with the program and guests."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="tabique-confinement-"))
    path.chmod(0o755)
    for source in (TABIQUE, RUN_AS):
        shutil.copy(source, path)
    for suite in ("bookworm", "trixie"):
        if (GUESTS / suite / "initrd.gz").exists():
            shutil.copytree(GUESTS / suite, path / suite)
    yield path
    shutil.rmtree(path)


class Run:
    """`tabique args...` as one of CASES, on pipes."""

    def __init__(self, place, case, *args):
        if os.geteuid() != 0 and case.endswith("root"):
            pytest.skip("only root can become root")
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="tabique-home-"))
        if case.endswith("user") and os.geteuid() == 0:
            os.chown(self.home, 65534, 65534)
        self.output = b""
        self.process = subprocess.Popen(
            [place / "run_as", case, place / "tabique", *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, cwd="/", env=dict(os.environ, TABIQUE_HOME=str(self.home), SECRET="open sesame"))
        os.set_blocking(self.process.stdout.fileno(), False)

    def expect(self, pattern, timeout=BOOT):
        deadline = time.monotonic() + timeout
        while not (match := re.search(pattern, self.output)):
            assert time.monotonic() < deadline, f"no {pattern} in {self.output[-1000:]}"
            ended = self.process.poll() is not None
            self.output += self.process.stdout.read() or b""
            assert not ended or re.search(pattern, self.output), f"ended before {pattern}: {self.output[-1000:]}"
            time.sleep(0.05)
        self.output = self.output[match.end():]
        return match

    def ask(self, command):
        self.process.stdin.write(command.encode() + b"; echo status $?\n")
        self.process.stdin.flush()
        return int(self.expect(rb"\nstatus (\d+)").group(1))

    def processes(self):
        """The children, by their threads' names."""
        found = {}
        for pid in pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            found[pathlib.Path(f"/proc/{pid}/comm").read_text().strip()] = int(pid)
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        shutil.rmtree(self.home, ignore_errors=True)


def status_of(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def assert_confined(pid, case):
    """As far as everybody may look."""
    status = status_of(pid)
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    if case.endswith("root"):
        assert set(status["Uid"].split()) == {str(1900000000 + pid)}
        assert status["Groups"].strip() == ""
    for thread in os.listdir(f"/proc/{pid}/task"):
        filters = status_of(f"{pid}/task/{thread}").get("Seccomp_filters")
        assert filters is None or int(filters) >= 1
    assert pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"tabique: ")


def assert_as_confined(stub, vm):
    """A stub of the soft engine has what walls its VM process has, and a list of system calls of its own."""
    inner, outer = status_of(stub), status_of(vm)
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups"):
        assert inner[name] == outer[name], name
    assert int(inner.get("Seccomp_filters", 2)) >= 2
    assert pathlib.Path(f"/proc/{stub}/cmdline").read_bytes() == b""


def report_of(place, case):
    with Run(place, case, "check", "--json") as check:
        check.process.wait(30)
        return json.loads(check.process.stdout.read())


def direct_code_is_possible(place, case):
    """Nobody is refused here what somebody else is granted, but by the host itself."""
    (here,), (plain,) = ([item for item in report["checks"] if item["name"] == "direct code"]
                         for report in (report_of(place, case), host_report()))
    assert here["ok"] == plain["ok"]
    return here["ok"]


def boot(place, case, engine, suite, *args):
    if not (place / suite).exists():
        pytest.skip(f"no guest for {suite} in {GUESTS}: tools/fetch-guest makes it")
    return Run(place, case, "run", "--engine", engine, "--kernel", place / suite / "vmlinuz", "--initrd",
               place / suite / "initrd.gz", "--append", "console=ttyS0 quiet", *args)


@pytest.mark.parametrize("case", CASES)
def test_boot_with_everything(place, case, engine):
    """Processors, disk and network card at work; a reset; an orderly end."""
    disk = place / f"disk-{case}"
    with open(disk, "wb") as file:
        file.truncate(64 << 20)
    disk.chmod(0o666)
    with boot(place, case, engine, "bookworm", "--cpus", "2", "--disk", f"{disk},format=raw", "--net", "user",
              "--watchdog", "reset") as guest:
        guest.expect(PROMPT)
        assert guest.ask("dd if=/dev/urandom of=/dev/vda bs=1M count=16 conv=fsync") == 0
        assert guest.ask("blkdiscard /dev/vda && dd if=/dev/vda of=/dev/null bs=1M") == 0
        assert guest.ask("ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ping -c 1 -W 30 10.0.2.2") == 0
        children = guest.processes()
        assert_confined(children["tabique-vm"], case)
        if engine == "soft" and direct_code_is_possible(place, case):
            stubs = life.children(children["tabique-vm"])
            assert len(stubs) == 2 * 4 * 2  # vCPUs, stubs of each, processes of each
            for stub in stubs:
                assert_as_confined(stub, children["tabique-vm"])
            assert guest.ask("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done") == 0
            assert sum(map(life.user_ticks, stubs)) > 0
        guest.process.stdin.write(b"reboot -f\n")
        guest.process.stdin.flush()
        guest.expect(b"Restarting system")
        guest.expect(PROMPT)
        assert guest.ask("dd if=/dev/vda of=/dev/null bs=1M") == 0
        guest.process.stdin.write(b"poweroff -f\n")
        guest.process.stdin.flush()
        assert guest.process.wait(BOOT) == 0, guest.process.stdout.read()


@pytest.mark.parametrize("case", CASES)
def test_check_tells_what_is_missing(place, case):
    report = report_of(place, case)
    (found,) = [i for i in report["checks"] if i["name"] == "confinement"]
    assert "system call lists, no capabilities" in found["found"]
    if case.startswith("container"):
        assert not found["ok"] and found["advice"]
        assert re.match(r"partial: .*; not permitted here: namespaces \(.*\bmount, net, ipc, uts, cgroup\), empty root", found["found"])
    else:
        assert found["ok"] == found["found"].startswith("complete: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees another process's memory and files")
def test_nothing_of_the_supervisor_stays(place, engine):
    with boot(place, "root", engine, "bookworm", "--net", "user") as guest:
        guest.expect(PROMPT)
        pid = guest.processes()["tabique-vm"]
        try:
            environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
        except PermissionError:
            pytest.skip("root may not look into other processes here")
        assert b"sesame" not in environment
        names = [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")]
        # Sockets to the supervisor and to the network's process, the kernel and initrd, what is of memory alone, and
        # the guest's own lock: it is held as long as any of its processes lives.
        allowed = r"socket:|anon_inode:|/dev/(null|kvm)$|/memfd:|" + re.escape(str(place)) + r"/bookworm/(vmlinuz|initrd.gz)$"
        allowed += "|" + re.escape(str(guest.home)) + "/guests/[^/]+/lock$"
        assert not [n for n in names if not re.match(allowed, n)]
        assert ("/dev/kvm" in names) == (engine == "kvm")
        assert os.readlink(f"/proc/{pid}/root") == "/"
        assert os.listdir(f"/proc/{pid}/root") == []
        guest.process.stdin.write(b"poweroff -f\n")
        guest.process.stdin.flush()
        assert guest.process.wait(BOOT) == 0

# SPDX-License-Identifier: GPL-2.0-or-later
"""Real programs of Debian in a guest on the soft engine, with user code executed directly and all translated: just-in-time
compilers, a debugger, a tracer, and code of 32 bits. What they print is what they print on this host, in a chroot of the
same files (bench/userland.py)."""
import itertools
import os
import re
import shutil
import subprocess
import sys

import pytest

import program
from program import BUILD, GUESTS, TREE, Shell

sys.path.insert(0, str(TREE / "bench"))
import userland  # noqa: E402 pylint: disable=wrong-import-position

SUITE = "bookworm"
PACKAGES = "busybox-static,dash,gcc-multilib,gdb,libc6-dev,luajit,nodejs,strace"
SOURCES = TREE / "tests/guest/programs"
LIMIT = 400  # seconds for one program, on a busy host

names = (f"programs-{n}" for n in itertools.count())


@pytest.fixture(scope="module", name="files")
def fixture_files():
    """(tree, image)"""
    if not (GUESTS / SUITE / "initrd.gz").exists():
        pytest.skip(f"no guest for {SUITE} in {GUESTS}: tools/fetch-guest makes it")
    lacking = [tool for tool in ("mmdebstrap", "mke2fs") if not shutil.which(tool)]
    if lacking:
        pytest.skip(f"{', '.join(lacking)} not installed: tools/install-deps installs it")
    ours = {f"programs/{path.name}": path.read_bytes() for path in SOURCES.iterdir()}
    ours["programs/debugged"] = (BUILD / "tests/guest/debugged").read_bytes()
    return userland.make(f"programs-{SUITE}", SUITE, PACKAGES, ours)


@pytest.fixture(scope="module", name="host")
def fixture_host(files):
    """Runs a command in the tree on this host, and gives what it printed."""
    tree, _ = files
    said = {}

    def ask(command):
        if command not in said:
            enter = f"mount --rbind /dev '{tree}/dev' && mount -t proc proc '{tree}/proc' && mount -t tmpfs tmpfs '{tree}/tmp' && " \
                    f"exec chroot '{tree}' /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c '{command}'"
            root = [] if os.geteuid() == 0 else ["--map-root-user"]
            done = subprocess.run(["unshare", *root, "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  timeout=LIMIT, check=False)
            said[command] = done.stdout.strip()
        return said[command]
    return ask


@pytest.fixture(scope="module", params=["direct", "translated"], name="guest")
def fixture_guest(files, request):
    """Asks a guest the same."""
    prefix = []
    if request.param == "translated":
        prefix = [BUILD / "tests/host/run_without", "pidfd_send_signal"]
    elif not next(check for check in program.host_report()["checks"] if check["name"] == "direct code")["ok"]:
        pytest.skip("this host does not permit direct execution")
    initrd = program.initrd_with(SUITE, "initrd-programs.gz", "--modules", "ext4")
    with Shell("run", "--engine", "soft", "--name", next(names), "--rm", "--kernel", GUESTS / SUITE / "vmlinuz", "--initrd",
               initrd, "--append", "console=ttyS0 quiet", "--cpus", "2", "--memory", "1G", "--net", "none",
               "--disk", f"{files[1]},readonly", prefix=prefix) as guest:
        guest.shell()
        guest.ask("mkdir /u && mount -t ext4 -o ro /dev/vda /u && mount -t tmpfs tmpfs /u/tmp && "
                  "for d in dev proc sys; do mount -o bind /$d /u/$d; done")

        def ask(command):
            return guest.ask(f"chroot /u /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c '{command}' 2>&1 </dev/null", LIMIT)
        yield ask
        complaints = guest.ask("dmesg -r | sed -n 's/^<[0-3]>//p'")
        assert not re.search("BUG|Oops|general protection", complaints), complaints


def test_luajit(guest, host):
    command = "luajit /programs/compiled.lua"
    said = guest(command)
    assert said == host(command) and len(said.splitlines()) == 6


def test_node(guest, host):
    command = "node /programs/compiled.js"
    said = guest(command)
    assert said == host(command) and len(said.splitlines()) == 11


def test_32_bits(guest, host):
    command = "gcc -m32 -O2 -o /tmp/narrow /programs/narrow.c -lm && /tmp/narrow; echo status $?"
    said = guest(command)
    assert said == host(command) and said.startswith("pointer 4, long 4\n") and said.endswith("\nchild 7\nstatus 0")


def plain(text):
    """Without what differs from run to run; gdb tells of a fork when the child may have printed already."""
    text = re.sub(r"\[Detaching after fork .*\]\n", "", text)
    return re.sub(r"(process |wait4\(|si_pid=|NULL\) += )\d+", r"\1N", re.sub(r", si_utime=.*\}", "}", text))


def test_gdb(guest, host):
    command = "gdb -nx -batch -x /programs/debugger.gdb /programs/debugged"
    said = plain(guest(command))
    assert said == plain(host(command))
    for expected in ["Breakpoint 1, step (n=2)", "Hardware watchpoint 2: counter\n\nOld value = 1\nNew value = 4",
                     "Hardware read watchpoint 3: record.narrow\n\nValue = 15\n", "Hardware access (read/write) watchpoint 4: other",
                     "\nBreakpoint 6, step (n=8)", "\nWatchpoint 7: record.narrow\n\nOld value = 24\nNew value = 27",
                     "Catchpoint 8 (call to syscall write)", "exited normally"]:
        assert expected in said, (expected, said)
    # Not compared: this gdb can't write the registers of a host with AMX.
    said = guest("gdb -nx -batch -ex \"break step\" -ex run -ex \"print step(8)\" -ex \"print other\" /programs/debugged")
    assert "Breakpoint 1, step (n=8)" in said and "\n$1 = 0" in said, said


def test_strace(guest, host):
    # A file for each process, or what waits is told in two lines.
    command = "strace -ff -o /tmp/trace -e trace=openat,write,wait4,exit_group -e signal=CHLD /programs/debugged; cat /tmp/trace.*"
    said = plain(guest(command))
    # By lines: a child that ends before its parent waits is told of before the call, or after it.
    assert sorted(said.splitlines()) == sorted(plain(host(command)).splitlines())
    for expected in [r'openat\(.*"/nonexistent/file", O_RDONLY\) += -1 ENOENT', r'write\(1, "from the child\\n", 15',
                     r"wait4\(.*WEXITSTATUS\(s\) == 3", r"SIGCHLD.*si_code=CLD_EXITED", r"exit_group\(0\)"]:
        assert re.search(expected, said), (expected, said)

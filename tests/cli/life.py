# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests in a state directory of their own, for the tests of their life cycle and for tools/soak-life."""
import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import struct
import subprocess
import time

from program import BUILD, GUESTS, TABIQUE, Shell, default_signals

ECHO = BUILD / "tests/guest/echo.pvh.elf"
POWER = BUILD / "tests/guest/power.pvh.elf"

F_OFD_GETLK = 36
LIMIT = 60  # seconds, for what takes a moment on an idle host


def wait_until(condition, what, limit=LIMIT):
    """What `condition` gives, as soon as it is true."""
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {limit} s: {what}"
        time.sleep(0.01)


def run_with_disks(suite, *disks):
    """A Debian named web at its shell on the soft engine, with these disks (each as --disk takes it) and no network."""
    return Shell("run", "--name", "web", "--engine", "soft", "--net", "none", "--kernel", GUESTS / suite / "vmlinuz",
                 "--initrd", GUESTS / suite / "initrd.gz", "--append", "console=ttyS0 quiet",
                 *[word for disk in disks for word in ("--disk", disk)]).shell()


def our_processes():
    """The process ids of all that run the program under test."""
    found = set()
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(entry / "exe") == os.path.realpath(TABIQUE):
                    found.add(int(entry.name))
    return found


def children(pid):
    """The children of all of a process's threads."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
    return found


def user_ticks(pid):
    """For how long a process has been in user mode, in hundredths of a second."""
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[11])


class Home:
    """A state directory, and the program with it."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.environment = dict(os.environ, TABIQUE_HOME=str(self.path))
        self.before = our_processes()

    def popen(self, *args, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        return subprocess.Popen([TABIQUE, *map(str, args)], env=self.environment, text=True,
                                preexec_fn=default_signals, **options)  # pylint: disable=subprocess-popen-preexec-fn

    def run(self, *args, timeout=LIMIT, **options):
        """Runs `tabique args...` to its end; the result, whatever it is."""
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([TABIQUE, *map(str, args)], env=self.environment, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=timeout, check=False, **options)

    def do(self, *args, **options):
        """The output of a command that must succeed without a word of complaint."""
        result = self.run(*args, **options)
        assert (result.returncode, result.stderr) == (0, ""), (args, result)
        return result.stdout

    def fail(self, *args, **options):
        """The complaint of a command that must fail: one line."""
        result = self.run(*args, **options)
        assert result.returncode == 1, (args, result)
        assert result.stderr.count("\n") == 1 and not result.stderr.rstrip().endswith("."), result.stderr
        return result.stderr

    def start(self, name, *args, kernel=ECHO):
        """A guest in the background that listens to its console."""
        assert self.do("run", "-d", "--net", "none", "--name", name, "--memory", "32M", "--debug-exit", "--kernel", kernel,
                       *args) == name + "\n"
        wait_until(lambda: "ready" in self.log(name) or "waits" in self.log(name), f"{name} listens")

    def start_with_button(self, name, *args):
        """One that switches off when its power button is pressed."""
        self.start(name, "--append", "button", *args, kernel=POWER)

    def log(self, name):
        with contextlib.suppress(FileNotFoundError):
            return (self.path / "guests" / name / "console.log").read_bytes().decode(errors="replace").replace("\r", "")
        return ""

    def inspect(self, name):
        return json.loads(self.do("inspect", name))

    def states(self):
        """{name: state} of all guests, as `ps` has it."""
        return {guest["name"]: guest["state"] for guest in json.loads(self.do("ps", "-a", "--json"))}

    def events(self, name, *args):
        """The events of one guest, without the time."""
        events = [json.loads(line) for line in self.do("events", *args).splitlines()]
        return [event["event"] for event in events if event["guest"] == name]

    def say(self, name, keys):
        """Types on a guest's console; what it shows is in its log."""
        child = self.popen("console", name, stdin=subprocess.PIPE)
        child.stdin.write(keys)
        child.stdin.flush()
        return child

    def is_locked(self, name):
        """Whether anything of a guest lives, as the kernel knows it."""
        try:
            with open(self.path / "guests" / name / "lock", "rb") as lock:
                asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 2, 0)
                return struct.unpack("hhqqi4x", fcntl.fcntl(lock, F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK
        except FileNotFoundError:
            return False

    def processes(self):
        """Those of this home's guests (no other guests are started meanwhile)."""
        return our_processes() - self.before

    def expect_nothing_left(self, *names):
        """No process, no socket, no lock; and no file but those of the guests named, which do not run."""
        wait_until(lambda: not self.processes(), f"processes {self.processes()} end")
        self.do("ps")
        assert sorted(p.name for p in (self.path / "guests").iterdir()) == sorted(names)
        assert [str(p) for p in (self.path / "run").iterdir()] == []
        assert not [name for name in names if self.is_locked(name)]
        for name in names:
            kept = {p.name for p in (self.path / "guests" / name).iterdir()}
            assert kept <= {"lock", "console.log", "console.log.1"}, kept

    def clear(self):
        """Whatever state it is in."""
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, 9)
        shutil.rmtree(self.path, ignore_errors=True)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The program under test, run as a person or a script would: with pipes, or on a terminal of its own."""
import atexit
import fcntl
import functools
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import termios
import time

TREE = pathlib.Path(__file__).resolve().parent.parent.parent
TABIQUE = os.environ.get("TABIQUE", str(TREE / "build/tabique"))
BUILD = pathlib.Path(os.environ.get("TABIQUE_BUILD", pathlib.Path(TABIQUE).parent))
if "TABIQUE_HOME" not in os.environ:  # no test leaves anything where a person keeps guests
    os.environ["TABIQUE_HOME"] = tempfile.mkdtemp(prefix="tabique-home-")
    atexit.register(shutil.rmtree, os.environ["TABIQUE_HOME"], ignore_errors=True)
GUESTS = pathlib.Path(os.environ.get("TABIQUE_GUESTS", TREE / "build/guest"))


def run(*args, timeout=20, **options):
    """Runs `tabique args...` to its end, without a terminal. Output is text unless text=False."""
    options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("text", True)
    return subprocess.run([TABIQUE, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                          check=False, **options)


@functools.lru_cache
def host_report():
    return json.loads(run("check", "--json").stdout)


@functools.lru_cache
def initrd_with(suite, name, *options):
    """The suite's initramfs with more in it, as these options of tools/fetch-guest have it: looked after once, not for each
    test."""
    subprocess.run([TREE / "tools/fetch-guest", "--quiet", "--suite", suite, "--out", GUESTS / suite, "--initrd", name, *options],
                   check=True, timeout=300, stdin=subprocess.DEVNULL)
    return GUESTS / suite / name


def engines():
    """The names of those that this host can run."""
    return [e["name"] for e in host_report()["engines"] if e["usable"]]


def default_signals():
    """In a child: whoever started the tests, under nohup or in a script's background, may have these ignored."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


class Terminal:
    """`tabique args...` with a pseudo-terminal as its controlling terminal, as in a shell's foreground."""

    def __init__(self, *args, prefix=()):
        """`prefix`: the words of a command that executes the program."""
        words = [*prefix, TABIQUE, *map(str, args)]
        self.output = b""
        self.master, self.slave = pty.openpty()
        self.settings = termios.tcgetattr(self.slave)
        executed, execute = os.pipe()  # closed by the exec, so that no signal meets the child before it
        pid = os.fork()
        if pid == 0:
            try:
                os.close(executed)
                default_signals()
                os.setsid()
                fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)
                for fd in range(3):
                    os.dup2(self.slave, fd)
                os.execvp(words[0], words)
            finally:
                os._exit(126)
        os.close(execute)
        os.read(executed, 1)
        os.close(executed)
        self.pid = pid
        self.status = None

    def _read(self, seconds):
        if select.select([self.master], [], [], seconds)[0]:
            self.output += os.read(self.master, 65536)

    def expect(self, pattern, timeout=20):
        """Waits until the output has a match; returns it and forgets the output up to its end."""
        deadline = time.monotonic() + timeout
        while True:
            match = re.search(pattern, self.output)
            if match:
                self.output = self.output[match.end():]
                return match
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} within {timeout} s; the last output: {self.output[-1000:]!r}"
            self._read(min(left, 0.2))
            if self._ended() and not select.select([self.master], [], [], 0)[0]:
                match = re.search(pattern, self.output)
                assert match, f"ended with {self.status} before {pattern!r}: {self.output[-1000:]!r}"

    def send(self, data):
        os.write(self.master, data)

    def kill(self, sig):
        os.kill(self.pid, sig)

    def _ended(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def wait(self, timeout=20):
        """The exit status; negative for a signal. Keeps reading meanwhile."""
        deadline = time.monotonic() + timeout
        while not self._ended():
            assert time.monotonic() < deadline, f"still running after {timeout} s; output: {self.output[-1000:]!r}"
            self._read(0.05)
        self._read(0)
        return self.status

    def is_restored(self):
        """Whether the terminal is as it was before."""
        return termios.tcgetattr(self.slave) == self.settings

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def close(self):
        if not self._ended():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)
        os.close(self.slave)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


BOOT = 90  # seconds at most, on a busy machine
PROMPT = rb"guest:\S*[#$] (\x1b\[6n)?$"


class Shell(Terminal):
    """A guest that boots to the shell of tools/fetch-guest's initramfs."""

    def shell(self, timeout=BOOT):
        self.expect(PROMPT, timeout)
        self.ask("stty -echo")
        return self

    def ask(self, command, timeout=60):
        """The output of a command, as text."""
        self.send(command.encode() + b"\r")
        return self.expect(rb"(?s)^(.*)" + PROMPT, timeout).group(1).decode(errors="replace").replace("\r", "").strip()

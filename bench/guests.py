# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts the same Linux guest on the monitors that are compared, and watches it from outside. Used by each benchmark
here and by the tests of timekeeping."""
import json
import os
import pathlib
import platform
import queue
import re
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time

TREE = pathlib.Path(__file__).resolve().parent.parent
TABIQUE = pathlib.Path(os.environ.get("TABIQUE", TREE / "build/tabique")).resolve()
BUILD = pathlib.Path(os.environ.get("TABIQUE_BUILD", TABIQUE.parent))
GUESTS = pathlib.Path(os.environ.get("TABIQUE_GUESTS", TREE / "build/guest"))
QEMU = "qemu-system-x86_64"
RESULTS = TREE / "bench/results"

INIT_REACHED = r"init: reached ([\d.]+)"
PROMPT = r"guest:\S* ?[#$] "

# QEMU's machines; each benchmark takes the one that proves fastest. Without KVM, microvm needs the old clock chips.
QEMU_MACHINES = ("pc", "q35", "microvm,acpi=off,pit=on,pic=on,rtc=on")


class Failed(Exception):
    """What went wrong, for a person."""


def process_tree(pid):
    """A process and its descendants: we run a VM in a process of its own, which has children by its vCPUs' threads."""
    found = [pid]
    for parent in found:
        for task in pathlib.Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def process_cpu_seconds(pid, with_ended=False):
    """User and system time of all its threads so far, and of its children that have ended if they are wanted too."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15 if with_ended else 13])) / os.sysconf("SC_CLK_TCK")


class Guest:
    """A monitor's process with a guest in it; its console is a pipe."""

    def __init__(self, command):
        self.command = [str(word) for word in command]
        self.started = time.monotonic()
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)
        self.text = ""
        self.chunks = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        while True:
            data = os.read(self.process.stdout.fileno(), 65536)
            self.chunks.put((time.monotonic(), data))
            if not data:
                return

    def wait_for(self, pattern, timeout):
        """Reads the console until `pattern` (a regular expression) comes, and takes all up to its end away. The match
        (its .string begins where the last one ended), and when it was there on CLOCK_MONOTONIC."""
        until = time.monotonic() + timeout
        when = time.monotonic()
        while True:
            match = re.search(pattern, self.text, re.M)
            if match:
                self.text = self.text[match.end():]
                return match, when
            try:
                when, data = self.chunks.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise Failed(self._tell(f"nothing like {pattern!r} in {timeout} s")) from None
            if not data:
                raise Failed(self._tell(f"it ended before {pattern!r} came"))
            self.text += data.decode(errors="replace").replace("\r", "")

    def _tell(self, problem):
        return f"{' '.join(self.command)}: {problem}; its console ends with:\n{self.text[-1500:]}"

    def send(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def shell(self, line, timeout=60):
        """What the guest's shell prints for a command line, its prompt having been seen before."""
        self.send(f"echo begin-of-$((2 * 21)); {line}; echo end-of-$((2 * 21))")
        self.wait_for(r"^begin-of-42\n", timeout)  # not the terminal's echo
        match, _ = self.wait_for(r"^end-of-42\n", timeout)
        self.wait_for(PROMPT, timeout)
        return match.string[:match.start()]

    def cpu_seconds(self):
        """User and system time of all its processes so far."""
        return sum(map(process_cpu_seconds, process_tree(self.process.pid)))

    def memory(self):
        """Bytes of host memory that are its own (Pss): (those of the guest's RAM, all others)."""
        ram, others = 0, 0
        for pid in process_tree(self.process.pid):
            in_ram = False
            for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
                if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                    in_ram = "memfd:guest-ram" in line or "memfd:memory-backend-memfd" in line
                elif line.startswith("Pss:"):
                    pss = int(line.split()[1]) * 1024
                    ram, others = (ram + pss, others) if in_ram else (ram, others + pss)
        return ram, others

    def end(self):
        """Whatever it is doing."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.end()


class TcpPeer:
    """This host's end of a connection with tests/cli/pump.c in a guest, which is told our port first. Rates are bytes a
    second from the first byte to the last, as seen here."""

    def __init__(self, timeout):
        self.timeout = timeout
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def _connection(self):
        self.listener.settimeout(self.timeout)
        connection, _ = self.listener.accept()
        connection.settimeout(self.timeout)
        return connection

    def down(self, size):
        """To the guest."""
        block = bytes(1 << 20)
        with self._connection() as connection:
            started = time.monotonic()
            for _ in range(size // len(block)):
                connection.sendall(block)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)  # its end: the guest has all
            return size / (time.monotonic() - started)

    def up(self, size):
        """From the guest."""
        with self._connection() as connection:
            started, got = time.monotonic(), 0
            while data := connection.recv(1 << 20):
                got += len(data)
            seconds = time.monotonic() - started
        if got != size:
            raise Failed(f"{got} of {size} bytes came from the guest")
        return size / seconds

    def close(self):
        self.listener.close()


def fetch(suite):
    """(kernel, initramfs) of a Debian suite."""
    directory = GUESTS / suite
    done = subprocess.run([TREE / "tools/fetch-guest", "--suite", suite, "--out", directory, "--quiet"], check=False,
                          stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Failed(f"tools/fetch-guest --suite {suite} failed")
    return directory / "vmlinuz", directory / "initrd.gz"


def tabique_command(engine, guest, memory="512M", cpus=1, append=""):
    if not os.access(TABIQUE, os.X_OK):
        raise Failed(f"no {TABIQUE}: build it first")
    return [TABIQUE, "run", "--engine", engine, "--kernel", guest[0], "--initrd", guest[1], "--memory", memory,
            "--cpus", str(cpus), "--append", f"console=ttyS0 {append}".strip()]


def qemu_command(machine, guest, memory="512M", cpus=1, append=""):
    if not shutil.which(QEMU):
        raise Failed(f"{QEMU} is not installed (tools/install-deps installs it)")
    return [QEMU, "-accel", "tcg,thread=multi", "-machine", machine, "-cpu", "max", "-nodefaults", "-no-user-config",
            "-no-reboot", "-display", "none", "-serial", "stdio", "-m", memory, "-smp", str(cpus), "-kernel", guest[0],
            "-initrd", guest[1], "-append", f"console=ttyS0 {append}".strip()]


def usable_engines():
    """Those of our engines that this host can run."""
    if not os.access(TABIQUE, os.X_OK):
        raise Failed(f"no {TABIQUE}: build it first")
    text = subprocess.run([TABIQUE, "check", "--json"], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL).stdout
    return [e["name"] for e in json.loads(text)["engines"] if e["usable"]]


def host():
    model = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    return {"cpu": model.group(1) if model else "unknown", "cores": os.cpu_count(), "kernel": platform.release()}


def version(command):
    text = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout
    return text.splitlines()[0] if text else "unknown"


def summary(values):
    """Median and range, as told in tables and results."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def write_results(name, results):
    """bench/results/NAME.json: this run's; the last one of each name stays."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {"benchmark": name, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "host": host(),
                "tabique": version(TABIQUE), "qemu": version(QEMU) if shutil.which(QEMU) else None, **results}
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written: {path}")


def table(header, rows):
    """Columns as wide as what is in them; the first to the left, the others to the right."""
    texts = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in texts) for i in range(len(header))]
    for number, row in enumerate(texts):
        print("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))))
        if number == 0:
            print("  ".join("-" * w for w in widths))


def main(benchmark):
    """Runs a benchmark's function; its failure is told in a line."""
    try:
        return benchmark()
    except (Failed, OSError, subprocess.SubprocessError) as error:
        print(f"{pathlib.Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        return 1

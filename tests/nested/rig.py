# SPDX-License-Identifier: GPL-2.0-or-later
"""A host with AMD-V to test the kvm engine on, wherever the tests run: QEMU's TCG emulates the processor with SVM, a
Debian cloud kernel with kvm-amd runs on it, and in that our own binary runs its guests.

A host's jobs go into one initramfs and one boot: starting the nested host costs more than most jobs.
"""
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

TREE = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TREE / "bench"))
from guests import process_cpu_seconds  # noqa: E402 pylint: disable=wrong-import-position

QEMU = "qemu-system-x86_64"
HOST_SUITE = "bookworm"

# No XSAVE: QEMU's SVM lets XSETBV of a nested guest through without an exit, so KVM never learns of it and loses the
# guest's vector registers at the next one. No CMPXCHG16B: after one, QEMU 7.2 may hand bits of a pointer to KVM as the
# upper half of RFLAGS, and the guest goes on in virtual-8086 mode.
PROCESSOR = "max,+svm,-xsave,-cx16"


@dataclasses.dataclass
class Result:
    """What became of one job. `status` is None if it did not end."""
    output: str = ""
    status: int | None = None
    seconds: float = 0.0


def shared_libraries(binary):
    """What the dynamic linker will look for, by absolute path."""
    text = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
    return sorted(set(re.findall(r"(/\S+) \(0x", text)))


# QEMU now and then loses the timer interrupt of the processor that it emulates while a nested guest runs. A host that
# arms its timer anew at each would then sleep for ever, or never again take the processor from a vCPU that waits for
# another: so its timer is periodic, and one tick is all that is lost.
TICKS = "nohz=off highres=off"
# Should one sleep all the same, it is begun anew, so many times.
RESTARTS = 6
STILL = 90  # seconds without any processor time: even an idle guest's ticks take some
STOOD_STILL = f"the nested host took no processor time for {STILL} s"


def run_while_it_works(command, limit):
    """How it ended, in words."""
    started = changed = time.monotonic()
    used = -1
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        while True:
            try:
                return f"the nested host's QEMU ended with status {process.wait(5)}"
            except subprocess.TimeoutExpired:
                pass
            now, before, used = time.monotonic(), used, process_cpu_seconds(process.pid)
            changed = now if used != before else changed
            if now - changed > STILL or now - started > limit:
                process.kill()
                return STOOD_STILL if now - changed > STILL else f"the nested host did not end in {limit} s"


class NestedHost:
    """Collects files and jobs, boots once, and keeps each job's result."""

    def __init__(self, name, build, guests, scratch):
        self.initrd = f"{name}.cpio"  # an emulated processor takes long to unpack what is compressed
        self.build = pathlib.Path(build)
        self.guests = pathlib.Path(guests)
        self.scratch = pathlib.Path(scratch)
        self.jobs = {}
        self.additions = {}
        self.disks = []
        self.results = {}
        self.restarts = 0
        self.log = ""

    def add_file(self, guest_path, host_path):
        self.additions[guest_path] = pathlib.Path(host_path)

    def add_binary(self, guest_path, host_path):
        self.add_file(guest_path, host_path)
        for library in shared_libraries(host_path):
            self.add_file(library, os.path.realpath(library))

    def add_library(self, name):
        """One that programs load while they run, by the name that they ask for it by, and what it needs."""
        known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
        found = re.search(rf"^\s*{re.escape(name)} \(.*x86-64.*\) => (/\S+)$", known, re.M)
        self.add_binary(found.group(1), found.group(1))

    def add_disk(self, path):
        """What jobs write to it is lost. Its device's path in the nested host."""
        self.disks.append(pathlib.Path(path))
        return f"/dev/vd{chr(ord('a') + len(self.disks) - 1)}"

    def add_job(self, name, script, limit=600):
        """`script`: for the shell. `limit`: seconds of its run at most."""
        self.jobs[name] = (script, limit)

    def fetch(self, suite, *options):
        directory = self.guests / suite
        subprocess.run([TREE / "tools/fetch-guest", "--suite", suite, "--out", directory, "--quiet", *options],
                       check=True, stdin=subprocess.DEVNULL)
        return directory

    def _write_jobs(self):
        jobs = self.scratch / "jobs"
        shutil.rmtree(jobs, ignore_errors=True)
        jobs.mkdir(parents=True)
        for number, (name, (script, limit)) in enumerate(self.jobs.items()):
            (jobs / f"{number:02d}-{name}").write_text(f"# {name}, {limit} s\n{script}\n")
        limits = "".join(f"  *-{name}) job_limit={limit} ;;\n" for name, (_, limit) in self.jobs.items())
        env = f"export tabique=/nested/tabique\ncase $name in\n{limits}esac\n"
        (self.scratch / "env").write_text(env)
        self.add_file("nested/jobs", jobs)
        self.add_file("nested/env", self.scratch / "env")
        self.add_file("nested/shell-lib", TREE / "tests/nested/shell-lib")
        self.add_file("tests/nested", TREE / "tests/nested/run-jobs")

    def prepare(self):
        """Makes the initramfs, with everything in."""
        self._write_jobs()
        options = [f"--add={guest}={host}" for guest, host in sorted(self.additions.items())]
        self.fetch(HOST_SUITE, "--initrd", self.initrd, "--modules", "kvm_amd", *options)

    def run(self, cpus=1, memory="1536M", limit=5400):
        """Boots the nested host and reads what it reports. `limit`: seconds in all."""
        directory = self.guests / HOST_SUITE
        console, report = self.scratch / "console.log", self.scratch / "report.log"
        command = [QEMU, "-accel", "tcg,thread=multi", "-cpu", PROCESSOR, "-smp", str(cpus), "-m", memory,
                   "-nodefaults", "-no-reboot", "-display", "none", "-serial", f"file:{console}",
                   "-serial", f"file:{report}", "-kernel", directory / "vmlinuz", "-initrd", directory / self.initrd,
                   "-append", f"console=ttyS0 quiet panic=-1 {TICKS} tabique.test=nested"]
        for disk in self.disks:
            command += ["-drive", f"file={disk},format=raw,if=virtio,snapshot=on"]
        while True:
            ended = run_while_it_works(command, limit)
            if ended != STOOD_STILL or self.restarts == RESTARTS:
                break
            self.restarts += 1
        self.log = f"{ended}\n{console.read_text(errors='replace')}"
        self._parse(report.read_text(errors="replace").replace("\r", ""))

    def _parse(self, text):
        current = None
        for line in text.splitlines(keepends=True):
            begin = re.match(r"@@ begin \d\d-(\S+)$", line)
            end = re.match(r"@@ end \d\d-(\S+) (\d+) ([\d.]+) ([\d.]+)$", line)
            if begin:
                current = self.results.setdefault(begin.group(1), Result())
            elif end and end.group(1) in self.results:
                result = self.results[end.group(1)]
                result.status = int(end.group(2))
                result.seconds = float(end.group(4)) - float(end.group(3))
                current = None
            elif current:
                current.output += line


class Results:
    """Those of several hosts."""

    def __init__(self, hosts):
        self.hosts = hosts

    def result(self, name):
        """The job's result; fails, with its host's console, if it never ran."""
        host = next((host for host in self.hosts if name in host.jobs), None)
        assert host, f"no host has a job {name}"
        if name not in host.results:
            raise AssertionError(f"job {name} never started; the nested host's console:\n{host.log[-3000:]}")
        return host.results[name]

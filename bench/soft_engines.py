# SPDX-License-Identifier: GPL-2.0-or-later
"""Who does the work of bench/soft: our soft engine, QEMU's TCG, and the bare host; and how a session with one goes."""
import contextlib
import os
import re
import subprocess
import time

import full_debian
import guests
import soft_userland
import soft_works

BOOT_TIMEOUT = 180
LOGIN_NAME = f"bench-soft-{os.getpid()}"
MEMORY = full_debian.MEMORY
INITRD = "initrd-soft.gz"
READY = r"^@ready\n"
APPEND = "quiet tabique.test=start"
CLOCK_TOLERANCE = 0.05  # of the time, and in seconds


class Tabique:
    """Our soft engine."""
    name = "tabique"
    title = "tabique soft"

    def __init__(self, guest, disk):
        self.guest, self.disk = guest, disk

    def command(self, where):
        return [*guests.tabique_command("soft", self.guest, MEMORY, 2 if where == "two" else 1, APPEND),
                "--disk", f"{self.disk},readonly", "--net", "user"]

    def init_command(self):
        return [*guests.tabique_command("soft", self.guest, MEMORY), "--net", "none"]

    def login_command(self, _):
        return full_debian.tabique_command("soft", LOGIN_NAME)

    @staticmethod
    def end_login():
        """So that it is removed with its disk."""
        full_debian.tabique_verb("kill", LOGIN_NAME)


class Qemu:
    """Debian's QEMU, with TCG. `boot_machine` is the one that is fastest to /init without a device, `machine` the fastest
    of those on which Debian's kernel finds devices."""
    name = "qemu"
    title = "qemu tcg"
    machine = boot_machine = None

    def __init__(self, guest, disk):
        self.guest, self.disk = guest, disk

    def choose_machines(self):
        """By processor time, which tells after one boot even where others work too."""
        seconds = {}
        for machine in guests.QEMU_MACHINES:
            try:
                seconds[machine] = boot(guests.qemu_command(machine, self.guest, MEMORY))["cpu"]
            except guests.Failed:
                continue
        ranked = sorted(seconds, key=seconds.get)
        with_devices = [machine for machine in ranked if not machine.startswith("microvm")]
        if not with_devices:
            raise guests.Failed("QEMU boots this guest on none of its machines")
        self.boot_machine, self.machine = ranked[0], with_devices[0]

    def command(self, where):
        return [*guests.qemu_command(self.machine, self.guest, MEMORY, 2 if where == "two" else 1, APPEND),
                *full_debian.qemu_devices(self.disk, ",readonly=on")]

    def init_command(self):
        return guests.qemu_command(self.boot_machine, self.guest, MEMORY)

    def login_command(self, image):
        return full_debian.qemu_command(self.machine, image)

    @staticmethod
    def end_login():
        """Its disk's changes go with it."""


class Native:
    """This host, in a chroot of the same userland."""
    name = "native"
    title = "native"

    def __init__(self, tree):
        self.tree = tree

    def command(self, _):
        enter = f"mount --rbind /dev '{self.tree}/dev' && mount -t tmpfs tmpfs '{self.tree}/tmp' && " \
                f"exec chroot '{self.tree}' /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin /bench/driver /tmp/output"
        root = [] if os.geteuid() == 0 else ["--map-root-user"]
        return ["unshare", *root, "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter]


def fetch(suite):
    """The guest whose initial RAM disk enters the userland."""
    kernel, _ = guests.fetch(suite)
    subprocess.run([guests.TREE / "tools/fetch-guest", "--suite", suite, "--out", guests.GUESTS / suite, "--initrd", INITRD,
                    "--quiet", "--modules", "ext4", "--add", f"tests/start={soft_userland.SOURCES / 'start.sh'}"],
                   check=True, stdin=subprocess.DEVNULL)
    return kernel, guests.GUESTS / suite / INITRD


def boot(command):
    """Of the kernel to its /init: value, cpu."""
    with guests.Guest(command) as vm:
        _, when = vm.wait_for(guests.INIT_REACHED, BOOT_TIMEOUT)
        return {"value": when - vm.started, "cpu": vm.cpu_seconds()}


class Session:
    """One run of the driver: a boot, or natively a process. Use it in a with statement."""

    def __init__(self, engine, where, timeout):
        self.native = engine.name == "native"
        self.timeout = timeout
        self.vm = guests.Guest(engine.command(where))

    def start(self):
        self.vm.wait_for(READY, BOOT_TIMEOUT)

    def cpu(self):
        """Host seconds so far, of its processes and of what those have waited for."""
        total = 0.0
        for pid in guests.process_tree(self.vm.process.pid):
            with contextlib.suppress(OSError):  # it has just ended
                total += guests.process_cpu_seconds(pid, True)
        return total

    def _command(self, name, command, meanwhile=None):
        """(seconds by the host, seconds by the driver's clock, CPU seconds of the host, output)"""
        before = self.cpu()
        self.vm.send(f"{name} {command}")
        _, begun = self.vm.wait_for(rf"^@begin {name}\n", self.timeout)
        value = meanwhile() if meanwhile else None
        match, ended = self.vm.wait_for(rf"^@end {name} (-?\d+) (\d+)\n", self.timeout)
        cpu = self.cpu() - before
        said, _ = self.vm.wait_for(rf"^@done {name}\n", self.timeout)
        output = said.string[:said.start()]
        if match.group(1) != "0":
            raise WorkFailed(f"{name}: status {match.group(1)}: {output[-300:].strip()}")
        return ended - begun, int(match.group(2)) / 1e9, cpu, output, value

    def _transfer(self, work, size):
        peer = guests.TcpPeer(self.timeout)
        command = work.command.format(host="127.0.0.1" if self.native else "10.0.2.2", port=peer.port, size=size)
        try:
            return self._command(work.name, command, lambda: getattr(peer, work.transfer)(size))
        finally:
            peer.close()

    def measure(self, work, transfer_size):
        """A dictionary: value, cpu, clock (how much faster the driver's clock runs than ours), result."""
        if work.setup:
            self._command(f"{work.name}-setup", work.setup)
        if work.transfer:
            wall, own, cpu, output, value = self._transfer(work, transfer_size)
        else:
            wall, own, cpu, output, _ = self._command(work.name, work.command)
            value = wall
        if work.rate:
            found = re.search(work.rate, output)
            if not found:
                raise WorkFailed(f"{work.name}: no rate in: {output[-300:].strip()}")
            value = float(found.group(1)) * own / wall  # corrected by our clock
        result = soft_works.result_of(work, output)
        if work.check:
            result += soft_works.result_of(work, self._command(f"{work.name}-check", work.check)[3])
        lies = abs(own - wall) > CLOCK_TOLERANCE * (1 + wall)
        return {"value": value, "cpu": cpu, "wall": wall, "own": own, "clock_lies": lies, "result": result}

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.vm.end()


class WorkFailed(guests.Failed):
    """The work, not the engine: the guest can go on with others."""


def login(engine, image):
    """A boot of the full Debian: value, cpu."""
    with guests.Guest(engine.login_command(image)) as vm:
        try:
            _, when = vm.wait_for(full_debian.LOGIN, BOOT_TIMEOUT)
            return {"value": when - vm.started, "cpu": vm.cpu_seconds()}
        finally:
            engine.end_login()


def run_round(engine, works, timeout, transfer_size, note):
    """The works of one round on an engine: {name: measurement}, and {name: what went wrong}. After a hang or a crash the
    rest of the work goes on in a new session."""
    measured, failed = {}, {}
    for where in ("main", "two"):
        left = [w for w in works if w.where == where and (w.native or engine.name != "native")]
        while left:
            began = time.monotonic()
            with Session(engine, where, timeout) as session:
                try:
                    session.start()
                except guests.Failed as error:
                    failed.update({w.name: f"did not boot: {short(error)}" for w in left})
                    break
                while left:
                    work = left.pop(0)
                    try:
                        measured[work.name] = session.measure(work, transfer_size)
                    except WorkFailed as error:
                        failed[work.name] = str(error)
                    except (guests.Failed, OSError) as error:
                        failed[work.name] = f"{short(error)} (after {session.cpu():.0f} s of CPU)"
                        break
            note(f"{engine.title}: {where}, {time.monotonic() - began:.0f} s")
    return measured, failed


def run_boots(engine, names, image, note):
    """The boots of one round, as run_round."""
    measured, failed = {}, {}
    for name in names:
        try:
            measured[name] = boot(engine.init_command()) if name == "init" else login(engine, image)
            note(f"{engine.title}: {name}, {measured[name]['value']:.0f} s")
        except guests.Failed as error:
            failed[name] = short(error)
    return measured, failed


def short(error):
    """Without the monitor's long command line."""
    return re.sub(r"\s+", " ", str(error).partition(": ")[2] or str(error))[-400:]


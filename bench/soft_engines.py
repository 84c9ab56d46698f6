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
    """One run of the driver: a boot, or natively a process. `end` it."""

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

    def end(self):
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


class Sessions:
    """One session with each engine, all at once: so a work is done by all within seconds, while the host is as it is.
    After a hang or a crash an engine's work goes on in a new session. Use it in a with statement."""

    def __init__(self, engines, where, timeout):
        self.where, self.timeout = where, timeout
        self.engines = {engine.name: engine for engine in engines}
        self.running = {}
        self.lost = {}  # engine's name: why it has none any more

    def _of(self, name):
        if name not in self.running:
            session = Session(self.engines[name], self.where, self.timeout)
            try:
                session.start()
            except BaseException:
                session.end()
                raise
            self.running[name] = session
        return self.running[name]

    def _end(self, name):
        session = self.running.pop(name, None)
        if session:
            session.end()

    def measure(self, name, work, transfer_size):
        """As Session.measure, by the engine of that name. Raises WorkFailed."""
        if name in self.lost:
            raise WorkFailed(self.lost[name])
        try:
            session = self._of(name)
        except guests.Failed as error:
            self.lost[name] = f"did not boot: {short(error)}"
            raise WorkFailed(self.lost[name]) from error
        try:
            return session.measure(work, transfer_size)
        except WorkFailed:
            raise
        except (guests.Failed, OSError) as error:
            why = f"{short(error)} (after {session.cpu():.0f} s of CPU)"
            self._end(name)
            raise WorkFailed(why) from error

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for name in list(self.running):
            self._end(name)


def run_works(engines, works, timeout, transfer_size, note):
    """The works of one run: {engine's name: {work's name: measurement}}, and the same of what went wrong. Who begins
    changes from work to work."""
    measured, failed = {e.name: {} for e in engines}, {e.name: {} for e in engines}
    for where in ("main", "two"):
        mine = [w for w in works if w.where == where]
        began = time.monotonic()
        with Sessions(engines, where, timeout) as sessions:
            for number, work in enumerate(mine):
                first = number % len(engines)
                for engine in engines[first:] + engines[:first]:
                    if engine.name == "native" and not work.native:
                        continue
                    try:
                        measured[engine.name][work.name] = sessions.measure(engine.name, work, transfer_size)
                    except WorkFailed as error:
                        failed[engine.name][work.name] = str(error)
        if mine:
            note(f"{where}, {time.monotonic() - began:.0f} s")
    return measured, failed


def run_boots(engine, names, image, note):
    """The boots of one run: {name: measurement}, and {name: what went wrong}."""
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


# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGKILL of any process of the runtime, at any moment: `delete --force` takes all away, and the name can be used."""
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import time

KILLS = int(os.environ.get("TABIQUE_KILLS", "200"))


# With a container that runs, or for `start` one that waits.
LATER = {
    "start": ["start", "{name}"],
    "exec": ["exec", "{name}", "sleep", "1000"],
    "kill": ["kill", "--all", "{name}", "KILL"],
    "pause": ["pause", "{name}"],
    "update": ["update", "--pids-limit", "50", "{name}"],
    "delete": ["delete", "--force", "{name}"],
}


def groups_of(name):
    """Others' groups come and go meanwhile, which os.walk takes."""
    return [os.path.join(at, d) for at, below, _ in os.walk("/sys/fs/cgroup") for d in below if name in d]


def processes_of(marker):
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker in (entry / "cmdline").read_bytes() and (entry / "stat").read_text().split()[2] != "Z":
                    found.append(int(entry.name))
            except OSError:
                pass
    return found


def descendants(pid):
    found = []
    with contextlib.suppress(OSError):
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def end(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def longest(bundle, oci):
    """How long a create takes, in seconds."""
    start = time.monotonic()
    name = bundle.create("sleep", "1000")
    oci("delete", "--force", name)
    return time.monotonic() - start


def test_killed_at_any_moment(bundle, oci):
    bundle.process["args"] = ["sleep", "1000"]
    bundle.write()
    before = open("/proc/self/mountinfo").read()
    span = longest(bundle, oci)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    name = oci.new_id()
    marker = str(bundle.directory).encode()
    for round_number in range(KILLS):
        verb = rng.choice(["create", "run", *LATER])
        if verb in LATER:
            bundle.create(name=name)
            if verb != "start":
                oci("start", name)
            words = [word.format(name=name) for word in LATER[verb]]
        else:
            words = [verb, *(["--detach"] if verb == "run" else []), "--bundle", str(bundle.directory), name]
        process = subprocess.Popen([oci.program, "--root", str(oci.state), *words], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0, span if verb not in LATER else span / 2))
        # The command, or what it has forked; then the command, too.
        end(rng.choice([process.pid, *descendants(process.pid)]))
        time.sleep(rng.uniform(0, 0.01))
        end(process.pid)
        process.wait()
        began = time.monotonic()
        oci("delete", "--force", name)
        assert time.monotonic() - began < 10, (round_number, verb)
        assert list(oci.state.iterdir()) == [], (round_number, verb)
        assert groups_of(name) == [], (round_number, verb)
    deadline = time.monotonic() + 5
    while processes_of(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(marker) == []
    assert open("/proc/self/mountinfo").read() == before
    oci("run", "--detach", "--bundle", bundle.directory, name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert oci.status(name)["status"] == "running"


def test_the_first_process_is_killed_while_it_waits(bundle, oci):
    name = bundle.create("sleep", "1000")
    os.kill(oci.status(name)["pid"], signal.SIGKILL)
    time.sleep(0.1)
    assert oci.status(name)["status"] == "stopped"
    result = oci("start", name, check=False)
    assert result.returncode == 1 and "has stopped" in result.stderr
    oci("delete", name)
    assert groups_of(name) == []

# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests started and ended again and again, in an orderly way and by kills at random moments: what goes wrong once in
two hundred times no single test shows. Used by tools/soak-life and, for some rounds, by tests/cli/test_life_bad.py."""
import contextlib
import os
import pathlib
import random
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/cli"))
import life  # noqa: E402 pylint: disable=wrong-import-position

RUN = ["--net", "none", "--memory", "32M", "--debug-exit"]


def attempt(problems, what, step):
    """Runs a step; its failure is a problem, told with what it was."""
    try:
        step()
    except (AssertionError, OSError) as error:
        problems.append(f"{what}: {error}")


def cycle(home, rounds):
    """Starts and stops a guest in each way in turn. What was wrong, as texts."""
    problems = []
    for number in range(rounds):
        def once(number=number):
            home.start_with_button("web")
            home.do(*(["stop", "web"] if number % 2 else ["kill", "web"]))
            home.do("start", "web")
            home.do("restart", "--timeout", "30s", "web")
            home.do("rm", "-f", "web")
            home.expect_nothing_left()
        attempt(problems, f"round {number}", once)
    return problems


def kill_at_random(home, rounds, seed):
    """Kills a process of a guest, or the command that works on it, at a random moment; then `ps` must tell the truth and
    the next try must work. What was wrong, as texts."""
    chance, problems = random.Random(seed), []
    for number in range(rounds):
        victim = chance.choice(["command", "supervisor", "vm", "all"])
        verb = chance.choice(["run", "run", "start", "stop", "rm", "foreground"])
        delay = chance.uniform(0, 0.12)
        attempt(problems, f"round {number} (seed {seed}): {victim} of {verb} killed after {delay:.4f} s",
                lambda verb=verb, victim=victim, delay=delay: kill_once(home, verb, victim, delay))
    return problems


def begin(home, verb):
    """The command that is to be disturbed."""
    if verb in ("run", "foreground"):
        return home.popen("run", *["-d"] * (verb == "run"), *RUN, "--name", "web", "--kernel", life.ECHO)
    home.start_with_button("web")
    if verb == "start":
        home.do("kill", "web")
    return home.popen(verb, *["-f"] * (verb == "rm"), "web")


def kill_some(home, command, victim):
    """Kills the processes that are meant, as far as there are any."""
    for process in home.processes():
        with contextlib.suppress(OSError):
            name = pathlib.Path(f"/proc/{process}/comm").read_text(encoding="ascii").strip()
            kind = "command" if process == command.pid else "vm" if name == "tabique-vm" else "supervisor"
            if victim in (kind, "all"):
                os.kill(process, signal.SIGKILL)


def truth(home):
    """The guest's state as `ps` has it must be what the kernel says. Asked until it stands still: a start may be on, or
    a supervisor about to learn of its VM's end."""
    deadline, seen = time.monotonic() + life.LIMIT, []
    while True:
        state, locked = home.states().get("web"), home.is_locked("web")
        sound = (state in ("starting", "running", "paused", "restarting")) == locked and state != "starting"
        seen = [*seen, state] if sound and seen[-1:] in ([], [state]) else []
        if len(seen) == 4:
            return state
        assert time.monotonic() < deadline, f"ps says {state}, the lock is {'held' if locked else 'free'}"
        time.sleep(0.05)


def kill_once(home, verb, victim, delay):
    command = begin(home, verb)
    time.sleep(delay)
    kill_some(home, command, victim)
    if verb == "foreground":
        command.kill()
    command.communicate(timeout=life.LIMIT)
    state = truth(home)
    # Whatever was left, it is no obstacle.
    if state and state != "running":
        home.do("start", "web")
    elif not state:
        home.start("web")
    found = truth(home)
    assert found == "running", f"started, it is {found}"
    home.do("rm", "-f", "web")
    home.expect_nothing_left()

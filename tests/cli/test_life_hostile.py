# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that make their supervisor busy, VM processes and supervisors that hang, other people's eyes and hands."""
import contextlib
import json
import os
import signal
import socket
import sys
import time

import pytest

import program
from life import ECHO, LIMIT, Home, wait_until

sys.path.insert(0, str(program.TREE / "tests/guest"))
import flat_image  # noqa: E402 pylint: disable=wrong-import-position

pytestmark = pytest.mark.skipif("soft" not in program.engines(), reason="this host can't run the engine soft")

RESET = bytes.fromhex("baf90c b006 ee f4")  # out 0xcf9, 6; hlt


@pytest.fixture
def home(tmp_path):
    made = Home(tmp_path / "home")
    yield made
    made.clear()


@contextlib.contextmanager
def connected(home, name):
    """The guest's control socket; a path as long as this one's may fit no address."""
    here = os.getcwd()
    os.chdir(home.path / "run" / name)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LIMIT)
            connection.connect("control.sock")
            os.chdir(here)
            yield connection
    finally:
        os.chdir(here)


def test_the_last_word_on_a_pause_holds(home):
    """Who asks before the first was answered is heard in turn, and both get their answers."""
    home.start("web")
    with connected(home, "web") as connection, connection.makefile("r", encoding="ascii") as answers:
        for verbs, state in ((("pause", "resume"), "running"), (("pause", "resume", "resume", "pause"), "paused"),
                             (("resume", "pause", "resume"), "running")) * 10:
            connection.sendall("".join(f'{{"request":"{verb}"}}\n' for verb in verbs).encode())
            for verb in verbs:
                assert json.loads(answers.readline()) == {"ok": True}, verb
            connection.sendall(b'{"request":"status"}\n')
            assert json.loads(answers.readline())["state"] == state, verbs
    home.do("kill", "web")


def test_a_guest_that_resets_for_ever(home, tmp_path):
    """Fills neither the list of events, which is all guests', nor the time of those who write to it."""
    image = tmp_path / "rom"
    image.write_bytes(flat_image.assemble(RESET))
    began = time.monotonic()
    home.do("run", "-d", "--net", "none", "--memory", "16M", "--name", "mad", "--firmware", image)

    def resets():
        """Between two resets its process may take longer to answer than who asks waits."""
        stats = home.run("stats", "--json", "mad")
        return json.loads(stats.stdout)["resets"] if stats.returncode == 0 else 0

    wait_until(lambda: resets() > 200, "it resets")
    events = home.events("mad").count("reset")
    assert events <= 21 + time.monotonic() - began
    time.sleep(1.1)
    details = [json.loads(line) for line in home.do("events").splitlines()]
    assert sum(event.get("left-out", 0) for event in details) > 100, "what is missing is told"
    home.do("rm", "-f", "mad")


def test_vm_process_that_hangs(home):
    """Who asks is told, and those who ask and go leave no connection behind: the supervisor has 128 of them."""
    home.start("web")
    vm = home.inspect("web")["vm"]
    os.kill(vm, signal.SIGSTOP)
    said = home.fail("stats", "web")
    assert said == "tabique stats: guest 'web': the guest's process does not answer; 'tabique kill' ends it\n"
    for _ in range(4):
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(connected(home, "web")) for _ in range(60)]
            for connection in connections:
                connection.sendall(b'{"request":"stats"}\n')
        time.sleep(9)  # longer than the supervisor waits
    os.kill(vm, signal.SIGCONT)
    assert json.loads(home.do("stats", "--json", "web"))["name"] == "web"
    home.do("kill", "web")
    home.do("rm", "web")


def test_supervisor_that_hangs_with_all_its_queue_full(home):
    home.start("web")
    os.kill(home.inspect("web")["supervisor"], signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        for _ in range(65):
            stack.enter_context(connected(home, "web"))
        assert "does not answer" in home.fail("pause", "web")
        home.do("kill", "web")
    home.expect_nothing_left("web")


def test_the_shorter_patience_counts(home):
    home.start("deaf")
    child = home.popen("stop", "--timeout", "2s", "deaf")
    wait_until(lambda: "stopping" in home.events("deaf"), "it is asked")
    longer = home.popen("stop", "--timeout", "1h", "deaf")
    began = time.monotonic()
    assert child.wait(LIMIT) == 0 and longer.wait(LIMIT) == 0
    assert time.monotonic() - began < 30
    for process in (child, longer):
        process.communicate()


def test_restart_removes_nothing(home):
    home.start("once", "--rm")
    assert "guest 'once' is removed when it ends (--rm), so it can't be restarted" in home.fail("restart", "once")
    assert home.states() == {"once": "running"}
    home.do("kill", "once")
    assert home.states() == {}


def test_others_on_the_host(home):
    """See nothing, whatever the umask is; and where they could put something in the way, nothing is done."""
    home.path.mkdir()
    home.path.chmod(0o755)
    before = os.umask(0)
    try:
        home.start("web")
        home.do("kill", "web")
    finally:
        os.umask(before)
    modes = {p.name: p.stat().st_mode & 0o777 for p in home.path.iterdir()}
    assert modes.pop("guests") == 0o700 and modes.pop("run") == 0o700
    assert {"tabique.db", "tabique.db-wal"} <= set(modes) and set(modes.values()) == {0o600}
    home.path.chmod(0o777)
    said = home.fail("run", "-d", "--net", "none", "--kernel", ECHO)
    assert f"{home.path} may be written by everybody: 'chmod o-w' it, or choose another" in said

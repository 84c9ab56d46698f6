# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes wrong in a guest's life: processes killed at any moment, two commands at once, a state directory that is
full, read-only or damaged. `ps` must tell the truth, and the next try must work."""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

import program
from life import ECHO, LIMIT, Home, wait_until
from program import TABIQUE

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "tools"))
import life_soak  # noqa: E402 pylint: disable=wrong-import-position

pytestmark = pytest.mark.skipif("soft" not in program.engines(), reason="this host can't run the engine soft")

RUN = ["run", "-d", "--net", "none", "--memory", "32M", "--debug-exit", "--kernel", ECHO]


@pytest.fixture
def home(tmp_path):
    made = Home(tmp_path / "home")
    yield made
    made.clear()


def test_killed_supervisor(home):
    home.start("web")
    about = home.inspect("web")
    os.kill(about["supervisor"], signal.SIGKILL)
    wait_until(lambda: not home.is_locked("web"), "the VM dies with its supervisor")
    assert home.states() == {"web": "crashed"}
    assert "supervisor was killed" in home.inspect("web")["reason"]
    assert home.events("web") == ["created", "started", "crashed"]
    assert "is not running" in home.fail("console", "web")
    home.expect_nothing_left("web")
    home.do("start", "web")
    assert home.states() == {"web": "running"}
    # One that was to be removed at its end is, whoever finds it.
    home.start("once", "--rm")
    os.kill(home.inspect("once")["supervisor"], signal.SIGKILL)
    wait_until(lambda: "once" not in home.states(), "it is gone")
    home.do("rm", "-f", "web")
    home.expect_nothing_left()


def test_killed_supervisor_of_a_guest_of_an_image(home, tmp_path):
    """Who finds it gone takes its hold of the image away too: the content, if it has lost its name meanwhile."""
    def bring(content):
        disk = tmp_path / "disk"
        disk.write_bytes(content.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
        assert home.run("image", "import", disk, "--name", "x").returncode == 0
        return json.loads(home.do("image", "inspect", "x"))["id"]

    def contents():
        return [p.name for p in (home.path / "images/content").iterdir()]

    first = bring(b"first")
    home.start("once", "--rm", "x")
    second = bring(b"second")
    assert set(contents()) == {first, second}
    os.kill(home.inspect("once")["supervisor"], signal.SIGKILL)
    wait_until(lambda: "once" not in home.states(), "it is gone")
    assert contents() == [second]
    # A namesake holds nothing of what it held.
    home.start("once", "--rm", "x")
    os.kill(home.inspect("once")["supervisor"], signal.SIGKILL)
    wait_until(lambda: "once" not in home.states(), "it is gone")
    home.start("once")
    assert json.loads(home.do("image", "inspect", "x"))["guests"] == []
    home.do("image", "rm", "x")
    assert contents() == []


def test_killed_vm_process(home):
    home.start("web")
    os.kill(home.inspect("web")["vm"], signal.SIGKILL)
    wait_until(lambda: home.states() == {"web": "crashed"}, "it is found out")
    about = home.inspect("web")
    assert about["exit-status"] == 137 and "ended by signal 9" in about["reason"]
    home.expect_nothing_left("web")
    home.do("start", "web")
    home.do("kill", "web")
    home.start("again", "--restart", "on-failure")
    os.kill(home.inspect("again")["vm"], signal.SIGKILL)
    wait_until(lambda: home.log("again").count("ready") == 2, "its policy starts it again")
    assert home.states()["again"] == "running"
    home.do("rm", "-f", "again", "web")
    home.expect_nothing_left()


def test_killed_foreground(home):
    for name, left in (([], []), (["--name", "web"], ["web"])):
        child = home.popen("run", "--net", "none", "--memory", "32M", *name, "--kernel", ECHO)
        assert "ready" in child.stdout.readline()
        child.kill()
        child.communicate()
        wait_until(lambda: not home.processes(), "all of it dies")
        assert home.states() == {guest: "crashed" for guest in left}
        home.expect_nothing_left(*left)


def test_supervisor_that_hangs(home):
    home.start("web")
    supervisor = home.inspect("web")["supervisor"]
    os.kill(supervisor, signal.SIGSTOP)
    assert home.states() == {"web": "running"}
    home.do("kill", "web")
    assert home.states() == {"web": "crashed"}
    home.expect_nothing_left("web")


def test_end_of_the_host(home):
    """A supervisor in the background that is asked to end by a signal has its guest switch off."""
    home.start_with_button("web")
    os.kill(home.inspect("web")["supervisor"], signal.SIGTERM)
    wait_until(lambda: home.states() == {"web": "stopped"}, "it switches off")
    assert home.inspect("web")["exit-status"] == 0
    home.expect_nothing_left("web")


def test_kills_at_random_moments(home):
    problems = life_soak.kill_at_random(home, rounds=20, seed=1)
    assert problems == []


def test_cycles(home):
    assert life_soak.cycle(home, rounds=5) == []


def test_stale_socket(home):
    home.start("web")
    home.do("kill", "web")
    run = home.path / "run/web"
    run.mkdir()
    # A path as long as this one's fits no socket address.
    here = os.getcwd()
    os.chdir(run)
    try:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind("control.sock")
    finally:
        os.chdir(here)
    assert "is not running" in home.fail("console", "web")
    home.do("start", "web")
    assert home.states() == {"web": "running"}
    home.do("rm", "-f", "web")
    home.expect_nothing_left()


def test_what_killed_commands_left_is_cleared_away(home):
    home.start("web")
    home.do("kill", "web")
    for left, file in (("guests/orphan", "lock"), ("guests/.removed-web-1-0", "disk.qcow2"), ("run/orphan", "control.sock")):
        (home.path / left).mkdir()
        (home.path / left / file).write_text("x")
    home.start("new")
    assert sorted(p.name for p in (home.path / "guests").iterdir()) == ["new", "web"]
    assert [p.name for p in (home.path / "run").iterdir()] == ["new"]
    # A guest whose directory is gone can't run, but be removed.
    shutil.rmtree(home.path / "guests/web")
    assert "its directory is gone" in home.fail("start", "web")
    home.do("rm", "-f", "web", "new")
    home.expect_nothing_left()


def at_once(home, *commands):
    """Runs commands at the same time; their exit statuses."""
    children = [home.popen(*command) for command in commands]
    results = [(child.communicate(timeout=LIMIT), child.returncode) for child in children]
    for (_, err), status in results:
        assert status in (0, 1) and err.count("\n") == (status == 1), err
    return [status for _, status in results]


def test_two_of_a_name(home):
    assert sorted(at_once(home, *[[*RUN, "--name", "web"]] * 6)) == [0] + [1] * 5
    assert home.states() == {"web": "running"}
    home.do("rm", "-f", "web")
    home.expect_nothing_left()


def test_two_starts(home):
    home.start("web")
    for _ in range(5):
        home.do("kill", "web")
        assert sorted(at_once(home, *[["start", "web"]] * 4)) == [0, 1, 1, 1]
        assert home.states() == {"web": "running"}
    home.do("rm", "-f", "web")
    home.expect_nothing_left()


@pytest.mark.parametrize("first, second", [("start", "rm"), ("stop", "rm"), ("kill", "start"), ("restart", "rm"),
                                           ("rm", "rm"), ("kill", "kill")])
def test_two_different_commands(home, first, second):
    """In whatever order they come: each does its work or says why not, and what is there then is sound."""
    for attempt in range(5):
        home.start("web")
        if first == "start":
            home.do("kill", "web")
        timeout = ["--timeout", "0.1"] if first in ("stop", "restart") else []
        at_once(home, [first, *timeout, "web"], [second, "web"])
        states = home.states()
        assert states in ({}, {"web": "running"}, {"web": "stopped"}), (attempt, states)
        assert home.is_locked("web") == (states == {"web": "running"})
        if states:
            home.do("rm", "-f", "web")
        home.expect_nothing_left()


def test_twenty_guests(home):
    names = [f"guest-{n}" for n in range(20)]
    statuses = at_once(home, *[[*RUN, "--name", name] for name in names])
    assert statuses == [0] * 20
    assert home.states() == {name: "running" for name in names}
    assert all(home.is_locked(name) for name in names)
    home.do("kill", *names)
    assert set(home.states().values()) == {"stopped"}
    home.expect_nothing_left(*names)
    home.do("rm", *names)
    home.expect_nothing_left()


def test_damaged_database(home):
    home.start("web")
    home.do("kill", "web")
    for file in home.path.glob("tabique.db*"):
        file.write_bytes(b"nonsense" * 1000 if file.suffix == ".db" else b"")
    for command in (["ps"], ["inspect", "web"], [*RUN, "--name", "web"], ["start", "web"], ["rm", "web"], ["events"]):
        said = home.fail(*command)
        assert "tabique.db' is damaged" in said and "move it away" in said
    for file in home.path.glob("tabique.db*"):
        file.unlink()
    # What such a guest had stays, and is in nobody's way but its own.
    assert home.states() == {}
    home.start("new")
    assert "of a guest that the registry does not know: move it away" in home.fail(*RUN, "--name", "web")
    assert home.log("web") == "ready\n"
    shutil.rmtree(home.path / "guests/web")
    home.start("web")
    home.do("rm", "-f", "web", "new")
    home.expect_nothing_left()


def test_database_of_another_version(home):
    sqlite3 = pytest.importorskip("sqlite3")
    home.start("web")
    home.do("kill", "web")
    with sqlite3.connect(home.path / "tabique.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    for command in (["ps"], [*RUN, "--name", "new"], ["start", "web"]):
        assert "was written by a newer Tabique" in home.fail(*command)


def in_namespace(home, setup, *commands):
    """Runs shell commands where `setup` has mounted something that nobody else sees."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("mounting takes root, and the program unshare")
    script = "set -e; " + setup + "; set +e; " + "; ".join(commands)
    result = subprocess.run(["unshare", "--mount", "sh", "-c", script], env=dict(home.environment, TABIQUE=TABIQUE,
                            ECHO=str(ECHO), HOME_PATH=str(home.path)), capture_output=True, text=True, timeout=2 * LIMIT,
                            check=False)
    if "mount:" in result.stderr or "unshare:" in result.stderr:
        pytest.skip(f"nothing can be mounted here: {result.stderr.splitlines()[0]}")
    return result


def test_read_only_state_directory(home):
    home.start("web")
    home.do("kill", "web")
    result = in_namespace(
        home, 'mount --bind "$HOME_PATH" "$HOME_PATH"; mount -o remount,ro,bind "$HOME_PATH"',
        '"$TABIQUE" ps -a --json >&2; echo "ps $?"', '"$TABIQUE" logs web; echo "logs $?"',
        '"$TABIQUE" run -d --kernel "$ECHO"; echo "run $?"', '"$TABIQUE" start web; echo "start $?"',
        '"$TABIQUE" rm web; echo "rm $?"')
    lines = result.stdout.replace("\r", "").splitlines()
    assert lines == ["ps 0", "ready", "logs 0", "run 1", "start 1", "rm 1"]
    rows, _, said = result.stderr.partition("]\n")
    assert json.loads(rows + "]")[0]["state"] == "stopped"
    assert said.count("\n") == 3 and "Read-only file system" in said
    assert home.states() == {"web": "stopped"}


def test_read_only_before_anything_is_there(home):
    home.path.mkdir()
    result = in_namespace(home, 'mount --bind "$HOME_PATH" "$HOME_PATH"; mount -o remount,ro,bind "$HOME_PATH"',
                          '"$TABIQUE" ps -q; echo "ps $?"', '"$TABIQUE" run --kernel "$ECHO"; echo "run $?"')
    assert result.stdout == "ps 0\nrun 1\n"
    assert "Read-only file system" in result.stderr and "TABIQUE_HOME" in result.stderr


def test_full_disk(home):
    """A guest that runs goes on; what needs room says so; with room again, all is well."""
    home.path.mkdir()
    result = in_namespace(
        home, 'mount -t tmpfs -o size=512k,mode=700 none "$HOME_PATH"',
        '"$TABIQUE" run -d --name web --net none --memory 32M --debug-exit --kernel "$ECHO"; echo "run $?"',
        'dd if=/dev/zero of="$HOME_PATH/fill" bs=4k 2>/dev/null; sync',
        '"$TABIQUE" run -d --name more --net none --memory 32M --kernel "$ECHO"; echo "more $?"',
        '"$TABIQUE" ps -q; printf f | timeout 5 "$TABIQUE" console web | grep -c "line 19999"',
        '"$TABIQUE" kill web; echo "kill $?"', '"$TABIQUE" ps -q; echo "ps $?"',
        'rm "$HOME_PATH/fill"; "$TABIQUE" ps -aq; "$TABIQUE" start web; echo "start $?"',
        '"$TABIQUE" rm -f web; echo "rm $?"; ls "$HOME_PATH/guests" "$HOME_PATH/run"')
    lines = result.stdout.splitlines()
    assert lines == ["web", "run 0", "more 1", "web", "1", "kill 0", "ps 0", "web", "start 0", "rm 0",
                     f"{home.path}/guests:", "", f"{home.path}/run:"], (lines, result.stderr)
    assert result.stderr.count("\n") == 1 and "No space left" in result.stderr.replace("no space", "No space")


def test_a_name_too_long_for_a_socket(home):
    deep = Home(home.path / ("x" * 100) / ("y" * 100))
    try:
        deep.start("web")
        assert deep.states() == {"web": "running"}
        assert len(str(deep.path)) > 200
        deep.do("rm", "-f", "web")
        deep.expect_nothing_left()
    finally:
        deep.clear()


def test_completion_of_names(home):
    """Of those that the verb can do something with."""
    home.start("web")
    home.start("worker")
    home.do("kill", "worker")
    script = home.do("generate", "bash-completion") + """
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tabique; printf '%s\\n' "${COMPREPLY[@]}"
    """
    for words, expected in ((["stop", "w"], ["web"]), (["rm", "w"], ["web", "worker"]), (["rm", "-"], ["--force", "--help"]),
                            (["start", "wo"], ["worker"])):
        result = subprocess.run(["bash", "-c", script, "bash", TABIQUE, *words], env=home.environment, capture_output=True,
                                text=True, check=True)
        assert (sorted(result.stdout.split()), result.stderr) == (expected, "")


def test_speed(home):
    """Generous, for a busy host: ps of twenty guests, and a start."""
    for n in range(20):
        home.run(*RUN[:1], *RUN[2:], "--name", f"guest-{n}", "--append", "exit")
    times = []
    for _ in range(10):
        started = time.monotonic()
        home.do("ps", "-a")
        times.append(time.monotonic() - started)
    assert min(times) < 0.2
    home.expect_nothing_left(*[f"guest-{n}" for n in range(20)])

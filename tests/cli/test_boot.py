# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that start with the host: `start --all`, `stop --all`, and the systemd units, whose commands are run as they are."""
import os
import shlex
import signal
import sqlite3

import pytest

import program
from life import ECHO, Home, wait_until

pytestmark = pytest.mark.skipif("soft" not in program.engines(), reason="this host can't run the engine soft")

POLICIES = ("no", "on-failure", "always", "unless-stopped")


@pytest.fixture
def home(tmp_path):
    made = Home(tmp_path / "home")
    yield made
    made.clear()


@pytest.fixture
def guests(home):
    """One for each policy, named after it."""
    for policy in POLICIES:
        home.start(policy, "--restart", policy)
    return home


def running(home):
    return {name for name, state in home.states().items() if state == "running"}


def end_of_the_host(home):
    """As when its power fails."""
    for name in running(home):
        os.kill(home.inspect(name)["supervisor"], signal.SIGKILL)
    wait_until(lambda: not home.processes(), "all ends")


def test_after_a_power_failure(guests):
    end_of_the_host(guests)
    assert set(guests.states().values()) == {"crashed"}
    assert guests.do("start", "--all") == ""
    assert running(guests) == {"always", "unless-stopped"}
    assert guests.do("start", "--all") == "", "those that run are left alone"
    assert guests.events("always").count("started") == 2


@pytest.mark.parametrize("how", ["stop", "kill", "hung"])
def test_stopped_by_hand(guests, how):
    """Counts for unless-stopped alone, and until it is started again."""
    if how == "hung":
        os.kill(guests.inspect("unless-stopped")["supervisor"], signal.SIGSTOP)
    for name in POLICIES[2:]:
        guests.do("kill" if how == "hung" else how, *(["--timeout", "0"] if how == "stop" else []), name)
    end_of_the_host(guests)
    guests.do("start", "--all")
    assert running(guests) == {"always"}
    guests.do("start", "unless-stopped")
    end_of_the_host(guests)
    guests.do("start", "--all")
    assert running(guests) == {"always", "unless-stopped"}


def test_stop_all(guests):
    guests.do("stop", "--all", "--timeout", "0")
    assert set(guests.states().values()) == {"stopped"}
    guests.do("stop", "--all")
    guests.do("start", "--all")
    assert running(guests) == {"always"}


def test_a_signal_is_no_hand(home):
    """Nor does it reach the VM process of a service that is ended as a whole: its guest switches off in order."""
    home.start_with_button("web", "--restart", "unless-stopped")
    about = home.inspect("web")
    for process in home.processes():  # as systemd does, in any order
        if process != about["supervisor"]:
            os.kill(process, signal.SIGTERM)
    os.kill(about["supervisor"], signal.SIGTERM)
    wait_until(lambda: home.states() == {"web": "stopped"}, "it switches off")
    about = home.inspect("web")
    assert (about["exit-status"], about["reason"]) == (0, "power-off")
    home.do("start", "--all")
    assert running(home) == {"web"}


def test_one_that_can_not_be_started(home, tmp_path):
    """Keeps no other from it, and is told of."""
    kernel = tmp_path / "kernel"
    kernel.write_bytes(ECHO.read_bytes())
    home.start("a-broken", "--restart", "always", kernel=kernel)
    home.start("web", "--restart", "always")
    end_of_the_host(home)
    kernel.unlink()
    said = home.fail("start", "--all")
    assert said == f"tabique start: guest 'a-broken': kernel '{kernel}': No such file or directory\n"
    assert running(home) == {"web"}


def test_nothing_to_start(home):
    assert home.do("start", "--all") == "" and home.do("stop", "--all", "--shutdown") == ""
    assert not home.path.exists()


@pytest.mark.parametrize("words, why", [
    (["start"], "NAME is missing; or give --all"), (["start", "--all", "web"], "--all takes no NAME"),
    (["start", "--all", "--attach"], "no --attach"), (["stop"], "NAME is missing; or give --all"),
    (["stop", "--all", "web"], "--all takes no NAME")], ids=" ".join)
def test_wrong_words(home, words, why):
    result = home.run(*words)
    assert result.returncode == 2 and why in result.stderr


@pytest.mark.parametrize("manager, target", [("system", "multi-user.target"), ("user", "default.target")])
def test_units(guests, manager, target):
    """What systemd would do with them."""
    unit = {}
    for line in (program.BUILD / f"tabique-guests-{manager}.service").read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            key, value = line.split("=", 1)
            unit[key] = value
    assert (unit["WantedBy"], unit["Type"], unit["RemainAfterExit"]) == (target, "oneshot", "yes")

    def execute(key):
        path, *words = shlex.split(unit[key].removeprefix("-"))
        assert path.endswith("/bin/tabique")
        guests.do(*words)

    guests.do("kill", "unless-stopped")
    guests.do("start", "unless-stopped")
    end_of_the_host(guests)
    execute("ExecStart")
    assert running(guests) == {"always", "unless-stopped"}
    # These hear no power button; the patience of the unit is not ours.
    unit["ExecStop"] = unit["ExecStop"].replace("--timeout 60s", "--timeout 1s")
    execute("ExecStop")
    assert not running(guests)
    execute("ExecStart")
    assert running(guests) == {"always", "unless-stopped"}
    assert unit["ExecStart"].startswith("-"), "a guest that can't be started would end all others with the unit"


def test_state_of_an_older_version(home):
    """Is renewed by the first that looks."""
    home.start("web", "--restart", "unless-stopped")
    end_of_the_host(home)
    with sqlite3.connect(home.path / "tabique.db") as database:
        database.execute("ALTER TABLE guests DROP COLUMN by_hand")
        for table in ("layers", "snapshots", "snapshot_layers"):
            database.execute(f"DROP TABLE {table}")
        database.execute("PRAGMA user_version = 1")
    database.close()
    assert set(home.states()) == {"web"}
    home.do("start", "--all")
    assert running(home) == {"web"}

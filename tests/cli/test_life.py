# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of a guest, as a person leads it: in the background and in the foreground, stopped, started, looked at."""
import json
import re
import signal
import subprocess
import time

import pytest

import program
from life import ECHO, LIMIT, POWER, Home, wait_until
from program import TABIQUE, Terminal

pytestmark = pytest.mark.skipif("soft" not in program.engines(), reason="this host can't run the engine soft")

PASSED = (0x10 << 1) | 1


@pytest.fixture
def home(tmp_path):
    made = Home(tmp_path / "home")
    yield made
    made.clear()


def test_nothing_yet(home):
    assert home.do("ps", "-a").splitlines() == ["NAME  STATE  BOOTS  ENGINE  CPUS  MEMORY"]
    assert json.loads(home.do("ps", "--json")) == []
    assert home.do("events") == ""
    assert home.do("stats", "--json") == ""
    assert not home.path.exists(), "to ask makes nothing"
    assert "no guest 'web': there is none at all" in home.fail("inspect", "web")


def test_from_start_to_removal(home):
    home.start_with_button("web", "--cpus", "2")
    assert home.do("ps", "--quiet") == "web\n"
    line = home.do("ps").splitlines()[1]
    assert line.startswith("web ") and " running " in line and line.endswith(" 2     32M") and "power.pvh.elf" in line
    about = home.inspect("web")
    assert about["config"]["kernel"] == str(POWER) and about["config"]["memory"] == 32 << 20
    assert {about["supervisor"], about["vm"]} <= home.processes()
    assert home.is_locked("web")

    home.do("stop", "web")
    about = home.inspect("web")
    assert (about["state"], about["exit-status"], about["supervisor"], about["vm"]) == ("stopped", 0, None, None)
    home.expect_nothing_left("web")
    assert home.do("ps", "-q") == "" and home.do("ps", "-aq") == "web\n"
    home.do("stop", "web")  # it is what it was to be

    assert home.do("start", "web") == ""
    wait_until(lambda: home.log("web").count("waits") == 2, "the second run")
    assert home.states() == {"web": "running"}
    home.do("restart", "web")
    wait_until(lambda: home.log("web").count("waits") == 3, "the third run")
    home.do("stop", "web")
    home.do("rm", "web")
    assert home.states() == {}
    home.expect_nothing_left()
    assert home.events("web") == ["created"] + ["started", "stopping", "ended"] * 3 + ["removed"]


def test_detached_run_lets_the_shell_go_on(home):
    """Whatever the shell has open."""
    script = f'name=$("{TABIQUE}" run -d --net none --memory 32M --kernel "{ECHO}" 9>&1) && echo "it is $name"'
    result = subprocess.run(["sh", "-c", script], env=home.environment, capture_output=True, text=True, timeout=LIMIT,
                            check=True)
    name = result.stdout.removeprefix("it is ").strip()
    assert home.states() == {name: "running"} and result.stderr == ""
    assert home.do("kill", name) == ""
    home.expect_nothing_left(name)


def test_a_guest_that_ignores_the_power_button(home):
    home.start("deaf")
    started = time.monotonic()
    home.do("stop", "--timeout", "1s", "deaf")
    assert time.monotonic() - started >= 1
    about = home.inspect("deaf")
    assert (about["state"], about["exit-status"], about["reason"]) == ("stopped", 128 + signal.SIGKILL, "killed")
    home.expect_nothing_left("deaf")


def test_kill(home):
    for name in ("one", "two"):
        home.start(name)
    home.do("kill", "one", "two")
    assert home.states() == {"one": "stopped", "two": "stopped"}
    home.expect_nothing_left("one", "two")
    assert "guest 'one' is not running" in home.fail("kill", "one")
    home.start("three")
    result = home.run("kill", "four", "three", "one")
    assert result.returncode == 1
    assert "no guest 'four'" in result.stderr and "'one' is not running" in result.stderr
    assert home.states()["three"] == "stopped", "one that is wrong does not keep the others from it"


def test_names(home):
    home.start("web")
    for state in ("runs", "does not run"):
        said = home.fail("run", "-d", "--name", "web", "--kernel", ECHO)
        assert f"a guest 'web' is there already, and {state}" in said
        home.do("kill" if state == "runs" else "rm", "web")
    assert "no guest 'web'" in home.fail("start", "web")
    home.start("database")
    for verb in ("start", "stop", "kill", "restart", "rm", "console", "logs", "inspect", "stats", "pause", "resume"):
        assert "no guest 'databse': did you mean 'database'?" in home.fail(verb, "databse")
    home.do("rm", "-f", "database")
    home.expect_nothing_left()


def test_remove(home):
    home.start("web")
    assert "not removed (stop it first, or use --force): guest 'web' is running" in home.fail("rm", "web")
    assert home.states() == {"web": "running"}
    home.do("rm", "--force", "web")
    home.expect_nothing_left()
    home.do("run", "-d", "--rm", "--name", "once", "--net", "none", "--memory", "32M", "--debug-exit", "--kernel", ECHO,
            "--append", "exit")
    wait_until(lambda: not home.states(), "it is removed at its end")
    home.expect_nothing_left()
    home.start("again", "--rm")
    home.do("rm", "-f", "again")
    home.expect_nothing_left()


def test_what_can_not_be_started(home):
    """It leaves nothing, and so the next try has its name."""
    missing = home.path.parent / "kernel"
    for flags in (["-d"], []):
        said = home.fail("run", *flags, "--name", "web", "--net", "none", "--kernel", missing)
        assert f"kernel '{missing}': No such file or directory" in said
        home.expect_nothing_left()
    kernel = home.path.parent / "kernel"
    kernel.write_bytes(ECHO.read_bytes())
    home.start("web", kernel=kernel)
    home.do("kill", "web")
    kernel.unlink()
    assert "No such file or directory" in home.fail("start", "web")
    assert home.states() == {"web": "failed"}
    home.expect_nothing_left("web")


def test_relative_paths_are_those_of_the_first_run(home, tmp_path):
    (tmp_path / "kernel").write_bytes(ECHO.read_bytes())
    home.do("run", "-d", "--name", "web", "--net", "none", "--memory", "32M", "--kernel", "kernel", cwd=tmp_path)
    home.do("kill", "web")
    home.do("start", "web", cwd="/")
    home.do("rm", "-f", "web")


def test_foreground(home):
    """Without a name a kernel is tried and forgotten; with one the guest stays."""
    command = ["run", "--net", "none", "--memory", "32M", "--debug-exit", "--kernel", ECHO, "--append", "exit"]
    result = home.run(*command)
    assert (result.returncode, result.stderr) == (PASSED, "") and "ready" in result.stdout
    home.expect_nothing_left()
    result = home.run(*command, "--name", "web")
    assert result.returncode == PASSED
    about = home.inspect("web")
    assert (about["state"], about["exit-status"], about["reason"]) == ("stopped", PASSED, "debug-exit")
    home.expect_nothing_left("web")
    assert home.log("web") == result.stdout.replace("\r", "")


def test_foreground_guest_is_one_like_others(home, monkeypatch):
    monkeypatch.setenv("TABIQUE_HOME", str(home.path))
    with Terminal("run", "--net", "none", "--name", "web", "--memory", "32M", "--debug-exit", "--kernel", ECHO) as t:
        t.expect(rb"ready\r\n")
        assert home.states() == {"web": "running"}
        child = home.say("web", "a")
        t.expect(rb"got 61\r\n")
        child.kill()
        child.communicate()
        t.send(b"b")
        wait_until(lambda: "got 62\n" in home.log("web"), "the log")
        t.send(b"\x1d")
        assert t.wait() == 130
        assert t.is_restored()
    about = home.inspect("web")
    assert (about["state"], about["exit-status"], about["reason"]) == ("stopped", 130, "left")
    home.expect_nothing_left("web")


def test_console(home, monkeypatch):
    """Several at once; Ctrl-] leaves, and the guest goes on."""
    monkeypatch.setenv("TABIQUE_HOME", str(home.path))
    home.start("web")
    with Terminal("console", "web") as one, Terminal("console", "web") as two:
        for t in (one, two):
            t.expect(rb"Ctrl-\] leaves")
            wait_until(t.is_raw, "the terminal is the guest's")
        one.send(b"a\x03")
        for t in (one, two):
            t.expect(rb"got 61\r\ngot 03\r\n")
        two.send(b"b")
        one.expect(rb"got 62\r\n")
        one.send(b"\x1d")
        assert one.wait() == 0 and one.is_restored()
        two.send(b"cq")
        two.expect(rb"got 63\r\ngot 71\r\n")
        two.expect(rb"guest 'web' has ended")
        assert two.wait() == 0 and two.is_restored()
    assert home.inspect("web")["exit-status"] == PASSED
    assert "guest 'web' is not running" in home.fail("console", "web")
    home.expect_nothing_left("web")


def test_console_that_is_not_read_holds_nobody_up(home):
    home.start("web")
    child = home.popen("console", "web", stdin=subprocess.PIPE)
    child.stdin.write("f")
    child.stdin.flush()
    wait_until(lambda: "line 19999 " in home.log("web"), "all is written")
    child.kill()
    child.communicate()
    home.do("kill", "web")
    home.expect_nothing_left("web")


def test_console_keeps_up(home):
    """One that reads gets all of it."""
    home.start("web")
    child = home.popen("console", "web", stdin=subprocess.PIPE)
    out, _ = child.communicate("fq", timeout=LIMIT)
    assert child.returncode == 0
    lines = [line for line in out.splitlines() if line.startswith("line ")]
    assert [int(line.split()[1]) for line in lines] == list(range(20000))


def test_start_and_attach(home):
    home.start("web")
    home.do("kill", "web")
    child = home.popen("start", "-a", "web", stdin=subprocess.PIPE)
    wait_until(lambda: home.log("web").count("ready") == 2, "it listens")
    out, err = child.communicate("xq", timeout=LIMIT)
    assert (child.returncode, err) == (PASSED, "")
    assert "got 78" in out


def test_start_and_attach_to_one_that_ends_at_once(home):
    """Its exit status is told, whether or not there was time to attach."""
    home.do("run", "-d", "--net", "none", "--name", "web", "--memory", "32M", "--debug-exit", "--kernel", ECHO, "--append",
            "exit")
    for _ in range(20):
        wait_until(lambda: home.states() == {"web": "stopped"}, "it ends")
        result = home.run("start", "-a", "web")
        assert result.returncode == PASSED, result
        assert result.stderr == "" or "has ended already: 'tabique logs web'" in result.stderr


def test_logs(home):
    home.start("web")
    assert home.do("logs", "web").replace("\r", "") == "ready\n"
    follower = home.popen("logs", "-f", "web")
    typist = home.say("web", "a")
    wait_until(lambda: "got 61" in home.log("web"), "the log")
    typist.stdin.write("q")
    typist.stdin.flush()
    out, err = follower.communicate(timeout=LIMIT)
    assert (follower.returncode, err) == (0, "")
    assert out.replace("\r", "").startswith("ready\ngot 61\ngot 71\n")
    typist.communicate(timeout=LIMIT)
    home.do("start", "web")
    wait_until(lambda: home.log("web").count("ready") == 2, "the log goes on")
    home.do("kill", "web")
    # Of a log that was turned over both parts are shown.
    (home.path / "guests/web/console.log.1").write_text("older\n")
    assert home.do("logs", "web").startswith("older\nready")


def test_events(home):
    begin = time.time()
    follower = home.popen("events", "--follow")
    home.start("web")
    home.do("kill", "web")
    seen = []
    while not seen or seen[-1]["event"] != "ended":
        seen.append(json.loads(follower.stdout.readline()))
    assert [event["event"] for event in seen] == ["created", "started", "ended"]
    assert {event["guest"] for event in seen} == {"web"} and seen[1]["engine"] == "soft"
    assert (seen[2]["how"], seen[2]["exit-status"]) == ("killed", 137)
    assert all(time.strptime(event["time"][:19], "%Y-%m-%dT%H:%M:%S") for event in seen)
    follower.terminate()
    follower.communicate()
    assert home.events("web", "--since", f"@{int(begin) - 1}") == ["created", "started", "ended"]
    assert home.events("web", "--since", f"@{int(time.time()) + 60}") == []
    assert home.events("web", "--since", "1h") == ["created", "started", "ended"]


def test_stats(home):
    home.start("web")
    (line,) = home.do("stats", "--json").splitlines()
    stats = json.loads(line)
    assert stats["name"] == "web" and stats["cpu-ns"] > 0 and stats["uptime-ns"] > 0 and stats["threads"] >= 2
    assert 0 < stats["guest-ram-bytes"] <= stats["resident-bytes"]
    assert home.do("stats", "web").splitlines()[1].startswith("web ")
    home.do("kill", "web")
    assert home.do("stats", "--json") == ""
    assert "not running" in home.fail("stats", "web")


def test_stats_of_the_soft_engine(home):
    """Per processor: what it was at, what it left its code for; and the code cache."""

    def look(name):
        stats = json.loads(home.do("stats", "--json", name))
        (vcpu,), (percent,) = stats["vcpus"], stats["vcpu-percent"]
        assert set(percent) == {"translated", "direct", "translating", "helpers", "idle"}
        assert 99 < sum(percent.values()) < 101 and all(0 <= share <= 100 for share in percent.values())
        return stats, vcpu, percent

    # It asks its serial port for a byte all the time, which C code answers.
    home.start("busy", "--engine", "soft")
    stats, vcpu, percent = look("busy")
    assert percent["helpers"] > 20 and percent["idle"] < 20
    assert vcpu["blocks"] > 0 and vcpu["handlers"] > 1000 and set(vcpu["exits"]) == {"link", "lookup", "mode", "handler", "fault"}
    assert vcpu["exits"]["link"] > 0
    cache = stats["code-cache"]
    assert 0 < cache["used-bytes"] < cache["bytes"] and 0 < cache["blocks"] <= vcpu["blocks"] and cache["flushes"] >= 0
    # It runs in a circle, in one block.
    typist = home.say("busy", "s")
    wait_until(lambda: look("busy")[2]["translated"] > 90, "it runs in translated code")
    assert look("busy")[2]["direct"] == 0
    home.do("pause", "busy")
    wait_until(lambda: look("busy")[2]["idle"] > 99, "it is paused")
    home.do("resume", "busy")
    wait_until(lambda: look("busy")[2]["translated"] > 90, "it goes on")
    typist.kill()
    typist.communicate()

    home.start("still", "--engine", "soft")
    line, cpu, cached = home.do("stats", "still").splitlines()[1:]
    assert line.startswith("still ") and re.match(r" +vCPU 0: .*idle \d+ %.*exits: .*handlers \d+", cpu) and "code cache: " in cached
    # Of all guests, a line each.
    assert len(home.do("stats").splitlines()) == 3


def test_pause_and_resume(home):
    home.start_with_button("web")
    home.start("echo")
    home.do("pause", "web", "echo")
    assert home.states() == {"web": "paused", "echo": "paused"}
    home.do("pause", "web")  # it is what it was to be
    typist = home.say("echo", "a")
    time.sleep(0.5)
    assert "got" not in home.log("echo")
    home.do("resume", "echo")
    wait_until(lambda: "got 61" in home.log("echo"), "it goes on")
    assert home.states() == {"web": "paused", "echo": "running"}
    typist.kill()
    typist.communicate()
    # One that is paused can be stopped: it is let go on for that.
    home.do("stop", "web")
    assert home.inspect("web")["exit-status"] == 0
    assert home.events("echo") == ["created", "started", "paused", "resumed"]
    assert "is not running" in home.fail("pause", "web")


@pytest.mark.parametrize("policy, restarts", [("no", 0), ("on-failure:2", 2), ("on-failure", None), ("always", None)])
def test_restart_policies(home, policy, restarts):
    home.do("run", "-d", "--name", "web", "--restart", policy, "--net", "none", "--memory", "32M", "--debug-exit", "--kernel",
            ECHO, "--append", "exit")
    if restarts is None:
        wait_until(lambda: home.log("web").count("ready") >= 3, "it is started again")
        home.do("stop", "web")
        assert home.events("web").count("restarting") >= 2
    else:
        wait_until(lambda: home.states() == {"web": "stopped"}, "it stays ended")
        assert home.log("web").count("ready") == 1 + restarts
        assert home.inspect("web")["restarts"] == restarts
    count = home.log("web").count("ready")
    assert home.states() == {"web": "stopped"}
    home.expect_nothing_left("web")
    assert home.log("web").count("ready") == count


def test_power_off_is_no_failure(home):
    home.do("run", "-d", "--name", "web", "--restart", "on-failure", "--net", "none", "--memory", "32M", "--kernel", POWER,
            "--append", "off")
    wait_until(lambda: home.states() == {"web": "stopped"}, "it stays off")
    assert home.inspect("web")["restarts"] == 0


def test_a_guest_that_resets_itself_runs_on(home):
    home.do("run", "-d", "--name", "web", "--net", "none", "--memory", "32M", "--debug-exit", "--kernel", POWER, "--append",
            "restart-port")
    wait_until(lambda: home.states() == {"web": "stopped"}, "its second run ends")
    assert home.inspect("web")["exit-status"] == PASSED
    assert home.events("web") == ["created", "started", "reset", "ended"]

# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's console on this terminal, on pipes and on nothing; and each way to leave."""
import os
import signal
import subprocess
import time

import pytest

import program
from program import Terminal

LEFT = 130
PASSED = (0x10 << 1) | 1


def command(engine, guest, debug_exit=True):
    return ["run", "--engine", engine, "--kernel", guest, "--memory", "64M"] + ["--debug-exit"] * debug_exit


@pytest.fixture
def terminal(engine, echo_guest):
    with Terminal(*command(engine, echo_guest)) as t:
        t.expect(rb"Ctrl-\] leaves")
        t.expect(rb"ready\r\n")
        yield t


@pytest.fixture
def popen():
    """Starts guests without a terminal; none outlives its test."""
    children = []

    def start(engine, guest, debug_exit=True, **options):
        arguments = [program.TABIQUE, *map(str, command(engine, guest, debug_exit))]
        children.append(subprocess.Popen(arguments, stdout=subprocess.PIPE, **options))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.wait()


def say(child, keys):
    """Writes to the guest once it listens: what comes before it has set up its serial line is lost, as on any PC."""
    assert child.stdout.readline() == b"ready\r\n"
    child.stdin.write(keys)
    child.stdin.flush()


@pytest.mark.parametrize("name", [e["name"] for e in program.host_report()["engines"]])
def test_engine_can_be_tested_here(name):
    (report,) = [e for e in program.host_report()["engines"] if e["name"] == name]
    if not report["usable"]:
        pytest.skip(f"no test of tests/cli on this engine: {report['reason']}")


def test_keys_go_to_the_guest(terminal):
    assert terminal.is_raw()
    terminal.send(b"a\x03\x1a\x04\r\x1b")
    for key in (b"61", b"03", b"1a", b"04", b"0d", b"1b"):
        terminal.expect(b"got " + key)
    terminal.send(b"q")
    assert terminal.wait() == PASSED
    assert terminal.is_restored()


def test_leave_key(terminal):
    terminal.send(b"\x1d")
    assert terminal.wait() == LEFT
    assert terminal.is_restored()


def test_leave_key_when_the_guest_hangs(terminal):
    terminal.send(b"h")
    terminal.expect(b"got 68")
    terminal.send(b"x" * 3000)
    terminal.send(b"\x1d")
    assert terminal.wait(5) == LEFT
    assert terminal.is_restored()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda s: s.name)
def test_signals(terminal, sig):
    terminal.kill(sig)
    assert terminal.wait(5) == 128 + sig
    assert terminal.is_restored()


def test_signals_when_the_guest_hangs(terminal):
    terminal.send(b"h")
    terminal.expect(b"got 68")
    terminal.kill(signal.SIGTERM)
    assert terminal.wait(5) == 128 + signal.SIGTERM
    assert terminal.is_restored()


@pytest.mark.parametrize("delay", [0, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1])
def test_interrupt_at_any_time(engine, echo_guest, delay):
    with Terminal(*command(engine, echo_guest)) as t:
        time.sleep(delay)
        t.kill(signal.SIGINT)
        assert t.wait(5) in (LEFT, -signal.SIGINT)
        assert t.is_restored()


def test_stop_and_continue(terminal):
    """After a stop the shell has set the terminal its own way; continuing makes it raw again."""
    import termios
    terminal.kill(signal.SIGSTOP)
    time.sleep(0.1)
    termios.tcsetattr(terminal.slave, termios.TCSANOW, terminal.settings)
    terminal.kill(signal.SIGCONT)
    deadline = time.monotonic() + 5
    while not terminal.is_raw():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    terminal.send(b"q")
    assert terminal.wait() == PASSED
    assert terminal.is_restored()


def test_pipes(popen, engine, echo_guest):
    """All input arrives in order, Ctrl-] too, which is no command in a pipe."""
    text = bytes(b for b in range(256) if b not in b"qfhs") * 8 + b"q"
    child = popen(engine, echo_guest, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    say(child, text)
    out, err = child.communicate(timeout=60)
    assert child.returncode == PASSED
    assert err == b""
    assert [line.split()[1] for line in out.split(b"\r\n") if line.startswith(b"got ")] == [b"%02x" % b for b in text]


def test_input_from_a_file(popen, engine, echo_guest, tmp_path):
    (tmp_path / "keys").write_bytes(b"x" * 64 + b"abq")  # the first 16 may come too early
    with open(tmp_path / "keys", "rb") as keys:
        child = popen(engine, echo_guest, stdin=keys)
        out, _ = child.communicate(timeout=30)
    assert child.returncode == PASSED
    assert out.count(b"got 78\r\n") >= 48
    assert b"got 61\r\ngot 62\r\ngot 71\r\n" in out


def test_end_of_input_is_no_end(popen, engine, echo_guest):
    child = popen(engine, echo_guest, stdin=subprocess.DEVNULL)
    time.sleep(1)
    assert child.poll() is None
    child.terminate()
    out, _ = child.communicate(timeout=10)
    assert child.returncode == 128 + signal.SIGTERM
    assert b"ready" in out


def test_slow_reader_loses_nothing(popen, engine, echo_guest):
    child = popen(engine, echo_guest, stdin=subprocess.PIPE)
    say(child, b"fq")
    time.sleep(1)  # the pipe and everything before it is full now
    out, _ = child.communicate(timeout=60)
    assert child.returncode == PASSED
    lines = [line for line in out.split(b"\r\n") if line.startswith(b"line ")]
    assert [int(line.split()[1]) for line in lines] == list(range(20000))


def test_reader_that_goes_away(popen, engine, echo_guest):
    """As in `tabique run ... | head`."""
    child = popen(engine, echo_guest, stdin=subprocess.PIPE)
    say(child, b"f")
    os.read(child.stdout.fileno(), 100)
    child.stdout.close()
    assert child.wait(30) == 128 + signal.SIGPIPE
    child.stdin.close()


def test_debug_exit_only_when_allowed(popen, engine, echo_guest):
    child = popen(engine, echo_guest, debug_exit=False, stdin=subprocess.PIPE)
    say(child, b"q")
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(2)
    child.terminate()
    child.communicate(timeout=10)
    assert child.returncode == 128 + signal.SIGTERM

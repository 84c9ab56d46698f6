# SPDX-License-Identifier: GPL-2.0-or-later
"""
Snapshots and backups for which a Debian's own qemu-guest-agent freezes its file systems; agents that hang, that lie, and
that there are none of. One boot for all of it.

What ext4 tells of itself: while it is mounted its superblock says that its journal is to be replayed, and while it is
frozen that it is not.
"""
import base64
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

import program
from disk_programs import qemu_img
from life import Home, wait_until
from program import TABIQUE, Terminal

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "guest"))
import built_image  # noqa: E402 pylint: disable=wrong-import-position

pytestmark = [pytest.mark.skipif("soft" not in program.engines(), reason="this host can't run the engine soft"),
              pytest.mark.skipif(bool(built_image.missing()), reason="missing: " + " ".join(built_image.missing()))]

NAME = f"freezes-{os.getpid()}"
PORT = "/dev/virtio-ports/org.qemu.guest_agent.0"
LIMIT = 90

# Says what was asked for, but for the answers that a test chooses: $1 to freezing, $2 to thawing, $3 about the state.
LIAR = rf"""#!/bin/bash
exec 3<>{PORT}
while read -r line <&3; do case $line in
*sync*) printf '\377{{"return": %s}}\n' "$(printf %s "$line" | tr -dc 0-9)" >&3;;
*freeze-freeze*) eval "$1" >&3;;
*freeze-thaw*) eval "$2" >&3;;
*) eval "$3" >&3;;
esac; done
"""
HONEST = """echo '{"return": 0}'"""
THAWED = """echo '{"return": "thawed"}'"""


class Debian(Terminal):
    """At its prompt."""

    def ask(self, command, limit=LIMIT):
        self.expect(rb"root@\S+:~# ", timeout=limit)
        self.send(f"{command}; echo d''one\n".encode())
        self.expect(rb"\n", timeout=limit)
        return self.expect(rb"(?s)(.*)done\r\n", timeout=limit).group(1).decode()


def needs_replay(path):
    """Of an ext4 that is all of a disk image: s_feature_incompat has the bit RECOVER."""
    block = subprocess.run(["qemu-img", "dd", "-U", "-O", "raw", "bs=4096", "count=1", f"if={path}", "of=/dev/stdout"],
                           capture_output=True, check=False, timeout=60).stdout
    if not block:  # it wants to seek
        out = pathlib.Path(f"{path}.block")
        qemu_img("dd", "-U", "-O", "raw", "bs=4096", "count=1", f"if={path}", f"of={out}")
        block = out.read_bytes()
        out.unlink()
    assert block[1024 + 0x38:1024 + 0x3a] == b"\x53\xef", "an ext4"
    return bool(block[1024 + 0x60] & 4)


def layer_behind(home):
    """What the guest's disk is based on: the last snapshot."""
    path = home.inspect(NAME)["config"]["disk"][0]["path"]
    return json.loads(qemu_img("info", "-U", "--output=json", path).stdout)["full-backing-filename"]


def note(said):
    return re.search(r"(its file systems [^\n]*)\n", said).group(1)


class Lying:
    """An agent of the test's in place of the guest's."""

    def __init__(self, guest, freezing, thawing=HONEST, state=THAWED):
        self.guest = guest
        words = " ".join("'" + word.replace("'", "'\\''") + "'" for word in (freezing, thawing, state))
        guest.ask(f"systemctl stop qemu-guest-agent; (bash liar {words} >/dev/null 2>&1 &); sleep 0.3")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.guest.ask("pkill -f 'bash liar'; systemctl start qemu-guest-agent; sleep 0.5")


@pytest.fixture
def debian(monkeypatch):
    image = built_image.build(TABIQUE, "bookworm", "qemu-guest-agent")["name"]
    monkeypatch.setenv("TABIQUE_HOME", str(built_image.HOME))
    home = Home(built_image.HOME)
    with Debian("run", "--engine", "soft", "--net", "none", "--name", NAME, image) as guest:
        guest.expect(rb"login: root \(automatic login\)", timeout=built_image.SLOW)
        guest.ask("systemctl is-system-running --wait")
        yield home, guest
    home.run("rm", "-f", NAME)


def writes(guest):
    """Whether the guest's file system takes what is written now: not while it is frozen."""
    return "written" in guest.ask("timeout 30 sh -c 'echo x >/root/x && sync' && echo writ''ten")


def test_freeze(debian, tmp_path):
    home, guest = debian
    guest.ask("(while :; do date +%N >>/var/tmp/log; done) >/dev/null 2>&1 & :")

    # Frozen, not frozen, and what that means for what is kept.
    assert note(home.do("snapshot", NAME, "one", "--freeze", "always")) == "its file systems were frozen (1)"
    assert not needs_replay(layer_behind(home)) and writes(guest)
    assert note(home.do("snapshot", NAME, "two", "--freeze", "never")) == "its file systems were not frozen, but its disks flushed"
    assert needs_replay(layer_behind(home))
    said = home.do("backup", NAME, tmp_path)
    assert note(said) == "its file systems were frozen (1)" and writes(guest)
    assert not needs_replay(re.search(r"^vda  (\S+)", said, re.M).group(1))
    said = home.do("backup", NAME, tmp_path, "--freeze", "never")
    assert "file systems" not in said and needs_replay(re.search(r"^vda  (\S+)", said, re.M).group(1))
    assert home.do("clone", NAME, f"{NAME}-2", "--freeze", "always") == f"{NAME}-2\n"
    home.do("rm", f"{NAME}-2")

    # Who had it frozen goes away, while it is and before it has come to that.
    for wait in (True, False):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.connect(str(home.path / f"run/{NAME}/control.sock"))
            control.sendall(b'{"request":"pause","while-connected":true,"freeze":"always"}\n')
            if wait:
                assert b"were frozen (1)" in control.recv(4096) and home.states()[NAME] == "paused"
                assert "while it is paused" in home.fail("backup", NAME, tmp_path, "--freeze", "always")
                assert "(they are for somebody else)" in home.fail("snapshot", NAME, "not", "--freeze", "always")
        wait_until(lambda: home.states()[NAME] == "running", "it goes on")
        assert writes(guest)
    guest.ask("kill %1 2>/dev/null; pkill -f var/tmp/log; true")
    check_bad_agents(home, guest, tmp_path)

    # The VM process ends while it is frozen, and the next one knows nothing of that.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.connect(str(home.path / f"run/{NAME}/control.sock"))
        control.sendall(b'{"request":"pause","while-connected":true,"freeze":"always"}\n')
        assert b"were frozen (1)" in control.recv(4096)
        os.kill(home.inspect(NAME)["vm"], signal.SIGKILL)
        wait_until(lambda: home.states()[NAME] != "paused", "it has ended")


def check_bad_agents(home, guest, tmp_path):
    # One that hangs; then it goes on, and what it says late is not taken for anything else.
    guest.ask("pkill -STOP qemu-ga")
    began = time.monotonic()
    assert note(home.do("snapshot", NAME, "hung")) == \
        "its file systems were not frozen (its agent does not answer), but its disks flushed"
    assert time.monotonic() - began > 1.5
    assert "(its agent does not answer)" in home.fail("snapshot", NAME, "none", "--freeze", "always")
    assert "(its agent does not answer)" in home.fail("backup", NAME, tmp_path, "--freeze", "always")
    guest.ask("pkill -CONT qemu-ga")
    assert note(home.do("snapshot", NAME, "well")) == "its file systems were frozen (1)" and writes(guest)

    guest.ask(f"echo {base64.b64encode(LIAR.encode()).decode()} | base64 -d >liar")
    for i, (answer, why) in enumerate([
            ("""echo '{"return": -3}'""", "its agent says: what makes no sense"),
            ("""echo '{"return": 1e30}'""", "its agent says: what makes no sense"),
            ("""head -c 3000000 /dev/zero | tr '\\0' x; echo""", "its agent says: what makes no sense"),
            ("""echo '{"error": {"desc": "no \\u001b[2J way"}}'""", "its agent says: no ?[2J way"),
            ("""exit""", "its agent has ended meanwhile")]):
        with Lying(guest, answer):
            said = home.do("snapshot", NAME, f"lie-{i}")
            assert note(said) == f"its file systems were not frozen ({why}), but its disks flushed"
    with Lying(guest, """echo '{"return": 7}'""", state="""echo '{"return": "frozen"}'"""):
        assert note(home.do("snapshot", NAME, "still")) == \
            "its file systems were frozen, and may be still: its agent says that they are not"
    with Lying(guest, """echo '{"return": 7}'""", thawing=":"):
        assert "may be still: its agent does not answer" in home.do("backup", NAME, tmp_path)
    guest.ask("systemctl stop qemu-guest-agent")
    assert "(no agent runs in it)" in home.fail("snapshot", NAME, "nobody", "--freeze", "always")
    guest.ask("systemctl start qemu-guest-agent; sleep 0.5")
    assert note(home.do("snapshot", NAME, "again")) == "its file systems were frozen (1)" and writes(guest)

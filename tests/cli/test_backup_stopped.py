# SPDX-License-Identifier: GPL-2.0-or-later
"""Backups of guests that do not run: by what QEMU's writer has recorded in their disks, over snapshots, clones and
restores, and killed at any moment."""
import os
import random
import signal
import time

import pytest

import program
from disk_programs import qemu_img
from test_backup import backed_up, files
from test_snapshots import disks, make_guest, write

pytestmark = pytest.mark.skipif("soft" not in program.engines(), reason="this host can't run the engine soft")

KILLS = int(os.environ.get("TABIQUE_BACKUP_KILLS", "4"))
AGAIN = "has no record of what has changed since the earlier backups there"


def backup(home, directory, kind, n=2):
    """All disks; each copy, read with what it is based on, is what the disk has."""
    said = home.do("backup", "web", directory)
    done = backed_up(said)
    assert len(done) == n and {what for _, what in done.values()} == {kind}, said
    for i, path in enumerate(disks(home, "web")[:n]):
        copy = done[f"vd{'abc'[i]}"][0]
        qemu_img("compare", path, copy)
        qemu_img("check", "-q", path)
        qemu_img("check", "-q", copy)
        if kind == "changed":
            assert os.path.getsize(copy) < 2 << 20, "only what has changed"
    return said


def test_stopped(home, tmp_path):
    directory = tmp_path / "backups"
    directory.mkdir()
    make_guest(home, size="64M", disks=2)
    for disk in (0, 1):
        write(home, "web", {i: i % 250 + 1 for i in range(200)}, disk=disk)
    assert "file systems" not in backup(home, directory, "in all")
    write(home, "web", {7: 77, 900: 9})
    backup(home, directory, "changed")
    backup(home, directory, "changed")

    # What changes is recorded in the files that a snapshot and a clone leave it with.
    home.do("snapshot", "web", "one")
    write(home, "web", {8: 78})
    backup(home, directory, "changed")
    home.do("clone", "web", "web2")
    write(home, "web", {9: 79}, disk=1)
    backup(home, directory, "changed")
    # Nobody knows what is another from before it is now.
    home.do("restore", "web", "one")
    assert backup(home, directory, "in all").count(AGAIN) == 2
    write(home, "web", {10: 80})
    assert AGAIN not in backup(home, directory, "changed")

    # A file, a mirror, and another format.
    for verb in ("backup", "mirror"):
        target = tmp_path / f"{verb}.raw"
        assert backed_up(home.do(verb, "web", "--disk", "vdb", target))["vdb"] == (str(target), "in all")
        qemu_img("compare", "-F", "raw", disks(home, "web")[1], target)
    assert "has no disk vdc" in home.fail("backup", "web", "--disk", "vdc", tmp_path / "new")
    assert "disk vda: disk 'no/where'" in home.fail("backup", "web", "--disk", "vda", "no/where")
    # When it runs again, the VM process goes on with what was recorded.
    home.do("start", "web")
    done = backed_up(home.do("backup", "web", directory))
    assert {what for _, what in done.values()} == {"changed"}
    home.do("kill", "web")


def test_stopped_and_killed(home, tmp_path):
    """At any moment nothing is left of one that is not whole, and the next one is right, whether it is whole or not."""
    moments = random.Random(seed := random.randrange(1 << 32))
    directory = tmp_path / "backups"
    directory.mkdir()
    make_guest(home, size="64M")
    write(home, "web", {i: i % 250 + 1 for i in range(900)})
    backup(home, directory, "in all", n=1)
    child = home.popen("backup", "web", directory, "--full", "--rate", "4M")
    time.sleep(0.5)
    for verb in (["start", "web"], ["snapshot", "web", "not-now"]):
        assert "is in the hands of another command" in home.fail(*verb)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=60) == 130
    for i in range(KILLS):
        write(home, "web", {i: 200 + i, 300 + i: 1})
        kept = files(directory)
        child = home.popen("backup", "web", directory, "--full", "--rate", "60M")
        time.sleep(moments.uniform(0.02, 0.8))
        number = signal.SIGKILL if i % 2 else signal.SIGINT
        child.send_signal(number)
        child.communicate(timeout=60)
        assert child.returncode in (0, -9, 130), (child.returncode, seed)
        if child.returncode:
            assert files(directory) == kept, seed
        said = home.do("backup", "web", directory)
        (path, what), = backed_up(said).values()
        qemu_img("compare", disks(home, "web")[0], path)
        qemu_img("check", "-q", disks(home, "web")[0])
        assert what == "changed" or AGAIN in said, (said, seed)

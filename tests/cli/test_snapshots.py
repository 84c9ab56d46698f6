# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots and clones of virtual machines that stand still; test_snapshots_live.py has those that run."""
import json
import os
import pathlib
import random
import signal
import sqlite3
import subprocess
import time

import pytest

import program
from life import POWER, Home

pytestmark = pytest.mark.skipif("soft" not in program.engines(), reason="this host can't run the engine soft")

KILLS = int(os.environ.get("TABIQUE_SNAPSHOT_KILLS", "20"))
CHUNK = 65536


@pytest.fixture
def home(tmp_path):
    made = Home(tmp_path / "home")
    yield made
    made.clear()


def qemu_io(path, *commands):
    words = [word for command in commands for word in ("-c", command)]
    result = subprocess.run(["qemu-io", "-f", "qcow2", *words, path], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0 and "failed" not in result.stdout, (commands, result)


def make_guest(home, name="web", size="1G", disks=1):
    """A guest with disks that has run once, so that it stays."""
    words = []
    for i in range(disks):
        path = home.path.parent / f"{name}-{i}.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, size], check=True, timeout=60)
        words += ["--disk", f"{path},format=qcow2"]
    home.start_with_button(name, *words)
    home.do("kill", name)


def disks(home, name):
    return [disk["path"] for disk in home.inspect(name)["config"]["disk"]]


def write(home, name, values, disk=0):
    """{chunk: value} to a disk of a guest that stands still."""
    qemu_io(disks(home, name)[disk], *[f"write -P {value} {chunk * CHUNK} {CHUNK}" for chunk, value in values.items()])


def expect(home, name, values, disk=0):
    qemu_io(disks(home, name)[disk], *[f"read -P {value} {chunk * CHUNK} {CHUNK}" for chunk, value in values.items()])


def shows(home, name, values):
    """Whether the disk has these and, beside them, is sound."""
    path = disks(home, name)[0]
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", path], check=True, timeout=60)
    commands = [f"read -P {value} {chunk * CHUNK} {CHUNK}" for chunk, value in values.items()]
    result = subprocess.run(["qemu-io", "-r", "-f", "qcow2", *[w for c in commands for w in ("-c", c)], path],
                            capture_output=True, text=True, check=False, timeout=60)
    assert result.stdout.count("bytes at offset") >= len(values), result
    return "failed" not in result.stdout


def layers(home, name):
    return sorted(path.name for path in (home.path / "guests" / name).glob("*.qcow2"))


def rows(home, sql, *values):
    database = sqlite3.connect(home.path / "tabique.db")
    try:
        return database.execute(sql, values).fetchall()
    finally:
        database.close()


def snapshots(home, name):
    return {s["name"]: s for s in json.loads(home.do("snapshots", name, "--json"))}


def test_snapshot_restore_and_removal(home):
    make_guest(home)
    assert home.do("snapshots", "web") == "" and snapshots(home, "web") == {}
    write(home, "web", {0: 1, 1: 1})
    assert home.do("snapshot", "web", "one", "--description", "the first") == ""
    write(home, "web", {1: 2, 2: 2})
    home.do("snapshot", "web", "two")
    write(home, "web", {2: 3})
    assert "has a snapshot 'two' already" in home.fail("snapshot", "web", "two")
    expect(home, "web", {0: 1, 1: 2, 2: 3})
    lines = home.do("snapshots", "web").splitlines()
    assert [line.split()[0] for line in lines] == ["SNAPSHOT", "one", "two", "(now)"]
    assert lines[1].endswith("the first") and lines[2].startswith("  two") and lines[3].startswith("    (now)")

    home.do("restore", "web", "one")
    expect(home, "web", {0: 1, 1: 1, 2: 0})
    write(home, "web", {3: 4})
    home.do("snapshot", "web", "branch")
    tree = snapshots(home, "web")
    assert {name: s["parent"] for name, s in tree.items()} == {"one": None, "two": "one", "branch": "one"}
    assert [name for name, s in tree.items() if s["current"]] == ["branch"]
    home.do("restore", "web", "two")
    expect(home, "web", {0: 1, 1: 2, 2: 2, 3: 0})

    # Its data are what both branches need: only the name goes.
    home.do("snapshot-rm", "web", "one")
    expect(home, "web", {0: 1, 1: 2, 2: 2, 3: 0})
    home.do("restore", "web", "branch")
    expect(home, "web", {0: 1, 1: 1, 2: 0, 3: 4})
    assert "has no snapshot 'one'" in home.fail("restore", "web", "one")
    home.do("snapshot-rm", "web", "two")
    home.do("snapshot-rm", "web", "branch")
    expect(home, "web", {0: 1, 1: 1, 2: 0, 3: 4})
    assert snapshots(home, "web") == {} and len(layers(home, "web")) == 1
    assert home.events("web")[-1] == "snapshot-removed" and "restored" in home.events("web")
    home.do("start", "web")
    home.do("kill", "web")
    home.do("rm", "web")
    assert rows(home, "SELECT * FROM layers") == []


def test_several_disks_and_one_that_is_not_written(home, tmp_path):
    make_guest(home, disks=2)
    write(home, "web", {0: 1}, disk=0)
    write(home, "web", {0: 2}, disk=1)
    home.do("snapshot", "web", "both")
    write(home, "web", {0: 3}, disk=0)
    write(home, "web", {0: 4}, disk=1)
    home.do("restore", "web", "both")
    expect(home, "web", {0: 1}, disk=0)
    expect(home, "web", {0: 2}, disk=1)
    raw = tmp_path / "data.raw"
    raw.write_bytes(b"\1" * CHUNK + b"\0" * CHUNK)
    home.start_with_button("raw", "--disk", f"{raw},format=raw", "--disk",
                           f"{disks(home, 'web')[0]},format=qcow2,readonly")
    home.do("kill", "raw")
    home.do("snapshot", "raw", "one")
    write(home, "raw", {0: 9})
    assert raw.read_bytes()[:CHUNK] == b"\1" * CHUNK, "the person's own file is what the snapshot has"
    home.do("restore", "raw", "one")
    expect(home, "raw", {0: 1, 1: 0})
    home.start_with_button("none")
    home.do("kill", "none")
    assert "has no disk that it writes" in home.fail("snapshot", "none", "one")


def test_clones(home):
    make_guest(home, size="100G")
    write(home, "web", {0: 1})
    assert home.do("clone", "web", "web2") == "web2\n"
    assert home.states() == {"web": "stopped", "web2": "stopped"}
    expect(home, "web2", {0: 1})
    write(home, "web", {0: 2})
    write(home, "web2", {0: 3, 1: 3})
    expect(home, "web", {0: 2, 1: 0})
    expect(home, "web2", {0: 3, 1: 3})
    said = home.fail("rm", "web")
    assert "can't be removed" in said and "(web2)" in said
    home.do("start", "web2")
    home.do("kill", "web2")
    home.do("snapshot", "web", "point")
    assert home.do("clone", "web", "web3", "--snapshot", "point") == "web3\n"
    said = home.fail("snapshot-rm", "web", "point")
    assert "(web3)" in said and "remove those first" in said
    assert "(web2, web3)" in home.fail("rm", "-f", "web")
    full = home.do("clone", "--full", "web").strip()
    write(home, "web", {0: 7})
    expect(home, full, {0: 2})
    home.do("rm", "web2", "web3")
    home.do("snapshot-rm", "web", "point")
    home.do("rm", "web")
    expect(home, full, {0: 2, 1: 0})
    assert "no guest 'web'" in home.fail("clone", "web", "x")
    home.do("clone", full, "last")
    assert "a guest 'last' is there already" in home.fail("clone", full, "last")


def test_a_source_that_stands_still_is_frozen_once(home):
    make_guest(home)
    write(home, "web", {0: 1})
    for i in range(5):
        home.do("clone", "web", f"clone-{i}")
    assert len(layers(home, "web")) == 1
    expect(home, "clone-4", {0: 1})
    write(home, "web", {0: 2})
    home.do("clone", "web", "after")
    expect(home, "after", {0: 2})
    assert len(layers(home, "web")) == 2


def test_a_clone_is_somebody_else(home, tmp_path):
    user_data = tmp_path / "user-data"
    user_data.write_text("#cloud-config\nhostname: x\n", encoding="utf-8")
    path = tmp_path / "d.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True, timeout=60)
    home.start("website", "--disk", f"{path},format=qcow2", "--cloud-init", user_data, "--vsock",
               tmp_path / "sock", "--append", "button systemd.hostname=website quiet", kernel=POWER)
    home.do("kill", "website")
    home.do("clone", "website", "web_2")
    ours, theirs = home.inspect("website")["config"], home.inspect("web_2")["config"]
    assert "vsock" in ours and "vsock" not in theirs
    words = theirs["append"].split()
    assert "systemd.hostname=web-2" in words and words[0] == "button" and words[-1] == "quiet"
    assert [len(w) for w in words if w.startswith("systemd.machine_id=")] == [len("systemd.machine_id=") + 32]
    seeds = [pathlib.Path(config["disk"][-1]["path"]).read_bytes() for config in (ours, theirs)]
    assert "guests/web_2/seed.iso" in theirs["disk"][-1]["path"]
    ids = [seed[at:at + 49] for seed in seeds for at in [seed.index(b"instance-id: iid-")]]
    assert ids[0] != ids[1] and len(seeds[0]) == len(seeds[1])
    assert b"local-hostname: web_2  \n" in seeds[1] and b"local-hostname: website\n" in seeds[0]
    home.do("clone", "web_2", "third")
    third = home.inspect("third")["config"]["append"].split()
    assert len(third) == len(words) and "systemd.hostname=third" in third
    assert not set(w for w in third if "machine_id" in w) & set(words)
    home.do("start", "third")


def test_containers_have_none(home):
    # Its row alone is looked at.
    make_guest(home)
    database = sqlite3.connect(home.path / "tabique.db")
    with database:
        database.execute("UPDATE guests SET config = json_set(config, '$.kind', 'container')")
    database.close()
    for command in (["snapshot", "web", "one"], ["clone", "web", "two"]):
        assert "is a container" in home.fail(*command)


def check_files(home):
    """What the registry says of layers is what lies there, and each file names the one that it is based on."""
    for path, parent, name in rows(home, "SELECT l.path, p.path, l.guest FROM layers l LEFT JOIN layers p ON p.id = l.parent"):
        info = json.loads(subprocess.run(["qemu-img", "info", "-U", "--output=json", path], capture_output=True, check=True,
                                         timeout=60).stdout)
        if parent:
            assert info["backing-filename"] == parent, (name, path)
    for name in home.states():
        known = {path for (path,) in rows(home, "SELECT path FROM layers WHERE guest = ?", name)}
        there = {str(path) for path in (home.path / "guests" / name).glob("layer-*")}
        assert there <= known, "leftovers"
        for disk in home.inspect(name)["config"]["disk"]:
            assert disk["path"] in known


def test_killed_at_any_moment(home):
    """Each command is ended by SIGKILL at a moment of its life, and the guest has the old state or the new one."""
    seed = random.randrange(1 << 32)
    moments = random.Random(seed)
    make_guest(home, size="16M")
    began = time.monotonic()
    home.do("snapshot", "web", "base")
    window = time.monotonic() - began  # what one of them takes on this host, at this time
    kept, killed = {"base": {0: 0, 1: 0}}, 0
    for i in range(KILLS):
        now = {0: i % 250 + 1, 1: moments.randrange(256)}
        write(home, "web", now)
        verb = moments.choice(["snapshot", "restore", "snapshot-rm", "clone"] if len(kept) > 1 else ["snapshot", "clone"])
        name = moments.choice(sorted(kept))
        told = f"seed {seed}, round {i}: {verb} {name}"
        child = home.popen(verb, "web", {"snapshot": f"s{i}", "clone": f"c{i}"}.get(verb, name))
        time.sleep(moments.uniform(0, window))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        killed += child.returncode == -signal.SIGKILL

        there = snapshots(home, "web")
        if verb == "snapshot" and f"s{i}" in there:
            kept[f"s{i}"] = now
        if verb == "snapshot-rm" and name not in there:
            del kept[name]
        assert set(there) == set(kept), told
        if verb == "restore" and not shows(home, "web", now):
            now = kept[name]
        assert shows(home, "web", now), told
        clones = set(home.states()) - {"web"}
        for clone in clones:
            assert shows(home, clone, now), told
        if clones:
            home.do("rm", *clones)
        # The next command finds what was left, and nothing that is kept was lost.
        point = moments.choice(sorted(kept))
        home.do("clone", "web", "look", "--snapshot", point)
        assert shows(home, "look", kept[point]), told
        home.do("rm", "look")
        check_files(home)
    assert killed >= KILLS // 4, "most were over before"

# SPDX-License-Identifier: GPL-2.0-or-later
"""
Backups of a virtual machine that runs. In it a writer goes over both disks in turn, block after block, each on the disk
before the next, with the number of its round: so what the disks had at one moment is a round's number up to some block
and the number before from there on, and nothing else is.
"""
import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import time

import pytest

import program
from disk_programs import check_whole, qemu_img
from life import run_with_disks, wait_until

pytestmark = pytest.mark.skipif("soft" not in program.engines(), reason="this host can't run the engine soft")

SIZE, CONTENT = 64 << 20, 48 << 20
BLOCKS, STRIDE = 20, 400  # of 4 KiB
KILLS = int(os.environ.get("TABIQUE_BACKUP_KILLS", "4"))

WRITER = f"""g=1; while :; do i=0; while [ $i -lt {BLOCKS} ]; do
for d in a b; do printf %08d $g | dd of=/dev/vd$d bs=4096 seek=$((i*{STRIDE})) conv=sync,fsync,notrunc 2>/dev/null; done;
i=$((i+1)); done; g=$((g+1)); done""".replace("\n", " ")


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("content") / "content.raw"
    path.write_bytes(random.Random(7).randbytes(CONTENT) + bytes(SIZE - CONTENT))
    return path


def run_guest(tmp_path, suite, content):
    paths = [tmp_path / f"d{i}.qcow2" for i in range(2)]
    for path in paths:
        qemu_img("convert", "-f", "raw", "-O", "qcow2", content, path)
    return run_with_disks(suite, *[f"{path},format=qcow2" for path in paths])


def begin_writing(guest):
    guest.ask(f"({WRITER}) >/dev/null 2>&1 &")


def raw(path, tmp_path, name="out.raw"):
    out = tmp_path / name
    qemu_img("convert", "-O", "raw", path, out)
    data = out.read_bytes()
    out.unlink()
    return data


def rounds(data):
    """The round that each block is of; 0 where nothing was written yet."""
    found = []
    for i in range(BLOCKS):
        at = i * STRIDE * 4096
        text = data[at:at + 8]
        found.append(int(text) if text.isdigit() else 0)
    return found


def check_moment(disks, original):
    """That they are of one moment: the sequence of the blocks of all disks in turn. The newest round."""
    sequence = [r for pair in zip(*map(rounds, disks)) for r in pair]
    newest = sequence[0]
    assert all(a >= b for a, b in zip(sequence, sequence[1:])) and sequence[-1] >= newest - 1, sequence
    for data in disks:
        assert len(data) == SIZE
        for i in range(BLOCKS):  # the rest is as it was
            at = i * STRIDE * 4096
            assert data[at + 4096:at + STRIDE * 4096] == original[at + 4096:at + STRIDE * 4096], i
    return newest


def backed_up(said):
    """{disk: (path, what)} of what the command printed."""
    return {m.group(1): (m.group(2), m.group(3)) for m in re.finditer(r"^(vd.)  (\S+)  .* (changed|in all)$", said, re.M)}


def files(directory):
    return sorted(p.name for p in directory.iterdir())


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_chain(home, tmp_path, suite, content):
    """One that is whole and some that are not, with a snapshot in between, while the guest writes."""
    guest = run_guest(tmp_path, suite, content)
    original = content.read_bytes()
    begin_writing(guest)
    wait_until(lambda: re.search("0000000[1-9]", guest.ask("dd if=/dev/vda bs=8 count=1 2>/dev/null")), "it writes")
    directory = tmp_path / "backups"
    directory.mkdir()

    newest = 0
    for step in range(4):
        if step == 2:
            home.do("snapshot", "web", "between")
        time.sleep(0.5)
        done = backed_up(home.do("backup", "web", directory, *(["--rate", "30M"] if step == 0 else [])))
        assert set(done) == {"vda", "vdb"}
        assert {what for _, what in done.values()} == {"changed" if step else "in all"}, step
        paths = [done[disk][0] for disk in ("vda", "vdb")]
        if step:
            assert all(os.path.getsize(p) < 8 << 20 for p in paths), "only what has changed"
        now = check_moment([raw(p, tmp_path) for p in paths], original)
        assert now > newest
        newest = now
        for p in paths:
            qemu_img("check", "-q", p)
    assert len(files(directory)) == 8

    # What pauses it for the moment ends, however the command does.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.connect(str(home.path / "run/web/control.sock"))
        control.sendall(b'{"request":"pause","while-connected":true}\n')
        assert b'"ok":true' in control.recv(4096)
        assert home.states()["web"] == "paused"
    wait_until(lambda: home.states()["web"] == "running", "it goes on")

    # A file, and a server's disk.
    file = tmp_path / "one.img"
    assert backed_up(home.do("backup", "web", "--disk", "vdb", file))["vdb"] == (str(file), "in all")
    assert len(set(rounds(file.read_bytes()))) <= 2 and file.stat().st_size == SIZE
    assert "is there already" in home.fail("backup", "web", "--disk", "vdb", file)
    assert "2 disks: choose one with --disk" in home.fail("backup", "web", tmp_path / "new")
    assert "has no disk vdc" in home.fail("backup", "web", "--disk", "vdc", tmp_path / "new")
    exported, nbd = tmp_path / "exported.raw", tmp_path / "nbd.sock"
    exported.write_bytes(b"\xee" * SIZE)
    with subprocess.Popen(["qemu-nbd", "-t", "-f", "raw", "-k", nbd, exported]) as server:
        wait_until(nbd.exists, "qemu-nbd listens")
        home.do("backup", "web", "--disk", "vda", f"nbd+unix:///?socket={nbd}")
        server.terminate()
    assert len(set(rounds(exported.read_bytes()))) <= 2 and exported.read_bytes()[CONTENT:] == bytes(SIZE - CONTENT)

    # As it is at the end: while it writes all the time, and of another moment than that at which it began.
    began = rounds(raw(backed_up(home.do("backup", "web", "--disk", "vda", tmp_path / "before"))["vda"][0], tmp_path))[0]
    assert backed_up(home.do("mirror", "web", "--disk", "vda", "--rate", "16M", tmp_path / "mirror.raw"))["vda"][1] == "in all"
    mirrored = (tmp_path / "mirror.raw").read_bytes()
    now = rounds(mirrored)
    assert now == sorted(now, reverse=True) and now[-1] >= now[0] - 1 and now[-1] > began, (began, now)
    assert mirrored[CONTENT:] == bytes(SIZE - CONTENT) and mirrored[4096:STRIDE * 4096] == original[4096:STRIDE * 4096]
    assert "is a directory" in home.fail("mirror", "web", "--disk", "vda", directory)
    assert "2 disks: choose one with --disk" in home.fail("mirror", "web", tmp_path / "another")

    # Bitmaps stay when it ends in order: the next one has what was changed by another guest on the same disks.
    guest.send(b"poweroff -f\r")
    wait_until(lambda: home.states()["web"] == "stopped", "it has switched itself off")
    home.do("start", "web")
    wait_until(lambda: "login" in home.log("web") or "# " in home.log("web"), "it has booted")
    done = backed_up(home.do("backup", "web", directory))
    assert {what for _, what in done.values()} == {"changed"}
    assert check_moment([raw(done[disk][0], tmp_path) for disk in ("vda", "vdb")], original) >= newest
    home.do("kill", "web")


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_ends_in_the_middle(home, tmp_path, suite, content):
    """The target is full; the command is interrupted or killed; the guest goes, killed or by itself. Nothing is left of a
    backup that is not whole, and the next one is right."""
    moments = random.Random(seed := random.randrange(1 << 32))
    guest = run_guest(tmp_path, suite, content)
    original = content.read_bytes()
    begin_writing(guest)
    directory = tmp_path / "backups"
    directory.mkdir()

    def whole(kind):
        done = backed_up(home.do("backup", "web", directory))
        assert {what for _, what in done.values()} == {kind}, f"seed {seed}"
        return check_moment([raw(done[disk][0], tmp_path) for disk in ("vda", "vdb")], original)

    newest = whole("in all")
    kept = files(directory)

    small = tmp_path / "small"
    small.mkdir()
    full = subprocess.run(["unshare", "-m", "sh", "-c", f"mount -t tmpfs -o size=9M none {small} && "
                           f"{program.TABIQUE} backup web --disk vda {small}/vda; ls -A {small}"],
                          env=home.environment, capture_output=True, text=True, timeout=60, check=False)
    assert "No space left on device" in full.stderr and full.stdout == "", full
    assert "disk 'no/where/at-all'" in home.fail("backup", "web", "--disk", "vda", "no/where/at-all")

    for i in range(KILLS):
        number, status = (signal.SIGKILL, -9) if i % 2 else (signal.SIGINT, 130)
        child = home.popen("backup", "web", directory, "--full", "--rate", "20M")
        time.sleep(moments.uniform(0.05, 1.2))
        child.send_signal(number)
        _, said = child.communicate(timeout=60)
        assert child.returncode == status and ("interrupted" in said) == (status == 130), (said, seed)
        assert files(directory) == kept
    assert "in use" not in guest.ask("dd if=/dev/vda of=/dev/null bs=1M count=4 2>&1")
    now = whole("changed")
    assert now > newest
    kept = files(directory)

    # The disk is being copied: it stays what it is, and there is one copy at a time.
    child = home.popen("backup", "web", directory, "--full", "--rate", "8M")
    time.sleep(1)
    assert "is being copied already" in home.fail("backup", "web", "--disk", "vda", tmp_path / "other")
    assert "a copy of it is being made" in home.fail("snapshot", "web", "not-now")
    assert "a copy of it is being made" in home.fail("update", "web", "--disk", "vda,size=96M")
    os.kill(home.inspect("web")["vm"], signal.SIGKILL)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 1 and "broken off" in said, said
    wait_until(lambda: home.states()["web"] != "running", "it has ended")
    assert files(directory) == kept and not (tmp_path / "other").exists()

    # Nobody knows what was written since; so all is copied again.
    (home.path / "guests/web/console.log").unlink()
    home.do("start", "web")
    wait_until(lambda: "# " in home.log("web"), "it has booted")
    whole("in all")
    kept = files(directory)
    child = home.popen("backup", "web", directory, "--full", "--rate", "8M")
    time.sleep(0.7)
    home.say("web", "poweroff -f\n").communicate(timeout=60)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 1 and ("broken off" in said or "is being closed" in said), said
    assert files(directory) == kept
    for i in range(2):
        qemu_img("check", "-q", tmp_path / f"d{i}.qcow2")
        names = [line.split()[0] for line in home.do("disk", "bitmap", "list", tmp_path / f"d{i}.qcow2").splitlines()[1:]]
        assert len(names) == 1 and names[0].startswith("backup-"), names


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_stream(home, tmp_path, suite, content):
    """A disk with two snapshots under it comes to stand alone while it is written; the snapshots stay."""
    guest = run_guest(tmp_path, suite, content)
    original = content.read_bytes()
    assert "based on nothing" in home.fail("stream", "web", "--disk", "vda")
    assert "2 disks: choose one with --disk" in home.fail("stream", "web")
    begin_writing(guest)
    for name in ("one", "two"):
        time.sleep(0.7)
        home.do("snapshot", "web", name)
    path = home.inspect("web")["config"]["disk"][0]["path"]

    child = home.popen("stream", "web", "--disk", "vda", "--rate", "16M")
    time.sleep(1)
    assert "a copy of it is being made" in home.fail("update", "web", "--disk", "vda,size=96M")
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=60) == 130
    assert "backing file" in qemu_img("info", "-U", path).stdout
    home.do("stream", "web", "--disk", "vda", "--rate", "64M")
    assert "backing file" not in qemu_img("info", "-U", path).stdout and "backing file" in qemu_img(
        "info", "-U", home.inspect("web")["config"]["disk"][1]["path"]).stdout
    newest = rounds(guest_read(guest))[0]
    home.do("snapshot", "web", "three")
    time.sleep(1)

    # Backups, snapshots and the guest itself find what there was.
    (tmp_path / "after").mkdir()
    done = backed_up(home.do("backup", "web", tmp_path / "after"))
    assert check_moment([raw(done[disk][0], tmp_path) for disk in ("vda", "vdb")], original) >= newest
    home.do("kill", "web")
    qemu_img("check", "-q", path)
    assert 0 < rounds(raw(path, tmp_path))[0] >= newest
    assert [s["name"] for s in json.loads(home.do("snapshots", "web", "--json"))] == ["one", "two", "three"]
    home.do("restore", "web", "one")
    one = rounds(raw(home.inspect("web")["config"]["disk"][0]["path"], tmp_path))[0]
    home.do("restore", "web", "three")
    assert one <= newest <= rounds(raw(home.inspect("web")["config"]["disk"][0]["path"], tmp_path))[0]
    # What only the snapshots needed goes with them.
    for name in ("one", "two"):
        home.do("snapshot-rm", "web", name)
    layers = sorted(p.name for p in (home.path / "guests/web").glob("layer-*"))
    assert len(layers) < 6, layers
    assert rounds(raw(home.inspect("web")["config"]["disk"][0]["path"], tmp_path))[0] >= newest


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_copy_on_read(home, tmp_path, suite, content):
    """What the guest has read is in its own file then, also after a snapshot; what it has not is not."""
    top = tmp_path / "top.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-b", content, "-F", "raw", top)
    guest = run_with_disks(suite, f"{top},format=qcow2,copy-on-read")
    assert home.inspect("web")["config"]["disk"][0]["copy-on-read"] is True

    def own(path, first, last):
        """Whether the file itself has all of these MiB; or none."""
        pieces = json.loads(qemu_img("map", "--output=json", path).stdout)
        found = {p["depth"] == 0 for p in pieces if p["start"] < last << 20 and p["start"] + p["length"] > first << 20}
        assert len(found) == 1, (path, first, last, pieces)
        return found.pop()

    read = "dd if=/dev/vda bs=1M skip={} count=4 2>/dev/null | md5sum"
    assert guest.ask(read.format(8)).split()[0] == hashlib.md5(content.read_bytes()[8 << 20:12 << 20]).hexdigest()
    guest.ask("dd if=/dev/zero of=/dev/vda bs=4096 seek=5000 count=1 conv=fsync 2>&1")
    home.do("snapshot", "web", "one")
    upper = home.inspect("web")["config"]["disk"][0]["path"]
    assert guest.ask(read.format(30)).split()[0] == hashlib.md5(content.read_bytes()[30 << 20:34 << 20]).hexdigest()
    guest.ask("dd if=/dev/zero of=/dev/vda bs=4096 seek=5000 count=1 conv=fsync 2>&1")
    home.do("kill", "web")
    assert own(top, 8, 12) and not own(top, 24, 40)
    assert own(upper, 30, 34) and not own(upper, 36, 40)
    for path in (top, upper):
        qemu_img("check", "-q", path)
    assert "choose one" in home.run("run", "--disk", f"{top},readonly,copy-on-read").stderr


def guest_read(guest):
    """The blocks' beginnings, as the guest reads them, at their places."""
    data = bytearray(SIZE)
    guest.ask("echo 3 >/proc/sys/vm/drop_caches")
    for i in range(BLOCKS):
        at = i * STRIDE * 4096
        data[at:at + 8] = guest.ask(f"dd if=/dev/vda bs=4096 skip={i * STRIDE} count=1 2>/dev/null | head -c 8").encode()
    return bytes(data)


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_stream_killed(home, tmp_path, suite, content):
    """The command is killed, then the VM process, at any moment: the disk is what it was, and is filled the next time."""
    moments = random.Random(seed := random.randrange(1 << 32))
    guest = run_guest(tmp_path, suite, content)
    original = content.read_bytes()
    home.do("snapshot", "web", "one")
    guest.ask("printf %08d 7 | dd of=/dev/vda bs=4096 seek=0 conv=sync,fsync,notrunc 2>/dev/null")
    path = home.inspect("web")["config"]["disk"][0]["path"]

    def check(number):
        data = raw(path, tmp_path)
        assert data[:4096] == f"{number:08}".encode() + bytes(4088) and data[4096:] == original[4096:], f"seed {seed}"
        check_whole(path)

    for i in range(KILLS):
        child = home.popen("stream", "web", "--disk", "vda", "--rate", "5M")
        time.sleep(moments.uniform(0.05, 1.1))
        child.kill()
        assert child.wait(timeout=60) in (-9, 0 if KILLS > 4 else -9), "it was at it"
        # The VM process sees that nobody is there any more, and the disk is free for the next one.
        guest.ask(f"printf %08d {i + 8} | dd of=/dev/vda bs=4096 seek=0 conv=sync,fsync,notrunc 2>/dev/null")
        wait_until(lambda: home.run("update", "web", "--disk", "vda,size=64M").returncode == 0, "it is not copied any more")
        assert guest.ask("dd if=/dev/vda bs=8 count=1 2>/dev/null") == f"{i + 8:08}", f"seed {seed}"
    last = KILLS + 7
    for i in range(KILLS):
        child = home.popen("stream", "web", "--disk", "vda", "--rate", "5M")
        time.sleep(moments.uniform(0.05, 1.1))
        os.kill(home.inspect("web")["vm"], signal.SIGKILL)
        _, said = child.communicate(timeout=60)
        assert child.returncode in (0, 1), (said, seed)
        wait_until(lambda: home.states()["web"] not in ("running", "paused"), "it has ended")
        check(last)
        (home.path / "guests/web/console.log").unlink(missing_ok=True)
        home.do("start", "web")
        wait_until(lambda: "# " in home.log("web"), "it has booted")
    result = home.run("stream", "web", "--disk", "vda")
    assert result.returncode == 0 or "based on nothing" in result.stderr, result
    assert "backing file" not in qemu_img("info", "-U", path).stdout
    home.do("kill", "web")
    check(last)
    home.do("restore", "web", "one")
    assert raw(home.inspect("web")["config"]["disk"][0]["path"], tmp_path) == original, f"seed {seed}"


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_pivot(home, tmp_path, suite, content):
    """The guest goes on in its disk's mirror while it writes, over snapshots, backups and its next start."""
    guest = run_guest(tmp_path, suite, content)
    original = content.read_bytes()
    (tmp_path / "there").touch()
    assert "is no new file" in home.fail("mirror", "web", "--disk", "vda", "--pivot", tmp_path / "there")
    assert "a raw or qcow2 file" in home.fail("mirror", "web", "--disk", "vda", "--pivot", "-O", "vdi", tmp_path / "new")
    begin_writing(guest)
    (tmp_path / "backups").mkdir()
    home.do("backup", "web", tmp_path / "backups")
    home.do("snapshot", "web", "one")

    def at():
        return home.inspect("web")["config"]["disk"][0]

    def pivot(name, *words):
        said = home.do("mirror", "web", "--disk", "vda", "--pivot", tmp_path / name, *words)
        assert backed_up(said)["vda"] == (str(tmp_path / name), "in all")
        assert at()["path"] == str(tmp_path / name)

    before = at()["path"]
    pivot("first.qcow2")
    assert at()["format"] == "qcow2"
    newest = rounds(guest_read(guest))[0]
    # Bitmaps go along; snapshots stay; nobody has what it was any more.
    done = backed_up(home.do("backup", "web", tmp_path / "backups"))
    assert {what for _, what in done.values()} == {"changed"}
    assert check_moment([raw(done[disk][0], tmp_path) for disk in ("vda", "vdb")], original) >= newest
    qemu_img("check", "-q", before)
    pivot("second.raw", "--rate", "100M")
    assert at()["format"] == "raw"
    home.do("snapshot", "web", "two")
    upper = at()["path"]
    assert upper != str(tmp_path / "second.raw")
    pivot("third.qcow2")
    wait_until(lambda: rounds(guest_read(guest))[0] > newest + 1, "it writes on")
    guest.ask("kill %1; wait; sync; true")
    last = guest_read(guest)
    home.do("kill", "web")
    found = raw(at()["path"], tmp_path)
    assert rounds(found) == rounds(last) and found[4096:STRIDE * 4096] == original[4096:STRIDE * 4096]
    qemu_img("check", "-q", at()["path"])
    assert "is not" not in home.run("mirror", "web", "--disk", "vda", "--pivot", tmp_path / "x").stdout
    assert "does not run" in home.fail("mirror", "web", "--disk", "vda", "--pivot", tmp_path / "x")
    (home.path / "guests/web/console.log").unlink()
    home.do("start", "web")
    wait_until(lambda: "# " in home.log("web"), "it boots from there")
    home.do("kill", "web")
    for name in ("one", "two"):
        home.do("restore", "web", name)
        assert raw(at()["path"], tmp_path)[4096:STRIDE * 4096] == original[4096:STRIDE * 4096]


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_pivot_killed(home, tmp_path, suite, content):
    """The command, the VM process or the supervisor is killed at any moment: the guest's disk is the old one or the new
    one, and either has all that was written."""
    moments = random.Random(seed := random.randrange(1 << 32))
    run_guest(tmp_path, suite, content).close()
    wait_until(lambda: home.states()["web"] not in ("running", "starting"), "its terminal is gone")
    original = content.read_bytes()
    newest, runs = 0, False
    for i in range(KILLS):
        if not runs:
            (home.path / "guests/web/console.log").unlink(missing_ok=True)
            home.do("start", "web")
            wait_until(lambda: "# " in home.log("web"), "it boots")
            typing = home.say("web", f"(g={newest + 1}; {WRITER.partition(';')[2]}) >/dev/null 2>&1 &\n")
            time.sleep(1.5)
            typing.kill()
            typing.communicate()
        victim = ["vm", "supervisor", "command"][i % 3]
        child = home.popen("mirror", "web", "--disk", "vda", "--pivot", tmp_path / f"t{i}.qcow2", "--rate", "60M")
        time.sleep(moments.uniform(0.05, 1.6))
        pid = child.pid if victim == "command" else home.inspect("web")[victim]
        os.kill(pid, signal.SIGKILL)
        child.communicate(timeout=60)
        told = f"seed {seed}, round {i}: {victim}, {child.returncode}"
        runs = victim == "command"
        if runs:
            time.sleep(0.5)
            assert home.states()["web"] == "running", told
            home.do("snapshot", "web", f"s{i}")
            continue
        wait_until(lambda: home.states()["web"] not in ("running", "paused"), "it has ended")
        paths = [disk["path"] for disk in home.inspect("web")["config"]["disk"]]
        now = check_moment([raw(path, tmp_path) for path in paths], original)
        assert now > newest, told
        newest = now
        for path in paths:
            check_whole(path)
    home.run("kill", "web")
    check_moment([raw(disk["path"], tmp_path) for disk in home.inspect("web")["config"]["disk"]], original)

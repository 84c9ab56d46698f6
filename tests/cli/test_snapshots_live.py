# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots and clones of a virtual machine that runs and writes to two disks all the while. One boot for all of it."""
import os
import random
import re
import signal
import subprocess
import time

import pytest

import program
from disk_programs import disk
from life import run_with_disks, wait_until
from test_snapshots import check_files, expect, layers, rows, shows, snapshots

pytestmark = pytest.mark.skipif("soft" not in program.engines(), reason="this host can't run the engine soft")

PAUSE_MS = 2000  # on a host that does ten other things; a few on an idle one
KILLS = int(os.environ.get("TABIQUE_LIVE_SNAPSHOT_KILLS", "6"))


def run_guest(tmp_path, suite):
    paths = [tmp_path / f"d{i}.qcow2" for i in range(2)]
    for path in paths:
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True, timeout=60)
    return run_with_disks(suite, *[f"{path},format=qcow2" for path in paths])


def put(guest, value):
    """The same byte all over the first 64 KiB of both disks, on the disk."""
    for disk in "ab":
        guest.ask(f"tr '\\0' '\\{value:03o}' </dev/zero | dd of=/dev/vd{disk} bs=64k count=1 iflag=fullblock conv=fsync 2>&1")


def shown(guest):
    """What the guest finds there, past its own cache."""
    guest.ask("sync; echo 3 >/proc/sys/vm/drop_caches")
    return [int(guest.ask(f"dd if=/dev/vd{disk} bs=64k count=1 2>/dev/null | od -An -tu1 -w1 -v | sort -u").strip())
            for disk in "ab"]


def paused(home, *command):
    said = home.do(*command)
    ms = float(re.search(r"web stood still for ([0-9.]+) ms; ", said).group(1))
    assert 0 < ms < PAUSE_MS, said
    return ms


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_running(home, tmp_path, suite):
    guest = run_guest(tmp_path, suite)
    put(guest, 1)
    pauses = [paused(home, "snapshot", "web", "one", "--description", "both have 1")]
    assert shown(guest) == [1, 1]
    put(guest, 2)
    assert shown(guest) == [2, 2]
    assert "has a snapshot 'one' already" in home.fail("snapshot", "web", "one")
    assert shown(guest) == [2, 2], "after one that was not made it goes on in the old files"
    check_files(home)

    # It writes all the while.
    guest.ask("(while :; do dd if=/dev/urandom of=/dev/vda bs=4k count=64 seek=512 conv=fsync; done) >/dev/null 2>&1 & "
              "(while :; do dd if=/dev/urandom of=/dev/vdb bs=4k count=64 seek=512; done) >/dev/null 2>&1 &")
    for i in range(4):
        pauses.append(paused(home, "snapshot", "web", f"busy-{i}"))
    assert home.do("clone", "web", "copy") == "copy\n"
    assert shows(home, "copy", {0: 2}) and home.states() == {"web": "running", "copy": "stopped"}
    guest.ask("kill $(jobs -p) 2>/dev/null; kill %1 %2; wait; true")
    print(f"paused for {pauses} ms")
    check_files(home)

    before = len(layers(home, "web"))
    for name in ("busy-0", "busy-1", "busy-2"):
        home.do("snapshot-rm", "web", name)
        assert shown(guest) == [2, 2]
    assert len(layers(home, "web")) < before
    check_files(home)

    # A restart inside finds the same disks; the guest is taken back and started again.
    put(guest, 3)
    home.do("restore", "web", "one")
    wait_until(lambda: home.states()["web"] == "running", "it runs again")
    home.do("kill", "web")
    for disk in (0, 1):
        expect(home, "web", {0: 1}, disk=disk)
        expect(home, "copy", {0: 2}, disk=disk)
    home.do("restore", "web", "busy-3")
    for disk in (0, 1):
        expect(home, "web", {0: 2}, disk=disk)
    home.do("snapshot-rm", "web", "one")
    home.do("snapshot-rm", "web", "busy-3")
    for disk in (0, 1):
        expect(home, "web", {0: 2}, disk=disk)
        expect(home, "copy", {0: 2}, disk=disk)
    check_files(home)
    home.do("rm", "copy")
    home.do("rm", "web")
    assert rows(home, "SELECT * FROM layers") == []


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_supervisor_killed_while_it_is_asked(home, tmp_path, suite):
    """Whatever moment that is: the guest starts again, and has the old state or the new one."""
    moments = random.Random(seed := random.randrange(1 << 32))
    guest = run_guest(tmp_path, suite)
    put(guest, 7)
    names = set()
    for i in range(KILLS):
        supervisor = home.inspect("web")["supervisor"]
        verb = moments.choice(["snapshot", "clone"])
        child = home.popen(verb, "web", f"x{i}")
        time.sleep(moments.uniform(0.01, 0.25))
        os.kill(supervisor, signal.SIGKILL)
        child.communicate()
        there, told = set(snapshots(home, "web")), f"seed {seed}, round {i}: {verb}"
        assert names <= there <= names | {f"x{i}"}, told
        names = there
        for clone in set(home.states()) - {"web"}:
            assert shows(home, clone, {0: 7}), told
            home.do("rm", clone)
        assert shows(home, "web", {0: 7}), told
        home.do("snapshot", "web", f"after-{i}")
        names.add(f"after-{i}")
        check_files(home)
        home.do("start", "web")
    home.do("kill", "web")
    for name in names:
        home.do("restore", "web", name)
        assert shows(home, "web", {0: 7}), name


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_limits_and_another_size(home, tmp_path, suite):
    """Changed while it runs, kept for later, and undone."""
    guest = run_guest(tmp_path, suite)

    def seconds_for(writes):
        """So many single requests of 4 KiB, each on the disk before the next."""
        began = time.monotonic()
        guest.ask(f"i=0; while [ $i -lt {writes} ]; do dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync 2>/dev/null; "
                  "i=$((i+1)); done")
        return time.monotonic() - began

    seconds_for(1)
    free = seconds_for(60)
    home.do("update", "web", "--disk", "vda,iops=10")
    limited = seconds_for(60)
    assert limited > 5 and limited > 2 * free - 1, (free, limited)
    began = time.monotonic()
    home.do("update", "web", "--disk", "vda,iops=0,bps-write=1M,bps-burst=64K")
    guest.ask("dd if=/dev/zero of=/dev/vda bs=64k count=64 conv=fsync 2>/dev/null")
    assert time.monotonic() - began > 2.5, "4 MiB at 1 MiB a second, of which the last may be on credit"
    # A snapshot ends no sooner for a request that waits for hours.
    home.do("update", "web", "--disk", "vda,bps-write=1,bps-burst=1")
    write = "dd if=/dev/zero of=/dev/vda bs=64k count=1 conv=fsync 2>/dev/null; "
    guest.send((write * 3 + "echo all is written\r").encode())  # the first goes on credit
    time.sleep(1)
    assert paused(home, "snapshot", "web", "throttled") < PAUSE_MS
    home.do("update", "web", "--disk", "vda,bps-write=0")
    guest.expect(rb"all is written\r\n" + program.PROMPT, program.BOOT)
    assert seconds_for(20) < limited

    assert guest.ask("cat /sys/block/vdb/size") == str((64 << 20) // 512)
    home.do("update", "web", "--disk", "vdb,size=96M,iops-read=5000")
    wait_until(lambda: guest.ask("cat /sys/block/vdb/size") == str((96 << 20) // 512), "the guest knows of it")
    assert "capacity change" in guest.ask("dmesg")
    guest.ask("dd if=/dev/zero of=/dev/vdb bs=64k seek=1500 count=1 conv=fsync 2>&1")
    assert guest.ask("dd if=/dev/vdb bs=64k skip=1500 count=1 2>/dev/null | wc -c") == "65536"
    assert "has no disk vdz" in home.fail("update", "web", "--disk", "vdz,iops=1")
    config = home.inspect("web")["config"]["disk"]
    assert config[1]["iops-read"] == 5000 and "iops" not in config[0]
    home.do("kill", "web")
    home.do("update", "web", "--disk", "vdb,size=128M,iops-read=0")
    info = subprocess.run(["qemu-img", "info", config[1]["path"]], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "128 MiB" in info and "iops-read" not in home.inspect("web")["config"]["disk"][1]
    home.do("snapshot", "web", "large")
    home.do("snapshot-rm", "web", "large")
    home.do("snapshot-rm", "web", "throttled")
    assert len(layers(home, "web")) == 2, "merged into what was smaller"
    path = home.inspect("web")["config"]["disk"][1]["path"]
    subprocess.run(["qemu-img", "check", "-q", path], check=True, timeout=60)
    assert "128 MiB" in subprocess.run(["qemu-img", "info", path], capture_output=True, text=True, check=True, timeout=60).stdout
    assert home.run("update", "web", "--disk", "vda,iops=x").returncode == 2


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_a_disk_in_several_files(home, tmp_path, suite):
    """A VMDK in two files and a VHDX on top of another, as a guest's disks; with a snapshot all of their files can be read."""
    split, base, child = tmp_path / "a.vmdk", tmp_path / "base.vhdx", tmp_path / "child.vhdx"
    disk("create", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", split, "3G")
    disk("create", "-f", "vhdx", base, "64M")
    disk("create", "-f", "vhdx", "-b", base, "-F", "vhdx", child)
    guest = run_with_disks(suite, f"{split},format=vmdk", f"{child},format=vhdx")
    put(guest, 1)
    guest.ask("tr '\\0' '\\005' </dev/zero | dd of=/dev/vda bs=64k count=1 seek=40960 iflag=fullblock conv=fsync 2>&1")  # 2.5 GiB
    for image in (split, child):
        assert "in use" in disk("convert", "--follow", image, tmp_path / "x", status=1).stderr
    paused(home, "snapshot", "web", "one")
    put(guest, 2)
    for image, far in ((split, 2560 << 20), (child, None)):
        disk("convert", "--follow", "-O", "raw", image, tmp_path / "x")
        with open(tmp_path / "x", "rb") as copy:
            assert copy.read(65536) == b"\1" * 65536
            if far:
                copy.seek(far)
                assert copy.read(65536) == b"\5" * 65536
        assert "in use" in disk("resize", "--follow", image, "+1M", status=1).stderr
    assert shown(guest) == [2, 2]
    home.do("kill", "web")

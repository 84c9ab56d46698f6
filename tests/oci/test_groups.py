# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs about a container's control groups: pause, resume, update, ps, events; and what the groups do."""
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "cli"))
from life import wait_until  # noqa: E402

V1 = pathlib.Path("/sys/fs/cgroup/memory")
COUNT = ["sh", "-c", "i=0; while :; do i=$((i + 1)); echo $i >/tmp/n; done"]


def group_of(pid, controller):
    """The directory of a process's group."""
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return pathlib.Path("/sys/fs/cgroup") / controllers / path.lstrip("/")
        unified = pathlib.Path("/sys/fs/cgroup") / path.lstrip("/")
        if number == "0" and (unified / "cgroup.procs").exists():
            found = unified
    return found


def limit_of(pid, v1, v2):
    """What the file of the controller says; names as memory.limit_in_bytes and memory.max."""
    for name in (v1, v2):
        path = group_of(pid, name.split(".")[0]) / name
        if path.exists():
            return path.read_text().strip()
    raise AssertionError(f"neither {v1} nor {v2}")


@pytest.fixture(name="idle")
def fixture_idle(bundle):
    """The id of a container that sleeps."""
    return bundle.start("sleep", "1000")


def pid_of(oci, name):
    return oci.status(name)["pid"]


def lives(pid):
    """Whether a process is there, and not only waits for somebody to ask how it ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


# ---- pause, resume ----


def test_pause(bundle, oci):
    name = bundle.start(*COUNT)
    counter = bundle.rootfs / "tmp/n"
    wait_until(counter.exists, "it counts")
    oci("pause", name)
    assert oci.status(name)["status"] == "paused"
    before = counter.read_text()
    time.sleep(0.3)
    assert counter.read_text() == before
    refused = oci("exec", name, "true", check=False)
    assert refused.returncode and "paused" in refused.stderr
    with subprocess.Popen([oci.program, "--root", oci.state, "exec", "--ignore-paused", name, "true"]) as waiting:
        time.sleep(0.3)
        assert waiting.poll() is None  # it is at rest with the others
        oci("resume", name)
        assert waiting.wait(30) == 0
    oci("pause", name)
    before = counter.read_text()
    again = oci("pause", name, check=False)
    assert again.returncode == 1 and "paused already" in again.stderr
    oci("resume", name)
    assert oci.status(name)["status"] == "running"
    wait_until(lambda: counter.read_text() != before, "it counts on")
    refused = oci("resume", name, check=False)
    assert refused.returncode == 1 and "container not paused" in refused.stderr


def test_a_paused_container_is_killed_and_deleted(bundle, oci):
    name = bundle.start("sleep", "1000")
    pid = pid_of(oci, name)
    oci("pause", name)
    oci("kill", name, "KILL")
    wait_until(lambda: oci.status(name)["status"] == "stopped", "it ends")
    oci("delete", name)
    name = bundle.start("sleep", "1000")
    oci("pause", name)
    oci("delete", "--force", name)
    assert not lives(pid)


def test_no_pause_of_what_does_not_run(bundle, oci):
    name = bundle.start("true")
    wait_until(lambda: oci.status(name)["status"] == "stopped", "it ends")
    for verb in ("pause", "resume"):
        refused = oci(verb, name, check=False)
        assert refused.returncode == 1 and "container not running" in refused.stderr
    refused = oci("pause", "no-such-one", check=False)
    assert refused.returncode == 1 and "container does not exist" in refused.stderr


# ---- ps ----


def test_ps(bundle, oci):
    name = bundle.start("sh", "-c", "sleep 1001 & sleep 1002 & wait")
    wait_until(lambda: len(json.loads(oci("ps", "--format", "json", name).stdout)) == 3, "three run")
    pids = json.loads(oci("ps", "--format", "json", name).stdout)
    assert pids == sorted(pids) and pid_of(oci, name) in pids
    table = oci("ps", name).stdout.splitlines()
    assert table[0].split()[:2] == ["UID", "PID"] and len(table) == 4
    assert sorted(int(line.split()[1]) for line in table[1:]) == pids
    table = oci("ps", name, "-eo", "pid,args").stdout
    assert "sleep 1001" in table and "sleep 1002" in table and len(table.splitlines()) == 4
    refused = oci("ps", name, "-eo", "args", check=False)
    assert refused.returncode == 1 and "no column PID" in refused.stderr
    refused = oci("ps", "--format", "xml", name, check=False)
    assert refused.returncode == 1 and "table or json" in refused.stderr


# ---- update ----


def test_update(idle, oci):
    pid = pid_of(oci, idle)
    oci("update", "--memory", "64m", "--memory-swap", "64M", "--pids-limit", "77", "--cpu-share", "512", "--cpu-quota", "50000",
        "--cpu-period", "200000", "--cpuset-cpus", "0", idle)
    assert limit_of(pid, "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert limit_of(pid, "pids.max", "pids.max") == "77"
    assert limit_of(pid, "cpu.shares", "cpu.weight") in ("512", "20")
    assert limit_of(pid, "cpuset.cpus", "cpuset.cpus") == "0"
    assert limit_of(pid, "cpu.cfs_quota_us", "cpu.max") in ("50000", "50000 200000")
    # Up and down again, and what is not told stays.
    oci("update", "--memory", "128m", "--memory-swap", "256m", idle)
    assert limit_of(pid, "memory.limit_in_bytes", "memory.max") == str(128 << 20)
    oci("update", "--memory", "32m", "--memory-swap", "32m", "--cpu-quota", "-1", idle)
    assert limit_of(pid, "memory.limit_in_bytes", "memory.max") == str(32 << 20)
    assert limit_of(pid, "cpu.cfs_quota_us", "cpu.max") in ("-1", "max 200000")
    assert limit_of(pid, "pids.max", "pids.max") == "77"


def test_update_from_json(idle, oci):
    limits = json.dumps({"memory": {"limit": 50 << 20}, "pids": {"limit": 33}})
    oci("update", "--resources", "-", idle, stdin=None, input=limits)
    assert limit_of(pid_of(oci, idle), "memory.limit_in_bytes", "memory.max") == str(50 << 20)
    assert limit_of(pid_of(oci, idle), "pids.max", "pids.max") == "33"


@pytest.mark.parametrize("args, complaint", [
    (["--memory", "much"], "--memory much: a size as 512m is expected"),
    (["--pids-limit", "1x"], "--pids-limit 1x: a number is expected"),
    (["--blkio-weight", "5"], "linux.resources.blockIO.weight: 5 is not within 10..1000"),
    (["--cpuset-cpus", "0-9999"], "linux.resources.cpu.cpus: writing 0-9999 into"),
    (["--resources", "/no/such/file"], "--resources /no/such/file"),
])
def test_update_refuses(idle, oci, args, complaint):
    refused = oci("update", *args, idle, check=False)
    assert refused.returncode == 1 and complaint in refused.stderr, refused.stderr


def test_update_of_devices(bundle, oci):
    """The list is replaced as a whole, and what every container has stays."""
    bundle.capabilities("CAP_MKNOD", "CAP_DAC_OVERRIDE")
    name = bundle.start("sleep", "1000")
    # Nobody has this number: who may open it learns that.
    script = "rm -f /tmp/k; mknod /tmp/k c 240 7; cat /tmp/k 2>&1; echo >/dev/null && echo null"
    forbidden, allowed = "cat: can't open '/tmp/k': Operation not permitted\nnull\n", "cat: can't open '/tmp/k': No such device or address\nnull\n"
    assert oci("exec", name, "sh", "-c", script, check=False).stdout == forbidden
    rules = [{"allow": False}, {"allow": True, "type": "c", "major": 240, "minor": 7, "access": "r"}]
    oci("update", "--resources", "-", name, stdin=None, input=json.dumps({"devices": rules}))
    assert oci("exec", name, "sh", "-c", script, check=False).stdout == allowed
    oci("update", "--resources", "-", name, stdin=None, input=json.dumps({"devices": [{"allow": False}]}))
    assert oci("exec", name, "sh", "-c", script, check=False).stdout == forbidden


# ---- events ----


def test_stats(bundle, oci):
    bundle.linux["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 20}}
    name = bundle.start("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done; sleep 1000")
    wait_until(lambda: json.loads(oci("events", "--stats", name).stdout)["data"]["cpu"]["usage"]["total"] > 10 ** 8, "it has computed")
    event = json.loads(oci("events", "--stats", name).stdout)
    assert (event["type"], event["id"]) == ("stats", name)
    data = event["data"]
    assert set(data) >= {"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt"}
    assert data["memory"]["usage"]["limit"] == 64 << 20
    assert 0 < data["memory"]["usage"]["usage"] < 64 << 20
    assert data["pids"]["limit"] == 20 and data["pids"]["current"] >= 1
    assert data["cpu"]["usage"]["user"] + data["cpu"]["usage"]["kernel"] > 0


def test_events_tell_of_memory(bundle, oci):
    bundle.linux["resources"] = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    name = bundle.start("sh", "-c", "sleep 1; tail /dev/zero; sleep 2")
    with subprocess.Popen([oci.program, "--root", oci.state, "events", "--interval", "200ms", name], stdout=subprocess.PIPE,
                          text=True) as events:
        lines = [json.loads(line) for line in events.communicate(timeout=60)[0].splitlines()]
    assert events.returncode == 0
    assert [line["type"] for line in lines].count("oom") == 1
    assert [line["type"] for line in lines].count("stats") > 3
    refused = oci("events", name, check=False)
    assert refused.returncode == 1 and "is not running" in refused.stderr
    refused = oci("events", "--interval", "5", name, check=False)
    assert refused.returncode == 1 and "as 5s or 500ms" in refused.stderr


# ---- the groups themselves ----


def test_limits_of_the_configuration(bundle, oci):
    bundle.linux["resources"] = {"memory": {"limit": 32 << 20, "reservation": 16 << 20}, "pids": {"limit": 5},
                                 "cpu": {"shares": 2048, "quota": 30000, "period": 100000, "cpus": "0"}}
    bundle.linux["cgroupsPath"] = "/tabique-tests/limits"
    name = bundle.start("sleep", "1000")
    pid = pid_of(oci, name)
    assert limit_of(pid, "memory.limit_in_bytes", "memory.max") == str(32 << 20)
    assert limit_of(pid, "memory.soft_limit_in_bytes", "memory.low") == str(16 << 20)
    assert limit_of(pid, "cpu.shares", "cpu.weight") in ("2048", "79")
    assert str(group_of(pid, "memory")).endswith("/tabique-tests/limits")
    said = oci("exec", name, "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 3 & done", check=False)
    assert "can't fork" in said.stderr or "Resource temporarily unavailable" in said.stderr, said
    taken = bundle.create("true", check=False)
    assert taken.returncode and "has processes in it" in taken.stderr
    oci("delete", "--force", name)
    for top, directories, _ in os.walk("/sys/fs/cgroup"):
        assert "limits" not in directories or not top.endswith("tabique-tests")
    for tree in pathlib.Path("/sys/fs/cgroup").glob("**/tabique-tests"):
        tree.rmdir()


def test_a_limit_that_can_not_be_leaves_nothing(bundle, oci):
    bundle.linux["resources"] = {"cpu": {"cpus": "4000"}}
    bundle.linux["cgroupsPath"] = "/tabique-tests-bad"
    refused = bundle.create("true", check=False)
    assert refused.returncode == 1 and "linux.resources.cpu.cpus" in refused.stderr
    # Others' groups come and go meanwhile, which os.walk takes.
    assert not [at for at, below, _ in os.walk("/sys/fs/cgroup") if "tabique-tests-bad" in below]


def test_half_a_mebibyte_is_enough(bundle):
    bundle.linux["resources"] = {"memory": {"limit": 512 << 10}}
    assert bundle.run("true").returncode == 0


def test_the_loopback_interface_is_up(bundle):
    assert bundle.sh("(echo hello | busybox nc -l -p 7000 &) ; sleep 0.5; busybox nc 127.0.0.1 7000") == "hello\n"

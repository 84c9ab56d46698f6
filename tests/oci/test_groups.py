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
    """The directory of a process's group: in v1's tree of the controller, or else in v2's."""
    found = None
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return pathlib.Path("/sys/fs/cgroup") / controllers / path.lstrip("/")
        if number == "0":
            mixed = pathlib.Path("/sys/fs/cgroup/unified")
            found = (mixed if mixed.is_dir() else mixed.parent) / path.lstrip("/")
    assert found, f"no group of {pid} for {controller}"
    return found


def groups_called(name):
    """Others' groups come and go meanwhile, which os.walk takes."""
    return [pathlib.Path(top, d) for top, directories, _ in os.walk("/sys/fs/cgroup") for d in directories if d == name]


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
    for tree in groups_called("tabique-tests"):
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


# ---- each kind of limit, where this host has it ----


def available(pid, *names):
    """The first of these files that the process's groups have, as (path, name); skips the test where a kernel has none."""
    for name in names:
        path = group_of(pid, name.split(".")[0]) / name
        if path.exists():
            return path
    return pytest.skip(f"this host's kernel has none of {', '.join(names)}")


def start_with(bundle, resources):
    bundle.linux["resources"] = resources
    return bundle.start("sleep", "1000")


def test_memory_properties(bundle, oci):
    name = start_with(bundle, {"memory": {"limit": 64 << 20, "swap": 80 << 20, "swappiness": 7, "kernelTCP": 1 << 20, "kernel": 1 << 20,
                                          "useHierarchy": True}})
    pid = pid_of(oci, name)
    assert limit_of(pid, "memory.memsw.limit_in_bytes", "memory.swap.max") in (str(80 << 20), str(16 << 20))
    if (group_of(pid, "memory") / "memory.swappiness").exists():
        assert limit_of(pid, "memory.swappiness", "memory.swappiness") == "7"
        assert limit_of(pid, "memory.kmem.tcp.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes") == str(1 << 20)


def test_without_an_oom_killer(bundle, oci):
    """v1 lets who asks for too much wait; v2 has no such thing."""
    name = start_with(bundle, {"memory": {"limit": 16 << 20, "swap": 16 << 20, "disableOOMKiller": True}})
    path = available(pid_of(oci, name), "memory.oom_control")
    assert "oom_kill_disable 1" in path.read_text()
    with subprocess.Popen([oci.program, "--root", oci.state, "exec", name, "sh", "-c", "x=aaaaaaaa; while :; do x=$x$x; done"]) as greedy:
        wait_until(lambda: "under_oom 1" in path.read_text(), "it waits for memory")
        assert greedy.poll() is None
        oci("kill", "--all", name, "KILL")
        assert greedy.wait(60) == 137


def test_check_before_update(idle, oci):
    limits = json.dumps({"memory": {"limit": 4096, "checkBeforeUpdate": True}})
    refused = oci("update", "--resources", "-", idle, stdin=None, input=limits, check=False)
    assert refused.returncode == 1 and "linux.resources.memory.limit: 4096 is less than the" in refused.stderr


def test_cpu_burst_and_idle(bundle, oci):
    name = start_with(bundle, {"cpu": {"quota": 50000, "period": 100000, "burst": 20000, "mems": "0"}})
    pid = pid_of(oci, name)
    assert available(pid, "cpu.cfs_burst_us", "cpu.max.burst").read_text().strip() == "20000"
    assert limit_of(pid, "cpuset.mems", "cpuset.mems") == "0"
    oci("update", "--cpu-quota", "30000", "--cpu-burst", "10000", "--cpu-idle", "1", name)
    assert available(pid, "cpu.cfs_burst_us", "cpu.max.burst").read_text().strip() == "10000"
    assert available(pid, "cpu.idle").read_text().strip() == "1"


def disk():
    """A whole disk of this host, as "major:minor"."""
    for path in sorted(pathlib.Path("/sys/block").iterdir()):
        if path.name.startswith(("vd", "sd", "nvme", "xvd")):
            return (path / "dev").read_text().strip()
    return pytest.skip("this host has no disk")


def test_block_io(bundle, oci):
    major, minor = disk().split(":")
    limit = [{"major": int(major), "minor": int(minor), "rate": 1 << 20}]
    name = start_with(bundle, {"blockIO": {"throttleReadBpsDevice": limit, "throttleWriteBpsDevice": limit,
                                           "throttleReadIOPSDevice": limit, "throttleWriteIOPSDevice": limit}})
    pid = pid_of(oci, name)
    if (group_of(pid, "blkio") / "blkio.throttle.read_bps_device").exists():
        for kind in ("read_bps", "write_bps", "read_iops", "write_iops"):
            assert (group_of(pid, "blkio") / f"blkio.throttle.{kind}_device").read_text() == f"{major}:{minor} {1 << 20}\n"
    else:
        assert available(pid, "io.max").read_text() == f"{major}:{minor} rbps={1 << 20} wbps={1 << 20} riops={1 << 20} wiops={1 << 20}\n"


def test_a_weight_is_set_or_refused(bundle, oci):
    bundle.linux["resources"] = {"blockIO": {"weight": 500}}
    done = bundle.create("sleep", "1000", check=False)
    if done.returncode:
        assert "linux.resources.blockIO.weight: " in done.stderr and "leave it out" in done.stderr
    else:
        name, = oci.ids
        assert available(pid_of(oci, name), "blkio.bfq.weight", "blkio.weight", "io.bfq.weight", "io.weight").read_text().split()[-1] \
            in ("500", "4950")


def test_huge_pages(bundle, oci):
    name = start_with(bundle, {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]})
    assert available(pid_of(oci, name), "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max").read_text().strip() == str(4 << 20)
    data = json.loads(oci("events", "--stats", name).stdout)["data"]
    assert data["hugetlb"]["2MB"]["usage"] == 0


def test_files_of_v2(bundle, oci):
    """`unified`, in the v2 tree of a host that has one; what is not there is told."""
    if not any(pathlib.Path("/sys/fs/cgroup", where, "cgroup.controllers").exists() for where in ("", "unified")):
        bundle.linux["resources"] = {"unified": {"cgroup.max.depth": "7"}}
        refused = bundle.create("true", check=False)
        assert refused.returncode == 1 and "linux.resources.unified: this host has cgroup v1 alone" in refused.stderr
        return
    name = start_with(bundle, {"unified": {"cgroup.max.depth": "7"}})
    assert (group_of(pid_of(oci, name), "v2") / "cgroup.max.depth").read_text() == "7\n"
    bundle.linux["resources"] = {"unified": {"nothing.max": "7"}}
    refused = bundle.create("true", check=False)
    assert refused.returncode == 1 and "linux.resources.unified.nothing.max" in refused.stderr


@pytest.mark.parametrize("resources, complaint", [
    ({"rdma": {"mlx5_1": {"hcaHandles": 1}}}, "linux.resources.rdma: "),
    ({"network": {"classID": 5}}, "linux.resources.network"),
    ({"network": {"priorities": [{"name": "lo", "priority": 5}]}}, "linux.resources.network"),
    ({"cpu": {"realtimeRuntime": 10 ** 9}}, "linux.resources.cpu.realtimeRuntime"),
    ({"cpu": {"shares": 10 ** 9}}, "linux.resources.cpu.shares: 1000000000 is too much"),
])
def test_what_this_host_lacks_is_told(bundle, resources, complaint):
    """Never left out in silence: either it holds or the container is not made."""
    bundle.linux["resources"] = resources
    done = bundle.create("true", check=False)
    if done.returncode == 0:
        pytest.skip("this host has it")
    assert done.returncode == 1 and complaint in done.stderr, done.stderr

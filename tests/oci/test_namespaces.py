# SPDX-License-Identifier: GPL-2.0-or-later
"""config.json's namespaces and what belongs to them: names, clocks, ids, kernel parameters."""
import os
import subprocess
import time

import pytest

KINDS = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "mount": "mnt", "cgroup": "cgroup", "user": "user",
         "time": "time"}
MAPS = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def links(pid):
    return {kind: os.readlink(f"/proc/{pid}/ns/{file}") for kind, file in KINDS.items()}


def without(bundle, *kinds):
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] not in kinds]


def test_new_ones(bundle, oci):
    bundle.linux["namespaces"].append({"type": "time"})
    name = bundle.start("sleep", "1000")
    inside, outside = links(oci.status(name)["pid"]), links("self")
    for kind in KINDS:
        assert (inside[kind] == outside[kind]) == (kind == "user"), kind
    # A process of exec is in all of them.
    out = oci("exec", name, "sh", "-c", "for n in pid net ipc uts mnt cgroup time; do readlink /proc/self/ns/$n; done")
    assert out.stdout.split() == [inside[k] for k in ("pid", "network", "ipc", "uts", "mount", "cgroup", "time")]


@pytest.mark.parametrize("kind", ["network", "ipc", "cgroup"])
def test_inherited(bundle, oci, kind):
    without(bundle, kind)
    if kind == "network":
        bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] not in ("sysfs", "cgroup")]
    name = bundle.start("sleep", "1000")
    assert links(oci.status(name)["pid"])[kind] == links("self")[kind]


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "pid", "time"])
def test_joined(bundle, oci, kind):
    if kind == "time":
        bundle.linux["namespaces"].append({"type": "time"})
    first = bundle.start("sleep", "1000")
    path = f"/proc/{oci.status(first)['pid']}/ns/{KINDS[kind]}"
    for entry in bundle.linux["namespaces"]:
        if entry["type"] == kind:
            entry["path"] = path
    if kind == "uts":
        del bundle.config["hostname"]
    second = bundle.start("sleep", "1001")
    assert links(oci.status(second)["pid"])[kind] == os.readlink(path)
    if kind == "pid":
        assert "sleep 1001" in oci("exec", first, "ps").stdout
    oci("delete", "--force", second)
    assert oci.status(first)["status"] == "running"


def test_wrong_kind_and_missing_path(bundle):
    for path, message in (("/proc/self/ns/uts", "not a namespace of type network"), ("/no/such", "/no/such")):
        for entry in bundle.linux["namespaces"]:
            if entry["type"] == "network":
                entry["path"] = path
        result = bundle.create("true", check=False)
        assert result.returncode == 1 and message in result.stderr


def test_names(bundle):
    bundle.config["hostname"], bundle.config["domainname"] = "inside", "example.org"
    out = bundle.sh("hostname; cat /proc/sys/kernel/domainname; uname -n")
    assert out.splitlines() == ["inside", "example.org", "inside"]
    assert subprocess.run(["hostname"], capture_output=True, text=True, check=True).stdout != "inside\n"


def test_clocks(bundle, oci):
    bundle.linux["namespaces"].append({"type": "time"})
    bundle.linux["timeOffsets"] = {"boottime": {"secs": 86400, "nanosecs": 5}, "monotonic": {"secs": 3600}}
    up = float(bundle.sh("cat /proc/uptime").split()[0])
    assert abs(up - time.clock_gettime(time.CLOCK_BOOTTIME) - 86400) < 30
    assert "3600" in bundle.sh("cat /proc/self/timens_offsets")


def test_sysctl(bundle):
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "12345678", "net.ipv4.ping_group_range": "0 5"}
    out = bundle.sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax; cat /proc/sys/net/ipv4/ping_group_range")
    assert out.split() == ["1", "12345678", "0", "5"]
    bundle.linux["sysctl"] = {"net.ipv4.no_such": "1"}
    result = bundle.run("true", check=False)
    assert result.returncode == 1 and "net.ipv4.no_such" in result.stderr
    without(bundle, "network")
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    assert "host network namespace" in bundle.run("true", check=False).stderr


# ---- user namespaces ----

@pytest.fixture
def mapped(bundle):
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = MAPS
    for path in (bundle.rootfs, *bundle.rootfs.rglob("*")):
        os.chown(path, 100000, 100000, follow_symlinks=False)
    return bundle


def test_user_namespace(mapped, oci):
    name = mapped.start("sleep", "1000")
    pid = oci.status(name)["pid"]
    assert os.stat(f"/proc/{pid}").st_uid == 100000
    out = oci("exec", name, "sh", "-c", "id -u; cat /proc/self/uid_map; touch /x && stat -c %u /x; ls -l /dev/null").stdout
    assert out.split()[:4] == ["0", "0", "100000", "65536"] and "0\n" in out and "1,   3" in out
    assert os.stat(mapped.rootfs / "x").st_uid == 100000
    assert links(pid)["user"] != links("self")["user"]


def test_user_namespace_and_closed_directories(mapped, oci):
    """Its sources may lie where nobody of the container could go."""
    mapped.directory.chmod(0o700)
    source = mapped.directory / "closed"
    source.mkdir(mode=0o755)
    (source / "f").write_text("reached")
    mapped.config["mounts"].append({"destination": "/m", "source": str(source), "options": ["bind", "ro"]})
    assert mapped.sh("cat /m/f") == "reached"


def test_idmap_of_the_container(mapped):
    """Files of root are the container's root's, by the mount's map."""
    source = mapped.directory / "source"
    source.mkdir()
    (source / "f").write_text("x")
    mapped.config["mounts"].append({"destination": "/m", "source": str(source), "options": ["bind", "idmap"]})
    result = mapped.run("sh", "-c", "stat -c %u /m/f; touch /m/new", check=False)
    if "may not have it on this kernel" in result.stderr:
        pytest.skip("this file system has no id-mapped mounts")
    assert result.stdout == "0\n" and os.stat(source / "new").st_uid == 0


def test_joined_user_namespace(mapped, oci):
    first = mapped.start("sleep", "1000")
    pid = oci.status(first)["pid"]
    mapped.linux["namespaces"] = [{"type": "user", "path": f"/proc/{pid}/ns/user"},
                                  *[n for n in mapped.linux["namespaces"] if n["type"] != "user"]]
    second = mapped.start("sleep", "1001")
    other = oci.status(second)["pid"]
    assert links(other)["user"] == links(pid)["user"] and links(other)["pid"] != links(pid)["pid"]
    assert oci("exec", second, "cat", "/proc/1/cmdline").stdout.startswith("sleep")


def test_time_and_user_namespace(mapped):
    mapped.linux["namespaces"].append({"type": "time"})
    mapped.linux["timeOffsets"] = {"boottime": {"secs": 1000}}
    up = float(mapped.sh("cat /proc/uptime").split()[0])
    assert abs(up - time.clock_gettime(time.CLOCK_BOOTTIME) - 1000) < 30


def test_root_must_be_mapped(bundle):
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = [{"containerID": 1, "hostID": 100000, "size": 10}]
    result = bundle.run("true", check=False)
    assert result.returncode == 1 and "id 0 must be mapped" in result.stderr

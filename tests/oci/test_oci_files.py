# SPDX-License-Identifier: GPL-2.0-or-later
"""config.json's root and mounts, devices, masked and read-only paths, seen from inside."""
import os
import stat
import subprocess

import pytest


def mounts_of(text):
    """By mount point: (options of the mount, tags, type, options of the file system), the last that is visible."""
    found = {}
    for line in text.splitlines():
        left, right = line.split(" - ")
        fields = left.split()
        found[fields[4]] = (set(fields[5].split(",")), fields[6:], right.split()[0], set(right.split()[2].split(",")))
    return found


def look(bundle, **options):
    return mounts_of(bundle.sh("cat /proc/self/mountinfo", **options))


def add(bundle, destination, source=None, type=None, options=(), **more):
    mount = {"destination": destination, "options": list(options), **more}
    if source is not None:
        mount["source"] = str(source)
    if type:
        mount["type"] = type
    bundle.config["mounts"].append(mount)


def test_root(bundle):
    assert bundle.sh("echo x > /new && cat /new") == "x\n"
    bundle.config["root"]["readonly"] = True
    result = bundle.run("sh", "-c", "echo x > /other", check=False)
    assert result.returncode == 1 and "Read-only" in result.stderr
    bundle.config["root"]["path"] = str(bundle.rootfs)
    assert bundle.sh("cat /new") == "x\n"


def test_root_that_is_not_there(bundle, oci):
    bundle.config["root"]["path"] = "nowhere"
    result = bundle.run("true", check=False)
    assert result.returncode == 1 and "nowhere" in result.stderr and "root.path" in result.stderr
    bundle.config["root"]["path"] = "config.json"
    assert "no directory" in bundle.run("true", check=False).stderr
    assert not oci.state.exists() or list(oci.state.iterdir()) == []


def test_standard_mounts(bundle):
    found = look(bundle)
    assert found["/proc"][2] == "proc" and found["/sys"][2] == "sysfs" and "ro" in found["/sys"][0]
    assert found["/dev"][2] == "tmpfs" and found["/dev"][0] >= {"nosuid"} and "size=65536k" in found["/dev"][3]
    assert found["/dev/pts"][2] == "devpts" and found["/dev/mqueue"][2] == "mqueue"
    assert found["/dev/shm"][0] >= {"nosuid", "nodev", "noexec"}


@pytest.mark.parametrize("option, present, absent", [
    ("ro", "ro", "rw"), ("nosuid", "nosuid", None), ("nodev", "nodev", None), ("noexec", "noexec", None),
    ("noatime", "noatime", "relatime"), ("nodiratime", "nodiratime", None), ("relatime", "relatime", "noatime"),
    ("strictatime", None, "relatime"), ("nosymfollow", "nosymfollow", None)])
def test_attributes(bundle, option, present, absent):
    (bundle.directory / "source").mkdir()
    add(bundle, "/a", "tmpfs", "tmpfs", [option])
    add(bundle, "/b", bundle.directory / "source", options=["bind", option])
    found = look(bundle)
    for place in ("/a", "/b"):
        assert not present or present in found[place][0]
        assert not absent or absent not in found[place][0]


def test_bind(bundle):
    (bundle.directory / "source/sub").mkdir(parents=True)
    (bundle.directory / "source/file").write_text("text")
    add(bundle, "/dir", "source", options=["rbind", "rw"])  # relative to the bundle
    add(bundle, "/etc/one", bundle.directory / "source/file", "bind", ["ro"])
    add(bundle, "/new/deep/file", bundle.directory / "source/file", options=["bind"])
    out = bundle.sh("cat /dir/file /etc/one /new/deep/file; echo more > /dir/made; echo x > /etc/one 2>&1; echo $?")
    assert out.startswith("texttexttext") and out.endswith("1\n")
    assert (bundle.directory / "source/made").read_text() == "more\n"


def test_recursive_attributes(bundle):
    """rro reaches what is mounted below; ro does not."""
    source = bundle.directory / "source"
    (source / "sub").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source / "sub"], check=True)
    try:
        add(bundle, "/r", source, options=["rbind", "rro", "rnosuid"])
        add(bundle, "/s", source, options=["rbind", "ro"])
        add(bundle, "/n", source, options=["bind"])
        found = look(bundle)
    finally:
        subprocess.run(["umount", source / "sub"], check=True)
    assert {"ro", "nosuid"} <= found["/r"][0] and {"ro", "nosuid"} <= found["/r/sub"][0]
    assert "ro" in found["/s"][0] and "rw" in found["/s/sub"][0]
    assert "/n/sub" not in found


@pytest.mark.parametrize("option, tag", [("rprivate", None), ("private", None), ("rslave", "master"), ("shared", "shared"),
                                         ("rshared", "shared"), ("unbindable", "unbindable")])
def test_propagation(bundle, option, tag):
    (bundle.directory / "source").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", bundle.directory / "source"], check=True)
    try:
        subprocess.run(["mount", "--make-shared", bundle.directory / "source"], check=True)
        add(bundle, "/p", bundle.directory / "source", options=["rbind", option])
        tags = look(bundle)["/p"][1]
    finally:
        subprocess.run(["umount", bundle.directory / "source"], check=True)
    assert [t.split(":")[0] for t in tags] == ([tag] if tag else []) or (option.endswith("shared") and "shared" in tags[0])


@pytest.mark.parametrize("value, tag", [("private", None), ("slave", None), ("shared", "shared"),
                                        ("unbindable", "unbindable")])
def test_root_propagation(bundle, value, tag):
    bundle.linux["rootfsPropagation"] = value
    tags = [t.split(":")[0] for t in look(bundle)["/"][1]]
    assert tag in tags if tag else "shared" not in tags


def test_nothing_is_mounted_on_the_host(bundle, oci):
    before = open("/proc/self/mountinfo").read()
    for value in ("shared", "slave", "private"):
        bundle.linux["rootfsPropagation"] = value
        name = bundle.start("sleep", "1000")
        assert open("/proc/self/mountinfo").read() == before
        oci("delete", "--force", name)


def test_tmpcopyup(bundle):
    (bundle.rootfs / "data/sub").mkdir(parents=True)
    (bundle.rootfs / "data/sub/file").write_text("kept")
    (bundle.rootfs / "data/link").symlink_to("sub/file")
    (bundle.rootfs / "data/sub").chmod(0o710)
    add(bundle, "/data", "tmpfs", "tmpfs", ["tmpcopyup", "ro"])
    out = bundle.sh("cat /data/link; stat -c ' %a' /data/sub; touch /data/x 2>&1; true")
    assert out.startswith("kept 710") and "Read-only" in out
    assert look(bundle)["/data"][2] == "tmpfs"


def test_tmpfs_keeps_the_mode_of_its_directory(bundle):
    (bundle.rootfs / "t").mkdir(mode=0o777)
    (bundle.rootfs / "t").chmod(0o1751)
    add(bundle, "/t", "tmpfs", "tmpfs")
    assert bundle.sh("stat -c %a /t") == "1751\n"


def test_id_mapped_mount(bundle):
    source = bundle.directory / "source"
    source.mkdir()
    (source / "file").write_text("x")
    maps = [{"containerID": 0, "hostID": 5000, "size": 1000}]
    add(bundle, "/m", source, options=["bind"], uidMappings=maps, gidMappings=maps)
    os.chown(source / "file", 7, 8)
    result = bundle.run("stat", "-c", "%u %g", "/m/file", check=False)
    if "may not have it on this kernel" in result.stderr:
        pytest.skip("this file system has no id-mapped mounts")
    assert result.stdout == "5007 5008\n"


def test_remount(bundle):
    add(bundle, "/proc", options=["remount", "noexec", "nosuid"])
    assert {"noexec", "nosuid"} <= look(bundle)["/proc"][0]


def test_relative_destination_and_links_stay_inside(bundle):
    (bundle.directory / "source").mkdir()
    (bundle.directory / "source/f").write_text("ok")
    (bundle.rootfs / "out").symlink_to("/../../../../elsewhere")
    add(bundle, "rel", bundle.directory / "source", options=["bind"])
    add(bundle, "/out", bundle.directory / "source", options=["bind"])
    assert bundle.sh("cat /rel/f /elsewhere/f") == "okok"
    assert not os.path.exists("/elsewhere") and (bundle.rootfs / "elsewhere").is_dir()


@pytest.mark.parametrize("mount, message", [
    ({"destination": "/x", "type": "nosuchfs", "source": "x"}, "nosuchfs"),
    ({"destination": "/x", "type": "tmpfs", "source": "x", "options": ["size=big"]}, "size"),
    ({"destination": "/x", "source": "/no/such/source", "options": ["bind"]}, "/no/such/source"),
    ({"destination": "/etc/passwd", "type": "tmpfs", "source": "x"}, "Not a directory"),
])
def test_impossible_mounts(bundle, oci, mount, message):
    bundle.config["mounts"].append(mount)
    result = bundle.run("true", check=False)
    assert result.returncode == 1 and message in result.stderr and mount["destination"] in result.stderr
    assert list(oci.state.iterdir()) == []


# ---- cgroup ----

def test_cgroup_mount(bundle):
    found = look(bundle)
    below = {place for place in found if place.startswith("/sys/fs/cgroup")}
    assert below and all("ro" in found[place][0] for place in below)
    name = bundle.start("sleep", "1000")
    pid = bundle.oci.status(name)["pid"]
    groups = {line.split(":", 2)[1]: line.strip().split(":", 2)[2] for line in open(f"/proc/{pid}/cgroup")}
    assert name in groups.get("memory", groups.get("", ""))
    # What is mounted is the container's own group: its processes, and no other's.
    place = "memory" if os.path.isdir("/sys/fs/cgroup/memory") else "."
    inside = bundle.oci("exec", name, "cat", f"/sys/fs/cgroup/{place}/cgroup.procs").stdout.split()
    assert "1" in inside and len(inside) <= 2


# ---- devices ----

def test_devices(bundle):
    bundle.linux["devices"] = [{"type": "c", "path": "/dev/own/fuse", "major": 10, "minor": 229, "fileMode": 0o640,
                                "uid": 3, "gid": 4}, {"type": "p", "path": "/pipe", "fileMode": 0o600}]
    out = bundle.sh("stat -c '%F %t:%T %a %u' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty "
                    "/dev/own/fuse; stat -c %F /pipe; for i in fd stdin ptmx; do readlink /dev/$i; done; echo x > /dev/null").splitlines()
    assert out[:6] == [f"character special file {n} 666 0" for n in ("1:3", "1:5", "1:7", "1:8", "1:9", "5:0")]
    assert out[6] == "character special file a:e5 640 3" and out[7] == "fifo"
    assert out[8:] == ["/proc/self/fd", "/proc/self/fd/0", "pts/ptmx"]


def test_another_file_where_a_device_is_to_be(bundle):
    (bundle.rootfs / "odd").write_text("")
    bundle.linux["devices"] = [{"type": "c", "path": "/odd", "major": 1, "minor": 3}]
    result = bundle.run("true", check=False)
    assert result.returncode == 1 and "/odd" in result.stderr
    os.unlink(bundle.rootfs / "odd")
    os.mknod(bundle.rootfs / "odd", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert bundle.run("true").returncode == 0  # the right one is fine


def test_only_listed_devices_can_be_used(bundle):
    bundle.capabilities("CAP_MKNOD")
    bundle.process["noNewPrivileges"] = False
    out = bundle.sh("mknod /tmp/mem c 1 1 && head -c1 /tmp/mem 2>&1; echo; mknod /tmp/null c 1 3; echo x >/tmp/null && echo fine")
    assert "Operation not permitted" in out and out.endswith("fine\n")


# ---- masks ----

def test_masked_paths(bundle):
    (bundle.rootfs / "hidden").mkdir()
    (bundle.rootfs / "hidden/secret").write_text("s")
    (bundle.rootfs / "plain").write_text("s")
    bundle.linux["maskedPaths"] += ["/hidden", "/plain", "/no/such/path", "/proc/kcore"]
    out = bundle.sh("ls -A /hidden; cat /plain; touch /hidden/x 2>&1; head -c1 /proc/kcore; echo end")
    assert "secret" not in out and "s\n" not in out.splitlines()[:1] and "Read-only" in out and out.endswith("end\n")


def test_readonly_paths(bundle):
    (bundle.rootfs / "fixed").mkdir()
    bundle.linux["readonlyPaths"] += ["/fixed", "/not/there"]
    out = bundle.sh("touch /fixed/x 2>&1; echo 1 > /proc/sys/kernel/panic; echo b > /proc/sysrq-trigger; cat /proc/sys/kernel/panic",
                    stderr=subprocess.STDOUT)
    assert out.count("Read-only") == (3 if os.path.exists("/proc/sysrq-trigger") else 2)


def test_links_to_masks_do_not_lead_out(bundle, tmp_path):
    (tmp_path / "precious").write_text("here")
    (bundle.rootfs / "trap").symlink_to(tmp_path / "precious")
    bundle.linux["maskedPaths"].append("/trap")
    bundle.linux["readonlyPaths"].append("/trap")
    assert bundle.sh("echo fine") == "fine\n"
    assert (tmp_path / "precious").read_text() == "here"

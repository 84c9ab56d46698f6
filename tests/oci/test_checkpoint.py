# SPDX-License-Identifier: GPL-2.0-or-later
"""checkpoint and restore, with a program that has memory, files, a pipe and a listening socket (counter.c)."""
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import time

import pytest

import criu
import runtime
from images import BUSYBOX_NAME
from life import wait_until
from test_killed import descendants, end, groups_of, processes_of

COUNTER = runtime.BUILD / "tests/oci/oci-counter"
KILLS = max(int(os.environ.get("TABIQUE_KILLS", "200")) // 20, 4)


@pytest.fixture(scope="session", name="criu_directory")
def fixture_criu_directory():
    reason = criu.refusal()
    if reason:
        pytest.skip(f"criu check: {reason}")
    return criu.fetch()


@pytest.fixture(name="counter")
def fixture_counter(bundle, criu_directory, monkeypatch):
    """A bundle whose program counts."""
    monkeypatch.setenv("PATH", f"{criu_directory}:{os.environ['PATH']}")
    shutil.copy(COUNTER, bundle.rootfs / "bin/counter")
    bundle.process["args"] = ["counter"]
    return bundle


def lines(bundle):
    path = bundle.rootfs / "tmp/counts"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def count(bundle):
    return int(lines(bundle)[-1][0])


def wait_to_count(bundle, more=5):
    wait_until(lambda: len(lines(bundle)) > 1, "it counts")
    want = count(bundle) + more
    wait_until(lambda: count(bundle) >= want, "it goes on counting")


def check_counts(bundle):
    """None is missing, none is there twice, and the memory is as it was filled."""
    found = lines(bundle)
    assert [int(n) for n, _ in found] == list(range(1, len(found) + 1))
    assert len({s for _, s in found}) == 1


def begin(bundle):
    name = bundle.create()
    bundle.oci("start", name)
    wait_to_count(bundle)
    return name


def restore(bundle, images, name, *flags, **options):
    options.setdefault("stdout", subprocess.DEVNULL)
    with open(bundle.directory / "errors", "w+") as errors:
        result = bundle.oci("restore", "--detach", "--image-path", images, "--bundle", bundle.directory, *flags, name, stderr=errors,
                            check=False, **options)
        errors.seek(0)
        result.stderr = errors.read()
    return result


def restored(*args, **options):
    result = restore(*args, **options)
    assert result.returncode == 0, result.stderr


def asked(oci, name):
    """What it says over TCP."""
    pid = oci.status(name)["pid"]
    return subprocess.run(["nsenter", "--target", str(pid), "--net", runtime.BUSYBOX, "nc", "127.0.0.1", "7000"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=10).stdout


def mounts(oci, name):
    """(place, options of the mount, file system), in the order of places."""
    found = []
    for line in pathlib.Path(f"/proc/{oci.status(name)['pid']}/mountinfo").read_text().splitlines():
        words = line.split()
        found.append((words[4], ",".join(sorted(words[5].split(","))), words[words.index("-") + 1]))
    return sorted(found)


def groups(oci, name):
    return sorted(line.split(":", 1)[1] for line in pathlib.Path(f"/proc/{oci.status(name)['pid']}/cgroup").read_text().splitlines())


def living_in(directory):
    """Processes to whom something of it is mounted: those of its containers, also half made ones."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(directory) in (entry / "mountinfo").read_text():
                found.append((entry.name, (entry / "comm").read_text()))
    return found


def assert_nothing_left(oci, *names):
    assert list(oci.state.iterdir()) == []
    assert str(oci.state.parent) not in open("/proc/self/mountinfo").read()
    for name in names:
        assert groups_of(name) == []


# ---- a container goes on ----


def test_goes_on(counter, oci, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("of the host\n")
    counter.config["mounts"] += [
        {"destination": "/mnt/data", "type": "bind", "source": str(tmp_path / "data"), "options": ["bind", "ro"]},
        {"destination": "/etc/file", "type": "bind", "source": str(tmp_path / "data/file"), "options": ["bind"]}]
    counter.config["hostname"] = "counts"
    name = begin(counter)
    had_mounts, had_groups = mounts(oci, name), groups(oci, name)
    oci("checkpoint", "--image-path", tmp_path / "images", name)
    assert (tmp_path / "images/dump.log").exists()
    assert "does not exist" in oci("state", name, check=False).stderr
    assert groups_of(name) == []
    stopped = count(counter)
    time.sleep(0.2)
    assert count(counter) == stopped
    restored(counter, tmp_path / "images", name, "--pid-file", tmp_path / "pid")
    state = oci.status(name)
    assert state["status"] == "running" and state["pid"] == int((tmp_path / "pid").read_text())
    wait_to_count(counter)
    check_counts(counter)
    assert int(asked(oci, name)) > stopped
    assert mounts(oci, name) == had_mounts and groups(oci, name) == had_groups
    assert oci("exec", name, "cat", "/mnt/data/file", "/etc/file", "/proc/keys").stdout == 2 * "of the host\n"
    assert oci("exec", name, "hostname").stdout == "counts\n"
    assert oci("exec", name, "touch", "/mnt/data/new", check=False).returncode == 1
    # It is one like others: seen, limited, ended.
    oci("pause", name)
    oci("resume", name)
    oci("update", "--pids-limit", "50", name)
    assert len(oci("ps", "--format", "json", name).stdout.split(",")) == 2
    oci("kill", name, "KILL")
    wait_until(lambda: oci.status(name)["status"] == "stopped", "it ends")
    oci("delete", name)
    assert_nothing_left(oci, name)


def test_leave_running(counter, oci, tmp_path):
    """The copy goes on under another name, from another root file system, with the limits of its own configuration."""
    name = begin(counter)
    oci("pause", name)  # a paused one may be written, and stays so
    oci("checkpoint", "--leave-running", "--image-path", tmp_path / "images", "--work-path", tmp_path / "work", name)
    assert (tmp_path / "work/dump.log").exists() and not (tmp_path / "images/dump.log").exists()
    assert oci.status(name)["status"] == "paused"
    other = runtime.Bundle.__new__(runtime.Bundle)
    other.directory, other.oci, other.rootfs, other.config = tmp_path / "other", oci, tmp_path / "other/rootfs", counter.config
    other.directory.mkdir()
    shutil.copytree(counter.rootfs, other.rootfs, symlinks=True)
    other.linux["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 9}}
    other.write()
    oci("resume", name)
    copy = oci.new_id()
    restored(other, tmp_path / "images", copy)
    wait_to_count(other)
    wait_to_count(counter)
    check_counts(other)
    check_counts(counter)
    assert {line.rsplit("/", 1)[1] for line in groups(oci, copy)} == {f"tabique-{copy}"}
    stats = json.loads(oci("events", "--stats", copy).stdout)["data"]
    assert stats["pids"]["limit"] == 9 and stats["memory"]["usage"]["limit"] == 64 << 20


def test_standard_output_is_that_of_who_restores(counter, oci, tmp_path):
    """A pipe and a file of the host, which are in no mount of the container."""
    counter.process["args"] = ["sh", "-c", "i=0; while test $i -lt 25; do i=$((i+1)); echo $i; echo $i >&2; sleep 0.1; done; exit 7"]
    counter.write()
    name = oci.new_id()
    first, errors = tmp_path / "first", tmp_path / "errors"
    with open(errors, "wb") as file, subprocess.Popen(
            [oci.program, "--root", oci.state, "run", "--bundle", counter.directory, name], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=file, text=True) as process:
        assert [process.stdout.readline() for _ in range(5)][-1] == "5\n"
        oci("checkpoint", "--image-path", tmp_path / "images", name)
        first = 5 + len(process.stdout.read().split())
        process.wait()
    words = ["restore", "--image-path", tmp_path / "images", "--bundle", counter.directory, name]
    other = oci(*words, check=False)
    assert other.returncode == 1 and "standard error was a file" in other.stderr
    with open(errors, "ab") as file:
        done = oci(*words, check=False, stderr=file)
    assert done.returncode == 7
    assert done.stdout == "".join(f"{n}\n" for n in range(first + 1, 26))
    assert errors.read_text() == "".join(f"{n}\n" for n in range(1, 26))
    assert list(oci.state.iterdir()) == []


def test_terminal(counter, oci, tmp_path):
    counter.process["terminal"] = True
    counter.process["args"] = ["cat"]
    path = str(tmp_path / "console")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    name = counter.create(flags=["--console-socket", path])
    connection, _ = server.accept()
    _, (master,), _, _ = socket.recv_fds(connection, 100, 1)
    oci("start", name)
    os.write(master, b"before\n")
    said = b""
    while said.count(b"before") < 2:
        said += os.read(master, 4096)
    oci("checkpoint", "--image-path", tmp_path / "images", name)
    os.close(master)
    restored(counter, tmp_path / "images", name, "--console-socket", path)
    connection, _ = server.accept()
    _, (master,), _, _ = socket.recv_fds(connection, 100, 1)
    os.write(master, b"after\n")
    said = b""
    while said.count(b"after") < 2:
        said += os.read(master, 4096)
    os.close(master)


def test_user_namespace(counter, oci, tmp_path):
    counter.linux["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        counter.linux[key] = [{"containerID": 0, "hostID": 200000, "size": 65536}]
    for path in (counter.rootfs, *counter.rootfs.rglob("*")):
        os.chown(path, 200000, 200000, follow_symlinks=False)
    for parent in counter.rootfs.parents:
        if parent != pathlib.Path("/") and not parent.stat().st_mode & 1:
            parent.chmod(parent.stat().st_mode | 0o011)
    name = begin(counter)
    (counter.directory / "errors").chmod(0o666)  # the container's root opens it again
    had = mounts(oci, name)
    oci("checkpoint", "--image-path", tmp_path / "images", name)
    restored(counter, tmp_path / "images", name)
    wait_to_count(counter)
    check_counts(counter)
    assert mounts(oci, name) == had
    assert os.stat(f"/proc/{oci.status(name)['pid']}").st_uid == 200000


def test_joined_network(counter, oci, tmp_path):
    """A network that was there before stays as it is."""
    keeper = subprocess.Popen(["unshare", "--net", "sh", "-c", "ip link set lo up; ip address add 10.9.8.7 dev lo; exec sleep 1000"])
    try:
        wait_until(lambda: "10.9.8.7" in pathlib.Path(f"/proc/{keeper.pid}/net/fib_trie").read_text(), "the network is there")
        for namespace in counter.linux["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = f"/proc/{keeper.pid}/ns/net"
        name = begin(counter)
        oci("checkpoint", "--image-path", tmp_path / "images", name)
        restored(counter, tmp_path / "images", name)
        wait_to_count(counter)
        assert "10.9.8.7" in oci("exec", name, "cat", "/proc/net/fib_trie").stdout
        assert os.stat(f"/proc/{oci.status(name)['pid']}/ns/net").st_ino == os.stat(f"/proc/{keeper.pid}/ns/net").st_ino
        assert int(asked(oci, name)) > 1
    finally:
        oci("delete", "--force", name)
        keeper.kill()
        keeper.wait()


# ---- what goes wrong ----


def test_a_dump_that_fails_leaves_it_running(counter, oci, tmp_path):
    counter.process["args"] = ["counter", "hold"]
    name = begin(counter)
    pid = oci.status(name)["pid"]
    client = subprocess.Popen(["nsenter", "--target", str(pid), "--net", runtime.BUSYBOX, "nc", "127.0.0.1", "7000"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert int(client.stdout.readline()) > 1
        failed = oci("checkpoint", "--image-path", tmp_path / "images", name, check=False)
        assert failed.returncode == 1
        assert re.search(rf"checkpoint of container {name}: criu failed: .*(TCP|tcp)", failed.stderr), failed.stderr
        assert f"{tmp_path}/images/dump.log" in failed.stderr
        assert oci.status(name)["status"] == "running" and oci.status(name)["pid"] == pid
        wait_to_count(counter)
        check_counts(counter)
    finally:
        client.kill()
        client.wait()


def test_damaged_images(counter, oci, tmp_path):
    name = begin(counter)
    oci("checkpoint", "--image-path", tmp_path / "images", name)
    for victim, change in (("pages-1.img", lambda data: data[:len(data) // 2]), ("core-1.img", lambda data: data[:9] + b"\xff" * 30),
                           ("inventory.img", lambda data: b""), ("descriptors.json", lambda data: data[:-1]),
                           ("sizes.json", lambda data: b"[]"), ("mm-1.img", lambda data: None)):
        path = tmp_path / "images" / victim
        good = path.read_bytes()
        if change(good) is None:
            path.unlink()
        else:
            path.write_bytes(change(good))
        failed = restore(counter, tmp_path / "images", name)
        assert failed.returncode == 1 and f"restoring container {name}: " in failed.stderr, (victim, failed.stderr)
        assert "criu failed" in failed.stderr or victim in failed.stderr, failed.stderr
        assert_nothing_left(oci, name)
        path.write_bytes(good)
    restored(counter, tmp_path / "images", name)
    wait_to_count(counter)
    check_counts(counter)


def test_refusals(counter, oci, tmp_path):
    absent = oci("checkpoint", "--image-path", tmp_path / "i", "nosuch", check=False)
    assert "does not exist" in absent.stderr
    name = counter.create()
    assert "it is created, not running" in oci("checkpoint", "--image-path", tmp_path / "i", name, check=False).stderr
    assert not (tmp_path / "i").exists()
    assert "container with id exists" in restore(counter, tmp_path, name).stderr
    oci("start", name)
    for flags, expected in ((["--manage-cgroups-mode", "odd"], "soft, full, strict or ignore"),
                            (["--empty-ns", "mount"], "only network"), (["--page-server", "here"], "ADDRESS:PORT"),
                            (["--status-fd", "99"], "no descriptor 99")):
        assert expected in oci("checkpoint", *flags, "--image-path", tmp_path / "i", name, check=False).stderr
    for word in ("/nonexistent/criu", "/etc/passwd"):
        failed = oci("checkpoint", "--image-path", tmp_path / "i", name, check=False, flags=["--criu", word])
        assert failed.returncode == 1 and ("--criu" in failed.stderr or "executing criu" in failed.stderr), failed.stderr
    assert oci.status(name)["status"] == "running"
    other, missing = oci.new_id(), tmp_path / "missing"
    assert str(missing) in restore(counter, missing, other).stderr
    assert [p.name for p in oci.state.iterdir()] == [name]


def test_memory_beforehand(counter, oci, tmp_path):
    """--pre-dump takes a kernel that tells which pages were written to."""
    name = begin(counter)
    first = oci("checkpoint", "--pre-dump", "--image-path", tmp_path / "first", name, check=False)
    able = subprocess.run([criu.fetch() / "criu", "check", "--feature", "mem_dirty_track"], capture_output=True, check=False)
    if b"OFF" in able.stdout + able.stderr or able.returncode:
        assert first.returncode == 1 and "criu failed" in first.stderr
        assert oci.status(name)["status"] == "running"
        wait_to_count(counter)
        return
    assert first.returncode == 0, first.stderr
    wait_to_count(counter)
    oci("checkpoint", "--parent-path", "../first", "--image-path", tmp_path / "second", name)
    assert (tmp_path / "second/pages-1.img").stat().st_size < (tmp_path / "first/pages-1.img").stat().st_size / 2
    restored(counter, tmp_path / "second", name)
    wait_to_count(counter)
    check_counts(counter)


def test_killed_at_any_moment(counter, oci, tmp_path):
    """SIGKILL of the command, or of criu: what it did can be cleaned up, and a container that was written goes on or is
    whole in the images."""
    counter.write()
    name = begin(counter)
    start = time.monotonic()
    oci("checkpoint", "--leave-running", "--image-path", tmp_path / "images", name)
    span = time.monotonic() - start
    oci("delete", "--force", name)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(KILLS):
        verb = rng.choice(["checkpoint", "restore"])
        if verb == "checkpoint":
            oci("run", "--detach", "--bundle", counter.directory, name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            words = [verb, "--image-path", str(tmp_path / "others"), name]
        else:
            words = [verb, "--detach", "--image-path", str(tmp_path / "images"), "--bundle", str(counter.directory), name]
        process = subprocess.Popen([oci.program, "--root", str(oci.state), *words], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0, span))
        end(rng.choice([process.pid, *descendants(process.pid)]))
        time.sleep(rng.uniform(0, 0.01))
        end(process.pid)
        process.wait()
        oci("delete", "--force", name)
        assert_nothing_left(oci, name)
    wait_until(lambda: processes_of(str(oci.state).encode()) == [] and living_in(counter.rootfs) == [], "no process is left")
    restored(counter, tmp_path / "images", name)


# ---- podman ----


def test_podman(podman, criu_directory, monkeypatch, tmp_path):
    monkeypatch.setitem(podman.environment, "PATH", f"{criu_directory}:{os.environ['PATH']}")
    script = "i=0; while :; do i=$((i+1)); echo $i; echo $i > /tmp/last; sleep 0.05; done"

    def last(name):
        said = podman.do("logs", "--tail", "1", name).strip()
        return int(said) if said else 0

    podman.do("run", "--detach", "--name", "counts", "--network", "none", "--volume", f"{tmp_path}:/data", BUSYBOX_NAME, "sh", "-c",
              script)
    wait_until(lambda: last("counts") > 3, "it counts")
    podman.do("container", "checkpoint", "counts")
    assert podman.inspect("counts", ".State.Status") == "exited" and podman.inspect("counts", ".State.Checkpointed")
    stopped = last("counts")
    podman.do("container", "restore", "counts")
    assert podman.inspect("counts", ".State.Status") == "running"
    wait_until(lambda: last("counts") > stopped + 3, "it goes on")
    said = [int(n) for n in podman.do("logs", "counts").split()]
    assert said == list(range(1, len(said) + 1))
    # To another machine: an archive, and a container of another name made of it.
    podman.do("container", "checkpoint", "--leave-running", "--export", tmp_path / "archive.tar", "counts")
    assert podman.inspect("counts", ".State.Status") == "running"
    podman.do("container", "restore", "--import", tmp_path / "archive.tar", "--name", "copy")
    at = int(podman.do("exec", "copy", "cat", "/tmp/last"))
    assert at > stopped
    wait_until(lambda: int(podman.do("exec", "copy", "cat", "/tmp/last") or 0) > at, "the copy goes on")
    podman.do("rm", "--force", "--time", "0", "copy")
    podman.do("stop", "--time", "0", "counts")

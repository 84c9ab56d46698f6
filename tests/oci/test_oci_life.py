# SPDX-License-Identifier: GPL-2.0-or-later
"""create, start, state, kill, delete, run, list, exec: a container's life, and what is refused when."""
import json
import os
import select
import signal
import subprocess
import time

import pytest

import runtime


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come true"
        time.sleep(0.02)


def test_life(bundle, oci):
    bundle.config["annotations"] = {"com.example.key": "value"}
    name = bundle.create("sleep", "1000")
    state = oci.status(name)
    assert state["status"] == "created" and state["id"] == name and state["ociVersion"] == "1.2.0"
    assert state["bundle"] == str(bundle.directory) and state["annotations"] == {"com.example.key": "value"}
    # Its program does not run yet.
    assert b"sleep" not in open(f"/proc/{state['pid']}/cmdline", "rb").read()
    oci("start", name)
    assert oci.status(name)["status"] == "running"
    assert open(f"/proc/{state['pid']}/cmdline", "rb").read() == b"sleep\x001000\x00"
    assert "already running" in oci("start", name, check=False).stderr
    result = oci("delete", name, check=False)
    assert result.returncode and "is not stopped: running" in result.stderr
    oci("kill", name, "KILL")
    wait_for(lambda: oci.status(name)["status"] == "stopped")
    assert oci.status(name)["pid"] == 0
    assert "container not running" in oci("kill", name, check=False).stderr
    assert "has stopped" in oci("start", name, check=False).stderr
    oci("delete", name)
    result = oci("state", name, check=False)
    assert result.returncode == 1 and "does not exist" in result.stderr
    assert list(oci.state.iterdir()) == []


def test_changes_to_the_configuration_come_too_late(bundle, oci):
    name = bundle.create("sh", "-c", "echo first > /out")
    (bundle.directory / "config.json").write_text("{}")
    oci("start", name)
    wait_for(lambda: oci.status(name)["status"] == "stopped")
    assert (bundle.rootfs / "out").read_text() == "first\n"


def test_while_it_waits_it_holds_nothing_of_its_makers(bundle, oci):
    """Whoever waits for the end of what the maker has open is told it, though the container goes on."""
    reader, writer = os.pipe()
    bundle.process["args"] = ["sleep", "1000"]
    bundle.write()
    name = oci.new_id()
    oci("create", "--bundle", bundle.directory, name, pass_fds=(writer,), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    os.close(writer)
    with open(reader, "rb") as pipe:
        assert select.select([pipe], [], [], 5)[0] and pipe.read() == b""
    assert oci.status(name)["status"] == "created"


def test_an_id_is_unique(bundle, oci):
    name = bundle.create("true")
    result = bundle.create("true", name=name, check=False)
    assert result.returncode and "exists" in result.stderr
    assert oci.status(name)["status"] == "created"
    for bad in ("", "..", "a/b", "a b", "ü"):
        result = bundle.create("true", name=bad, check=False)
        assert result.returncode and "invalid container ID" in result.stderr
    oci("delete", name)  # one that was never started may go


def test_exit_status(bundle):
    assert bundle.run("sh", "-c", "exit 3", check=False).returncode == 3
    assert bundle.run("true").returncode == 0


def test_signal_as_status(bundle):
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "pid"]
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "proc"]
    del bundle.linux["maskedPaths"], bundle.linux["readonlyPaths"]
    assert bundle.run("sh", "-c", "kill -TERM $$", check=False).returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("program, status, message", [
    ("nosuch", 127, "executable file not found in $PATH"),
    ("/bin/nosuch", 127, "no such file or directory"),
    ("/etc/passwd", 126, "permission denied"),
    ("/etc", 126, "is a directory"),
])
@pytest.mark.parametrize("verb", ["run", "create"])
def test_missing_program(bundle, oci, verb, program, status, message):
    result = getattr(bundle, verb)(program, check=False)
    assert result.returncode == status
    assert message in result.stderr and program in result.stderr
    assert list(oci.state.iterdir()) == []


def test_list(bundle, oci):
    first, second = bundle.create("sleep", "9"), bundle.start("sleep", "9")
    assert sorted(oci("list", "--quiet").stdout.split()) == sorted([first, second])
    listed = {c["id"]: c["status"] for c in json.loads(oci("list", "--format", "json").stdout)}
    assert listed == {first: "created", second: "running"}
    assert oci("list").stdout.splitlines()[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]


def test_exec(bundle, oci):
    name = bundle.start("sleep", "1000")
    assert oci("exec", name, "echo", "-n", "hello").stdout == "hello"
    assert oci("exec", name, "sh", "-c", "exit 4", check=False).returncode == 4
    assert oci("exec", name, "nosuch", check=False).returncode == 127
    assert oci("exec", name, "/etc/passwd", check=False).returncode == 126
    assert oci("exec", "--cwd", "/tmp", "--env", "A=b", name, "sh", "-c", "pwd; echo $A").stdout == "/tmp\nb\n"
    assert oci("exec", "--user", "1000:1001", "-g", "7", name, "id").stdout.startswith("uid=1000(ann) gid=1001")
    assert oci("exec", name, "cat", "/proc/1/cmdline").stdout.startswith("sleep")
    oci("exec", "--detach", "--pid-file", bundle.directory / "pid", name, "sleep", "77", stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    pid = int((bundle.directory / "pid").read_text())
    assert open(f"/proc/{pid}/cmdline", "rb").read() == b"sleep\x0077\x00"
    process = dict(bundle.process, args=["sh", "-c", "echo $X"], env=["X=file"])
    (bundle.directory / "process.json").write_text(json.dumps(process))
    assert oci("exec", "--process", bundle.directory / "process.json", name).stdout == "file\n"
    oci("kill", name, "KILL")
    wait_for(lambda: oci.status(name)["status"] == "stopped")
    assert "stopped container" in oci("exec", name, "true", check=False).stderr
    assert not os.path.exists(f"/proc/{pid}") or open(f"/proc/{pid}/stat").read().split()[2] == "Z"


def test_pid_file_and_force(bundle, oci):
    name = bundle.start("sleep", "1000", flags=["--pid-file", str(bundle.directory / "pid")])
    assert int((bundle.directory / "pid").read_text()) == oci.status(name)["pid"]
    oci("delete", "--force", name)
    oci("delete", "--force", name)
    assert list(oci.state.iterdir()) == []


def test_log(bundle, oci, tmp_path):
    for form, expect in (("json", '"level":"error"'), ("text", "level=error")):
        log = tmp_path / form
        assert oci("state", "nosuch", flags=["--log", str(log), "--log-format", form], check=False).returncode == 1
        line = log.read_text()
        assert expect in line and "does not exist" in line
        if form == "json":
            assert set(json.loads(line)) == {"level", "msg", "time"}


def test_a_killed_create_leaves_what_delete_cleans(bundle, oci):
    """A hook kills the command that makes the container."""
    (bundle.directory / "hook").write_text("#!/bin/sh\nkill -9 $PPID\nsleep 5\n")
    (bundle.directory / "hook").chmod(0o755)
    bundle.config["hooks"] = {"createRuntime": [{"path": str(bundle.directory / "hook")}]}
    result = bundle.create("true", check=False)
    assert result.returncode == -9
    name, = oci.ids
    pid = json.loads((oci.state / name / "state.json").read_text())["pid"]
    wait_for(lambda: not os.path.exists(f"/proc/{pid}") or open(f"/proc/{pid}/stat").read().split()[2] == "Z")
    oci("delete", "--force", name)
    assert list(oci.state.iterdir()) == []


def test_exec_in_a_group_below(bundle, oci):
    name = bundle.start("sleep", "1000")
    pid = oci.status(name)["pid"]
    number, controllers, path = next(line.strip().split(":", 2) for line in open(f"/proc/{pid}/cgroup")
                                     if "pids" in line or line.startswith("0::"))
    below = f"/sys/fs/cgroup/{controllers}{path}/below"
    os.mkdir(below)
    try:
        flag = f"{controllers}:/below" if controllers else "/below"
        oci("exec", "--detach", "--cgroup", flag, "--pid-file", bundle.directory / "pid", name, "sleep", "77",
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert (bundle.directory / "pid").read_text() in open(f"{below}/cgroup.procs").read().split()
        result = oci("exec", "--cgroup", flag + "er", name, "true", check=False)
        assert result.returncode == 1 and "belower" in result.stderr
    finally:
        oci("delete", "--force", name)
    assert not os.path.exists(below)


def test_features(oci):
    features = json.loads(oci("features").stdout)
    assert features["ociVersionMin"] == "1.0.0" and features["ociVersionMax"] == "1.2.0"
    assert features["hooks"] == ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    assert {"ro", "rro", "idmap", "tmpcopyup", "rbind"} <= set(features["mountOptions"])
    linux = features["linux"]
    assert "time" in linux["namespaces"] and "CAP_CHECKPOINT_RESTORE" in linux["capabilities"]
    assert linux["cgroup"]["v2"] and linux["seccomp"]["enabled"] and linux["mountExtensions"]["idmap"]["enabled"]


def test_version(oci, tmp_path):
    (tmp_path / "tabique-oci").symlink_to(runtime.TABIQUE)
    link = runtime.Runtime(oci.state, tmp_path / "tabique-oci")
    assert link("--version").stdout == oci("--version").stdout
    out = oci("--version").stdout.splitlines()
    assert out[0].startswith("tabique-oci version ") and "spec: 1.2.0" in out

# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's containerd and its runc shim with our runtime as the shim's binary, by `ctr`."""
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time

import pytest

import criu
import peers
from images import BUSYBOX_NAME, DEBIAN_NAME
from life import wait_until


def run_args(containerd, *options):
    return ["run", "--snapshotter", "native", "--runc-binary", containerd.runtime, *options]


def start(containerd, name, *options, command=("sleep", "1000")):
    containerd.do(*run_args(containerd, "--detach", *options), BUSYBOX_NAME, name, *command)


def test_run(containerd):
    assert containerd.do(*run_args(containerd, "--rm"), BUSYBOX_NAME, "one", "echo", "hello") == "hello\n"
    assert containerd.do(*run_args(containerd, "--rm"), DEBIAN_NAME, "two", "python3", "-c", "print(6 * 7)") == "42\n"
    assert containerd.run(*run_args(containerd, "--rm"), BUSYBOX_NAME, "three", "sh", "-c", "exit 7").returncode == 7
    assert containerd.tasks() == {}


def test_what_can_not_start(containerd):
    done = containerd.run(*run_args(containerd, "--rm"), BUSYBOX_NAME, "absent", "no-such-program")
    assert done.returncode != 0 and "no-such-program" in done.stderr, done
    assert containerd.tasks() == {}


def test_options(containerd, tmp_path):
    (tmp_path / "file").write_text("from outside\n", encoding="ascii")
    said = containerd.do(*run_args(containerd, "--rm", "--env", "A=5", "--cwd", "/tmp", "--cap-drop", "CAP_CHOWN", "--read-only", "--mount",
                                   f"type=bind,src={tmp_path},dst=/in,options=rbind:ro"), BUSYBOX_NAME, "options", "sh", "-c",
                         "echo $A; pwd; chown 1 /bin 2>&1 | grep -c Read-only; cat /in/file; touch /in/x 2>&1 | grep -c Read-only")
    assert said == "5\n/tmp\n1\nfrom outside\n1\n"


def test_task_life(containerd):
    start(containerd, "web")
    pid, status = containerd.tasks()["web"]
    assert status == "RUNNING" and os.path.exists(f"/proc/{pid}")
    assert containerd.do("task", "exec", "--exec-id", "x", "web", "sh", "-c", "echo inside; id -u") == "inside\n0\n"
    assert containerd.run("task", "exec", "--exec-id", "y", "web", "sh", "-c", "exit 6").returncode == 6
    assert re.search(rf"^{pid}\b", containerd.do("task", "ps", "web"), re.M)
    containerd.do("task", "pause", "web")
    assert containerd.tasks()["web"][1] == "PAUSED"
    containerd.do("task", "resume", "web")
    assert containerd.tasks()["web"][1] == "RUNNING"
    containerd.do("task", "kill", "--signal", "KILL", "web")
    wait_until(lambda: containerd.tasks()["web"][1] == "STOPPED", "it ends")
    containerd.do("task", "delete", "web")
    containerd.do("container", "rm", "web")
    assert not os.path.exists(f"/proc/{pid}")


def test_metrics(containerd):
    start(containerd, "web", "--memory-limit", str(64 << 20))
    said = containerd.do("task", "metrics", "web")
    limit = re.search(r"memory\.(?:usage_limit|limit|usage_limit_in_bytes)\s+(\d+)", said) or re.search(r"(67108864)", said)
    assert limit, said


def test_memory_limit(containerd):
    done = containerd.run(*run_args(containerd, "--rm", "--memory-limit", str(32 << 20)), DEBIAN_NAME, "greedy", "python3", "-c",
                          "x = b'x' * (200 << 20)")
    assert done.returncode == 137, done


def test_signals_and_exit_codes(containerd):
    script = "trap 'exit 4' TERM; echo ready; while :; do sleep 0.05; done"
    for signal, code in (("TERM", 4), ("KILL", 137)):
        with containerd.popen(*run_args(containerd, "--rm"), BUSYBOX_NAME, "web", "sh", "-c", script, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "ready\n"
            containerd.do("task", "kill", "--signal", signal, "web")
            assert child.wait(60) == code


def test_the_daemon_may_end_meanwhile(containerd):
    """The shim holds the container; nothing of it is the daemon's child."""
    start(containerd, "web")
    pid = containerd.tasks()["web"][0]
    assert containerd.shims()
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        assert int(stat.read().rsplit(")", 1)[1].split()[1]) in containerd.shims()


def test_nothing_is_left(containerd):
    start(containerd, "left-behind-by-ctr")
    containerd.clear()
    wait_until(lambda: not containerd.shims(), "the shims end")
    for top, directories, _ in os.walk("/sys/fs/cgroup"):
        assert "left-behind-by-ctr" not in directories, top
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        assert "left-behind-by-ctr" not in mounts.read()


def test_checkpoint(archives, monkeypatch):
    """Written while it runs, and made again of that by a daemon and a shim that find criu by PATH."""
    reason = criu.refusal()
    if reason:
        pytest.skip(f"criu check: {reason}")
    monkeypatch.setenv("PATH", f"{criu.fetch()}:{os.environ['PATH']}")
    containerd = peers.Containerd(tempfile.mkdtemp(prefix="tabique-oci-"))

    def count():
        return int(containerd.do("task", "exec", "--exec-id", f"count-{time.monotonic_ns()}", "web", "cat", "/tmp/n") or 0)

    try:
        containerd.do("images", "import", "--snapshotter", "native", archives[BUSYBOX_NAME])
        start(containerd, "web", command=("sh", "-c", "i=0; while true; do i=$((i+1)); echo $i > /tmp/n; sleep 0.05; done"))
        wait_until(lambda: count() > 5, "it counts")
        containerd.do("container", "checkpoint", "--task", "--rw", "--image", "web", "localhost/checkpoint:1")
        assert containerd.tasks()["web"][1] == "RUNNING"
        containerd.do("task", "kill", "--signal", "KILL", "web")
        wait_until(lambda: containerd.tasks()["web"][1] == "STOPPED", "it ends")
        containerd.run("task", "delete", "web")
        containerd.do("container", "rm", "web")
        containerd.do("container", "restore", "--live", "--rw", "web", "localhost/checkpoint:1")
        # By our runtime: another's state has no such thing.
        state = pathlib.Path("/run/containerd/runc/default/web/state.json")
        assert json.loads(state.read_text(encoding="utf-8"))["start_time"]
        first = count()
        assert first > 5
        wait_until(lambda: count() > first, "it goes on")
    finally:
        containerd.end()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's podman on our runtime: what people do with it."""
import json
import os
import pty
import re
import select
import subprocess
import time

import pytest

from images import BUSYBOX_NAME, DEBIAN_NAME
from life import wait_until
from program import default_signals

NET = ["--network", "none"]


def start(podman, name, *args, image=BUSYBOX_NAME, command=("sleep", "1000")):
    podman.do("run", "--detach", "--name", name, *NET, *args, image, *command)


# ---- run ----


def test_run(podman):
    assert podman.do("run", "--rm", *NET, BUSYBOX_NAME, "echo", "hello") == "hello\n"
    assert podman.do("run", "--rm", "--network", "host", DEBIAN_NAME, "python3", "-c", "print(6 * 7)") == "42\n"


def test_exit_codes(podman):
    assert podman.run("run", "--rm", *NET, BUSYBOX_NAME, "sh", "-c", "exit 7").returncode == 7
    absent = podman.run("run", "--rm", *NET, BUSYBOX_NAME, "no-such-program")
    assert absent.returncode == 127, absent
    not_executable = podman.run("run", "--rm", *NET, BUSYBOX_NAME, "/etc/passwd")
    assert not_executable.returncode == 126, not_executable


def test_standard_streams(podman):
    done = podman.run("run", "--rm", "--interactive", *NET, BUSYBOX_NAME, "sh", "-c", "cat; echo bad >&2", stdin=None, input="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "bad\n")


def test_process_options(podman):
    script = "id -u; id -g; id -G; pwd; echo $GREETING; hostname; cat /proc/self/status"
    said = podman.do("run", "--rm", *NET, "--user", "1000:1000", "--group-add", "2000", "--workdir", "/var", "--env",
                     "GREETING=hi there", "--hostname", "box", "--cap-drop", "all", "--security-opt", "no-new-privileges",
                     BUSYBOX_NAME, "sh", "-c", script)
    lines = said.splitlines()
    assert lines[:2] == ["1000", "1000"] and set(lines[2].split()) == {"1000", "2000"}
    assert lines[3:6] == ["/var", "hi there", "box"]
    assert "CapBnd:\t0000000000000000" in said and "NoNewPrivs:\t1" in said and "Seccomp:\t2" in said


def test_capabilities_and_limits(podman):
    said = podman.do("run", "--rm", *NET, "--cap-drop", "all", "--cap-add", "chown", "--ulimit", "nofile=100:200",
                     "--ulimit", "nproc=1000:2000", "--sysctl",
                     "kernel.msgmax=5000", "--tmpfs", "/scratch:size=64k", BUSYBOX_NAME, "sh", "-c",
                     "grep CapEff /proc/self/status; ulimit -n; ulimit -Hn; cat /proc/sys/kernel/msgmax; grep scratch /proc/mounts")
    lines = said.splitlines()
    assert lines[0] == "CapEff:\t0000000000000001"
    assert lines[1:4] == ["100", "200", "5000"] and "size=64k" in lines[4]


def test_read_only(podman):
    done = podman.run("run", "--rm", "--read-only", *NET, BUSYBOX_NAME, "touch", "/file")
    assert done.returncode == 1 and "Read-only file system" in done.stderr


def test_devices(podman):
    said = podman.do("run", "--rm", *NET, BUSYBOX_NAME, "sh", "-c", "mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg 2>&1; ls /dev")
    assert "Operation not permitted" in said
    assert {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue"} <= set(said.split())
    assert podman.do("run", "--rm", *NET, "--device", "/dev/kmsg:/dev/log-of-kernel:r", BUSYBOX_NAME, "sh", "-c",
                     "test -c /dev/log-of-kernel && echo yes") == "yes\n"


def test_privileged(podman):
    said = podman.do("run", "--rm", "--privileged", *NET, BUSYBOX_NAME, "sh", "-c",
                     "mount -t tmpfs none /tmp && echo mounted; mknod /tmp/kmsg c 1 11 && head -c 0 /tmp/kmsg && echo opened")
    assert said == "mounted\nopened\n"


def test_init(podman):
    said = podman.do("run", "--rm", "--init", *NET, BUSYBOX_NAME, "ps", "-o", "pid,args")
    assert re.search(r"^\s*1 .*init -- ps", said, re.M), said


# ---- on a terminal ----


class Terminal:
    """`podman args...` on a pseudo-terminal."""

    def __init__(self, podman, *args):
        self.master, slave = pty.openpty()
        self.process = podman.popen(*args, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=default_signals)
        os.close(slave)
        self.output = ""

    def expect(self, pattern, limit=60):
        deadline = time.monotonic() + limit
        while not re.search(pattern, self.output):
            assert time.monotonic() < deadline, (pattern, self.output)
            if select.select([self.master], [], [], 0.2)[0]:
                self.output += os.read(self.master, 65536).decode(errors="replace")
        self.output = re.split(pattern, self.output, maxsplit=1)[1]

    def send(self, text):
        os.write(self.master, text.encode())


def test_terminal(podman):
    terminal = Terminal(podman, "run", "--rm", "--interactive", "--tty", *NET, BUSYBOX_NAME, "sh")
    terminal.expect(r"# ")
    terminal.send("test -t 0 && readlink /proc/self/fd/0; echo $((40 + 2))\n")
    terminal.expect(r"/dev/(pts/\d+|console)\r\n42\r\n")
    terminal.send("exit 5\n")
    assert terminal.process.wait(60) == 5
    os.close(terminal.master)


# ---- in a running container ----


def test_exec(podman):
    start(podman, "web", "--env", "A=1")
    assert podman.do("exec", "--env", "B=2", "--workdir", "/tmp", "web", "sh", "-c", "echo $A $B; pwd") == "1 2\n/tmp\n"
    assert podman.run("exec", "web", "sh", "-c", "exit 9").returncode == 9
    assert podman.run("exec", "web", "no-such-program").returncode == 127
    assert podman.do("exec", "--user", "user", "web", "id", "-un") == "user\n"
    done = podman.run("exec", "--interactive", "web", "cat", stdin=None, input="through\n")
    assert done.stdout == "through\n"
    inside = podman.do("exec", "web", "cat", "/proc/1/cgroup")
    assert podman.do("exec", "web", "cat", "/proc/self/cgroup") == inside
    terminal = Terminal(podman, "exec", "--interactive", "--tty", "web", "sh")
    terminal.expect(r"# ")
    terminal.send("echo $((3 * 3)); exit 3\n")
    terminal.expect("9\r\n")
    assert terminal.process.wait(60) == 3
    os.close(terminal.master)


def test_detached_exec(podman):
    start(podman, "web")
    podman.do("exec", "--detach", "web", "sh", "-c", "echo done >/tmp/file; sleep 1000")
    wait_until(lambda: podman.run("exec", "web", "cat", "/tmp/file").stdout == "done\n", "the file is there")
    assert podman.do("top", "web", "args").count("sleep 1000") == 2


def test_logs_and_wait(podman):
    start(podman, "web", command=("sh", "-c", "echo out; echo err >&2; exit 4"))
    assert podman.do("wait", "web") == "4\n"
    done = podman.run("logs", "web")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert podman.inspect("web", ".State.ExitCode") == 4
    podman.do("rm", "web")


def test_kill_and_stop(podman):
    start(podman, "web", command=("sh", "-c", "trap 'echo got; exit 3' USR1; trap 'exit 8' TERM; while :; do sleep 0.05; done"))
    time.sleep(0.3)
    podman.do("kill", "--signal", "USR1", "web")
    assert podman.do("wait", "web") == "3\n"
    podman.do("start", "web")
    time.sleep(0.3)
    podman.do("stop", "--time", "30", "web")
    assert podman.inspect("web", ".State.ExitCode") == 8
    podman.do("start", "web")
    podman.do("kill", "web")
    assert podman.do("wait", "web") == "137\n"


def test_restart(podman):
    start(podman, "web", command=("sh", "-c", "echo begun; sleep 1000"))
    podman.do("restart", "--time", "0", "web")
    wait_until(lambda: podman.do("logs", "web") == "begun\nbegun\n", "it begins again")


def test_pause(podman):
    start(podman, "web", command=("sh", "-c", "while :; do echo x; sleep 0.02; done"))
    wait_until(lambda: len(podman.do("logs", "web")) > 10, "it writes")
    podman.do("pause", "web")
    assert podman.inspect("web", ".State.Status") == "paused"
    before = podman.do("logs", "web")
    time.sleep(0.5)
    assert podman.do("logs", "web") == before
    assert podman.run("exec", "web", "true").returncode != 0
    podman.do("unpause", "web")
    wait_until(lambda: podman.do("logs", "web") != before, "it goes on")
    podman.do("pause", "web")
    podman.do("rm", "--force", "--time", "0", "web")


# ---- what it may use ----


def test_memory_limit_and_oom(podman):
    podman.do("create", "--name", "greedy", *NET, "--memory", "32m", "--memory-swap", "32m", DEBIAN_NAME, "python3", "-c",
              "x = b'x' * (200 << 20)")
    # Where there is cgroup v1, Debian's conmon writes its note of it into the directory that podman was started in, and
    # podman looks for it in the container's.
    done = podman.run("start", "--attach", "greedy", cwd=podman.bundle("greedy"))
    assert done.returncode == 137, done
    assert podman.inspect("greedy", ".State.OOMKilled") is True
    assert podman.do("run", "--rm", *NET, "--memory", "64m", DEBIAN_NAME, "python3", "-c", "x = b'x' * (20 << 20); print(len(x))") \
        == f"{20 << 20}\n"


def test_pids_limit(podman):
    done = podman.run("run", "--rm", *NET, "--pids-limit", "10", BUSYBOX_NAME, "sh", "-c", "for i in $(seq 20); do sleep 5 & done; echo end")
    assert "can't fork" in done.stderr or "Resource temporarily unavailable" in done.stderr, done


def test_cpu_limits(podman):
    start(podman, "web", "--cpus", "0.2", "--cpu-shares", "512", "--cpuset-cpus", "0", command=("sh", "-c", "while :; do :; done"))
    time.sleep(2)
    stats, = json.loads(podman.do("stats", "--no-stream", "--format", "json", "web"))
    assert 5 < float(stats["cpu_percent"].rstrip("%")) < 60, stats
    assert podman.do("exec", "web", "grep", "Cpus_allowed_list", "/proc/self/status") == "Cpus_allowed_list:\t0\n"


def test_stats(podman):
    start(podman, "web", "--memory", "64m", command=("sh", "-c", "sleep 1000 & sleep 1000"))
    stats, = json.loads(podman.do("stats", "--no-stream", "--format", "json", "web"))
    assert stats["name"] == "web" and stats["pids"] == "2"
    assert re.match(r"[\d.]+[kM]?B / 67\.11MB", stats["mem_usage"]), stats


def test_update(podman):
    start(podman, "web", "--memory", "64m")
    done = podman.run("update", "--memory", "128m", "web")
    if "unrecognized command" in done.stderr:
        pytest.skip("this podman has no update")
    assert done.returncode == 0, done
    script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
    assert podman.do("exec", "web", "sh", "-c", script) == f"{128 << 20}\n"


# ---- volumes, pods, builds ----


def test_volumes(podman, tmp_path):
    (tmp_path / "given").write_text("from outside\n", encoding="ascii")
    podman.do("volume", "create", "kept")
    podman.do("run", "--rm", *NET, "--volume", "kept:/data", BUSYBOX_NAME, "sh", "-c", "echo stays >/data/file")
    assert podman.do("run", "--rm", *NET, "--volume", "kept:/data:ro", "--volume", f"{tmp_path}:/in:ro", BUSYBOX_NAME, "sh", "-c",
                     "cat /data/file /in/given; touch /in/x 2>&1 | grep -c Read-only; touch /data/x 2>&1 | grep -c Read-only") \
        == "stays\nfrom outside\n1\n1\n"
    podman.do("run", "--rm", *NET, "--volume", f"{tmp_path}:/out", BUSYBOX_NAME, "sh", "-c", "echo back >/out/returned")
    assert (tmp_path / "returned").read_text(encoding="ascii") == "back\n"


def test_copy(podman, tmp_path):
    start(podman, "web")
    (tmp_path / "a").write_text("copied\n", encoding="ascii")
    podman.do("cp", tmp_path / "a", "web:/tmp/a")
    assert podman.do("exec", "web", "cat", "/tmp/a") == "copied\n"
    podman.do("cp", "web:/etc/passwd", tmp_path / "b")
    assert (tmp_path / "b").read_text(encoding="ascii").startswith("root:")


def test_pod(podman):
    """Containers of a pod share its network and its names, and have file systems of their own."""
    podman.do("pod", "create", "--name", "pair", "--network", "none", "--share", "net,ipc,uts", "--hostname", "pair", "--infra-image",
              BUSYBOX_NAME, "--infra-command", "/bin/sleep 1000")
    podman.do("run", "--detach", "--pod", "pair", "--name", "server", BUSYBOX_NAME, "sh", "-c",
              "ip link set lo up 2>/dev/null; while :; do echo from the server | nc -l -p 7777; done")
    podman.do("run", "--detach", "--pod", "pair", "--name", "client", BUSYBOX_NAME, "sleep", "1000")
    wait_until(lambda: podman.run("exec", "client", "nc", "127.0.0.1", "7777").stdout == "from the server\n", "the server answers")
    assert podman.do("exec", "client", "hostname") == "pair\n"
    podman.do("pod", "pause", "pair")
    podman.do("pod", "unpause", "pair")
    podman.do("pod", "stop", "--time", "0", "pair")
    podman.do("pod", "rm", "--force", "pair")


def test_build(podman, tmp_path):
    (tmp_path / "Dockerfile").write_text(f"""FROM {BUSYBOX_NAME}
ENV WHERE=/srv
WORKDIR /srv
RUN echo built by $(id -u) in $(pwd) >note && ln -s note link
COPY file /srv/file
RUN cat file >>note
USER user
CMD ["cat", "/srv/link"]
""", encoding="ascii")
    (tmp_path / "file").write_text("copied\n", encoding="ascii")
    podman.do("build", "--network", "none", "--isolation", "oci", "--tag", "made", tmp_path)
    assert podman.do("run", "--rm", *NET, "made") == "built by 0 in /srv\ncopied\n"
    assert podman.do("run", "--rm", *NET, "made", "id", "-u") == "1000\n"
    broken = podman.run("build", "--network", "none", "--isolation", "oci", "-f", "-", tmp_path, stdin=None,
                        input=f"FROM {BUSYBOX_NAME}\nRUN exit 5\n")
    assert broken.returncode != 0 and "exit status 5" in broken.stderr, broken


def test_commit_and_diff(podman):
    start(podman, "web", command=("sh", "-c", "echo changed >/etc/new; sleep 1000"))
    wait_until(lambda: "A /etc/new" in podman.do("diff", "web"), "the change is seen")
    podman.do("commit", "--quiet", "web", "changed")
    assert podman.do("run", "--rm", *NET, "changed", "cat", "/etc/new") == "changed\n"


# ---- many, and what is left ----


def test_many_at_once(podman):
    children = [podman.popen("run", "--rm", *NET, BUSYBOX_NAME, "echo", str(n), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
                for n in range(8)]
    assert [child.communicate(timeout=120)[0] for child in children] == [f"{n}\n" for n in range(8)]


def test_nothing_is_left(podman):
    name = "left-behind"
    start(podman, name)
    ident = podman.inspect(name, ".ID")
    pid = podman.inspect(name, ".State.Pid")
    assert pid > 0
    podman.do("rm", "--force", "--time", "0", name)
    assert not os.path.exists(f"/proc/{pid}")
    for top, directories, _ in os.walk("/sys/fs/cgroup"):
        assert not [d for d in directories if ident in d], top
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        assert ident not in mounts.read()

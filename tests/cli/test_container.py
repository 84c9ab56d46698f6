# SPDX-License-Identifier: GPL-2.0-or-later
"""Containers as guests: run, limits, users, volumes, networks, the life that virtual machines have too, and what is left."""
import contextlib
import json
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from life import Home, children, wait_until
from oci_images import Layout, directory, file, symlink, tar
from program import TABIQUE, TREE, Terminal

sys.path.insert(0, str(TREE / "tests/guest"))
import built_image  # noqa: E402 pylint: disable=wrong-import-position

BUSYBOX = shutil.which("busybox")
pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="only root may make the groups of containers here"),
              pytest.mark.skipif(not BUSYBOX, reason="the program busybox is not installed")]

APPLETS = ("sh", "cat", "echo", "id", "ls", "sleep", "hostname", "pwd", "env", "true", "false", "kill", "touch", "mkdir", "ip",
           "head", "tr", "nc", "ps", "ln", "stat", "chown", "wc", "rm", "mount", "grep", "nslookup", "dd", "seq", "printf", "trap", "test")


def busybox_layer():
    """A root file system of one program, which Debian links statically."""
    return tar(directory("bin"), file("bin/busybox", pathlib.Path(BUSYBOX).read_bytes(), mode=0o755), directory("etc"),
               *[symlink(f"bin/{name}", "busybox") for name in APPLETS], directory("proc"), directory("sys"), directory("dev"),
               directory("tmp", mode=0o1777), directory("root", mode=0o700), directory("home"),
               file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n"),
               file("etc/group", "root:x:0:\nweb:x:1001:\nlogs:x:1002:web\n"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A state directory with images, which each test gets a copy of."""
    path = tmp_path_factory.mktemp("images")
    layout = Layout(path / "layout")
    base = busybox_layer()
    layout.add(base, tag="box", config={"Cmd": ["sh"], "Env": ["PATH=/bin", "FROM=image"]})
    layout.add(base, tag="serve", config={"Entrypoint": ["sh", "-c", "echo ready; trap 'echo got; exit 3' USR1; "
                                                                     "while :; do sleep 0.1; done"],
                                          "StopSignal": "SIGUSR1", "WorkingDir": "/tmp", "Env": ["PATH=/bin"]})
    layout.add(base, tag="person", config={"Cmd": ["id"], "User": "web:logs", "Env": ["PATH=/bin"]})
    home = Home(path / "home")
    for tag in ("box", "serve", "person"):
        assert home.run("image", "import", f"oci:{layout.path}:{tag}", "--name", tag).returncode == 0
    return home.path


@pytest.fixture
def home(tmp_path, store):
    subprocess.run(["cp", "-a", store, tmp_path / "home"], check=True)
    home = Home(tmp_path / "home")
    yield home
    for name in home.states():
        home.run("rm", "-f", name)
    home.clear()


def run(home, *args, image="box", **options):
    """Runs a command in a container that is gone afterwards; the result."""
    command = list(args[args.index("--"):]) if "--" in args else []
    flags = args[:args.index("--")] if "--" in args else args
    return home.run("run", "--kind", "container", "--rm", "--net", "none", *flags, image, *command, **options)


def shell(home, script, *flags, **options):
    result = run(home, *flags, "--", "sh", "-c", script, **options)
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout


def groups(home):
    """What this home's containers have made of the host's control groups: their names end with its number (FNV-1a)."""
    number = 2166136261
    for byte in bytes(home.path):
        number = (number ^ byte) * 16777619 & 0xFFFFFFFF
    root = pathlib.Path("/sys/fs/cgroup")
    return [str(p) for pattern in ("tabique-*", "*/tabique-*") for p in root.glob(f"{pattern}-{number:08x}")]


def running(home):
    """What runs by its directories; what the runtime keeps for the next container has names that begin with a dot."""
    run_directory = home.path / "run"
    found = [p for place in (run_directory, run_directory / ".containers") if place.exists() for p in place.iterdir()]
    return [p.name for p in found if not p.name.startswith(".")]


def expect_nothing_left(home, *names):
    wait_until(lambda: not home.processes(), f"processes {home.processes()} end")
    home.do("ps")
    assert sorted(p.name for p in (home.path / "guests").iterdir()) == sorted(names)
    assert running(home) == []
    assert str(home.path) not in pathlib.Path("/proc/mounts").read_text()
    assert groups(home) == []


# ---- what a program finds ----


def test_a_command(home):
    result = run(home, "--", "echo", "hello", "$HOME")
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello $HOME\n", "")
    expect_nothing_left(home)


def test_exit_statuses(home):
    assert run(home, "--", "sh", "-c", "exit 7").returncode == 7
    assert run(home, "--", "sh", "-c", "kill -9 $$").returncode == 0  # process 1 of its own can't be killed from inside
    assert run(home, "--", "nothing").returncode == 127
    assert run(home, "--", "/etc/passwd").returncode == 126
    assert run(home, "--", "false").returncode == 1
    expect_nothing_left(home)


def test_standard_input_has_its_end(home):
    assert run(home, "--", "cat", stdin=None, input="some\ntext").stdout == "some\ntext"
    big = "x" * 3_000_000
    assert run(home, "--", "wc", "-c", stdin=None, input=big).stdout.strip() == str(len(big))
    assert len(shell(home, "dd if=/dev/zero bs=1000 count=3000 2>/dev/null | tr '\\0' y")) == 3_000_000


def test_the_image_s_defaults(home):
    assert run(home, image="person").stdout.startswith("uid=1000(web) gid=1002(logs)")
    assert "FROM=image" in shell(home, "env")
    assert "FROM=flag" in shell(home, "env", "--env", "FROM=flag") and "A=b c" in shell(home, "env", "--env", "A=b c")


@pytest.mark.parametrize("user, expected", [("web", "uid=1000(web) gid=1001(web) groups=1001(web),1002(logs)"),
                                            ("1000", "uid=1000(web) gid=1001(web) groups=1001(web),1002(logs)"),
                                            ("web:0", "uid=1000(web) gid=0(root)"), ("77:88", "uid=77 gid=88"),
                                            ("root", "uid=0(root) gid=0(root)")])
def test_users(home, user, expected):
    assert run(home, "--user", user, "--", "id").stdout.startswith(expected)


def test_flags(home):
    assert shell(home, "hostname; pwd", "--hostname", "foo", "--workdir", "/tmp") == "foo\n/tmp\n"
    assert shell(home, "cat /etc/hostname", "--name", "web_1") == "web_1\n"
    assert run(home, "--read-only", "--", "touch", "/x").returncode == 1
    assert shell(home, "touch /x && ls /x") == "/x\n"
    assert shell(home, "echo $$") == "1\n"


def capabilities(home, *flags):
    line = shell(home, "grep CapBnd /proc/self/status", *flags)
    return int(line.split()[1], 16)


def test_capabilities(home):
    usual, everything = capabilities(home), capabilities(home, "--privileged")
    assert usual & 1 and not usual & 1 << 21 and everything & 1 << 21  # chown; sys_admin
    assert capabilities(home, "--cap-drop", "ALL") == 0
    assert capabilities(home, "--cap-drop", "ALL", "--cap-add", "net_admin") == 1 << 12
    assert capabilities(home, "--cap-add", "ALL") == everything
    assert "NoNewPrivs:\t1" in shell(home, "cat /proc/self/status", "--security-opt", "no-new-privileges")
    assert "Seccomp:\t0" in shell(home, "cat /proc/self/status", "--security-opt", "seccomp=unconfined")
    assert "Seccomp:\t2" in shell(home, "cat /proc/self/status")


def test_hidden_and_read_only_paths(home):
    def option(text):
        return ["--security-opt", text]

    script = "(grep -c . /proc/timer_list; echo 5000 > /proc/sys/kernel/msgmax && echo wrote; touch /home/x && echo touched; true) 2>/dev/null"
    assert shell(home, script) == "0\ntouched\n"
    said = shell(home, script, *option("systempaths=unconfined")).split()
    assert int(said[0]) > 0 and said[1:] == ["wrote", "touched"]
    said = shell(home, script, *option("unmask=/proc/timer*:/proc/key*"), *option("mask=/home:/srv")).split()
    assert int(said[0]) > 0 and said[1:] == []
    assert shell(home, script, *option("unmask=/proc/sys")) == "0\nwrote\ntouched\n"


def test_volumes(home, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/in").write_text("from the host\n")
    volume = f"{tmp_path}/shared:/data"
    assert shell(home, "cat /data/in; echo back >/data/out", "--volume", volume) == "from the host\n"
    assert (tmp_path / "shared/out").read_text() == "back\n"
    assert run(home, "--volume", volume + ":ro", "--", "touch", "/data/x").returncode == 1
    assert shell(home, "cat /data/in", "--volume", "./shared:/data", cwd=tmp_path) == "from the host\n"
    shell(home, "echo kept >/v/file", "--volume", "named:/v")
    assert shell(home, "cat /v/file", "--volume", "named:/v") == "kept\n"


def test_limits(home):
    result = run(home, "--memory", "20M", "--", "sh", "-c", "x=$(dd if=/dev/zero bs=1000000 count=200 | tr '\\0' x)")
    assert result.returncode == 137 and "memory limit was reached" in result.stderr, result
    result = run(home, "--pids", "5", "--", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait")
    assert "can't fork" in result.stdout + result.stderr
    assert shell(home, "true", "--cpus", "1", "--io-weight", "500") == ""
    expect_nothing_left(home)


def test_networks(home):
    assert shell(home, "ip link | grep -c mtu") == "1\n"
    shown = home.run("run", "--kind", "container", "--rm", "box", "--", "sh", "-c", "ip addr; cat /etc/resolv.conf").stdout
    assert "inet 10.0.2.15/24" in shown and "nameserver 10.0.2.3" in shown
    host = home.run("run", "--kind", "container", "--rm", "--net", "host", "box", "--", "ls", "/sys/class/net").stdout
    assert sorted(host.split()) == sorted(os.listdir("/sys/class/net"))


def test_published_ports_and_the_host(home):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home.do("run", "--kind", "container", "-d", "--name", "web", "--publish", f"127.0.0.1:{port}:80", "box", "--", "sh", "-c",
            "echo ready; while :; do echo answer | nc -l -p 80; done")
    wait_until(lambda: "ready" in home.log("web"), "it listens")

    def ask():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as s:
            return s.recv(100)
        return None

    assert wait_until(ask, "an answer") == b"answer\n"
    home.do("rm", "-f", "web")


@pytest.mark.parametrize("flags, why", [
    (["--volume", "x"], "is not of the form SOURCE:DESTINATION"), (["--volume", "/a:b"], "is not of the form"),
    (["--volume", "/a:/b:xx"], "is not of the form"), (["--env", "X"], "is not of the form NAME=VALUE"),
    (["--cap-add", "FLY"], "there is no capability 'FLY'"), (["--workdir", "x"], "does not begin with '/'"),
    (["--security-opt", "x"], "is none of no-new-privileges"),
    (["--security-opt", "mask=proc"], "mask='proc' does not begin with '/'"), (["--security-opt", "systempaths=some"], "only unconfined"), (["--net", "tap=x"], "is no network of containers"),
    (["--kernel", "x"], "--kernel is for --kind vm"), (["--net", "none", "--publish", "1:1"], "--publish takes the user network"),
])
def test_wrong_flags(home, flags, why):
    result = home.run("run", "--kind", "container", *flags, "box", "--", "true")
    assert result.returncode == 2 and why in result.stderr, result


def test_wrong_starts(home):
    for args, why in ((["nothing"], "no image 'nothing'"), (["box", "--user", "nobody"], "has no user 'nobody'"),
                      ([], "is made from an image"), (["box", "--volume", "/nothing/there:/x"], "No such file or directory")):
        assert why in home.fail("run", "--kind", "container", "--net", "none", *args)
    expect_nothing_left(home)


# ---- its life ----


def serve(home, name, *flags):
    home.do("run", "--kind", "container", "-d", "--net", "none", "--name", name, *flags, "serve")
    wait_until(lambda: "ready" in home.log(name), f"{name} listens")


def test_the_life_of_a_container(home):
    serve(home, "web")
    assert home.states() == {"web": "running"}
    home.do("pause", "web")
    assert home.states() == {"web": "paused"}
    home.do("resume", "web")
    stats = json.loads(home.do("stats", "--json", "web"))
    assert stats["resident-bytes"] > 0 and stats["container"]["pids"]["current"] >= 1
    home.do("stop", "web")  # by the image's signal
    shown = home.inspect("web")
    assert shown["state"] == "stopped" and shown["exit-status"] == 3 and "got" in home.do("logs", "web")
    home.do("start", "web")
    wait_until(lambda: home.log("web").count("ready") == 2, "it listens again")
    home.do("kill", "web")
    assert home.inspect("web")["exit-status"] == 137
    home.do("restart", "web")
    assert "is running" in home.fail("rm", "web")
    home.do("rm", "-f", "web")
    expect_nothing_left(home)


def test_what_it_wrote_stays_with_it(home):
    home.do("run", "--kind", "container", "--net", "none", "--name", "web", "box", "--", "sh", "-c", "ls /kept; echo >/kept")
    home.do("start", "--attach", "web")
    assert home.log("web").count("/kept") == 2 and "No such file" in home.log("web")
    home.do("rm", "web")
    expect_nothing_left(home)


def test_restart_policies(home):
    home.do("run", "--kind", "container", "-d", "--net", "none", "--name", "web", "--restart", "on-failure:2", "box", "--", "sh",
            "-c", "echo again; exit 5")
    wait_until(lambda: home.states()["web"] == "stopped", "it has ended for good")
    assert home.log("web").count("again") == 3 and home.inspect("web")["exit-status"] == 5


def test_an_image_in_use_stays(home):
    serve(home, "web")
    assert "is in use" in home.fail("image", "rm", "serve")
    home.do("rm", "-f", "web")
    home.do("image", "rm", "serve")


def test_on_a_terminal(home):
    os.environ["TABIQUE_HOME"], before = str(home.path), os.environ["TABIQUE_HOME"]
    try:
        terminal = Terminal("run", "--kind", "container", "--rm", "--net", "none", "box")
        terminal.expect(rb"# ")
        terminal.send(b"test -t 0 && echo is-a-$((1))-terminal; exit 4\n")
        terminal.expect(rb"is-a-1-terminal")
        assert terminal.wait() == 4
    finally:
        os.environ["TABIQUE_HOME"] = before
    expect_nothing_left(home)


# ---- into it ----


def test_exec(home):
    serve(home, "web")
    result = home.run("exec", "web", "--", "sh", "-c", "echo out; cat; exit 5", stdin=None, input="in\n")
    assert (result.returncode, result.stdout) == (5, "out\nin\n")
    assert home.run("exec", "web", "--", "nothing").returncode == 127
    assert home.do("exec", "--workdir", "/bin", "--env", "A=b", "web", "--", "sh", "-c", "pwd; echo $A") == "/bin\nb\n"
    shown = home.do("exec", "--user", "web", "web", "--", "sh", "-c", "id; grep -E 'Cap(Eff|Prm)' /proc/self/status")
    assert shown.startswith("uid=1000(web) gid=1001(web) groups=1001(web),1002(logs)\n") and shown.count("0000000000000000") == 2
    assert "sleep 0.1" in home.do("exec", "web", "--", "ps")  # the same processes
    assert "no user 'nobody'" in home.fail("exec", "--user", "nobody", "web", "--", "id")
    home.do("pause", "web")
    assert "is paused" in home.fail("exec", "web", "--", "id")
    home.do("kill", "web")
    assert "is stopped" in home.fail("exec", "web", "--", "id")
    assert "no guest 'wob': did you mean 'web'?" in home.fail("exec", "wob", "--", "id")


@pytest.mark.parametrize("runs", [True, False])
def test_cp(home, tmp_path, runs):
    serve(home, "web")
    if not runs:
        home.do("kill", "web")
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").write_text("content")
    (tmp_path / "tree/link").symlink_to("sub/file")
    (tmp_path / "tree/sub/file").chmod(0o640)
    home.do("cp", tmp_path / "tree/sub/file", "web:/tmp/")
    home.do("cp", tmp_path / "tree/sub/file", "web:/tmp/other")
    home.do("cp", tmp_path / "tree", "web:/root")
    home.do("cp", "web:/root/tree", tmp_path / "back")
    assert (tmp_path / "back/sub/file").read_text() == "content" and os.readlink(tmp_path / "back/link") == "sub/file"
    assert (tmp_path / "back/sub/file").stat().st_mode & 0o777 == 0o640
    home.do("cp", "web:/tmp/other", tmp_path / "one")
    assert (tmp_path / "one").read_text() == "content"
    for args, why in ((["web:/none", tmp_path], "No such file"), ([tmp_path / "one", tmp_path / "two"], "has to be in a container"),
                      (["web:", tmp_path], "names no file"), ([tmp_path / "one", "web:/none/x"], "No such file")):
        assert why in home.fail("cp", *args)
    if not runs:
        home.do("start", "web")
    assert home.do("exec", "web", "--", "cat", "/tmp/file", "/root/tree/link") == "contentcontent"


def test_cp_stays_in_the_container(home, tmp_path):
    """Links that lead to the host's files, as the container's programs may make them."""
    serve(home, "web")
    secret, target = tmp_path / "secret", tmp_path / "target"
    secret.write_text("the host's")
    target.mkdir()
    home.do("exec", "web", "--", "sh", "-c", f"ln -s {secret} /tmp/file; ln -s {target} /tmp/dir; ln -s / /tmp/up; "
                                             "ln -s ../../../../../../proc/1/root/etc /tmp/proc")
    assert "No such file" in home.fail("cp", "web:/tmp/dir/x", tmp_path / "got")
    home.do("cp", "web:/tmp/file", tmp_path / "got")  # the link itself
    assert os.readlink(tmp_path / "got") == str(secret)
    (tmp_path / "mine").write_text("mine")
    assert home.run("cp", tmp_path / "mine", "web:/tmp/dir/").returncode == 1
    assert os.listdir(target) == [] and secret.read_text() == "the host's"
    home.do("cp", tmp_path / "mine", "web:/tmp/file")  # takes the link's place
    assert secret.read_text() == "the host's" and home.do("exec", "web", "--", "cat", "/tmp/file") == "mine"
    home.do("cp", tmp_path / "mine", "web:/tmp/up/")
    assert not os.path.exists("/mine") and home.do("exec", "web", "--", "cat", "/mine") == "mine"


def test_update(home):
    serve(home, "web")
    home.do("update", "web", "--memory", "64M", "--pids", "50", "--cpus", "1.5")
    config = home.inspect("web")["config"]
    assert (config["memory"], config["pids"], config["cpus"]) == (64 << 20, 50, 1.5)
    assert json.loads(home.do("stats", "--json", "web"))["container"]["memory"]["usage"]["limit"] == 64 << 20
    home.do("kill", "web")
    home.do("update", "web", "--memory", "32M")
    home.do("start", "web")
    stats = json.loads(home.do("stats", "--json", "web"))["container"]
    assert stats["memory"]["usage"]["limit"] == 32 << 20 and stats["pids"]["limit"] == 50
    assert home.run("update", "web").returncode == 2


def test_init(home):
    """A first process of ours: signals reach the program, orphans are taken, statuses are the program's."""
    assert shell(home, "test $$ -ne 1 && cat /proc/1/comm", "--init") == "init\n"
    assert run(home, "--init", "--", "sh", "-c", "exit 9").returncode == 9
    assert run(home, "--init", "--", "sh", "-c", "kill -9 $$").returncode == 137
    assert run(home, "--init", "--", "nothing").returncode == 127
    assert run(home, "--init", "--read-only", "--user", "web", "--", "id", "-u").stdout == "1000\n"
    # Children of a child that has ended: none of them stays as a zombie.
    assert shell(home, "(for i in 1 2 3; do (sleep 0.1 &) ; done); sleep 0.5; ps -o stat | grep -c Z || true", "--init") == "0\n"
    serve(home, "web", "--init")
    home.do("stop", "web")
    assert home.inspect("web")["exit-status"] == 3


# ---- a whole system ----


@pytest.mark.skipif(bool(built_image.missing()), reason="missing: " + " ".join(built_image.missing()))
def test_a_whole_system(home):
    """The image that serves virtual machines, with systemd inside and a shell on this terminal."""
    name = built_image.build(TABIQUE, "bookworm")["name"]
    system = Home(built_image.HOME)
    os.environ["TABIQUE_HOME"], before = str(system.path), os.environ["TABIQUE_HOME"]
    try:
        terminal = Terminal("run", "--kind", "container", "--rm", "--name", "whole-system", name)
        terminal.expect(rb"root@whole-system:~# ", timeout=120)
        terminal.send(b"systemctl is-system-running --wait; cat /proc/1/comm\n")
        terminal.expect(rb"[\r\n](running|degraded)\r", timeout=60)
        terminal.expect(rb"[\r\n]systemd\r")
        terminal.send(b"systemctl --failed --no-legend --plain | wc -l\n")
        failed = int(terminal.expect(rb"[\r\n](\d+)\r").group(1))
        assert failed == 0
        assert "systemd" in system.do("exec", "whole-system", "--", "ps", "-p", "1", "-o", "comm=")
        result = system.run("stop", "whole-system")
        assert result.returncode == 0, result
        assert terminal.wait(30) == 0  # an orderly end: it was asked in the way that systemd understands
        assert b"Stopped" in terminal.output
    finally:
        system.run("rm", "-f", "whole-system")
        os.environ["TABIQUE_HOME"] = before


# ---- a person's ----


class Person(Home):
    """The same for somebody without rights, who has ids to give away in /etc/subuid."""

    def __init__(self, path, uid):
        super().__init__(path / "home")
        self.uid, self.program = uid, path / "tabique"
        # A process that has joined a user namespace can't be traced by its own leak checker, which waits for ever then.
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(path), "TABIQUE_HOME": str(self.path),
                            "ASAN_OPTIONS": "detect_leaks=0"}
        shutil.copy(TABIQUE, self.program)

    def run(self, *args, timeout=60, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        words = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", self.program, *map(str, args)]
        return subprocess.run(words, env=self.environment, text=True, stdout=subprocess.PIPE, cwd="/",
                              stderr=subprocess.PIPE, timeout=timeout, check=False, **options)

    def processes(self):
        found = set()
        for process in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if process.name.isdigit() and os.readlink(process / "exe") == str(self.program):
                    found.add(int(process.name))
        return found


@pytest.fixture
def person(store):
    for line in pathlib.Path("/etc/subuid").read_text().splitlines() if os.path.exists("/etc/subuid") else []:
        name, _, count = line.split(":")
        with contextlib.suppress(KeyError):
            uid = pwd.getpwnam(name).pw_uid
            if uid and int(count) >= 65535 and f"{name}:" in pathlib.Path("/etc/subgid").read_text():
                break
    else:
        pytest.skip("nobody has ids to give away in /etc/subuid and /etc/subgid")
    path = pathlib.Path(tempfile.mkdtemp(prefix="tabique-person-", dir="/tmp"))  # those of tests are closed to others
    shutil.copytree(store.parent / "layout", path / "layout")
    for item in (path, *path.rglob("*")):
        os.chown(item, uid, uid)
    person = Person(path, uid)
    yield person
    for name in person.states():
        person.run("rm", "-f", name)
    shutil.rmtree(path)


def test_a_person_s_container(person):
    assert person.run("image", "import", f"oci:{person.path.parent}/layout:serve", "--name", "serve").returncode == 0
    person.do("run", "--kind", "container", "-d", "--net", "none", "--name", "web", "serve")
    wait_until(lambda: "ready" in person.log("web"), "it listens")
    assert person.do("exec", "web", "--", "id").startswith("uid=0(root) gid=0(root)")
    assert f" {person.uid} " in person.do("exec", "web", "--", "cat", "/proc/self/uid_map")
    person.do("exec", "web", "--", "sh", "-c", "rm /bin/tr; mkdir /mine; touch /mine/file; chown 1000:1001 /mine/file /mine")
    assert person.do("exec", "--user", "1000", "web", "--", "stat", "-c", "%u", "/mine/file") == "1000\n"
    (person.path.parent / "in").write_text("content")
    person.do("cp", person.path.parent / "in", "web:/tmp/")
    assert person.do("exec", "web", "--", "cat", "/tmp/in") == "content"
    person.do("stop", "web")
    assert person.inspect("web")["exit-status"] == 3
    person.do("start", "web")
    assert person.do("exec", "web", "--", "ls", "/mine") == "file\n"
    # Killed: all of it goes with the guest, files of other ids too.
    os.kill(person.inspect("web")["vm"], signal.SIGKILL)
    wait_until(lambda: person.states()["web"] != "running", "its end is known")
    person.do("rm", "-f", "web")
    wait_until(lambda: not person.processes(), "its processes end")
    assert os.listdir(person.path / "guests") == [] and running(person) == []
    person.do("image", "rm", "serve")
    assert os.listdir(person.path / "images/layers") == []


# ---- killed ----


def lives(pid):
    """Whether it is more than a number that its new parent has not asked for yet."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


@pytest.mark.parametrize("who", ["supervisor", "vm", "both", "program"])
def test_killed_processes_leave_nothing(home, who):
    serve(home, "web")
    shown = home.inspect("web")
    program = children(shown["vm"])
    pids = {"supervisor": [shown["supervisor"]], "vm": [shown["vm"]], "both": [shown["supervisor"], shown["vm"]],
            "program": program[:1]}[who]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: home.states()["web"] in ("crashed", "stopped"), "its end is known")
    home.do("start", "web")
    wait_until(lambda: home.log("web").count("ready") == 2, "it runs again")
    home.do("rm", "-f", "web")
    expect_nothing_left(home)
    assert not [p for p in program if lives(p)]


def test_killed_at_any_moment(home):
    """Any process of it, whatever it is just doing."""
    rounds = int(os.environ.get("TABIQUE_KILLS", "200"))
    chance = random.Random(1)
    for _ in range(rounds):
        child = home.popen("run", "--kind", "container", "-d", "--net", "none", "--name", "soak", "serve")
        time.sleep(chance.uniform(0, 0.25))
        ours = sorted(home.processes())
        if ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(ours), signal.SIGKILL)
        child.communicate(timeout=30)
        # What was killed may take a moment to let go of it.
        wait_until(lambda: (removed := home.run("rm", "-f", "soak")).returncode == 0 or "no guest" in removed.stderr,
                   "it can be removed")
        # Killed before it was a guest: the next one that is made clears its directory away.
        wait_until(lambda: not home.processes(), "its processes end")
    home.do("run", "--kind", "container", "--net", "none", "--rm", "--name", "last", "box", "--", "true")
    expect_nothing_left(home)

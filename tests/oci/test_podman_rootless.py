# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's podman on our runtime, run by an ordinary user, who is made for these tests with ranges of ids of his own."""
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile

import pytest

import peers
from images import BUSYBOX_NAME
from life import wait_until

NET = ["--network", "none"]


class PersonsPodman(peers.Podman):
    """As the root's, but started as that user, with a runtime where he may read it."""

    def __init__(self, name):
        person = pwd.getpwnam(name)
        super().__init__(person.pw_dir)
        self.uid = person.pw_uid
        runtime = self.directory / "tabique-oci"
        shutil.copy(peers.RUNTIME, runtime)
        (self.directory / "runtime").mkdir(mode=0o700)
        for path in (self.directory / "runtime", self.directory / "containers.conf"):
            os.chown(path, self.uid, person.pw_gid)
        prefix = ["setpriv", f"--reuid={self.uid}", f"--regid={person.pw_gid}", "--clear-groups"]
        self.command = [*prefix, *self.command[:-1], runtime]
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "TMPDIR": "/tmp",
                            "XDG_RUNTIME_DIR": str(self.directory / "runtime"),
                            "CONTAINERS_CONF": str(self.directory / "containers.conf")}

    def run(self, *args, **options):
        options.setdefault("cwd", self.directory)
        return super().run(*args, **options)

    def processes(self):
        return [int(p.name) for p in pathlib.Path("/proc").iterdir() if p.name.isdigit() and is_of(p, self.uid)]

    def end(self):
        self.clear()
        self.run("unshare", "rm", "-rf", str(self.directory / "root"))  # files of his ids
        for pid in self.processes():  # podman's pause process
            os.kill(pid, 9)
        wait_until(lambda: not self.processes(), "nothing of his runs")


def is_of(entry, uid):
    try:
        return entry.stat().st_uid == uid and (entry / "stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module", name="persons_podman")
def fixture_persons_podman(archives):
    reason = peers.lacking("podman", "conmon", "useradd", "userdel", "newuidmap", "setpriv")
    if reason:
        pytest.skip(reason)
    name = f"tabique{os.getpid()}"
    home = tempfile.mkdtemp(prefix="tabique-person-", dir="/tmp")
    subprocess.run(["useradd", "--home-dir", home, "--no-create-home", name], check=True)
    try:
        person = pwd.getpwnam(name)
        os.chown(home, person.pw_uid, person.pw_gid)
        if subprocess.run(["setpriv", f"--reuid={person.pw_uid}", f"--regid={person.pw_gid}", "--clear-groups", "unshare", "--user",
                           "true"], capture_output=True, check=False).returncode:
            pytest.skip("this host gives no user namespaces to a person")
        peer = PersonsPodman(name)
        try:
            archive = pathlib.Path(home) / "busybox.tar"
            shutil.copy(archives[BUSYBOX_NAME], archive)
            archive.chmod(0o644)
            peer.do("load", "--quiet", "--input", archive)
            yield peer
        finally:
            peer.end()
    finally:
        subprocess.run(["userdel", name], check=False)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(name="podman")
def fixture_podman(persons_podman):
    yield persons_podman
    persons_podman.clear()


def test_run(podman):
    said = podman.do("run", "--rm", *NET, BUSYBOX_NAME, "sh", "-c", "id -u; cat /proc/self/uid_map; touch /file && ls /file; exit 0")
    lines = said.splitlines()
    assert lines[0] == "0" and lines[1].split() == ["0", str(podman.uid), "1"] and lines[-1] == "/file"
    assert podman.do("run", "--rm", "--network", "host", BUSYBOX_NAME, "echo", "hello") == "hello\n"
    assert podman.run("run", "--rm", *NET, BUSYBOX_NAME, "sh", "-c", "exit 7").returncode == 7
    assert podman.run("run", "--rm", *NET, BUSYBOX_NAME, "no-such-program").returncode == 127


def test_the_host_is_out_of_reach(podman):
    """Its root has no more rights than the person outside."""
    done = podman.run("run", "--rm", *NET, "--privileged", "--volume", "/etc:/host", BUSYBOX_NAME, "sh", "-c",
                      "touch /host/made; mount -t tmpfs none /tmp && echo mounted; mknod /dev/mem2 c 1 1; cat /host/shadow")
    assert "mounted" in done.stdout and done.stderr.count("Permission denied") + done.stderr.count("Operation not permitted") == 3
    assert not os.path.exists("/etc/made")


def test_user_and_volume(podman):
    (podman.directory / "data").mkdir(exist_ok=True)
    os.chown(podman.directory / "data", podman.uid, podman.uid)
    said = podman.do("run", "--rm", *NET, "--user", "1000:1000", "--volume", "kept:/kept:U", BUSYBOX_NAME, "sh", "-c",
                     "id -u; touch /kept/file; stat -c %u /kept/file")
    assert said == "1000\n1000\n"
    podman.do("run", "--rm", *NET, "--volume", f"{podman.directory}/data:/data", BUSYBOX_NAME, "sh", "-c",
              "touch /data/mine; touch /data/other; chown 1000 /data/other")
    assert (podman.directory / "data/mine").stat().st_uid == podman.uid
    assert (podman.directory / "data/other").stat().st_uid >= 100000
    podman.do("unshare", "rm", podman.directory / "data/other")


def test_life(podman):
    podman.do("run", "--detach", "--name", "web", *NET, "--hostname", "box", BUSYBOX_NAME, "sh", "-c",
              "trap 'exit 5' TERM; echo ready; while true; do sleep 0.1; done")
    wait_until(lambda: "ready" in podman.do("logs", "web"), "it runs")
    assert podman.do("exec", "web", "hostname") == "box\n"
    assert podman.run("exec", "--user", "1000", "web", "sh", "-c", "id -u; exit 3").returncode == 3
    assert "sleep" in podman.do("top", "web", "args") or "sh" in podman.do("top", "web", "args")
    podman.do("stop", "web")
    assert podman.inspect("web", ".State.ExitCode") == 5
    podman.do("start", "web")
    podman.do("kill", "web")
    wait_until(lambda: podman.inspect("web", ".State.Status") == "exited", "it ends")
    podman.do("rm", "web")


def test_build_and_pod(podman):
    context = podman.directory / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX_NAME}\nRUN echo built > /built && chown 1000 /built\nCMD [\"cat\", \"/built\"]\n")
    podman.do("build", "--quiet", "--network", "none", "--isolation", "oci", "--tag", "mine", context)
    assert podman.do("run", "--rm", *NET, "mine") == "built\n"
    podman.do("rmi", "mine")
    pause = podman.run("pod", "create", "--name", "pod", "--network", "none", "--infra-image", BUSYBOX_NAME, "--infra-command",
                       "sleep 1000")
    assert pause.returncode == 0, pause.stderr
    podman.do("run", "--detach", "--pod", "pod", "--name", "one", BUSYBOX_NAME, "sleep", "1000")
    one = podman.do("exec", "one", "readlink", "/proc/self/ns/net")
    assert podman.do("run", "--rm", "--pod", "pod", BUSYBOX_NAME, "readlink", "/proc/self/ns/net") == one

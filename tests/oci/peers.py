# SPDX-License-Identifier: GPL-2.0-or-later
"""podman and containerd with the runtime under test, each with a state of its own that goes with the tests."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

TREE = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TREE / "tests/cli"))
from life import wait_until  # noqa: E402 pylint: disable=wrong-import-position
from program import BUILD  # noqa: E402 pylint: disable=wrong-import-position

LIMIT = 120  # seconds, for what takes a moment on an idle host

# A host may give its root less than podman asks for (RLIMIT_NOFILE of a million), and has no systemd perhaps.
PODMAN_CONF = """[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""

CONTAINERD_CONF = """version = 2
root = "{root}/root"
state = "{root}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "{root}/sock"
[ttrpc]
  address = "{root}/ttrpc"
"""


RUNTIME = os.environ.get("TABIQUE_OCI_RUNTIME", str(BUILD / "tabique-oci"))  # to try the tests themselves: /usr/sbin/runc


def lacking(*programs):
    """What of these is not installed, as a reason to skip; or None. All of it needs root's rights here."""
    missing = [p for p in programs if not shutil.which(p, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
    if missing:
        return f"{', '.join(missing)} not installed: tools/install-deps installs it"
    return "needs root" if os.geteuid() else None


class Podman:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        config = self.directory / "containers.conf"
        config.write_text(PODMAN_CONF, encoding="ascii")
        self.environment = dict(os.environ, CONTAINERS_CONF=str(config))
        self.command = ["podman", "--root", self.directory / "root", "--runroot", self.directory / "run", "--tmpdir",
                        self.directory / "tmp", "--storage-driver", "vfs", "--runtime", RUNTIME]

    def popen(self, *args, **options):
        return subprocess.Popen([*map(str, self.command), *map(str, args)], env=self.environment, **options)

    def run(self, *args, timeout=LIMIT, **options):
        """The result, whatever it is."""
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([*map(str, self.command), *map(str, args)], env=self.environment, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=timeout, check=False, **options)

    def do(self, *args, **options):
        """The output of what must succeed."""
        done = self.run(*args, **options)
        assert done.returncode == 0, (args, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def inspect(self, name, field):
        return json.loads(self.do("inspect", "--format", "{{json " + field + "}}", name))

    def bundle(self, name):
        """The directory of a container's configuration."""
        return self.directory / "root/vfs-containers" / self.inspect(name, ".ID") / "userdata"

    def clear(self):
        self.run("pod", "rm", "--all", "--force", "--time", "0")
        self.run("rm", "--all", "--force", "--time", "0")
        self.run("volume", "rm", "--all", "--force")

    def end(self):
        self.clear()
        for line in pathlib.Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
            point = line.split()[1]
            if point.startswith(str(self.directory)):
                subprocess.run(["umount", "--lazy", point], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


class Containerd:
    """A daemon of our own, and `ctr` for it."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.runtime = RUNTIME
        (self.directory / "config.toml").write_text(CONTAINERD_CONF.format(root=directory), encoding="ascii")
        self.log = open(self.directory / "log", "wb")  # pylint: disable=consider-using-with
        self.process = subprocess.Popen(["containerd", "--config", str(self.directory / "config.toml")], stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log)
        wait_until(lambda: self.run("version").returncode == 0, "containerd answers")

    def popen(self, *args, **options):
        return subprocess.Popen(["ctr", "--address", str(self.directory / "sock"), *map(str, args)], **options)

    def run(self, *args, timeout=LIMIT, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(["ctr", "--address", str(self.directory / "sock"), *map(str, args)], text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=timeout, check=False, **options)

    def do(self, *args, **options):
        done = self.run(*args, **options)
        assert done.returncode == 0, (args, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def tasks(self):
        """{name: (pid, status)}"""
        lines = self.do("task", "ls").splitlines()[1:]
        return {line.split()[0]: (int(line.split()[1]), line.split()[2]) for line in lines}

    def shims(self):
        """The process ids of this daemon's shims: they outlive it."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and str(self.directory).encode() in (entry / "cmdline").read_bytes() \
                        and b"containerd-shim" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found

    def clear(self):
        for name in self.tasks():
            self.run("task", "kill", "--signal", "KILL", name)
            self.run("task", "delete", "--force", name)
        for name in self.do("container", "ls", "--quiet").split():
            self.run("container", "rm", name)

    def end(self):
        with contextlib.suppress(AssertionError):
            self.clear()
        for pid in self.shims():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.terminate()
        self.process.wait(30)
        self.log.close()
        time.sleep(0.1)
        shutil.rmtree(self.directory, ignore_errors=True)

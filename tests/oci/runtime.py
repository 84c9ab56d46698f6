# SPDX-License-Identifier: GPL-2.0-or-later
"""The OCI runtime under test, and bundles for it."""
import itertools
import json
import os
import pathlib
import shutil
import subprocess

TREE = pathlib.Path(__file__).resolve().parent.parent.parent
TABIQUE = pathlib.Path(os.environ.get("TABIQUE", TREE / "build/tabique"))
BUILD = pathlib.Path(os.environ.get("TABIQUE_BUILD", TABIQUE.parent))
OCI = BUILD / "tabique-oci"
BUSYBOX = "/usr/bin/busybox" if os.path.exists("/usr/bin/busybox") else "/bin/busybox"
COMMANDS = ("sh ash cat chmod cp date dd echo env false getopt grep head hostname id kill ln ls mkdir mkfifo mknod mount "
            "mv nproc od printf ps pwd readlink rm sleep sort stat stty tail tee test touch true tr tty ulimit umount "
            "uname wc whoami").split()
counter = itertools.count()


def make_rootfs(directory):
    root = pathlib.Path(directory)
    root.chmod(0o755)
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"):
        (root / name).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in COMMANDS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
    return root


class Runtime:
    def __init__(self, state, program=OCI):
        self.program, self.state, self.ids = str(program), state, set()

    def __call__(self, *args, timeout=30, check=True, text=True, flags=(), **options):
        """Runs a verb to its end; without `check`, whatever its exit status."""
        options.setdefault("stdin", subprocess.DEVNULL)
        result = subprocess.run([self.program, "--root", str(self.state), *flags, *map(str, args)], timeout=timeout,
                                stdout=options.pop("stdout", subprocess.PIPE),
                                stderr=options.pop("stderr", subprocess.PIPE), text=text, check=False, **options)
        if check and result.returncode:
            raise AssertionError(f"{args}: status {result.returncode}: {result.stderr}{result.stdout}")
        return result

    def new_id(self):
        name = f"test-{os.getpid()}-{next(counter)}"
        self.ids.add(name)
        return name

    def status(self, name):
        return json.loads(self("state", name).stdout)

    def clean(self):
        for name in self.ids:
            self("delete", "--force", name, check=False)


class Bundle:
    def __init__(self, directory, oci):
        self.directory, self.oci, self.rootfs = directory, oci, directory / "rootfs"
        oci("spec", "--bundle", directory)
        self.config = json.loads((directory / "config.json").read_text())
        self.process["terminal"] = False
        self.config["root"]["readonly"] = False

    @property
    def process(self):
        return self.config["process"]

    @property
    def linux(self):
        return self.config["linux"]

    def write(self):
        (self.directory / "config.json").write_text(json.dumps(self.config))

    def capabilities(self, *names):
        self.process["capabilities"] = {s: list(names) for s in ("bounding", "effective", "permitted")}

    def run(self, *args, flags=(), check=True, **options):
        """`run` with this program; what it printed and its status."""
        if args:
            self.process["args"] = list(args)
        self.write()
        return self.oci("run", *flags, "--bundle", self.directory, self.oci.new_id(), check=check, **options)

    def sh(self, script, **options):
        return self.run("sh", "-c", script, **options).stdout

    def create(self, *args, name=None, flags=(), check=True, **options):
        """`create`; the container's id. Its output goes nowhere, unless `stdout` says where."""
        if args:
            self.process["args"] = list(args)
        self.write()
        name = self.oci.new_id() if name is None else name
        options.setdefault("stdout", subprocess.DEVNULL)
        with open(self.directory / "errors", "w+") as errors:
            result = self.oci("create", *flags, "--bundle", self.directory, name, check=False, stderr=errors, **options)
            errors.seek(0)
            result.stderr = errors.read()
        if check and result.returncode:
            raise AssertionError(f"create: status {result.returncode}: {result.stderr}")
        return name if check else result

    def start(self, *args, **options):
        name = self.create(*args, **options)
        self.oci("start", name)
        return name

# SPDX-License-Identifier: GPL-2.0-or-later
"""Containers of a person without rights: his own id alone, or the ranges of /etc/subuid by newuidmap."""
import json
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile

import pytest

import runtime


class Person(runtime.Runtime):
    """The runtime as an ordinary user runs it."""

    def __init__(self, uid, directory):
        super().__init__(directory / "state", directory / "tabique-oci")
        shutil.copy(runtime.OCI, self.program)
        self.uid = uid

    def __call__(self, *args, **options):
        words = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        original, self.program = self.program, words[0]
        try:
            flags = options.pop("flags", ())
            self.program, rest = words[0], [*words[1:], original]
            options.setdefault("stdin", subprocess.DEVNULL)
            result = subprocess.run([words[0], *rest, "--root", str(self.state), *flags, *map(str, args)],
                                    timeout=options.pop("timeout", 30), stdout=options.pop("stdout", subprocess.PIPE),
                                    stderr=options.pop("stderr", subprocess.PIPE), text=True, check=False,
                                    env={"PATH": os.environ["PATH"], "HOME": "/tmp"})
        finally:
            self.program = original
        if options.get("check", True) and result.returncode:
            raise AssertionError(f"{args}: status {result.returncode}: {result.stderr}{result.stdout}")
        return result


def make(uid, rootfs):
    if os.geteuid() != 0:
        pytest.skip("root becomes the person")
    if subprocess.run(["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "unshare", "--user", "true"],
                      capture_output=True, check=False).returncode:
        pytest.skip("this host gives no user namespaces to a person")
    # Where he can go: the temporary directories of tests are closed.
    directory = pathlib.Path(tempfile.mkdtemp(prefix="tabique-oci-", dir="/tmp"))
    shutil.copytree(rootfs, directory / "rootfs", symlinks=True)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)
    return directory


@pytest.fixture
def own(rootfs):
    directory = make(54321, rootfs)
    person = Person(54321, directory)
    person("spec", "--rootless", "--bundle", directory)
    yield person, directory
    person.clean()
    shutil.rmtree(directory)


def configure(directory, **changes):
    config = json.loads((directory / "config.json").read_text())
    config["process"]["terminal"] = False
    config["root"]["readonly"] = False
    config["process"].update(changes.pop("process", {}))
    config["linux"].update(changes)
    (directory / "config.json").write_text(json.dumps(config))


def test_his_own_id(own):
    person, directory = own
    configure(directory, process={"args": ["sh", "-c", "id -u; cat /proc/self/uid_map; touch /made; echo x >/dev/null; ps"]})
    out = person("run", "--bundle", directory, person.new_id()).stdout
    assert out.split()[:4] == ["0", "0", "54321", "1"] and "ps" in out
    assert os.stat(directory / "rootfs/made").st_uid == 54321


def test_life(own):
    person, directory = own
    configure(directory, process={"args": ["sleep", "1000"]})
    name = person.new_id()
    person("create", "--bundle", directory, name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert person.status(name)["status"] == "created"
    person("start", name)
    pid = person.status(name)["pid"]
    assert os.stat(f"/proc/{pid}").st_uid in (54321, 0)
    assert person("exec", name, "id", "-u").stdout == "0\n"
    assert person("exec", name, "nosuch", check=False).returncode == 127
    person("kill", name, "KILL")
    person("delete", "--force", name)
    assert list(person.state.iterdir()) == []


def test_others_ids_are_not_his(own):
    person, directory = own
    maps = [{"containerID": 0, "hostID": 54321, "size": 1}, {"containerID": 1, "hostID": 0, "size": 1}]
    configure(directory, process={"args": ["true"]}, uidMappings=maps)
    result = person("run", "--bundle", directory, person.new_id(), check=False)
    assert result.returncode == 1 and ("newuidmap" in result.stderr or "not permitted" in result.stderr)
    assert list(person.state.iterdir()) == []


def test_additional_groups_are_refused(own):
    person, directory = own
    configure(directory, process={"args": ["true"], "user": {"uid": 0, "gid": 0, "additionalGids": [5]}})
    result = person("run", "--bundle", directory, person.new_id(), check=False)
    assert result.returncode == 1 and "additional groups" in result.stderr


def test_ranges_by_newuidmap(rootfs):
    for line in open("/etc/subuid"):
        name, first, count = line.strip().split(":")
        try:
            uid = pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
        if uid and int(count) >= 65535 and pwd.getpwnam(name).pw_gid == uid and f"{name}:" in open("/etc/subgid").read():
            break
    else:
        pytest.skip("nobody has a range in /etc/subuid")
    directory = make(uid, rootfs)
    person = Person(uid, directory)
    try:
        person("spec", "--rootless", "--bundle", directory)
        maps = [{"containerID": 0, "hostID": uid, "size": 1}, {"containerID": 1, "hostID": int(first), "size": 65535}]
        configure(directory, uidMappings=maps, gidMappings=maps, process={
            "args": ["sh", "-c", "id; cat /proc/self/uid_map; touch /tmp/x; chown 7:7 /tmp/x; stat -c %u /tmp/x"],
            "capabilities": {s: ["CAP_CHOWN"] for s in ("bounding", "effective", "permitted")}})
        out = person("run", "--bundle", directory, person.new_id()).stdout
        assert "65535" in out and out.endswith("7\n")
        assert os.stat(directory / "rootfs/tmp/x").st_uid == int(first) + 6
    finally:
        person.clean()
        shutil.rmtree(directory)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The runtime on a host with cgroup v2 alone and with systemd: a Debian that runs as a guest on the soft engine, so that
these tests need no such host. The guest gets our programs on a second disk and does what unified/run.sh says."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import criu
import runtime

TREE = runtime.TREE
sys.path[:0] = [str(TREE / "tests/cli"), str(TREE / "tests/guest")]
import built_image  # noqa: E402 pylint: disable=wrong-import-position
from program import BUILD, TABIQUE, Terminal  # noqa: E402 pylint: disable=wrong-import-position

LIMIT = 900  # seconds for all of it, on a busy host


def libraries(program):
    """The shared libraries of a program, as paths."""
    text = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return re.findall(r"=> (/\S+)", text)


@pytest.fixture(scope="module", name="payload")
def fixture_payload(tmp_path_factory):
    """A disk with programs, their libraries and a bundle."""
    tree = tmp_path_factory.mktemp("payload")
    for name in ("bin", "lib", "bundle/rootfs"):
        (tree / name).mkdir(parents=True)
    for program in (BUILD / "tabique-oci", BUILD / "tests/container/test_container_cgroup", BUILD / "tests/container/test_container_cgroup_v2"):
        shutil.copy(program, tree / "bin")
        for library in [*libraries(program), "/lib/x86_64-linux-gnu/libseccomp.so.2", "/lib/x86_64-linux-gnu/libcap.so.2"]:
            shutil.copy(library, tree / "lib")
    # The C library is the guest's own, which is of this host's suite or newer; one of another version would not fit to its loader.
    for path in [*(tree / "lib").glob("libc.so*"), *(tree / "lib").glob("ld-linux*")]:
        path.unlink()
    runtime.make_rootfs(tree / "bundle/rootfs")
    subprocess.run([BUILD / "tabique-oci", "spec", "--bundle", tree / "bundle"], check=True)
    config = json.loads((tree / "bundle/config.json").read_text())
    config["process"].update(terminal=False, args=["sleep", "1000"],
                             capabilities={s: ["CAP_MKNOD", "CAP_KILL"] for s in ("bounding", "effective", "permitted")})
    config["root"]["readonly"] = False
    config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}], "pids": {"limit": 20},
                                    "memory": {"limit": 32 << 20, "swap": 48 << 20, "reservation": 8 << 20},
                                    "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0"}}
    (tree / "bundle/config.json").write_text(json.dumps(config))
    shutil.copy(pathlib.Path(__file__).parent / "unified/run.sh", tree)
    shutil.copy(BUILD / "tests/oci/oci-counter", tree / "bundle/rootfs/bin/counter")
    criu.fetch()
    shutil.copytree(criu.DIRECTORY / "root/usr", tree / "criu/usr", symlinks=True, ignore=shutil.ignore_patterns("share"))
    (tree / "bin/criu").write_text(criu.SCRIPT.format(root="/mnt/criu"))
    (tree / "bin/criu").chmod(0o755)
    disk = tree.parent / "payload.ext4"
    with open(disk, "wb") as file:
        file.truncate(128 << 20)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, disk], check=True, stdin=subprocess.DEVNULL)
    return disk


@pytest.fixture(scope="module", name="results")
def fixture_results(payload):
    """{name: value} of one boot."""
    lacking = built_image.missing()
    if lacking:
        pytest.skip(f"{', '.join(lacking)} not installed: tools/install-deps installs it")
    built_image.build(TABIQUE, "bookworm")
    environment = os.environ.get("TABIQUE_HOME")
    os.environ["TABIQUE_HOME"] = str(built_image.HOME)
    try:
        with Terminal("run", "--rm", "--engine", "soft", "--name", f"unified-{os.getpid()}", "--cpus", "2", "--memory", "1G", "--net", "none",
                      "--disk", f"{payload},readonly", "debian-bookworm") as guest:
            guest.expect(rb"root@\S+:~# ", timeout=LIMIT)
            guest.send(b"stty -echo; mount -o ro /dev/vdb /mnt && bash /mnt/run.sh 2>&1\n")
            text = guest.expect(rb"(?s)(.*)RESULT end: end", timeout=LIMIT).group(1).decode(errors="replace").replace("\r", "")
    finally:
        if environment is not None:
            os.environ["TABIQUE_HOME"] = environment
    print(text)
    return dict(re.findall(r"RESULT (\S+): (.*?) *$", text, re.M)), text


EXPECTED = {
    "layout": "cgroup2 1",
    "unit-cgroup": "0 9",
    "unit-cgroup_v2": "0 8",
    "limits": "memory.max=33554432 memory.swap.max=16777216 memory.low=8388608 pids.max=20 cpu.max=50000 100000 cpu.weight=39 cpuset.cpus=0",
    "paused": '"status": "paused" 1 frozen 1',
    "updated": "memory.max=104857600 memory.swap.max=209715200 pids.max=9 cpu.max=70000 100000",
    "stats": '"limit":104857600',
    "ps": "[]",
    "gone": "1",
    "small": "0",
    "scope": "/sys/fs/cgroup/system.slice/tests-two.scope active Delegate=yes MemoryMax=33554432 TasksMax=20",
    "scope-limits": "memory.max=33554432 pids.max=20 cpu.weight=39",
    "scope-updated": "memory.max=67108864 pids.max=20 cpu.weight=39",
    "scope-paused": "1",
    "scope-gone": "1 inactive",
    "pre-dump": "0 1 1",  # what has not changed since is not written again
    "checkpoint": "stopped gone",
    "restored": "running counts on, none missing memory.max=33554432 pids.max=20 cpu.max=50000 100000",
    "checkpoint-left": "0",
    "checkpoint-scope": "inactive",
    "restored-scope": "/sys/fs/cgroup/system.slice/tests-counter.scope active counts on, none missing memory.max=33554432 pids.max=20",
    "person": "tabique-p daemon []",
    "person-paused": '"status": "paused" 1',
    "person-resumed": "0",
    "person-refused": "memory.limit: this container's group has no memory.max",
    "person-gone": "1",
    "left": "0 0 0",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_unified(results, name):
    found, text = results
    assert found.get(name) == EXPECTED[name], text[-3000:]


def test_inside(results):
    found, text = results
    assert re.fullmatch(r"0::/ written cat: can't open '/tmp/x': Operation not permitted", found["inside"]), text[-3000:]


def test_oom(results):
    found, text = results
    assert found["oom"] == '{"type":"oom","id":"greedy"}', text[-3000:]

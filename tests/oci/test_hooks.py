# SPDX-License-Identifier: GPL-2.0-or-later
"""Hooks: when they run, where, with which state, and what their failure does."""
import json
import os
import time

import pytest

KINDS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]


@pytest.fixture
def recorder(bundle):
    """A hook for each kind that appends its kind, namespace and state to a file."""
    log = bundle.rootfs / "log"
    log.touch()
    log.chmod(0o666)
    # startContainer runs with the container's root; the others see the host's.
    for place, target in ((bundle.directory / "hook", log), (bundle.rootfs / "bin/hook", "/log")):
        place.write_text(f"#!/bin/sh\nread state\necho \"$1 $(readlink /proc/self/ns/mnt) $FLAG $state\" >> {target}\n")
        place.chmod(0o755)
    bundle.config["hooks"] = {kind: [{"path": "/bin/hook" if kind == "startContainer" else str(bundle.directory / "hook"),
                                      "args": ["hook", kind], "env": ["PATH=/bin:/usr/bin", "FLAG=set"]}] for kind in KINDS}
    return log


def read(log):
    out = []
    for line in log.read_text().splitlines():
        kind, namespace, flag, state = line.split(" ", 3)
        assert flag == "set"
        out.append((kind, namespace, json.loads(state)))
    return out


def test_order_and_state(bundle, oci, recorder):
    bundle.config["annotations"] = {"k": "v"}
    name = bundle.create("sleep", "1000")
    kinds = [entry[0] for entry in read(recorder)]
    assert kinds == ["prestart", "createRuntime", "createContainer"]
    pid = oci.status(name)["pid"]
    oci("start", name)
    entries = read(recorder)
    assert [e[0] for e in entries] == ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"]
    inside = os.readlink(f"/proc/{pid}/ns/mnt")
    outside = os.readlink("/proc/self/ns/mnt")
    assert [e[1] for e in entries] == [outside, outside, inside, inside, outside]
    for _, _, state in entries:
        assert state["id"] == name and state["pid"] == pid and state["bundle"] == str(bundle.directory)
        assert state["annotations"] == {"k": "v"} and state["ociVersion"] == "1.2.0"
    assert [e[2]["status"] for e in entries] == ["creating", "creating", "creating", "created", "running"]
    oci("delete", "--force", name)
    assert read(recorder)[-1][0] == "poststop" and read(recorder)[-1][2]["status"] == "stopped"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_failure_before_the_start(bundle, oci, kind):
    (bundle.directory / "bad").write_text("#!/bin/sh\necho because of this >&2\nexit 3\n")
    (bundle.directory / "bad").chmod(0o755)
    bundle.config["hooks"] = {kind: [{"path": str(bundle.directory / "bad")}]}
    result = bundle.create("true", check=False)
    assert result.returncode == 1 and kind in result.stderr and "because of this" in result.stderr
    assert "exit status 3" in result.stderr
    assert list(oci.state.iterdir()) == []


def test_failure_of_start_container(bundle, oci):
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/false"}]}
    name = bundle.create("sleep", "1000")
    result = oci("start", name, check=False)
    assert result.returncode == 1 and "startContainer" in result.stderr
    assert oci.status(name)["status"] == "stopped"


def test_failure_of_poststop_is_told_and_deletes(bundle, oci):
    bundle.config["hooks"] = {"poststop": [{"path": "/bin/false"}]}
    name = bundle.create("true")
    result = oci("delete", "--force", name, check=False)
    assert result.returncode == 1 and "poststop" in result.stderr
    assert list(oci.state.iterdir()) == []


def test_timeout(bundle, oci):
    (bundle.directory / "slow").write_text("#!/bin/sh\nsleep 30\n")
    (bundle.directory / "slow").chmod(0o755)
    bundle.config["hooks"] = {"createRuntime": [{"path": str(bundle.directory / "slow"), "timeout": 1}]}
    start = time.monotonic()
    result = bundle.create("true", check=False)
    assert result.returncode == 1 and "timeout of 1s" in result.stderr and time.monotonic() - start < 10
    assert list(oci.state.iterdir()) == []


def test_missing_hook(bundle):
    bundle.config["hooks"] = {"createRuntime": [{"path": "/no/such/hook"}]}
    result = bundle.create("true", check=False)
    assert result.returncode == 1 and "/no/such/hook" in result.stderr

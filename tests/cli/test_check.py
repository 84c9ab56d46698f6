# SPDX-License-Identifier: GPL-2.0-or-later
"""`tabique check`: both forms say the same, and what they say is so on this host."""
import json
import os
import re
import shutil
import subprocess

import pytest

from program import BUILD, TABIQUE, host_report, run


def cpu_flags():
    with open("/proc/cpuinfo", encoding="ascii") as file:
        return set(re.search(r"^flags\s*:(.*)$", file.read(), re.MULTILINE).group(1).split())


def item(report, name):
    (found,) = [i for i in report["checks"] if i["name"] == name]
    return found


def test_text_and_json_agree():
    report = host_report()
    text = run("check").stdout
    for check in report["checks"]:
        assert re.search(rf"^{re.escape(check['name'])} +{'ok' if check['ok'] else 'no'} ", text, re.MULTILINE)
        assert check["found"] in text
        assert check["ok"] or check["advice"] in text
    for engine in report["engines"]:
        assert f"{'ok' if engine['usable'] else 'no'}   {engine['summary'] if engine['usable'] else engine['reason']}" in text
        assert engine["usable"] == (engine["reason"] is None)


def test_auto_is_the_first_usable_engine():
    report = host_report()
    usable = [e["name"] for e in report["engines"] if e["usable"]]
    assert report["auto"] == (usable[0] if usable else None)
    assert run("check").returncode == (0 if usable else 1)


def test_virtualization_is_what_the_kernel_sees():
    assert item(host_report(), "VT-x, AMD-V")["ok"] == bool(cpu_flags() & {"vmx", "svm"})


def test_seccomp_is_what_the_kernel_has():
    available = os.path.exists("/proc/sys/kernel/seccomp/actions_avail")
    assert item(host_report(), "seccomp")["ok"] == available


def test_namespaces_are_what_unshare_can_do():
    found = item(host_report(), "namespaces")["found"]
    usable = found.split("usable:")[1].split(";")[0].split()
    for name in ("user", "mount", "net", "uts"):
        # Below a chroot unshare could not make mounts private, which it otherwise does first.
        flags = [f"--{name}"] + (["--propagation=unchanged"] if name == "mount" else [])
        alone = subprocess.run(["unshare", *flags, "true"], capture_output=True, check=False).returncode == 0
        with_user = subprocess.run(["unshare", "--user", *flags, "true"], capture_output=True, check=False).returncode == 0
        assert (name in usable) == (alone or with_user), name


def test_confinement_follows_the_namespaces():
    """A VM process gets what this host permits: all of it where `unshare` may make its namespaces."""
    found = item(host_report(), "confinement")
    alone = ["unshare", "--mount", "--net", "--ipc", "--uts", "--cgroup", "--propagation=unchanged", "true"]
    with_user = [alone[0], "--user", *alone[1:]]
    permitted = any(subprocess.run(c, capture_output=True, check=False).returncode == 0 for c in (alone, with_user))
    assert found["ok"] == found["found"].startswith("complete: ")
    assert bool(re.search(r"namespaces \(.*\bnet\b.*\)", found["found"].split(";")[0])) == permitted
    assert "system call lists" in found["found"]


def kvm_reason(*command):
    """What check says of kvm when it is run by `command`."""
    result = subprocess.run([*command, TABIQUE, "check", "--json"], capture_output=True, text=True, timeout=20, check=False)
    if not result.stdout:
        pytest.skip(f"{command[0]} can't be used here: {result.stderr.strip()}")
    (engine,) = [e for e in json.loads(result.stdout)["engines"] if e["name"] == "kvm"]
    return engine["reason"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run the program without /dev/kvm")
def test_kvm_missing():
    reason = kvm_reason("unshare", "--mount", "--propagation=unchanged", "sh", "-c", "mount -t tmpfs tmpfs /dev && exec \"$0\" \"$@\"")
    assert "/dev/kvm" in reason and "--engine soft" in reason
    assert not re.search("permission|false", reason)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run the program as someone else")
@pytest.mark.skipif(not os.path.exists("/dev/kvm"), reason="this host has no /dev/kvm at all")
@pytest.mark.skipif(not shutil.which("setpriv"), reason="the program setpriv is not installed")
def test_kvm_without_permission():
    if os.stat("/dev/kvm").st_mode & 0o006:
        pytest.skip("everybody may use /dev/kvm here")
    if subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", "test", "-x", TABIQUE], check=False).returncode:
        pytest.skip("the program lies where nobody else may reach it")
    reason = kvm_reason("setpriv", "--reuid=65534", "--clear-groups")
    assert "permission" in reason and "group" in reason


def test_direct_code_needs_signals():
    result = subprocess.run([BUILD / "tests/host/run_without", "pidfd_send_signal", TABIQUE, "check", "--json"], capture_output=True, text=True,
                            timeout=20, check=True)
    report = json.loads(result.stdout)
    found = item(report, "direct code")
    assert not found["ok"] and "Operation not permitted" in found["found"] and "pidfd_send_signal" in found["advice"]
    assert report["auto"] == host_report()["auto"]


def test_it_is_quick():
    """Below a second, also where /dev/kvm is false and has to be tried."""
    subprocess.run([TABIQUE, "check"], stdout=subprocess.DEVNULL, timeout=5 if "san-" in TABIQUE else 1, check=False)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The kvm engine on a processor with AMD-V (emulated: see rig.py), end to end."""
import json
import re

import pytest

import jobs
from explained import unexplained


def guest_tests():
    """Of a build that is not there, none."""
    if not (jobs.BUILD / "build.ninja").exists():
        return []
    return [pytest.param(name, args, id=name) for name, args in jobs.guest_tests(jobs.BUILD)]


def test_check_finds_kvm_usable(nested):
    result = nested.result("check-json")
    assert result.status == 0, result.output
    engines = {e["name"]: e for e in json.loads(result.output)["engines"]}
    assert engines["kvm"]["usable"], result.output


def test_engine_unit_tests(nested):
    result = nested.result("unit")
    assert result.status == 0, result.output
    assert "FAILED" not in result.output and re.search(r"PASSED +\] \d\d test", result.output), result.output


@pytest.mark.parametrize("name,args", guest_tests())
def test_guest(nested, name, args):
    result = nested.result(f"guest-{name}")
    problems = jobs.run_guest.judge(args, result.status, result.output)
    assert not problems, result.output


@pytest.mark.parametrize("suite", jobs.SUITES)
@pytest.mark.parametrize("cpus", jobs.CPUS)
def test_debian_reaches_a_shell(nested, suite, cpus):
    result = nested.result(f"shell-{suite}-{cpus}")
    assert result.status == 0, result.output
    assert re.search(rf"^kernel \S+-cloud-amd64 on {cpus}$", result.output, re.M), result.output
    ran_on = re.findall(r"^ran on (\d+)$", result.output, re.M)
    assert ran_on == [str(n) for n in range(cpus)], result.output
    assert "clock kvm-clock" in result.output
    assert "entropy 16" in result.output
    complaints = re.findall(r"^complaint: (.*)$", result.output, re.M)
    assert not unexplained(complaints), result.output


@pytest.mark.skipif(bool(jobs.built_image.missing()), reason="missing: " + " ".join(jobs.built_image.missing()))
@pytest.mark.parametrize("suite", jobs.built_image.SUITES)
@pytest.mark.parametrize("cpus", jobs.IMAGE_CPUS)
def test_built_image(nested, suite, cpus):
    """A whole Debian: to the login prompt, with no unit that failed."""
    result = nested.result(f"image-{suite}-{cpus}")
    output = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", result.output)
    assert result.status == 0, output
    assert "debian login: root (automatic login)" in output
    assert re.search(rf"^state running on {cpus}$", output, re.M), output
    assert not unexplained(re.findall(r"^complaint: (.*)$", output, re.M)), output


@pytest.mark.parametrize("name", ["shell-bookworm-1", "shell-trixie-2", "disk", "nat"])
def test_memory_beyond_the_guests(nested, name):
    """That of the VM process, and of all together, where nothing else shares their libraries with them."""
    result = nested.result(name)
    memory = dict(re.findall(r"^beyond RAM, (\S+): (\d+) KiB", result.output, re.M))
    together = re.search(r"^beyond RAM: (\d+) KiB in (\d) processes$", result.output, re.M)
    assert set(memory) == {"tabique", "tabique-vm"} | (set() if name == "disk" else {"tabique-net"}), result.output
    assert together and int(together.group(2)) == len(memory), result.output
    assert 0 < int(memory["tabique-vm"]) < 5 * 1024, result.output
    assert int(together.group(1)) < 8 * 1024, result.output


def test_disk(nested):
    """What a guest writes is there when it mounts the file system again, and in the image."""
    result = nested.result("disk")
    assert result.status == 0, result.output
    assert re.search("^made$", result.output, re.M), result.output
    written, read = re.findall(r"^sum ([0-9a-f]{32})  -$", result.output, re.M)
    assert written == read, result.output
    assert int(re.search(r"^interrupts (\d+)$", result.output, re.M).group(1)) > 10, result.output
    assert "marks in the image: 1\n" in result.output
    complaints = re.findall(r"^complaint: (.*)$", result.output, re.M)
    # The file system that busybox makes has no room for later times.
    assert not unexplained([c for c in complaints if "supports timestamps until 2038" not in c]), result.output


def test_nat(nested):
    """An address by DHCP, and 3 MB each way by TCP with equal bytes."""
    result = nested.result("nat")
    assert result.status == 0, result.output
    assert "lease of 10.0.2.15 obtained from 10.0.2.2" in result.output
    for way in ("down", "up"):
        in_guest, on_host = re.findall(rf"^{way} ([0-9a-f]{{32}})  -$", result.output, re.M)
        assert in_guest == on_host, result.output
    assert int(re.search(r"^interrupts (\d+)$", result.output, re.M).group(1)) > 10, result.output
    assert not unexplained(re.findall(r"^complaint: (.*)$", result.output, re.M)), result.output


def test_sockets_and_balloon(nested):
    result = nested.result("sockets")
    assert result.status == 0, result.output
    sent, got = (re.search(rf"^{way} 1000000 ([0-9a-f]{{16}})$", result.output, re.M).group(1) for way in ("sent", "got"))
    assert sent == got, result.output
    assert int(re.search(r"^interrupts (\d+)$", result.output, re.M).group(1)) > 10, result.output
    assert int(re.search(r"^free (\d+)$", result.output, re.M).group(1)) < 80000, result.output
    (stats,) = [json.loads(line) for line in result.output.splitlines() if line.startswith('{"')]
    assert stats["balloon-bytes"] == jobs.BALLOON_BYTES and stats["guest-ram-bytes"] < 100 << 20, stats
    assert not unexplained(re.findall(r"^complaint: (.*)$", result.output, re.M)), result.output


def test_reboot_starts_the_kernel_again(nested):
    result = nested.result("shell-bookworm-2")
    assert result.status == 0, result.output
    assert result.output.count("init: reached") == 2, result.output
    assert re.search(r"^second 2$", result.output, re.M), result.output


def test_panic_starts_the_kernel_again(nested):
    result = nested.result("shell-trixie-1")
    assert result.status == 0, result.output
    assert "Kernel panic - not syncing: sysrq triggered crash" in result.output
    assert result.output.count("init: reached") == 2, result.output
    assert re.search(r"^second 1$", result.output, re.M), result.output


@pytest.mark.skipif(bool(jobs.firmware_missing()), reason="missing: " + " ".join(jobs.firmware_missing()))
def test_debian_boots_by_the_firmware(nested):
    result = nested.result("firmware")
    assert result.status == 0, result.output
    for part in ("SeaBIOS (version", "Booting from Hard Disk", "GNU GRUB"):
        assert part in result.output, result.output
    assert re.search(r"^kernel \S+-cloud-amd64 on 2$", result.output, re.M), result.output
    assert re.findall(r"^ran on (\d+)$", result.output, re.M) == ["0", "1"], result.output
    assert not unexplained(re.findall(r"^complaint: (.*)$", result.output, re.M)), result.output


@pytest.mark.parametrize("name", jobs.FLAT_IMAGES)
def test_flat_image(nested, name):
    result = nested.result(f"flat-{name}")
    assert result.status == 0x2b, result.output

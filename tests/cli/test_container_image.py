# SPDX-License-Identifier: GPL-2.0-or-later
"""What an image's configuration asks for besides a program: volumes, ports, how it is asked to end, its check."""
import os
import time

import pytest

from life import Home, wait_until
from oci_images import Layout, directory, file, tar
from test_container import BUSYBOX, busybox_layer, expect_nothing_left

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="only root may make the groups of containers here"),
              pytest.mark.skipif(not BUSYBOX, reason="the program busybox is not installed")]

SECOND = 1_000_000_000
WAIT = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done"
CHECK = {"Test": ["CMD-SHELL", "echo looked; test -e /tmp/well"], "Interval": SECOND // 10, "Timeout": SECOND, "Retries": 2}


@pytest.fixture(name="home")
def fixture_home(tmp_path):
    home = Home(tmp_path / "home")
    yield home
    for name in home.states():
        home.run("rm", "-f", name)
    home.clear()


def make(home, tmp_path, config, *members):
    """The image `box`, of one layer."""
    layout = Layout(tmp_path / "layout")
    layers = [busybox_layer()]
    if members:
        layers.append(tar(*members))
    layout.add(*layers, tag="box", config={"Env": ["PATH=/bin"], "Cmd": ["sh", "-c", WAIT], **config})
    assert home.run("image", "import", f"oci:{layout.path}:box", "--name", "box").returncode == 0


def start(home, name, *flags):
    home.do("run", "--kind", "container", "--detach", "--net", "none", "--name", name, *flags, "box")
    wait_until(lambda: "ready" in home.do("logs", name), "its program runs")


def inside(home, name, script):
    return home.do("exec", name, "--", "sh", "-c", script)


def test_volumes(home, tmp_path):
    """They begin with what the image has there, outlive a start, are nobody else's, and go with the guest."""
    make(home, tmp_path, {"Volumes": {"/var/data": {}, "/new/place/": {}, "/given": {}}}, directory("var"),
         directory("var/data", mode=0o750, uid=1000, gid=1001), file("var/data/seed", "of the image", mode=0o640), directory("given"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    start(home, "one", "--volume", f"{tmp_path / 'mine'}:/given", "--read-only")
    assert inside(home, "one", "cat /var/data/seed /given/file; stat -c '%a %u:%g' /var/data") == "of the imagemine750 1000:1001\n"
    inside(home, "one", "echo kept > /var/data/kept; echo too > /new/place/too; rm /var/data/seed")
    start(home, "two")
    assert inside(home, "two", "ls /var/data /new/place /given") == "/given:\n\n/new/place:\n\n/var/data:\nseed\n"
    home.do("stop", "one")
    home.do("start", "one")
    wait_until(lambda: home.states()["one"] == "running", "it runs again")
    assert inside(home, "one", "cat /var/data/kept /new/place/too; ls /var/data") == "kept\ntoo\nkept\n"
    home.do("rm", "-f", "one", "two")
    expect_nothing_left(home)
    done = home.run("run", "--kind", "container", "--rm", "--net", "none", "box", "--", "sh", "-c", "cat /var/data/seed; touch /var/data/x")
    assert (done.returncode, done.stdout) == (0, "of the image")
    expect_nothing_left(home)


def test_access_control_lists(home, tmp_path):
    """Of files and directories of a layer; who is named without a number is given nothing."""
    lists = {"SCHILY.acl.access": "user::rw-,user:1234:r--,user:nobodyhere:rw-,group::---,group:77:r--,mask::r--,other::---"}
    both = {"SCHILY.acl.access": "user::rwx,group::r-x,other::r-x", "SCHILY.acl.default": "user::rwx,user:1234:rwx,group::---,other::---"}
    make(home, tmp_path, {}, file("etc/shared", "for some", mode=0o640, pax_headers=lists), directory("srv", pax_headers=both))
    start(home, "web")
    layers = home.inspect("web")["config"]["layers"]
    path = next(f"{layer}/etc/shared" for layer in layers if os.path.exists(f"{layer}/etc/shared"))
    tags = [int.from_bytes(os.getxattr(path, "system.posix_acl_access")[at:at + 2], "little") for at in range(4, 52, 8)]
    assert tags == [1, 2, 4, 8, 16, 32]
    for user, readable in (("1234", True), ("999:77", True), ("999", False)):
        done = home.run("exec", "--user", user, "web", "--", "cat", "/etc/shared")
        assert (done.stdout == "for some") == readable, (user, done)
    assert inside(home, "web", "mkdir /srv/new && echo x > /srv/new/file && stat -c %a /srv/new") == "770\n"
    assert home.run("exec", "--user", "1234", "web", "--", "cat", "/srv/new/file").stdout == "x\n"
    assert home.run("exec", "--user", "999", "web", "--", "cat", "/srv/new/file").returncode == 1


def test_ports_and_the_time_to_end(home, tmp_path):
    make(home, tmp_path, {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "StopTimeout": 1,
                          "Cmd": ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]})
    start(home, "deaf")
    config = home.inspect("deaf")["config"]
    assert sorted(config["exposed-ports"]) == ["53/udp", "80/tcp"] and config["stop-timeout"] == 1
    began = time.monotonic()
    home.do("stop", "deaf")
    assert 0.9 < time.monotonic() - began < 8
    home.do("start", "deaf")
    wait_until(lambda: home.states()["deaf"] == "running", "it runs again")
    began = time.monotonic()
    home.do("stop", "--timeout", "2s", "deaf")
    assert time.monotonic() - began > 1.9


def health(home, name):
    return home.inspect(name).get("health", {})


def test_check(home, tmp_path):
    make(home, tmp_path, {"Healthcheck": {**CHECK, "StartPeriod": 1}})
    start(home, "web")
    wait_until(lambda: health(home, "web")["status"] == "unhealthy", "two failures are told")
    assert health(home, "web")["failing-streak"] >= 2 and health(home, "web")["exit-status"] == 1
    assert "looked" in health(home, "web")["output"] and "(unhealthy)" in home.do("ps")
    inside(home, "web", "touch /tmp/well")
    wait_until(lambda: health(home, "web")["status"] == "healthy", "it is well")
    assert health(home, "web")["failing-streak"] == 0 and "(healthy)" in home.do("ps")
    # What is paused does not answer, and is not ill.
    home.do("pause", "web")
    before = health(home, "web")
    time.sleep(0.5)
    assert health(home, "web")["checked"] - before["checked"] <= 1 and health(home, "web")["status"] == "healthy"
    home.do("resume", "web")
    inside(home, "web", "rm /tmp/well")
    wait_until(lambda: health(home, "web")["status"] == "unhealthy", "it is ill again")
    home.do("stop", "web")
    assert "health" not in home.inspect("web") and "healthy" not in home.do("ps", "--all")
    home.do("rm", "web")
    expect_nothing_left(home)


def test_check_in_its_start_period(home, tmp_path):
    make(home, tmp_path, {"Healthcheck": {**CHECK, "StartPeriod": 60 * SECOND, "StartInterval": SECOND // 10}})
    start(home, "slow")
    wait_until(lambda: "checked" in health(home, "slow"), "it was looked at")
    time.sleep(0.6)
    assert health(home, "slow")["status"] == "starting" and health(home, "slow")["failing-streak"] == 0
    inside(home, "slow", "touch /tmp/well")
    wait_until(lambda: health(home, "slow")["status"] == "healthy", "it is well")
    inside(home, "slow", "rm /tmp/well")
    wait_until(lambda: health(home, "slow")["status"] == "unhealthy", "a failure counts now")


def test_check_that_takes_too_long(home, tmp_path):
    make(home, tmp_path, {"Healthcheck": {"Test": ["CMD", "sleep", "1000"], "Interval": SECOND // 10, "Timeout": SECOND // 2, "Retries": 1}})
    start(home, "stuck")
    wait_until(lambda: health(home, "stuck")["status"] == "unhealthy", "it took too long")
    assert health(home, "stuck")["output"] == "it took longer than 0.5 s"
    wait_until(lambda: inside(home, "stuck", "ps").count("sleep 1000") <= 1, "checks that took too long are gone")
    home.do("rm", "-f", "stuck")
    expect_nothing_left(home)


@pytest.mark.parametrize("test", [["NONE"], [], ["ODD", "true"], ["CMD"], ["CMD", 7], "true"])
def test_no_check(home, tmp_path, test):
    make(home, tmp_path, {"Healthcheck": {"Test": test}})
    start(home, "plain")
    assert "health" not in home.inspect("plain")


def test_check_that_is_not_there(home, tmp_path):
    make(home, tmp_path, {"Healthcheck": {**CHECK, "Test": ["CMD", "/bin/nothing"]}})
    start(home, "wrong")
    wait_until(lambda: health(home, "wrong")["status"] == "unhealthy", "it can't be run")
    assert "/bin/nothing" in health(home, "wrong")["output"] and health(home, "wrong")["exit-status"] == 127
    assert home.states()["wrong"] == "running"

# SPDX-License-Identifier: GPL-2.0-or-later
"""A hostile image, or a hostile process in a container, against the host: known ways out, each tried."""
import hashlib
import os
import pathlib
import shutil
import subprocess
import threading
import time

import pytest

import runtime


@pytest.fixture
def own_runtime(tmp_path):
    """A copy of the program that may be lost."""
    path = tmp_path / "runtime-copy"
    shutil.copy(runtime.OCI, path)
    tool = runtime.Runtime(tmp_path / "copy-state", path)
    yield tool
    tool.clean()


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def privileged(bundle):
    """As near to the host as a container comes that still is one: all capabilities, nothing masked, no filter."""
    names = [f"CAP_{n}" for n in ("CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER KILL SETGID SETUID SYS_PTRACE SYS_CHROOT "
                                  "NET_RAW MKNOD").split()]
    bundle.capabilities(*names)
    bundle.process["noNewPrivileges"] = False


# ---- the runtime's own file ----

@pytest.mark.parametrize("how", ["argument", "script", "link"])
def test_program_that_is_the_runtime(bundle, own_runtime, how):
    """/proc/self/exe as the program, its interpreter or by a link: never the runtime's file."""
    bundle.oci = own_runtime
    privileged(bundle)
    before = digest(own_runtime.program)
    if how == "script":
        (bundle.rootfs / "bin/evil").write_text("#!/proc/self/exe --version\n")
        (bundle.rootfs / "bin/evil").chmod(0o755)
    elif how == "link":
        (bundle.rootfs / "bin/evil").symlink_to("/proc/self/exe")
    program = "/proc/self/exe" if how == "argument" else "/bin/evil"
    result = bundle.run(program, "--version", check=False, timeout=10)
    assert result.returncode == 126 and "spec: 1.2.0" not in result.stdout
    name = bundle.start("sleep", "1000")
    result = own_runtime("exec", name, program, "--version", check=False, timeout=10)
    assert result.returncode == 126 and "spec: 1.2.0" not in result.stdout
    assert digest(own_runtime.program) == before


def test_exe_of_a_process_that_comes_in(bundle, own_runtime):
    """A process with CAP_SYS_PTRACE waits for those of exec, opens what they execute, and writes to it afterwards."""
    bundle.oci = own_runtime
    privileged(bundle)
    before = digest(own_runtime.program)
    name = bundle.start("sh", "-c", """
        while :; do for p in /proc/[0-9]*; do
            if [ $p != /proc/1 ] && [ $p != /proc/$$ ]; then
                { : 3<$p/exe; } 2>/dev/null && exec 9<$p/exe && case $(readlink /proc/self/fd/9) in
                    /bin/busybox) ;;
                    *) readlink /proc/self/fd/9 >>/seen; echo evil 2>/dev/null >/proc/self/fd/9 && echo done >>/hit;;
                esac
            fi
        done; done""")
    for _ in range(40):
        own_runtime("exec", name, "true", check=False)
    time.sleep(0.3)
    seen = bundle.rootfs / "seen"
    found = seen.read_text().splitlines() if seen.exists() else []
    assert not [line for line in found if "runtime-copy" in line], found
    assert not (bundle.rootfs / "hit").exists()
    assert digest(own_runtime.program) == before


def test_without_that_right_nothing_is_seen(bundle, own_runtime):
    bundle.oci = own_runtime
    bundle.process["noNewPrivileges"] = False
    name = bundle.start("sh", "-c", "while :; do for p in /proc/[0-9]*; do readlink $p/exe >>/seen 2>/dev/null; done; done")
    for _ in range(30):
        own_runtime("exec", name, "true")
    seen = set((bundle.rootfs / "seen").read_text().split())
    assert all("runtime-copy" not in s and "memfd:tabique-oci" not in s for s in seen), seen


# ---- ways out by the working directory and descriptors ----

@pytest.mark.parametrize("fd", range(3, 16))
def test_working_directory_by_a_descriptor(bundle, fd):
    bundle.process["cwd"] = f"/proc/self/fd/{fd}"
    result = bundle.run("sh", "-c", "pwd; cat etc/os-release ../../../../etc/os-release", check=False)
    assert "Debian" not in result.stdout
    assert result.returncode != 0


def test_working_directory_of_exec(bundle, oci):
    name = bundle.start("sleep", "1000")
    for fd in range(3, 16):
        result = oci("exec", "--cwd", f"/proc/self/fd/{fd}", name, "sh", "-c", "cat etc/os-release", check=False)
        assert "Debian" not in result.stdout


def test_no_descriptor_leads_out(bundle, oci):
    """What the runtime inherits from its caller stays with it."""
    outside = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(outside, True)
    try:
        name = bundle.start("sleep", "1000", close_fds=False)
        pid = oci.status(name)["pid"]
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
        out = oci("exec", name, "ls", "/proc/self/fd", close_fds=False).stdout.split()
        assert out == ["0", "1", "2", "3"]
    finally:
        os.close(outside)


def test_closed_standard_files(bundle, oci):
    """Nothing of the runtime's takes their place."""
    bundle.process["args"] = ["sh", "-c", "for n in 0 1 2; do readlink /proc/self/fd/$n; done > /out; ls /proc/self/fd >> /out"]
    bundle.write()
    subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "-", oci.program, "--root", str(oci.state), "run", "--bundle",
                    str(bundle.directory), oci.new_id()], check=True, timeout=30)
    out = (bundle.rootfs / "out").read_text().split()
    assert out[0] == "/dev/null" and out[2] == "/dev/null" and out[3:] == ["0", "1", "2", "3"]


# ---- races on mounts ----

def exchange(first, second, stop):
    """renameat2(RENAME_EXCHANGE), as fast as it goes."""
    import ctypes
    libc = ctypes.CDLL(None)
    while not stop.is_set():
        libc.renameat2(-100, str(first).encode(), -100, str(second).encode(), 2)


def test_mount_point_that_becomes_a_link(bundle, tmp_path):
    """A volume that two containers share, one of which exchanges a mount point for a link to the host."""
    shared = tmp_path / "shared"
    (shared / "dir").mkdir(parents=True)
    (shared / "link").symlink_to("/" + "../" * 20 + str(tmp_path / "host"))
    (tmp_path / "host").mkdir()
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/mark").write_text("m")
    bundle.config["mounts"] += [
        {"destination": "/shared", "source": str(shared), "options": ["rbind"]},
        {"destination": "/shared/dir", "source": str(tmp_path / "volume"), "options": ["bind"]},
        {"destination": "/shared/dir/deep/er", "type": "tmpfs", "source": "t"}]
    stop = threading.Event()
    thread = threading.Thread(target=exchange, args=(shared / "dir", shared / "link", stop))
    thread.start()
    try:
        for _ in range(40):
            bundle.run("true", check=False)
            assert list((tmp_path / "host").iterdir()) == []
    finally:
        stop.set()
        thread.join()
    assert str(tmp_path / "host") not in open("/proc/self/mountinfo").read()


@pytest.mark.parametrize("place", ["proc", "sys"])
def test_proc_that_is_a_link(bundle, place):
    """A fake /proc in the image would be believed by who writes labels and parameters there."""
    (bundle.rootfs / place).rmdir()
    (bundle.rootfs / "fake").mkdir()
    (bundle.rootfs / place).symlink_to("fake")
    result = bundle.run("true", check=False)
    assert result.returncode == 1 and "ordinary directory" in result.stderr


def test_dev_null_that_is_a_link(bundle):
    """Masks are made of the host's /dev/null, whatever the image has at that place."""
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")]
    (bundle.rootfs / "dev/null").symlink_to("/proc/sysrq-trigger")
    result = bundle.run("true", check=False)
    assert result.returncode == 1 and "/dev/null" in result.stderr


# ---- what belongs to the host ----

def test_the_hosts_files_of_proc(bundle):
    privileged(bundle)
    host = open("/proc/sys/kernel/core_pattern").read()
    out = bundle.sh("""
        echo '|/evil' > /proc/sys/kernel/core_pattern; echo b > /proc/sysrq-trigger; echo 1 > /proc/sys/kernel/panic
        echo /evil > /sys/kernel/uevent_helper; echo x > /proc/1/oom_score_adj
        for f in kcore keys timer_list; do head -c 1 /proc/$f; done; true""", stderr=subprocess.STDOUT)
    assert out.count("Read-only") + out.count("nonexistent") + out.count("denied") >= 4
    assert open("/proc/sys/kernel/core_pattern").read() == host


def test_release_agent(bundle):
    """cgroup v1 runs a program of the host's when a group is empty."""
    privileged(bundle)
    out = bundle.sh("""
        for d in /sys/fs/cgroup/*; do echo /evil > $d/release_agent; echo 1 > $d/notify_on_release; done
        mkdir /tmp/c; mount -t cgroup -o memory cgroup /tmp/c && echo mounted; true""", stderr=subprocess.STDOUT)
    assert "mounted" not in out
    for place in pathlib.Path("/sys/fs/cgroup").glob("*/release_agent"):
        assert place.read_text().strip() != "/evil"


def test_other_processes(bundle, oci):
    """Neither seen, nor signalled, nor traced."""
    privileged(bundle)
    other = subprocess.Popen(["sleep", "1000"])
    try:
        result = bundle.run("sh", "-c", f"kill -9 {other.pid}; ls -d /proc/{other.pid}; cat /proc/{other.pid}/environ",
                            check=False)
        assert result.returncode and other.poll() is None
        assert bundle.sh("ps").count("\n") <= 3
    finally:
        other.kill()
        other.wait()


def test_keyring(bundle, oci):
    """A session keyring of its own: the caller's keys are not in reach; but for who asks for that."""
    keys = runtime.BUILD / "tests/oci/oci-keys"
    shutil.copy(keys, bundle.rootfs / "bin/keys")
    bundle.process["args"] = ["keys", "find", "tabique-secret"]
    bundle.write()

    def look(*flags):
        result = subprocess.run([keys, "add", "tabique-secret", oci.program, "--root", str(oci.state), "run", *flags,
                                 "--bundle", str(bundle.directory), oci.new_id()], capture_output=True, text=True,
                                timeout=30, check=False)
        if result.returncode == 77:
            pytest.skip(f"no keyrings here: {result.stderr}")
        return result.stdout

    assert look() == "Required key not available\n"
    assert look("--no-new-keyring") == "found\n"


def test_waiting_process_is_closed(bundle, oci):
    """Between create and start the process is the runtime's: nobody of the container's user looks into it."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    name = bundle.create("sleep", "1000")
    pid = oci.status(name)["pid"]
    for file in ("exe", "environ", "maps", "root"):
        result = subprocess.run(["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "ls", "-l", f"/proc/{pid}/{file}"
                                 if file in ("exe", "root") else f"/proc/{pid}/fd"], capture_output=True, text=True,
                                check=False)
        assert "denied" in result.stderr, (file, result)

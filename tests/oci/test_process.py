# SPDX-License-Identifier: GPL-2.0-or-later
"""config.json's process: who the program is and what it may do, seen from inside."""
import ctypes
import json
import os
import resource
import socket
import struct
import subprocess
import threading

import pytest


def status_of(bundle, **options):
    return dict(line.split(":\t", 1) for line in bundle.sh("cat /proc/self/status", **options).splitlines() if ":\t" in line)


def caps(text):
    return int(text, 16)


def test_user_and_groups(bundle):
    bundle.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 77], "umask": 0o27}
    out = bundle.sh("id; umask; echo $HOME; whoami").splitlines()
    assert out[0].startswith("uid=1000(ann) gid=1001 groups=5,77") or "5" in out[0] and "77" in out[0]
    assert out[1] == "0027" and out[2] == "/home/ann" and out[3] == "ann"


def test_environment_and_arguments(bundle):
    bundle.process["env"] = ["PATH=/bin", "A=b c", "HOME=/x", "EMPTY="]
    assert bundle.run("env").stdout.splitlines() == ["PATH=/bin", "A=b c", "HOME=/x", "EMPTY="]
    assert bundle.run("printf", "[%s]", "a b", "", "*").stdout == "[a b][][*]"


def test_path_is_searched_as_the_environment_says(bundle):
    (bundle.rootfs / "opt").mkdir()
    (bundle.rootfs / "opt/tool").write_text("#!/bin/sh\necho found\n")
    (bundle.rootfs / "opt/tool").chmod(0o755)
    bundle.process["env"] = ["PATH=/nothing:/opt"]
    assert bundle.run("tool").stdout == "found\n"
    bundle.process["env"] = ["PATH=/nothing"]
    assert bundle.run("tool", check=False).returncode == 127


def test_working_directory(bundle):
    bundle.process["cwd"] = "/var"
    assert bundle.run("pwd").stdout == "/var\n"
    bundle.process["cwd"] = "/made/for/it"
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    assert bundle.sh("pwd; stat -c %u .") == "/made/for/it\n1000\n"
    bundle.process["cwd"] = "/etc/passwd"
    result = bundle.run("pwd", check=False)
    assert result.returncode == 1 and "/etc/passwd" in result.stderr


def test_capabilities(bundle):
    bundle.process["noNewPrivileges"] = False
    bundle.process["capabilities"] = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_TIME"], "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]}
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    status = status_of(bundle)
    # A program executed by no root has what is ambient.
    assert caps(status["CapBnd"]) == 1 << 0 | 1 << 5 | 1 << 25
    assert caps(status["CapPrm"]) == caps(status["CapEff"]) == caps(status["CapInh"]) == caps(status["CapAmb"]) == 1 << 5
    bundle.process["user"] = {"uid": 0, "gid": 0}
    bundle.process["capabilities"] = {"bounding": ["CAP_CHOWN"]}
    status = status_of(bundle)
    assert caps(status["CapBnd"]) == caps(status["CapEff"]) == 1 and caps(status["CapAmb"]) == 0


def test_no_new_privileges(bundle):
    assert status_of(bundle)["NoNewPrivs"] == "1"
    bundle.process["noNewPrivileges"] = False
    assert status_of(bundle)["NoNewPrivs"] == "0"


def test_limits(bundle):
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99},
                                 {"type": "RLIMIT_CORE", "soft": 0, "hard": 4096}]
    out = bundle.sh("cat /proc/self/limits")
    rows = {line[:25].strip(): line[25:].split() for line in out.splitlines()}
    assert rows["Max open files"][:2] == ["77", "99"] and rows["Max core file size"][:2] == ["0", "4096"]


@pytest.mark.parametrize("filtered", [False, True])
def test_limits_that_would_stop_the_runtime(bundle, filtered):
    """They bind the program, not those who set it up."""
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 4, "hard": 5}, {"type": "RLIMIT_FSIZE", "soft": 0, "hard": 0}]
    if filtered:
        bundle.linux["seccomp"] = profile(syscalls=[{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}])
    assert bundle.sh("ulimit -n; ulimit -Hn; ulimit -f").split() == ["4", "5", "0"]
    name = bundle.start("sleep", "1000")
    assert bundle.oci("exec", name, "sh", "-c", "ulimit -n").stdout == "4\n"


def test_oom_score_and_priorities(bundle):
    bundle.process["oomScoreAdj"] = 321
    bundle.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
    bundle.capabilities()
    name = bundle.start("sleep", "1000")
    pid = bundle.oci.status(name)["pid"]
    assert open(f"/proc/{pid}/oom_score_adj").read() == "321\n"
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    assert fields[16] == "7" and os.sched_getscheduler(pid) == os.SCHED_BATCH
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(252, 1, pid, 0) >> 13 == 3  # ioprio_get


def test_affinity_of_exec(bundle):
    bundle.process["execCPUAffinity"] = {"initial": "0", "final": "0"}
    name = bundle.start("sleep", "1000")
    assert bundle.oci("exec", name, "grep", "Cpus_allowed_list", "/proc/self/status").stdout.split()[1] == "0"


def test_personality(bundle):
    bundle.linux["personality"] = {"domain": "LINUX32"}
    assert bundle.run("uname", "-m").stdout == "i686\n"


def test_apparmor_that_is_not_there(bundle):
    if os.path.exists("/sys/kernel/security/apparmor"):
        pytest.skip("this kernel has AppArmor")
    bundle.process["apparmorProfile"] = "some-profile"
    result = bundle.run("true", check=False)
    assert result.returncode == 1 and "apparmor" in result.stderr


def test_selinux_that_is_not_there(bundle):
    if os.path.exists("/sys/fs/selinux/enforce"):
        pytest.skip("this kernel has SELinux")
    bundle.process["selinuxLabel"] = "system_u:system_r:container_t:s0"
    result = bundle.run("true", check=False)
    assert result.returncode == 1 and "selinux" in result.stderr


def test_descriptors(bundle):
    """Nothing of the runtime's is left open; what is asked for comes along."""
    assert bundle.sh("ls /proc/self/fd").split() == ["0", "1", "2", "3"]  # the last is ls's own
    read, write = os.pipe()
    # subprocess hands descriptors on by their numbers: 3 and 4 are wanted.
    script = f"exec 3<&{read} 4>&{write}; exec \"$@\""
    bundle.process["args"] = ["sh", "-c", "echo through >&4; ls /proc/self/fd"]
    bundle.write()
    oci = bundle.oci
    result = subprocess.run(["bash", "-c", script, "-", oci.program, "--root", str(oci.state), "run", "--preserve-fds", "2",
                             "--bundle", str(bundle.directory), oci.new_id()], pass_fds=(read, write), text=True,
                            capture_output=True, timeout=30, check=True)
    assert os.read(read, 100) == b"through\n"
    assert result.stdout.split() == ["0", "1", "2", "3", "4", "5"]
    result = bundle.run("true", flags=["--preserve-fds", "5"], check=False)
    assert result.returncode == 1 and "preserve-fds" in result.stderr


def test_exec_with_its_own_rights(bundle):
    bundle.capabilities("CAP_CHOWN")
    bundle.process["noNewPrivileges"] = False
    name = bundle.start("sleep", "1000")
    out = bundle.oci("exec", "--cap", "CAP_KILL", "--no-new-privs", name, "cat", "/proc/self/status").stdout
    status = dict(line.split(":\t", 1) for line in out.splitlines() if ":\t" in line)
    assert caps(status["CapEff"]) == 1 | 1 << 5 and status["NoNewPrivs"] == "1"
    assert "unknown capability" in bundle.oci("exec", "--cap", "CAP_NO", name, "true", check=False).stderr


# ---- seccomp ----

def profile(**more):
    return {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], **more}


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_seccomp(bundle, no_new_privileges):
    bundle.process["noNewPrivileges"] = no_new_privileges
    bundle.linux["seccomp"] = profile(syscalls=[
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
        {"names": ["no_such_call", "sethostname"], "action": "SCMP_ACT_KILL_PROCESS"}])
    out = bundle.sh("mkdir /tmp/x 2>&1; grep ^Seccomp: /proc/self/status; hostname x; echo $?")
    assert "Operation not supported" in out or "not supported" in out
    assert "Seccomp:\t2" in out and out.splitlines()[-1] == str(128 + 31)
    name = bundle.start("sleep", "1000")
    assert "not supported" in bundle.oci("exec", name, "mkdir", "/tmp/y", check=False).stderr


def test_compiled_profiles_are_kept(bundle, oci):
    """The second container has the first one's program; another profile, a spoilt file or a stranger's has its own."""
    mkdir = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    bundle.linux["seccomp"] = profile(syscalls=[mkdir])
    attempt = "mkdir /tmp/x 2>&1; rmdir /tmp/x 2>/dev/null; true"
    first = bundle.sh(attempt)
    kept = list((oci.state / ".seccomp").iterdir())
    assert "not supported" in first and len(kept) == 1
    inode = kept[0].stat().st_ino
    assert bundle.sh(attempt) == first and kept[0].stat().st_ino == inode
    mkdir["errnoRet"] = 11
    assert "not supported" not in bundle.sh(attempt) and len(list((oci.state / ".seccomp").iterdir())) == 2
    mkdir["errnoRet"] = 95
    content = kept[0].read_bytes()
    for bad in (content[:40], b"", content[:-8], content.replace(b"mkdirat", b"mkdirxx")):
        kept[0].write_bytes(bad)
        assert bundle.sh(attempt) == first and kept[0].read_bytes() == content
    kept[0].chmod(0o666)
    kept[0].write_bytes(content[:-16] + content[:16])
    assert bundle.sh(attempt) == first
    (oci.state / ".seccomp").chmod(0o777)
    assert bundle.sh(attempt) == first
    assert oci("list", "--quiet").stdout == ""


def test_seccomp_arguments(bundle):
    bundle.linux["seccomp"] = profile(syscalls=[
        {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 11,
         "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 12,
         "args": [{"index": 1, "value": 0xff, "valueTwo": 12, "op": "SCMP_CMP_MASKED_EQ"}]}])
    out = bundle.sh("sleep 9 & kill -12 $! 2>&1; kill -10 $! && echo sent")
    assert "Out of memory" in out or "memory" in out
    assert "sent" in out


def test_seccomp_default_errno(bundle):
    allowed = ("read write close openat newfstatat fstat mmap mprotect munmap brk exit_group execve execveat arch_prctl "
               "set_tid_address set_robust_list rseq prlimit64 getrandom getuid setuid setgid geteuid fcntl capset prctl "
               "rt_sigaction rt_sigprocmask readlink getpid close_range futex lseek poll statx ioctl uname "
               "writev access faccessat2 getcwd fchdir chdir setgroups setresuid setresgid capget sendmsg").split()
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
                               "syscalls": [{"names": allowed, "action": "SCMP_ACT_ALLOW"}]}
    result = bundle.run("hostname", "x", check=False)
    assert "not implemented" in result.stderr


def test_seccomp_notify(bundle, tmp_path):
    """The agent gets the state and the descriptor, and answers a call itself."""
    path = str(tmp_path / "agent")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    seen = {}

    def agent():
        connection, _ = server.accept()
        text, fds, _, _ = socket.recv_fds(connection, 65536, 1)
        seen.update(json.loads(text))
        libc = ctypes.CDLL(None, use_errno=True)
        request = ctypes.create_string_buffer(80)
        # SECCOMP_IOCTL_NOTIF_RECV and _SEND: struct seccomp_notif has 80 bytes, the answer 24.
        if libc.ioctl(fds[0], ctypes.c_ulong(0xc0502100), request) == 0:
            number, = struct.unpack_from("Q", request, 0)
            answer = struct.pack("QqiI", number, 0, -errno_of("EXFULL"), 0)
            libc.ioctl(fds[0], ctypes.c_ulong(0xc0182101), answer)
        os.close(fds[0])

    thread = threading.Thread(target=agent, daemon=True)
    thread.start()
    bundle.linux["seccomp"] = profile(listenerPath=path, listenerMetadata="for you", syscalls=[
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}])
    out = bundle.sh("mkdir /tmp/x 2>&1; echo done")
    thread.join(10)
    assert "Exchange full" in out and "done" in out
    assert seen["metadata"] == "for you" and seen["fds"] == ["seccompFd"] and seen["state"]["status"] == "creating"
    assert seen["pid"] == seen["state"]["pid"] > 0


def errno_of(name):
    import errno
    return getattr(errno, name)


def test_seccomp_notify_without_agent(bundle, tmp_path):
    bundle.linux["seccomp"] = profile(listenerPath=str(tmp_path / "nobody"), syscalls=[
        {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}])
    result = bundle.run("true", check=False)
    assert result.returncode == 1 and "listenerPath" in result.stderr


# ---- terminals ----

def test_terminal(bundle, tmp_path):
    bundle.process["terminal"] = True
    bundle.process["consoleSize"] = {"height": 33, "width": 99}
    assert "console socket" in bundle.create("true", check=False).stderr
    path = str(tmp_path / "console")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    name = bundle.create("sh", "-c", "tty; stty size; ls -l /dev/console; echo >/dev/console over; cat",
                         flags=["--console-socket", path])
    connection, _ = server.accept()
    _, fds, _, _ = socket.recv_fds(connection, 100, 1)
    bundle.oci("start", name)
    output = b""
    while b"over" not in output:
        output += os.read(fds[0], 4096)
    assert b"/dev/pts/0" in output or b"/dev/console" in output
    assert b"33 99" in output and b"136" in output
    os.write(fds[0], b"typed\n\x04")
    while output.count(b"typed") < 2:
        output += os.read(fds[0], 4096)
    os.close(fds[0])
    # And of exec.
    bundle.process["terminal"] = False
    name = bundle.start("sleep", "1000")
    bundle.oci("exec", "--tty", "--detach", "--console-socket", path, name, "sh", "-c", "tty; sleep 1")
    connection, _ = server.accept()
    _, fds, _, _ = socket.recv_fds(connection, 100, 1)
    assert b"/dev/pts/0" in os.read(fds[0], 4096)


def test_terminal_of_its_own(bundle):
    """run in the foreground passes its own standard input and output through."""
    bundle.process["terminal"] = True
    result = bundle.run("sh", "-c", "tty; read x; echo got $x", input="word\n", stdin=None)
    assert "/dev/pts/0" in result.stdout and "got word" in result.stdout

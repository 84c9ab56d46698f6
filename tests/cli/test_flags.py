# SPDX-License-Identifier: GPL-2.0-or-later
"""A wrong command line ends with 2, one message that says what to do, and nothing done."""
import re

import pytest

from program import run

WRONG = [
    # arguments, what the message must say
    ([], "usage: tabique VERB"),
    (["rnu"], "unknown verb 'rnu': did you mean 'run'"),
    (["frobnicate"], "unknown verb 'frobnicate'\n"),
    (["--frobnicate"], "unknown flag '--frobnicate'"),
    (["run", "--cpu", "2"], "unknown flag --cpu: did you mean --cpus?"),
    (["run", "--memroy=1G"], "unknown flag --memroy: did you mean --memory?"),
    (["run", "--initrdd", "x"], "did you mean --initrd?"),
    (["run", "--zzz"], "unknown flag --zzz\n"),
    (["run", "-k", "x"], "unknown flag -k: flags begin with two dashes"),
    (["run", "debian", "vmlinuz"], "COMMAND is for --kind container"),
    (["check", "--", "--kernel"], "unexpected argument '--kernel'"),
    (["run", "-dz", "debian"], "unknown flag -z: flags begin with two dashes"),
    (["run", "-dd", "debian"], "--detach is given twice"),
    (["run", "--name", "a/b", "debian"], "--name: 'a/b' is no name for a guest"),
    (["run", "--name", "", "debian"], "--name: the guest's name is empty"),
    (["run", "--name", "x" * 64, "debian"], "--name: a guest's name of 64 characters"),
    (["run", "--restart", "often", "debian"], "--restart: 'often' is no restart policy"),
    (["run", "--restart", "on-failure:0", "debian"], "--restart: 'on-failure:0' is no restart policy"),
    (["run", "--restart", "always:2", "debian"], "--restart: 'always:2' is no restart policy"),
    (["stop"], "NAME is missing"),
    (["stop", "--timeout", "soon", "web"], "--timeout: 'soon' is no span of time"),
    (["stop", "--timeout", "1e3", "web"], "--timeout: '1e3' is no span of time"),
    (["stop", "--timeout", "2d", "web"], "--timeout: '2d' is no span of time"),
    (["events", "--since", "tomorrow"], "--since: 'tomorrow' is no time"),
    (["console", "a", "b"], "unexpected argument 'b'"),
    (["run", "--kernel"], "--kernel needs a value"),
    (["run", "--kernel", "--initrd", "x"], "--kernel needs a value"),
    (["run", "--kernel", ""], "--kernel: the file's name is empty"),
    (["run", "--kernel", "a", "--kernel", "b"], "--kernel is given twice"),
    (["run", "--debug-exit=yes"], "--debug-exit takes no value"),
    (["run", "--engine", "kwm"], "'kwm' is none of auto, kvm, soft: did you mean kvm?"),
    (["run", "--vsock-cid", "2"], "--vsock-cid: '2' is not a whole number from 3 to 4294967294"),
    (["run", "--vsock", ""], "--vsock: the file's name is empty"),
    (["run", "--balloon", "1025"], "--balloon: '1025' is not a multiple of 4K"),
    (["run", "--watchdog", "bark"], "'bark' is none of reset, poweroff, none"),
    (["run", "--engine", ""], "'' is none of auto, kvm, soft\n"),
    (["run", "--disk", ""], "--disk: the file's name is empty"),
    (["run", "--disk", ",readonly"], "--disk: the file's name is empty"),
    (["run", "--disk", "a,"], "--disk: unknown option ''"),
    (["run", "--disk", "a,format"], "--disk: 'format' needs a value"),
    (["run", "--disk", "a,format=vhdy"], "--disk: 'vhdy' is no format: choose raw, luks, qcow2, vdi, vhd, vhdx or vmdk"),
    (["run", "--disk", "a,format=raw,format=raw"], "--disk: 'format' is given twice"),
    (["run", "--disk", "a,readonly=yes"], "--disk: 'readonly' takes no value"),
    (["run", "--disk", "a,readonyl"], "--disk: unknown option 'readonyl': did you mean readonly?"),
    (["run", "--disk", "a,b"], "(a comma in a file's name is written twice)"),
    (["run", "--disk", "a,serial="], "--disk: serial '': choose 1 to 20 characters"),
    (["run", "--disk", "a,serial=123456789012345678901"], "choose 1 to 20 characters"),
    (["run", "--kernel", "x", "--net", "usr"], "--net: 'usr' is no network: choose user, user,restrict, tap=INTERFACE"),
    (["run", "--kernel", "x", "--net", ""], "--net: '' is no network"),
    (["run", "--kernel", "x", "--net", "tap="], "--net: '' is no name of an interface"),
    (["run", "--kernel", "x", "--net", "tap=a123456789012345"], "is no name of an interface: it has 1 to 15 characters"),
    (["run", "--kernel", "x", "--net", "tap=t0,made"], "--net: 'made' after the interface's name: only 'create'"),
    (["run", "--kernel", "x", "--net", "none", "--net", "user"], "--net none and another --net: choose one"),
    (["run", "--kernel", "x", *["--net", "user"] * 9], "--net is given 9 times: a guest has up to 8 cards"),
    (["run", "--kernel", "x", "--mac", "52:54:00:12:34"], "--mac: '52:54:00:12:34' is no address of the form"),
    (["run", "--kernel", "x", "--mac", "53:54:00:12:34:56"], "no card's address: its first byte must be even"),
    (["run", "--kernel", "x", "--mac", "00:00:00:00:00:00"], "no card's address"),
    (["run", "--kernel", "x", "--mac", "52:54:00:00:00:01", "--mac", "52:54:00:00:00:02"],
     "--mac is given 2 times for 1 network card\n"),
    (["run", "--kernel", "x", "--net", "user", "--net", "user", "--mac", "52:54:00:00:00:01", "--mac", "52:54:00:00:00:01"],
     "--mac: 52:54:00:00:00:01 is given twice"),
    (["run", "--kernel", "x", "--net", "none", "--publish", "8080:80"], "--publish is for the user network: add --net user"),
    (["run", "--kernel", "x", "--publish", "8080:80", "--publish", "8080:81"], "takes the host's port 8080 a second time"),
    (["check", "--jason"], "did you mean --json?"),
    (["help", "chekc"], "did you mean check?"),
    (["help", "run", "check"], "'run' has no verbs after it"),
]
WRONG += [(["run", "--cpus", n], f"--cpus: '{n}' is not a whole number from 1 to 8")
          for n in ["9", "1.5", "0.5", "4096"]]
WRONG += [(["run", "--cpus", n], f"--cpus: '{n}' is not a number from 0.01 to 4096")
          for n in ["0", "0.001", "x", "-1", "", "1 ", " 1", "1.", ".5", "1.5.5", "1.2345", "4097", "99999999999999999999", "0x2"]]
WRONG += [(["run", "--memory", size], f"--memory: '{size}' is no size")
          for size in ["", "x", "M", "-1M", "1.5G", "1 G", "1X", "1GB", "1MM", "0x100000"]]
WRONG += [(["run", "--memory", size], f"--memory: '{size}' is out of range: choose from 1M to 1T")
          for size in ["0", "1", "512", "1023K", "2T", "1025G", "18446744073709551616", "16777216T", "18446744073709551615K"]]
WRONG += [(["run", "--memory", size], f"--memory: '{size}' is not a multiple of 4K") for size in ["1048577", "1025K"]]

WRONG += [(["run", "--kernel", "x", "--publish", port], f"--publish: '{port}' is not of the form [udp:][ADDRESS:]HOST:GUEST")
          for port in ["", "80", "8080:", ":80", "0:80", "80:0", "65536:80", "80:x", "1:2:3", "localhost:1:2", "udp:80",
                       "sctp:80:80", "::1:80:80", "127.0.0.1:80:80:80", "127.0.0.1.1:80:80", "8080:80 ", "-1:80"]]


@pytest.mark.parametrize("arguments, message", WRONG, ids=[" ".join(a) or "nothing" for a, _ in WRONG])
def test_wrong(arguments, message):
    result = run(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stdout == ""
    if arguments:
        assert re.search(r"\nTry 'tabique (\w+ )?--help'\.\n$", result.stderr)
        assert result.stderr.count("\n") == 2


@pytest.mark.parametrize("arguments", [
    ["--memory", "1M"], ["--memory", "1024K"], ["--memory=1048576"], ["--memory", "1g"], ["--memory", "2GiB"],
    ["--cpus", "8"], ["--cpus=1"], ["--append", "--cpus-like text"], ["--append="], ["--append=--initrd"],
    ["--append", "a=b --c"], ["--module", "a", "--module=b=c d"], ["--debug-exit"], ["--engine", "auto"],
    ["--watchdog", "none"], ["--balloon", "0"], ["--balloon", "128M"],
    ["--disk", "a", "--disk", "b,,c,format=raw,readonly,serial=12345678901234567890"],
    ["--net", "none"], ["--net", "user", "--net", "user,restrict"], ["--net=user", "--mac=02:00:00:ab:CD:ef"],
    ["--publish", "8080:80", "--publish", "udp:8080:80", "--publish=tcp:127.0.0.1:8081:65535"],
], ids=" ".join)
def test_right(arguments, tmp_path):
    """Accepted: what fails is the kernel, which is not there."""
    missing = tmp_path / "kernel"
    result = run("run", *arguments, "--kernel", missing)
    assert result.returncode == 1
    assert f"kernel '{missing}': No such file or directory" in result.stderr
    assert result.stdout == ""

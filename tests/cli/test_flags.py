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
    (["run", "vmlinuz"], "unexpected argument 'vmlinuz'"),
    (["run", "--", "--kernel"], "unexpected argument '--kernel'"),
    (["run", "--kernel"], "--kernel needs a value"),
    (["run", "--kernel", "--initrd", "x"], "--kernel needs a value"),
    (["run", "--kernel", ""], "--kernel: the file's name is empty"),
    (["run", "--kernel", "a", "--kernel", "b"], "--kernel is given twice"),
    (["run", "--debug-exit=yes"], "--debug-exit takes no value"),
    (["run", "--engine", "kwm"], "'kwm' is none of auto, kvm, soft: did you mean kvm?"),
    (["run", "--watchdog", "bark"], "'bark' is none of reset, poweroff, none"),
    (["run", "--engine", ""], "'' is none of auto, kvm, soft\n"),
    (["run", "--disk", ""], "--disk: the file's name is empty"),
    (["run", "--disk", ",readonly"], "--disk: the file's name is empty"),
    (["run", "--disk", "a,"], "--disk: unknown option ''"),
    (["run", "--disk", "a,format"], "--disk: 'format' needs a value"),
    (["run", "--disk", "a,format=vhd"], "--disk: 'vhd' is no format: choose raw or qcow2"),
    (["run", "--disk", "a,format=raw,format=raw"], "--disk: 'format' is given twice"),
    (["run", "--disk", "a,readonly=yes"], "--disk: 'readonly' takes no value"),
    (["run", "--disk", "a,readonyl"], "--disk: unknown option 'readonyl': did you mean readonly?"),
    (["run", "--disk", "a,b"], "(a comma in a file's name is written twice)"),
    (["run", "--disk", "a,serial="], "--disk: serial '': choose 1 to 20 characters"),
    (["run", "--disk", "a,serial=123456789012345678901"], "choose 1 to 20 characters"),
    (["check", "--jason"], "did you mean --json?"),
    (["help", "chekc"], "did you mean check?"),
    (["help", "run", "check"], "unexpected argument 'check'"),
]
WRONG += [(["run", "--cpus", n], f"--cpus: '{n}' is not a whole number from 1 to 8")
          for n in ["0", "9", "x", "-1", "1.5", "", "1 ", " 1", "99999999999999999999", "0x2"]]
WRONG += [(["run", "--memory", size], f"--memory: '{size}' is no size")
          for size in ["", "x", "M", "-1M", "1.5G", "1 G", "1X", "1GB", "1MM", "0x100000"]]
WRONG += [(["run", "--memory", size], f"--memory: '{size}' is out of range: choose from 1M to 1T")
          for size in ["0", "1", "512", "1023K", "2T", "1025G", "18446744073709551616", "16777216T", "18446744073709551615K"]]
WRONG += [(["run", "--memory", size], f"--memory: '{size}' is not a multiple of 4K") for size in ["1048577", "1025K"]]


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
    ["--watchdog", "none"],
    ["--disk", "a", "--disk", "b,,c,format=raw,readonly,serial=12345678901234567890"],
], ids=" ".join)
def test_right(arguments, tmp_path):
    """Accepted: what fails is the kernel, which is not there."""
    missing = tmp_path / "kernel"
    result = run("run", *arguments, "--kernel", missing)
    assert result.returncode == 1
    assert f"kernel '{missing}': No such file or directory" in result.stderr
    assert result.stdout == ""

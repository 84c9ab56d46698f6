#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs one test guest on a monitor and judges it: its exit status and what it printed.

Monitors: `qemu` (QEMU's TCG, the reference that tells a wrong test from a wrong engine), and each engine of
Tabique by its name. Exit status: 0 passed, 1 failed, 77 skipped with the reason on the last line.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys

PASSED = (0x10 << 1) | 1


def qemu_command(args):
    if not shutil.which("qemu-system-x86_64"):
        return None, "qemu-system-x86_64 is not installed"
    command = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-nodefaults", "-display", "none",
               "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
               "-m", args.memory, "-smp", str(args.cpus), "-kernel", args.guest, "-append", args.append]
    if args.module:
        command += ["-initrd", ",".join(m.replace("=", " ", 1) for m in args.module)]
    return command, None


def tabique_command(args):
    tabique = args.tabique or os.environ.get("TABIQUE")
    if not tabique or not os.access(tabique, os.X_OK):
        return None, "no tabique binary (--tabique or $TABIQUE)"
    check = subprocess.run([tabique, "check", "--json"], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                           timeout=30)
    engines = {engine["name"]: engine for engine in json.loads(check.stdout)["engines"]}
    if args.monitor not in engines:
        return None, f"no engine {args.monitor} is built in"
    if not engines[args.monitor]["usable"]:
        return None, engines[args.monitor]["reason"]
    return [tabique, "run", "--engine", args.monitor, *tabique_arguments(args)], None


def tabique_arguments(args):
    """What `tabique run` needs for this guest whatever the engine."""
    words = ["--memory", args.memory, "--cpus", str(args.cpus), "--kernel", args.guest, "--append", args.append,
             "--debug-exit"]
    for module in args.module:
        words += ["--module", module]
    return words


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("guest", help="the guest's ELF file")
    parser.add_argument("--monitor", default="qemu")
    parser.add_argument("--tabique", help="the binary to test (default: $TABIQUE)")
    parser.add_argument("--memory", default="128M")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--append", default="")
    parser.add_argument("--module", action="append", default=[])
    parser.add_argument("--expect", action="append", default=[], help="a regular expression that the output must match")
    parser.add_argument("--ends-by-power-off", action="store_true", help="instead of the debug-exit port")
    parser.add_argument("--timeout", type=float, default=100)
    parser.add_argument("--same-checks-as", metavar="MONITOR", help="its run must make the same checks; a `skip NAME` there "
                        "or here covers all checks whose names begin like that")
    parser.add_argument("--no-skips", action="store_true", help="every check must be made")
    return parser


def judge(args, status, output):
    """What is wrong with a run that printed `output` and ended with `status`: a list of texts."""
    problems = [f"nothing printed matches {e!r}" for e in args.expect if not re.search(e, output)]
    expected = 0 if args.ends_by_power_off else PASSED
    if status != expected:
        problems.append(f"exit status {status}, expected {expected}")
    if not args.ends_by_power_off and "guest: passed" not in output:
        problems.append("the guest did not say that it passed")
    if "not ok:" in output:
        problems.append("a check failed")
    return problems


def run(args):
    """(exit status, output, command); status None if it did not end, command None and the reason if it can't run."""
    command, reason = qemu_command(args) if args.monitor == "qemu" else tabique_command(args)
    if not command:
        return None, reason, None
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=args.timeout)
        status, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        status, output = None, late.stdout or b""
    return status, output.decode(errors="replace").replace("\r", ""), command


def compare_checks(ours, reference):
    """The checks that only one of two outputs has."""
    skipped = tuple(re.findall(r"^skip (.+) \(", ours + reference, re.M))
    made = [{name for name in re.findall(r"^(?:ok|FAIL) (.+?)(?:: got .*)?$", output, re.M) if not name.startswith(skipped)}
            for output in (ours, reference)]
    return sorted(made[0] ^ made[1])


def main():
    args = make_parser().parse_args()
    status, output, command = run(args)
    if not command:
        print(f"skipped: {output}")
        return 77
    sys.stdout.write(output)
    if status is None:
        print(f"failed: no end after {args.timeout} s: {' '.join(command)}")
        return 1
    problems = judge(args, status, output)
    if args.no_skips and re.search("^skip ", output, re.M):
        problems.append("a check was skipped")
    if args.same_checks_as:
        args.monitor = args.same_checks_as
        _, reference, reference_command = run(args)
        if reference_command:
            problems += [f"a check only here or only on {args.monitor}: {name}" for name in compare_checks(output, reference)]
    for problem in problems:
        print(f"failed: {problem}: {' '.join(command)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

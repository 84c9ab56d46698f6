# SPDX-License-Identifier: GPL-2.0-or-later
"""The criu of Debian's testing suite with its libraries, run by its own dynamic linker: those of bookworm and trixie know too
little of newer kernels (the vdso; what sockets answer). It is fetched once, into build/criu."""
import fcntl
import pathlib
import shutil
import subprocess
import sys

TREE = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TREE / "bench"))
import userland  # noqa: E402 pylint: disable=wrong-import-position

SUITE = "forky"
DIRECTORY = TREE / "build/criu"
SCRIPT = """#!/bin/sh
root={root}
exec $root/usr/lib64/ld-linux-x86-64.so.2 --library-path $root/usr/lib/x86_64-linux-gnu $root/usr/sbin/criu "$@"
"""


def fetch():
    """The directory that has it, for PATH."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    with open(DIRECTORY / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        root, program = DIRECTORY / "root", DIRECTORY / "bin/criu"
        if not program.exists():
            mirror = userland.fetch_guest().host_mirror()
            print(f"fetching {SUITE}'s criu from {mirror}", flush=True)
            shutil.rmtree(root, ignore_errors=True)
            # A mirror that stands still is as good as any: the packages are still signed.
            userland.run("mmdebstrap", "--variant=extract", "--architectures=amd64", "--include=criu",
                         '--aptopt=Acquire::Check-Valid-Until "false"', SUITE, root, mirror)
            program.parent.mkdir(exist_ok=True)
            program.write_text(SCRIPT.format(root=root))
            program.chmod(0o755)
    return program.parent


def refusal():
    """What criu itself has against this kernel, or None."""
    done = subprocess.run([fetch() / "criu", "check"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stdout + done.stderr).strip()[-500:]

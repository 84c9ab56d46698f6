# SPDX-License-Identifier: GPL-2.0-or-later
"""`tabique disk`, and other programs that read and write images, run to their end."""
import os
import shutil
import subprocess
import time

import pytest

from program import run


def qemu_img(*words, check=True):
    done = subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True, check=False, timeout=300)
    assert not check or done.returncode == 0, done.stderr
    return done


def check_whole(path):
    """What a process wrote to that was killed: nothing worse than leaks, which a later 'qemu-img check -r leaks' gives back."""
    until = time.monotonic() + 60
    while True:
        result = qemu_img("check", "-f", "qcow2", path, check=False)
        # The VM process ends a moment after the supervisor that was killed.
        if "Failed to lock" not in result.stderr or time.monotonic() > until:
            break
        time.sleep(0.1)
    assert result.returncode in (0, 3), result.stdout + result.stderr


def qemu_io(path, *commands):
    subprocess.run(["qemu-io", "-f", "qcow2", *[w for c in commands for w in ("-c", c)], path], check=True,
                   capture_output=True, timeout=120)


def disk(*words, status=0):
    done = run("disk", *map(str, words), timeout=120)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done


def needs_libyal(program, package):
    """A mark for tests that read an image by vhdimount or vmdkmount."""
    return pytest.mark.skipif(not shutil.which(program) or not os.path.exists("/dev/fuse") or os.geteuid() != 0,
                              reason=f"{package} and FUSE are not there")


def read_by_libyal(program, image, mount, chain=1):
    """What vhdimount or vmdkmount finds in an image that is the last of a chain: it shows them one by one."""
    mount.mkdir()
    subprocess.run([program, image, mount], check=True, capture_output=True, timeout=60)
    try:
        return (mount / f"{program.removesuffix('mount')}{chain}").read_bytes()
    finally:
        subprocess.run(["umount", mount], check=True, timeout=60)

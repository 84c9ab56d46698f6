# SPDX-License-Identifier: GPL-2.0-or-later
"""`tabique disk` and QEMU's programs for images, run to their end."""
import subprocess

from program import run


def qemu_img(*words, check=True):
    done = subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True, check=False, timeout=300)
    assert not check or done.returncode == 0, done.stderr
    return done


def qemu_io(path, *commands):
    subprocess.run(["qemu-io", "-f", "qcow2", *[w for c in commands for w in ("-c", c)], path], check=True,
                   capture_output=True, timeout=120)


def disk(*words, status=0):
    done = run("disk", *map(str, words), timeout=120)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done

# SPDX-License-Identifier: GPL-2.0-or-later
"""Userlands for guests and for chroot on the host: a tree of Debian's packages with files of ours, and the same as a
read-only ext4 image. Both lie under build/bench and are made anew when what goes into them has changed. Needs no root
where user namespaces are allowed. Used by bench/soft and by the tests of real programs."""
import fcntl
import hashlib
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess

import guests

IMAGE_SLACK = 64 << 20
MIB = 1 << 20


def fetch_guest():
    """tools/fetch-guest as a module: it knows the mirror in reach."""
    loader = importlib.machinery.SourceFileLoader("fetch_guest", str(guests.TREE / "tools/fetch-guest"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def run(*command):
    """A command that is silent unless it fails."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise guests.Failed(f"{command[0]} failed: {(done.stderr + done.stdout)[-1500:]}")


def as_root(*command):
    """Root of a user namespace is enough."""
    return [*command] if os.geteuid() == 0 else ["unshare", "--map-root-user", *command]


def fetch(directory, suite, packages):
    """directory/packages.tar"""
    tar, stamp = directory / "packages.tar", directory / "packages.stamp"
    wanted = f"{suite} {packages}"
    if tar.exists() and stamp.exists() and stamp.read_text() == wanted:
        return tar
    mirror = fetch_guest().host_mirror()
    print(f"fetching {suite}'s packages for the userland from {mirror}", flush=True)
    run("mmdebstrap", "--variant=essential", "--architectures=amd64", "--format=tar", f"--include={packages}",
        "--hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr", suite, tar, mirror)
    stamp.write_text(wanted)
    return tar


def digest(tar, made):
    total = hashlib.sha256(f"{tar.stat().st_mtime_ns}".encode())
    for name, data in sorted(made.items()):
        total.update(name.encode() + b"\0" + hashlib.sha256(data).digest())
    return total.hexdigest()


def make(name, suite, packages, files):
    """(tree, image) called so, with packages (by commas) and {path: bytes} of files to execute."""
    directory = guests.TREE / "build/bench" / name
    directory.mkdir(parents=True, exist_ok=True)
    root, image, stamp = directory / "root", directory / "userland.ext4", directory / "userland.stamp"
    with open(directory / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tar = fetch(directory, suite, packages)
        wanted = digest(tar, files)
        if image.exists() and stamp.exists() and stamp.read_text() == wanted:
            return root, image
        print("making the userland's image", flush=True)
        stamp.unlink(missing_ok=True)
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        run(*as_root("tar", "--extract", "--no-same-owner", "--exclude=./dev/*", "--file", tar, "--directory", root))
        for path, data in files.items():
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).write_bytes(data)
            (root / path).chmod(0o755)
        size = sum(p.lstat().st_size + 4096 for p in root.rglob("*")) + IMAGE_SLACK
        image.unlink(missing_ok=True)
        os.close(os.open(image, os.O_CREAT | os.O_WRONLY, 0o644))
        os.truncate(image, size // MIB * MIB)
        run(*as_root("mke2fs", "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d", root, image))
        stamp.write_text(wanted)
    return root, image

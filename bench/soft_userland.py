# SPDX-License-Identifier: GPL-2.0-or-later
"""The userland that bench/soft measures with: a tree of Debian's packages and our own small programs, for chroot on the
host, and the same as a read-only ext4 image for guests. Both lie under build/bench and are made anew when what goes into
them has changed. Needs no root where user namespaces are allowed."""
import fcntl
import hashlib
import importlib.machinery
import importlib.util
import io
import os
import pathlib
import random
import shutil
import subprocess
import tarfile

import guests

SOURCES = guests.TREE / "bench/soft-guest"
BUILT = guests.TABIQUE.parent
PACKAGES = "busybox-static,coreutils,dash,gcc,gzip,libc6-dev,openssl,python3-minimal,tar"
IMAGE_SLACK = 64 << 20
MIB = 1 << 20
# Names in /bench, and what is built for each.
PROGRAMS = {"driver": "bench/soft-driver", "loops": "bench/soft-loops", "nbody-sse2": "bench/soft-nbody-sse2",
            "nbody-avx2": "bench/soft-nbody-avx2", "disk-speed": "bench/disk-speed", "pump": "tests/cli/pump"}

WORDS = ("the guest processor reads a page from memory and writes it back to the disk when nobody else needs it while "
         "each queue of the network card waits for one more buffer that its driver has yet to give").split()


def text(generator, size):
    """So many bytes that compress like prose."""
    out, length = [], 0
    while length < size:
        word = generator.choice(WORDS) if generator.random() < 0.9 else f"{generator.getrandbits(32):x}"
        out.append(word)
        length += len(word) + 1
    return (" ".join(out) + " " * size).encode()[:size]


def source_file(lines):
    """C of about so many lines: as programs are, mostly short functions, a loop or a switch here and there."""
    generator = random.Random(4)
    out = ["struct item { unsigned key, value, flags; struct item *next; };", ""]
    number = 0
    while len(out) < lines:
        a, b, c = (generator.randrange(3, 1000) for _ in range(3))
        kind = generator.randrange(4)
        out += [f"/* Item {a} and what follows from it: {text(generator, 60).decode()} */"]
        if kind == 0:
            out += [f"unsigned sum_{number}(const struct item *item)", "{", f"    unsigned sum = {a}u;", "",
                    "    for (; item; item = item->next)", f"        sum = sum * {b}u + (item->value ^ {c}u);", "    return sum;", "}"]
        elif kind == 1:
            out += [f"int set_{number}(struct item *item, unsigned value)", "{", f"    if (!item || value > {a * 1000}u)",
                    "        return -1;", f"    item->key = value / {b}u;", f"    item->value = value % {b}u;",
                    f"    item->flags |= {1 << a % 16}u;", "    return 0;", "}"]
        elif kind == 2:
            out += [f"static const unsigned table_{number}[] = {{", f"    {a}u, {b}u, {c}u, {a + b}u,", "};", "",
                    f"unsigned get_{number}(unsigned i)", "{", f"    return i < 4 ? table_{number}[i] : {c}u;", "}"]
        else:
            out += [f"const char *name_{number}(unsigned key)", "{", "    switch (key) {"]
            for case in range(generator.randrange(2, 6)):
                out += [f"    case {a + case * b}u:", f'        return "name {number} {case}";']
            out += ["    default:", '        return "none";', "    }", "}"]
        out.append("")
        number += 1
    return "\n".join(out) + "\n"


def source_tree():
    """A tar of 2,000 files in 100 folders, 8 KiB each on average."""
    generator = random.Random(5)
    stock = text(generator, MIB)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(2000):
            if number % 20 == 0:
                folder = tarfile.TarInfo(f"tree/part-{number // 20}")
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(folder)
            size = min(int(generator.expovariate(1 / 8192)) + 100, 100_000)
            entry = tarfile.TarInfo(f"tree/part-{number // 20}/file-{number}.c")
            entry.size, entry.mode = size, 0o644
            start = generator.randrange(len(stock) - size)
            tar.addfile(entry, io.BytesIO(stock[start:start + size]))
    return out.getvalue()


def short_commands(count):
    """A shell script of so many commands: a third are the shell's own, the others programs."""
    forms = ("x=$((x + {n}))", "test -d /usr && y={n}", "case {n} in *7) x=0 ;; esac", "/bin/true {n}",
             "expr {n} + 1 >/dev/null", "basename /usr/lib/{n}.so .so >/dev/null")
    return "#!/bin/sh\n" + "".join(forms[n % len(forms)].format(n=n) + "\n" for n in range(count)) + "echo $x $y\n"


def files():
    """What is made for /bench beside the programs: name -> bytes."""
    found = {path.name: path.read_bytes() for path in SOURCES.iterdir() if path.suffix in (".py", ".sh")}
    found["compile.c"] = source_file(3000).encode()
    found["tree.tar"] = source_tree()
    found["commands"] = short_commands(2000).encode()
    found["text"] = text(random.Random(6), MIB)
    return found


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


def packages(directory, suite):
    """directory/packages.tar"""
    tar, stamp = directory / "packages.tar", directory / "packages.stamp"
    wanted = f"{suite} {PACKAGES}"
    if tar.exists() and stamp.exists() and stamp.read_text() == wanted:
        return tar
    mirror = fetch_guest().host_mirror()
    print(f"fetching {suite}'s packages for the userland from {mirror}", flush=True)
    run("mmdebstrap", "--variant=essential", "--architectures=amd64", "--format=tar", f"--include={PACKAGES}",
        "--hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr", suite, tar, mirror)
    stamp.write_text(wanted)
    return tar


def digest(tar, made):
    total = hashlib.sha256(f"{tar.stat().st_mtime_ns}".encode())
    for name, data in sorted(made.items()):
        total.update(name.encode() + b"\0" + hashlib.sha256(data).digest())
    return total.hexdigest()


def make(suite):
    """(tree, image)"""
    directory = guests.TREE / "build/bench" / suite
    directory.mkdir(parents=True, exist_ok=True)
    root, image, stamp = directory / "root", directory / "userland.ext4", directory / "userland.stamp"
    with open(directory / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tar, made = packages(directory, suite), files()
        for name, built in PROGRAMS.items():
            if not (BUILT / built).exists():
                raise guests.Failed(f"no {BUILT / built}: make build-tests builds it")
            made[name] = (BUILT / built).read_bytes()
        wanted = digest(tar, made)
        if image.exists() and stamp.exists() and stamp.read_text() == wanted:
            return root, image
        print("making the userland's image", flush=True)
        stamp.unlink(missing_ok=True)
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        run(*as_root("tar", "--extract", "--no-same-owner", "--exclude=./dev/*", "--file", tar, "--directory", root))
        (root / "bench").mkdir()
        for name, data in made.items():
            path = root / "bench" / name
            path.write_bytes(data)
            path.chmod(0o755)
        size = sum(p.lstat().st_size + 4096 for p in root.rglob("*")) + IMAGE_SLACK
        image.unlink(missing_ok=True)
        os.close(os.open(image, os.O_CREAT | os.O_WRONLY, 0o644))
        os.truncate(image, size // MIB * MIB)
        run(*as_root("mke2fs", "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d", root, image))
        stamp.write_text(wanted)
    return root, image

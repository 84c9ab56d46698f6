# SPDX-License-Identifier: GPL-2.0-or-later
"""What is in the userland (userland.py) that bench/soft measures with: Debian's packages, and our own small programs and
files under /bench."""
import io
import random
import tarfile

import guests
import userland

SOURCES = guests.TREE / "bench/soft-guest"
PACKAGES = "busybox-static,coreutils,dash,gcc,gzip,libc6-dev,openssl,python3-minimal,tar"
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


def make(suite):
    """(tree, image)"""
    made = files()
    for name, built in PROGRAMS.items():
        if not (guests.BUILD / built).exists():
            raise guests.Failed(f"no {guests.BUILD / built}: make build-tests builds it")
        made[name] = (guests.BUILD / built).read_bytes()
    return userland.make(suite, suite, PACKAGES, {f"bench/{name}": data for name, data in made.items()})

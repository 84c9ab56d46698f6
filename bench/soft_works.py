# SPDX-License-Identifier: GPL-2.0-or-later
"""What bench/soft measures: the work, its rows in the table, and what each has to reach."""
import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Target:
    """What to reach: `bar` at least, `goal` if it can be.

    `against` tells what is held against it: "tcg" our time divided by TCG's (less is better); "tcg rate" our rate
    divided by TCG's; "native" the host's own time divided by ours; "scaling" what two processors do divided by what one
    does. Of the last three, more is better."""
    against: str
    bar: float
    goal: float

    def reached(self, ratio):
        better = (lambda limit: ratio <= limit) if self.against == "tcg" else (lambda limit: ratio >= limit)
        return "goal" if better(self.goal) else "bar" if better(self.bar) else "no"


BOOT = Target("tcg", 0.5, 0.33)
COMPUTING = Target("native", 0.8, 0.95)
SPAWNING = Target("tcg", 0.7, 0.4)
PROGRAMS = Target("tcg", 0.5, 0.25)
KERNEL = Target("tcg", 1.0, 0.5)
LOGIN = Target("tcg", 0.5, 0.3)
TWO = Target("scaling", 1.8, 1.95)
NETWORK = Target("tcg rate", 1.0, 3.0)


@dataclasses.dataclass(frozen=True)
class Work:
    """A command for the driver. Its time is the row's value, or what `rate` (a regular expression) finds in its output,
    by the guest's clock, in units a second. What it prints otherwise must be the same everywhere."""
    name: str
    title: str
    target: Target
    command: str
    setup: str = ""  # before and after it, not measured
    check: str = ""
    rate: str = ""
    unit: str = "s"
    where: str = "main"  # which boot: "main" with one processor, "two" with two
    native: bool = True  # whether it runs on the host as well
    transfer: str = ""  # over TCP with this host: "down" is to the guest


def ssl(name, title, words, rate, unit):
    return Work(name, f"openssl speed {title}", COMPUTING, f"openssl speed -mr -seconds 1 -elapsed {words}", rate=rate, unit=unit)


BLOCKS = "-bytes 16384 -evp "
TEXT = "[ -e /tmp/text ] || for i in $(seq {mib}); do cat /bench/text; done >/tmp/text"


def works(quick):
    """All of it, smaller where it has to be quick."""
    part = 10 if quick else 1
    mib = 100 // part
    text = TEXT.format(mib=mib)
    # Reading the far end of the output makes all of it count. What only computes is begun once before: on the host its
    # files are in memory already, and what a start takes is a row of its own.
    return [
        Work("sha256", f"sha256 of {mib} MiB", COMPUTING, "sha256sum /tmp/text", setup=text + "; sha256sum /dev/null"),
        Work("gzip", f"gzip of {mib} MiB", COMPUTING, "gzip -1 -n -c /tmp/text >/tmp/text.gz", setup=text + "; gzip -1 -c /dev/null",
             check="cksum /tmp/text.gz; rm /tmp/text.gz"),
        ssl("gcm", "aes-128-gcm", BLOCKS + "aes-128-gcm", r"\+F:\d+:AES-128-GCM:([\d.]+)", "B/s"),
        ssl("cbc", "aes-128-cbc", BLOCKS + "aes-128-cbc", r"\+F:\d+:AES-128-CBC:([\d.]+)", "B/s"),
        ssl("rsa", "rsa2048 (sign)", "rsa2048", r"\+F2:\d+:2048:([\d.]+):", "/s"),
        Work("nbody-sse2", "n-body, SSE2", COMPUTING, f"/bench/nbody-sse2 {1000000 // part}", setup="/bench/nbody-sse2 1"),
        Work("nbody-avx2", "n-body, AVX2", COMPUTING, f"/bench/nbody-avx2 {1000000 // part}", setup="/bench/nbody-avx2 1"),
        Work("python", "python3 loops", COMPUTING, f"python3 /bench/loops.py {200 // part}", setup="python3 /bench/loops.py 1"),
        Work("python-start", f"python3 begun {20 // part} times", PROGRAMS,
             f"for i in $(seq {20 // part}); do python3 -c 'print(1)'; done"),
        Work("spawn", f"fork and exec, {200 // part} times", SPAWNING, f"/bench/loops spawn {200 // part}"),
        Work("commands", f"shell script of {2000 // part} commands", PROGRAMS, f"head -n {2000 // part} /bench/commands | sh"),
        Work("tar", "tar x of a source tree", PROGRAMS, "cd /tmp && tar xf /bench/tree.tar",
             check="cd /tmp && cat tree/*/* | cksum; rm -r tree"),
        Work("gcc", "gcc -O2 of 3000 lines", PROGRAMS, "gcc -O2 -c /bench/compile.c -o /tmp/compile.o",
             check="cksum /tmp/compile.o"),
        Work("getpid", f"getpid, {2 / part:g} million times", KERNEL, f"/bench/loops getpid {2000000 // part}"),
        Work("pipe", f"pipe ping-pong, {50000 // part} times", KERNEL, f"/bench/loops pipe {50000 // part}"),
        Work("mmap", f"mmap, touch, munmap of {500 // part} MiB", KERNEL, f"/bench/loops mmap {500 // part}"),
        Work("random", "random reads of 4 KiB, virtio-blk", KERNEL, f"/bench/disk-speed /dev/vda random {(20 << 20) // part}",
             rate=r"rate (\d+)", unit="B/s", native=False),
        Work("net-down", "TCP through the NAT, to the guest", NETWORK, "/bench/pump receive {host} {port}", unit="B/s",
             transfer="down"),
        Work("net-up", "TCP through the NAT, from the guest", NETWORK, "/bench/pump send {host} {port} {size}", unit="B/s",
             transfer="up"),
        Work("one", "", TWO, "sha256sum /tmp/text", setup=text, where="two"),
        Work("two", "2 vCPUs: two sha256 at once", TWO, "sha256sum /tmp/text >/tmp/other & sha256sum /tmp/text; wait",
             setup=text, where="two"),
    ]


# Measured by how long it takes to boot, not by a command: name, title, target.
BOOTS = (("init", "kernel to /init", BOOT), ("login", "full Debian to the login prompt", LOGIN))

NAMES = [BOOTS[0][0]] + [w.name for w in works(False) if w.name != "one"] + [BOOTS[1][0]]


def result_of(work, output):
    """What must be the same everywhere; rates and the network's seconds are not."""
    if work.rate or work.transfer:
        return ""
    return re.sub(r"\s+", " ", output).strip()

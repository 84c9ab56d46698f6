# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb `profile`, on Debian guests that are busy in a way that is known."""
import base64
import contextlib
import gzip
import itertools
import re
import subprocess

import pytest

from program import BUILD, GUESTS, Shell, Terminal, initrd_with, run

FRAMES = BUILD / "tests/guest/frames"
LIMIT = 120
URANDOM = "chacha|get_random_bytes_user|copy_user|copy_to_iter|rep_movs"

names = (f"profile-{n}" for n in itertools.count())
only_bookworm = pytest.mark.parametrize("suite", ["bookworm"], indirect=True)


@contextlib.contextmanager
def booted(suite, *args, prefix=()):
    initrd = initrd_with(suite, "initrd-profile.gz", "--add", f"bin/frames={FRAMES}")
    name = next(names)
    with Shell("run", "--engine", "soft", "--name", name, "--rm", "--kernel", GUESTS / suite / "vmlinuz", "--initrd", initrd,
               "--append", "console=ttyS0 quiet", *args, prefix=prefix) as guest:
        guest.name = name
        yield guest.shell()


@pytest.fixture(name="guest")
def fixture_guest(suite):
    with booted(suite) as guest:
        yield guest


def profile(guest, *args):
    done = run("profile", guest.name, "--time", "4s", *args, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def folded(text):
    """{tuple of frames: count}"""
    return {tuple(line.rpartition(" ")[0].split(";")): int(line.rpartition(" ")[2]) for line in text.splitlines()}


def share(stacks, pattern):
    """Of those that have a frame like it."""
    return sum(n for stack, n in stacks.items() if any(re.search(pattern, frame) for frame in stack)) / sum(stacks.values())


@only_bookworm
def test_kernel_and_idle(guest, tmp_path):
    symbols = tmp_path / "kallsyms"
    said = guest.ask("grep -i ' t ' /proc/kallsyms | gzip | base64", LIMIT)
    symbols.write_bytes(gzip.decompress(base64.b64decode(said)))
    idle = folded(profile(guest))
    assert share(idle, "^idle$") > 0.7, idle
    assert 0.5 * 4 * 99 < sum(idle.values()) < 1.5 * 4 * 99  # a busy host looks less often

    guest.ask("dd if=/dev/urandom of=/dev/null bs=64k >/dev/null 2>&1 &")
    busy = folded(profile(guest, "--symbols", symbols, "--activities"))
    assert share(busy, r"^kernel$") > 0.7, busy
    assert share(busy, URANDOM) > 0.5, busy
    assert {stack[-1] for stack in busy if stack != ("idle",)} <= {"[translated]", "[direct]", "[translating]", "[helpers]"}

    # Without names the same addresses are told, which are the kernel's.
    bare = folded(profile(guest, "--frequency", "999"))
    assert share(bare, r"^0xffffffff[89a-f][0-9a-f]{7}_\[k\]$") > 0.7, bare
    assert sum(bare.values()) > 2 * sum(busy.values())

    # System.map knows where a kernel was linked to be, which is not where it is.
    lines = [line.split() for line in symbols.read_text().splitlines() if "\t" not in line and line.startswith("f")]
    moved = next(int(word, 16) for word, _, name in lines if name == "_text") - 0xffffffff81000000
    system_map = tmp_path / "System.map"
    system_map.write_text("".join(f"{int(word, 16) - moved & (1 << 64) - 1:016x} {kind} {name}\n" for word, kind, name in lines))
    mapped = folded(profile(guest, "--symbols", system_map))
    assert share(mapped, URANDOM) > 0.5, mapped


@only_bookworm
@pytest.mark.parametrize("form", ["folded", "perf"])
def test_user_code_with_frame_pointers(guest, tmp_path, form):
    symbols, output = tmp_path / "symbols", tmp_path / "profile"
    symbols.write_text(subprocess.run(["nm", FRAMES], check=True, capture_output=True, text=True).stdout)
    guest.ask("frames &")
    assert profile(guest, "--symbols", symbols, "--format", form, "--output", output) == ""
    if form == "folded":
        stacks = folded(output.read_text())
        chain = ("main", "outermost", "middle", "innermost")
        deep = sum(n for stack, n in stacks.items() if stack[0].startswith("user 0x") and stack[-4:] == chain)
        assert deep > 0.7 * sum(stacks.values()), stacks
        return
    samples = output.read_text().split("\n\n")[:-1]
    heads = [re.match(r"(user|kernel|idle) +\d+ \[000\] (\d+\.\d{6}): +\d+ cpu-clock: \n", sample) for sample in samples]
    assert len(samples) > 100 and all(heads)
    times = [float(head.group(2)) for head in heads]
    assert times == sorted(times) and 2 < times[-1] - times[0] < 8
    place = r"\t +[0-9a-f]+ {}\+0x[0-9a-f]+ \(\[guest\.user\]\)\n"
    deep = sum(bool(re.search("".join(map(place.format, ("innermost", "middle", "outermost", "main"))), f"{sample}\n"))
               for sample in samples)
    assert deep > 0.7 * len(samples), samples[:5]


@only_bookworm
def test_translated_user_code_on_two_processors(suite, tmp_path):
    symbols = tmp_path / "symbols"
    symbols.write_text(subprocess.run(["nm", FRAMES], check=True, capture_output=True, text=True).stdout)
    without = [BUILD / "tests/host/run_without", "pidfd_send_signal"]
    with booted(suite, "--cpus", "2", prefix=without) as guest:
        guest.ask("frames & frames &")
        stacks = folded(profile(guest, "--symbols", symbols, "--activities", "--frequency", "1000"))
    deep = {stack[0]: n for stack, n in stacks.items() if stack[-4:] == ("outermost", "middle", "innermost", "[translated]")}
    assert len(deep) == 2 and sum(deep.values()) > 0.7 * sum(stacks.values()), stacks


@only_bookworm
def test_refusals(guest, tmp_path):
    hidden = tmp_path / "hidden"
    hidden.write_text("0000000000000000 T _text\n")
    for args, why in [(("--frequency", "1001"), "1000"), (("--symbols", hidden), "to root only"), (("--symbols", FRAMES), "no line"),
                      (("--symbols", tmp_path), "directory"), (("--output", tmp_path), "directory"), (("--format", "svg"), "folded")]:
        done = run("profile", guest.name, *args)
        assert done.returncode in (1, 2) and why in done.stderr, (args, done)
    assert "not running" in run("profile", "nobody").stderr or "no guest" in run("profile", "nobody").stderr


@only_bookworm
def test_the_end_of_the_guest_ends_it(guest):
    guest.send(b"(sleep 2; poweroff -f) &\r")
    done = run("profile", guest.name, "--time", "60s", timeout=LIMIT)
    assert done.returncode == 1 and "ended" in done.stderr and sum(folded(done.stdout).values()) > 10


def test_a_kernel_of_ones_own(echo_guest, tmp_path):
    """It waits in a loop for input."""
    symbols = tmp_path / "symbols"
    symbols.write_text(subprocess.run(["nm", echo_guest], check=True, capture_output=True, text=True).stdout)
    name = next(names)
    with Terminal("run", "--engine", "soft", "--name", name, "--rm", "--kernel", echo_guest) as guest:
        guest.expect(rb"ready")
        done = run("profile", name, "--symbols", symbols, "--time", "1s", timeout=LIMIT)
        assert done.returncode == 0, done.stderr
        stacks = folded(done.stdout)
    assert sum(stacks.values()) > 30 and share(stacks, r"^guest_main_\[k\]$") > 0.7, stacks

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the nested host is given to do. Each job's name is what the tests ask for its result by."""
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "guest"))
import boot_disk  # noqa: E402 pylint: disable=wrong-import-position
import flat_image  # noqa: E402 pylint: disable=wrong-import-position
import run_guest  # noqa: E402 pylint: disable=wrong-import-position

TREE = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("TABIQUE", TREE / "build/tabique")).resolve().parent
GUESTS = pathlib.Path(os.environ.get("TABIQUE_GUESTS", TREE / "build/guest"))

SUITES = ("bookworm", "trixie")
CPUS = (1, 2)

SESSION = """. /nested/shell-lib
shell_session --engine kvm --kernel /nested/{suite}/vmlinuz --initrd /nested/{suite}/initrd.gz \\
    --memory 256M --cpus {cpus} --append "console=ttyS0 quiet {append}" <<'END'
{commands}
END
"""

# SeaBIOS, GRUB, a kernel: real mode and what leads out of it, on processors that KVM runs.
FIRMWARE = """. /nested/shell-lib
shell_session --engine kvm --disk /nested/disk.img --memory 256M --cpus 2 <<'END'
{commands}
END
"""
BIOS = pathlib.Path("/usr/share/seabios/bios-256k.bin")

# Every processor answers, the clock is the paravirtual one, and what the kernel complains of is told.
LOOK_AROUND = """echo "kernel $(uname -r) on $(nproc)"
for cpu in $(seq 0 $(($(nproc) - 1))); do taskset -c $cpu sh -c 'echo "ran on $(cut -d" " -f39 /proc/self/stat)"'; done
echo "clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
echo "entropy $(dd if=/dev/hwrng bs=16 count=1 2>/dev/null | wc -c)"
dmesg -r | sed -n 's/^<[0-4]>\\[[^]]*\\] /complaint: /p'"""

# Both leave the first kernel in their own way, and switch the second one off.
REBOOT = "reboot -f\necho second $(nproc)\npoweroff -f"
PANIC = "echo c >/proc/sysrq-trigger\necho second $(nproc)\nexit"


def session(suite, cpus, commands, append=""):
    return SESSION.format(suite=suite, cpus=cpus, commands=commands, append=append)


def firmware_missing():
    """The packages that a boot through the firmware needs and this host lacks."""
    return boot_disk.missing() + ([] if BIOS.exists() else ["seabios"])


FLAT_IMAGES = {"rom": flat_image.STORE_TO_ROM, "reset": flat_image.RESET_ONCE}


def add_firmware(host):
    for name, code in FLAT_IMAGES.items():
        image = host.scratch / f"{name}.bin"
        image.write_bytes(flat_image.assemble(code))
        host.add_file(f"nested/{name}.bin", image)
        host.add_job(f"flat-{name}", f"exec $tabique run --engine kvm --firmware /nested/{name}.bin --memory 16M --debug-exit",
                     limit=30)
    if firmware_missing():
        return
    directory, disk = host.fetch("trixie"), host.scratch / "disk.img"
    boot_disk.make_kernel_disk(directory / "vmlinuz", directory / "initrd.gz", "console=ttyS0 quiet", disk)
    host.add_file("nested/disk.img", disk)
    host.add_file(str(BIOS.relative_to("/")), BIOS)
    host.add_job("firmware", FIRMWARE.format(commands=LOOK_AROUND + "\npoweroff -f"))


def guest_tests(build):
    """The runs of test guests that the build has: (name, arguments of tests/guest/run_guest.py)."""
    text = subprocess.run(["meson", "introspect", "--tests", str(build)], capture_output=True, text=True, check=True).stdout
    for test in json.loads(text):
        if not any(word.endswith("run_guest.py") for word in test["cmd"]):
            continue
        args = run_guest.make_parser().parse_args(test["cmd"][1:])
        if args.monitor == "soft":
            name = re.sub(r"^guest |\bsoft$", "", test["name"])
            args.guest = str(pathlib.Path(build) / args.guest)
            yield re.sub(r"\W+", "-", name).strip("-"), args


def add_guest_tests(host):
    def bring(path):
        """Into the nested host; its path there."""
        inside = f"nested/guests/{pathlib.Path(path).name}"
        host.add_file(inside, path)
        return f"/{inside}"

    for name, args in guest_tests(host.build):
        args.guest = bring(args.guest)
        args.module = [bring(path) + separator + line for path, separator, line in
                       (module.partition("=") for module in args.module)]
        words = shlex.join(run_guest.tabique_arguments(args))
        host.add_job(f"guest-{name}", f"exec $tabique run --engine kvm {words}", limit=180)


def add_all(host):
    host.add_binary("nested/tabique", host.build / "tabique")
    host.add_binary("nested/test_engine", host.build / "tests/engine/test_engine")
    host.add_job("check", "exec $tabique check")
    host.add_job("check-json", "exec $tabique check --json")
    host.add_job("unit", "KVM_TEST_REAL=1 KVM_TEST_SLOW=1 exec /nested/test_engine kvm")
    add_guest_tests(host)
    for suite in SUITES:
        directory = host.fetch(suite)
        for name in ("vmlinuz", "initrd.gz"):
            host.add_file(f"nested/{suite}/{name}", directory / name)
    host.add_job("shell-bookworm-1", session("bookworm", 1, LOOK_AROUND + "\nexit"))
    host.add_job("shell-bookworm-2", session("bookworm", 2, LOOK_AROUND + "\n" + REBOOT))
    host.add_job("shell-trixie-1", session("trixie", 1, LOOK_AROUND + "\n" + PANIC, "panic=-1"))
    host.add_job("shell-trixie-2", session("trixie", 2, LOOK_AROUND + "\nexit"))
    add_firmware(host)

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
import built_image  # noqa: E402 pylint: disable=wrong-import-position
import flat_image  # noqa: E402 pylint: disable=wrong-import-position
import run_guest  # noqa: E402 pylint: disable=wrong-import-position

TREE = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("TABIQUE_BUILD", TREE / "build")).resolve()
GUESTS = pathlib.Path(os.environ.get("TABIQUE_GUESTS", TREE / "build/guest"))

SUITES = ("bookworm", "trixie")
CPUS = (1, 2, 4)
IMAGE_CPUS = (1, 2)
BOOT = 1200  # seconds for a Debian or two: half a minute each where nothing else runs, and much longer elsewhere

IMAGE_BOOT = 1800

SESSION = """. /nested/shell-lib
shell_session --engine kvm --kernel /nested/{suite}/vmlinuz --initrd /nested/{suite}/initrd.gz \\
    --memory 256M --cpus {cpus} --append "console=ttyS0 quiet {append}" <<'END'
{commands}
END
"""

# A disk and a network, whose queues the kernel's part of the engine rings and whose interrupts it delivers. What the
# guest wrote is looked for in the image, and what it got and sent is told on both sides.
DISK_MARK = "written by a guest on kvm"
DISK = """. /nested/shell-lib
rm -f disk.raw
truncate -s 64M disk.raw
shell_session --engine kvm --kernel /nested/bookworm/vmlinuz --initrd /nested/bookworm/ext4.gz --memory 256M --cpus 2 \\
    --net none --disk disk.raw,format=raw --append "console=ttyS0 quiet" <<'END'
mke2fs /dev/vda >/dev/null && mount -t ext4 /dev/vda /root && cd /root && echo made
echo "MARK" >mark; head -c 2000000 /dev/urandom >large; echo "sum $(md5sum <large)"
cd /; umount /root && mount -t ext4 /dev/vda /root && echo "sum $(md5sum </root/large)"
echo "interrupts $(awk '/virtio[0-9]-req/ { n += $2 + $3 } END { print n }' /proc/interrupts)"
umount /root; dmesg -r | sed -n 's/^<[0-4]>\\[[^]]*\\] /complaint: /p'
exit
END
status=$?
echo "marks in the image: $(tr -s '\\000' '\\n' <disk.raw | grep -c '^MARK$')"
rm -f disk.raw
exit $status
""".replace("MARK", DISK_MARK)
NAT = """. /nested/shell-lib
head -c 3000000 /dev/urandom >down
nc -l -p 7000 -e cat down &
nc -l -p 7001 -e sh -c 'cat >up' &
shell_session --engine kvm --kernel /nested/bookworm/vmlinuz --initrd /nested/bookworm/initrd.gz --memory 256M \\
    --cpus 2 --net user --append "console=ttyS0 quiet" <<'END'
udhcpc -i eth0 -n -q -t 20 -s /tests/udhcpc-script 2>&1
nc 10.0.2.2 7000 -e sh -c 'cat >down'; echo "down $(md5sum <down)"
head -c 3000000 /dev/urandom >up; nc 10.0.2.2 7001 -e cat up; echo "up $(md5sum <up)"
echo "interrupts $(awk '/virtio[0-9]-(in|out)put/ { n += $2 + $3 } END { print n }' /proc/interrupts)"
dmesg -r | sed -n 's/^<[0-4]>\\[[^]]*\\] /complaint: /p'
exit
END
status=$?
echo "down $(md5sum <down)"
echo "up $(md5sum <up)"
rm -f down up
exit $status
"""

# Sockets between guest and host, and memory that goes back by the balloon: port 98 opens when it has.
BALLOON_BYTES = 160 << 20
SOCKETS = """. /nested/shell-lib
/nested/vsock_peer serve /tmp/sock_99 >/dev/null &
(
    for try in $(seq 200); do "$tabique" balloon web 96M && break; sleep 1; done
    for try in $(seq 200); do "$tabique" stats --json web | grep '"balloon-bytes": *BALLOON' && break; sleep 1; done
    exec /nested/vsock_peer serve /tmp/sock_98
) >balloon 2>&1 &
shell_session --engine kvm --kernel /nested/bookworm/vmlinuz --initrd /nested/bookworm/more.gz --memory 256M --cpus 2 \\
    --net none --name web --vsock /tmp/sock --append "console=ttyS0 quiet" <<'END'
vsock_peer send 99 1000000
until vsock_peer send 98 1 >/dev/null 2>&1; do sleep 1; done; echo "free $(awk '/MemFree/ { print $2 }' /proc/meminfo)"
echo "interrupts $(awk '/virtio[0-9]-(tx|rx)/ { n += $2 + $3 } END { print n }' /proc/interrupts)"
dmesg -r | sed -n 's/^<[0-4]>\\[[^]]*\\] /complaint: /p'
exit
END
status=$?
"$tabique" rm web >/dev/null
cat balloon
rm -f balloon
killall -9 vsock_peer
exit $status
""".replace("BALLOON", str(BALLOON_BYTES))

# What `tabique image build debian` has made, whole: it boots from a disk of the nested host. The console logs root in.
IMAGE = """. /nested/shell-lib
prompt='.*root@debian:[^ ]*#'
shell_session --engine kvm --kernel /nested/{name}/kernel --initrd /nested/{name}/initrd --append "{append}" \\
    --disk {disk},format=raw --memory 384M --cpus {cpus} <<'END'
echo "state $(systemctl is-system-running --wait) on $(nproc)"; systemctl --failed --no-pager
dmesg -r | sed -n 's/^<[0-4]>\\[[^]]*\\] /complaint: /p'
poweroff
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
                     limit=120)
    if firmware_missing():
        return
    directory, disk = host.fetch("trixie"), host.scratch / "disk.img"
    boot_disk.make_kernel_disk(directory / "vmlinuz", directory / "initrd.gz", "console=ttyS0 quiet", disk)
    host.add_file("nested/disk.img", disk)
    host.add_file(str(BIOS.relative_to("/")), BIOS)
    host.add_job("firmware", FIRMWARE.format(commands=LOOK_AROUND + "\npoweroff -f"), limit=BOOT)


def add_program(host):
    host.add_binary("nested/tabique", host.build / "tabique")
    host.add_library("libslirp.so.0")


def add_images(host):
    add_program(host)
    for suite in built_image.SUITES:
        image = built_image.build(host.build / "tabique", suite)
        for name in ("kernel", "initrd"):
            host.add_file(f"nested/{image['name']}/{name}", image[name])
        for cpus in IMAGE_CPUS:
            script = IMAGE.format(name=image["name"], append=image["append"], cpus=cpus, disk=host.add_disk(image["disk"]))
            host.add_job(f"image-{suite}-{cpus}", script, limit=IMAGE_BOOT)


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
        host.add_job(f"guest-{name}", f"exec $tabique run --engine kvm {words}", limit=600)


def add_others(host):
    add_program(host)
    host.add_binary("nested/test_engine", host.build / "tests/engine/test_engine")
    host.add_job("check", "exec $tabique check")
    host.add_job("check-json", "exec $tabique check --json")
    host.add_job("unit", "KVM_TEST_REAL=1 KVM_TEST_SLOW=1 exec /nested/test_engine kvm")
    add_guest_tests(host)
    for suite in SUITES:
        directory = host.fetch(suite)
        for name in ("vmlinuz", "initrd.gz"):
            host.add_file(f"nested/{suite}/{name}", directory / name)
    directory = host.fetch("bookworm", "--initrd", "ext4.gz", "--modules", "ext4")
    host.add_file("nested/bookworm/ext4.gz", directory / "ext4.gz")
    peer = host.build / "tests/guest/vsock_peer"
    host.add_file("nested/vsock_peer", peer)
    directory = host.fetch("bookworm", "--initrd", "more.gz", "--modules", "virtio_balloon,vmw_vsock_virtio_transport",
                           "--add", f"bin/vsock_peer={peer}")
    host.add_file("nested/bookworm/more.gz", directory / "more.gz")
    sessions = {"shell-bookworm-1": session("bookworm", 1, LOOK_AROUND + "\nexit"),
                "shell-bookworm-2": session("bookworm", 2, LOOK_AROUND + "\n" + REBOOT),
                "shell-trixie-1": session("trixie", 1, LOOK_AROUND + "\n" + PANIC, "panic=-1"),
                "shell-trixie-2": session("trixie", 2, LOOK_AROUND + "\nexit"),
                "shell-bookworm-4": session("bookworm", 4, LOOK_AROUND + "\nexit"),
                "shell-trixie-4": session("trixie", 4, LOOK_AROUND + "\nexit"),
                "disk": DISK, "nat": NAT, "sockets": SOCKETS}
    for name, script in sessions.items():
        host.add_job(name, script, limit=BOOT)
    add_firmware(host)


# Nested hosts that run at the same time, and what makes their jobs: whole systems take as long as all others together.
HOSTS = {"nested": add_others} | ({} if built_image.missing() else {"nested-images": add_images})

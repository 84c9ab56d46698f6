# SPDX-License-Identifier: GPL-2.0-or-later
"""The full Debian that `make run` boots, on our engines and on QEMU's TCG with the same devices."""
import json
import subprocess

import guests

LOGIN = r"^\S+ login: "
MEMORY = "1G"
IMAGE = "debian-bookworm"
IMAGE_HOME = guests.TREE / "build/home"  # as `make run` has it
IN_HOME = ["env", f"TABIQUE_HOME={IMAGE_HOME}", str(guests.TABIQUE)]


def image():
    """The directory of the image, which is built if need be."""
    subprocess.run([*IN_HOME, "image", "build", "debian", "--suite", "bookworm", "--name", IMAGE], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return (IMAGE_HOME / "images/names" / IMAGE).resolve()


def tabique_command(engine, name):
    return [*IN_HOME, "run", "--rm", "--name", name, "--engine", engine, "--memory", MEMORY, IMAGE]


def tabique_verb(*words):
    subprocess.run([*IN_HOME, *words], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def qemu_devices(disk, more=""):
    return ["-drive", f"file={disk},format=raw,if=none,id=disk,aio=threads{more}", "-device", "virtio-blk-pci,drive=disk",
            "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"]


def qemu_command(machine, directory):
    """Its serial line and its virtio console are standard output, both."""
    command = guests.qemu_command(machine, (directory / "kernel", directory / "initrd"), MEMORY, append="X")
    command[command.index("console=ttyS0 X")] = json.loads((directory / "image.json").read_text())["append"]
    at = command.index("stdio")
    command[at - 1:at + 1] = ["-chardev", "stdio,id=both,mux=on,signal=off", "-serial", "chardev:both"]
    return [*command, *qemu_devices(directory / "disk.raw", ",snapshot=on"), "-device", "virtio-serial-pci", "-device",
            "virtconsole,chardev=both"]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux's own drivers on the virtio devices: the console as the only one, the entropy device, with message-signalled
and with line interrupts, and all of it again after a reset of the machine."""
import re

import program
from program import Terminal

PROMPT = rb"guest:[^ ]*# "
BOOT = 90  # seconds; other tests run at the same time
POWEROFF = 0


def boot(engine, suite, append):
    guest = program.GUESTS / suite
    return Terminal("run", "--engine", engine, "--kernel", guest / "vmlinuz", "--initrd", guest / "initrd.gz",
                    "--append", f"quiet {append}", "--memory", "512M", "--cpus", "2", "--net", "none")


def ask(terminal, command, timeout=60):
    """What a command at the shell's prompt prints. The marks are not what the echo of the command shows."""
    terminal.send(f'echo "@"@; {command}; echo "@"@\r'.encode())
    terminal.expect(rb"\r\n@@\r\n", timeout)
    end = terminal.expect(rb"@@\r\n", timeout)
    terminal.expect(PROMPT, timeout)
    return end.string[:end.start()].decode().replace("\r\n", "\n").rstrip("\n")


def check_output_on_hvc0(terminal, word):
    """From a shell on another line. The two are not in step, and what is typed goes to the one that spoke last: the
    shell waits before it speaks again."""
    terminal.send(f'echo "{word}"{word} >/dev/hvc0; sleep 1\r'.encode())
    terminal.expect(f"{word}{word}\r\n".encode(), 60)
    terminal.expect(PROMPT, 60)


def interrupts(terminal):
    """Of each line with virtio in its name: {name: (controller, how many there were)}."""
    found = {}
    for line in ask(terminal, "grep virtio /proc/interrupts").splitlines():
        counts = re.match(r" *\d+: +(\d+) +(\d+) +(\S+) .*(virtio.*)$", line)
        found[counts.group(4)] = (counts.group(3), int(counts.group(1)) + int(counts.group(2)))
    return found


def complaints(terminal):
    return [line for line in ask(terminal, "dmesg -r | grep '^<[0-4]>'").splitlines() if re.search("virtio|pci|hvc", line)]


def entropy(terminal):
    blocks = [ask(terminal, "dd if=/dev/hwrng bs=32 count=2 2>/dev/null | od -An -v -tx1 -w32").split("\n")
              for _ in range(2)]
    return [block.split() for pair in blocks for block in pair]


def check_entropy(terminal):
    assert ask(terminal, "cat /sys/class/misc/hw_random/rng_current").startswith("virtio_rng")
    blocks = entropy(terminal)
    assert [len(block) for block in blocks] == [32] * 4
    assert len({" ".join(block) for block in blocks}) == 4
    assert all(len(set(block)) > 8 for block in blocks)


def check_console(terminal):
    assert ask(terminal, "tty") == "/dev/hvc0"
    assert ask(terminal, "seq 1 5000").split() == [str(i) for i in range(1, 5001)]
    # Input in pieces larger than a buffer of the queue, and faster than the guest reads it.
    lines = [f"{i:04d} " + "x" * 200 for i in range(50)]
    terminal.send(b"stty -echo; cat >/tmp/typed; stty echo\r")
    terminal.send("".join(line + "\r" for line in lines).encode() + b"\x04")
    terminal.expect(PROMPT, 60)
    assert ask(terminal, "cat /tmp/typed").split("\n") == lines


def test_console_and_reset(engine, suite):
    with boot(engine, suite, "console=hvc0") as terminal:
        terminal.expect(PROMPT, BOOT)
        check_console(terminal)
        check_entropy(terminal)
        seen = interrupts(terminal)
        assert {name.split("-")[1] for name in seen} == {"config", "input", "output", "control"}  # a console, and a port
        assert all("MSI" in controller for controller, _ in seen.values())
        console = next(name.split("-")[0] for name, (_, count) in seen.items() if name.endswith("output") and count)
        assert not any(name.startswith(console) and name.endswith("control") for name in seen)
        assert complaints(terminal) == []
        terminal.send(b"reboot -f\r")
        terminal.expect(PROMPT, BOOT)
        check_console(terminal)
        check_entropy(terminal)
        terminal.send(b"exit\r")
        assert terminal.wait(60) == POWEROFF
        assert terminal.is_restored()


def test_line_interrupts(engine, suite):
    with boot(engine, suite, "console=ttyS0 pci=nomsi") as terminal:
        terminal.expect(PROMPT, BOOT)
        before = interrupts(terminal)
        check_entropy(terminal)
        check_output_on_hvc0(terminal, "hello")
        after = interrupts(terminal)
        assert len(after) == 3 and all(controller == "IO-APIC" for controller, _ in after.values())
        # The entropy's and the console's; the port of the guest's agent has nothing to tell.
        assert sum(count > before[name][1] for name, (_, count) in after.items()) >= 2
        assert complaints(terminal) == []
        terminal.send(b"exit\r")
        assert terminal.wait(60) == POWEROFF


def test_drivers_come_and_go(engine, suite):
    """Each time the driver leaves, it resets its device; a removed function is found again by its bus."""
    with boot(engine, suite, "console=ttyS0") as terminal:
        terminal.expect(PROMPT, BOOT)
        for _ in range(3):
            ask(terminal, "rmmod virtio_rng; modprobe virtio_rng")
            check_entropy(terminal)
        device = ask(terminal, "grep -l 0x1044 /sys/bus/pci/devices/*/device").removesuffix("/device")
        ask(terminal, f"echo 1 >{device}/remove; sleep 1; echo 1 >/sys/bus/pci/rescan")
        check_entropy(terminal)
        # With the memory of its BARs taken away and given back, at another address if Linux likes.
        console = ask(terminal, "grep -l 0x1043 /sys/bus/pci/devices/*/device").removesuffix("/device")
        name = console.rsplit("/", 1)[1]
        for _ in range(3):
            ask(terminal, f"echo {name} >/sys/bus/pci/drivers/virtio-pci/unbind; "
                          f"echo {name} >/sys/bus/pci/drivers/virtio-pci/bind")
        check_output_on_hvc0(terminal, "still")
        assert complaints(terminal) == []
        terminal.send(b"exit\r")
        assert terminal.wait(60) == POWEROFF

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Has Intel's ACPI compiler read our tables: it must find nothing wrong, and compile its own disassembly again.

Usage: check_acpi.py DUMP_ACPI. Exit status: 0 passed, 1 failed, 77 skipped.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

# What the disassembly must show: that the reader understands what we meant, not only that it is well-formed.
EXPECTED = {
    "DSDT": [r"Device \(PCI0\)", r'EisaId \("PNP0A08"\)', r"Name \(_PRT, Package \(0x80\)", r"Method \(_OSC, 4, Serialized\)",
             r'ToUUID \("33db4d5b-1ff7-401c-9657-7441c03dd766"\)', r'EisaId \("PNP0501"', r"0x03F8", r"IRQNoFlags \(\)\s*\{4\}",
             r"Name \(_S5", r"WordBusNumber \(ResourceProducer, MinFixed, MaxFixed, PosDecode", r"Device \(C00[0-7]\)", r'"QEMU0001"', r"0x0505",
             r"DWordMemory \(ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite"],
    "APIC": [r"Local Apic Address : FEE00000", r"Interrupt : 00000002", r"Trigger Mode : 3",
             r"Local APIC NMI", r"Interrupt Input LINT : 01"],
    "FACP": [r"Fixed|FACP", r"SCI Interrupt : 0009", r"Reset Register Supported \(V2\) : 1", r"32-bit PM Timer \(V1\) : 1",
             r"VGA Not Present \(V4\) : 1"],
    "MCFG": [r"Base Address : 00000000E0000000", r"End Bus Number : 00"],
    "WDAT": [r"PCI Segment : 00FF", r"Timer Period : 00000064", r"Max Count : 0000FFFF", r"Enabled : 1",
             r"Watchdog Entry Count : 0000000A", r"Watchdog Action : 21", r"Instruction : 03", r"Address : 0000000000000630"],
    "FACS": [r"FACS"],
    "XSDT": [r"XSDT"],
}
COMPLAINT = re.compile(r"error|warning|invalid|incorrect|unknown|exceed", re.IGNORECASE)
QUIET = re.compile(r"0 Errors|0 Warnings|Error ?(Code|Source)", re.IGNORECASE)


def complaints(text):
    return [line.strip() for line in text.splitlines() if COMPLAINT.search(line) and not QUIET.search(line)]


def run(*command, cwd):
    return subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=60)


def check(dump, cpus):
    problems = []
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        if run(dump, str(cpus), name, cwd=name).returncode != 0:
            return ["dump_acpi failed"]
        for signature, patterns in EXPECTED.items():
            result = run("iasl", "-d", f"{signature}.aml", cwd=name)
            source = directory / f"{signature}.dsl"
            if result.returncode or not source.exists():
                problems.append(f"{signature}: not disassembled: {result.stdout}")
                continue
            text = source.read_text(errors="replace")
            problems += [f"{signature}: {line}" for line in complaints(result.stdout) + complaints(text)]
            problems += [f"{signature}: nothing matches {p!r}" for p in patterns if not re.search(p, text)]
            again = run("iasl", "-p", f"again-{signature}", f"{signature}.dsl", cwd=name)
            if again.returncode or not re.search(r"0 Errors, 0 Warnings|Compilation successful. 0 Errors", again.stdout):
                problems.append(f"{signature}: does not compile again: {again.stdout}")
            if signature == "APIC" and len(re.findall(r"Processor Enabled : 1", text)) != cpus:
                problems.append(f"APIC: not {cpus} enabled processors")
            if signature == "DSDT" and len(re.findall(r'"ACPI0007"', text)) != cpus:
                problems.append(f"DSDT: not {cpus} processors")
    return problems


def main():
    if not shutil.which("iasl"):
        print("skipped: iasl (package acpica-tools) is not installed")
        return 77
    problems = [f"{cpus} processors: {p}" for cpus in (1, 8) for p in check(os.path.abspath(sys.argv[1]), cpus)]
    print("\n".join(problems) or "passed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

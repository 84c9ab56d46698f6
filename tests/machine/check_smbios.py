#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Has dmidecode read our SMBIOS tables: it must find nothing wrong, and what we meant.

Usage: check_smbios.py DUMP_SMBIOS. Exit status: 0 passed, 1 failed, 77 skipped.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

EXPECTED = [r"SMBIOS 2\.8 present", r"Manufacturer: Tabique", r"Product Name: Virtual Machine", r"Serial Number: S1",
            r"UUID: 01020304-0506-0708-090a-0b0c0d0e0f10", r"System is a virtual machine", r"ACPI is supported",
            r"Chassis Information", r"Status: Populated, Enabled", r"End Of Table"]
COMPLAINT = re.compile(r"broken|invalid|wrong|bad|out of spec|truncated|checksum|<.*>", re.IGNORECASE)
# CPUs, MiB, and what must be read besides.
MACHINES = [(1, 1, [r"Size: 1 MB", r"Range Size: 1 MB"]),
            (8, 5 << 10, [r"Size: 5 GB", r"Maximum Capacity: 5 GB", r"Range Size: 3 GB", r"Starting Address: 0x0*100000000",
                          r"Range Size: 2 GB"]),
            (2, 1 << 20, [r"Number Of Devices: 64", r"Maximum Capacity: 1 TB"])]


def check(dump, cpus, mebibytes, expected):
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/dump"
        if subprocess.run([dump, str(cpus), str(mebibytes), path], check=False).returncode:
            return ["dump_smbios failed"]
        result = subprocess.run(["dmidecode", "--from-dump", path], capture_output=True, text=True, check=False)
    text = result.stdout
    problems = [line.strip() for line in (text + result.stderr).splitlines() if COMPLAINT.search(line)]
    problems += [f"nothing matches {p!r}" for p in EXPECTED + expected if not re.search(p, text)]
    if len(re.findall(r"^Processor Information", text, re.MULTILINE)) != cpus:
        problems.append(f"not {cpus} processors")
    return problems + ([text] if problems else [])


def main():
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if not shutil.which("dmidecode"):
        print("skipped: dmidecode is not installed")
        return 77
    problems = [f"{m[0]} processors, {m[1]} MiB: {p}" for m in MACHINES for p in check(os.path.abspath(sys.argv[1]), *m)]
    print("\n".join(problems) or "passed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

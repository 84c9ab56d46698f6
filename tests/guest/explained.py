# SPDX-License-Identifier: GPL-2.0-or-later
"""What a Debian kernel may complain of in a guest of ours at level "warning" or worse, each with its reason. Whatever
else it says there is a defect. Used by the end-to-end tests, the nested ones and tools/soak."""
import re

EXPLAINED = (
    # The kernel concludes from an AMD model number that the processor could choose its own clock rate, and that only a
    # firmware can have hidden it. No virtual machine has that interface, nor the ACPI object that would describe it.
    r"amd_pstate: The CPPC feature is supported but currently disabled by the BIOS",
    r"Please enable it if your BIOS has the CPPC option\.$",
    r"amd_pstate: the _CPC object is not present",
    # The host gave a vCPU's thread no processor for longer than a timer's work should take: a busy or emulated host.
    r"hrtimer: interrupt took \d+ ns",
    # The same, seen by the clocks' mutual check: it gives that reading up and takes the next.
    r"clocksource: Long readout interval, skipping watchdog check",
    # And by the scheduler's reserve for ordinary tasks: more than a whole period of it had gone by.
    r"sched: DL replenish lagged too much",
)


def unexplained(lines):
    """Those of the kernel's complaints that have no reason here."""
    return [line for line in lines if not any(re.search(e, line) for e in EXPLAINED)]

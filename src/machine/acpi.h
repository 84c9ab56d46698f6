/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The firmware tables that tell a kernel what machine it is on: ACPI 6.5, and PCI Firmware 3.3 for the MCFG.
 * Written into guest memory by the machine before it boots; the kernel finds them by the boot protocol or by
 * scanning.
 */
#ifndef TABIQUE_MACHINE_ACPI_H
#define TABIQUE_MACHINE_ACPI_H

#include <stddef.h>
#include <stdint.h>

struct aml;
struct error;
struct guest_memory;

struct acpi_config {
    unsigned cpus; /* processor n has APIC id n */
};

/* Writes all tables to MAP_FIRMWARE. *rsdp: the address of the root pointer. 0, or -errno with *err when they
 * do not fit. */
int acpi_write(struct guest_memory *memory, const struct acpi_config *config, uint64_t *rsdp,
               struct error **err);

/* The body of the DSDT, behind its header: all devices that can't be found by probing. */
void acpi_write_dsdt(struct aml *a, const struct acpi_config *config);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The firmware tables that tell a kernel what machine it is on: ACPI 6.5, and PCI Firmware 3.3 for the MCFG.
 * The machine writes them into guest memory before it boots, where the kernel finds them by the boot protocol
 * or by scanning; or it gives them to the firmware, which does the same.
 */
#ifndef TABIQUE_MACHINE_ACPI_H
#define TABIQUE_MACHINE_ACPI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml;
struct error;
struct guest_memory;

struct acpi_config {
    unsigned cpus; /* processor n has APIC id n */
};

#define ACPI_RSDP_SIZE 36u
#define ACPI_ALIGNMENT 64u /* of the block: the FACS wants it */

/* A field of 4 or 8 bytes, in the block or the root pointer. It holds an offset in the block; to be added is
 * the block's address. */
struct acpi_pointer {
    bool in_rsdp;
    uint32_t at;
    unsigned size;
};

/* A byte, zero so far, that makes the sum of the bytes around it zero. In order. */
struct acpi_checksum {
    bool in_rsdp;
    uint32_t at, start, length;
};

struct acpi_tables {
    uint8_t *data; /* the block: all tables */
    size_t size;
    uint8_t rsdp[ACPI_RSDP_SIZE]; /* the root pointer, which goes where kernels scan */
    struct acpi_pointer pointers[40];
    unsigned n_pointers;
    struct acpi_checksum checksums[20];
    unsigned n_checksums;
};

/* All tables, to be placed anywhere below 4 GiB. Free with acpi_tables_free. 0 or -errno with *err. */
int acpi_build(struct acpi_tables *out, const struct acpi_config *config, struct error **err);
void acpi_tables_free(struct acpi_tables *tables);

/* The files through which a firmware with QEMU's table loader gets them. */
#define ACPI_FILE_TABLES "etc/acpi/tables"
#define ACPI_FILE_RSDP   "etc/acpi/rsdp"
#define ACPI_FILE_LOADER "etc/table-loader"

/* The loader's script for these tables, *size bytes, to be freed. NULL without memory. */
uint8_t *acpi_loader_script(const struct acpi_tables *tables, size_t *size);

/* For kernels that boot without firmware: writes all tables to MAP_ACPI. *rsdp: the address of the root
 * pointer. 0, or -errno with *err when they do not fit. */
int acpi_write(struct guest_memory *memory, const struct acpi_config *config, uint64_t *rsdp,
               struct error **err);

/* The body of the DSDT, behind its header: all devices that can't be found by probing. */
void acpi_write_dsdt(struct aml *a, const struct acpi_config *config);

#endif

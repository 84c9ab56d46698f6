/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The script by which firmware installs the ACPI tables (QEMU's BIOS linker/loader): commands of 128 bytes,
 * done in order, about files of the firmware configuration device. Called by the machine. No locks.
 *
 *   1 allocate      +4 file, +60 alignment, +64 zone
 *   2 add pointer   +4 file to change, +60 file whose address is added, +116 offset, +120 size
 *   3 add checksum  +4 file, +60 offset of the sum, +64 start, +68 length
 */
#include "machine/acpi.h"

#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

#define COMMAND_SIZE     128u
#define COMMAND_ALLOCATE 1
#define COMMAND_POINTER  2
#define COMMAND_CHECKSUM 3
#define ZONE_HIGH        1 /* anywhere below 4 GiB */
#define ZONE_F_SEGMENT   2 /* where kernels scan for the root pointer */
#define RSDP_ALIGNMENT   16

static void put_name(uint8_t *to, const char *name)
{
    memcpy(to, name, strlen(name));
}

static void put_allocate(uint8_t *c, const char *file, uint32_t alignment, uint8_t zone)
{
    put_le32(c, COMMAND_ALLOCATE);
    put_name(c + 4, file);
    put_le32(c + 60, alignment);
    c[64] = zone;
}

static const char *file_of(bool in_rsdp)
{
    return in_rsdp ? ACPI_FILE_RSDP : ACPI_FILE_TABLES;
}

uint8_t *acpi_loader_script(const struct acpi_tables *tables, size_t *size)
{
    size_t n = 2 + tables->n_pointers + tables->n_checksums;
    uint8_t *script = calloc(n, COMMAND_SIZE), *c = script;

    if (!script)
        return NULL;
    put_allocate(c, ACPI_FILE_TABLES, ACPI_ALIGNMENT, ZONE_HIGH);
    c += COMMAND_SIZE;
    put_allocate(c, ACPI_FILE_RSDP, RSDP_ALIGNMENT, ZONE_F_SEGMENT);
    c += COMMAND_SIZE;
    for (unsigned i = 0; i < tables->n_pointers; i++, c += COMMAND_SIZE) {
        put_le32(c, COMMAND_POINTER);
        put_name(c + 4, file_of(tables->pointers[i].in_rsdp));
        put_name(c + 60, ACPI_FILE_TABLES);
        put_le32(c + 116, tables->pointers[i].at);
        c[120] = (uint8_t)tables->pointers[i].size;
    }
    for (unsigned i = 0; i < tables->n_checksums; i++, c += COMMAND_SIZE) {
        put_le32(c, COMMAND_CHECKSUM);
        put_name(c + 4, file_of(tables->checksums[i].in_rsdp));
        put_le32(c + 60, tables->checksums[i].at);
        put_le32(c + 64, tables->checksums[i].start);
        put_le32(c + 68, tables->checksums[i].length);
    }
    *size = n * COMMAND_SIZE;
    return script;
}

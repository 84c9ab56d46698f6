/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writes the ACPI tables of a machine with CPUS processors to DIR/SIGNATURE.aml, for check_acpi.py. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/guest_memory.h"
#include "machine/acpi.h"

#include <stdio.h>
#include <stdlib.h>

static int dump(const struct guest_memory *memory, const char *dir, uint64_t gpa)
{
    const uint8_t *table = guest_memory_at(memory, gpa, 36);
    char path[4096];

    if (!table || !guest_memory_at(memory, gpa, get_le32(table + 4)))
        return -1;
    snprintf(path, sizeof(path), "%s/%.4s.aml", dir, (const char *)table);
    cleanup_fclose FILE *f = fopen(path, "w");
    if (!f || fwrite(table, get_le32(table + 4), 1, f) != 1)
        return -1;
    if (memcmp(table, "FACP", 4) == 0)
        return dump(memory, dir, get_le32(table + 36)) | dump(memory, dir, get_le64(table + 140));
    return 0;
}

int main(int argc, char **argv)
{
    cleanup_error struct error *err = NULL;
    struct guest_memory *memory = NULL;
    uint64_t rsdp;

    if (argc != 3) {
        fprintf(stderr, "usage: dump_acpi CPUS DIR\n");
        return 2;
    }
    struct acpi_config config = {.cpus = (unsigned)atoi(argv[1])};
    if (guest_memory_create(&memory, 16 << 20, &err) < 0 || acpi_write(memory, &config, &rsdp, &err) < 0) {
        fprintf(stderr, "%s\n", error_message(err));
        return 1;
    }
    int rc = 0;
    uint64_t xsdt_gpa = get_le64((uint8_t *)guest_memory_at(memory, rsdp, 36) + 24);
    const uint8_t *xsdt = guest_memory_at(memory, xsdt_gpa, 36);
    for (uint32_t at = 36; at < get_le32(xsdt + 4); at += 8)
        rc |= dump(memory, argv[2], get_le64(xsdt + at));
    rc |= dump(memory, argv[2], xsdt_gpa);
    guest_memory_free(memory);
    return rc ? 1 : 0;
}

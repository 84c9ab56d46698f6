/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writes the SMBIOS tables of a machine with CPUS processors and MEBIBYTES of RAM to FILE, in the form that
 * `dmidecode --from-dump` reads: the anchor at 0, the structures at 32. For check_smbios.py. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "machine/smbios.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STRUCTURES 32

int main(int argc, char **argv)
{
    struct smbios_tables tables;

    if (argc != 4) {
        fprintf(stderr, "usage: dump_smbios CPUS MEBIBYTES FILE\n");
        return 2;
    }
    static const uint8_t uuid[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    struct smbios_config config = {.cpus = (unsigned)atoi(argv[1]),
                                   .memory = strtoull(argv[2], NULL, 10) << 20,
                                   .uuid = uuid,
                                   .serial = "S1"};
    if (smbios_build(&tables, &config, NULL) < 0)
        return 1;
    uint8_t head[STRUCTURES] = {0};
    memcpy(head, tables.anchor, sizeof(tables.anchor));
    put_le32(head + 24, STRUCTURES);
    /* Both sums were right for address 0. */
    head[21] = (uint8_t)(head[21] - STRUCTURES);
    cleanup_fclose FILE *f = fopen(argv[3], "w");
    bool ok = f && fwrite(head, sizeof(head), 1, f) == 1 && fwrite(tables.data, tables.size, 1, f) == 1;
    smbios_tables_free(&tables);
    return ok ? 0 : 1;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The SMBIOS tables (DSP0134, 2.8): what machine this is, for people and for software that looks (dmidecode,
 * systemd, cloud-init). Written into guest memory before a kernel is booted, or given to the firmware.
 */
#ifndef TABIQUE_MACHINE_SMBIOS_H
#define TABIQUE_MACHINE_SMBIOS_H

#include <stddef.h>
#include <stdint.h>

struct error;
struct guest_memory;

struct smbios_config {
    uint64_t memory;     /* bytes of RAM */
    unsigned cpus;       /* each in a socket of its own, as CPUID tells */
    const uint8_t *uuid; /* 16 bytes in the order in which they are printed; NULL: the machine has none */
    const char *serial;  /* of the machine, or NULL */
};

#define SMBIOS_ANCHOR_SIZE 31u

struct smbios_tables {
    uint8_t *data; /* the structures, one after the other */
    size_t size;
    uint8_t anchor[SMBIOS_ANCHOR_SIZE]; /* points to address 0 so far */
};

/* The files through which firmware gets them. */
#define SMBIOS_FILE_TABLES "etc/smbios/smbios-tables"
#define SMBIOS_FILE_ANCHOR "etc/smbios/smbios-anchor"

/* Free with smbios_tables_free. 0 or -errno with *err. */
int smbios_build(struct smbios_tables *out, const struct smbios_config *config, struct error **err);
void smbios_tables_free(struct smbios_tables *tables);

/* For kernels that boot without firmware: the anchor at MAP_SMBIOS, where kernels scan, the structures behind
 * it. 0 or -errno with *err. */
int smbios_write(struct guest_memory *memory, const struct smbios_config *config, struct error **err);

#endif

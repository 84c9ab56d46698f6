/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the boot loaders share: their table row, memory for boot data, and the states that kernels begin in.
 */
#ifndef TABIQUE_MACHINE_BOOT_PRIV_H
#define TABIQUE_MACHINE_BOOT_PRIV_H

#include "machine/boot.h"

#include <stdbool.h>

struct boot_loader {
    const char *name;
    /* Whether the contents are of this format. Must hold for every input, also a malformed one, for which
     * load then gives the reason. */
    bool (*probe)(const uint8_t *data, size_t size);
    int (*load)(const struct boot_request *request, struct cpu_state *entry, struct error **err);
};

extern const struct boot_loader boot_bzimage, boot_pvh, boot_multiboot;

/* Memory for what the loader hands over, from MAP_BOOT_DATA up. */
struct boot_area {
    struct guest_memory *memory;
    uint64_t next;
};

void boot_area_init(struct boot_area *area, struct guest_memory *memory);
/* `size` zeroed bytes, aligned to `align` (a power of two): the host pointer and, in *gpa, the address. NULL
 * with *err when the area is full, which only long command lines or many modules can do. */
void *boot_area_alloc(struct boot_area *area, size_t size, size_t align, uint64_t *gpa, struct error **err);
/* A copy of the string, which the guest finds at *gpa. */
int boot_area_string(struct boot_area *area, const char *text, uint64_t *gpa, struct error **err);

/*
 * Whether a kernel may have [gpa, gpa+size): RAM, outside of the boot data, the firmware's tables and the
 * BIOS data area. 0, or -errno with *err naming `what`.
 */
int boot_check_range(const struct guest_memory *memory, uint64_t gpa, uint64_t size, const char *what,
                     struct error **err);

/*
 * Puts files behind each other, each page-aligned, from `from` upwards into RAM below 4 GiB. gpas[i] receives
 * their addresses. 0, or -errno with *err telling what does not fit.
 */
int boot_place_modules(const struct boot_request *request, uint64_t from, const struct boot_file *files,
                       size_t n, uint64_t *gpas, struct error **err);

/* The initrd, if any, and the modules, as one list. *files is to be freed. */
int boot_all_modules(const struct boot_request *request, struct boot_file **files, size_t *n,
                     struct error **err);

/* 32-bit protected mode, flat segments of 4 GiB with CS 0x10 and the data segments 0x18, no paging,
 * interrupts off. */
int boot_state_protected(struct cpu_state *state, struct boot_area *area, uint64_t entry, struct error **err);
/* 64-bit mode, the first 4 GiB mapped one to one, the same selectors, interrupts off. */
int boot_state_long(struct cpu_state *state, struct boot_area *area, uint64_t entry, struct error **err);

#endif

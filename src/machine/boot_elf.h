/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ELF executables (System V ABI, chapters 4 and 5), 32-bit or 64-bit, little-endian, for x86: what PVH and
 * Multiboot kernels come in. Reads only headers that have been checked against the file's size.
 */
#ifndef TABIQUE_MACHINE_BOOT_ELF_H
#define TABIQUE_MACHINE_BOOT_ELF_H

#include "device/guest_memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

struct elf_file {
    const uint8_t *data;
    size_t size;
    bool is_64bit;
    uint16_t machine;
    uint64_t entry; /* virtual, as the header has it */
    uint64_t ph_offset;
    unsigned ph_count;
    unsigned ph_size;
};

struct elf_segment {
    uint32_t type;
    uint64_t offset, vaddr, paddr, file_size, memory_size, align;
};

#define ELF_PT_LOAD       1u
#define ELF_PT_NOTE       4u
#define ELF_MACHINE_386   3u
#define ELF_MACHINE_AMD64 62u

bool elf_is(const uint8_t *data, size_t size);

/* Checks the file header and that all program headers are in the file. 0, or -ENOEXEC with *err. */
int elf_open(struct elf_file *elf, const uint8_t *data, size_t size, struct error **err);

/* Program header `index` < ph_count. */
void elf_segment_get(const struct elf_file *elf, unsigned index, struct elf_segment *segment);

/*
 * Copies all loadable segments to their physical addresses and clears what they leave uninitialized; checks
 * all of them first. *end: the first address behind them. *entry_gpa, where not NULL: the header's entry
 * point as a physical address. 0, or -errno with *err.
 */
int elf_load(const struct elf_file *elf, struct guest_memory *memory, uint64_t *end, uint64_t *entry_gpa,
             struct error **err);

/* Whether the physical address is in a loadable segment. */
bool elf_covers(const struct elf_file *elf, uint64_t gpa);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where things are in the guest-physical address space: what the machine, its firmware tables and the boot
 * loaders agree on. No state.
 *
 *          0 ..     4FF  interrupt vectors, BIOS data area
 *        500 ..   7FFFF  free (kernels may load here)
 *      80000 ..   9FBFF  boot data: GDT, page tables, boot information, command line
 *      9FC00 ..   9FFFF  extended BIOS data area
 *      E0000 ..   EFFFF  ACPI tables
 *      F0000 ..   FFFFF  SMBIOS tables
 *     100000 .. BFFFFFFF RAM at most; kernels load here
 *   C0000000 .. DFFFFFFF window for PCI functions' memory
 *   E0000000 .. E00FFFFF PCI Express configuration space (ECAM) of bus 0
 *   F0000000 .. FEBFFFFF the second window for PCI functions' memory
 *   FEC00000             I/O APIC
 *   FEE00000             local APICs
 *   FF000000 .. FFFFFFFF firmware, at the end; its last 256 KiB are at C0000 too, in RAM, in place of the
 * tables tables 100000000 ..          the rest of RAM
 */
#ifndef TABIQUE_MACHINE_MEMORY_MAP_H
#define TABIQUE_MACHINE_MEMORY_MAP_H

#include <stdint.h>

struct guest_memory;

#define MAP_BDA           0x400ull
#define MAP_LOW_FREE      0x1000ull
#define MAP_BOOT_DATA     0x80000ull
#define MAP_BOOT_DATA_END 0x9fc00ull
#define MAP_EBDA          0x9fc00ull
#define MAP_EBDA_END      0xa0000ull
#define MAP_FIRMWARE      0xe0000ull
#define MAP_FIRMWARE_END  0x100000ull
#define MAP_ACPI          0xe0000ull
#define MAP_ACPI_END      0xf0000ull
#define MAP_SMBIOS        0xf0000ull
#define MAP_SMBIOS_END    0x100000ull
#define MAP_HIGH_MEMORY   0x100000ull /* "high" to the 8086: from here up kernels load */
#define MAP_IOAPIC        0xfec00000ull
#define MAP_LAPIC         0xfee00000ull

/* The types of ranges as E820 (and after it Multiboot and PVH) number them. */
enum memory_range_type { MEMORY_RAM = 1, MEMORY_RESERVED = 2 };

struct memory_range {
    uint64_t base, size;
    enum memory_range_type type;
};

#define MEMORY_MAP_MAX 8

/* Sorted by address, without overlaps. */
struct memory_map {
    unsigned n;
    struct memory_range ranges[MEMORY_MAP_MAX];
};

/* What a firmware would report about a machine with this RAM. */
void memory_map_build(struct memory_map *map, const struct guest_memory *memory);

#endif

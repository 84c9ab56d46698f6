/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The memory map that every boot protocol hands to its kernel. Called by the machine when it boots. No locks.
 */
#include "machine/memory_map.h"

#include "device/guest_memory.h"
#include "device/pci.h"

static void add(struct memory_map *map, uint64_t base, uint64_t end, enum memory_range_type type)
{
    if (end > base)
        map->ranges[map->n++] = (struct memory_range){.base = base, .size = end - base, .type = type};
}

void memory_map_build(struct memory_map *map, const struct guest_memory *memory)
{
    uint64_t low_end = memory->blocks[0].gpa + memory->blocks[0].size;

    map->n = 0;
    add(map, 0, MAP_EBDA, MEMORY_RAM);
    add(map, MAP_EBDA, MAP_EBDA_END, MEMORY_RESERVED);
    add(map, MAP_FIRMWARE, MAP_FIRMWARE_END, MEMORY_RESERVED);
    add(map, MAP_HIGH_MEMORY, low_end, MEMORY_RAM);
    /* Kernels trust ECAM only where the firmware says that it is not free memory. */
    add(map, PCI_ECAM_BASE, PCI_ECAM_BASE + PCI_ECAM_SIZE, MEMORY_RESERVED);
    for (unsigned i = 1; i < memory->n_blocks && !memory->blocks[i].rom; i++)
        add(map, memory->blocks[i].gpa, memory->blocks[i].gpa + memory->blocks[i].size, MEMORY_RAM);
}

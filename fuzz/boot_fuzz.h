/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the fuzz targets of the boot loaders share: a machine with RAM on both sides of the PCI hole, and what
 * must hold after each kernel, taken or refused. The first byte of the input chooses what is booted with the
 * kernel, the rest is the kernel's file.
 */
#ifndef TABIQUE_FUZZ_BOOT_FUZZ_H
#define TABIQUE_FUZZ_BOOT_FUZZ_H

#include "base/error.h"
#include "machine/boot_priv.h"
#include "require.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FUZZ_RAM (4ull << 20)

/* Not from guest_memory_create: 3 GiB of low RAM would be needed before any is above 4 GiB. Exactly as large
 * as it says, so that the sanitizer sees one byte too much. */
static inline struct guest_memory *fuzz_memory(void)
{
    static struct guest_memory memory = {.size = 2 * FUZZ_RAM, .fd = -1, .n_blocks = 2};

    if (!memory.blocks[0].host) {
        memory.blocks[0] = (struct guest_memory_block){.gpa = 0, .size = FUZZ_RAM, .host = malloc(FUZZ_RAM)};
        memory.blocks[1] =
            (struct guest_memory_block){.gpa = GUEST_HIGH_RAM, .size = FUZZ_RAM, .host = malloc(FUZZ_RAM)};
        REQUIRE(memory.blocks[0].host && memory.blocks[1].host);
    }
    return &memory;
}

static inline int fuzz_boot(const struct boot_loader *loader, const uint8_t *data, size_t size)
{
    static const uint8_t bytes[3000] = {0x42};
    static const struct boot_file modules[2] = {{bytes, 1, "first", "its arguments"},
                                                {bytes, 2000, "second", NULL}};
    static const char marker[] = "firmware's own";
    struct cpu_state entry = {0};
    cleanup_error struct error *err = NULL;

    if (size < 1)
        return 0;
    struct guest_memory *memory = fuzz_memory();
    struct boot_request request = {
        .kernel = {data + 1, size - 1, "kernel", NULL},
        .modules = modules,
        .n_modules = data[0] & 3 ? 0 : 2,
        .command_line = data[0] & 4 ? "console=ttyS0" : "",
        .memory = memory,
        .rsdp = MAP_FIRMWARE,
    };
    if (data[0] & 8)
        request.initrd = (struct boot_file){bytes, sizeof(bytes), "initrd", NULL};
    memory_map_build(&request.map, memory);
    memcpy(guest_memory_at(memory, MAP_FIRMWARE, sizeof(marker)), marker, sizeof(marker));

    bool mine = loader->probe(request.kernel.data, request.kernel.size);
    /* A loader must also stand what is not its format. */
    int rc = loader->load(&request, &entry, &err);
    REQUIRE(memcmp(guest_memory_at(memory, MAP_FIRMWARE, sizeof(marker)), marker, sizeof(marker)) == 0);
    if (rc == 0) {
        REQUIRE(mine || loader == &boot_bzimage);
        REQUIRE(guest_memory_at(memory, entry.rip, 1));
        REQUIRE(guest_memory_at(memory, entry.gdt.base, entry.gdt.limit + 1u));
        REQUIRE(!err);
    } else {
        REQUIRE(rc < 0 && err && *error_message(err));
    }
    /* Through the front door as well: it must find a loader or give a reason. */
    cleanup_error struct error *reason = NULL;
    REQUIRE(boot_load(&request, &entry, &reason) == 0 || reason);
    return 0;
}

#endif

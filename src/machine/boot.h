/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Puts a kernel into guest memory and says in which state the first processor begins. The format is known by
 * its contents; each is one row of a table in boot.c. Called by the machine at power-on and after each reset;
 * all input comes from files that nobody has checked.
 */
#ifndef TABIQUE_MACHINE_BOOT_H
#define TABIQUE_MACHINE_BOOT_H

#include "device/guest_memory.h"
#include "engine/cpu_state.h"
#include "machine/memory_map.h"

#include <stddef.h>
#include <stdint.h>

struct error;

struct boot_file {
    const uint8_t *data;
    size_t size;
    const char *name;         /* for messages */
    const char *command_line; /* a module's, or NULL */
};

struct boot_request {
    struct boot_file kernel;
    struct boot_file initrd; /* data NULL: none */
    const struct boot_file *modules;
    size_t n_modules;
    const char *command_line; /* never NULL */
    struct guest_memory *memory;
    struct memory_map map;
    uint64_t rsdp; /* address of the ACPI root pointer, 0 if there is none */
};

/*
 * Loads everything. *entry is the state of processor 0 on success. On failure -errno with *err, which says
 * what is wrong with which file and what to do; guest memory may be partly written then. Touches nothing but
 * guest memory.
 */
int boot_load(const struct boot_request *request, struct cpu_state *entry, struct error **err);

#endif

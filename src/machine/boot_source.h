/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The files that a machine boots from: opened once at its start and read again at each reset, so that later
 * neither paths nor permissions matter. Called by vm.c.
 */
#ifndef TABIQUE_MACHINE_BOOT_SOURCE_H
#define TABIQUE_MACHINE_BOOT_SOURCE_H

#include "machine/boot.h"

#include <stdint.h>

struct error;

struct boot_source {
    int fd;
    uint64_t size;
    char *name;         /* the path, for messages */
    char *command_line; /* a module's, or NULL */
};

#define BOOT_SOURCE_NONE ((struct boot_source){.fd = -1})

/*
 * Opens `path`, which `what` ("kernel", "initrd") names in messages. A pipe is read to its end, up to `limit`
 * bytes. 0; or -errno with *err, *out untouched.
 */
int boot_source_open(struct boot_source *out, const char *what, const char *path, uint64_t limit,
                     struct error **err);
/* One of vm_config's modules: "PATH" or "PATH=COMMAND LINE". */
int boot_source_open_module(struct boot_source *out, const char *module, uint64_t limit, struct error **err);

/* Reads all of it into memory that boot_source_unload frees. 0 or -errno with *err. */
int boot_source_load(const struct boot_source *source, struct boot_file *file, struct error **err);
void boot_source_unload(struct boot_file *file);

/* Closes; fine for BOOT_SOURCE_NONE. */
void boot_source_close(struct boot_source *source);

#endif

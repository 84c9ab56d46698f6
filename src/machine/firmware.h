/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Machines that start like real ones: with a firmware in ROM, which finds the boot disk and sets the hardware
 * up itself. Here is where the firmware comes from and what it is told. Called by vm.c (where the file is)
 * and machine.c (the rest).
 */
#ifndef TABIQUE_MACHINE_FIRMWARE_H
#define TABIQUE_MACHINE_FIRMWARE_H

#include "machine/boot.h"

#include <stdint.h>

struct device;
struct error;
struct guest_memory;

/* The name under which a person asks for the distribution's SeaBIOS. */
#define FIRMWARE_BIOS "bios"

/* The file that `name` stands for: itself, but FIRMWARE_BIOS is looked for where distributions put it. NULL
 * with *err, which says what to install. */
const char *firmware_path(const char *name, struct error **err);

/* Whether a file of this size can be a flat firmware image. 0, or -EINVAL with *err. */
int firmware_check_size(uint64_t size, struct error **err);

/* Puts the image into the ROM, and its end below 1 MiB, in RAM, where it runs in real mode. The ROM has the
 * image's size. 0 or -errno with *err. */
int firmware_load(struct guest_memory *memory, const struct boot_file *image, struct error **err);

struct firmware_config {
    const struct guest_memory *memory;
    unsigned cpus;
    const unsigned *boot_slots; /* PCI slots of the disks to be tried, the first one first */
    size_t n_boot_slots;
};

/* Fills the firmware configuration device: the machine's tables, its memory, what to boot from. 0 or -errno
 * with *err. */
int firmware_describe(struct device *fw_cfg, const struct firmware_config *config, struct error **err);

#endif

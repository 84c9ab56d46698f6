/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the machine fills the firmware configuration device with: numbered items, and files that a directory
 * names. The machine clears and fills it before each start; vCPUs are paused then.
 */
#ifndef TABIQUE_DEVICE_FW_CFG_H
#define TABIQUE_DEVICE_FW_CFG_H

#include "device/device.h"

#include <stddef.h>
#include <stdint.h>

struct error;

/* Its ports: the selector, the data port, and from +4 the address of a DMA request (ACPI's _CRS). */
#define FW_CFG_BASE 0x510u
#define FW_CFG_SIZE 12u

/* Items that firmware knows by their number. */
#define FW_CFG_RAM_SIZE      0x0003u
#define FW_CFG_NO_GRAPHICS   0x0004u
#define FW_CFG_CPUS          0x0005u
#define FW_CFG_BOOT_MENU     0x000eu
#define FW_CFG_MAX_CPUS      0x000fu
#define FW_CFG_IRQ0_OVERRIDE 0x8002u

#define FW_CFG_FILE_NAME 56u /* with the zero at its end */
#define FW_CFG_MAX_FILES 32u

extern const struct device_class fw_cfg_class;

/* Forgets all items and files but what the device itself has: signature, version, directory. */
void fw_cfg_clear(struct device *device);

/* A numbered item of `size` little-endian bytes (1 to 8). 0 or -errno with *err. */
int fw_cfg_add_number(struct device *device, unsigned key, uint64_t value, unsigned size, struct error **err);

/* A file; its bytes are copied. 0 or -errno with *err. */
int fw_cfg_add_file(struct device *device, const char *name, const void *data, size_t size,
                    struct error **err);

#endif

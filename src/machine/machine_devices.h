/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which devices a machine gets, and each one's configuration. Called by machine.c. */
#ifndef TABIQUE_MACHINE_MACHINE_DEVICES_H
#define TABIQUE_MACHINE_MACHINE_DEVICES_H

#include "device/uart16550.h"
#include "device/virtio/console.h"
#include "machine/machine.h"

#include <stdbool.h>

/* All configurations of one machine; must stay while its devices are created. */
struct device_configs {
    const struct machine_config *machine;
    struct uart16550_config serial;
    struct virtio_console_config virtio_console;
};

void device_configs_init(struct device_configs *configs, const struct machine_config *machine);

/* Whether the machine has a device of this class. Then *config is what its create wants (NULL: defaults). */
bool device_configs_find(const struct device_configs *configs, const struct device_class *class,
                         const void **config);

#endif

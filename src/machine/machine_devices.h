/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which devices a machine gets, and each one's configuration. Called by machine.c. */
#ifndef TABIQUE_MACHINE_MACHINE_DEVICES_H
#define TABIQUE_MACHINE_MACHINE_DEVICES_H

#include "device/cmos.h"
#include "device/firmware_log.h"
#include "device/uart16550.h"
#include "device/virtio/balloon.h"
#include "device/virtio/console.h"
#include "device/virtio/port.h"
#include "machine/machine.h"

#include <stddef.h>

/* All configurations of one machine; must stay while its devices are created. */
struct device_configs {
    const struct machine_config *machine;
    struct cmos_config cmos;
    struct firmware_log_config firmware_log;
    struct uart16550_config serial;
    struct virtio_console_config virtio_console;
    struct virtio_port_config agent;
    struct virtio_balloon_config virtio_balloon;
    struct watchdog_config watchdog;
};

void device_configs_init(struct device_configs *configs, const struct machine_config *machine);

/* How many devices of this class the machine has. */
size_t device_configs_count(const struct device_configs *configs, const struct device_class *class);
/* What the create of the i-th of them wants (NULL: defaults). */
const void *device_configs_get(const struct device_configs *configs, const struct device_class *class,
                               size_t i);

#endif

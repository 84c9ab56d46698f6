/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which devices a machine gets: all of devices.def, but those that have to be asked for. No state, no locks.
 */
#include "machine/machine_devices.h"

#include "device/debug_exit.h"

void device_configs_init(struct device_configs *configs, const struct machine_config *machine)
{
    *configs = (struct device_configs){
        .machine = machine,
        .serial = {.backend = machine->serial},
        .virtio_console = {.backend = machine->console, .columns = machine->columns, .rows = machine->rows},
    };
}

bool device_configs_find(const struct device_configs *configs, const struct device_class *class,
                         const void **config)
{
    *config = NULL;
    if (class == &uart16550_class)
        *config = &configs->serial;
    if (class == &virtio_console_class)
        *config = &configs->virtio_console;
    return class != &debug_exit_class || configs->machine->debug_exit;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which devices a machine gets: all of devices.def, but those that have to be asked for. No state, no locks.
 */
#include "machine/machine_devices.h"

#include "device/virtio/console.h"

#include <string.h>

void device_configs_init(struct device_configs *configs, const struct machine_config *machine)
{
    *configs = (struct device_configs){
        .machine = machine,
        .virtio_console = {.backend = machine->console},
    };
}

bool device_configs_find(const struct device_configs *configs, const struct device_class *class,
                         const void **config)
{
    *config = NULL;
    if (class == &virtio_console_class)
        *config = &configs->virtio_console;
    if (strcmp(class->name, "debug-exit") == 0)
        return configs->machine->debug_exit;
    return true;
}

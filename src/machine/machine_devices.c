/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which devices a machine gets: all of devices.def, but those that have to be asked for. No state, no locks.
 */
#include "machine/machine_devices.h"

#include "device/debug_exit.h"
#include "device/virtio/block.h"
#include "device/virtio/net.h"
#include "device/virtio/vsock.h"
#include "machine/agent.h"

void device_configs_init(struct device_configs *configs, const struct machine_config *machine)
{
    *configs = (struct device_configs){
        .machine = machine,
        .serial = {.backend = machine->serial},
        .firmware_log = {.fd = machine->firmware_log},
        .cmos = {.cpus = machine->cpus},
        .virtio_console = {.backend = machine->console, .columns = machine->columns, .rows = machine->rows},
        .agent = {.backend = machine->agent, .name = AGENT_PORT},
        .virtio_balloon = {.target = machine->balloon},
        .watchdog = {.action = machine->watchdog},
    };
}

size_t device_configs_count(const struct device_configs *configs, const struct device_class *class)
{
    if (class == &debug_exit_class)
        return configs->machine->debug_exit;
    if (class == &virtio_vsock_class)
        return configs->machine->vsock != NULL;
    if (class == &virtio_block_class)
        return configs->machine->n_disks;
    if (class == &virtio_port_class)
        return configs->machine->agent != NULL;
    if (class == &firmware_log_class)
        return configs->machine->firmware_log >= 0;
    if (class == &virtio_net_class)
        return configs->machine->n_nets;
    return 1;
}

const void *device_configs_get(const struct device_configs *configs, const struct device_class *class,
                               size_t i)
{
    if (class == &uart16550_class)
        return &configs->serial;
    if (class == &firmware_log_class)
        return &configs->firmware_log;
    if (class == &cmos_class)
        return &configs->cmos;
    if (class == &virtio_console_class)
        return &configs->virtio_console;
    if (class == &virtio_port_class)
        return &configs->agent;
    if (class == &virtio_block_class)
        return &configs->machine->disks[i];
    if (class == &virtio_vsock_class)
        return configs->machine->vsock;
    if (class == &virtio_balloon_class)
        return &configs->virtio_balloon;
    if (class == &watchdog_class)
        return &configs->watchdog;
    if (class == &virtio_net_class)
        return &configs->machine->nets[i];
    return NULL;
}

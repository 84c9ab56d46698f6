/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The debug-exit port, with which test kernels end their machine: a write of 1 to 4 bytes asks for
 * MACHINE_DEBUG_EXIT with the value written, truncated to the bits of an int. No state, so no locks.
 */
#include "device/debug_exit.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>

#define DEFAULT_PORT 0xf4
#define PORTS        4

struct debug_exit {
    struct device device;
    struct io_region region;
};

static uint64_t debug_exit_read(void *opaque, uint64_t offset, unsigned size)
{
    return UINT64_MAX;
}

static void debug_exit_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct debug_exit *d = opaque;
    const struct device_env *env = d->device.env;
    env->event(env->opaque, MACHINE_DEBUG_EXIT, (int)(uint32_t)value);
}

static void debug_exit_reset(struct device *device)
{
}

static void debug_exit_destroy(struct device *device)
{
    struct debug_exit *d = (struct debug_exit *)device;
    io_space_remove(device->env->pio, &d->region);
    free(d);
}

static int debug_exit_create(struct device **out, const struct device_env *env, const void *config,
                             struct error **err)
{
    const struct debug_exit_config *c = config;
    struct debug_exit *d = calloc(1, sizeof(*d));
    if (!d)
        return error_set_errno(err, ENOMEM, "debug exit");
    d->device = (struct device){&debug_exit_class, env};
    d->region = (struct io_region){
        "debug-exit", c && c->port ? c->port : DEFAULT_PORT, PORTS, debug_exit_read, debug_exit_write, d};
    int rc = io_space_add(env->pio, &d->region);
    if (rc) {
        free(d);
        return error_set_errno(err, -rc, "debug exit");
    }
    *out = &d->device;
    return 0;
}

const struct device_class debug_exit_class = {
    .name = "debug-exit",
    .summary = "port through which a test kernel ends the machine",
    .create = debug_exit_create,
    .reset = debug_exit_reset,
    .destroy = debug_exit_destroy,
};

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The panic notifier: a port of one byte (found by its entry in the DSDT) to which the guest's kernel writes
 * when it panics. Reading tells which of the bits mean something here. A guest that hands over to a crash
 * kernel says so with a bit of its own, and runs on; that is passed on once, for a guest may say it as often
 * as it likes. Used by vCPU threads; its one flag is atomic.
 */
#include "device/pvpanic.h"

#include "base/error.h"
#include "device/device.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

struct pvpanic {
    struct device device;
    struct io_region region;
    atomic_bool crash_told; /* since power-on */
};

static uint64_t pvpanic_read(void *opaque, uint64_t offset, unsigned size)
{
    return PVPANIC_PANICKED | PVPANIC_CRASH_LOADED;
}

static void pvpanic_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pvpanic *p = opaque;
    const struct device_env *env = p->device.env;

    if (value & PVPANIC_CRASH_LOADED) {
        if (!atomic_exchange(&p->crash_told, true))
            env->event(env->opaque, MACHINE_CRASH_LOADED, 0);
    } else if (value & PVPANIC_PANICKED) {
        env->event(env->opaque, MACHINE_PANIC, 0);
    }
}

static void pvpanic_reset(struct device *device)
{
    atomic_store(&((struct pvpanic *)device)->crash_told, false);
}

static void pvpanic_destroy(struct device *device)
{
    struct pvpanic *p = (struct pvpanic *)device;

    io_space_remove(device->env->pio, &p->region);
    free(p);
}

extern const struct device_class pvpanic_class;

static int pvpanic_create(struct device **out, const struct device_env *env, const void *config,
                          struct error **err)
{
    struct pvpanic *p = calloc(1, sizeof(*p));

    if (!p)
        return error_set_errno(err, ENOMEM, "pvpanic");
    p->device = (struct device){.class = &pvpanic_class, .env = env};
    p->region = (struct io_region){
        .name = "pvpanic",
        .base = PVPANIC_PORT,
        .size = 1,
        .read = pvpanic_read,
        .write = pvpanic_write,
        .opaque = p,
    };
    int rc = io_space_add(env->pio, &p->region);
    if (rc) {
        free(p);
        return error_set_errno(err, -rc, "pvpanic");
    }
    *out = &p->device;
    return 0;
}

const struct device_class pvpanic_class = {
    .name = "pvpanic",
    .summary = "port to which the guest's kernel tells that it panics",
    .create = pvpanic_create,
    .reset = pvpanic_reset,
    .destroy = pvpanic_destroy,
};

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The port (0x402) that SeaBIOS and OVMF log to on QEMU's machines. A read tells firmware that it is there.
 * Bytes are written to a file line by line; what the file does not take is lost, since a guest must not wait
 * for it. Used by vCPU threads, `lock` covers the line.
 */
#include "device/firmware_log.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define PORT    0x402
#define PRESENT 0xe9

struct firmware_log {
    struct device device;
    struct io_region region;
    pthread_mutex_t lock;
    int fd;
    size_t used;
    uint8_t line[256];
};

static void flush_locked(struct firmware_log *f)
{
    ssize_t done = write(f->fd, f->line, f->used);

    (void)done;
    f->used = 0;
}

static uint64_t firmware_log_read(void *opaque, uint64_t offset, unsigned size)
{
    return PRESENT;
}

static void firmware_log_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct firmware_log *f = opaque;
    LOCK_SCOPE(&f->lock);

    f->line[f->used++] = (uint8_t)value;
    if ((uint8_t)value == '\n' || f->used == sizeof(f->line))
        flush_locked(f);
}

static void firmware_log_reset(struct device *device)
{
    struct firmware_log *f = container_of(device, struct firmware_log, device);
    LOCK_SCOPE(&f->lock);

    flush_locked(f);
}

static void firmware_log_destroy(struct device *device)
{
    struct firmware_log *f = container_of(device, struct firmware_log, device);

    io_space_remove(device->env->pio, &f->region);
    flush_locked(f);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

static int firmware_log_create(struct device **out, const struct device_env *env, const void *config,
                               struct error **err)
{
    const struct firmware_log_config *c = config;
    struct firmware_log *f = calloc(1, sizeof(*f));

    if (!f)
        return error_set_errno(err, ENOMEM, "firmware log");
    f->device = (struct device){.class = &firmware_log_class, .env = env};
    f->fd = c ? c->fd : -1;
    pthread_mutex_init(&f->lock, NULL);
    f->region = (struct io_region){
        .name = "firmware-log",
        .base = PORT,
        .size = 1,
        .read = firmware_log_read,
        .write = firmware_log_write,
        .opaque = f,
    };
    int rc = io_space_add(env->pio, &f->region);
    if (rc) {
        pthread_mutex_destroy(&f->lock);
        free(f);
        return error_set_errno(err, -rc, "firmware log");
    }
    *out = &f->device;
    return 0;
}

const struct device_class firmware_log_class = {
    .name = "firmware-log",
    .summary = "port that firmware logs to",
    .create = firmware_log_create,
    .reset = firmware_log_reset,
    .destroy = firmware_log_destroy,
};

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A watchdog: once started, the guest must be heard of before the count is over, or the machine is told. The
 * registers (watchdog.h) are our own; the ACPI table WDAT describes them to a driver that every Debian kernel
 * has, the smallest cloud kernels too. Registers are used by vCPU threads, the timer by the loop's; `lock`
 * covers all state.
 */
#include "device/watchdog.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/io_bytes.h"
#include "host/loop.h"

#include <errno.h>

#define COUNT_NS      (WATCHDOG_COUNT_MS * 1000000ull)
#define DEFAULT_COUNT 300u

struct watchdog {
    struct device device;
    struct io_region region;
    struct loop_timer *timer;
    enum watchdog_action action;
    pthread_mutex_t lock;
    bool runs, expired, restarted, held;
    uint8_t count[4];  /* little-endian, as the guest wrote it */
    uint64_t deadline; /* while it runs */
    uint64_t left;     /* ns, while it runs and is held */
};

static uint32_t count_locked(const struct watchdog *w)
{
    uint32_t count = get_le32(w->count);

    return count < 1 ? 1 : count > WATCHDOG_COUNT_MAX ? WATCHDOG_COUNT_MAX : count;
}

static void start_locked(struct watchdog *w)
{
    w->runs = true;
    w->deadline = loop_now() + count_locked(w) * COUNT_NS;
    loop_timer_arm(w->timer, w->deadline);
}

void watchdog_hold(struct device *device, bool hold)
{
    struct watchdog *w = container_of(device, struct watchdog, device);
    uint64_t now = loop_now();
    LOCK_SCOPE(&w->lock);

    if (hold == w->held)
        return;
    w->held = hold;
    if (!w->runs)
        return;
    if (hold) {
        w->left = w->deadline > now ? w->deadline - now : 0;
        loop_timer_disarm(w->timer);
    } else {
        w->deadline = now + w->left;
        loop_timer_arm(w->timer, w->deadline);
    }
}

static void stop_locked(struct watchdog *w)
{
    w->runs = false;
    loop_timer_disarm(w->timer);
}

static uint32_t left_locked(const struct watchdog *w)
{
    uint64_t now = loop_now();

    return !w->runs            ? count_locked(w)
           : now < w->deadline ? (uint32_t)((w->deadline - now + COUNT_NS - 1) / COUNT_NS)
                               : 0;
}

static void on_timer(void *opaque)
{
    struct watchdog *w = opaque;
    const struct device_env *env = w->device.env;

    pthread_mutex_lock(&w->lock);
    /* It may have been stopped or begun anew while this call was on its way. */
    bool expired = w->runs && !w->held && loop_now() >= w->deadline;
    if (expired) {
        w->runs = false;
        w->expired = true;
    }
    pthread_mutex_unlock(&w->lock);
    if (expired)
        env->event(env->opaque, MACHINE_WATCHDOG, (int)w->action);
}

static uint8_t read_byte(void *opaque, unsigned offset)
{
    struct watchdog *w = opaque;
    uint8_t image[WATCHDOG_SIZE] = {0};
    LOCK_SCOPE(&w->lock);

    if (offset >= WATCHDOG_SIZE)
        return 0;
    image[0] = w->runs ? WATCHDOG_RUNS : 0;
    put_le32(image + 4, count_locked(w));
    put_le32(image + 12, left_locked(w));
    image[16] = w->restarted ? WATCHDOG_RESTARTED : 0;
    return image[offset];
}

static void write_byte(void *opaque, unsigned offset, uint8_t value)
{
    struct watchdog *w = opaque;
    LOCK_SCOPE(&w->lock);

    if (offset == 0) {
        if (!(value & WATCHDOG_RUNS))
            stop_locked(w);
        else if (!w->runs)
            start_locked(w);
    } else if (offset >= 4 && offset < 8) {
        /* Counts from the next reload, as drivers expect that set the time and then say that they live. */
        w->count[offset - 4] = value;
    } else if (offset == 8 && value & 1 && w->runs) {
        start_locked(w);
    } else if (offset == 16 && value & WATCHDOG_RESTARTED) {
        w->restarted = false;
    }
}

static uint64_t watchdog_read(void *opaque, uint64_t offset, unsigned size)
{
    return io_read_bytes(read_byte, opaque, offset, size);
}

static void watchdog_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    io_write_bytes(write_byte, opaque, offset, size, value);
}

static void power_on_locked(struct watchdog *w)
{
    stop_locked(w);
    w->restarted = w->expired && w->action == WATCHDOG_RESET;
    w->expired = false;
    put_le32(w->count, DEFAULT_COUNT);
}

static void watchdog_reset(struct device *device)
{
    struct watchdog *w = container_of(device, struct watchdog, device);
    LOCK_SCOPE(&w->lock);

    power_on_locked(w);
}

static void watchdog_destroy(struct device *device)
{
    struct watchdog *w = container_of(device, struct watchdog, device);

    io_space_remove(device->env->pio, &w->region);
    loop_timer_free(w->timer);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static int watchdog_create(struct device **out, const struct device_env *env, const void *config,
                           struct error **err)
{
    const struct watchdog_config *how = config;
    struct watchdog *w = calloc(1, sizeof(*w));

    if (!w)
        return error_set_errno(err, ENOMEM, "watchdog");
    w->device = (struct device){.class = &watchdog_class, .env = env};
    w->action = how ? how->action : WATCHDOG_RESET;
    pthread_mutex_init(&w->lock, NULL);
    w->region = (struct io_region){
        .name = "watchdog",
        .base = WATCHDOG_PORT,
        .size = WATCHDOG_SIZE,
        .read = watchdog_read,
        .write = watchdog_write,
        .opaque = w,
    };
    w->timer = loop_timer_new(env->loop, on_timer, w);
    if (w->timer)
        power_on_locked(w);
    int rc = w->timer ? io_space_add(env->pio, &w->region) : -ENOMEM;
    if (rc) {
        loop_timer_free(w->timer);
        pthread_mutex_destroy(&w->lock);
        free(w);
        return error_set_errno(err, -rc, "watchdog");
    }
    *out = &w->device;
    return 0;
}

const struct device_class watchdog_class = {
    .name = "watchdog",
    .summary = "watchdog that the ACPI table WDAT describes",
    .create = watchdog_create,
    .reset = watchdog_reset,
    .destroy = watchdog_destroy,
};

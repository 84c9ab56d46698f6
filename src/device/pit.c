/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Programmable interval timer: 8254 (Intel 8254 data sheet, order 231164) at ports 0x40-0x43, and system
 * control port B (0x61), through which channel 2 drives the speaker. Channel 0 is interrupt 0. Registers are
 * used by vCPU threads, the timer by the loop's; one mutex, held over irq_set.
 *
 * The counters themselves are in pit_channel.c; here are the ports, the interrupt and the speaker's gate.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/device.h"
#include "device/io_bytes.h"
#include "device/pit_channel.h"
#include "host/loop.h"

#include <errno.h>

#define PORT_CONTROL 3u
#define CHANNELS     3u
#define SPEAKER      2u

/* Control word: channel 7-6, access 5-4, mode 3-1, BCD 0 */
#define READ_BACK           3u /* in the channel's place */
#define READ_BACK_NO_COUNT  0x20u
#define READ_BACK_NO_STATUS 0x10u

/* Port B */
#define B_GATE2    0x01u
#define B_SPEAKER  0x02u
#define B_WRITABLE 0x0fu
#define B_REFRESH  0x10u
#define B_OUT2     0x20u
#define REFRESH_NS 15085u

/* A guest could ask for a million interrupts a second; the event loop would have time for nothing else. */
#define MIN_PERIOD_NS 50000u

struct pit {
    struct device device;
    struct io_region region, port_b_region;
    struct loop_timer *timer;
    pthread_mutex_t lock;
    struct pit_channel channel[CHANNELS];
    uint8_t port_b;
    bool irq_level;
    uint64_t edges; /* of channel 0's output that were told */
};

/* ---- channel 0's interrupt; the lock is held from here on ---- */

static void set_irq(struct pit *p, bool level)
{
    const struct device_env *env = p->device.env;
    if (level == p->irq_level)
        return;
    p->irq_level = level;
    env->irq_set(env->opaque, 0, level);
}

/* Edges that were missed are lost, as on a PC whose processor was not fast enough. */
static void update_irq(struct pit *p)
{
    const struct pit_channel *c = &p->channel[0];
    uint64_t now = loop_now();
    uint64_t edges = pit_channel_edges(c, now);

    if (edges > p->edges) {
        set_irq(p, false);
        set_irq(p, true);
        p->edges = edges;
    }
    uint64_t next = pit_channel_edge_time(c, edges);
    if (!next)
        loop_timer_disarm(p->timer);
    else
        loop_timer_arm(p->timer, next > now + MIN_PERIOD_NS ? next : now + MIN_PERIOD_NS);
}

/* A control word or a new count: the output starts again. In mode 0 it is low until the count is over. */
static void restart_irq(struct pit *p)
{
    p->edges = 0;
    set_irq(p, pit_channel_output(&p->channel[0], loop_now()));
    update_irq(p);
}

static void on_timer(void *opaque)
{
    struct pit *p = opaque;
    LOCK_SCOPE(&p->lock);
    update_irq(p);
}

/* ---- registers ---- */

static void read_back(struct pit *p, uint8_t value, uint64_t now)
{
    for (unsigned i = 0; i < CHANNELS; i++) {
        if (!(value & (2u << i)))
            continue;
        if (!(value & READ_BACK_NO_COUNT))
            pit_channel_latch_count(&p->channel[i], now);
        if (!(value & READ_BACK_NO_STATUS))
            pit_channel_latch_status(&p->channel[i], now);
    }
}

static void write_control(struct pit *p, uint8_t value)
{
    uint64_t now = loop_now();
    unsigned n = value >> 6, access = value >> 4 & 3, mode = value >> 1 & 7;

    if (n == READ_BACK) {
        read_back(p, value, now);
        return;
    }
    struct pit_channel *c = &p->channel[n];
    if (access == PIT_LATCH) {
        pit_channel_latch_count(c, now);
        return;
    }
    pit_channel_control(c, access, mode, value & 1);
    if (n == 0)
        restart_irq(p);
}

static void write_count(struct pit *p, unsigned n, uint8_t value)
{
    pit_channel_write(&p->channel[n], value, loop_now());
    if (n == 0)
        restart_irq(p);
}

static uint8_t read_byte(void *opaque, unsigned offset)
{
    struct pit *p = opaque;
    return offset < CHANNELS ? pit_channel_read(&p->channel[offset], loop_now()) : 0xff;
}

static void write_byte(void *opaque, unsigned offset, uint8_t value)
{
    struct pit *p = opaque;
    if (offset < CHANNELS)
        write_count(p, offset, value);
    else if (offset == PORT_CONTROL)
        write_control(p, value);
}

static uint64_t pit_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pit *p = opaque;
    LOCK_SCOPE(&p->lock);
    return io_read_bytes(read_byte, p, offset, size);
}

static void pit_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pit *p = opaque;
    LOCK_SCOPE(&p->lock);
    io_write_bytes(write_byte, p, offset, size, value);
}

static uint64_t port_b_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pit *p = opaque;
    LOCK_SCOPE(&p->lock);
    uint64_t now = loop_now();
    return p->port_b | (now / REFRESH_NS & 1 ? B_REFRESH : 0) |
           (pit_channel_output(&p->channel[SPEAKER], now) ? B_OUT2 : 0);
}

static void port_b_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pit *p = opaque;
    LOCK_SCOPE(&p->lock);
    p->port_b = value & B_WRITABLE;
    pit_channel_set_gate(&p->channel[SPEAKER], value & B_GATE2, loop_now());
}

/* ---- the device ---- */

extern const struct device_class pit_class;

/* The chip has no reset: its state is unknown until it is programmed. Ours says nothing until then. */
static void reset_locked(struct pit *p)
{
    for (unsigned i = 0; i < CHANNELS; i++)
        pit_channel_reset(&p->channel[i], i != SPEAKER);
    p->port_b = 0;
    p->edges = 0;
    set_irq(p, false);
    loop_timer_disarm(p->timer);
}

static void pit_reset(struct device *device)
{
    struct pit *p = container_of(device, struct pit, device);
    LOCK_SCOPE(&p->lock);
    reset_locked(p);
}

static void pit_destroy(struct device *device)
{
    struct pit *p = container_of(device, struct pit, device);
    io_space_remove(device->env->pio, &p->region);
    io_space_remove(device->env->pio, &p->port_b_region);
    loop_timer_free(p->timer);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static int pit_create(struct device **out, const struct device_env *env, const void *config,
                      struct error **err)
{
    struct pit *p = calloc(1, sizeof(*p));
    if (!p)
        return error_set_errno(err, ENOMEM, "interval timer");
    p->device = (struct device){&pit_class, env};
    pthread_mutex_init(&p->lock, NULL);
    p->region = (struct io_region){"pit", 0x40, 4, pit_read, pit_write, p};
    p->port_b_region = (struct io_region){"system-control-b", 0x61, 1, port_b_read, port_b_write, p};
    p->timer = loop_timer_new(env->loop, on_timer, p);
    int rc = p->timer ? 0 : -ENOMEM;
    if (rc == 0) {
        pthread_mutex_lock(&p->lock);
        reset_locked(p);
        pthread_mutex_unlock(&p->lock);
        rc = io_space_add(env->pio, &p->region);
    }
    if (rc == 0)
        rc = io_space_add(env->pio, &p->port_b_region);
    if (rc) {
        pit_destroy(&p->device);
        return error_set_errno(err, -rc, "interval timer");
    }
    *out = &p->device;
    return 0;
}

const struct device_class pit_class = {
    .name = "pit",
    .summary = "interval timer (8254) and speaker gate",
    .create = pit_create,
    .reset = pit_reset,
    .destroy = pit_destroy,
};

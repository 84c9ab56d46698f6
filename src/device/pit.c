/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Programmable interval timer: 8254 (Intel 8254 data sheet, order 231164) at ports 0x40-0x43, and system
 * control port B (0x61), through which channel 2 drives the speaker. Channel 0 is interrupt 0. Registers are
 * used by vCPU threads, the timer by the loop's; one mutex, held over irq_set.
 *
 * Nothing ticks: counter and output are computed from the time since the count was loaded. A new count starts
 * a new period at once, where the chip would end the present one in modes 2 and 3.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/device.h"
#include "device/io_bytes.h"
#include "host/loop.h"

#include <errno.h>

#define PIT_HZ        1193182u
#define NS_PER_SECOND 1000000000u

#define PORT_CONTROL 3u
#define CHANNELS     3u
#define SPEAKER      2u

/* Control word: channel 7-6, access 5-4, mode 3-1, BCD 0 */
#define ACCESS_LATCH        0u
#define ACCESS_LOW          1u
#define ACCESS_HIGH         2u
#define ACCESS_BOTH         3u
#define READ_BACK           3u /* in the channel's place */
#define READ_BACK_NO_COUNT  0x20u
#define READ_BACK_NO_STATUS 0x10u
#define STATUS_OUT          0x80u
#define STATUS_NULL         0x40u

/* Port B */
#define B_GATE2    0x01u
#define B_SPEAKER  0x02u
#define B_WRITABLE 0x0fu
#define B_REFRESH  0x10u
#define B_OUT2     0x20u
#define REFRESH_NS 15085u

/* A guest could ask for a million interrupts a second; the event loop would have time for nothing else. */
#define MIN_PERIOD_NS 50000u

struct channel {
    uint8_t mode; /* 0-5 */
    uint8_t access;
    bool bcd;
    bool gate;
    bool loaded;                /* a count has been written since the control word */
    bool armed;                 /* modes 1 and 5: triggered by the gate */
    bool write_high, read_high; /* which byte comes next in ACCESS_BOTH */
    uint8_t low;                /* the byte that waits for its other half */
    uint32_t count;             /* 1-65536; of the present run */
    uint32_t reload;            /* the count of the next one, in modes 1 and 5 */
    uint64_t start; /* loop_now() when counting began; while the gate is low in modes 0 and 4: ticks so far */
    bool held;
    bool count_latched, status_latched;
    uint16_t latch;
    uint8_t status;
};

struct pit {
    struct device device;
    struct io_region region, port_b_region;
    struct loop_timer *timer;
    pthread_mutex_t lock;
    struct channel channel[CHANNELS];
    uint8_t port_b;
    bool irq_level;
    uint64_t edges; /* of channel 0's output that were told */
};

/* ---- a channel at a time; the lock is held from here on ---- */

static uint64_t ticks_of(uint64_t ns)
{
    return (uint64_t)((unsigned __int128)ns * PIT_HZ / NS_PER_SECOND);
}

/* Rounded up: the tick has happened at that time. */
static uint64_t ns_of(uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * NS_PER_SECOND + PIT_HZ - 1) / PIT_HZ);
}

static uint64_t elapsed(const struct channel *c, uint64_t now)
{
    return c->held ? c->start : ticks_of(now - c->start);
}

/* Whether it counts (or, in the one-shot modes, has counted) since it was loaded. */
static bool counts(const struct channel *c)
{
    if (!c->loaded)
        return false;
    if (c->mode == 1 || c->mode == 5)
        return c->armed;
    return c->gate || c->mode == 0 || c->mode == 4;
}

static bool output(const struct channel *c, uint64_t now)
{
    if (!counts(c))
        return c->mode != 0;
    uint64_t t = elapsed(c, now);
    switch (c->mode) {
    case 0:
    case 1:
        return t >= c->count;
    case 2:
        return t % c->count != c->count - 1 || c->count == 1;
    case 3:
        return t % c->count < (c->count + 1) / 2;
    default: /* a strobe of one tick */
        return t != c->count;
    }
}

static uint16_t counter(const struct channel *c, uint64_t now)
{
    uint32_t modulus = c->bcd ? 10000 : 65536;
    uint32_t value;

    if (!counts(c)) {
        value = c->count;
    } else {
        uint64_t t = elapsed(c, now);
        switch (c->mode) {
        case 2:
            value = c->count - (uint32_t)(t % c->count);
            break;
        case 3: /* by twos, over each half of the period, from an even number */
            t %= c->count;
            if (t >= (c->count + 1) / 2)
                t -= (c->count + 1) / 2;
            value = (c->count & ~1u) - (uint32_t)(2 * t);
            break;
        default: /* goes on below zero */
            value = (uint32_t)((c->count + modulus - t % modulus) % modulus);
        }
    }
    value %= modulus;
    if (!c->bcd)
        return (uint16_t)value;
    return (uint16_t)(value / 1000 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10);
}

static uint32_t count_of(const struct channel *c, uint16_t written)
{
    uint32_t value = written;
    if (c->bcd)
        value =
            (written >> 12) * 1000u + (written >> 8 & 15) * 100u + (written >> 4 & 15) * 10u + (written & 15);
    if (!value)
        return c->bcd ? 10000 : 65536;
    return value;
}

static void load(struct channel *c, uint16_t written, uint64_t now)
{
    c->reload = count_of(c, written);
    /* A one-shot goes on with its present run; the new count is for the next trigger. */
    if (c->loaded && c->armed && (c->mode == 1 || c->mode == 5))
        return;
    c->count = c->reload;
    c->loaded = true;
    c->held = !c->gate && (c->mode == 0 || c->mode == 4);
    c->start = c->held ? 0 : now;
}

static void set_gate(struct channel *c, bool gate, uint64_t now)
{
    bool rises = gate && !c->gate;
    bool falls = !gate && c->gate;

    switch (c->mode) {
    case 0:
    case 4: /* the gate stops the counter */
        if (falls && c->loaded && !c->held) {
            c->start = elapsed(c, now);
            c->held = true;
        } else if (rises && c->held) {
            c->start = now - ns_of(c->start);
            c->held = false;
        }
        break;
    default: /* its rise starts from the count again */
        if (rises && c->loaded) {
            c->count = c->reload;
            c->start = now;
            c->armed = true;
        }
    }
    c->gate = gate;
}

/* ---- channel 0's interrupt ---- */

/* How many rising edges the output has had since it was loaded. */
static uint64_t edges_until(const struct channel *c, uint64_t now)
{
    if (!counts(c))
        return 0;
    uint64_t t = elapsed(c, now);
    switch (c->mode) {
    case 0:
        return t >= c->count;
    case 2:
    case 3:
        return t / c->count;
    case 4:
        return t > c->count;
    default: /* the gate of channel 0 is always up, so nothing triggers */
        return 0;
    }
}

/* When the edge after `edges` comes; 0: never. */
static uint64_t edge_time(const struct channel *c, uint64_t edges)
{
    if (!counts(c))
        return 0;
    switch (c->mode) {
    case 0:
        return edges ? 0 : c->start + ns_of(c->count);
    case 2:
    case 3:
        return c->start + ns_of((edges + 1) * c->count);
    case 4:
        return edges ? 0 : c->start + ns_of(c->count + 1);
    default:
        return 0;
    }
}

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
    const struct channel *c = &p->channel[0];
    uint64_t now = loop_now();
    uint64_t edges = edges_until(c, now);

    if (edges > p->edges) {
        set_irq(p, false);
        set_irq(p, true);
        p->edges = edges;
    }
    uint64_t next = edge_time(c, edges);
    if (!next)
        loop_timer_disarm(p->timer);
    else
        loop_timer_arm(p->timer, next > now + MIN_PERIOD_NS ? next : now + MIN_PERIOD_NS);
}

/* A control word or a new count: the output starts again. In mode 0 it is low until the count is over. */
static void restart_irq(struct pit *p)
{
    p->edges = 0;
    set_irq(p, output(&p->channel[0], loop_now()));
    update_irq(p);
}

static void on_timer(void *opaque)
{
    struct pit *p = opaque;
    LOCK_SCOPE(&p->lock);
    update_irq(p);
}

/* ---- registers ---- */

static void latch_count(struct channel *c, uint64_t now)
{
    if (c->count_latched)
        return;
    c->latch = counter(c, now);
    c->count_latched = true;
}

static void latch_status(struct channel *c, uint64_t now)
{
    if (c->status_latched)
        return;
    c->status = (uint8_t)((output(c, now) ? STATUS_OUT : 0) | (c->loaded ? 0 : STATUS_NULL) | c->access << 4 |
                          c->mode << 1 | c->bcd);
    c->status_latched = true;
}

static void read_back(struct pit *p, uint8_t value, uint64_t now)
{
    for (unsigned i = 0; i < CHANNELS; i++) {
        if (!(value & (2u << i)))
            continue;
        if (!(value & READ_BACK_NO_COUNT))
            latch_count(&p->channel[i], now);
        if (!(value & READ_BACK_NO_STATUS))
            latch_status(&p->channel[i], now);
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
    struct channel *c = &p->channel[n];
    if (access == ACCESS_LATCH) {
        latch_count(c, now);
        return;
    }
    c->access = (uint8_t)access;
    c->mode = (uint8_t)(mode > 5 ? mode - 4 : mode); /* 6 and 7 are 2 and 3 */
    c->bcd = value & 1;
    c->loaded = c->armed = c->held = false;
    c->write_high = c->read_high = false;
    c->count_latched = c->status_latched = false;
    if (n == 0)
        restart_irq(p);
}

static void write_count(struct pit *p, unsigned n, uint8_t value)
{
    struct channel *c = &p->channel[n];
    uint64_t now = loop_now();

    switch (c->access) {
    case ACCESS_LOW:
        load(c, value, now);
        break;
    case ACCESS_HIGH:
        load(c, (uint16_t)(value << 8), now);
        break;
    default:
        c->write_high = !c->write_high;
        if (c->write_high) {
            c->low = value;
            if (c->mode == 0) /* the first byte stops the count */
                c->loaded = false;
        } else {
            load(c, (uint16_t)(value << 8 | c->low), now);
        }
    }
    if (n == 0)
        restart_irq(p);
}

static uint8_t read_count(struct channel *c)
{
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    uint16_t value = c->count_latched ? c->latch : counter(c, loop_now());
    switch (c->access) {
    case ACCESS_LOW:
        c->count_latched = false;
        return (uint8_t)value;
    case ACCESS_HIGH:
        c->count_latched = false;
        return (uint8_t)(value >> 8);
    default:
        c->read_high = !c->read_high;
        if (c->read_high)
            return (uint8_t)value;
        c->count_latched = false;
        return (uint8_t)(value >> 8);
    }
}

static uint8_t read_byte(void *opaque, unsigned offset)
{
    struct pit *p = opaque;
    return offset < CHANNELS ? read_count(&p->channel[offset]) : 0xff;
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
           (output(&p->channel[SPEAKER], now) ? B_OUT2 : 0);
}

static void port_b_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pit *p = opaque;
    LOCK_SCOPE(&p->lock);
    p->port_b = value & B_WRITABLE;
    set_gate(&p->channel[SPEAKER], value & B_GATE2, loop_now());
}

/* ---- the device ---- */

extern const struct device_class pit_class;

/* The chip has no reset: its state is unknown until it is programmed. Ours says nothing until then. */
static void reset_locked(struct pit *p)
{
    memset(p->channel, 0, sizeof(p->channel));
    for (unsigned i = 0; i < CHANNELS; i++) {
        struct channel *c = &p->channel[i];
        c->access = ACCESS_BOTH;
        c->mode = 3;
        c->count = c->reload = 65536;
        c->gate = i != SPEAKER;
    }
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

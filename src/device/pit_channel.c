/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A counter of the interval timer as a function of time. Called by pit.c, with its lock held. */
#include "device/pit_channel.h"

#define NS_PER_SECOND 1000000000u
#define STATUS_OUT    0x80u
#define STATUS_NULL   0x40u

static uint64_t ticks_of(uint64_t ns)
{
    return (uint64_t)((unsigned __int128)ns * PIT_HZ / NS_PER_SECOND);
}

/* Rounded up: the tick has happened at that time. */
static uint64_t ns_of(uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * NS_PER_SECOND + PIT_HZ - 1) / PIT_HZ);
}

static uint64_t elapsed(const struct pit_channel *c, uint64_t now)
{
    return c->held ? c->start : ticks_of(now - c->start);
}

/* Whether it counts (or, in the one-shot modes, has counted) since it was loaded. */
static bool counts(const struct pit_channel *c)
{
    if (!c->loaded)
        return false;
    if (c->mode == 1 || c->mode == 5)
        return c->armed;
    return c->gate || c->mode == 0 || c->mode == 4;
}

bool pit_channel_output(const struct pit_channel *c, uint64_t now)
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

static uint16_t counter(const struct pit_channel *c, uint64_t now)
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

static uint32_t count_of(const struct pit_channel *c, uint16_t written)
{
    uint32_t value = written;
    if (c->bcd)
        value =
            (written >> 12) * 1000u + (written >> 8 & 15) * 100u + (written >> 4 & 15) * 10u + (written & 15);
    if (!value)
        return c->bcd ? 10000 : 65536;
    return value;
}

static void load(struct pit_channel *c, uint16_t written, uint64_t now)
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

void pit_channel_set_gate(struct pit_channel *c, bool gate, uint64_t now)
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

uint64_t pit_channel_edges(const struct pit_channel *c, uint64_t now)
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
    default:
        return 0;
    }
}

uint64_t pit_channel_edge_time(const struct pit_channel *c, uint64_t edges)
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

void pit_channel_latch_count(struct pit_channel *c, uint64_t now)
{
    if (c->count_latched)
        return;
    c->latch = counter(c, now);
    c->count_latched = true;
}

void pit_channel_latch_status(struct pit_channel *c, uint64_t now)
{
    if (c->status_latched)
        return;
    c->status = (uint8_t)((pit_channel_output(c, now) ? STATUS_OUT : 0) | (c->loaded ? 0 : STATUS_NULL) |
                          c->access << 4 | c->mode << 1 | c->bcd);
    c->status_latched = true;
}

uint8_t pit_channel_read(struct pit_channel *c, uint64_t now)
{
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    uint16_t value = c->count_latched ? c->latch : counter(c, now);
    switch (c->access) {
    case PIT_LOW:
        c->count_latched = false;
        return (uint8_t)value;
    case PIT_HIGH:
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

void pit_channel_write(struct pit_channel *c, uint8_t value, uint64_t now)
{
    switch (c->access) {
    case PIT_LOW:
        load(c, value, now);
        break;
    case PIT_HIGH:
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
}

void pit_channel_control(struct pit_channel *c, enum pit_access access, unsigned mode, bool bcd)
{
    c->access = (uint8_t)access;
    c->mode = (uint8_t)(mode > 5 ? mode - 4 : mode); /* 6 and 7 are 2 and 3 */
    c->bcd = bcd;
    c->loaded = c->armed = c->held = false;
    c->write_high = c->read_high = false;
    c->count_latched = c->status_latched = false;
}

void pit_channel_reset(struct pit_channel *c, bool gate)
{
    *c = (struct pit_channel){.access = PIT_BOTH, .mode = 3, .count = 65536, .reload = 65536, .gate = gate};
}

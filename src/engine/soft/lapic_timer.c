/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The local APIC's timer: one-shot, periodic and TSC-deadline mode (SDM vol. 3A 11.5.4). Registers are
 * written by the vCPU's thread, expiry comes in the event loop's; `lock` is between them and is not held
 * while an interrupt is raised.
 *
 * Nothing ticks: the counter's value is computed from the time of its expiry.
 */
#include "engine/soft/lapic_priv.h"

#include "base/cleanup.h"

#include <errno.h>

#define NS_PER_COUNT (1000000000u / LAPIC_TIMER_HZ)

/* A guest could ask for a billion expiries a second. The event loop, and so every device, would have time for
 * nothing else. */
#define MIN_PERIOD_NS 50000u

/* Later than this is never (and keeps sums of times in range). */
#define MAX_DELAY_NS (1ull << 61)

static uint64_t counts_to_ns(const struct lapic_timer *t, uint64_t counts)
{
    return counts * t->divider * NS_PER_COUNT;
}

static uint64_t period_ns(const struct lapic_timer *t)
{
    uint64_t period = counts_to_ns(t, t->initial);
    return period < MIN_PERIOD_NS ? MIN_PERIOD_NS : period;
}

/* Arms the host's timer for the deadline. True: it is over already. The caller holds the lock. */
static bool arm_deadline_locked(struct lapic *l)
{
    struct lapic_timer *t = &l->timer;
    uint64_t now = l->bus->callbacks.read_tsc(l->bus->callbacks.opaque, l->id);

    if (t->deadline <= now)
        return true;
    /* Rounded up: an expiry that comes too early costs another round through the loop. */
    unsigned __int128 ns =
        ((unsigned __int128)(t->deadline - now) * 1000000000u) / l->bus->callbacks.tsc_hz + 1;
    loop_timer_arm(t->timer, loop_now() + (ns < MAX_DELAY_NS ? (uint64_t)ns : MAX_DELAY_NS));
    return false;
}

/* Whether the timer has expired; sets it up for what comes next. The caller holds the lock. */
static bool expire_locked(struct lapic *l)
{
    struct lapic_timer *t = &l->timer;

    if (t->mode == TIMER_DEADLINE) {
        if (!t->deadline || !arm_deadline_locked(l))
            return false;
        t->deadline = 0;
        return true;
    }
    if (!t->running)
        return false;
    uint64_t now = loop_now();
    if (now < t->expires) { /* set anew while the callback was on its way */
        loop_timer_arm(t->timer, t->expires);
        return false;
    }
    if (t->mode == TIMER_PERIODIC) {
        /* Periods that were missed are lost: their interrupts would have merged in IRR as well. */
        uint64_t period = period_ns(t);
        t->expires += period;
        if (t->expires <= now)
            t->expires += (now - t->expires) / period * period + period;
        loop_timer_arm(t->timer, t->expires);
    } else {
        t->running = false;
    }
    return true;
}

static void on_timer(void *opaque)
{
    struct lapic *l = opaque;

    pthread_mutex_lock(&l->timer.lock);
    bool fire = expire_locked(l);
    pthread_mutex_unlock(&l->timer.lock);
    if (fire)
        lapic_fire_lvt(l, LVT_INDEX(REG_LVT_TIMER));
}

int lapic_timer_init(struct lapic *l)
{
    pthread_mutex_init(&l->timer.lock, NULL);
    l->timer.timer = loop_timer_new(l->bus->loop, on_timer, l);
    if (!l->timer.timer) {
        pthread_mutex_destroy(&l->timer.lock);
        return -ENOMEM;
    }
    return 0;
}

void lapic_timer_fini(struct lapic *l)
{
    loop_timer_free(l->timer.timer);
    pthread_mutex_destroy(&l->timer.lock);
}

static void stop_locked(struct lapic_timer *t)
{
    t->running = false;
    t->deadline = 0;
    loop_timer_disarm(t->timer);
}

void lapic_timer_reset(struct lapic *l)
{
    struct lapic_timer *t = &l->timer;
    LOCK_SCOPE(&t->lock);

    stop_locked(t);
    t->mode = TIMER_ONE_SHOT;
    t->initial = 0;
    t->divider = 2;
}

/* One-shot and periodic share the counter, which goes on; to or from deadline mode stops the timer. */
void lapic_timer_set_mode(struct lapic *l, uint32_t mode)
{
    struct lapic_timer *t = &l->timer;
    LOCK_SCOPE(&t->lock);

    if (t->mode == mode)
        return;
    if (t->mode == TIMER_DEADLINE || mode == TIMER_DEADLINE) {
        stop_locked(t);
        t->initial = 0;
    }
    t->mode = mode;
}

void lapic_timer_set_initial(struct lapic *l, uint32_t count)
{
    struct lapic_timer *t = &l->timer;
    LOCK_SCOPE(&t->lock);

    if (t->mode == TIMER_DEADLINE)
        return;
    stop_locked(t);
    t->initial = count;
    if (!count)
        return;
    t->running = true;
    t->expires = loop_now() + (t->mode == TIMER_PERIODIC ? period_ns(t) : counts_to_ns(t, count));
    loop_timer_arm(t->timer, t->expires);
}

static uint32_t remaining_locked(struct lapic_timer *t)
{
    uint64_t now = loop_now();

    if (t->mode == TIMER_DEADLINE || !t->running || t->expires <= now)
        return 0;
    uint64_t counts = (t->expires - now) / NS_PER_COUNT / t->divider;
    return counts < t->initial ? (uint32_t)counts : t->initial;
}

/* The divider's code has its third bit at position 3: 0 is by 2, ... 10 by 128, 11 by 1 (figure 11-10). */
void lapic_timer_set_divide(struct lapic *l, uint32_t divide)
{
    struct lapic_timer *t = &l->timer;
    uint32_t code = (divide & 3) | (divide & 8) >> 1;
    LOCK_SCOPE(&t->lock);

    uint32_t left = remaining_locked(t);
    t->divider = 1u << ((code + 1) & 7);
    if (!t->running)
        return;
    t->expires = loop_now() + counts_to_ns(t, left);
    loop_timer_arm(t->timer, t->expires);
}

uint32_t lapic_timer_initial(struct lapic *l)
{
    LOCK_SCOPE(&l->timer.lock);
    return l->timer.initial;
}

uint32_t lapic_timer_current(struct lapic *l)
{
    LOCK_SCOPE(&l->timer.lock);
    return remaining_locked(&l->timer);
}

/* 0 disarms; a deadline in the past fires at once. */
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
    struct lapic_timer *t = &l->timer;
    bool fire = false;

    pthread_mutex_lock(&t->lock);
    if (t->mode == TIMER_DEADLINE) {
        t->deadline = tsc;
        if (!tsc) {
            loop_timer_disarm(t->timer);
        } else if (arm_deadline_locked(l)) {
            stop_locked(t);
            fire = true;
        }
    }
    pthread_mutex_unlock(&t->lock);
    if (fire)
        lapic_fire_lvt(l, LVT_INDEX(REG_LVT_TIMER));
}

uint64_t lapic_timer_deadline(struct lapic *l)
{
    LOCK_SCOPE(&l->timer.lock);
    return l->timer.mode == TIMER_DEADLINE ? l->timer.deadline : 0;
}

void lapic_tsc_changed(struct lapic *l)
{
    uint64_t deadline = lapic_timer_deadline(l);
    if (deadline)
        lapic_timer_set_deadline(l, deadline);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The event loop of tests: a list of timers and a clock that is a variable. One thread, no locks. */
#include "fake_loop.h"

#include <stddef.h>
#include <stdlib.h>

struct loop_timer {
    void (*fn)(void *opaque);
    void *opaque;
    uint64_t when; /* 0: not armed */
    struct loop_timer *next;
};

struct loop_watch {
    char unused;
};

struct loop_call {
    void (*fn)(void *opaque);
    void *opaque;
    struct loop_call *next;
};

struct loop {
    uint64_t now;
    uint64_t fired;
    struct loop_timer *timers;
    struct loop_call *calls;
};

/* Not 0, so that a time that was never set is noticed. */
#define BEGIN 1000000000

static struct loop the_loop = {.now = BEGIN};

struct loop *fake_loop(void)
{
    return &the_loop;
}

static void run_calls(void)
{
    while (the_loop.calls) {
        struct loop_call *call = the_loop.calls;
        the_loop.calls = call->next;
        call->fn(call->opaque);
        free(call);
    }
}

/* Runs what is due until `end`. */
static void run_until(uint64_t end)
{
    for (;;) {
        run_calls();
        struct loop_timer *first = NULL;
        for (struct loop_timer *t = the_loop.timers; t; t = t->next) {
            if (t->when && t->when <= end && (!first || t->when < first->when))
                first = t;
        }
        if (!first)
            break;
        if (first->when > the_loop.now)
            the_loop.now = first->when;
        first->when = 0;
        the_loop.fired++;
        first->fn(first->opaque);
    }
}

void fake_loop_advance(uint64_t ns)
{
    uint64_t end = the_loop.now + ns;

    run_until(end);
    the_loop.now = end;
}

void fake_loop_stall(uint64_t ns)
{
    the_loop.now += ns;
    run_until(the_loop.now);
}

void fake_loop_restart(void)
{
    the_loop.now = BEGIN;
    the_loop.fired = 0;
}

uint64_t fake_loop_fired(void)
{
    return the_loop.fired;
}

unsigned fake_loop_timers(void)
{
    unsigned n = 0;
    for (struct loop_timer *t = the_loop.timers; t; t = t->next)
        n++;
    return n;
}

unsigned fake_loop_armed(void)
{
    unsigned n = 0;
    for (struct loop_timer *t = the_loop.timers; t; t = t->next)
        n += t->when != 0;
    return n;
}

/* ---- host/loop.h ---- */

int loop_create(struct loop **out, struct error **err)
{
    *out = &the_loop;
    return 0;
}

void loop_free(struct loop *loop)
{
}

int loop_run(struct loop *loop)
{
    return 0;
}

void loop_stop(struct loop *loop, int status)
{
}

int loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
    struct loop_call *call = calloc(1, sizeof(*call));
    *call = (struct loop_call){.fn = fn, .opaque = opaque};
    struct loop_call **at = &the_loop.calls;
    while (*at)
        at = &(*at)->next;
    *at = call;
    return 0;
}

int loop_watch_add(struct loop *loop, int fd, uint32_t events, void (*fn)(void *opaque, uint32_t events),
                   void *opaque, struct loop_watch **out)
{
    *out = calloc(1, sizeof(**out));
    return 0;
}

int loop_watch_modify(struct loop_watch *watch, uint32_t events)
{
    return 0;
}

void loop_watch_remove(struct loop_watch *watch)
{
    free(watch);
}

uint64_t loop_now(void)
{
    return the_loop.now;
}

struct loop_timer *loop_timer_new(struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
    struct loop_timer *t = calloc(1, sizeof(*t));
    *t = (struct loop_timer){.fn = fn, .opaque = opaque, .next = the_loop.timers};
    the_loop.timers = t;
    return t;
}

void loop_timer_arm(struct loop_timer *timer, uint64_t when)
{
    timer->when = when ? when : 1;
}

void loop_timer_disarm(struct loop_timer *timer)
{
    timer->when = 0;
}

void loop_timer_free(struct loop_timer *timer)
{
    if (!timer)
        return;
    struct loop_timer **at = &the_loop.timers;
    while (*at != timer)
        at = &(*at)->next;
    *at = timer->next;
    free(timer);
}

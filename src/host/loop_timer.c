/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event loop's timers: a binary heap over one timerfd. vCPU threads arm theirs thousands of times a
 * second, nearly always for later than the earliest one or again for a later time than before, so the timerfd
 * is set lazily: only to an earlier time. When it then fires with nothing due, the loop sets it anew. Takes
 * the loop's mutex.
 */
#include "base/cleanup.h"
#include "host/loop_priv.h"

#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

static void place(struct loop *loop, size_t slot, struct loop_timer *t)
{
    loop->heap[slot] = t;
    t->slot = slot;
}

/* Lets the timer in `slot` rise or sink to where it belongs. */
static void restore_order(struct loop *loop, size_t slot)
{
    struct loop_timer *t = loop->heap[slot];

    while (slot > 0 && loop->heap[(slot - 1) / 2]->when > t->when) {
        place(loop, slot, loop->heap[(slot - 1) / 2]);
        slot = (slot - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * slot + 1;

        if (child >= loop->n_armed)
            break;
        if (child + 1 < loop->n_armed && loop->heap[child + 1]->when < loop->heap[child]->when)
            child++;
        if (loop->heap[child]->when >= t->when)
            break;
        place(loop, slot, loop->heap[child]);
        slot = child;
    }
    place(loop, slot, t);
}

static void disarm_locked(struct loop_timer *t)
{
    struct loop *loop = t->loop;
    size_t slot = t->slot;

    if (slot == LOOP_TIMER_IDLE)
        return;
    t->slot = LOOP_TIMER_IDLE;
    loop->n_armed--;
    if (slot < loop->n_armed) {
        place(loop, slot, loop->heap[loop->n_armed]);
        restore_order(loop, slot);
    }
}

/* Sets the timerfd if it would fire too late for the earliest timer. */
static void set_timer_fd_locked(struct loop *loop)
{
    if (!loop->n_armed || loop->heap[0]->when >= loop->timer_fd_when)
        return;
    uint64_t when = loop->heap[0]->when ? loop->heap[0]->when : 1; /* 0 would switch it off */
    struct itimerspec spec = {
        .it_value = {.tv_sec = (time_t)(when / 1000000000u), .tv_nsec = (long)(when % 1000000000u)}};

    if (timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL) == 0)
        loop->timer_fd_when = when;
}

struct loop_timer *loop_timer_new(struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
    struct loop_timer *t = calloc(1, sizeof(*t));

    if (!t)
        return NULL;
    *t = (struct loop_timer){.loop = loop, .slot = LOOP_TIMER_IDLE, .fn = fn, .opaque = opaque};
    LOCK_SCOPE(&loop->lock);
    /* Room for every timer there is, so that arming can't fail. */
    if (loop->n_timers == loop->heap_size) {
        size_t size = loop->heap_size ? 2 * loop->heap_size : 16;
        struct loop_timer **heap = realloc(loop->heap, size * sizeof(*heap));

        if (!heap) {
            free(t);
            return NULL;
        }
        loop->heap = heap;
        loop->heap_size = size;
    }
    loop->n_timers++;
    t->next = loop->timers;
    if (t->next)
        t->next->prev = t;
    loop->timers = t;
    return t;
}

void loop_timer_arm(struct loop_timer *timer, uint64_t when)
{
    struct loop *loop = timer->loop;
    LOCK_SCOPE(&loop->lock);

    if (timer->dying)
        return;
    bool inside = loop_in_thread_locked(loop);
    /* A callback that arms its timer for the past over and over must not stay ahead of those that are due. */
    timer->when = inside && when < loop->round ? loop->round : when;
    if (timer->slot == LOOP_TIMER_IDLE)
        place(loop, loop->n_armed++, timer);
    restore_order(loop, timer->slot);
    /* The loop's own thread looks at the heap before it sleeps. */
    if (!inside)
        set_timer_fd_locked(loop);
}

void loop_timer_disarm(struct loop_timer *timer)
{
    LOCK_SCOPE(&timer->loop->lock);
    disarm_locked(timer);
}

void loop_timer_free(struct loop_timer *timer)
{
    if (!timer)
        return;
    struct loop *loop = timer->loop;

    pthread_mutex_lock(&loop->lock);
    disarm_locked(timer);
    timer->dying = true;
    loop_wait_callback_locked(loop, timer);
    if (timer->next)
        timer->next->prev = timer->prev;
    *(timer->prev ? &timer->prev->next : &loop->timers) = timer->next;
    loop->n_timers--;
    pthread_mutex_unlock(&loop->lock);
    free(timer);
}

void loop_run_timers(struct loop *loop)
{
    uint64_t now = loop_now();

    pthread_mutex_lock(&loop->lock);
    loop->round = now;
    /* Bounded, so that one which arms itself for the past can't keep the loop from its other work. */
    for (size_t n = loop->n_armed; n > 0 && loop->n_armed && loop->heap[0]->when <= now; n--) {
        struct loop_timer *t = loop->heap[0];
        void (*fn)(void *) = t->fn;
        void *opaque = t->opaque;

        if (atomic_load(&loop->stop) != LOOP_RUNNING)
            break;
        disarm_locked(t);
        loop_begin_callback_locked(loop, t);
        fn(opaque);
        loop_end_callback_locked(loop);
    }
    set_timer_fd_locked(loop);
    pthread_mutex_unlock(&loop->lock);
}

void loop_drain_timer_fd(struct loop *loop)
{
    uint64_t expirations;
    LOCK_SCOPE(&loop->lock);

    /* Nothing to read: it was set anew since epoll_wait returned, and fires again. */
    if (read(loop->timer_fd, &expirations, sizeof(expirations)) == (ssize_t)sizeof(expirations))
        loop->timer_fd_when = LOOP_NEVER;
}

void loop_free_timers(struct loop *loop)
{
    while (loop->timers) {
        struct loop_timer *next = loop->timers->next;
        free(loop->timers);
        loop->timers = next;
    }
    free(loop->heap);
}

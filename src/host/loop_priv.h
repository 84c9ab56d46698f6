/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inside of the event loop, shared by loop.c (file descriptors, posts, the loop itself) and loop_timer.c
 * (timers). One mutex guards it all; it is never held while a callback runs.
 */
#ifndef TABIQUE_HOST_LOOP_PRIV_H
#define TABIQUE_HOST_LOOP_PRIV_H

#include "host/loop.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#define LOOP_NEVER UINT64_MAX

struct loop_post;

struct loop_watch {
    struct loop *loop;
    int fd;
    uint32_t events; /* 0: not in the epoll set, so that not even EPOLLHUP comes */
    bool removed;    /* waits in `dead` for the end of the batch that may still name it */
    void (*fn)(void *opaque, uint32_t events);
    void *opaque;
    struct loop_watch *prev, *next;
};

struct loop_timer {
    struct loop *loop;
    uint64_t when;
    size_t slot; /* index in the heap, or LOOP_TIMER_IDLE */
    bool dying;  /* loop_timer_free waits for its callback, which can't arm it any more */
    void (*fn)(void *opaque);
    void *opaque;
    struct loop_timer *prev, *next;
};

#define LOOP_TIMER_IDLE SIZE_MAX

struct loop {
    int epoll_fd;
    int wake_fd;  /* an eventfd: posts, loop_stop */
    int timer_fd; /* CLOCK_MONOTONIC, absolute */

    /* LOOP_RUNNING, or the status that loop_run is to return. Atomic, since a signal handler may stop. */
    _Atomic int64_t stop;

    pthread_mutex_t lock;
    pthread_cond_t callback_ended;
    bool running;     /* a thread is in loop_run */
    pthread_t thread; /* which; valid while running */
    void *current;    /* the watch or timer whose callback runs now */
    unsigned waiters; /* threads that wait for it to end */

    struct loop_post *posts, **posts_tail;
    size_t n_posts;

    struct loop_watch *watches; /* those not removed */
    struct loop_watch *dead;

    struct loop_timer *timers; /* all, armed or not */
    size_t n_timers;
    struct loop_timer **heap; /* armed ones, the earliest first; has room for n_timers */
    size_t n_armed, heap_size;
    uint64_t round;         /* the time at which loop_run_timers last looked for due ones */
    uint64_t timer_fd_when; /* what timer_fd is set to; may be earlier than need be, never later */
};

#define LOOP_RUNNING INT64_MIN

/* Whether the caller is the thread that serves the loop. */
bool loop_in_thread_locked(struct loop *loop);

/* Runs a callback of `object` without the lock; on return the object may be gone. */
void loop_begin_callback_locked(struct loop *loop, void *object);
void loop_end_callback_locked(struct loop *loop);

/* Waits until no callback of `object` runs, unless the caller is that callback. */
void loop_wait_callback_locked(struct loop *loop, void *object);

/* Fires what is due and sets timer_fd for the next one. In the loop's thread. */
void loop_run_timers(struct loop *loop);

/* timer_fd is readable: clear it. In the loop's thread. */
void loop_drain_timer_fd(struct loop *loop);

void loop_free_timers(struct loop *loop);

#endif

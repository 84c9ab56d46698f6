/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event loop: file descriptors, timers and calls posted from other threads, all served by the one thread
 * that is in loop_run. Callbacks run with no lock of the loop held, so they may call anything here, also
 * loop_watch_remove of their own watch.
 */
#ifndef TABIQUE_HOST_LOOP_H
#define TABIQUE_HOST_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct error;
struct loop;
struct loop_watch;
struct loop_timer;

/* Makes a loop. 0 or -errno. loop_free(NULL) is fine; everything still registered is released with it. */
int loop_create(struct loop **out, struct error **err);
void loop_free(struct loop *loop);

/* Serves events until loop_stop. Returns what loop_stop was given. */
int loop_run(struct loop *loop);

/* Makes loop_run return `status` after the current callback. Any thread; safe in a signal handler. */
void loop_stop(struct loop *loop, int status);

/* Calls fn(opaque) once in the loop's thread. Any thread. 0 or -ENOMEM. */
int loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque);

/*
 * Watches `fd` (not owned) for the given epoll events (EPOLLIN, EPOLLOUT, ...); level-triggered. Any thread.
 * 0 or -errno (-EPERM for a regular file, which epoll can't watch).
 */
int loop_watch_add(struct loop *loop, int fd, uint32_t events, void (*fn)(void *opaque, uint32_t events),
                   void *opaque, struct loop_watch **out);
int loop_watch_modify(struct loop_watch *watch, uint32_t events);
/* When it returns in the loop's thread, the callback will not run again. NULL is fine. */
void loop_watch_remove(struct loop_watch *watch);

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t loop_now(void);

/* A one-shot timer on CLOCK_MONOTONIC, not armed. Any thread. NULL if there is no memory. */
struct loop_timer *loop_timer_new(struct loop *loop, void (*fn)(void *opaque), void *opaque);
/* Arms (or re-arms) for the absolute time `when` in ns; a past time fires at once. Any thread, cheap: no
 * system call unless this becomes the earliest timer. */
void loop_timer_arm(struct loop_timer *timer, uint64_t when);
void loop_timer_disarm(struct loop_timer *timer);
/* Returns after a callback that is running in the loop's thread has ended (unless called from it). NULL is
 * fine. */
void loop_timer_free(struct loop_timer *timer);

#endif

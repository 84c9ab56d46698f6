/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event loop: an epoll set, an eventfd for calls from other threads, and the timers of loop_timer.c.
 * Used by the machine's main thread and, to post, watch and arm timers, by every other one. Takes the loop's
 * own mutex, which no callback runs under.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "host/loop_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define BATCH 32

struct loop_post {
    void (*fn)(void *opaque);
    void *opaque;
    struct loop_post *next;
};

uint64_t loop_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

bool loop_in_thread_locked(struct loop *loop)
{
    return loop->running && pthread_equal(loop->thread, pthread_self());
}

void loop_begin_callback_locked(struct loop *loop, void *object)
{
    loop->current = object;
    pthread_mutex_unlock(&loop->lock);
}

void loop_end_callback_locked(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->current = NULL;
    if (loop->waiters)
        pthread_cond_broadcast(&loop->callback_ended);
}

void loop_wait_callback_locked(struct loop *loop, void *object)
{
    if (loop_in_thread_locked(loop))
        return;
    loop->waiters++;
    while (loop->current == object)
        pthread_cond_wait(&loop->callback_ended, &loop->lock);
    loop->waiters--;
}

static int add_own_fd(struct loop *loop, int fd, void *tag)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = tag};

    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

int loop_create(struct loop **out, struct error **err)
{
    struct loop *loop = calloc(1, sizeof(*loop));

    if (!loop)
        return error_set_errno(err, ENOMEM, "event loop");
    atomic_init(&loop->stop, LOOP_RUNNING);
    pthread_mutex_init(&loop->lock, NULL);
    pthread_cond_init(&loop->callback_ended, NULL);
    loop->posts_tail = &loop->posts;
    loop->timer_fd_when = LOOP_NEVER;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int rc = loop->epoll_fd < 0 || loop->wake_fd < 0 || loop->timer_fd < 0 ? -errno : 0;
    /* The addresses of the two descriptors' fields tell them from any watch. */
    if (!rc)
        rc = add_own_fd(loop, loop->wake_fd, &loop->wake_fd);
    if (!rc)
        rc = add_own_fd(loop, loop->timer_fd, &loop->timer_fd);
    if (rc) {
        loop_free(loop);
        return error_set_errno(err, -rc, "event loop");
    }
    *out = loop;
    return 0;
}

static void free_watches(struct loop_watch *w)
{
    while (w) {
        struct loop_watch *next = w->next;
        free(w);
        w = next;
    }
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    while (loop->posts) {
        struct loop_post *next = loop->posts->next;
        free(loop->posts);
        loop->posts = next;
    }
    free_watches(loop->watches);
    free_watches(loop->dead);
    loop_free_timers(loop);
    cleanup_close_fn(&loop->epoll_fd);
    cleanup_close_fn(&loop->wake_fd);
    cleanup_close_fn(&loop->timer_fd);
    pthread_cond_destroy(&loop->callback_ended);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

/* Makes epoll_wait return. Safe in a signal handler. */
static void wake(struct loop *loop)
{
    int saved = errno;
    uint64_t one = 1;

    /* It fails only when the counter is full, and then the loop is awake anyway. */
    if (write(loop->wake_fd, &one, sizeof(one)) < 0)
        errno = saved;
}

static bool stopped(struct loop *loop)
{
    return atomic_load(&loop->stop) != LOOP_RUNNING;
}

void loop_stop(struct loop *loop, int status)
{
    int64_t expected = LOOP_RUNNING;

    /* The first one counts: whatever comes after is a consequence of it. */
    if (atomic_compare_exchange_strong(&loop->stop, &expected, status))
        wake(loop);
}

int loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
    struct loop_post *post = malloc(sizeof(*post));

    if (!post)
        return -ENOMEM;
    *post = (struct loop_post){.fn = fn, .opaque = opaque};
    pthread_mutex_lock(&loop->lock);
    bool must_wake = !loop->posts && !loop_in_thread_locked(loop);
    *loop->posts_tail = post;
    loop->posts_tail = &post->next;
    loop->n_posts++;
    pthread_mutex_unlock(&loop->lock);
    if (must_wake)
        wake(loop);
    return 0;
}

int loop_watch_add(struct loop *loop, int fd, uint32_t events, void (*fn)(void *opaque, uint32_t events),
                   void *opaque, struct loop_watch **out)
{
    struct loop_watch *w = calloc(1, sizeof(*w));

    if (!w)
        return -ENOMEM;
    *w = (struct loop_watch){.loop = loop, .fd = fd, .events = events, .fn = fn, .opaque = opaque};
    struct epoll_event ev = {.events = events, .data.ptr = w};
    /* With the lock held up to the end the callback can't run before *out is set. */
    LOCK_SCOPE(&loop->lock);
    /* Without events it is added later, but what can't be watched is to be told now. */
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
        int rc = -errno;
        free(w);
        return rc;
    }
    if (!events)
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    w->next = loop->watches;
    if (w->next)
        w->next->prev = w;
    loop->watches = w;
    *out = w;
    return 0;
}

int loop_watch_modify(struct loop_watch *watch, uint32_t events)
{
    struct loop *loop = watch->loop;
    struct epoll_event ev = {.events = events, .data.ptr = watch};
    LOCK_SCOPE(&loop->lock);

    if (events == watch->events)
        return 0;
    int op = !events ? EPOLL_CTL_DEL : watch->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(loop->epoll_fd, op, watch->fd, &ev) < 0)
        return -errno;
    watch->events = events;
    return 0;
}

void loop_watch_remove(struct loop_watch *watch)
{
    if (!watch)
        return;
    struct loop *loop = watch->loop;
    LOCK_SCOPE(&loop->lock);

    if (watch->events)
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
    watch->removed = true;
    if (watch->next)
        watch->next->prev = watch->prev;
    *(watch->prev ? &watch->prev->next : &loop->watches) = watch->next;
    loop_wait_callback_locked(loop, watch);
    watch->next = loop->dead;
    loop->dead = watch;
}

static void run_posts(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    /* What these post themselves waits for the next round, so that they can't starve the rest. */
    for (size_t n = loop->n_posts; n > 0 && !stopped(loop); n--) {
        struct loop_post *post = loop->posts;

        loop->posts = post->next;
        if (!loop->posts)
            loop->posts_tail = &loop->posts;
        loop->n_posts--;
        pthread_mutex_unlock(&loop->lock);
        post->fn(post->opaque);
        free(post);
        pthread_mutex_lock(&loop->lock);
    }
    pthread_mutex_unlock(&loop->lock);
}

static void dispatch_watch(struct loop *loop, struct loop_watch *w, uint32_t events)
{
    pthread_mutex_lock(&loop->lock);
    /* It may have been removed or changed since epoll_wait returned. */
    events &= w->events ? w->events | EPOLLHUP | EPOLLERR : 0;
    if (!w->removed && events) {
        void (*fn)(void *, uint32_t) = w->fn;
        void *opaque = w->opaque;

        loop_begin_callback_locked(loop, w);
        fn(opaque, events);
        loop_end_callback_locked(loop);
    }
    pthread_mutex_unlock(&loop->lock);
}

static void wait_and_dispatch(struct loop *loop)
{
    struct epoll_event batch[BATCH];

    pthread_mutex_lock(&loop->lock);
    int timeout = loop->posts || stopped(loop) ? 0 : -1;
    pthread_mutex_unlock(&loop->lock);
    int n = epoll_wait(loop->epoll_fd, batch, BATCH, timeout);
    for (int i = 0; i < n && !stopped(loop); i++) {
        if (batch[i].data.ptr == &loop->wake_fd) {
            uint64_t count;
            if (read(loop->wake_fd, &count, sizeof(count)) < 0)
                continue;
        } else if (batch[i].data.ptr == &loop->timer_fd) {
            loop_drain_timer_fd(loop);
        } else {
            dispatch_watch(loop, batch[i].data.ptr, batch[i].events);
        }
    }
    /* No batch names a removed watch any more: they left the epoll set before they came here. */
    pthread_mutex_lock(&loop->lock);
    struct loop_watch *dead = steal_ptr(loop->dead);
    pthread_mutex_unlock(&loop->lock);
    free_watches(dead);
}

int loop_run(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->thread = pthread_self();
    loop->running = true;
    pthread_mutex_unlock(&loop->lock);
    while (!stopped(loop)) {
        run_posts(loop);
        loop_run_timers(loop);
        wait_and_dispatch(loop);
    }
    pthread_mutex_lock(&loop->lock);
    loop->running = false;
    pthread_mutex_unlock(&loop->lock);
    return (int)atomic_exchange(&loop->stop, LOOP_RUNNING);
}

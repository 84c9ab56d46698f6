/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The event loop: watches, posts, timers, stopping, and all of that from other threads. */
#include "base/bytes.h"
#include "host/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define MS 1000000ull

struct fixture {
    struct loop *loop;
    struct loop_watch *watch;
    struct loop_timer *timer, *other;
    int pipe[2];
    int order[16], n_order;
    atomic_int count;
    atomic_bool done;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_int_equal(loop_create(&f->loop, NULL), 0);
    assert_int_equal(pipe2(f->pipe, O_CLOEXEC | O_NONBLOCK), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    loop_free(f->loop);
    close(f->pipe[0]);
    close(f->pipe[1]);
    free(f);
    return 0;
}

static void stop_with_7(void *opaque)
{
    struct fixture *f = opaque;
    loop_stop(f->loop, 7);
}

static void count_up(void *opaque)
{
    struct fixture *f = opaque;
    f->count++;
}

static void test_free_null(void **state)
{
    loop_free(NULL);
    loop_watch_remove(NULL);
    loop_timer_free(NULL);
}

static void test_post_runs_in_order_then_stop_gives_status(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 5; i++)
        assert_int_equal(loop_post(f->loop, count_up, f), 0);
    assert_int_equal(loop_post(f->loop, stop_with_7, f), 0);
    assert_int_equal(loop_post(f->loop, count_up, f), 0);
    assert_int_equal(loop_run(f->loop), 7);
    assert_int_equal(f->count, 5);
    /* The one after the stop is still there. */
    assert_int_equal(loop_post(f->loop, stop_with_7, f), 0);
    assert_int_equal(loop_run(f->loop), 7);
    assert_int_equal(f->count, 6);
}

static void test_stop_before_run_and_first_status_wins(void **state)
{
    struct fixture *f = *state;

    loop_stop(f->loop, 3);
    loop_stop(f->loop, 4);
    assert_int_equal(loop_post(f->loop, count_up, f), 0);
    assert_int_equal(loop_run(f->loop), 3);
    assert_int_equal(f->count, 0);
}

static struct loop *signalled_loop;

static void stop_from_signal(int sig)
{
    loop_stop(signalled_loop, 128 + sig);
}

static void raise_alarm(void *opaque)
{
    raise(SIGALRM);
}

static void test_stop_in_signal_handler(void **state)
{
    struct fixture *f = *state;
    struct sigaction sa = {.sa_handler = stop_from_signal}, old;

    signalled_loop = f->loop;
    sigaction(SIGALRM, &sa, &old);
    f->timer = loop_timer_new(f->loop, raise_alarm, f);
    loop_timer_arm(f->timer, loop_now() + 2 * MS);
    assert_int_equal(loop_run(f->loop), 128 + SIGALRM);
    sigaction(SIGALRM, &old, NULL);
}

static void on_readable(void *opaque, uint32_t events)
{
    struct fixture *f = opaque;
    char c;

    assert_true(events & EPOLLIN);
    /* One byte a call: the rest must be reported again (level-triggered). */
    assert_int_equal(read(f->pipe[0], &c, 1), 1);
    if (++f->count == 3)
        loop_stop(f->loop, 0);
}

static void test_watch_is_level_triggered(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(loop_watch_add(f->loop, f->pipe[0], EPOLLIN, on_readable, f, &f->watch), 0);
    assert_int_equal(write(f->pipe[1], "abc", 3), 3);
    assert_int_equal(loop_run(f->loop), 0);
    assert_int_equal(f->count, 3);
    loop_watch_remove(f->watch);
}

static void must_not_run(void *opaque, uint32_t events)
{
    fail_msg("a removed or masked watch was called with events %x", events);
}

static void test_watch_refuses_what_epoll_cannot_watch(void **state)
{
    struct fixture *f = *state;
    char name[] = "/tmp/test_loop.XXXXXX";
    int fd = mkstemp(name);
    struct loop_watch *untouched = (struct loop_watch *)f;

    assert_true(fd >= 0);
    unlink(name);
    assert_int_equal(loop_watch_add(f->loop, fd, EPOLLIN, must_not_run, f, &untouched), -EPERM);
    assert_int_equal(loop_watch_add(f->loop, -1, EPOLLIN, must_not_run, f, &untouched), -EBADF);
    assert_ptr_equal(untouched, f);
    close(fd);
}

/* A closed pipe reports EPOLLHUP for ever; with no events asked for it must not keep the loop busy. */
static void test_watch_without_events_is_silent(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(loop_watch_add(f->loop, f->pipe[0], 0, must_not_run, f, &f->watch), 0);
    assert_int_equal(write(f->pipe[1], "x", 1), 1);
    close(f->pipe[1]);
    f->pipe[1] = dup(f->pipe[0]);
    f->timer = loop_timer_new(f->loop, stop_with_7, f);
    loop_timer_arm(f->timer, loop_now() + 5 * MS);
    assert_int_equal(loop_run(f->loop), 7);
    assert_int_equal(loop_watch_modify(f->watch, EPOLLIN), 0);
    assert_int_equal(loop_watch_modify(f->watch, EPOLLIN), 0);
    assert_int_equal(loop_watch_modify(f->watch, 0), 0);
    loop_timer_arm(f->timer, loop_now() + 5 * MS);
    assert_int_equal(loop_run(f->loop), 7);
    loop_watch_remove(f->watch);
}

static struct loop_watch *pair[2];

static void remove_both(void *opaque, uint32_t events)
{
    struct fixture *f = opaque;

    f->count++;
    loop_watch_remove(pair[0]);
    loop_watch_remove(pair[1]);
    loop_post(f->loop, stop_with_7, f);
}

/* Both are ready in the same batch; whichever comes first removes both, itself included. */
static void test_watch_removed_in_its_own_batch(void **state)
{
    struct fixture *f = *state;
    int second[2];

    assert_int_equal(pipe2(second, O_CLOEXEC), 0);
    assert_int_equal(write(f->pipe[1], "x", 1), 1);
    assert_int_equal(write(second[1], "x", 1), 1);
    assert_int_equal(loop_watch_add(f->loop, f->pipe[0], EPOLLIN, remove_both, f, &pair[0]), 0);
    assert_int_equal(loop_watch_add(f->loop, second[0], EPOLLIN, remove_both, f, &pair[1]), 0);
    assert_int_equal(loop_run(f->loop), 7);
    assert_int_equal(f->count, 1);
    close(second[0]);
    close(second[1]);
}

struct mark {
    struct fixture *f;
    int id;
};

static void note(void *opaque)
{
    struct mark *m = opaque;
    m->f->order[m->f->n_order++] = m->id;
}

static void test_timers_fire_in_order(void **state)
{
    struct fixture *f = *state;
    static const int delays[] = {9, 3, 7, 1, 5, 8, 2, 6, 4};
    struct mark marks[ARRAY_SIZE(delays)];
    struct loop_timer *timers[ARRAY_SIZE(delays)];
    uint64_t start = loop_now();

    for (size_t i = 0; i < ARRAY_SIZE(delays); i++) {
        marks[i] = (struct mark){f, delays[i]};
        timers[i] = loop_timer_new(f->loop, note, &marks[i]);
        loop_timer_arm(timers[i], start + (uint64_t)delays[i] * MS);
    }
    loop_timer_disarm(timers[2]);                  /* 7 never comes */
    loop_timer_arm(timers[0], start + 5 * MS / 2); /* 9 comes between 2 and 3 */
    f->timer = loop_timer_new(f->loop, stop_with_7, f);
    loop_timer_arm(f->timer, start + 12 * MS);
    assert_int_equal(loop_run(f->loop), 7);
    assert_true(loop_now() - start >= 12 * MS);
    static const int expected[] = {1, 2, 9, 3, 4, 5, 6, 8};
    assert_int_equal(f->n_order, ARRAY_SIZE(expected));
    assert_memory_equal(f->order, expected, sizeof(expected));
    for (size_t i = 0; i < ARRAY_SIZE(delays); i++)
        loop_timer_free(timers[i]);
}

/* The heap against a plain list: random arming, re-arming and disarming of many timers. */
static void test_timers_in_any_order(void **state)
{
    enum { TIMERS = 300 };
    struct fixture *f = *state;
    struct loop_timer *timers[TIMERS];
    unsigned armed = 0;
    uint64_t start = loop_now();

    srand(1);
    for (int i = 0; i < TIMERS; i++)
        timers[i] = loop_timer_new(f->loop, count_up, f);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < TIMERS; i++) {
            if (rand() % 4 == 0)
                loop_timer_disarm(timers[i]);
            else
                loop_timer_arm(timers[i], start + (uint64_t)(rand() % 4000) * 1000);
        }
    }
    for (int i = 0; i < TIMERS; i++) {
        if (i % 3 == 0) {
            loop_timer_arm(timers[i], start + (uint64_t)(rand() % 4000) * 1000);
            armed++;
        } else {
            loop_timer_disarm(timers[i]);
        }
    }
    f->timer = loop_timer_new(f->loop, stop_with_7, f);
    loop_timer_arm(f->timer, start + 6 * MS);
    assert_int_equal(loop_run(f->loop), 7);
    assert_int_equal(f->count, armed);
    for (int i = 0; i < TIMERS; i++)
        loop_timer_free(timers[i]);
}

static void arm_again_for_the_past(void *opaque)
{
    struct fixture *f = opaque;

    f->count++;
    loop_timer_arm(f->timer, 0);
}

/* A timer that always fires again must leave room for the rest. */
static void test_timer_cannot_starve_the_loop(void **state)
{
    struct fixture *f = *state;

    f->timer = loop_timer_new(f->loop, arm_again_for_the_past, f);
    loop_timer_arm(f->timer, 0);
    assert_int_equal(loop_watch_add(f->loop, f->pipe[0], EPOLLIN, on_readable, f, &f->watch), 0);
    f->count = -1000000;
    assert_int_equal(write(f->pipe[1], "x", 1), 1);
    f->other = loop_timer_new(f->loop, stop_with_7, f);
    loop_timer_arm(f->other, loop_now() + 10 * MS);
    assert_int_equal(loop_run(f->loop), 7);
    char c;
    assert_int_equal(read(f->pipe[0], &c, 1), -1); /* on_readable took the byte */
}

static void free_itself(void *opaque)
{
    struct fixture *f = opaque;

    loop_timer_free(f->timer);
    f->timer = NULL;
    loop_stop(f->loop, 9);
}

static void test_timer_frees_itself(void **state)
{
    struct fixture *f = *state;

    f->timer = loop_timer_new(f->loop, free_itself, f);
    loop_timer_arm(f->timer, UINT64_MAX);
    loop_timer_arm(f->timer, 0);
    assert_int_equal(loop_run(f->loop), 9);
    assert_null(f->timer);
}

static void *run_loop(void *opaque)
{
    struct fixture *f = opaque;
    return (void *)(intptr_t)loop_run(f->loop);
}

/* Arming an earlier time from outside must cut the sleep short; a later one must not lose the timer. */
static void test_timer_armed_from_another_thread(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;
    void *status;
    uint64_t start = loop_now();

    f->timer = loop_timer_new(f->loop, stop_with_7, f);
    loop_timer_arm(f->timer, start + 3600ull * 1000 * MS);
    pthread_create(&thread, NULL, run_loop, f);
    nanosleep(&(struct timespec){.tv_nsec = 5 * MS}, NULL);
    loop_timer_arm(f->timer, start + 10 * MS);
    loop_timer_arm(f->timer, start + 20 * MS);
    pthread_join(thread, &status);
    assert_int_equal((intptr_t)status, 7);
    uint64_t took = loop_now() - start;
    assert_true(took >= 20 * MS);
    assert_true(took < 5000 * MS);
}

static void slow(void *opaque)
{
    struct fixture *f = opaque;

    f->count = 1;
    nanosleep(&(struct timespec){.tv_nsec = 30 * MS}, NULL);
    loop_timer_arm(f->timer, 0); /* of no effect: it is being freed */
    f->done = true;
}

static void test_timer_free_waits_for_its_callback(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;

    f->timer = loop_timer_new(f->loop, slow, f);
    loop_timer_arm(f->timer, 0);
    pthread_create(&thread, NULL, run_loop, f);
    while (!f->count)
        nanosleep(&(struct timespec){.tv_nsec = MS / 10}, NULL);
    loop_timer_free(f->timer);
    assert_true(f->done);
    loop_stop(f->loop, 0);
    pthread_join(thread, NULL);
}

static void slow_watch(void *opaque, uint32_t events)
{
    struct fixture *f = opaque;

    f->count = 1;
    nanosleep(&(struct timespec){.tv_nsec = 30 * MS}, NULL);
    f->done = true;
}

static void test_watch_remove_waits_for_its_callback(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;

    assert_int_equal(write(f->pipe[1], "x", 1), 1);
    assert_int_equal(loop_watch_add(f->loop, f->pipe[0], EPOLLIN, slow_watch, f, &f->watch), 0);
    pthread_create(&thread, NULL, run_loop, f);
    while (!f->count)
        nanosleep(&(struct timespec){.tv_nsec = MS / 10}, NULL);
    loop_watch_remove(f->watch);
    assert_true(f->done);
    loop_stop(f->loop, 0);
    pthread_join(thread, NULL);
}

struct worker {
    struct fixture *f;
    atomic_int posts, timers;
};

static void worker_posted(void *opaque)
{
    struct worker *w = opaque;
    w->posts++;
}

static void worker_timer(void *opaque)
{
    struct worker *w = opaque;
    w->timers++;
}

static void *work(void *opaque)
{
    enum { ROUNDS = 2000 };
    struct worker *w = opaque;

    for (int i = 0; i < ROUNDS; i++) {
        struct loop_timer *t = loop_timer_new(w->f->loop, worker_timer, w);

        loop_post(w->f->loop, worker_posted, w);
        loop_timer_arm(t, loop_now() + 3600ull * 1000 * MS);
        int before = w->timers;
        loop_timer_arm(t, loop_now());
        while (i % 8 == 0 && w->timers == before)
            sched_yield();
        loop_timer_free(t);
    }
    while (w->posts < ROUNDS)
        sched_yield();
    return NULL;
}

static void test_many_threads(void **state)
{
    struct fixture *f = *state;
    struct worker workers[4] = {{.f = f}, {.f = f}, {.f = f}, {.f = f}};
    pthread_t loop_thread, threads[4];

    pthread_create(&loop_thread, NULL, run_loop, f);
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, work, &workers[i]);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(workers[i].posts, 2000);
        assert_true(workers[i].timers >= 250);
    }
    loop_stop(f->loop, 0);
    pthread_join(loop_thread, NULL);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_free_null),
        TEST(test_post_runs_in_order_then_stop_gives_status),
        TEST(test_stop_before_run_and_first_status_wins),
        TEST(test_stop_in_signal_handler),
        TEST(test_watch_is_level_triggered),
        TEST(test_watch_refuses_what_epoll_cannot_watch),
        TEST(test_watch_without_events_is_silent),
        TEST(test_watch_removed_in_its_own_batch),
        TEST(test_timers_fire_in_order),
        TEST(test_timers_in_any_order),
        TEST(test_timer_cannot_starve_the_loop),
        TEST(test_timer_frees_itself),
        TEST(test_timer_armed_from_another_thread),
        TEST(test_timer_free_waits_for_its_callback),
        TEST(test_watch_remove_waits_for_its_callback),
        TEST(test_many_threads),
    };
    return cmocka_run_group_tests_name("host/loop", tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/host/tsc.c: against the host's clocks. */
#include "host/tsc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void test_between(void **state)
{
    struct tsc_sample a = {.tsc = 1000, .monotonic = 500}, b = {.tsc = 1000 + 2500, .monotonic = 500 + 1000};
    assert_true(tsc_frequency_between(&a, &b) == 2500000000u);
    assert_true(tsc_frequency_between(&b, &a) == 0);
    assert_true(tsc_frequency_between(&a, &a) == 0);
    /* A century at 5 GHz does not overflow. */
    b.monotonic = a.monotonic + 3153600000000000000ull;
    b.tsc = a.tsc + 15768000000000000000ull;
    assert_true(tsc_frequency_between(&a, &b) == 5000000000u);
}

static void test_sample(void **state)
{
    struct tsc_sample a, b;
    for (int i = 0; i < 1000; i++) {
        uint64_t before = now_ns();
        tsc_sample_take(&a);
        uint64_t after = now_ns();
        assert_in_range(a.monotonic, before, after);
    }
    tsc_sample_take(&b);
    assert_true(b.tsc > a.tsc);
    assert_true(b.monotonic >= a.monotonic);
}

static void test_frequency(void **state)
{
    struct tsc_sample a, b;
    tsc_frequency_prepare();
    uint64_t hz = tsc_frequency();
    assert_true(hz > 100000000 && hz < 10000000000ull);
    uint64_t before = now_ns();
    assert_true(tsc_frequency() == hz);
    assert_true(now_ns() - before < 5000000); /* not measured again */

    /* 50 ms a minute are 833 parts in a million; half of that over a fifth of a second */
    tsc_sample_take(&a);
    struct timespec ts = {.tv_nsec = 200000000};
    nanosleep(&ts, NULL);
    tsc_sample_take(&b);
    uint64_t again = tsc_frequency_between(&a, &b);
    uint64_t apart = again > hz ? again - hz : hz - again;
    assert_true(apart < hz / 1000000 * 416);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_between),
        cmocka_unit_test(test_sample),
        cmocka_unit_test(test_frequency),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

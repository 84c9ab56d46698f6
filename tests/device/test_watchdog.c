/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/device/watchdog.c, used as its ACPI table tells drivers to. */
#include "device/watchdog.h"

#include "legacy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define COUNT (WATCHDOG_COUNT_MS * 1000000ull)

static struct legacy_fixture *f;

static uint32_t in32(uint16_t port)
{
    return (uint32_t)io_space_read(f->env.pio, port, 4);
}

static void out32(uint16_t port, uint32_t value)
{
    io_space_write(f->env.pio, port, 4, value);
}

static void start(const struct watchdog_config *config)
{
    f = legacy_start(&watchdog_class, config);
}

static void test_idle_until_started(void **state)
{
    start(NULL);
    assert_int_equal(in32(WATCHDOG_CONTROL), 0);
    out32(WATCHDOG_COUNT, 10);
    out32(WATCHDOG_RELOAD, 1);
    assert_int_equal(fake_loop_armed(), 0);
    fake_loop_advance(1000 * COUNT);
    assert_int_equal(f->events, 0);
    assert_int_equal(in32(WATCHDOG_LEFT), 10);
}

static void test_expires_once(void **state)
{
    start(&(struct watchdog_config){.action = WATCHDOG_POWEROFF});
    out32(WATCHDOG_COUNT, 10);
    out32(WATCHDOG_CONTROL, WATCHDOG_RUNS);
    assert_int_equal(in32(WATCHDOG_CONTROL), WATCHDOG_RUNS);
    fake_loop_advance(9 * COUNT);
    assert_int_equal(f->events, 0);
    assert_int_equal(in32(WATCHDOG_LEFT), 1);
    fake_loop_advance(COUNT);
    assert_int_equal(f->events, 1);
    assert_int_equal(f->event, MACHINE_WATCHDOG);
    assert_int_equal(f->code, WATCHDOG_POWEROFF);
    assert_int_equal(in32(WATCHDOG_CONTROL), 0);
    fake_loop_advance(1000 * COUNT);
    assert_int_equal(f->events, 1);
}

static void test_reload_and_stop(void **state)
{
    start(NULL);
    out32(WATCHDOG_COUNT, 10);
    out32(WATCHDOG_CONTROL, WATCHDOG_RUNS);
    for (int i = 0; i < 10; i++) {
        fake_loop_advance(9 * COUNT);
        /* Said again, it changes nothing; only the reload counts. */
        out32(WATCHDOG_CONTROL, WATCHDOG_RUNS);
        assert_int_equal(in32(WATCHDOG_LEFT), 1);
        out32(WATCHDOG_RELOAD, 1);
        assert_int_equal(in32(WATCHDOG_LEFT), 10);
    }
    /* Another time counts from the reload on. */
    out32(WATCHDOG_COUNT, 100);
    out32(WATCHDOG_RELOAD, 1);
    fake_loop_advance(99 * COUNT);
    assert_int_equal(f->events, 0);
    out32(WATCHDOG_CONTROL, 0);
    assert_int_equal(in32(WATCHDOG_CONTROL), 0);
    fake_loop_advance(1000 * COUNT);
    assert_int_equal(f->events, 0);
}

/* Counts that a table would not allow are brought into its range: no guest makes the timer busy. */
static void test_range_of_counts(void **state)
{
    start(NULL);
    out32(WATCHDOG_COUNT, 0);
    assert_int_equal(in32(WATCHDOG_COUNT), 1);
    out32(WATCHDOG_COUNT, UINT32_MAX);
    assert_int_equal(in32(WATCHDOG_COUNT), WATCHDOG_COUNT_MAX);
    out32(WATCHDOG_CONTROL, WATCHDOG_RUNS);
    fake_loop_advance((WATCHDOG_COUNT_MAX - 1) * COUNT);
    assert_int_equal(f->events, 0);
    fake_loop_advance(COUNT);
    assert_int_equal(f->events, 1);
}

static void test_status_after_restart(void **state)
{
    start(NULL);
    assert_int_equal(in32(WATCHDOG_STATUS), 0);
    out32(WATCHDOG_COUNT, 1);
    out32(WATCHDOG_CONTROL, WATCHDOG_RUNS);
    fake_loop_advance(COUNT);
    assert_int_equal(f->code, WATCHDOG_RESET);
    f->device->class->reset(f->device);
    assert_int_equal(in32(WATCHDOG_STATUS), WATCHDOG_RESTARTED);
    out32(WATCHDOG_STATUS, 0);
    assert_int_equal(in32(WATCHDOG_STATUS), WATCHDOG_RESTARTED);
    out32(WATCHDOG_STATUS, WATCHDOG_RESTARTED);
    assert_int_equal(in32(WATCHDOG_STATUS), 0);
    /* A reset of the guest's own stops it and leaves no such trace. */
    out32(WATCHDOG_CONTROL, WATCHDOG_RUNS);
    f->device->class->reset(f->device);
    assert_int_equal(in32(WATCHDOG_CONTROL), 0);
    assert_int_equal(in32(WATCHDOG_STATUS), 0);
    assert_int_equal(fake_loop_armed(), 0);
}

/* The host was away when the time was up: told once, late. */
static void test_stalled_host(void **state)
{
    start(NULL);
    out32(WATCHDOG_COUNT, 5);
    out32(WATCHDOG_CONTROL, WATCHDOG_RUNS);
    fake_loop_stall(1000 * COUNT);
    assert_int_equal(f->events, 1);
    assert_int_equal(in32(WATCHDOG_LEFT), 5);
}

/* A guest that is stopped by its monitor is not called to account for that time. */
static void test_held(void **state)
{
    start(NULL);
    out32(WATCHDOG_COUNT, 10);
    out32(WATCHDOG_CONTROL, WATCHDOG_RUNS);
    fake_loop_advance(6 * COUNT);
    watchdog_hold(f->device, true);
    watchdog_hold(f->device, true);
    fake_loop_advance(1000 * COUNT);
    assert_int_equal(f->events, 0);
    watchdog_hold(f->device, false);
    assert_int_equal(in32(WATCHDOG_LEFT), 4);
    fake_loop_advance(3 * COUNT);
    assert_int_equal(f->events, 0);
    fake_loop_advance(COUNT);
    assert_int_equal(f->events, 1);
    /* One that stands is not set going by it, and a reset ends it for good. */
    watchdog_hold(f->device, true);
    watchdog_hold(f->device, false);
    assert_int_equal(fake_loop_armed(), 0);
    out32(WATCHDOG_CONTROL, WATCHDOG_RUNS);
    watchdog_hold(f->device, true);
    f->device->class->reset(f->device);
    watchdog_hold(f->device, false);
    fake_loop_advance(1000 * COUNT);
    assert_int_equal(f->events, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_idle_until_started, legacy_stop),
        cmocka_unit_test_teardown(test_expires_once, legacy_stop),
        cmocka_unit_test_teardown(test_reload_and_stop, legacy_stop),
        cmocka_unit_test_teardown(test_range_of_counts, legacy_stop),
        cmocka_unit_test_teardown(test_status_after_restart, legacy_stop),
        cmocka_unit_test_teardown(test_stalled_host, legacy_stop),
        cmocka_unit_test_teardown(test_held, legacy_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

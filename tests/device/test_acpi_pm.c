/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ACPI power management: soft off, the power button and its interrupt, the timer, accesses of any width. */
#include "device/acpi_pm.h"
#include "device/device.h"
#include "device/devices.h"
#include "legacy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SECOND 1000000000ull
/* The timer's bit 31 changes each 2^31 ticks. */
#define CARRY_NS ((1ull << 31) * SECOND / ACPI_PM_TIMER_HZ)

static struct legacy_fixture *m;

static int setup(void **state)
{
    m = legacy_start(device_class_find("acpi-pm"), NULL);
    return 0;
}

static uint16_t in16(uint16_t port)
{
    return (uint16_t)io_space_read(m->env.pio, port, 2);
}

static void out16(uint16_t port, uint16_t value)
{
    io_space_write(m->env.pio, port, 2, value);
}

static uint32_t timer(void)
{
    return (uint32_t)io_space_read(m->env.pio, ACPI_PM_TIMER, 4);
}

static void test_soft_off(void **state)
{
    out16(ACPI_PM_CONTROL, ACPI_PM_SLEEP_S5 << 10);
    assert_int_equal(m->events, 0); /* no SLP_EN */
    out16(ACPI_PM_CONTROL, 1 << 10 | 1 << 13);
    assert_int_equal(m->events, 0); /* another sleep state */
    out16(ACPI_PM_CONTROL, ACPI_PM_SLEEP_S5 << 10 | 1 << 13);
    assert_int_equal(m->events, 1);
    assert_int_equal(m->event, MACHINE_POWEROFF);
    assert_int_equal(in16(ACPI_PM_CONTROL), ACPI_PM_SLEEP_S5 << 10 | 1); /* SLP_EN reads 0 */
    /* By its high byte alone, too. */
    out8(ACPI_PM_CONTROL + 1, ACPI_PM_SLEEP_S5 << 2 | 1 << 5);
    assert_int_equal(m->events, 2);
}

static void test_control_is_always_in_acpi_mode(void **state)
{
    assert_int_equal(in16(ACPI_PM_CONTROL), 1);
    out16(ACPI_PM_CONTROL, 0);
    assert_int_equal(in16(ACPI_PM_CONTROL), 1);
}

static void test_power_button(void **state)
{
    acpi_pm_press_power_button(m->device);
    assert_false(m->level[ACPI_PM_GSI]); /* not enabled */
    assert_int_equal(in16(ACPI_PM_EVENT), 0x100);
    out16(ACPI_PM_EVENT + 2, 0x100);
    assert_true(m->level[ACPI_PM_GSI]);
    out16(ACPI_PM_EVENT, 0x0001); /* clears another bit */
    assert_true(m->level[ACPI_PM_GSI]);
    out16(ACPI_PM_EVENT, 0x100);
    assert_false(m->level[ACPI_PM_GSI]);
    assert_int_equal(io_space_read(m->env.pio, ACPI_PM_EVENT, 4), 0x100 << 16);
    acpi_pm_press_power_button(m->device);
    assert_true(m->level[ACPI_PM_GSI]);
    m->device->class->reset(m->device);
    assert_false(m->level[ACPI_PM_GSI]);
    assert_int_equal(io_space_read(m->env.pio, ACPI_PM_EVENT, 4), 0);
}

static void test_timer_runs_at_its_frequency(void **state)
{
    uint32_t first = timer();

    fake_loop_advance(SECOND);
    assert_in_range(timer() - first, ACPI_PM_TIMER_HZ - 1, ACPI_PM_TIMER_HZ + 1);
    /* 30 hours later nothing has overflowed. */
    fake_loop_advance(30 * 3600 * SECOND);
    uint64_t ticks = (30 * 3600 + 1) * (uint64_t)ACPI_PM_TIMER_HZ;
    assert_in_range((uint32_t)(timer() - first - (uint32_t)ticks) + 1, 0, 2);
    assert_int_equal(fake_loop_armed(), 0); /* nobody waits for it, so nothing wakes the host */
}

static void test_timer_carry(void **state)
{
    fake_loop_advance(CARRY_NS - 1000000);
    assert_int_equal(in16(ACPI_PM_EVENT), 0);
    fake_loop_advance(2000000);
    assert_int_equal(in16(ACPI_PM_EVENT), 1); /* seen though nobody waited */
    assert_false(m->level[ACPI_PM_GSI]);
    out16(ACPI_PM_EVENT, 1);
    assert_int_equal(in16(ACPI_PM_EVENT), 0);
    /* Enabled: the interrupt comes of itself, at the next change and again at the one after. */
    out16(ACPI_PM_EVENT + 2, 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(fake_loop_armed(), 1);
        fake_loop_advance(CARRY_NS - 4000000);
        assert_false(m->level[ACPI_PM_GSI]);
        fake_loop_advance(4000000);
        assert_true(m->level[ACPI_PM_GSI]);
        assert_int_equal(fake_loop_armed(), 0); /* until it is acknowledged */
        out16(ACPI_PM_EVENT, 1);
        assert_false(m->level[ACPI_PM_GSI]);
    }
}

static void test_any_width_at_any_offset(void **state)
{
    for (unsigned size = 1; size <= 8; size *= 2) {
        for (unsigned at = 0; at + size <= ACPI_PM_SIZE; at++) {
            io_space_write(m->env.pio, ACPI_PM_BASE + at, size, 0xdfdfdfdfdfdfdfdf); /* no SLP_EN */
            uint64_t v = io_space_read(m->env.pio, ACPI_PM_BASE + at, size);
            assert_true(size == 8 || v >> (8 * size) == 0);
        }
    }
    assert_int_equal(m->events, 0);
    /* Enable bits that do not exist stay 0. */
    assert_int_equal(in16(ACPI_PM_EVENT + 2), 0xdfdf & 0x521);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_soft_off, setup, legacy_stop),
        cmocka_unit_test_setup_teardown(test_control_is_always_in_acpi_mode, setup, legacy_stop),
        cmocka_unit_test_setup_teardown(test_power_button, setup, legacy_stop),
        cmocka_unit_test_setup_teardown(test_timer_runs_at_its_frequency, setup, legacy_stop),
        cmocka_unit_test_setup_teardown(test_timer_carry, setup, legacy_stop),
        cmocka_unit_test_setup_teardown(test_any_width_at_any_offset, setup, legacy_stop),
    };

    return cmocka_run_group_tests_name("acpi_pm", tests, NULL, NULL);
}

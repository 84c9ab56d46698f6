/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ACPI power management: soft off, the power button and its interrupt, the timer, accesses of any width. */
#include "base/error.h"
#include "device/acpi_pm.h"
#include "device/device.h"
#include "device/devices.h"
#include "host/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

struct machine {
    struct device_env env;
    struct device *pm;
    int events, last_event;
    bool sci;
};

static void on_irq(void *opaque, unsigned gsi, bool level)
{
    struct machine *m = opaque;

    assert_int_equal(gsi, 9);
    m->sci = level;
}

static void on_msi(void *opaque, uint64_t address, uint32_t data)
{
    fail();
}

static void on_event(void *opaque, enum machine_event event, int code)
{
    struct machine *m = opaque;

    m->events++;
    m->last_event = event;
}

static int setup(void **state)
{
    struct machine *m = calloc(1, sizeof(*m));

    m->env = (struct device_env){
        .pio = io_space_new("pio"), .irq_set = on_irq, .msi_send = on_msi, .event = on_event, .opaque = m};
    *state = m;
    return loop_create(&m->env.loop, NULL) ||
           device_class_find("acpi-pm")->create(&m->pm, &m->env, NULL, NULL);
}

static int teardown(void **state)
{
    struct machine *m = *state;

    m->pm->class->destroy(m->pm);
    /* Its ports are free again. */
    int rc = io_space_read(m->env.pio, ACPI_PM_CONTROL, 2) != 0xffff;
    io_space_free(m->env.pio);
    loop_free(m->env.loop);
    free(m);
    return rc;
}

static void test_soft_off(void **state)
{
    struct machine *m = *state;

    io_space_write(m->env.pio, ACPI_PM_CONTROL, 2, ACPI_PM_SLEEP_S5 << 10);
    assert_int_equal(m->events, 0); /* no SLP_EN */
    io_space_write(m->env.pio, ACPI_PM_CONTROL, 2, 1 << 10 | 1 << 13);
    assert_int_equal(m->events, 0); /* another sleep state */
    io_space_write(m->env.pio, ACPI_PM_CONTROL, 2, ACPI_PM_SLEEP_S5 << 10 | 1 << 13);
    assert_int_equal(m->events, 1);
    assert_int_equal(m->last_event, MACHINE_POWEROFF);
    assert_int_equal(io_space_read(m->env.pio, ACPI_PM_CONTROL, 2),
                     ACPI_PM_SLEEP_S5 << 10 | 1); /* SLP_EN reads 0 */
    /* By its high byte alone, too. */
    io_space_write(m->env.pio, ACPI_PM_CONTROL + 1, 1, ACPI_PM_SLEEP_S5 << 2 | 1 << 5);
    assert_int_equal(m->events, 2);
}

static void test_control_is_always_in_acpi_mode(void **state)
{
    struct machine *m = *state;

    assert_int_equal(io_space_read(m->env.pio, ACPI_PM_CONTROL, 2), 1);
    io_space_write(m->env.pio, ACPI_PM_CONTROL, 2, 0);
    assert_int_equal(io_space_read(m->env.pio, ACPI_PM_CONTROL, 2), 1);
}

static void test_power_button(void **state)
{
    struct machine *m = *state;

    acpi_pm_press_power_button(m->pm);
    assert_false(m->sci); /* not enabled */
    assert_int_equal(io_space_read(m->env.pio, ACPI_PM_EVENT, 2), 0x100);
    io_space_write(m->env.pio, ACPI_PM_EVENT + 2, 2, 0x100);
    assert_true(m->sci);
    io_space_write(m->env.pio, ACPI_PM_EVENT, 2, 0x0001); /* clears another bit */
    assert_true(m->sci);
    io_space_write(m->env.pio, ACPI_PM_EVENT, 2, 0x100);
    assert_false(m->sci);
    assert_int_equal(io_space_read(m->env.pio, ACPI_PM_EVENT, 4), 0x100 << 16);
    acpi_pm_press_power_button(m->pm);
    assert_true(m->sci);
    m->pm->class->reset(m->pm);
    assert_false(m->sci);
    assert_int_equal(io_space_read(m->env.pio, ACPI_PM_EVENT, 4), 0);
}

static void test_timer_runs_at_its_frequency(void **state)
{
    struct machine *m = *state;
    struct timespec nap = {.tv_nsec = 20 * 1000 * 1000};

    uint64_t before = loop_now(), first = io_space_read(m->env.pio, ACPI_PM_TIMER, 4), between = loop_now();
    nanosleep(&nap, NULL);
    uint64_t later = loop_now(), second = io_space_read(m->env.pio, ACPI_PM_TIMER, 4), after = loop_now();
    uint64_t ticks = (uint32_t)(second - first);
    /* Whatever the scheduler does, the reads happened between these times. */
    assert_true(ticks + 1 >= (later - between) * 3579545 / 1000000000);
    assert_true(ticks <= (after - before) * 3579545 / 1000000000 + 1);
}

static void test_any_width_at_any_offset(void **state)
{
    struct machine *m = *state;

    for (unsigned size = 1; size <= 8; size *= 2) {
        for (unsigned at = 0; at + size <= ACPI_PM_SIZE; at++) {
            uint64_t v;

            io_space_write(m->env.pio, ACPI_PM_BASE + at, size, 0xdfdfdfdfdfdfdfdf); /* no SLP_EN */
            v = io_space_read(m->env.pio, ACPI_PM_BASE + at, size);
            assert_true(size == 8 || v >> (8 * size) == 0);
        }
    }
    assert_int_equal(m->events, 0);
    /* Enable bits that do not exist stay 0. */
    assert_int_equal(io_space_read(m->env.pio, ACPI_PM_EVENT + 2, 2), 0xdfdf & 0x521);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_soft_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_control_is_always_in_acpi_mode, setup, teardown),
        cmocka_unit_test_setup_teardown(test_power_button, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_runs_at_its_frequency, setup, teardown),
        cmocka_unit_test_setup_teardown(test_any_width_at_any_offset, setup, teardown),
    };

    return cmocka_run_group_tests_name("acpi_pm", tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/device/pvpanic.c */
#include "device/pvpanic.h"

#include "device/devices.h"
#include "legacy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_panic(void **state)
{
    struct legacy_fixture *f = legacy_start(device_class_find("pvpanic"), NULL);
    assert_int_equal(in8(PVPANIC_PORT), PVPANIC_PANICKED | PVPANIC_CRASH_LOADED);
    assert_int_equal(f->events, 0);
    out8(PVPANIC_PORT, PVPANIC_PANICKED);
    assert_int_equal(f->events, 1);
    assert_int_equal(f->event, MACHINE_PANIC);
}

/* Bits without meaning do nothing, and an access that runs past the port is not the port's. */
static void test_other_values(void **state)
{
    struct legacy_fixture *f = legacy_start(device_class_find("pvpanic"), NULL);
    out8(PVPANIC_PORT, 0);
    out8(PVPANIC_PORT, 0xfc);
    io_space_write(f->env.pio, PVPANIC_PORT, 2, PVPANIC_PANICKED);
    assert_int_equal(f->events, 0);
}

static void test_crash_loaded_is_told_once(void **state)
{
    struct legacy_fixture *f = legacy_start(device_class_find("pvpanic"), NULL);
    for (int i = 0; i < 3; i++)
        out8(PVPANIC_PORT, PVPANIC_CRASH_LOADED);
    assert_int_equal(f->events, 1);
    assert_int_equal(f->event, MACHINE_CRASH_LOADED);
    /* The crash kernel may panic in its turn. */
    out8(PVPANIC_PORT, PVPANIC_PANICKED);
    assert_int_equal(f->event, MACHINE_PANIC);
    f->device->class->reset(f->device);
    out8(PVPANIC_PORT, PVPANIC_CRASH_LOADED);
    assert_int_equal(f->events, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_panic, legacy_stop),
        cmocka_unit_test_teardown(test_other_values, legacy_stop),
        cmocka_unit_test_teardown(test_crash_loaded_is_told_once, legacy_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

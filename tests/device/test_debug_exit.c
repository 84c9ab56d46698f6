/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/device/debug_exit.c */
#include "device/debug_exit.h"

#include "legacy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_values(void **state)
{
    struct legacy_fixture *f = legacy_start(&debug_exit_class, NULL);
    assert_int_equal(in8(0xf4), 0xff);
    assert_int_equal(f->events, 0);
    out8(0xf4, 0x10);
    assert_int_equal(f->events, 1);
    assert_int_equal(f->event, MACHINE_DEBUG_EXIT);
    assert_int_equal(f->code, 0x10);
    io_space_write(f->env.pio, 0xf4, 2, 0x1234);
    assert_int_equal(f->code, 0x1234);
    io_space_write(f->env.pio, 0xf4, 4, 0xfedcba98);
    assert_int_equal((unsigned)f->code, 0xfedcba98);
    assert_int_equal(f->events, 3);
    f->device->class->reset(f->device);
}

static void test_other_port(void **state)
{
    struct debug_exit_config config = {.port = 0x501};
    struct legacy_fixture *f = legacy_start(&debug_exit_class, &config);
    out8(0xf4, 1);
    assert_int_equal(f->events, 0);
    out8(0x501, 2);
    assert_int_equal(f->code, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_values, legacy_stop),
        cmocka_unit_test_teardown(test_other_port, legacy_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

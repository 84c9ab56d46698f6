/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/device/i8042.c: commands, and the sequences of kernels that look for keyboard and mouse. */
#include "legacy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define DATA    0x60
#define COMMAND 0x64

extern const struct device_class i8042_class;

static struct legacy_fixture *f;

static int start(void **state)
{
    f = legacy_start(&i8042_class, NULL);
    return 0;
}

/* What waits at 0x60: its value, or -1 if nothing does. */
static int answer(void)
{
    return in8(COMMAND) & 1 ? in8(DATA) : -1;
}

static int command(uint8_t value)
{
    out8(COMMAND, value);
    return answer();
}

static void test_commands(void **state)
{
    assert_int_equal(in8(COMMAND), 0x14);
    assert_int_equal(answer(), -1);
    assert_int_equal(command(0xaa), 0x55);
    assert_int_equal(in8(COMMAND), 0x1c);
    assert_int_equal(command(0xab), 0);
    out8(COMMAND, 0x60);
    out8(DATA, 0x47);
    assert_int_equal(in8(COMMAND) & 0x08, 0);
    assert_int_equal(command(0x20), 0x47);
    out8(COMMAND, 0x65);
    out8(DATA, 0x12);
    assert_int_equal(command(0x25), 0x12);
    assert_int_equal(command(0xad), -1);
    assert_int_equal(command(0x20), 0x57);
    assert_int_equal(command(0xae), -1);
    assert_int_equal(command(0x20), 0x47);
    assert_int_equal(command(0xa7), -1);
    assert_int_equal(command(0x20), 0x67);
    assert_int_equal(command(0xa8), -1);
    assert_int_equal(command(0x20), 0x47);
    out8(COMMAND, 0xd2);
    out8(DATA, 0x33);
    assert_int_equal(answer(), 0x33);
    assert_int_equal(command(0xd0), 0x03);
    assert_int_equal(command(0x00), -1); /* unknown */
    assert_int_equal(f->events, 0);
}

static void test_no_keyboard(void **state)
{
    out8(COMMAND, 0x60);
    out8(DATA, 0x41);
    static const uint8_t sent[] = {0xff, 0xf2, 0xed, 0xf4, 0xf5};
    for (unsigned i = 0; i < sizeof(sent); i++) {
        out8(DATA, sent[i]);
        assert_int_equal(in8(COMMAND) & 0x61, 0x41); /* a timeout, not the mouse's */
        assert_true(f->level[1]);
        assert_int_equal(answer(), 0xfe);
        assert_false(f->level[1]);
        assert_int_equal(in8(COMMAND) & 0x41, 0);
    }
    assert_int_equal(f->rises[1], 5);
    out8(COMMAND, 0x60);
    out8(DATA, 0x40); /* interrupts off */
    out8(DATA, 0xf2);
    assert_false(f->level[1]);
    assert_int_equal(answer(), 0xfe);
}

static void test_no_mouse(void **state)
{
    /* The loop test neither gives its byte back nor marks one as the mouse's ... */
    out8(COMMAND, 0xd3);
    out8(DATA, 0x5a);
    assert_int_equal(in8(COMMAND) & 0x21, 0x01);
    assert_int_not_equal(answer(), 0x5a);
    /* ... and the interface test finds a fault. */
    int result = command(0xa9);
    assert_in_range(result, 1, 4);
    out8(COMMAND, 0xd4);
    out8(DATA, 0xff);
    assert_int_equal(in8(COMMAND) & 0x61, 0x61);
    assert_int_equal(answer(), 0xfe);
    assert_int_equal(f->rises[12], 0); /* its interrupt was not enabled */
}

static void test_reset_line(void **state)
{
    out8(COMMAND, 0xfe);
    assert_int_equal(f->events, 1);
    assert_int_equal(f->event, MACHINE_RESET);
    out8(COMMAND, 0xff); /* pulses nothing */
    assert_int_equal(f->events, 1);
    out8(COMMAND, 0xd1);
    out8(DATA, 0xdf); /* A20 on, no reset */
    assert_int_equal(f->events, 1);
    assert_int_equal(command(0xd0), 0xdf);
    out8(COMMAND, 0xd1);
    out8(DATA, 0x02);
    assert_int_equal(f->events, 2);
    out8(0x92, 0x03);
    assert_int_equal(f->events, 3);
}

static void test_a20(void **state)
{
    assert_int_equal(in8(0x92), 0x02);
    out8(0x92, 0x00);
    assert_int_equal(in8(0x92), 0x00);
    assert_int_equal(command(0xd0) & 2, 0);
    out8(COMMAND, 0xd1);
    out8(DATA, 0x03);
    assert_int_equal(in8(0x92), 0x02);
    assert_int_equal(f->events, 0);
}

static void test_reset(void **state)
{
    out8(COMMAND, 0xd2);
    out8(DATA, 1);
    assert_true(f->level[1]);
    f->device->class->reset(f->device);
    assert_false(f->level[1]);
    assert_int_equal(in8(COMMAND), 0x14);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_commands, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_no_keyboard, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_no_mouse, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_reset_line, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_a20, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_reset, start, legacy_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

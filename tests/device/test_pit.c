/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/device/pit.c against the 8254 data sheet. */
#include "legacy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define CONTROL 0x43
#define PORT_B  0x61

extern const struct device_class pit_class;

static struct legacy_fixture *f;

static int start(void **state)
{
    f = legacy_start(&pit_class, NULL);
    return 0;
}

/* The time of `n` ticks of 1.193182 MHz, rounded up. */
static uint64_t ticks(uint64_t n)
{
    return (n * 1000000000 + 1193181) / 1193182;
}

static void program(unsigned channel, unsigned mode, uint16_t count)
{
    out8(CONTROL, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    out8((uint16_t)(0x40 + channel), (uint8_t)count);
    out8((uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}

static uint16_t count(unsigned channel)
{
    out8(CONTROL, (uint8_t)(channel << 6));
    uint8_t low = in8((uint16_t)(0x40 + channel));
    return (uint16_t)(low | in8((uint16_t)(0x40 + channel)) << 8);
}

static bool out2(void)
{
    return in8(PORT_B) & 0x20;
}

static void test_silent_until_programmed(void **state)
{
    fake_loop_advance(1000000000);
    assert_int_equal(f->changes[0], 0);
    assert_int_equal(fake_loop_armed(), 0);
}

static void test_rate_generator(void **state)
{
    program(0, 2, 11932); /* 100 Hz */
    unsigned before = f->rises[0];
    fake_loop_advance(1000000000);
    assert_in_range(f->rises[0] - before, 99, 100);
    fake_loop_advance(59ull * 1000000000);
    assert_in_range(f->rises[0] - before, 5999, 6000);
    uint16_t c = count(0);
    assert_in_range(c, 1, 11932);
    program(0, 2, 1000);
    assert_int_equal(count(0), 1000);
    fake_loop_advance(ticks(1));
    assert_int_equal(count(0), 999);
    fake_loop_advance(ticks(998));
    assert_int_equal(count(0), 1);
    fake_loop_advance(ticks(1) + 2);
    assert_int_equal(count(0), 1000);
    /* programming mode 0 stops it */
    before = f->rises[0];
    out8(CONTROL, 0x30);
    assert_false(f->level[0]);
    fake_loop_advance(1000000000);
    assert_int_equal(f->rises[0], before);
    assert_int_equal(fake_loop_armed(), 0);
}

static void test_square_wave(void **state)
{
    out8(PORT_B, 1);
    program(2, 3, 1000);
    assert_int_equal(count(2), 1000);
    assert_true(out2());
    fake_loop_advance(ticks(499));
    assert_int_equal(count(2), 2);
    assert_true(out2());
    fake_loop_advance(ticks(1) + 2);
    assert_false(out2());
    assert_int_equal(count(2), 1000);
    fake_loop_advance(ticks(500));
    assert_true(out2());
    /* odd: one tick longer up than down */
    unsigned up = 0;
    program(2, 3, 7);
    for (int i = 0; i < 7000; i++) {
        fake_loop_advance(ticks(1));
        up += out2();
    }
    assert_in_range(up, 3950, 4050);
    /* the gate forces the output up, and its rise starts a period */
    program(2, 3, 1000);
    fake_loop_advance(ticks(700));
    assert_false(out2());
    out8(PORT_B, 0);
    assert_true(out2());
    out8(PORT_B, 1);
    assert_int_equal(count(2), 1000);
    program(0, 3, 0); /* 65536: 18.2 Hz */
    unsigned before = f->rises[0];
    fake_loop_advance(10000000000ull);
    assert_in_range(f->rises[0] - before, 181, 183);
}

static void test_terminal_count(void **state)
{
    program(0, 0, 1193);
    assert_false(f->level[0]);
    fake_loop_advance(ticks(1193) - 1000);
    assert_false(f->level[0]);
    fake_loop_advance(1000);
    assert_true(f->level[0]);
    fake_loop_advance(1000000000);
    assert_int_equal(f->rises[0], 1);
    out8(CONTROL, 0x30);
    assert_false(f->level[0]);
    /* only when both bytes are there; a half-written count stops it */
    out8(0x40, 100);
    fake_loop_advance(1000000000);
    assert_int_equal(f->rises[0], 1);
    out8(0x40, 0);
    fake_loop_advance(ticks(100));
    assert_int_equal(f->rises[0], 2);
    program(0, 0, 1000);
    out8(0x40, 1);
    fake_loop_advance(1000000000);
    assert_int_equal(f->rises[0], 2);
    /* the counter goes on below zero */
    program(1, 0, 10);
    fake_loop_advance(ticks(13));
    assert_int_equal(count(1), 0xfffd);
}

/* How kernels measure the TSC: channel 2, mode 0, gated by port B. */
static void test_gated_terminal_count(void **state)
{
    out8(PORT_B, 0);
    program(2, 0, 1000);
    fake_loop_advance(ticks(5000));
    assert_int_equal(count(2), 1000);
    assert_false(out2());
    out8(PORT_B, 1);
    fake_loop_advance(ticks(600));
    assert_int_equal(count(2), 400);
    out8(PORT_B, 0);
    fake_loop_advance(ticks(5000));
    assert_in_range(count(2), 399, 400);
    out8(PORT_B, 1);
    fake_loop_advance(ticks(398));
    assert_false(out2());
    fake_loop_advance(ticks(3));
    assert_true(out2());
}

static void test_one_shots(void **state)
{
    program(2, 1, 100);
    assert_true(out2());
    fake_loop_advance(ticks(1000));
    assert_true(out2());
    out8(PORT_B, 1); /* trigger */
    assert_false(out2());
    fake_loop_advance(ticks(50));
    out8(0x42, 200); /* the new count is for the next run */
    out8(0x42, 0);
    assert_false(out2());
    fake_loop_advance(ticks(51));
    assert_true(out2());
    out8(PORT_B, 0);
    out8(PORT_B, 1);
    fake_loop_advance(ticks(101));
    assert_false(out2());
    out8(PORT_B, 0);
    out8(PORT_B, 1); /* again, while it runs */
    fake_loop_advance(ticks(198));
    assert_false(out2());
    fake_loop_advance(ticks(3));
    assert_true(out2());
    /* strobes: down for one tick at the end */
    program(2, 5, 100);
    assert_true(out2());
    out8(PORT_B, 0);
    out8(PORT_B, 1);
    fake_loop_advance(ticks(99));
    assert_true(out2());
    fake_loop_advance(ticks(1) + 1);
    assert_false(out2());
    fake_loop_advance(ticks(1));
    assert_true(out2());
    program(0, 4, 100);
    unsigned before = f->rises[0];
    fake_loop_advance(ticks(1000) + 100000);
    assert_int_equal(f->rises[0], before + 1);
}

static void test_access_modes(void **state)
{
    out8(CONTROL, 0x54); /* channel 1, low byte, mode 2 */
    out8(0x41, 100);
    assert_int_equal(in8(0x41), 100);
    assert_int_equal(in8(0x41), 100);
    out8(CONTROL, 0x64); /* high byte */
    out8(0x41, 3);
    assert_int_equal(in8(0x41), 3);
    program(1, 2, 0x1234);
    assert_int_equal(in8(0x41), 0x34);
    assert_int_equal(in8(0x41), 0x12);
    /* a latched count stays until it is read */
    out8(CONTROL, 0x40);
    fake_loop_advance(ticks(0x100));
    out8(CONTROL, 0x40);
    assert_int_equal(in8(0x41), 0x34);
    assert_int_equal(in8(0x41), 0x12);
    assert_int_equal(in8(0x41), 0x34); /* 0x1134 by now */
    assert_int_equal(in8(0x41), 0x11);
    out8(CONTROL, 0xb5 - 0x40 + 0x00); /* channel 1, both, mode 2, BCD */
    out8(0x41, 0x00);
    out8(0x41, 0x10);
    assert_int_equal(count(1), 0x1000);
    fake_loop_advance(ticks(1));
    assert_int_equal(count(1), 0x0999);
    out8(0x41, 0x00);
    out8(0x41, 0x00);
    fake_loop_advance(ticks(1));
    assert_int_equal(count(1), 0x9999);
    assert_int_equal(in8(CONTROL), 0xff);
}

static void test_read_back(void **state)
{
    program(1, 2, 0x8000);
    program(0, 0, 5);
    out8(CONTROL, 0xc2 | 0x04); /* count and status of 0 and 1 */
    fake_loop_advance(1000000);
    assert_int_equal(in8(0x41), 0xb4); /* out, both bytes, mode 2 */
    assert_int_equal(in8(0x41), 0x00);
    assert_int_equal(in8(0x41), 0x80);
    assert_int_equal(in8(0x40), 0x30);
    assert_int_equal(in8(0x40), 5);
    assert_int_equal(in8(0x40), 0);
    out8(CONTROL, 0xe2); /* status only */
    assert_int_equal(in8(0x40), 0xb0);
    out8(CONTROL, 0x30);
    out8(CONTROL, 0xe2);
    assert_int_equal(in8(0x40), 0x70); /* no count yet */
}

static void test_port_b(void **state)
{
    out8(PORT_B, 0xff);
    assert_int_equal(in8(PORT_B) & 0xcf, 0x0f);
    uint8_t a = in8(PORT_B);
    fake_loop_advance(15085);
    assert_int_equal((a ^ in8(PORT_B)) & 0x10, 0x10);
}

/* A period of a microsecond must not keep the host busy. */
static void test_too_fast(void **state)
{
    program(0, 2, 2);
    unsigned before = f->changes[0];
    for (int i = 0; i < 1000; i++)
        fake_loop_advance(10000);
    assert_in_range(f->changes[0] - before, 100, 402);
    program(0, 3, 1);
    for (int i = 0; i < 100; i++)
        fake_loop_advance(10000);
}

static void test_reset(void **state)
{
    program(0, 2, 1000);
    fake_loop_advance(10000000);
    f->device->class->reset(f->device);
    assert_false(f->level[0]);
    assert_int_equal(fake_loop_armed(), 0);
    assert_int_equal(in8(PORT_B) & 0x0f, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_silent_until_programmed, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_rate_generator, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_square_wave, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_terminal_count, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_gated_terminal_count, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_one_shots, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_access_modes, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_read_back, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_port_b, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_too_fast, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_reset, start, legacy_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

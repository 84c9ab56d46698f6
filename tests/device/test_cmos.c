/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/device/cmos.c against the MC146818A data sheet. */
#include "device/cmos.h"

#include "legacy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define IRQ 8

static struct legacy_fixture *f;
static uint64_t epoch; /* the time of day at loop time 0 */

static uint64_t realtime(void *opaque)
{
    return epoch + loop_now();
}

static void set_host(uint64_t seconds, uint64_t ns)
{
    epoch = seconds * 1000000000 + ns - loop_now();
}

static uint8_t get(uint8_t index)
{
    out8(0x70, index);
    return in8(0x71);
}

static void set(uint8_t index, uint8_t value)
{
    out8(0x70, index);
    out8(0x71, value);
}

static int start(void **state)
{
    set_host(1709210096, 0); /* Thu 2024-02-29 12:34:56 UTC */
    struct cmos_config config = {.memory = 6ull << 30, .realtime = realtime};
    f = legacy_start(&cmos_class, &config);
    return 0;
}

static void assert_time(uint8_t s, uint8_t m, uint8_t h, uint8_t wd, uint8_t d, uint8_t mo, uint8_t y,
                        uint8_t c)
{
    assert_int_equal(get(0), s);
    assert_int_equal(get(2), m);
    assert_int_equal(get(4), h);
    assert_int_equal(get(6), wd);
    assert_int_equal(get(7), d);
    assert_int_equal(get(8), mo);
    assert_int_equal(get(9), y);
    assert_int_equal(get(0x32), c);
}

static void test_time(void **state)
{
    assert_int_equal(get(0x0a), 0x26);
    assert_int_equal(get(0x0b), 0x02);
    assert_int_equal(get(0x0d), 0x80);
    assert_int_equal(in8(0x70), 0xff);
    assert_time(0x56, 0x34, 0x12, 5, 0x29, 0x02, 0x24, 0x20);
    set(0x0b, 0x06); /* binary */
    assert_time(56, 34, 12, 5, 29, 2, 24, 20);
    set(0x0b, 0x00); /* twelve hours */
    assert_int_equal(get(4), 0x92);
    fake_loop_advance(12 * 3600 * 1000000000ull);
    assert_int_equal(get(4), 0x12);
    assert_int_equal(get(8), 0x03); /* the day after 29 February */
    assert_int_equal(get(7), 0x01);
    fake_loop_advance(3600 * 1000000000ull);
    assert_int_equal(get(4), 0x01);
    set(0x0b, 0x04);
    fake_loop_advance(20 * 3600 * 1000000000ull);
    assert_int_equal(get(4), 0x80 | 9);
    set_host(4102444799, 0); /* 2099-12-31 23:59:59 */
    set(0x0b, 0x02);
    fake_loop_advance(1000000000);
    assert_time(0, 0, 0, 6, 1, 1, 0, 0x21);
    /* the index port's top bit is not part of the index */
    assert_int_equal(get(0x80 | 0x0d), 0x80);
}

static void test_set_time(void **state)
{
    fake_loop_advance(300000000);
    set(0x0b, 0x82);
    assert_int_equal(get(0), 0x56);
    fake_loop_advance(5000000000ull);
    assert_int_equal(get(0), 0x56); /* stands */
    assert_int_equal(get(0x0a) & 0x80, 0);
    set(0, 0x30);
    set(2, 0x59);
    set(4, 0x23);
    set(7, 0x31);
    set(8, 0x12);
    set(9, 0x99);
    set(0x32, 0x19);
    assert_int_equal(get(9), 0x99);
    set(0x0b, 0x02);
    assert_time(0x30, 0x59, 0x23, 6, 0x31, 0x12, 0x99, 0x19);
    fake_loop_advance(30000000000ull);
    assert_time(0, 0, 0, 7, 1, 1, 0, 0x20);
    /* a register at a time, without stopping the clock */
    set(4, 0x15);
    assert_int_equal(get(4), 0x15);
    assert_int_equal(get(7), 0x01);
    /* the way of Linux: the divider is reset, and half a second after its release the next second begins */
    set(0x0b, 0x82);
    set(0x0a, 0x76);
    set(0, 0x10);
    set(0x0b, 0x02);
    set(0x0a, 0x26);
    assert_int_equal(get(0), 0x10);
    fake_loop_advance(499000000);
    assert_int_equal(get(0), 0x10);
    fake_loop_advance(2000000);
    assert_int_equal(get(0), 0x11);
    /* the guest's clock survives its reset */
    f->device->class->reset(f->device);
    assert_int_equal(get(0), 0x11);
    assert_int_equal(get(4), 0x15);
}

static void test_nonsense_time(void **state)
{
    static const uint8_t values[] = {0x00, 0x0f, 0x99, 0xff, 0xa5, 0x7f, 0x80};
    srand(1);
    for (int i = 0; i < 3000; i++) {
        set(0x0b, (uint8_t)(rand() & 0x86));
        static const uint8_t regs[] = {0, 2, 4, 6, 7, 8, 9, 0x32, 1, 3, 5};
        set(regs[rand() % 11], values[rand() % 7]);
        set(0x0b, (uint8_t)(rand() & 0x76));
        fake_loop_advance(1234567890);
        get(0x0c);
    }
    /* the last year there is, and one that BCD can't say */
    set(0x0b, 0x82);
    set(0x32, 0x99);
    set(9, 0x99);
    set(8, 0x12);
    set(7, 0x31);
    set(4, 0x23);
    set(0x0b, 0x02);
    assert_int_equal(get(0x32), 0x99);
    assert_int_equal(get(9), 0x99);
    set(0x32, 0xff);
    fake_loop_advance(86400 * 1000000000ull);
    get(0x0c);
    set(0x0b, 0x82);
    for (unsigned i = 0; i < 10; i++)
        set((uint8_t)i, 1);
    set(0x32, 0x20);
    set(0x0b, 0x02);
    assert_int_equal(get(9), 1);
}

static void test_update_in_progress(void **state)
{
    assert_int_equal(get(0x0a), 0x26);
    fake_loop_advance(997700000);
    assert_int_equal(get(0x0a), 0x26);
    fake_loop_advance(100000);
    assert_int_equal(get(0x0a), 0xa6);
    fake_loop_advance(2199999);
    assert_int_equal(get(0x0a), 0xa6);
    fake_loop_advance(1);
    assert_int_equal(get(0x0a), 0x26);
}

static void test_update_interrupt(void **state)
{
    set(0x0a, 0x20); /* no periods */
    assert_int_equal(get(0x0c), 0);
    fake_loop_advance(1000000000);
    assert_int_equal(get(0x0c), 0x10); /* the flag comes in any case, the interrupt not */
    assert_int_equal(fake_loop_armed(), 0);
    set(0x0b, 0x12);
    assert_false(f->level[IRQ]);
    fake_loop_advance(999999999);
    assert_false(f->level[IRQ]);
    fake_loop_advance(1);
    assert_true(f->level[IRQ]);
    fake_loop_advance(5000000000ull); /* nobody reads: nothing more to do */
    assert_int_equal(f->rises[IRQ], 1);
    assert_int_equal(get(0x0c), 0x90);
    assert_false(f->level[IRQ]);
    assert_int_equal(get(0x0c), 0);
    for (int i = 0; i < 10; i++) {
        fake_loop_advance(1000000000);
        assert_int_equal(get(0x0c), 0x90);
    }
    assert_int_equal(f->rises[IRQ], 11);
    set(0x0b, 0x92); /* setting the time takes the enable away */
    assert_int_equal(get(0x0b), 0x82);
}

static void test_periodic_interrupt(void **state)
{
    static const struct {
        uint8_t rate;
        unsigned hz;
    } rows[] = {{3, 8192}, {6, 1024}, {10, 64}, {15, 2}, {1, 256}, {2, 128}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        set(0x0a, (uint8_t)(0x20 | rows[i].rate));
        set(0x0b, 0x42);
        get(0x0c);
        unsigned before = f->rises[IRQ];
        for (int k = 0; k < 100000; k++) { /* a second; 1/8192 s is 122 us */
            fake_loop_advance(10000);
            if (f->level[IRQ])
                assert_int_equal(get(0x0c) & 0xc0, 0xc0);
        }
        assert_in_range(f->rises[IRQ] - before, rows[i].hz - 1, rows[i].hz + 1);
    }
    set(0x0a, 0x20); /* rate 0: none */
    get(0x0c);
    assert_int_equal(fake_loop_armed(), 0);
    fake_loop_advance(1000000000);
    assert_int_equal(get(0x0c) & 0x40, 0);
}

static void test_alarm(void **state)
{
    /* it is 12:34:56 */
    set(0x0a, 0x20); /* no periods */
    set(1, 0x05);
    set(3, 0x36);
    set(5, 0x12);
    set(0x0b, 0x22);
    fake_loop_advance(68999999999ull);
    assert_false(f->level[IRQ]);
    fake_loop_advance(1);
    assert_true(f->level[IRQ]);
    assert_int_equal(get(0x0c), 0xb0);
    /* any hour, any minute: once a minute */
    set(5, 0xc0);
    set(3, 0xff);
    unsigned before = f->rises[IRQ];
    for (int i = 0; i < 600; i++) {
        fake_loop_advance(1000000000);
        if (f->level[IRQ])
            get(0x0c);
    }
    assert_int_equal(f->rises[IRQ] - before, 10);
    /* tomorrow, in binary and afternoon */
    set(0x0b, 0x24);
    set(1, 0);
    set(3, 0);
    set(5, 0x80 | 1);
    before = f->rises[IRQ];
    fake_loop_advance(14 * 60 * 1000000000ull); /* 12:46 + 14 min */
    assert_int_equal(f->rises[IRQ], before + 1);
    get(0x0c);
    fake_loop_advance(86394 * 1000000000ull); /* it was five seconds later */
    assert_int_equal(f->rises[IRQ], before + 1);
    fake_loop_advance(2 * 1000000000ull);
    assert_int_equal(f->rises[IRQ], before + 2);
    get(0x0c);
    /* no such time: never, and nothing to wait for */
    set(3, 77);
    assert_int_equal(fake_loop_armed(), 0);
    /* a flag without its interrupt, seen late */
    set(0x0b, 0x04);
    set(1, 0xc0);
    set(3, 0xc0);
    set(5, 0xc0);
    get(0x0c);
    fake_loop_advance(3000000000ull);
    assert_int_equal(get(0x0c), 0x30);
}

static void test_memory(void **state)
{
    assert_int_equal(get(0x15) | get(0x16) << 8, 640);
    assert_int_equal(get(0x17) | get(0x18) << 8, 0xffff);
    assert_int_equal(get(0x30) | get(0x31) << 8, 0xffff);
    assert_int_equal(get(0x34) | get(0x35) << 8, (3072 - 16) * 16);
    assert_int_equal(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 3072 * 16);
    unsigned sum = 0;
    for (uint8_t i = 0x10; i < 0x2e; i++)
        sum += get(i);
    assert_int_equal(get(0x2e) << 8 | get(0x2f), sum & 0xffff);
    set(0x40, 0x5a);
    f->device->class->reset(f->device);
    assert_int_equal(get(0x40), 0x5a);
    legacy_stop(NULL);

    struct cmos_config small = {.memory = 32 << 20, .realtime = realtime};
    legacy_start(&cmos_class, &small);
    assert_int_equal(get(0x17) | get(0x18) << 8, 31 * 1024);
    assert_int_equal(get(0x34) | get(0x35) << 8, 16 * 16);
    assert_int_equal(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 0);
}

static void test_host_clock(void **state)
{
    legacy_stop(NULL);
    legacy_start(&cmos_class, NULL);
    assert_in_range(get(0x32), 0x20, 0x22);
    assert_in_range(get(8), 0x01, 0x12);
}

static void test_reset(void **state)
{
    set(0x0b, 0x72);
    set(0x0a, 0x26);
    fake_loop_advance(2000000000);
    assert_true(f->level[IRQ]);
    f->device->class->reset(f->device);
    assert_false(f->level[IRQ]);
    assert_int_equal(get(0x0b), 0x02);
    assert_int_equal(fake_loop_armed(), 0);
}

static void test_wide_access(void **state)
{
    io_space_write(f->env.pio, 0x70, 2, 0xa540); /* index and data */
    assert_int_equal(get(0x40), 0xa5);
    assert_int_equal(io_space_read(f->env.pio, 0x70, 2), 0xa5ff);
    assert_int_equal(io_space_read(f->env.pio, 0x70, 4), 0xffffffff);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_time, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_set_time, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_nonsense_time, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_update_in_progress, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_update_interrupt, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_periodic_interrupt, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_alarm, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_memory, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_host_clock, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_reset, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_wide_access, start, legacy_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/device/pic.c against the 8259A data sheet. */
#include "device/pic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct {
    struct io_space *pio;
    struct pic *pic;
    bool intr;
    unsigned changes;
} t;

static void on_intr(void *opaque, bool level)
{
    t.intr = level;
    t.changes++;
}

static uint8_t in8(uint16_t port)
{
    return (uint8_t)io_space_read(t.pio, port, 1);
}

static void out8(uint16_t port, uint8_t value)
{
    io_space_write(t.pio, port, 1, value);
}

/* As kernels do: vectors from 0x20 and 0x28, `icw4` for the master; nothing masked. */
static void init(uint8_t icw4)
{
    out8(0x20, 0x11);
    out8(0x21, 0x20);
    out8(0x21, 0x04);
    out8(0x21, icw4);
    out8(0xa0, 0x11);
    out8(0xa1, 0x28);
    out8(0xa1, 0x02);
    out8(0xa1, 0x01);
    out8(0x21, 0x00);
    out8(0xa1, 0x00);
}

static int start(void **state)
{
    t.intr = false;
    t.changes = 0;
    t.pio = io_space_new("pio");
    assert_int_equal(pic_create(&t.pic, t.pio, on_intr, NULL), 0);
    init(0x01);
    return 0;
}

static int stop(void **state)
{
    pic_free(t.pic);
    io_space_free(t.pio);
    return 0;
}

static void pulse(unsigned irq)
{
    pic_set(t.pic, irq, true);
    pic_set(t.pic, irq, false);
}

static void test_vectors(void **state)
{
    for (unsigned irq = 0; irq < 16; irq++) {
        if (irq == 2)
            continue;
        assert_false(t.intr);
        pic_set(t.pic, irq, true);
        assert_true(t.intr);
        assert_int_equal(pic_acknowledge(t.pic), 0x20 + irq);
        assert_false(t.intr);
        pic_set(t.pic, irq, false);
        pic_set(t.pic, irq, true); /* in service: waits */
        assert_false(t.intr);
        if (irq >= 8)
            out8(0xa0, 0x20);
        out8(0x20, 0x20);
        assert_true(t.intr);
        assert_int_equal(pic_acknowledge(t.pic), 0x20 + irq);
        if (irq >= 8)
            out8(0xa0, 0x60 | (irq & 7));
        out8(0x20, 0x60 | (irq >= 8 ? 2 : irq));
        pic_set(t.pic, irq, false);
    }
    assert_int_equal(pic_acknowledge(t.pic), -1);
    pic_set(t.pic, 2, true);
    pic_set(t.pic, 16, true);
    assert_false(t.intr);
}

static void test_priorities(void **state)
{
    pulse(5);
    pulse(3);
    pulse(12);
    assert_int_equal(in8(0x20), 0x2c); /* IRR, the cascade among it */
    assert_int_equal(in8(0xa0), 0x10);
    assert_int_equal(pic_acknowledge(t.pic), 0x2c);
    assert_false(t.intr);
    pulse(0); /* more urgent than what is served */
    assert_true(t.intr);
    assert_int_equal(pic_acknowledge(t.pic), 0x20);
    out8(0x20, 0x0b);
    out8(0xa0, 0x0b);
    assert_int_equal(in8(0x20), 0x05); /* ISR */
    assert_int_equal(in8(0xa0), 0x10);
    out8(0x20, 0x20); /* ends 0 */
    assert_int_equal(in8(0x20), 0x04);
    assert_false(t.intr);
    out8(0xa0, 0x20);
    out8(0x20, 0x20);
    assert_true(t.intr);
    assert_int_equal(pic_acknowledge(t.pic), 0x23);
    out8(0x20, 0x20);
    assert_int_equal(pic_acknowledge(t.pic), 0x25);
    out8(0x20, 0x20);
    assert_false(t.intr);
}

/* A more urgent request of the slave while a lesser one of it is served, in both nesting modes. */
static void test_slave_nesting(void **state)
{
    pulse(12);
    assert_int_equal(pic_acknowledge(t.pic), 0x2c);
    pulse(8);
    assert_false(t.intr);
    out8(0xa0, 0x20);
    out8(0x20, 0x20);
    assert_int_equal(pic_acknowledge(t.pic), 0x28);
    out8(0xa0, 0x20);
    out8(0x20, 0x20);
    init(0x11); /* special fully nested */
    pulse(12);
    assert_int_equal(pic_acknowledge(t.pic), 0x2c);
    pulse(8);
    assert_true(t.intr);
    assert_int_equal(pic_acknowledge(t.pic), 0x28);
    assert_false(t.intr);
}

static void test_masks(void **state)
{
    out8(0x21, 0xff);
    pulse(4);
    assert_false(t.intr);
    assert_int_equal(in8(0x21), 0xff);
    out8(0x21, 0xef); /* an edge is kept while masked */
    assert_true(t.intr);
    assert_int_equal(pic_acknowledge(t.pic), 0x24);
    out8(0x20, 0x20);
    out8(0x21, 0xfb);
    out8(0xa1, 0xfd);
    pulse(9);
    assert_true(t.intr);
    out8(0xa1, 0xff);
    assert_false(t.intr);
    out8(0xa1, 0xfd);
    assert_int_equal(pic_acknowledge(t.pic), 0x29);
}

static void test_levels(void **state)
{
    out8(0x4d0, 0xff);
    out8(0x4d1, 0xff);
    assert_int_equal(in8(0x4d0), 0xf8); /* timer, keyboard and cascade are edges */
    assert_int_equal(in8(0x4d1), 0xde);
    pic_set(t.pic, 11, true);
    assert_int_equal(pic_acknowledge(t.pic), 0x2b);
    out8(0xa0, 0x20);
    out8(0x20, 0x20);
    assert_true(t.intr); /* still up: again */
    pic_set(t.pic, 11, false);
    assert_false(t.intr);
    assert_int_equal(pic_acknowledge(t.pic), -1);
    pic_set(t.pic, 5, true);
    out8(0x20, 0x11); /* initialisation forgets edges, not levels */
    out8(0x21, 0x20);
    out8(0x21, 0x04);
    out8(0x21, 0x01);
    out8(0x21, 0x00);
    assert_int_equal(pic_acknowledge(t.pic), 0x25);
}

static void test_initialisation_forgets_edges(void **state)
{
    pic_set(t.pic, 3, true);
    assert_true(t.intr);
    init(0x01);
    assert_false(t.intr);
    pic_set(t.pic, 3, false);
    pic_set(t.pic, 3, true);
    assert_true(t.intr);
}

static void test_auto_eoi(void **state)
{
    init(0x03);
    pulse(1);
    assert_int_equal(pic_acknowledge(t.pic), 0x21);
    out8(0x20, 0x0b);
    assert_int_equal(in8(0x20), 0);
    pulse(1);
    assert_int_equal(pic_acknowledge(t.pic), 0x21);
}

static void test_rotation(void **state)
{
    pulse(1);
    pulse(4);
    assert_int_equal(pic_acknowledge(t.pic), 0x21);
    out8(0x20, 0xa0); /* rotate on non-specific EOI: 1 is the last now */
    pulse(1);
    assert_int_equal(pic_acknowledge(t.pic), 0x24);
    out8(0x20, 0x20);
    assert_int_equal(pic_acknowledge(t.pic), 0x21);
    out8(0x20, 0xe1); /* rotate on specific EOI */
    out8(0x20, 0xc4); /* set priority: 5 is the first */
    pulse(4);
    pulse(6);
    pulse(0);
    assert_int_equal(pic_acknowledge(t.pic), 0x26);
    out8(0x20, 0x20);
    assert_int_equal(pic_acknowledge(t.pic), 0x20);
    out8(0x20, 0x20);
    assert_int_equal(pic_acknowledge(t.pic), 0x24);
}

static void test_special_mask(void **state)
{
    pulse(1);
    assert_int_equal(pic_acknowledge(t.pic), 0x21);
    pulse(5);
    assert_false(t.intr);
    out8(0x21, 0x02);
    out8(0x20, 0x68); /* special mask mode */
    assert_true(t.intr);
    assert_int_equal(pic_acknowledge(t.pic), 0x25);
    pulse(5);
    assert_false(t.intr); /* its own service holds it back */
    pulse(7);
    assert_int_equal(pic_acknowledge(t.pic), 0x27);
    out8(0x20, 0x48); /* off again */
}

static void test_poll(void **state)
{
    pulse(6);
    out8(0x20, 0x0c);
    assert_int_equal(in8(0x20), 0x86);
    assert_false(t.intr);
    out8(0x20, 0x0c);
    assert_int_equal(in8(0x20), 0);
    out8(0x20, 0x0b);
    assert_int_equal(in8(0x20), 0x40);
}

static void test_reset(void **state)
{
    pic_set(t.pic, 4, true);
    assert_true(t.intr);
    pic_set(t.pic, 4, false);
    pic_reset(t.pic);
    assert_false(t.intr);
    assert_int_equal(in8(0x21), 0);
    assert_int_equal(in8(0x4d0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_vectors, start, stop),
        cmocka_unit_test_setup_teardown(test_priorities, start, stop),
        cmocka_unit_test_setup_teardown(test_slave_nesting, start, stop),
        cmocka_unit_test_setup_teardown(test_masks, start, stop),
        cmocka_unit_test_setup_teardown(test_levels, start, stop),
        cmocka_unit_test_setup_teardown(test_initialisation_forgets_edges, start, stop),
        cmocka_unit_test_setup_teardown(test_auto_eoi, start, stop),
        cmocka_unit_test_setup_teardown(test_rotation, start, stop),
        cmocka_unit_test_setup_teardown(test_special_mask, start, stop),
        cmocka_unit_test_setup_teardown(test_poll, start, stop),
        cmocka_unit_test_setup_teardown(test_reset, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/device/uart16550.c against the PC16550D data sheet. */
#include "device/uart16550.h"

#include "device/char.h"
#include "legacy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define COM1 0x3f8
#define DATA (COM1 + 0)
#define IER  (COM1 + 1)
#define IIR  (COM1 + 2)
#define FCR  (COM1 + 2)
#define LCR  (COM1 + 3)
#define MCR  (COM1 + 4)
#define LSR  (COM1 + 5)
#define MSR  (COM1 + 6)
#define SCR  (COM1 + 7)

static struct {
    struct char_backend backend;
    char text[20000];
    size_t len, room;
    unsigned calls, invitations;
} far;

static struct legacy_fixture *f;

static size_t far_output(struct char_backend *backend, const uint8_t *bytes, size_t len)
{
    size_t n = len < far.room ? len : far.room;
    memcpy(far.text + far.len, bytes, n);
    far.len += n;
    far.room -= n;
    far.calls++;
    return n;
}

static void far_input_ready(struct char_backend *backend)
{
    far.invitations++;
}

static int start(void **state)
{
    memset(&far, 0, sizeof(far));
    far.backend.output = far_output;
    far.backend.input_ready = far_input_ready;
    far.room = sizeof(far.text);
    struct uart16550_config config = {.backend = &far.backend};
    f = legacy_start(&uart16550_class, &config);
    return 0;
}

static size_t type(const char *text, size_t len)
{
    return far.backend.input(far.backend.device, (const uint8_t *)text, len);
}

static void test_power_on(void **state)
{
    assert_int_equal(in8(IER), 0);
    assert_int_equal(in8(IIR), 0x01);
    assert_int_equal(in8(LCR), 0);
    assert_int_equal(in8(MCR), 0);
    assert_int_equal(in8(LSR), 0x60);
    assert_int_equal(in8(MSR), 0xb0);
    assert_int_equal(in8(DATA), 0);
    assert_false(f->level[4]);
    /* how drivers find a 16550A */
    out8(SCR, 0x5a);
    assert_int_equal(in8(SCR), 0x5a);
    out8(FCR, 0x01);
    assert_int_equal(in8(IIR), 0xc1);
    out8(FCR, 0x00);
    assert_int_equal(in8(IIR), 0x01);
    out8(IER, 0xff);
    assert_int_equal(in8(IER), 0x0f);
    out8(MCR, 0xff);
    assert_int_equal(in8(MCR), 0x1f);
    out8(LSR, 0xff);
    assert_int_equal(in8(LSR) & 0x9f, 0);
}

static void test_divisor(void **state)
{
    out8(LCR, 0x83);
    out8(DATA, 1);
    out8(IER, 2);
    assert_int_equal(in8(DATA), 1);
    assert_int_equal(in8(IER), 2);
    out8(LCR, 0x03);
    assert_int_equal(in8(IER), 0);
    fake_loop_advance(10000000);
    assert_int_equal(far.len, 0);
}

static void test_output_is_batched(void **state)
{
    static const char text[] = "Linux version 6.1";
    for (const char *p = text; *p; p++) {
        assert_int_equal(in8(LSR) & 0x60, 0x60); /* always ready, though nothing has left yet */
        out8(DATA, (uint8_t)*p);
    }
    assert_int_equal(far.calls, 0);
    fake_loop_advance(1000000);
    assert_int_equal(far.calls, 1);
    assert_int_equal(far.len, strlen(text));
    assert_memory_equal(far.text, text, far.len);
    assert_int_equal(fake_loop_armed(), 0); /* an idle line costs nothing */
    /* a lot of it leaves before the time is over */
    for (int i = 0; i < 10000; i++)
        out8(DATA, (uint8_t)('a' + i % 26));
    assert_in_range(far.len, 17 + 8000, 17 + 10000);
    assert_in_range(far.calls, 2, 5);
    fake_loop_advance(1000000);
    assert_int_equal(far.len, 17 + 10000);
    for (int i = 0; i < 10000; i++)
        assert_int_equal(far.text[17 + i], 'a' + i % 26);
}

static void test_backend_is_full(void **state)
{
    far.room = 10;
    out8(MCR, 0x08);
    out8(FCR, 0x01);
    out8(IER, 0x02);
    unsigned sent = 0;
    while (in8(LSR) & 0x20) {
        out8(DATA, (uint8_t)sent++);
        assert_in_range(sent, 0, 5000);
    }
    assert_true(sent >= 4000);
    in8(IIR);
    assert_false(f->level[4]); /* nothing to tell while there is no room */
    assert_int_equal(far.len, 10);
    fake_loop_advance(100000000);
    assert_int_equal(far.len, 10);
    assert_int_equal(fake_loop_armed(), 0); /* does not ask again and again */
    far.room = sizeof(far.text) - far.len;
    far.backend.output_ready(far.backend.device);
    assert_true(f->level[4]);
    assert_int_equal(in8(IIR), 0xc2);
    assert_int_equal(far.len, sent);
    for (unsigned i = 0; i < sent; i++)
        assert_int_equal((uint8_t)far.text[i], (uint8_t)i);
    /* a guest that never asks loses bytes, and only those */
    far.room = 0;
    for (int i = 0; i < 6000; i++)
        out8(DATA, 'x');
    far.room = sizeof(far.text) - far.len;
    far.backend.output_ready(far.backend.device);
    assert_int_equal(far.len, sent + 4096);
}

static void test_destroy_hands_on(void **state)
{
    out8(DATA, '!');
    f->device->class->destroy(f->device);
    f->device = NULL;
    assert_int_equal(far.len, 1);
    assert_null(far.backend.input);
    assert_null(far.backend.device);
}

static void test_transmitter_interrupt(void **state)
{
    out8(MCR, 0x0b);
    out8(IER, 0x02); /* enabling it while empty tells at once */
    assert_true(f->level[4]);
    assert_int_equal(in8(IIR), 0x02);
    assert_false(f->level[4]); /* reading the reason acknowledges */
    assert_int_equal(in8(IIR), 0x01);
    out8(DATA, 'a');
    assert_true(f->level[4]);
    out8(IER, 0x00);
    assert_false(f->level[4]);
    out8(IER, 0x02);
    assert_true(f->level[4]);
    out8(MCR, 0x03); /* without OUT2 the line is not connected */
    assert_false(f->level[4]);
}

static void test_receiver(void **state)
{
    out8(MCR, 0x0b);
    out8(IER, 0x01);
    assert_int_equal(type("a", 1), 1);
    assert_true(f->level[4]);
    assert_int_equal(in8(IIR), 0x04);
    assert_int_equal(in8(LSR), 0x61);
    assert_int_equal(type("b", 1), 0); /* no FIFO yet: one byte */
    assert_int_equal(far.invitations, 0);
    assert_int_equal(in8(DATA), 'a');
    assert_false(f->level[4]);
    assert_int_equal(far.invitations, 1);
    assert_int_equal(in8(LSR), 0x60);

    out8(FCR, 0x81); /* trigger at eight */
    assert_int_equal(type("0123456789abcdefgh", 18), 16);
    assert_int_equal(in8(IIR), 0xc4);
    unsigned n = far.invitations;
    for (int i = 0; i < 16; i++) {
        assert_int_equal(in8(IIR), 16 - i >= 8 ? 0xc4 : 0xcc); /* fewer: the timeout's reason */
        assert_int_equal(in8(DATA), "0123456789abcdef"[i]);
    }
    assert_int_equal(far.invitations, n + 1);
    assert_int_equal(in8(IIR), 0xc1);
    assert_int_equal(in8(LSR) & 0x01, 0);

    type("xyz", 3);
    out8(FCR, 0x83); /* clear */
    assert_int_equal(in8(LSR) & 0x01, 0);
    assert_false(f->level[4]);
}

static void test_loopback(void **state)
{
    out8(MCR, 0x10);
    assert_int_equal(in8(MSR) & 0xf0, 0);
    in8(MSR);
    static const struct {
        uint8_t mcr, msr;
    } rows[] = {{0x11, 0x22}, {0x10, 0x02}, {0x12, 0x11}, {0x10, 0x01}, {0x14, 0x40},
                {0x10, 0x04}, {0x18, 0x88}, {0x10, 0x08}, {0x1f, 0xfb}, {0x1f, 0xf0}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        out8(MCR, rows[i].mcr);
        assert_int_equal(in8(MSR), rows[i].msr);
    }
    out8(DATA, 0x5a);
    assert_int_equal(in8(LSR) & 0x01, 0x01);
    out8(DATA, 0x5b); /* overrun */
    assert_int_equal(in8(LSR) & 0x03, 0x03);
    assert_int_equal(in8(LSR) & 0x03, 0x01);
    assert_int_equal(in8(DATA), 0x5b);
    assert_int_equal(type("a", 1), 0); /* the line is not connected */
    fake_loop_advance(10000000);
    assert_int_equal(far.len, 0);
    out8(MCR, 0x0b);
    assert_int_equal(far.invitations, 1);
    assert_int_equal(type("a", 1), 1);
}

static void test_line_and_modem_interrupts(void **state)
{
    out8(FCR, 0x01);
    out8(IER, 0x0d);
    out8(MCR, 0x18);
    in8(MSR);
    assert_false(f->level[4]);
    out8(MCR, 0x1a);
    assert_true(f->level[4]);
    assert_int_equal(in8(IIR), 0xc0);
    for (int i = 0; i < 17; i++)
        out8(DATA, (uint8_t)i);
    assert_int_equal(in8(IIR), 0xc6); /* line status is first */
    assert_int_equal(in8(LSR) & 0x02, 0x02);
    assert_int_equal(in8(IIR), 0xc4);
    for (int i = 0; i < 16; i++)
        assert_int_equal(in8(DATA), i); /* the seventeenth was lost */
    assert_int_equal(in8(IIR), 0xc0);
    in8(MSR);
    assert_int_equal(in8(IIR), 0xc1);
    assert_false(f->level[4]);
}

/* The interrupt line is told about changes only: with the kvm engine each call is a system call. */
static void test_interrupt_calls(void **state)
{
    unsigned before = f->changes[4];
    for (int i = 0; i < 1000; i++)
        out8(DATA, 'x');
    assert_int_equal(f->changes[4], before);
}

static void test_reset(void **state)
{
    out8(MCR, 0x0b);
    out8(IER, 0x02);
    out8(DATA, 'z');
    assert_true(f->level[4]);
    f->device->class->reset(f->device);
    assert_false(f->level[4]);
    assert_int_equal(far.len, 1);
    test_power_on(state);
}

static void test_wide_access(void **state)
{
    io_space_write(f->env.pio, LCR, 2, 0x0b1b); /* LCR and MCR */
    assert_int_equal(in8(LCR), 0x1b);
    assert_int_equal(in8(MCR), 0x0b);
    assert_int_equal(io_space_read(f->env.pio, LCR, 4), 0xb0600b1b);
    assert_true(io_space_read(f->env.pio, LCR, 8) == UINT64_MAX); /* past the end */
    io_space_read(f->env.pio, COM1, 8);
}

static void test_no_backend(void **state)
{
    legacy_start(&uart16550_class, NULL);
    for (int i = 0; i < 10000; i++)
        out8(DATA, 'x');
    assert_int_equal(in8(LSR), 0x60);
    fake_loop_advance(10000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_power_on, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_divisor, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_output_is_batched, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_backend_is_full, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_destroy_hands_on, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_transmitter_interrupt, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_receiver, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_loopback, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_line_and_modem_interrupts, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_interrupt_calls, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_reset, start, legacy_stop),
        cmocka_unit_test_setup_teardown(test_wide_access, start, legacy_stop),
        cmocka_unit_test_teardown(test_no_backend, legacy_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/device/ioapic.c against the 82093AA data sheet and the EOI register of version 0x20. */
#include "device/ioapic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct {
    struct io_space *mmio;
    struct ioapic *apic;
    unsigned messages;
    uint64_t address;
    uint32_t data;
} t;

static void on_message(void *opaque, uint64_t address, uint32_t data)
{
    t.messages++;
    t.address = address;
    t.data = data;
}

static uint32_t get(uint8_t reg)
{
    io_space_write(t.mmio, IOAPIC_BASE, 4, reg);
    return (uint32_t)io_space_read(t.mmio, IOAPIC_BASE + 0x10, 4);
}

static void set(uint8_t reg, uint32_t value)
{
    io_space_write(t.mmio, IOAPIC_BASE, 4, reg);
    io_space_write(t.mmio, IOAPIC_BASE + 0x10, 4, value);
}

static void route(unsigned pin, uint64_t entry)
{
    set((uint8_t)(0x11 + 2 * pin), (uint32_t)(entry >> 32));
    set((uint8_t)(0x10 + 2 * pin), (uint32_t)entry);
}

static int start(void **state)
{
    t.messages = 0;
    t.mmio = io_space_new("mmio");
    assert_int_equal(ioapic_create(&t.apic, t.mmio, on_message, NULL), 0);
    return 0;
}

static int stop(void **state)
{
    ioapic_free(t.apic);
    io_space_free(t.mmio);
    return 0;
}

static void test_registers(void **state)
{
    assert_int_equal(get(0x01), 0x00170020);
    assert_int_equal(get(0x00), 0);
    set(0x00, 0xff123456);
    assert_int_equal(get(0x00), 0x0f000000);
    assert_int_equal(get(0x02), 0x0f000000);
    set(0x01, 0);
    assert_int_equal(get(0x01), 0x00170020);
    for (unsigned pin = 0; pin < 24; pin++) {
        assert_int_equal(get((uint8_t)(0x10 + 2 * pin)), 0x10000);
        assert_int_equal(get((uint8_t)(0x11 + 2 * pin)), 0);
    }
    set(0x10, 0xffffffff);
    set(0x11, 0xffffffff);
    assert_int_equal(get(0x10), 0x1afff); /* delivery status and remote IRR are read-only */
    assert_int_equal(get(0x11), 0xff000000);
    assert_int_equal(get(0x40), 0xffffffff); /* no such register */
    set(0x40, 0);
    assert_int_equal(io_space_read(t.mmio, IOAPIC_BASE, 4), 0x40);
    assert_int_equal(io_space_read(t.mmio, IOAPIC_BASE + 0x20, 4), 0);
}

static void test_messages(void **state)
{
    static const struct {
        uint64_t entry;
        uint64_t address;
        uint32_t data;
    } rows[] = {
        {0x0000000000000031, 0xfee00000, 0x4031}, /* fixed, to APIC 0 */
        {0x0300000000000032, 0xfee03000, 0x4032}, /* to APIC 3 */
        {0x0f00000000000833, 0xfee0f004, 0x4033}, /* logical */
        {0xff00000000000934, 0xfeeff00c, 0x4134}, /* lowest priority: with the hint */
        {0x0100000000000400, 0xfee01000, 0x4400}, /* NMI */
        {0x0000000000000700, 0xfee00000, 0x4700}, /* ExtINT */
        {0x000000000000a035, 0xfee00000, 0xc035}, /* level, active low: the level is logical */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        route(5, rows[i].entry);
        t.messages = 0;
        ioapic_set(t.apic, 5, true);
        assert_int_equal(t.messages, 1);
        assert_true(t.address == rows[i].address);
        assert_int_equal(t.data, rows[i].data);
        ioapic_set(t.apic, 5, false);
        assert_int_equal(t.messages, 1);
    }
    ioapic_set(t.apic, 24, true);
    ioapic_set(t.apic, 1000, true);
    assert_int_equal(t.messages, 1);
}

static void test_edges(void **state)
{
    route(4, 0x31);
    for (unsigned i = 1; i <= 3; i++) {
        ioapic_set(t.apic, 4, true);
        ioapic_set(t.apic, 4, true); /* no edge */
        assert_int_equal(t.messages, i);
        ioapic_set(t.apic, 4, false);
    }
    assert_int_equal(get(0x18), 0x31);
    route(4, 0x10031);
    ioapic_set(t.apic, 4, true); /* masked: lost */
    route(4, 0x31);
    assert_int_equal(t.messages, 3);
}

static void test_levels(void **state)
{
    route(20, 0x10000 | 0x8041);
    ioapic_set(t.apic, 20, true);
    assert_int_equal(t.messages, 0);
    route(20, 0x8041); /* unmasked while up */
    assert_int_equal(t.messages, 1);
    assert_int_equal(get(0x10 + 40), 0xc041); /* remote IRR */
    ioapic_set(t.apic, 20, false);
    ioapic_set(t.apic, 20, true);
    assert_int_equal(t.messages, 1); /* once before the EOI */
    ioapic_eoi(t.apic, 0x42);        /* another vector's */
    assert_int_equal(t.messages, 1);
    ioapic_eoi(t.apic, 0x41);
    assert_int_equal(t.messages, 2);
    ioapic_set(t.apic, 20, false);
    ioapic_eoi(t.apic, 0x41);
    assert_int_equal(t.messages, 2);
    assert_int_equal(get(0x10 + 40), 0x8041);
    /* masked while it is served: the EOI clears remote IRR, and nothing is sent before the mask goes */
    ioapic_set(t.apic, 20, true);
    route(20, 0x18041);
    ioapic_eoi(t.apic, 0x41);
    assert_int_equal(t.messages, 3);
    assert_int_equal(get(0x10 + 40), 0x18041);
    route(20, 0x8041);
    assert_int_equal(t.messages, 4);
}

static void test_eoi_register(void **state)
{
    route(7, 0x8051);
    ioapic_set(t.apic, 7, true);
    io_space_write(t.mmio, IOAPIC_BASE + 0x40, 4, 0x51);
    assert_int_equal(t.messages, 2);
    ioapic_set(t.apic, 7, false);
    io_space_write(t.mmio, IOAPIC_BASE + 0x40, 4, 0x51);
    assert_int_equal(get(0x1e), 0x8051);
}

/* How kernels clear a remote IRR whose EOI will never come: to edge and back. */
static void test_stuck_remote_irr(void **state)
{
    route(7, 0x8051);
    ioapic_set(t.apic, 7, true);
    ioapic_set(t.apic, 7, false);
    assert_int_equal(get(0x1e), 0xc051);
    set(0x1e, 0x10051);
    set(0x1e, 0x18051);
    assert_int_equal(get(0x1e), 0x18051);
}

/* Two inputs with one vector, as kernels short of vectors do. */
static void test_shared_vector(void **state)
{
    route(16, 0x8061);
    route(17, 0x8061);
    ioapic_set(t.apic, 16, true);
    ioapic_set(t.apic, 17, true);
    assert_int_equal(t.messages, 2);
    ioapic_set(t.apic, 16, false);
    ioapic_eoi(t.apic, 0x61);
    assert_int_equal(t.messages, 3);
}

static void test_any_width(void **state)
{
    io_space_write(t.mmio, IOAPIC_BASE, 1, 0x01);
    assert_int_equal(io_space_read(t.mmio, IOAPIC_BASE + 0x10, 1), 0x20);
    assert_int_equal(io_space_read(t.mmio, IOAPIC_BASE + 0x10, 8), 0x00170020);
    io_space_write(t.mmio, IOAPIC_BASE, 4, 0x10);
    io_space_write(t.mmio, IOAPIC_BASE + 0x10, 1, 0);
    assert_int_equal(get(0x10), 0x10000);
    for (unsigned size = 1; size <= 8; size *= 2) {
        for (unsigned offset = 0; offset < 0x100; offset++) {
            io_space_read(t.mmio, IOAPIC_BASE + offset, size);
            io_space_write(t.mmio, IOAPIC_BASE + offset, size, UINT64_MAX);
        }
    }
}

static void test_reset(void **state)
{
    route(3, 0x8041);
    ioapic_set(t.apic, 3, true);
    ioapic_reset(t.apic);
    assert_int_equal(get(0x16), 0x10000);
    ioapic_eoi(t.apic, 0x41);
    assert_int_equal(t.messages, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_registers, start, stop),
        cmocka_unit_test_setup_teardown(test_messages, start, stop),
        cmocka_unit_test_setup_teardown(test_edges, start, stop),
        cmocka_unit_test_setup_teardown(test_levels, start, stop),
        cmocka_unit_test_setup_teardown(test_eoi_register, start, stop),
        cmocka_unit_test_setup_teardown(test_stuck_remote_irr, start, stop),
        cmocka_unit_test_setup_teardown(test_shared_vector, start, stop),
        cmocka_unit_test_setup_teardown(test_any_width, start, stop),
        cmocka_unit_test_setup_teardown(test_reset, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

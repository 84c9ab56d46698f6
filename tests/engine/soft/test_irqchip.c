/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/engine/soft/irqchip.c: the wiring, from a device's line to the vector that a vCPU takes. */
#include "engine/soft/irqchip.h"

#include "device/io_space.h"
#include "device/ioapic.h"
#include "fake_loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct {
    struct io_space *pio, *mmio;
    struct irqchip *chip;
    unsigned wakes[LAPIC_MAX_CPUS];
} t;

static void wake(void *opaque, unsigned cpu)
{
    t.wakes[cpu]++;
}

static uint64_t read_tsc(void *opaque, unsigned cpu)
{
    return loop_now();
}

static int start(void **state)
{
    static const struct lapic_callbacks callbacks = {
        .wake = wake, .read_tsc = read_tsc, .tsc_hz = 1000000000};
    t.pio = io_space_new("pio");
    t.mmio = io_space_new("mmio");
    assert_int_equal(irqchip_create(&t.chip, 2, t.pio, t.mmio, fake_loop(), &callbacks, NULL), 0);
    return 0;
}

static int stop(void **state)
{
    irqchip_free(t.chip);
    io_space_free(t.pio);
    io_space_free(t.mmio);
    return fake_loop_timers() ? -1 : 0;
}

static struct lapic *apic(unsigned cpu)
{
    return irqchip_lapic(t.chip, cpu);
}

static void route(unsigned pin, uint64_t entry)
{
    io_space_write(t.mmio, IOAPIC_BASE, 4, 0x11 + 2 * pin);
    io_space_write(t.mmio, IOAPIC_BASE + 0x10, 4, entry >> 32);
    io_space_write(t.mmio, IOAPIC_BASE, 4, 0x10 + 2 * pin);
    io_space_write(t.mmio, IOAPIC_BASE + 0x10, 4, (uint32_t)entry);
}

static int take(unsigned cpu)
{
    int vector = lapic_interrupt(apic(cpu));
    if (vector >= 0)
        lapic_accept(apic(cpu), vector);
    return vector;
}

static void init_pics(uint8_t mask)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } steps[] = {{0x20, 0x11}, {0x21, 0x20}, {0x21, 0x04}, {0x21, 0x01},
                 {0xa0, 0x11}, {0xa1, 0x28}, {0xa1, 0x02}, {0xa1, 0x01}};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        io_space_write(t.pio, steps[i].port, 1, steps[i].value);
    io_space_write(t.pio, 0x21, 1, mask);
}

/* Before a kernel knows of APICs: through the 8259s and LINT0 of the bootstrap processor. */
static void test_virtual_wire(void **state)
{
    init_pics(0);
    irqchip_set(t.chip, 0, true);
    assert_true(t.wakes[0] > 0);
    assert_int_equal(t.wakes[1], 0);
    assert_int_equal(lapic_interrupt(apic(0)), -1);
    assert_int_equal(lapic_take_events(apic(0)), LAPIC_EVENT_EXTINT);
    assert_int_equal(irqchip_acknowledge(t.chip), 0x20);
    assert_int_equal(lapic_take_events(apic(0)), 0);
    assert_int_equal(irqchip_acknowledge(t.chip), -1);
    io_space_write(t.pio, 0x20, 1, 0x20);
    irqchip_set(t.chip, 12, true);
    assert_int_equal(lapic_take_events(apic(0)), LAPIC_EVENT_EXTINT);
    assert_int_equal(irqchip_acknowledge(t.chip), 0x2c);
}

static void test_pins(void **state)
{
    init_pics(0xff);
    lapic_write(apic(0), 0xf0, 0x1ff);
    lapic_write(apic(1), 0xf0, 0x1ff);
    for (unsigned pin = 0; pin < 24; pin++)
        route(pin, 1ull << 56 | (0x30 + pin));
    for (unsigned gsi = 0; gsi < 26; gsi++) {
        irqchip_set(t.chip, gsi, true);
        irqchip_set(t.chip, gsi, false);
        int expected = gsi == 0 ? 0x32 : gsi == 2 || gsi > 23 ? -1 : 0x30 + (int)gsi;
        assert_int_equal(take(1), expected);
        assert_int_equal(take(0), -1);
        if (expected >= 0)
            lapic_write(apic(1), 0xb0, 0);
    }
}

static void test_level_round_trip(void **state)
{
    lapic_write(apic(0), 0xf0, 0x1ff);
    route(17, 0xa051);
    irqchip_set(t.chip, 17, true);
    assert_int_equal(take(0), 0x51);
    assert_int_equal(take(0), -1);
    lapic_write(apic(0), 0xb0, 0); /* EOI with the line still up */
    assert_int_equal(take(0), 0x51);
    irqchip_set(t.chip, 17, false);
    lapic_write(apic(0), 0xb0, 0);
    assert_int_equal(take(0), -1);
}

static void test_msi(void **state)
{
    lapic_write(apic(1), 0xf0, 0x1ff);
    irqchip_msi(t.chip, 0xfee01000, 0x61);
    assert_int_equal(take(1), 0x61);
    assert_true(t.wakes[1] > 0);
}

static void test_reset(void **state)
{
    init_pics(0);
    lapic_write(apic(0), 0xf0, 0x1ff);
    route(4, 0x34);
    irqchip_set(t.chip, 4, true);
    irqchip_msi(t.chip, 0xfee00000, 0x400);
    irqchip_set(t.chip, 4, false);
    irqchip_reset(t.chip);
    assert_int_equal(lapic_take_events(apic(0)), 0);
    lapic_write(apic(0), 0xf0, 0x1ff);
    assert_int_equal(take(0), -1);
    irqchip_set(t.chip, 4, true);
    assert_int_equal(take(0), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_virtual_wire, start, stop),
        cmocka_unit_test_setup_teardown(test_pins, start, stop),
        cmocka_unit_test_setup_teardown(test_level_round_trip, start, stop),
        cmocka_unit_test_setup_teardown(test_msi, start, stop),
        cmocka_unit_test_setup_teardown(test_reset, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

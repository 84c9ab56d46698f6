/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The local APICs under test, and a clock that the test moves. */
#include "lapic_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

struct lapic_fixture t;

void wake(void *opaque, unsigned cpu)
{
    atomic_fetch_add(&t.wakes[cpu], 1);
}

uint64_t read_tsc(void *opaque, unsigned cpu)
{
    return (uint64_t)((__int128)loop_now() * TSC_HZ / 1000000000) + (uint64_t)t.tsc_ahead;
}

static void on_eoi(void *opaque, uint8_t vector)
{
    t.eois++;
    t.eoi_vector = vector;
}

void start(unsigned cpus)
{
    static const struct lapic_callbacks callbacks = {.wake = wake, .read_tsc = read_tsc, .tsc_hz = TSC_HZ};
    memset(&t, 0, sizeof(t));
    assert_int_equal(lapic_bus_create(&t.bus, cpus, &callbacks, fake_loop()), 0);
    lapic_bus_set_eoi(t.bus, on_eoi, NULL);
}

int stop(void **state)
{
    lapic_bus_free(t.bus);
    t.bus = NULL;
    return fake_loop_timers() ? -1 : 0;
}

struct lapic *apic(unsigned cpu)
{
    return lapic_bus_get(t.bus, cpu);
}

void enable(unsigned cpu)
{
    lapic_write(apic(cpu), SVR, 0x1ff);
}

void enable_x2apic(unsigned cpu)
{
    uint64_t base;
    assert_int_equal(lapic_msr_read(apic(cpu), LAPIC_MSR_BASE, &base), 0);
    assert_int_equal(lapic_msr_write(apic(cpu), LAPIC_MSR_BASE, base | LAPIC_BASE_X2APIC), 0);
    assert_int_equal(lapic_msr_write(apic(cpu), 0x80f, 0x1ff), 0);
}

void send(unsigned dest, uint8_t vector)
{
    lapic_bus_deliver(t.bus, 0xfee00000ull | (uint64_t)dest << 12, vector);
}

int take(unsigned cpu)
{
    int vector = lapic_interrupt(apic(cpu));
    if (vector >= 0)
        lapic_accept(apic(cpu), vector);
    return vector;
}

uint64_t msr(unsigned cpu, uint32_t number)
{
    uint64_t value = 0;
    assert_int_equal(lapic_msr_read(apic(cpu), number, &value), 0);
    return value;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A bus of local APICs with a clock that the test moves, and the ways in which tests reach them. One thread.
 */
#ifndef TABIQUE_TESTS_ENGINE_SOFT_LAPIC_FIXTURE_H
#define TABIQUE_TESTS_ENGINE_SOFT_LAPIC_FIXTURE_H

#include "engine/soft/lapic.h"

#include "fake_loop.h"

#include <stdatomic.h>
#include <stdint.h>

#define TSC_HZ 2500000000ull

/* xAPIC offsets */
#define TPR       0x080
#define PPR       0x0a0
#define EOI       0x0b0
#define LDR       0x0d0
#define DFR       0x0e0
#define SVR       0x0f0
#define ISR       0x100
#define TMR       0x180
#define IRR       0x200
#define ESR       0x280
#define ICR       0x300
#define ICR_HIGH  0x310
#define LVT_TIMER 0x320
#define LVT_LINT0 0x350
#define LVT_ERROR 0x370
#define INITIAL   0x380
#define CURRENT   0x390
#define DIVIDE    0x3e0

struct lapic_fixture {
    struct lapic_bus *bus;
    _Atomic unsigned wakes[LAPIC_MAX_CPUS];
    int64_t tsc_ahead; /* of the clock at TSC_HZ */
    unsigned eois;
    uint8_t eoi_vector;
};

/* The one fixture. */
extern struct lapic_fixture t;

/* Makes the bus; `stop` is its cmocka teardown, which fails if a timer is left behind. */
void start(unsigned cpus);
int stop(void **state);

uint64_t read_tsc(void *opaque, unsigned cpu);
void wake(void *opaque, unsigned cpu);

struct lapic *apic(unsigned cpu);
/* Sets the enable bit in SVR; by way of the page, or in x2APIC mode. */
void enable(unsigned cpu);
void enable_x2apic(unsigned cpu);
/* A fixed, edge-triggered message to one APIC id. */
void send(unsigned dest, uint8_t vector);
/* What a vCPU would do: the vector that it takes, or -1. */
int take(unsigned cpu);
uint64_t msr(unsigned cpu, uint32_t number);

#endif

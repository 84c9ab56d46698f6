/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/engine/soft/lapic.c, lapic_irq.c and lapic_bus.c against SDM vol. 3A chapter 11. */
#include "lapic_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_reset_state(void **state)
{
    start(2);
    assert_int_equal(msr(0, LAPIC_MSR_BASE), 0xfee00900);
    assert_int_equal(msr(1, LAPIC_MSR_BASE), 0xfee00800);
    assert_int_equal(lapic_read(apic(0), 0x20), 0);
    assert_int_equal(lapic_read(apic(1), 0x20), 1 << 24);
    assert_int_equal(lapic_read(apic(1), 0x30) & 0xff, 0x15);
    assert_int_equal(lapic_read(apic(1), 0x30) >> 16 & 0xff, 5);
    assert_int_equal(lapic_read(apic(1), SVR), 0xff);
    assert_int_equal(lapic_read(apic(1), DFR), 0xffffffff);
    assert_int_equal(lapic_read(apic(1), LVT_LINT0), 0x10000);
    assert_int_equal(lapic_read(apic(1), LVT_TIMER), 0x10000);
    assert_int_equal(lapic_interrupt(apic(0)), -1);
    assert_false(lapic_has_work(apic(0)));
    assert_null(apic(2));

    struct lapic_bus *none = NULL;
    struct lapic_callbacks cb = {.wake = wake, .read_tsc = read_tsc, .tsc_hz = TSC_HZ};
    assert_int_equal(lapic_bus_create(&none, 0, &cb, fake_loop()), -EINVAL);
    assert_int_equal(lapic_bus_create(&none, LAPIC_MAX_CPUS + 1, &cb, fake_loop()), -EINVAL);
    assert_null(none);
}

static void test_software_disabled(void **state)
{
    start(1);
    send(0, 0x40);
    assert_int_equal(lapic_read(apic(0), IRR + 0x20), 0);
    enable(0);
    send(0, 0x40);
    assert_int_equal(lapic_read(apic(0), IRR + 0x20), 1);
    assert_int_equal(t.wakes[0], 1);
    lapic_write(apic(0), LVT_ERROR, 0x55);
    lapic_write(apic(0), SVR, 0xff);
    assert_int_equal(lapic_read(apic(0), LVT_ERROR), 0x10055);
    assert_int_equal(lapic_interrupt(apic(0)), -1);
    lapic_write(apic(0), LVT_ERROR, 0x56); /* the mask stays while the APIC is disabled */
    assert_int_equal(lapic_read(apic(0), LVT_ERROR), 0x10056);
    enable(0);
    assert_int_equal(t.wakes[0], 2); /* what was held can come now */
    assert_int_equal(lapic_interrupt(apic(0)), 0x40);
}

static void test_priorities(void **state)
{
    start(1);
    enable(0);
    send(0, 0x45);
    send(0, 0x62);
    assert_true(lapic_has_work(apic(0)));
    assert_int_equal(take(0), 0x62);
    assert_int_equal(lapic_read(apic(0), PPR), 0x60);
    assert_int_equal(lapic_read(apic(0), ISR + 0x30), 1 << 2);
    assert_int_equal(lapic_read(apic(0), IRR + 0x30), 0);
    assert_int_equal(take(0), -1);
    send(0, 0x6f); /* the same class waits */
    assert_int_equal(take(0), -1);
    send(0, 0x71);
    assert_int_equal(take(0), 0x71);
    lapic_write(apic(0), EOI, 0);
    assert_int_equal(lapic_read(apic(0), PPR), 0x60);
    assert_int_equal(take(0), -1);
    unsigned wakes = t.wakes[0];
    lapic_write(apic(0), EOI, 0); /* of 0x62 */
    assert_int_equal(t.wakes[0], wakes + 1);
    assert_int_equal(take(0), 0x6f);
    lapic_write(apic(0), EOI, 0);
    assert_int_equal(take(0), 0x45);
    lapic_write(apic(0), EOI, 0);
    assert_int_equal(lapic_read(apic(0), PPR), 0);
    wakes = t.wakes[0];
    lapic_write(apic(0), EOI, 0); /* one too many */
    assert_int_equal(t.wakes[0], wakes);
    assert_int_equal(t.eois, 0);
}

static void test_task_priority(void **state)
{
    start(1);
    enable(0);
    lapic_write(apic(0), TPR, 0x53);
    assert_int_equal(lapic_read(apic(0), PPR), 0x53);
    assert_int_equal(lapic_get_cr8(apic(0)), 5);
    send(0, 0x5f);
    assert_int_equal(lapic_interrupt(apic(0)), -1);
    assert_false(lapic_has_work(apic(0)));
    unsigned wakes = t.wakes[0];
    lapic_set_cr8(apic(0), 4);
    assert_int_equal(lapic_read(apic(0), TPR), 0x40);
    assert_int_equal(t.wakes[0], wakes + 1);
    assert_int_equal(take(0), 0x5f);
    assert_int_equal(lapic_read(apic(0), PPR), 0x50);
    lapic_set_cr8(apic(0), 15);
    assert_int_equal(lapic_read(apic(0), PPR), 0xf0);
}

/* Each vector comes out once, the highest first. */
static void test_all_vectors(void **state)
{
    start(1);
    enable(0);
    for (unsigned v = 16; v < 256; v++)
        send(0, (uint8_t)((v * 101) & 0xff) < 16 ? (uint8_t)v : (uint8_t)((v * 101) & 0xff));
    for (unsigned v = 16; v < 256; v++)
        send(0, (uint8_t)v);
    for (int v = 255; v >= 16; v--) {
        assert_int_equal(take(0), v);
        lapic_write(apic(0), EOI, 0);
    }
    assert_int_equal(take(0), -1);
    assert_false(lapic_has_work(apic(0)));
}

static void test_level_and_eoi(void **state)
{
    start(1);
    enable(0);
    lapic_bus_deliver(t.bus, 0xfee00000, 0xc000 | 0x41);
    assert_int_equal(lapic_read(apic(0), TMR + 0x20), 2);
    assert_int_equal(take(0), 0x41);
    lapic_write(apic(0), EOI, 0);
    assert_int_equal(t.eois, 1);
    assert_int_equal(t.eoi_vector, 0x41);
    send(0, 0x41); /* an edge of the same vector */
    assert_int_equal(lapic_read(apic(0), TMR + 0x20), 0);
    take(0);
    lapic_write(apic(0), EOI, 0);
    assert_int_equal(t.eois, 1);
    lapic_write(apic(0), SVR, 0x11ff); /* broadcasts suppressed */
    lapic_bus_deliver(t.bus, 0xfee00000, 0xc000 | 0x41);
    take(0);
    lapic_write(apic(0), EOI, 0);
    assert_int_equal(t.eois, 1);
    lapic_bus_deliver(t.bus, 0xfee00000, 0x8000 | 0x42); /* a de-assertion */
    assert_int_equal(take(0), -1);
}

static void test_destinations(void **state)
{
    static const struct {
        uint32_t dfr;
        uint32_t ldr[4];
        uint32_t address; /* bits 19-12 and 2 */
        unsigned takers;  /* bit n: APIC n */
    } rows[] = {
        {0xffffffff, {1, 2, 4, 8}, 0x02000, 1 << 2},
        {0xffffffff, {1, 2, 4, 8}, 0xff000, 0xf},
        {0xffffffff, {1, 2, 4, 8}, 0x07000, 0},
        {0xffffffff, {1, 2, 4, 8}, 0x05004, 0x5},
        {0xffffffff, {1, 2, 4, 8}, 0xff004, 0xf},
        {0xffffffff, {1, 2, 4, 8}, 0x00004, 0},
        {0xffffffff, {1, 3, 4, 8}, 0x01004, 0x3},
        {0x0fffffff, {0x11, 0x12, 0x21, 0x22}, 0x13004, 0x3},
        {0x0fffffff, {0x11, 0x12, 0x21, 0x22}, 0x22004, 0x8},
        {0x0fffffff, {0x11, 0x12, 0x21, 0x22}, 0xf1004, 0x5},
        {0x0fffffff, {0x11, 0x12, 0x21, 0x22}, 0xff004, 0xf},
        {0x0fffffff, {0x11, 0x12, 0x21, 0x22}, 0x31004, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        start(4);
        for (unsigned cpu = 0; cpu < 4; cpu++) {
            enable(cpu);
            lapic_write(apic(cpu), DFR, rows[i].dfr);
            lapic_write(apic(cpu), LDR, rows[i].ldr[cpu] << 24);
        }
        lapic_bus_deliver(t.bus, 0xfee00000 | rows[i].address, 0x50);
        for (unsigned cpu = 0; cpu < 4; cpu++)
            assert_int_equal(take(cpu), rows[i].takers & (1u << cpu) ? 0x50 : -1);
        lapic_bus_free(t.bus);
    }
    start(1);
    lapic_bus_deliver(t.bus, 0xfed00000, 0x50);
    lapic_bus_deliver(t.bus, 0x1fee00000ull, 0x50);
    assert_false(lapic_has_work(apic(0)));
}

static void test_x2apic_destinations(void **state)
{
    start(3);
    for (unsigned cpu = 0; cpu < 3; cpu++)
        enable_x2apic(cpu);
    assert_int_equal(msr(2, 0x802), 2);
    assert_int_equal(msr(2, 0x80d), 1 << 2);
    /* logical, cluster 0, APICs 0 and 2 */
    assert_int_equal(lapic_msr_write(apic(1), 0x830, 5ull << 32 | 0x800 | 0x61), 0);
    assert_int_equal(take(0), 0x61);
    assert_int_equal(take(1), -1);
    assert_int_equal(take(2), 0x61);
    /* another cluster */
    assert_int_equal(lapic_msr_write(apic(1), 0x830, 0x10005ull << 32 | 0x800 | 0x71), 0);
    /* 255 is an id like any other here */
    assert_int_equal(lapic_msr_write(apic(1), 0x830, 0xffull << 32 | 0x72), 0);
    for (unsigned cpu = 0; cpu < 3; cpu++)
        assert_int_equal(take(cpu), -1);
    assert_int_equal(lapic_msr_write(apic(1), 0x830, 0xffffffffull << 32 | 0x73), 0);
    for (unsigned cpu = 0; cpu < 3; cpu++)
        assert_int_equal(take(cpu), 0x73);
    assert_int_equal(msr(1, 0x830), 0xffffffffull << 32 | 0x73);
    /* messages of devices have eight bits: physical and logical */
    send(1, 0x81);
    assert_int_equal(take(1), 0x81);
    lapic_bus_deliver(t.bus, 0xfee00000 | 6 << 12 | 4, 0x91);
    assert_int_equal(take(0), -1);
    assert_int_equal(take(1), 0x91);
    assert_int_equal(take(2), 0x91);
}

static void test_lowest_priority(void **state)
{
    unsigned got[3] = {0};
    start(3);
    for (unsigned cpu = 0; cpu < 3; cpu++) {
        enable(cpu);
        lapic_write(apic(cpu), LDR, 1u << (24 + cpu));
    }
    lapic_write(apic(0), TPR, 0x30);
    lapic_write(apic(1), TPR, 0x20);
    lapic_write(apic(2), TPR, 0x30);
    for (int i = 0; i < 6; i++) {
        lapic_bus_deliver(t.bus, 0xfee00000 | 7 << 12 | 4, 0x100 | 0x50);
        assert_int_equal(take(1), 0x50);
        lapic_write(apic(1), EOI, 0);
    }
    lapic_write(apic(1), TPR, 0x30);
    /* Equals take turns; the redirection hint asks for the same. */
    for (int i = 0; i < 30; i++) {
        lapic_bus_deliver(t.bus, 0xfee00000 | 7 << 12 | 4 | 8, 0x50);
        unsigned takers = 0;
        for (unsigned cpu = 0; cpu < 3; cpu++) {
            if (take(cpu) == 0x50) {
                takers++;
                got[cpu]++;
                lapic_write(apic(cpu), EOI, 0);
            }
        }
        assert_int_equal(takers, 1);
    }
    for (unsigned cpu = 0; cpu < 3; cpu++)
        assert_int_equal(got[cpu], 10);
    lapic_write(apic(2), SVR, 0xff);
    lapic_bus_deliver(t.bus, 0xfee00000 | 4 << 12 | 4, 0x100 | 0x50);
    for (unsigned cpu = 0; cpu < 3; cpu++)
        assert_int_equal(take(cpu), -1);
}

static void test_ipi_shorthands(void **state)
{
    static const struct {
        uint32_t icr, dest;
        unsigned takers; /* of a message from APIC 1 */
    } rows[] = {
        {0x00000041, 0, 1 << 0}, {0x00000041, 2, 1 << 2}, {0x00000041, 0xff, 7}, {0x00040041, 0, 1 << 1},
        {0x00080041, 0, 7},      {0x000c0041, 0, 5},      {0x00000341, 0, 0},    {0x00000741, 0, 0},
        {0x00000841, 1, 0}, /* logical, and all LDRs are 0 */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        start(3);
        for (unsigned cpu = 0; cpu < 3; cpu++)
            enable(cpu);
        lapic_write(apic(1), ICR_HIGH, rows[i].dest << 24);
        lapic_write(apic(1), ICR, rows[i].icr);
        for (unsigned cpu = 0; cpu < 3; cpu++) {
            assert_int_equal(take(cpu), rows[i].takers & (1u << cpu) ? 0x41 : -1);
            assert_int_equal(lapic_take_events(apic(cpu)), 0);
        }
        assert_int_equal(lapic_read(apic(1), ICR), rows[i].icr);
        lapic_bus_free(t.bus);
    }
    start(1);
}

static void ipi(unsigned from, unsigned to, uint32_t icr)
{
    lapic_write(apic(from), ICR_HIGH, to << 24);
    lapic_write(apic(from), ICR, icr);
}

static void test_start_up(void **state)
{
    start(3);
    /* An APIC that software has not enabled takes these. */
    ipi(0, 1, 0x4500);
    assert_int_equal(t.wakes[1], 1);
    assert_true(lapic_has_work(apic(1)));
    assert_int_equal(lapic_take_events(apic(1)), LAPIC_EVENT_INIT);
    assert_false(lapic_has_work(apic(1)));
    ipi(0, 1, 0x8500); /* de-assert */
    assert_int_equal(lapic_take_events(apic(1)), 0);
    ipi(0, 1, 0x4600 | 0x9f);
    assert_int_equal(lapic_take_events(apic(1)), LAPIC_EVENT_SIPI);
    assert_int_equal(lapic_sipi_vector(apic(1)), 0x9f);
    /* INIT and SIPI before the target looks */
    ipi(0, 2, 0x4600 | 0x11);
    ipi(0, 2, 0x4500);
    assert_int_equal(lapic_take_events(apic(2)), LAPIC_EVENT_INIT);
    ipi(0, 2, 0x4500);
    ipi(0, 2, 0x4600 | 0x12);
    ipi(0, 2, 0x4600 | 0x13);
    lapic_reset(apic(2), true); /* the vCPU handles INIT: the SIPI must survive */
    assert_int_equal(lapic_take_events(apic(2)), LAPIC_EVENT_INIT | LAPIC_EVENT_SIPI);
    assert_int_equal(lapic_sipi_vector(apic(2)), 0x13);
    /* all others, as kernels that don't know their processors do */
    ipi(0, 0, 0xc4500);
    assert_int_equal(lapic_take_events(apic(0)), 0);
    assert_int_equal(lapic_take_events(apic(1)), LAPIC_EVENT_INIT);
    assert_int_equal(lapic_take_events(apic(2)), LAPIC_EVENT_INIT);
    ipi(0, 1, 0x4400);
    assert_int_equal(lapic_take_events(apic(1)), LAPIC_EVENT_NMI);
    ipi(0, 1, 0x4200);
    assert_int_equal(lapic_take_events(apic(1)), LAPIC_EVENT_SMI);
    lapic_bus_deliver(t.bus, 0xfee01000, 0x400);
    assert_int_equal(lapic_take_events(apic(1)), LAPIC_EVENT_NMI);
    lapic_bus_deliver(t.bus, 0xfee01000, 0x610); /* no device sends a SIPI */
    assert_int_equal(lapic_take_events(apic(1)), 0);
}

static void test_errors(void **state)
{
    start(2);
    enable(0);
    lapic_write(apic(0), LVT_ERROR, 0xf0);
    ipi(0, 1, 0x4005); /* vector 5 */
    assert_int_equal(take(0), 0xf0);
    lapic_write(apic(0), EOI, 0);
    assert_int_equal(lapic_read(apic(0), ESR), 0); /* shown after a write only */
    lapic_write(apic(0), ESR, 0);
    assert_int_equal(lapic_read(apic(0), ESR), 0x20);
    lapic_write(apic(0), ESR, 0);
    assert_int_equal(lapic_read(apic(0), ESR), 0);
    send(0, 15);
    assert_int_equal(lapic_read(apic(0), 0x3d0), 0);
    lapic_write(apic(0), 0x040, 1);
    lapic_write(apic(0), ESR, 0);
    assert_int_equal(lapic_read(apic(0), ESR), 0xc0);
    assert_int_equal(lapic_read(apic(0), IRR), 0);
}

static void test_mode_changes(void **state)
{
    const uint64_t page = 0xfee00000, en = LAPIC_BASE_ENABLE, x2 = LAPIC_BASE_X2APIC, bsp = LAPIC_BASE_BSP;
    uint64_t value;
    start(1);
    assert_true(lapic_page(apic(0)) == page);
    assert_int_equal(lapic_msr_read(apic(0), 0x802, &value), -EINVAL);
    assert_int_equal(lapic_msr_write(apic(0), 0x808, 0), -EINVAL);
    assert_int_equal(lapic_msr_write(apic(0), 0x1b, page | bsp | x2), -EINVAL);
    assert_int_equal(lapic_msr_write(apic(0), 0x1b, page | bsp | en | 1), -EINVAL);
    assert_int_equal(lapic_msr_write(apic(0), 0x1b, 1ull << 60 | page | en), -EINVAL);
    assert_int_equal(lapic_msr_write(apic(0), 0x1b, page | bsp | en | x2), 0);
    assert_true(lapic_page(apic(0)) == UINT64_MAX);
    assert_int_equal(lapic_read(apic(0), SVR), 0xffffffff);
    assert_int_equal(lapic_msr_write(apic(0), 0x1b, page | bsp | en), -EINVAL);
    lapic_reset(apic(0), true); /* INIT keeps the mode */
    assert_int_equal(msr(0, 0x1b), page | bsp | en | x2);
    assert_int_equal(lapic_msr_write(apic(0), 0x1b, page | bsp), 0);
    assert_int_equal(lapic_msr_write(apic(0), 0x1b, page | bsp | en | x2), -EINVAL);
    enable(0);
    send(0, 0x40);
    assert_false(lapic_has_work(apic(0)));
    assert_int_equal(lapic_msr_write(apic(0), 0x1b, page | bsp | en), 0);
    assert_int_equal(lapic_read(apic(0), SVR), 0xff);
    enable_x2apic(0);
    lapic_reset(apic(0), false);
    assert_int_equal(msr(0, 0x1b), page | bsp | en);
}

static void test_x2apic_registers(void **state)
{
    uint64_t value;
    start(1);
    enable_x2apic(0);
    /* what can't be read, and what can't be written with what */
    static const uint16_t no_read[] = {0x800, 0x801, 0x804, 0x809, 0x80b, 0x80c,
                                       0x80e, 0x82f, 0x831, 0x83f, 0x8ff};
    for (size_t i = 0; i < sizeof(no_read) / sizeof(no_read[0]); i++)
        assert_int_equal(lapic_msr_read(apic(0), no_read[i], &value), -EINVAL);
    static const struct {
        uint16_t msr;
        uint64_t value;
        int rc;
    } writes[] = {
        {0x802, 0, -EINVAL},
        {0x803, 0, -EINVAL},
        {0x808, 0xff, 0},
        {0x808, 0x100, -EINVAL},
        {0x808, 1ull << 32, -EINVAL},
        {0x80a, 0, -EINVAL},
        {0x80b, 0, 0},
        {0x80b, 1, -EINVAL},
        {0x80d, 0, -EINVAL},
        {0x80e, 0, -EINVAL},
        {0x80f, 0x1ff, 0},
        {0x80f, 0x10000, -EINVAL},
        {0x810, 0, -EINVAL},
        {0x818, 0, -EINVAL},
        {0x820, 0, -EINVAL},
        {0x828, 0, 0},
        {0x828, 1, -EINVAL},
        {0x82f, 0x10000, -EINVAL},
        {0x830, 0x100000, -EINVAL},
        {0x831, 0, -EINVAL},
        {0x832, 0x310ff, 0},
        {0x832, 0x80000, -EINVAL},
        {0x832, 0x100, -EINVAL},
        {0x835, 0x1a7ff, 0},
        {0x838, 0xffffffff, 0},
        {0x838, 1ull << 32, -EINVAL},
        {0x839, 0, -EINVAL},
        {0x83e, 0xb, 0},
        {0x83e, 4, -EINVAL},
        {0x83f, 0x100, -EINVAL},
        {0x840, 0, -EINVAL},
        {0x808, 0, 0},
    };
    for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++)
        assert_int_equal(lapic_msr_write(apic(0), writes[i].msr, writes[i].value), writes[i].rc);
    assert_int_equal(msr(0, 0x832), 0x300ff | 0x10000);
    assert_int_equal(lapic_msr_write(apic(0), 0x83f, 0x77), 0);
    assert_int_equal(take(0), 0x77);
    assert_int_equal(msr(0, 0x813), 1 << 23);
    assert_int_equal(lapic_msr_write(apic(0), 0x80b, 0), 0);
    assert_int_equal(msr(0, 0x813), 0);
}

static void test_extint(void **state)
{
    start(2);
    unsigned wakes = t.wakes[0];
    lapic_bus_set_intr(t.bus, true);
    assert_int_equal(t.wakes[0], wakes + 1);
    assert_int_equal(t.wakes[1], 0); /* LINT0 is masked there */
    assert_true(lapic_has_work(apic(0)));
    assert_int_equal(lapic_take_events(apic(0)), LAPIC_EVENT_EXTINT);
    assert_int_equal(lapic_take_events(apic(0)), LAPIC_EVENT_EXTINT); /* a level */
    lapic_write(apic(0), LVT_LINT0, 0x10700);
    assert_int_equal(lapic_take_events(apic(0)), 0);
    enable(0);
    lapic_write(apic(0), LVT_LINT0, 0x700);
    assert_int_equal(t.wakes[0], wakes + 2);
    lapic_bus_set_intr(t.bus, false);
    assert_int_equal(lapic_take_events(apic(0)), 0);
    /* LINT0 as an ordinary vector: kernels try that, too */
    lapic_write(apic(0), LVT_LINT0, 0x31);
    lapic_bus_set_intr(t.bus, true);
    assert_int_equal(lapic_take_events(apic(0)), 0);
    assert_int_equal(take(0), 0x31);
    /* without an APIC, LINT0 is INTR */
    assert_int_equal(lapic_msr_write(apic(1), LAPIC_MSR_BASE, 0xfee00000), 0);
    assert_int_equal(lapic_take_events(apic(1)), LAPIC_EVENT_EXTINT);
}

/* Any access to any register, and the APIC still works. */
static void test_any_access(void **state)
{
    start(2);
    uint64_t seed = 1;
    for (int i = 0; i < 300000; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        unsigned offset = (seed >> 20) & 0xfff, op = (seed >> 60) & 7;
        uint64_t value = seed >> 13;
        if (op < 3)
            lapic_write(apic(0), op ? offset & ~15u : offset, (uint32_t)value);
        else if (op < 5)
            lapic_read(apic(0), offset);
        else if (op == 5)
            lapic_msr_write(apic(0), 0x800 | (offset & 0x3f), value & 0xff);
        else if (op == 6)
            lapic_bus_deliver(t.bus, 0xfee00000 | (value & 0xfffff), (uint32_t)value & 0xffff);
        if (i % 64 == 0)
            take(0);
        if (i % 1024 == 0)
            fake_loop_advance(100000);
    }
    lapic_reset(apic(0), false);
    lapic_take_events(apic(0));
    enable(0);
    send(0, 0x66);
    assert_int_equal(take(0), 0x66);
}

/* Three threads send, one takes: every vector that was sent comes, and the summary never loses one. */
static void *race_send(void *opaque)
{
    uint8_t base = *(uint8_t *)opaque;
    for (unsigned i = 0; i < 60000; i++)
        send(0, (uint8_t)(base + i % 48));
    return NULL;
}

static void test_race(void **state)
{
    pthread_t threads[3];
    uint8_t base[3] = {0x20, 0x60, 0xb0};
    uint32_t seen[8] = {0};
    start(1);
    enable(0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, race_send, &base[i]), 0);
    for (unsigned i = 0; i < 200000; i++) {
        int vector = take(0);
        if (vector < 0)
            continue;
        seen[vector / 32] |= 1u << (vector % 32);
        lapic_write(apic(0), EOI, 0);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (int vector; (vector = take(0)) >= 0;) {
        seen[vector / 32] |= 1u << (vector % 32);
        lapic_write(apic(0), EOI, 0);
    }
    for (unsigned word = 0; word < 8; word++)
        assert_int_equal(lapic_read(apic(0), IRR + word * 16), 0);
    for (int i = 0; i < 3; i++) {
        for (unsigned v = base[i]; v < base[i] + 48u; v++)
            assert_true(seen[v / 32] & (1u << (v % 32)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_reset_state, stop),
        cmocka_unit_test_teardown(test_software_disabled, stop),
        cmocka_unit_test_teardown(test_priorities, stop),
        cmocka_unit_test_teardown(test_task_priority, stop),
        cmocka_unit_test_teardown(test_all_vectors, stop),
        cmocka_unit_test_teardown(test_level_and_eoi, stop),
        cmocka_unit_test_teardown(test_destinations, stop),
        cmocka_unit_test_teardown(test_x2apic_destinations, stop),
        cmocka_unit_test_teardown(test_lowest_priority, stop),
        cmocka_unit_test_teardown(test_ipi_shorthands, stop),
        cmocka_unit_test_teardown(test_start_up, stop),
        cmocka_unit_test_teardown(test_errors, stop),
        cmocka_unit_test_teardown(test_mode_changes, stop),
        cmocka_unit_test_teardown(test_x2apic_registers, stop),
        cmocka_unit_test_teardown(test_extint, stop),
        cmocka_unit_test_teardown(test_any_access, stop),
        cmocka_unit_test_teardown(test_race, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

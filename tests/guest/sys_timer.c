/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The local APIC's timer: one-shot, periodic and TSC-deadline mode, divisors, stopping, restarting, masks,
 * changes of mode (SDM vol. 3A 11.5.4). Nothing here takes a busy host for a wrong timer: an interrupt may
 * come late, never early, and ratios are taken with room.
 */
#include "common/guest.h"

#define MASKED           0x10000u
#define ONE_SHOT         0u
#define PERIODIC         0x20000u
#define DEADLINE         0x40000u
#define VECTOR           0x50u
#define MSR_TSC_DEADLINE 0x6e0

static volatile unsigned fired;

static void on_timer(struct trap_frame *frame)
{
    (void)frame;
    fired++;
    lapic_eoi();
}

static void window(void)
{
    __asm__ volatile("sti; nop; nop; cli" : : : "memory");
}

/* Until n have fired, or for `most` times 5 ms. */
static bool wait_fired(unsigned n, unsigned most)
{
    for (unsigned tries = 0; tries < most && fired < n; tries++) {
        window();
        if (fired < n)
            delay_us(5000);
        window();
    }
    return fired >= n;
}

static void start(unsigned mode, uint32_t divide, uint32_t count)
{
    lapic_write(LAPIC_TIMER_INITIAL, 0);
    fired = 0;
    lapic_write(LAPIC_LVT_TIMER, mode | VECTOR);
    lapic_write(LAPIC_TIMER_DIVIDE, divide);
    lapic_write(LAPIC_TIMER_INITIAL, count);
}

/* What the counter counts in about 10 ms, by the TSC: ticks per 2^20 cycles. */
static uint64_t rate(uint32_t divide)
{
    uint64_t t0, t1;
    uint32_t c0, c1;

    start(ONE_SHOT | MASKED, divide, 0xffffffff);
    t0 = rdtsc();
    c0 = lapic_read(LAPIC_TIMER_CURRENT);
    delay_us(20000);
    c1 = lapic_read(LAPIC_TIMER_CURRENT);
    t1 = rdtsc();
    return ((uint64_t)(c0 - c1) << 20) / (t1 - t0);
}

static uint32_t ticks_10ms; /* at divisor 16 */

static void test_divide(void)
{
    static const struct {
        const char *name;
        uint32_t code;
        unsigned by;
    } rows[] = {{"2", 0, 2},   {"4", 1, 4},      {"8", 2, 8}, {"32", 8, 32},
                {"64", 9, 64}, {"128", 10, 128}, {"1", 11, 1}};
    uint64_t by_16 = rate(3);

    check_value("the counter runs", by_16 != 0, 1);
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t r = rate(rows[i].code) * rows[i].by;
        /* A reading that the host interrupts is wrong by that; then once more. */
        for (unsigned tries = 0; tries < 5 && (r < by_16 * 12 || r > by_16 * 20); tries++) {
            by_16 = rate(3);
            r = rate(rows[i].code) * rows[i].by;
        }
        check_value(check_name("divided by ", rows[i].name, NULL), r > by_16 * 12 && r < by_16 * 20, 1);
        check_value(check_name("divided by ", rows[i].name, ": reads back", NULL),
                    lapic_read(LAPIC_TIMER_DIVIDE), rows[i].code);
    }
    start(ONE_SHOT | MASKED, 3, 0xffffffff);
    delay_us(10000);
    ticks_10ms = 0xffffffff - lapic_read(LAPIC_TIMER_CURRENT);
}

static void test_one_shot(void)
{
    uint32_t current;

    start(ONE_SHOT, 3, ticks_10ms);
    window();
    current = lapic_read(LAPIC_TIMER_CURRENT);
    check_value("one-shot: counts down from its count", current <= ticks_10ms, 1);
    check_value("one-shot: fires", wait_fired(1, 400), 1);
    check_value("one-shot: the counter rests at 0", lapic_read(LAPIC_TIMER_CURRENT), 0);
    check_value("one-shot: the count reads back", lapic_read(LAPIC_TIMER_INITIAL), ticks_10ms);
    delay_us(30000);
    window();
    check_value("one-shot: once", fired, 1);
    start(ONE_SHOT, 3, ticks_10ms * 8);
    lapic_write(LAPIC_TIMER_INITIAL, 0);
    check_value("stopped: the counter is 0", lapic_read(LAPIC_TIMER_CURRENT), 0);
    for (unsigned n = 0; n < 20; n++)
        delay_us(6000);
    window();
    check_value("stopped: does not fire", fired, 0);
    start(ONE_SHOT, 3, ticks_10ms * 100);
    lapic_write(LAPIC_TIMER_INITIAL, ticks_10ms);
    check_value("restarted: fires by the new count", wait_fired(1, 180), 1);
    /* A busy host may be late with it, even until the mask is gone: then once more, with longer to wait. */
    for (unsigned wait = 1; wait <= 16; wait *= 2) {
        start(ONE_SHOT | MASKED, 3, ticks_10ms / 4);
        for (unsigned n = 0; n < wait; n++)
            delay_us(20000);
        window();
        if (wait == 1)
            check_value("masked: does not fire", fired, 0);
        lapic_write(LAPIC_LVT_TIMER, ONE_SHOT | VECTOR);
        delay_us(10000);
        window();
        if (!fired)
            break;
    }
    if (processor_is_tcg())
        check_skip("unmasked later: what passed is lost", "KVM keeps it until then");
    else
        check_value("unmasked later: what passed is lost", fired, 0);
    start(ONE_SHOT | MASKED, 3, ticks_10ms * 3);
    lapic_write(LAPIC_LVT_TIMER, ONE_SHOT | VECTOR);
    check_value("unmasked in time: fires", wait_fired(1, 400), 1);
}

static void test_periodic(void)
{
    uint64_t t0 = rdtsc(), t1, tsc_10ms;

    delay_us(10000);
    tsc_10ms = rdtsc() - t0;
    start(PERIODIC, 3, ticks_10ms);
    t0 = rdtsc();
    check_value("periodic: fires again and again", wait_fired(5, 800), 1);
    t1 = rdtsc();
    check_value("periodic: not too often", t1 - t0 > tsc_10ms * 5 / 2, 1);
    check_value("periodic: the counter goes on", lapic_read(LAPIC_TIMER_CURRENT) <= ticks_10ms, 1);
    lapic_write(LAPIC_LVT_TIMER, PERIODIC | MASKED | VECTOR);
    window();
    fired = 0;
    for (unsigned n = 0; n < 5; n++)
        delay_us(10000);
    window();
    check_value("periodic, masked: does not fire", fired, 0);
    lapic_write(LAPIC_LVT_TIMER, PERIODIC | VECTOR);
    check_value("periodic, unmasked: goes on", wait_fired(2, 800), 1);
    lapic_write(LAPIC_TIMER_INITIAL, 0);
    window();
    fired = 0;
    for (unsigned n = 0; n < 5; n++)
        delay_us(10000);
    window();
    check_value("periodic, stopped", fired, 0);
}

static void test_halt(void)
{
    start(ONE_SHOT, 3, ticks_10ms);
    while (!fired)
        wait_for_interrupt();
    check_value("wakes from HLT", fired, 1);
    /* Interrupts that come while IF is off wait; several are one. */
    start(PERIODIC, 3, ticks_10ms / 4);
    for (unsigned n = 0; n < 4; n++)
        delay_us(10000);
    lapic_write(LAPIC_TIMER_INITIAL, 0);
    window();
    check_value("several under CLI are one", fired >= 1 && fired <= 2, 1);
}

static void test_deadline(void)
{
    uint64_t t0 = rdtsc(), tsc_10ms, deadline, late;

    if (!processor_has(1, 2, 24)) {
        check_skip("deadline: ", "this processor has no such mode");
        return;
    }
    delay_us(10000);
    tsc_10ms = rdtsc() - t0;
    lapic_write(LAPIC_LVT_TIMER, DEADLINE | VECTOR);
    fired = 0;
    deadline = rdtsc() + tsc_10ms;
    wrmsr(MSR_TSC_DEADLINE, deadline);
    while (!fired)
        wait_for_interrupt();
    late = rdtsc();
    check_value("deadline: not before its time", late >= deadline, 1);
    check_value("deadline: within a second", late - deadline < tsc_10ms * 100, 1);
    check_value("deadline: the MSR is 0 afterwards", rdmsr(MSR_TSC_DEADLINE), 0);
    fired = 0;
    wrmsr(MSR_TSC_DEADLINE, rdtsc() - 1);
    check_value("deadline: in the past, at once", wait_fired(1, 200), 1);
    fired = 0;
    deadline = rdtsc() + tsc_10ms * 2;
    wrmsr(MSR_TSC_DEADLINE, deadline);
    if (rdtsc() < deadline)
        wrmsr(MSR_TSC_DEADLINE, 0);
    for (unsigned n = 0; n < 6; n++)
        delay_us(10000);
    window();
    check_value("deadline: disarmed", fired <= (rdtsc() < deadline), 1);
    lapic_write(LAPIC_TIMER_INITIAL, 1000);
    check_value("deadline: the count does nothing", lapic_read(LAPIC_TIMER_CURRENT), 0);
    lapic_write(LAPIC_LVT_TIMER, ONE_SHOT | VECTOR);
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 1);
    check_value("deadline: in one-shot mode the MSR does nothing", rdmsr(MSR_TSC_DEADLINE), 0);
}

void guest_main(void)
{
    trap_set_handler(VECTOR, on_timer);
    pic_disable();
    lapic_enable();
    test_divide();
    test_one_shot();
    test_periodic();
    test_halt();
    test_deadline();
    lapic_write(LAPIC_LVT_TIMER, MASKED);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/engine/soft/lapic_timer.c against SDM vol. 3A 11.5.4, with a clock that the test moves. */
#include "lapic_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_timer_one_shot(void **state)
{
    start(1);
    enable(0);
    lapic_write(apic(0), LVT_TIMER, 0x30);
    lapic_write(apic(0), DIVIDE, 0x3); /* by 16 */
    lapic_write(apic(0), INITIAL, 1000);
    assert_int_equal(lapic_read(apic(0), CURRENT), 1000);
    fake_loop_advance(8000);
    assert_int_equal(lapic_read(apic(0), CURRENT), 500);
    fake_loop_advance(7999);
    assert_int_equal(take(0), -1);
    fake_loop_advance(1);
    assert_int_equal(take(0), 0x30);
    assert_int_equal(lapic_read(apic(0), CURRENT), 0);
    assert_int_equal(lapic_read(apic(0), INITIAL), 1000);
    fake_loop_advance(1000000);
    assert_int_equal(lapic_read(apic(0), IRR + 0x10), 0);
    assert_int_equal(fake_loop_armed(), 0);
    lapic_write(apic(0), EOI, 0);

    lapic_write(apic(0), INITIAL, 1000);
    lapic_write(apic(0), INITIAL, 0);
    fake_loop_advance(1000000);
    assert_int_equal(take(0), -1);

    lapic_write(apic(0), LVT_TIMER, 0x10030); /* masked: counts, but says nothing */
    lapic_write(apic(0), INITIAL, 1000);
    fake_loop_advance(1000000);
    assert_int_equal(lapic_read(apic(0), CURRENT), 0);
    assert_int_equal(take(0), -1);
}

static void test_timer_dividers(void **state)
{
    static const struct {
        uint32_t code;
        unsigned divider;
    } rows[] = {{0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {10, 128}, {11, 1}};
    start(1);
    enable(0);
    lapic_write(apic(0), LVT_TIMER, 0x30);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        lapic_write(apic(0), DIVIDE, rows[i].code);
        assert_int_equal(lapic_read(apic(0), DIVIDE), rows[i].code);
        lapic_write(apic(0), INITIAL, 100000);
        fake_loop_advance(100000ull * rows[i].divider - 1);
        assert_int_equal(take(0), -1);
        fake_loop_advance(1);
        assert_int_equal(take(0), 0x30);
        lapic_write(apic(0), EOI, 0);
    }
}

static void test_timer_periodic(void **state)
{
    start(1);
    enable(0);
    lapic_write(apic(0), LVT_TIMER, 0x20031);
    lapic_write(apic(0), DIVIDE, 0xb); /* by 1 */
    lapic_write(apic(0), INITIAL, 1000000);
    for (int i = 0; i < 5; i++) {
        fake_loop_advance(999999);
        assert_int_equal(take(0), -1);
        fake_loop_advance(1);
        assert_int_equal(take(0), 0x31);
        lapic_write(apic(0), EOI, 0);
    }
    /* what piles up merges, and the phase stays */
    fake_loop_advance(3500000);
    assert_int_equal(take(0), 0x31);
    lapic_write(apic(0), EOI, 0);
    assert_int_equal(take(0), -1);
    assert_int_equal(lapic_read(apic(0), CURRENT), 500000);
    /* to one-shot while it runs: one more, then the end */
    lapic_write(apic(0), LVT_TIMER, 0x31);
    fake_loop_advance(10000000);
    assert_int_equal(take(0), 0x31);
    lapic_write(apic(0), EOI, 0);
    assert_int_equal(fake_loop_armed(), 0);
    /* a period of one nanosecond must not keep the host busy */
    lapic_write(apic(0), LVT_TIMER, 0x20031);
    lapic_write(apic(0), INITIAL, 1);
    unsigned wakes = t.wakes[0], n = 0;
    for (int i = 0; i < 1000; i++) {
        fake_loop_advance(1000);
        if (take(0) == 0x31) {
            n++;
            lapic_write(apic(0), EOI, 0);
        }
    }
    assert_true(n >= 1 && n <= 20);
    assert_true(t.wakes[0] - wakes <= 20);
}

static void test_timer_deadline(void **state)
{
    start(1);
    enable(0);
    assert_int_equal(lapic_msr_write(apic(0), 0x6e0, 12345), 0);
    assert_int_equal(msr(0, 0x6e0), 0); /* not in that mode */
    lapic_write(apic(0), LVT_TIMER, 0x40032);
    lapic_write(apic(0), INITIAL, 5); /* ignored */
    assert_int_equal(fake_loop_armed(), 0);
    uint64_t deadline = read_tsc(NULL, 0) + TSC_HZ / 1000;
    assert_int_equal(lapic_msr_write(apic(0), 0x6e0, deadline), 0);
    assert_true(msr(0, 0x6e0) == deadline);
    fake_loop_advance(999998);
    assert_int_equal(take(0), -1);
    fake_loop_advance(3);
    assert_int_equal(take(0), 0x32);
    assert_int_equal(msr(0, 0x6e0), 0);
    lapic_write(apic(0), EOI, 0);
    /* in the past: at once, in the writer's thread */
    assert_int_equal(lapic_msr_write(apic(0), 0x6e0, 1), 0);
    assert_int_equal(take(0), 0x32);
    assert_int_equal(fake_loop_armed(), 0);
    lapic_write(apic(0), EOI, 0);
    /* cancelled */
    assert_int_equal(lapic_msr_write(apic(0), 0x6e0, deadline + TSC_HZ), 0);
    assert_int_equal(lapic_msr_write(apic(0), 0x6e0, 0), 0);
    assert_int_equal(fake_loop_armed(), 0);
    /* the far future overflows nothing */
    assert_int_equal(lapic_msr_write(apic(0), 0x6e0, UINT64_MAX), 0);
    fake_loop_advance(1000000000);
    assert_int_equal(take(0), -1);
    /* a TSC that runs slower than it was said: not before the deadline */
    deadline = read_tsc(NULL, 0) + TSC_HZ / 1000;
    assert_int_equal(lapic_msr_write(apic(0), 0x6e0, deadline), 0);
    t.tsc_ahead -= TSC_HZ / 2000;
    fake_loop_advance(1000001);
    assert_int_equal(take(0), -1);
    fake_loop_advance(500001);
    assert_int_equal(take(0), 0x32);
    lapic_write(apic(0), EOI, 0);
    /* the guest steps its TSC */
    deadline = read_tsc(NULL, 0) + TSC_HZ;
    assert_int_equal(lapic_msr_write(apic(0), 0x6e0, deadline), 0);
    t.tsc_ahead += TSC_HZ * 2;
    lapic_tsc_changed(apic(0));
    assert_int_equal(take(0), 0x32);
    /* leaving the mode disarms */
    assert_int_equal(lapic_msr_write(apic(0), 0x6e0, read_tsc(NULL, 0) + TSC_HZ), 0);
    lapic_write(apic(0), LVT_TIMER, 0x32);
    assert_int_equal(fake_loop_armed(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_timer_one_shot, stop),
        cmocka_unit_test_teardown(test_timer_dividers, stop),
        cmocka_unit_test_teardown(test_timer_periodic, stop),
        cmocka_unit_test_teardown(test_timer_deadline, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

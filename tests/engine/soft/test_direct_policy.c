/* SPDX-License-Identifier: GPL-2.0-or-later */
/* When user code is sent to a stub: by long stretches in user mode, and never at a lasting loss. */
#include "cpu_fixture.h"
#include "engine/soft/direct_policy.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define TRIP  1000u
#define LONG  (100u * TRIP)
#define SHORT TRIP
#define PML4  0x100000u /* the fixture's */

static struct direct_policy p;
static struct soft_vcpu *c;
static uint64_t now;

static int begin(void **state)
{
    c = fixture_cpu(MODE_LONG, 3);
    c->gpr[CPU_RAX] = 1; /* no program begins */
    direct_policy_init(&p, TRIP);
    now = 1;
    return 0;
}

static int end(void **state)
{
    fixture_end();
    return 0;
}

/* User mode for a while, translated. */
static void stretch(uint64_t ticks, bool interrupted)
{
    direct_policy_enter(&p, c, now);
    now += ticks;
    direct_policy_leave(&p, now, interrupted);
    now += 10 * TRIP; /* the kernel's */
}

/* The same in a stub: what its code used, and what its pages took. */
static void stretch_in_stub(uint64_t ran, uint64_t beside)
{
    direct_policy_enter(&p, c, now);
    direct_policy_account(&p, now, now + ran + beside, ran, 0);
    now += ran + beside;
    direct_policy_leave(&p, now, false);
    now += 10 * TRIP;
}

/* Ticks in stretches of `ticks` until a stub is wanted; 0 if it is not for a very long time. */
static uint64_t until_wanted(uint64_t ticks)
{
    uint64_t sum = 0;

    while (sum < 100 * p.price) {
        stretch(ticks, false);
        sum += ticks;
        if (direct_policy_wants(&p))
            return sum;
    }
    return 0;
}

static void test_one_that_computes(void **state)
{
    uint64_t took = until_wanted(LONG);

    assert_true(took >= p.price && took <= p.price + LONG);
    for (unsigned n = 0; n < 1000; n++) {
        stretch_in_stub(LONG / 5, 2 * TRIP);
        assert_true(direct_policy_wants(&p));
    }
}

static void test_one_that_calls(void **state)
{
    assert_int_equal(until_wanted(SHORT), 0);
}

/* An interrupt ends no stretch: one of a thousand ticks' computing is known as long before its end. */
static void test_one_that_is_interrupted(void **state)
{
    for (unsigned n = 0; n < p.price / SHORT; n++)
        stretch(SHORT, true);
    assert_true(direct_policy_wants(&p));
}

/* What is mapped again and again takes more than the code gains: it may lose some, and then waits. */
static void test_one_that_loses(void **state)
{
    uint64_t lost = 0;

    assert_true(until_wanted(LONG) > 0);
    while (direct_policy_wants(&p)) {
        stretch_in_stub(LONG / 5, 3 * LONG);
        lost += 3 * LONG - LONG / 5 * 4;
        assert_true(lost < 2 * p.price);
    }
    assert_true(until_wanted(LONG) >= 3 * lost);
}

/* Until it has lost enough not to be sent to a stub any more. */
static void lose_there(void)
{
    while (direct_policy_wants(&p))
        stretch_in_stub(LONG / 5, 3 * LONG);
}

/* Who has lost again waits longer each time; who gains has no such past. */
static void test_one_that_loses_again(void **state)
{
    uint64_t waits = until_wanted(LONG), before;

    for (unsigned n = 0; n < 4; n++) {
        before = waits;
        lose_there();
        waits = until_wanted(LONG);
        assert_true(waits >= before + before / 2);
    }
    for (unsigned n = 0; n < 1000; n++)
        stretch_in_stub(LONG / 5, 0);
    lose_there();
    assert_true(until_wanted(LONG) < waits / 2);
}

/* Others that had the processor meanwhile are no loss. */
static void test_one_that_waits(void **state)
{
    assert_true(until_wanted(LONG) > 0);
    for (unsigned n = 0; n < 1000; n++) {
        direct_policy_enter(&p, c, now);
        direct_policy_account(&p, now, now + 10 * LONG, LONG / 5, 10 * LONG - LONG / 5);
        now += 10 * LONG;
        direct_policy_leave(&p, now, false);
        assert_true(direct_policy_wants(&p));
    }
}

static void assert_anew(void)
{
    direct_policy_enter(&p, c, now);
    assert_false(direct_policy_wants(&p));
    assert_int_equal(p.current->debt, p.price);
}

static void test_another_program(void **state)
{
    assert_true(until_wanted(LONG) > 0);
    for (unsigned n = 0; n < CPU_GPRS; n++) /* as Linux begins one */
        c->gpr[n] = n == CPU_RSP ? 0x7ffff000 : 0;
    assert_anew();
}

/* A forked process whose top table lies where that of an ended one lay. */
static void test_a_table_used_anew(void **state)
{
    assert_true(until_wanted(LONG) > 0);
    fixture_write(PML4 + 8 * 255, fixture_read(PML4, 8), 8);
    c->flushes++; /* as CR3 is loaded */
    assert_anew();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_that_computes, begin, end),
        cmocka_unit_test_setup_teardown(test_one_that_calls, begin, end),
        cmocka_unit_test_setup_teardown(test_one_that_is_interrupted, begin, end),
        cmocka_unit_test_setup_teardown(test_one_that_loses, begin, end),
        cmocka_unit_test_setup_teardown(test_one_that_loses_again, begin, end),
        cmocka_unit_test_setup_teardown(test_one_that_waits, begin, end),
        cmocka_unit_test_setup_teardown(test_another_program, begin, end),
        cmocka_unit_test_setup_teardown(test_a_table_used_anew, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

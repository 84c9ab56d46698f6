/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/engine/soft/op_string.c: what the differential test doesn't reach: long runs, faults in their middle,
 * all overlaps, wrapping addresses, segment limits, interruption.
 */
#include "cpu_fixture.h"

#include "engine/soft/soft.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SRC              0x400000u
#define DST              0x480000u
#define PAGE             0x1000u
#define MANY             1000 /* continuations at most */
#define REP_MOVS(opcode) STEP(0xf3, opcode)

/* Runs the instruction to its end, however often it lets others have their turn. */
static int finish(const uint8_t *code, size_t length, unsigned *turns)
{
    struct soft_vcpu *c = fixture_vcpu();
    uint64_t rip = c->rip;
    int result = fixture_step(code, length);

    for (*turns = 1; result == SOFT_JUMP && c->rip == rip && *turns < MANY; (*turns)++)
        result = soft_step(c);
    return result;
}

#define FINISH(turns, ...)                                                                                   \
    finish((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), turns)

static void fill(uint64_t at, size_t length)
{
    uint8_t *p = fixture_ram(at);

    for (size_t k = 0; k < length; k++)
        p[k] = (uint8_t)rand();
}

/* The instruction by its definition: one element after the other. */
static void model_movs(uint8_t *to, const uint8_t *from, size_t n, unsigned size, bool down)
{
    for (size_t k = 0; k < n; k++) {
        uint8_t element[8];
        ptrdiff_t at = (down ? -(ptrdiff_t)k : (ptrdiff_t)k) * (ptrdiff_t)size;

        memcpy(element, from + at, size);
        memcpy(to + at, element, size);
    }
}

/* All sizes, both directions, every distance between source and destination up to +-24, and page crossings.
 */
static void overlapping_moves(void **state)
{
    static uint8_t expected[3 * PAGE];
    const size_t bytes = 600;
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);
    uint8_t *ram = fixture_ram(SRC);

    for (unsigned shift = 0; shift < 4; shift++) {
        for (int distance = -24; distance <= 24; distance++) {
            for (unsigned down = 0; down < 2; down++) {
                unsigned size = 1u << shift, turns;
                size_t n = bytes / size;
                size_t start = PAGE + (down ? bytes / 2 : (size_t)0) - (down ? 0 : bytes / 2);
                const uint8_t rex = shift == 3 ? 0x48 : 0x90, prefix = shift == 1 ? 0x66 : 0x2e;

                fill(SRC, sizeof(expected));
                memcpy(expected, ram, sizeof(expected));
                model_movs(expected + start + distance, expected + start, n, size, down);
                c->rip = CODE_AT;
                c->gpr[CPU_RSI] = SRC + start;
                c->gpr[CPU_RDI] = SRC + start + (uint64_t)(int64_t)distance;
                c->gpr[CPU_RCX] = n;
                c->flags = down ? FLAG_DF : 0;
                if (shift == 3)
                    ASSERT_DONE(FINISH(&turns, prefix, 0xf3, rex, 0xa5));
                else
                    ASSERT_DONE(FINISH(&turns, prefix, 0xf3, shift ? 0xa5 : 0xa4));
                assert_memory_equal(ram, expected, sizeof(expected));
                assert_int_equal(c->gpr[CPU_RCX], 0);
                assert_int_equal(c->gpr[CPU_RSI], SRC + start + (down ? -bytes : bytes));
            }
        }
    }
}

static void long_runs_come_in_turns(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);
    const size_t bytes = 300000;
    unsigned turns;

    fill(SRC, bytes);
    c->gpr[CPU_RSI] = SRC + 3;
    c->gpr[CPU_RDI] = DST + 7;
    c->gpr[CPU_RCX] = bytes;
    ASSERT_DONE(FINISH(&turns, 0xf3, 0xa4));
    assert_memory_equal(fixture_ram(DST + 7), fixture_ram(SRC + 3), bytes);
    assert_in_range(turns, 4, 8); /* of 64 KiB */
    c->gpr[CPU_RDI] = DST;
    c->gpr[CPU_RCX] = bytes / 8;
    c->gpr[CPU_RAX] = 0x1122334455667788;
    ASSERT_DONE(FINISH(&turns, 0xf3, 0x48, 0xab));
    for (unsigned k = 0; k < bytes / 8; k++)
        assert_true(fixture_read(DST + 8 * k, 8) == 0x1122334455667788);
    assert_int_equal(c->gpr[CPU_RDI], DST + bytes);
}

static void something_pending_ends_a_turn(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);
    struct soft_insn insn = {
        .length = 2, .operand_size = 1, .address_size = 8, .rep = 0xf3, .opcode = 0xa4, .segment = CPU_DS};
    soft_handler *movs = NULL;

    for (uint16_t m = 0; !movs; m++) {
        const struct soft_insn_row *row = soft_insn_find(m);

        if (row && strcmp(row->name, "MOVSB") == 0)
            movs = row->handler;
    }
    c->gpr[CPU_RSI] = SRC + PAGE - 0x10;
    c->gpr[CPU_RDI] = DST;
    c->gpr[CPU_RCX] = 0x8000;
    c->pending = 1;
    assert_int_equal(movs(c, &insn), SOFT_JUMP);
    assert_int_equal(c->gpr[CPU_RCX], 0x8000 - 0x10); /* a run went through all the same */
    assert_int_equal(c->rip, CODE_AT);
    c->pending = 0;
    assert_int_equal(movs(c, &insn), SOFT_NEXT);
    assert_int_equal(c->gpr[CPU_RCX], 0);
}

static void single_steps_stop_after_each_element(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    soft_set_rflags(c, FLAG_TF, FLAG_TF);
    c->gpr[CPU_RDI] = DST;
    c->gpr[CPU_RCX] = 2;
    assert_int_equal(REP_MOVS(0xaa), SOFT_FAULT);
    assert_int_equal(c->fault.vector, VEC_DB);
    assert_int_equal(c->fault.dr6, 1 << 14);
    assert_int_equal(c->gpr[CPU_RCX], 1);
    assert_int_equal(c->rip, CODE_AT);
    assert_int_equal(REP_MOVS(0xaa), SOFT_FAULT);
    assert_int_equal(c->gpr[CPU_RCX], 0);
    assert_int_equal(c->rip, CODE_AT + 2); /* the trap of a finished instruction */
}

/* ---- faults in the middle ---- */

static void faults_leave_the_last_whole_element(void **state)
{
    for (unsigned down = 0; down < 2; down++) {
        struct soft_vcpu *c = fixture_cpu(MODE_LONG, 3);
        uint64_t edge =
            HOLE_AT + (down ? PAGE : 0); /* the first address that is mapped, or the last plus 1 */
        uint64_t start = down ? edge + 8 * 100 + 4 : edge - 8 * 100 - 4;
        unsigned turns;

        c->gpr[CPU_RDI] = start;
        c->gpr[CPU_RCX] = 200;
        c->gpr[CPU_RAX] = UINT64_MAX;
        c->flags = down ? FLAG_DF : 0;
        assert_int_equal(FINISH(&turns, 0xf3, 0x48, 0xab), SOFT_FAULT);
        assert_int_equal(c->fault.vector, VEC_PF);
        assert_int_equal(c->fault.error, 6);
        assert_int_equal(c->gpr[CPU_RCX], 200 - (down ? 101 : 100));
        assert_int_equal(c->gpr[CPU_RDI], start + (down ? -8 * 101ull : 8 * 100));
        assert_int_equal(c->rip, CODE_AT);
        /* The element across the edge was not begun. */
        assert_int_equal(fixture_read(down ? edge + 3 : edge - 4, 1), 0);
        assert_int_equal(fixture_read(down ? edge + 4 : edge - 5, 1), 0xff);
    }
}

static void compares_keep_their_flags_on_a_fault(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 3);
    unsigned turns;

    c->gpr[CPU_RSI] = DST;
    c->gpr[CPU_RDI] = HOLE_AT - 16;
    c->gpr[CPU_RCX] = 100;
    c->flags = FLAG_CF | FLAG_OF;
    assert_int_equal(FINISH(&turns, 0xf3, 0xa6), SOFT_FAULT);
    assert_int_equal(c->flags, FLAG_CF | FLAG_OF);
    assert_int_equal(c->gpr[CPU_RCX], 84);
    fixture_write(DST + 5, 1, 1);
    c->gpr[CPU_RSI] = DST;
    c->gpr[CPU_RDI] = HOLE_AT - 16;
    c->gpr[CPU_RCX] = 100;
    ASSERT_DONE(FINISH(&turns, 0xf3, 0xa6)); /* ends before the hole */
    assert_int_equal(c->gpr[CPU_RCX], 94);
    assert_int_equal(c->flags, 0); /* 1 - 0 */
}

static void read_only_and_supervisor_pages(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 3);

    c->gpr[CPU_RSI] = SUPERVISOR_AT;
    c->gpr[CPU_RDI] = READ_ONLY_AT;
    c->gpr[CPU_RCX] = 4;
    ASSERT_FAULT(STEP(0xf3, 0xa4), VEC_PF, 5);
    c->gpr[CPU_RSI] = READ_ONLY_AT;
    ASSERT_FAULT(STEP(0xf3, 0xa4), VEC_PF, 7);
    assert_true(c->fault.cr2 == READ_ONLY_AT);
}

/* ---- segments and 16-bit addresses ---- */

static void addresses_of_16_bits_wrap(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_REAL, 0);
    unsigned turns;

    c->seg[CPU_ES].base = DATA_AT;
    c->seg[CPU_ES].selector = DATA_AT >> 4;
    c->gpr[CPU_RDI] = 0xaaaafff0;
    c->gpr[CPU_RCX] = 0xbbbb0020;
    c->gpr[CPU_RAX] = 0x5a;
    ASSERT_DONE(FINISH(&turns, 0xf3, 0xaa));
    assert_int_equal(c->gpr[CPU_RDI], 0xaaaa0010);
    assert_int_equal(c->gpr[CPU_RCX], 0xbbbb0000);
    assert_int_equal(fixture_read(DATA_AT + 0xffff, 1), 0x5a);
    assert_int_equal(fixture_read(DATA_AT + 0x0f, 1), 0x5a);
    assert_int_equal(fixture_read(DATA_AT + 0x10, 1), 0);
    assert_int_equal(fixture_read(DATA_AT + 0x10000, 1), 0);
    /* A word at 0xffff is beyond the limit. */
    c->gpr[CPU_RDI] = 0xffff;
    c->gpr[CPU_RCX] = 1;
    ASSERT_FAULT(STEP(0xf3, 0xab), VEC_GP, 0);
}

static void limits_come_in_the_middle(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);
    unsigned turns;

    c->seg[CPU_ES] =
        (struct cpu_segment_state){.base = DATA_AT, .limit = 0x101, .attr = 0x4093, .selector = 8};
    c->gpr[CPU_RCX] = 0x1000;
    c->gpr[CPU_RAX] = UINT32_MAX;
    assert_int_equal(FINISH(&turns, 0xf3, 0xab), SOFT_FAULT);
    assert_int_equal(c->fault.vector, VEC_GP);
    assert_int_equal(c->gpr[CPU_RDI], 0x100);
    assert_int_equal(c->gpr[CPU_RCX], 0x1000 - 0x40);
    assert_int_equal(fixture_read(DATA_AT + 0x100, 2), 0);
    /* The source's segment can be overridden, the destination's can't. */
    c->seg[CPU_FS] = (struct cpu_segment_state){.base = SRC, .limit = 0xfff, .attr = 0x4091, .selector = 8};
    fill(SRC, 16);
    c->gpr[CPU_RSI] = c->gpr[CPU_RDI] = 0;
    c->gpr[CPU_RCX] = 4;
    ASSERT_DONE(FINISH(&turns, 0x64, 0xf3, 0xa5));
    assert_memory_equal(fixture_ram(DATA_AT), fixture_ram(SRC), 16);
}

static void code_that_is_overwritten_is_translated_anew(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    c->gpr[CPU_RDI] = CODE_AT + 3;
    c->gpr[CPU_RCX] = 1;
    c->gpr[CPU_RAX] = 0x0b0f; /* ud2 where a NOP was */
    fixture_write(CODE_AT + 3, 0x9090, 2);
    ASSERT_DONE(STEP(0x66, 0xf3, 0xab));
    assert_int_equal(c->rip, CODE_AT + 3);
    assert_int_equal(soft_step(c), SOFT_FAULT);
    assert_int_equal(c->fault.vector, VEC_UD);
}

static int teardown(void **state)
{
    fixture_end();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlapping_moves),
        cmocka_unit_test(long_runs_come_in_turns),
        cmocka_unit_test(something_pending_ends_a_turn),
        cmocka_unit_test(single_steps_stop_after_each_element),
        cmocka_unit_test(faults_leave_the_last_whole_element),
        cmocka_unit_test(compares_keep_their_flags_on_a_fault),
        cmocka_unit_test(read_only_and_supervisor_pages),
        cmocka_unit_test(addresses_of_16_bits_wrap),
        cmocka_unit_test(limits_come_in_the_middle),
        cmocka_unit_test(code_that_is_overwritten_is_translated_anew),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}

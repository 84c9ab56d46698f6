/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/engine/soft/exception.c against SDM vol. 3A chapter 6: delivery in every mode, nested faults. */
#include "cpu_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define PRESENT  0x80u
#define DPL3     0x60u
#define INT32    0x0eu
#define TRAP32   0x0fu
#define INT16    0x06u
#define HANDLER  0x12340u
#define HANDLER2 0x15000u

/* Raises and delivers. */
static int deliver(struct soft_vcpu *c, enum soft_vector vector, uint32_t error)
{
    soft_raise_error(c, vector, error);
    return soft_deliver_fault(c);
}

static uint64_t stacked(struct soft_vcpu *c, unsigned n, unsigned size)
{
    return fixture_read(c->gpr[CPU_RSP] + n * size, size);
}

/* ---- real mode ---- */

static void real_mode_uses_the_vector_table(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_REAL, 0);

    fixture_set_gate(VEC_GP, 0x200, 0x340, 0, 0);
    soft_set_rflags(c, FLAG_IF | FLAG_TF | FLAG_CF | FLAG_AC, FLAG_IF | FLAG_TF | FLAG_CF | FLAG_AC);
    assert_int_equal(deliver(c, VEC_GP, 0x18), SOFT_JUMP);
    assert_int_equal(c->seg[CPU_CS].selector, 0x200);
    assert_int_equal(c->seg[CPU_CS].base, 0x2000);
    assert_int_equal(c->rip, 0x340);
    assert_int_equal(c->gpr[CPU_RSP], 0x7000 - 6); /* no error code */
    assert_int_equal(stacked(c, 0, 2), 0x8000);
    assert_int_equal(stacked(c, 1, 2), 0);
    assert_int_equal(stacked(c, 2, 2), FLAG_IF | FLAG_TF | FLAG_CF | 2);
    assert_int_equal(soft_rflags(c), FLAG_CF | 2);
}

static void real_mode_beyond_the_table_is_a_double_fault_then_shutdown(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_REAL, 0);

    c->idt.limit = 8 * 4 + 3; /* up to #DF */
    fixture_set_gate(VEC_DF, 0, 0x999, 0, 0);
    assert_int_equal(deliver(c, VEC_GP, 0), SOFT_JUMP);
    assert_int_equal(c->rip, 0x999);
    c->idt.limit = 8 * 4 + 2;
    assert_int_equal(deliver(c, VEC_GP, 0), SOFT_FAULT);
}

static void real_mode_int_pushes_the_next_address(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_REAL, 0);

    fixture_set_gate(0x21, 0x100, 0x10, 0, 0);
    ASSERT_DONE(STEP(0xcd, 0x21));
    assert_int_equal(c->rip, 0x10);
    assert_int_equal(stacked(c, 0, 2), 0x8002);
}

/* ---- 32 bits ---- */

static void same_level_through_interrupt_and_trap_gates(void **state)
{
    const uint64_t all = FLAG_IF | FLAG_TF | FLAG_NT;

    for (unsigned trap = 0; trap < 2; trap++) {
        struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);

        fixture_set_gate(VEC_GP, CODE0_32, HANDLER, PRESENT | (trap ? TRAP32 : INT32), 0);
        soft_set_rflags(c, all, all);
        assert_int_equal(deliver(c, VEC_GP, 0x1234), SOFT_JUMP);
        assert_int_equal(c->rip, HANDLER);
        assert_int_equal(c->gpr[CPU_RSP], STACK_AT - 16);
        assert_int_equal(stacked(c, 0, 4), 0x1234);
        assert_int_equal(stacked(c, 1, 4), CODE_AT);
        assert_int_equal(stacked(c, 2, 4), CODE0_32);
        assert_int_equal(stacked(c, 3, 4), all | FLAG_RF | 2); /* a fault: RF */
        assert_int_equal(soft_rflags(c), (trap ? FLAG_IF : 0) | 2);
    }
}

static void inner_level_takes_its_stack_from_the_tss(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 3);

    fixture_set_gate(VEC_PF, CODE0_32, HANDLER, PRESENT | INT32, 0);
    c->fault = (struct soft_fault){.vector = VEC_PF, .has_error = true, .error = 5, .cr2 = 0xabcdef};
    assert_int_equal(soft_deliver_fault(c), SOFT_JUMP);
    assert_int_equal(c->cpl, 0);
    assert_int_equal(c->key & KEY_CPL, 0);
    assert_int_equal(c->cr2, 0xabcdef);
    assert_int_equal(c->seg[CPU_CS].selector, CODE0_32);
    assert_int_equal(c->seg[CPU_SS].selector, DATA0);
    assert_int_equal(c->gpr[CPU_RSP], STACK_AT - 24);
    assert_int_equal(stacked(c, 0, 4), 5);
    assert_int_equal(stacked(c, 1, 4), CODE_AT);
    assert_int_equal(stacked(c, 2, 4), CODE3_32);
    assert_int_equal(stacked(c, 4, 4), STACK_AT + 0x3000);
    assert_int_equal(stacked(c, 5, 4), DATA3);
}

static void gates_of_16_bits_push_words(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 3);

    fixture_set_gate(VEC_UD, CODE0_32, 0xffff5678, PRESENT | INT16, 0);
    assert_int_equal(deliver(c, VEC_UD, 0), SOFT_JUMP);
    assert_int_equal(c->rip, 0x5678);
    assert_int_equal(c->gpr[CPU_RSP], STACK_AT - 10);
    assert_int_equal(stacked(c, 0, 2), CODE_AT & 0xffff);
    assert_int_equal(stacked(c, 4, 2), DATA3);
}

static void conforming_handlers_keep_the_level(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 3);

    fixture_set_gate(VEC_UD, CODE_CONF, HANDLER, PRESENT | INT32, 0);
    assert_int_equal(deliver(c, VEC_UD, 0), SOFT_JUMP);
    assert_int_equal(c->cpl, 3);
    assert_int_equal(c->seg[CPU_CS].selector, CODE_CONF | 3);
    assert_int_equal(c->gpr[CPU_RSP], STACK_AT + 0x3000 - 12);
}

/* What INT n raises by its gate: the gate's error code has bit 1 set, EXT clear. */
static void software_interrupts_check_their_gate(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 3);
    const uint32_t idt = 0x80 << 3 | 2;

    fixture_set_gate(0x80, CODE0_32, HANDLER, PRESENT | INT32, 0); /* DPL 0 */
    ASSERT_FAULT(STEP(0xcd, 0x80), VEC_GP, idt);
    fixture_set_gate(0x80, CODE0_32, HANDLER, DPL3 | INT32, 0);
    ASSERT_FAULT(STEP(0xcd, 0x80), VEC_NP, idt);
    fixture_set_gate(0x80, CODE0_32, HANDLER, PRESENT | DPL3 | 0xc, 0); /* a call gate */
    ASSERT_FAULT(STEP(0xcd, 0x80), VEC_GP, idt);
    fixture_set_gate(0x80, TSS_SEL, 0, PRESENT | DPL3 | 5, 0); /* a task gate */
    ASSERT_FAULT(STEP(0xcd, 0x80), VEC_GP, TSS_SEL);
    fixture_set_gate(0x80, 0, HANDLER, PRESENT | DPL3 | INT32, 0);
    ASSERT_FAULT(STEP(0xcd, 0x80), VEC_GP, 0);
    fixture_set_gate(0x80, DATA0, HANDLER, PRESENT | DPL3 | INT32, 0);
    ASSERT_FAULT(STEP(0xcd, 0x80), VEC_GP, DATA0);
    fixture_set_gate(0x80, GDT_LIMIT + 1, HANDLER, PRESENT | DPL3 | INT32, 0);
    ASSERT_FAULT(STEP(0xcd, 0x80), VEC_GP, GDT_LIMIT + 1);
    c->idt.limit = 0x80 * 8 + 6;
    ASSERT_FAULT(STEP(0xcd, 0x80), VEC_GP, idt);
    c->idt.limit = 0x7ff;

    fixture_set_gate(0x80, CODE0_32, HANDLER, PRESENT | DPL3 | TRAP32, 0);
    ASSERT_DONE(STEP(0xcd, 0x80));
    assert_int_equal(stacked(c, 0, 4), CODE_AT + 2);
    assert_int_equal(stacked(c, 2, 4) & FLAG_RF, 0);
}

static void external_events_set_ext(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);

    fixture_set_gate(VEC_NP, CODE0_32, HANDLER, PRESENT | INT32, 0);
    fixture_set_gate(0x30, CODE0_32, HANDLER2, INT32, 0); /* not present */
    assert_int_equal(soft_deliver_interrupt(c, 0x30), SOFT_JUMP);
    assert_int_equal(c->rip, HANDLER);
    assert_int_equal(stacked(c, 0, 4), 0x30 << 3 | 3);
    assert_int_equal(stacked(c, 1, 4), CODE_AT);
}

static void interrupts_do_not_touch_rf(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);

    fixture_set_gate(0x30, CODE0_32, HANDLER, PRESENT | INT32, 0);
    c->halted = true;
    c->shadow = 1;
    assert_int_equal(soft_deliver_interrupt(c, 0x30), SOFT_JUMP);
    assert_int_equal(stacked(c, 2, 4), 2);
    assert_false(c->halted);
    assert_false(c->shadow);
}

static void bad_inner_stacks(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 3);

    fixture_set_gate(0x80, CODE0_32, HANDLER, PRESENT | DPL3 | INT32, 0);
    c->tr.limit = 8; /* SS0 is at 8 and 9 */
    ASSERT_FAULT(STEP(0xcd, 0x80), VEC_TS, TSS_SEL);
    c->tr.limit = 9;
    fixture_write(TSS_AT + 8, 0, 2);
    ASSERT_FAULT(STEP(0xcd, 0x80), VEC_TS, 0);
    fixture_write(TSS_AT + 8, DATA3, 2);
    ASSERT_FAULT(STEP(0xcd, 0x80), VEC_TS, DATA3 & ~3);
    fixture_write(TSS_AT + 8, CODE0_32, 2);
    ASSERT_FAULT(STEP(0xcd, 0x80), VEC_TS, CODE0_32);
    fixture_write(TSS_AT + 8, FREE_SEL, 2);
    fixture_set_gdt(FREE_SEL, fixture_descriptor(0, 0xfffff, 0xc013), 0);
    ASSERT_FAULT(STEP(0xcd, 0x80), VEC_SS, FREE_SEL);
    fixture_set_gdt(FREE_SEL, fixture_descriptor(0, STACK_AT >> 12, 0xc092), 0);
    fixture_write(TSS_AT + 4, 0x7ffffff0, 4); /* beyond its limit */
    ASSERT_FAULT(STEP(0xcd, 0x80), VEC_SS, FREE_SEL);
    fixture_write(TSS_AT + 4, STACK_AT, 4);
    ASSERT_DONE(STEP(0xcd, 0x80));
    assert_int_equal(fixture_read(GDT_AT + FREE_SEL + 5, 1) & 1, 1); /* accessed */
}

/* ---- 64 bits ---- */

static void long_mode_aligns_and_always_pushes_the_stack(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    fixture_set_gate(VEC_GP, CODE0_64, 0x1234567890, PRESENT | INT32, 0);
    c->gpr[CPU_RSP] = STACK_AT - 3;
    assert_int_equal(deliver(c, VEC_GP, 0x10), SOFT_JUMP);
    assert_int_equal(c->rip, 0x1234567890);
    assert_int_equal(c->gpr[CPU_RSP], STACK_AT - 16 - 48);
    assert_int_equal(stacked(c, 0, 8), 0x10);
    assert_int_equal(stacked(c, 1, 8), CODE_AT);
    assert_int_equal(stacked(c, 2, 8), CODE0_64);
    assert_int_equal(stacked(c, 3, 8), FLAG_RF | 2);
    assert_int_equal(stacked(c, 4, 8), STACK_AT - 3);
    assert_int_equal(stacked(c, 5, 8), DATA0);
    assert_int_equal(c->seg[CPU_SS].selector, DATA0); /* no change of level: stays */
}

static void long_mode_inner_level_gets_a_null_ss(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 3);

    fixture_set_gate(VEC_UD, CODE0_64, HANDLER, PRESENT | INT32, 0);
    assert_int_equal(deliver(c, VEC_UD, 0), SOFT_JUMP);
    assert_int_equal(c->cpl, 0);
    assert_int_equal(c->seg[CPU_SS].selector, 0);
    assert_int_equal(c->gpr[CPU_RSP], STACK_AT - 40);
    assert_int_equal(stacked(c, 4, 8), DATA3);
}

static void interrupt_stack_table(void **state)
{
    for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
        struct soft_vcpu *c = fixture_cpu(MODE_LONG, cpl);

        fixture_set_gate(VEC_UD, CODE0_64, HANDLER, PRESENT | INT32, 3);
        assert_int_equal(deliver(c, VEC_UD, 0), SOFT_JUMP);
        assert_int_equal(c->gpr[CPU_RSP], IST_AT + 0x2000 - 40);
        assert_int_equal(c->seg[CPU_SS].selector, cpl ? 0 : DATA0);
    }
}

static void compatibility_mode_enters_64_bit_handlers(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_COMPAT, 3);

    c->gpr[CPU_RSP] |= 0xabcdull << 32; /* left from 64-bit mode: does not count */
    fixture_set_gate(0x80, CODE0_64, HANDLER, PRESENT | DPL3 | INT32, 0);
    ASSERT_DONE(STEP(0xcd, 0x80));
    assert_true(c->key & KEY_CODE64);
    assert_int_equal(stacked(c, 0, 8), CODE_AT + 2);
    assert_int_equal(stacked(c, 1, 8), CODE3_32);
    assert_int_equal(stacked(c, 3, 8), STACK_AT + 0x3000);
}

static void long_mode_gates_are_checked(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);
    const uint32_t idt = 0x40 << 3 | 2;

    fixture_set_gate(0x40, CODE0_64, HANDLER, PRESENT | INT16, 0);
    ASSERT_FAULT(STEP(0xcd, 0x40), VEC_GP, idt);
    fixture_set_gate(0x40, TSS_SEL, HANDLER, PRESENT | 5, 0);
    ASSERT_FAULT(STEP(0xcd, 0x40), VEC_GP, idt);
    fixture_set_gate(0x40, CODE0_32, HANDLER, PRESENT | INT32, 0); /* no 64-bit code */
    ASSERT_FAULT(STEP(0xcd, 0x40), VEC_GP, CODE0_32);
    fixture_set_gate(0x40, CODE0_64, 1ull << 47, PRESENT | INT32, 0);
    ASSERT_FAULT(STEP(0xcd, 0x40), VEC_GP, 0);
    assert_int_equal(c->gpr[CPU_RSP], STACK_AT);
    fixture_set_gate(0x40, CODE0_64, HANDLER, PRESENT | INT32, 1);
    fixture_write(TSS_AT + 0x24, 1ull << 63, 8);
    ASSERT_FAULT(STEP(0xcd, 0x40), VEC_SS, 0);
    c->tr.limit = 0x24 + 6;
    ASSERT_FAULT(STEP(0xcd, 0x40), VEC_TS, TSS_SEL);
    c->idt.limit = 0x40 * 16 + 14;
    ASSERT_FAULT(STEP(0xcd, 0x40), VEC_GP, idt);
}

static void a_page_fault_on_the_new_stack_names_the_first_push(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 3);

    fixture_set_gate(0x80, CODE0_64, HANDLER, PRESENT | DPL3 | INT32, 0);
    fixture_write(TSS_AT + 4, HOLE_AT + 0x100, 8);
    ASSERT_FAULT(STEP(0xcd, 0x80), VEC_PF, 2); /* a supervisor's write */
    assert_true(c->fault.cr2 == HOLE_AT + 0x100 - 8);
    fixture_write(TSS_AT + 4, HOLE_AT + 0x1010, 8); /* two words in the next page */
    ASSERT_FAULT(STEP(0xcd, 0x80), VEC_PF, 2);
    assert_true(c->fault.cr2 == HOLE_AT + 0x1000 - 8);
    assert_int_equal(c->cpl, 3);
}

/* ---- nested faults: SDM vol. 3A table 6-5 ---- */

/* Delivers `first` through a gate whose code segment raises `second`, and tells which handler ran. */
static void nested(enum soft_vector first, enum soft_vector second, unsigned handler)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    fixture_set_gate(VEC_DF, CODE0_64, HANDLER, PRESENT | INT32, 0);
    if (first != second)
        fixture_set_gate(second, CODE0_64, HANDLER2, PRESENT | INT32, 0);
    if (second == VEC_PF) {
        fixture_set_gate(first, CODE0_64, HANDLER, PRESENT | INT32, 1);
        fixture_write(TSS_AT + 0x24, HOLE_AT + 0x100, 8);
    } else {
        fixture_set_gate(first, CODE0_64, HANDLER, second == VEC_NP ? INT32 : PRESENT | 5, 0);
    }
    assert_int_equal(deliver(c, first, 0), SOFT_JUMP);
    assert_int_equal(c->rip, handler);
    assert_int_equal(stacked(c, 1, 8), CODE_AT);
    if (handler == HANDLER)
        assert_int_equal(stacked(c, 0, 8), 0);
    else if (second != VEC_PF)
        assert_int_equal(stacked(c, 0, 8), first << 3 | 3);
}

static void nested_faults(void **state)
{
    nested(VEC_UD, VEC_GP, HANDLER2);
    nested(VEC_UD, VEC_NP, HANDLER2);
    nested(VEC_UD, VEC_PF, HANDLER2);
    nested(VEC_DB, VEC_GP, HANDLER2);
    nested(VEC_DE, VEC_GP, HANDLER);
    nested(VEC_GP, VEC_NP, HANDLER);
    nested(VEC_SS, VEC_GP, HANDLER);
    nested(VEC_NP, VEC_PF, HANDLER2);
    nested(VEC_PF, VEC_GP, HANDLER);
    nested(VEC_PF, VEC_PF, HANDLER);
}

static void faults_while_a_double_fault_is_delivered_end_in_shutdown(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    fixture_set_gate(VEC_GP, CODE0_64, HANDLER, INT32, 0);
    fixture_set_gate(VEC_NP, CODE0_64, HANDLER, INT32, 0);
    fixture_set_gate(VEC_DF, CODE0_64, HANDLER, INT32, 0);
    assert_int_equal(deliver(c, VEC_GP, 0), SOFT_FAULT);
    assert_int_equal(deliver(c, VEC_UD, 0), SOFT_FAULT); /* #UD, #GP, #DF, shutdown */
    assert_int_equal(c->rip, CODE_AT);
}

/* ---- debug exceptions ---- */

static void debug_exceptions_update_dr6_and_dr7(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    fixture_set_gate(VEC_DB, CODE0_64, HANDLER, PRESENT | INT32, 0);
    c->dr[6] = 0xffff0ff0 | 1 << 14 | 2;
    c->dr[7] = 0x400 | 1 << 13;
    c->fault = (struct soft_fault){.vector = VEC_DB, .dr6 = 1};
    assert_int_equal(soft_deliver_fault(c), SOFT_JUMP);
    assert_int_equal(c->dr[6], 0xffff0ff0 | 1 << 14 | 1); /* B0-B3 anew, the rest stays */
    assert_int_equal(c->dr[7], 0x400);
    assert_int_equal(stacked(c, 2, 8) & FLAG_RF, 0); /* a breakpoint: RF as it was */

    c->fault = (struct soft_fault){.vector = VEC_DB, .dr6 = 1 << 13};
    assert_int_equal(soft_deliver_fault(c), SOFT_JUMP);
    assert_int_equal(stacked(c, 2, 8) & FLAG_RF, FLAG_RF); /* general detect is a fault */
}

static void int1_needs_no_privilege(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 3);

    fixture_set_gate(VEC_DB, CODE0_64, HANDLER, PRESENT | INT32, 0);
    fixture_set_gate(VEC_BP, CODE0_64, HANDLER, PRESENT | INT32, 0);
    ASSERT_FAULT(STEP(0xcc), VEC_GP, VEC_BP << 3 | 2);
    ASSERT_DONE(STEP(0xf1));
    assert_int_equal(c->rip, HANDLER);
    assert_int_equal(stacked(c, 0, 8), CODE_AT + 1);
}

static int teardown(void **state)
{
    fixture_end();
    return 0;
}

/* At CPL 3 with CR0.AM and RFLAGS.AC, before page faults; operands that are copied and those of handlers. */
static void alignment_is_checked_at_cpl_3(void **state)
{
    for (unsigned on = 0; on < 8; on++) {
        struct soft_vcpu *c = fixture_cpu(MODE_LONG, on & 1 ? 3 : 0);

        c->cr0 |= on & 2 ? CR0_AM : 0;
        c->sysflags |= on & 4 ? FLAG_AC : 0;
        c->gpr[CPU_RSI] = DATA_AT + 2;
        if (on != 7) {
            ASSERT_DONE(STEP(0x8b, 0x06)); /* mov eax, [rsi] */
            continue;
        }
        ASSERT_FAULT(STEP(0x8b, 0x06), VEC_AC, 0);
        ASSERT_FAULT(STEP(0xf0, 0x83, 0x06, 0x01), VEC_AC, 0); /* lock add dword [rsi], 1 */
        ASSERT_FAULT(STEP(0xf0, 0x0f, 0xab, 0x06), VEC_AC, 0); /* lock bts [rsi], eax */
        ASSERT_FAULT(STEP(0xad), VEC_AC, 0);                   /* lodsd */
        ASSERT_DONE(STEP(0x66, 0x8b, 0x06));                   /* mov ax, [rsi] */
        ASSERT_DONE(STEP(0x8a, 0x46, 0x01));                   /* mov al, [rsi + 1] */
        c->gpr[CPU_RSI] = HOLE_AT + 1;
        ASSERT_FAULT(STEP(0x8b, 0x06), VEC_AC, 0);
        c->gpr[CPU_RSI] = 0x800000000001;
        ASSERT_FAULT(STEP(0x8b, 0x06), VEC_GP, 0);
        c->gpr[CPU_RSP] -= 4;
        ASSERT_FAULT(STEP(0x50), VEC_AC, 0); /* push rax */
        ASSERT_FAULT(STEP(0xc3), VEC_AC, 0);
        ASSERT_FAULT(STEP(0x9c), VEC_AC, 0); /* pushfq */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alignment_is_checked_at_cpl_3),
        cmocka_unit_test(real_mode_uses_the_vector_table),
        cmocka_unit_test(real_mode_beyond_the_table_is_a_double_fault_then_shutdown),
        cmocka_unit_test(real_mode_int_pushes_the_next_address),
        cmocka_unit_test(same_level_through_interrupt_and_trap_gates),
        cmocka_unit_test(inner_level_takes_its_stack_from_the_tss),
        cmocka_unit_test(gates_of_16_bits_push_words),
        cmocka_unit_test(conforming_handlers_keep_the_level),
        cmocka_unit_test(software_interrupts_check_their_gate),
        cmocka_unit_test(external_events_set_ext),
        cmocka_unit_test(interrupts_do_not_touch_rf),
        cmocka_unit_test(bad_inner_stacks),
        cmocka_unit_test(long_mode_aligns_and_always_pushes_the_stack),
        cmocka_unit_test(long_mode_inner_level_gets_a_null_ss),
        cmocka_unit_test(interrupt_stack_table),
        cmocka_unit_test(compatibility_mode_enters_64_bit_handlers),
        cmocka_unit_test(long_mode_gates_are_checked),
        cmocka_unit_test(a_page_fault_on_the_new_stack_names_the_first_push),
        cmocka_unit_test(nested_faults),
        cmocka_unit_test(faults_while_a_double_fault_is_delivered_end_in_shutdown),
        cmocka_unit_test(debug_exceptions_update_dr6_and_dr7),
        cmocka_unit_test(int1_needs_no_privilege),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}

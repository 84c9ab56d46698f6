/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/engine/soft/far.c and op_flow.c: transfers between segments and levels, against SDM vol. 3A 5.8
 * and 6.12. */
#include "cpu_fixture.h"

#include "engine/soft/soft_priv.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define PRESENT 0x80u
#define DPL3    0x60u
#define CALL16  0x4u
#define CALL32  0xcu
#define TARGET  0x12340u

static void put_far(uint64_t at, uint64_t offset, unsigned selector, unsigned size)
{
    fixture_write(at, offset, size);
    fixture_write(at + size, selector, 2);
}

/* At FREE_SEL. */
static void set_call_gate(unsigned target, uint64_t offset, unsigned type_attr, unsigned count)
{
    fixture_set_gdt(FREE_SEL,
                    (offset & 0xffff) | (uint64_t)target << 16 | (uint64_t)count << 32 |
                        (uint64_t)type_attr << 40 | (offset & 0xffff0000) << 32,
                    offset >> 32);
}

static uint64_t stacked(unsigned n, unsigned size)
{
    return fixture_read(fixture_vcpu()->gpr[CPU_RSP] + n * size, size);
}

/* ---- direct ---- */

static void real_mode(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_REAL, 0);

    ASSERT_DONE(STEP(0x9a, 0x34, 0x12, 0x00, 0x03)); /* call 0300:1234 */
    assert_int_equal(c->rip, 0x1234);
    assert_int_equal(c->seg[CPU_CS].base, 0x3000);
    assert_int_equal(stacked(0, 2), 0x8005);
    assert_int_equal(stacked(1, 2), 0);
    ASSERT_DONE(STEP(0xca, 0x04, 0x00)); /* retf 4 */
    assert_int_equal(c->rip, 0x8005);
    assert_int_equal(c->seg[CPU_CS].selector, 0);
    assert_int_equal(c->gpr[CPU_RSP], 0x7004);
    ASSERT_FAULT(STEP(0x66, 0xea, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00), VEC_GP, 0); /* beyond 64 KiB */
}

static void direct_transfers_check_the_code_segment(void **state)
{
    static const struct {
        unsigned selector, vector, error;
    } rows[] = {
        {0, VEC_GP, 0},
        {3, VEC_GP, 0},
        {GDT_LIMIT + 1, VEC_GP, GDT_LIMIT + 1},
        {DATA3, VEC_GP, DATA3 & ~3u},
        {CODE0_32, VEC_GP, CODE0_32}, /* another level */
        {CODE0_32 | 3, VEC_GP, CODE0_32},
        {TSS_SEL, VEC_GP, TSS_SEL},
        {LDT_SEL, VEC_GP, LDT_SEL},
        {FREE_SEL, VEC_NP, FREE_SEL},
    };
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 3);

    fixture_set_gdt(FREE_SEL, fixture_descriptor(0, 0xfffff, 0xc07b), 0); /* not present */
    for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        put_far(DATA_AT, TARGET, rows[n].selector, 4);
        ASSERT_FAULT(STEP(0xff, 0x2d, 0x00, 0x00, 0x02, 0x00), rows[n].vector, rows[n].error);
        ASSERT_FAULT(STEP(0xff, 0x1d, 0x00, 0x00, 0x02, 0x00), rows[n].vector, rows[n].error);
    }
    assert_int_equal(c->gpr[CPU_RSP], STACK_AT + 0x3000);
    /* A conforming segment of an inner level keeps ours. */
    put_far(DATA_AT, TARGET, CODE_CONF, 4);
    ASSERT_DONE(STEP(0xff, 0x1d, 0x00, 0x00, 0x02, 0x00));
    assert_int_equal(c->seg[CPU_CS].selector, CODE_CONF | 3);
    assert_int_equal(c->cpl, 3);
    assert_int_equal(stacked(0, 4), CODE_AT + 6);
    assert_int_equal(stacked(1, 4), CODE3_32);
}

static void a_target_beyond_the_limit(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);

    fixture_set_gdt(FREE_SEL, fixture_descriptor(0, 0xfff, 0x409a), 0);
    ASSERT_FAULT(STEP(0xea, 0x00, 0x10, 0x00, 0x00, FREE_SEL, 0x00), VEC_GP, 0);
    ASSERT_DONE(STEP(0xea, 0xff, 0x0f, 0x00, 0x00, FREE_SEL, 0x00));
    assert_int_equal(c->rip, 0xfff);
    assert_int_equal(fixture_read(GDT_AT + FREE_SEL + 5, 1), 0x9b); /* accessed */
}

static void segments_found_in_the_ldt(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);

    fixture_write(LDT_AT + 0x10, fixture_descriptor(0, 0xfffff, 0xc09a), 8);
    ASSERT_DONE(STEP(0xea, 0x00, 0x00, 0x01, 0x00, 0x14, 0x00));
    assert_int_equal(c->seg[CPU_CS].selector, 0x14);
    c->ldtr.attr = 0;
    ASSERT_FAULT(STEP(0xea, 0x00, 0x00, 0x01, 0x00, 0x14, 0x00), VEC_GP, 0x14);
}

/* ---- call gates ---- */

static void a_call_gate_copies_parameters_to_the_inner_stack(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 3);

    set_call_gate(CODE0_32, TARGET, PRESENT | DPL3 | CALL32, 2);
    c->gpr[CPU_RSP] -= 8;
    fixture_write(c->gpr[CPU_RSP], 0x11111111, 4);
    fixture_write(c->gpr[CPU_RSP] + 4, 0x22222222, 4);
    ASSERT_DONE(STEP(0x9a, 0xff, 0xff, 0xff, 0xff, FREE_SEL | 3, 0x00)); /* the offset does not count */
    assert_int_equal(c->rip, TARGET);
    assert_int_equal(c->cpl, 0);
    assert_int_equal(c->seg[CPU_SS].selector, DATA0);
    assert_int_equal(c->gpr[CPU_RSP], STACK_AT - 24);
    assert_int_equal(stacked(0, 4), CODE_AT + 7);
    assert_int_equal(stacked(1, 4), CODE3_32);
    assert_int_equal(stacked(2, 4), 0x11111111);
    assert_int_equal(stacked(3, 4), 0x22222222);
    assert_int_equal(stacked(4, 4), STACK_AT + 0x3000 - 8);
    assert_int_equal(stacked(5, 4), DATA3);

    /* And back, releasing the parameters on both stacks. DS of the inner level is taken away. */
    c->seg[CPU_DS].attr &= ~CPU_ATTR_DPL;
    c->seg[CPU_DS].selector = DATA0;
    ASSERT_DONE(STEP(0xca, 0x08, 0x00));
    assert_int_equal(c->rip, CODE_AT + 7);
    assert_int_equal(c->cpl, 3);
    assert_int_equal(c->gpr[CPU_RSP], STACK_AT + 0x3000);
    assert_int_equal(c->seg[CPU_DS].selector, 0);
    assert_int_equal(c->seg[CPU_ES].selector, DATA3);
    ASSERT_FAULT(STEP(0xa1, 0x00, 0x00, 0x02, 0x00), VEC_GP, 0);
}

static void call_gates_are_checked(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 3);

    set_call_gate(CODE0_32, TARGET, PRESENT | CALL32, 0);
    ASSERT_FAULT(STEP(0x9a, 0, 0, 0, 0, FREE_SEL, 0), VEC_GP, FREE_SEL);
    set_call_gate(CODE0_32, TARGET, DPL3 | CALL32, 0);
    ASSERT_FAULT(STEP(0x9a, 0, 0, 0, 0, FREE_SEL, 0), VEC_NP, FREE_SEL);
    set_call_gate(0, TARGET, PRESENT | DPL3 | CALL32, 0);
    ASSERT_FAULT(STEP(0x9a, 0, 0, 0, 0, FREE_SEL, 0), VEC_GP, 0);
    set_call_gate(DATA0, TARGET, PRESENT | DPL3 | CALL32, 0);
    ASSERT_FAULT(STEP(0x9a, 0, 0, 0, 0, FREE_SEL, 0), VEC_GP, DATA0);
    set_call_gate(CODE0_32, TARGET, PRESENT | DPL3 | CALL32, 0);
    ASSERT_FAULT(STEP(0xea, 0, 0, 0, 0, FREE_SEL, 0), VEC_GP, CODE0_32); /* no jump inwards */
    set_call_gate(CODE3_32, 0x115678, PRESENT | DPL3 | CALL16, 0);
    ASSERT_DONE(STEP(0x9a, 0, 0, 0, 0, FREE_SEL, 0));
    assert_int_equal(c->rip, 0x5678);
    assert_int_equal(c->gpr[CPU_RSP], STACK_AT + 0x3000 - 4);
}

static void call_gates_of_64_bits(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 3);

    set_call_gate(CODE0_64, 0x123456789abcull, PRESENT | DPL3 | CALL32, 0);
    put_far(DATA_AT, 0, FREE_SEL, 4);
    ASSERT_DONE(STEP(0xff, 0x1c, 0x25, 0x00, 0x00, 0x02, 0x00));
    assert_true(c->rip == 0x123456789abcull);
    assert_int_equal(c->cpl, 0);
    assert_int_equal(c->seg[CPU_SS].selector, 0);
    assert_int_equal(c->gpr[CPU_RSP], STACK_AT - 32);
    assert_int_equal(stacked(0, 8), CODE_AT + 7);
    assert_int_equal(stacked(1, 8), CODE3_64);
    assert_int_equal(stacked(2, 8), STACK_AT + 0x3000);
    assert_int_equal(stacked(3, 8), DATA3);

    c = fixture_cpu(MODE_LONG, 3);
    put_far(DATA_AT, 0, FREE_SEL, 4);
    set_call_gate(CODE0_32, TARGET, PRESENT | DPL3 | CALL32, 0);
    ASSERT_FAULT(STEP(0xff, 0x1c, 0x25, 0x00, 0x00, 0x02, 0x00), VEC_GP, CODE0_32);
    set_call_gate(CODE0_64, TARGET, PRESENT | DPL3 | CALL16, 0);
    ASSERT_FAULT(STEP(0xff, 0x1c, 0x25, 0x00, 0x00, 0x02, 0x00), VEC_GP, FREE_SEL);
    fixture_set_gdt(FREE_SEL, 0xec0000280000ull, 0x1ull << 40); /* a type in the second half */
    ASSERT_FAULT(STEP(0xff, 0x1c, 0x25, 0x00, 0x00, 0x02, 0x00), VEC_GP, FREE_SEL);
}

/* ---- IRET ---- */

static void put_frame(struct soft_vcpu *c, const uint64_t *values, unsigned n, unsigned size)
{
    c->gpr[CPU_RSP] -= n * size;
    for (unsigned k = 0; k < n; k++)
        fixture_write(c->gpr[CPU_RSP] + k * size, values[k], size);
}

static void iret_to_an_outer_level(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);
    const uint64_t frame[] = {TARGET, CODE3_32, FLAG_IF | FLAG_CF | 2, 0x5555, DATA3};

    c->nmi_blocked = c->nmi_pending = true;
    put_frame(c, frame, 5, 4);
    ASSERT_DONE(STEP(0xcf));
    assert_int_equal(c->pending, 1); /* the other NMI gets its turn */
    assert_int_equal(c->cpl, 3);
    assert_int_equal(c->rip, TARGET);
    assert_int_equal(c->gpr[CPU_RSP], 0x5555);
    assert_int_equal(soft_rflags(c), FLAG_IF | FLAG_CF | 2);
    assert_int_equal(c->seg[CPU_DS].selector, 0); /* was DPL 0 */
    assert_false(c->nmi_blocked);
}

static void iret_flags_follow_privilege(void **state)
{
    const uint64_t all = 0x257fd5; /* all that IRET may ever change, without VM, VIF, VIP */
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 3);
    const uint64_t frame[] = {CODE_AT, CODE3_32, (all | FLAG_IOPL | FLAG_IF) & ~(uint64_t)FLAG_TF};

    put_frame(c, frame, 3, 4);
    ASSERT_DONE(STEP(0xcf));
    assert_int_equal(soft_rflags(c) & (FLAG_IOPL | FLAG_IF), 0);
    assert_int_equal(soft_rflags(c) & (FLAG_NT | FLAG_AC | FLAG_ID), FLAG_NT | FLAG_AC | FLAG_ID);

    c = fixture_cpu(MODE_PROTECTED32, 3);
    soft_set_rflags(c, FLAG_IOPL, FLAG_IOPL);
    put_frame(c, (const uint64_t[]){CODE_AT, CODE3_32, FLAG_IF}, 3, 4);
    ASSERT_DONE(STEP(0xcf));
    assert_int_equal(soft_rflags(c), FLAG_IF | FLAG_IOPL | 2); /* IF by IOPL; IOPL itself not */

    c = fixture_cpu(MODE_PROTECTED32, 0);
    soft_set_rflags(c, FLAG_AC | FLAG_ID, FLAG_AC | FLAG_ID);
    put_frame(c, (const uint64_t[]){0x8000, CODE0_16, 0x3000}, 3, 2);
    ASSERT_DONE(STEP(0x66, 0xcf)); /* 16 bits: AC and ID stay */
    assert_int_equal(soft_rflags(c), FLAG_AC | FLAG_ID | FLAG_IOPL | 2);
    assert_int_equal(c->rip, 0x8000);
}

static void iret_of_64_bits_always_takes_the_stack(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    put_frame(c, (const uint64_t[]){0x1234567890, CODE0_64, 2, 0xfedcba987, 0}, 5, 8);
    ASSERT_DONE(STEP(0x48, 0xcf));
    assert_true(c->rip == 0x1234567890);
    assert_true(c->gpr[CPU_RSP] == 0xfedcba987);
    assert_int_equal(c->seg[CPU_SS].selector, 0);

    c = fixture_cpu(MODE_LONG, 0);
    c->seg[CPU_FS] = (struct cpu_segment_state){.base = 0x7000, .selector = 1};
    put_frame(c, (const uint64_t[]){TARGET, CODE3_32, 2, 0xaaaa55551234, DATA3}, 5, 8);
    ASSERT_DONE(STEP(0x48, 0xcf)); /* to compatibility mode */
    assert_int_equal(c->gpr[CPU_RSP], 0x55551234);
    assert_false(c->key & KEY_CODE64);
    assert_int_equal(c->seg[CPU_FS].selector, 0);
    assert_int_equal(c->seg[CPU_FS].base, 0x7000); /* null already: the base stays */
}

static void iret_is_checked(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);
    static const struct {
        uint64_t rip;
        unsigned cs, ss, vector, error;
    } rows[] = {
        {TARGET, 0, DATA0, VEC_GP, 0},
        {TARGET, CODE3_64, 0, VEC_GP, 0}, /* a null SS, but not at CPL 3 */
        {TARGET, CODE3_64, 3, VEC_GP, 0},
        {TARGET, CODE3_64, DATA0, VEC_GP, DATA0}, /* RPL */
        {TARGET, CODE3_64, CODE3_32, VEC_GP, CODE3_32 & ~3u},
        {TARGET, CODE0_64 | 3, DATA3, VEC_GP, CODE0_64},
        {TARGET, DATA3, DATA3, VEC_GP, DATA3 & ~3u},
        {1ull << 47, CODE3_64, DATA3, VEC_GP, 0},
        {1ull << 32, CODE3_32, DATA3, 0, 0}, /* truncated: fine */
    };

    for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        const uint64_t frame[] = {rows[n].rip, rows[n].cs, 2, 0x1000, rows[n].ss};

        put_frame(c, frame, 5, 8);
        if (rows[n].vector) {
            ASSERT_FAULT(STEP(0x48, 0xcf), rows[n].vector, rows[n].error);
            assert_int_equal(c->cpl, 0);
            assert_int_equal(c->gpr[CPU_RSP], STACK_AT - 40);
            c->gpr[CPU_RSP] = STACK_AT;
        } else {
            ASSERT_DONE(STEP(0x48, 0xcf));
            assert_int_equal(c->rip, (uint32_t)rows[n].rip);
        }
    }
    c = fixture_cpu(MODE_LONG, 0);
    soft_set_rflags(c, FLAG_NT, FLAG_NT);
    ASSERT_FAULT(STEP(0x48, 0xcf), VEC_GP, 0);
}

static void a_stack_of_16_bits_keeps_the_upper_half(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);

    fixture_set_gdt(FREE_SEL, fixture_descriptor(0, 0xffff, 0xf2), 0);
    put_frame(c, (const uint64_t[]){TARGET, CODE3_32, 2, 0x99991234, FREE_SEL | 3}, 5, 4);
    ASSERT_DONE(STEP(0xcf));
    assert_int_equal(c->gpr[CPU_RSP], ((STACK_AT - 20) & 0xffff0000) | 0x1234);
}

/* ---- fast system calls ---- */

static void syscall_and_sysret(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 3);

    c->star = (uint64_t)CODE0_64 << 32 | (uint64_t)CODE3_32 << 48;
    c->lstar = 0xffff800000001000;
    c->fmask = FLAG_IF | FLAG_DF;
    soft_set_rflags(c, FLAG_IF | FLAG_DF | FLAG_CF, FLAG_IF | FLAG_DF | FLAG_CF);
    ASSERT_DONE(STEP(0x0f, 0x05));
    assert_true(c->rip == 0xffff800000001000);
    assert_int_equal(c->gpr[CPU_RCX], CODE_AT + 2);
    assert_int_equal(c->gpr[CPU_R11], FLAG_IF | FLAG_DF | FLAG_CF | 2);
    assert_int_equal(soft_rflags(c), FLAG_CF | 2);
    assert_int_equal(c->cpl, 0);
    assert_int_equal(c->seg[CPU_CS].selector, CODE0_64);
    assert_int_equal(c->seg[CPU_SS].selector, CODE0_64 + 8);
    assert_int_equal(c->gpr[CPU_RSP], STACK_AT + 0x3000);

    c->rip = CODE_AT;
    c->gpr[CPU_RCX] = 1ull << 47;
    ASSERT_FAULT(STEP(0x48, 0x0f, 0x07), VEC_GP, 0); /* at CPL 0, as Intel's do */
    assert_int_equal(c->cpl, 0);
    c->gpr[CPU_RCX] = 0x7fffffff1234;
    c->gpr[CPU_R11] = FLAG_IF | FLAG_RF | FLAG_VM | FLAG_ZF;
    ASSERT_DONE(STEP(0x48, 0x0f, 0x07));
    assert_true(c->rip == 0x7fffffff1234);
    assert_int_equal(soft_rflags(c), FLAG_IF | FLAG_ZF | 2);
    assert_int_equal(c->cpl, 3);
    assert_true(c->key & KEY_CODE64);

    c = fixture_cpu(MODE_LONG, 0);
    c->gpr[CPU_RCX] = 0xabcd00001234;
    ASSERT_DONE(STEP(0x0f, 0x07)); /* to compatibility mode */
    assert_int_equal(c->rip, 0x1234);
    assert_false(c->key & KEY_CODE64);
    c = fixture_cpu(MODE_LONG, 3);
    ASSERT_FAULT(STEP(0x48, 0x0f, 0x07), VEC_GP, 0);
    c->efer &= ~(uint64_t)EFER_SCE;
    ASSERT_FAULT(STEP(0x0f, 0x05), VEC_UD, 0);
}

static void sysenter_and_sysexit(void **state)
{
    for (unsigned wide = 0; wide < 2; wide++) {
        struct soft_vcpu *c = fixture_cpu(wide ? MODE_LONG : MODE_PROTECTED32, 3);

        ASSERT_FAULT(STEP(0x0f, 0x34), VEC_GP, 0); /* no SYSENTER_CS */
        c->sysenter_cs = 0x40;
        c->sysenter_eip = 0xffff800000005000;
        c->sysenter_esp = 0xffff900000006000;
        soft_set_rflags(c, FLAG_IF, FLAG_IF);
        ASSERT_DONE(STEP(0x0f, 0x34));
        assert_true(c->rip == (wide ? 0xffff800000005000 : 0x5000));
        assert_true(c->gpr[CPU_RSP] == (wide ? 0xffff900000006000 : 0x6000));
        assert_int_equal(c->seg[CPU_CS].selector, 0x40);
        assert_int_equal(c->seg[CPU_SS].selector, 0x48);
        assert_int_equal(c->cpl, 0);
        assert_int_equal(soft_rflags(c), 2);

        c->rip = CODE_AT;
        c->gpr[CPU_RDX] = 0x7777;
        c->gpr[CPU_RCX] = 0x8888;
        ASSERT_DONE(STEP(0x0f, 0x35));
        assert_int_equal(c->seg[CPU_CS].selector, 0x53);
        assert_int_equal(c->seg[CPU_SS].selector, 0x5b);
        assert_int_equal(c->rip, 0x7777);
        assert_int_equal(c->gpr[CPU_RSP], 0x8888);
        assert_int_equal(c->cpl, 3);
        assert_false(c->key & KEY_CODE64);
    }
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    c->sysenter_cs = 0x40;
    c->gpr[CPU_RDX] = 1ull << 47;
    ASSERT_FAULT(STEP(0x48, 0x0f, 0x35), VEC_GP, 0);
    c->gpr[CPU_RDX] = 0x7fffffffffff;
    ASSERT_DONE(STEP(0x48, 0x0f, 0x35));
    assert_int_equal(c->seg[CPU_CS].selector, 0x63);
    assert_true(c->rip == 0x7fffffffffff);
    c = fixture_cpu(MODE_REAL, 0);
    c->sysenter_cs = 0x40;
    ASSERT_FAULT(STEP(0x0f, 0x34), VEC_GP, 0);
}

/* ---- near, where 16-bit code truncates ---- */

static void near_jumps_of_16_bits_wrap(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_REAL, 0);

    c->rip = 0xfff0;
    c->flags = FLAG_ZF;
    ASSERT_DONE(STEP(0x74, 0x20)); /* jz +0x20 */
    assert_int_equal(c->rip, 0x12);
    c->gpr[CPU_RCX] = 0x10001;
    ASSERT_DONE(STEP(0xe2, 0xfe)); /* loop $: CX becomes 0 */
    assert_int_equal(c->rip, 0x14);
    assert_int_equal(c->gpr[CPU_RCX], 0x10000);
    ASSERT_DONE(STEP(0xe3, 0x10)); /* jcxz */
    assert_int_equal(c->rip, 0x26);
    ASSERT_DONE(STEP(0xe8, 0x00, 0xf0)); /* call */
    assert_int_equal(c->rip, 0xf029);
    assert_int_equal(stacked(0, 2), 0x29);
    assert_int_equal(c->gpr[CPU_RSP], 0x6ffe);
}

static int teardown(void **state)
{
    fixture_end();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_mode),
        cmocka_unit_test(direct_transfers_check_the_code_segment),
        cmocka_unit_test(a_target_beyond_the_limit),
        cmocka_unit_test(segments_found_in_the_ldt),
        cmocka_unit_test(a_call_gate_copies_parameters_to_the_inner_stack),
        cmocka_unit_test(call_gates_are_checked),
        cmocka_unit_test(call_gates_of_64_bits),
        cmocka_unit_test(iret_to_an_outer_level),
        cmocka_unit_test(iret_flags_follow_privilege),
        cmocka_unit_test(iret_of_64_bits_always_takes_the_stack),
        cmocka_unit_test(iret_is_checked),
        cmocka_unit_test(a_stack_of_16_bits_keeps_the_upper_half),
        cmocka_unit_test(syscall_and_sysret),
        cmocka_unit_test(sysenter_and_sysexit),
        cmocka_unit_test(near_jumps_of_16_bits_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}

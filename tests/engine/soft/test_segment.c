/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/engine/soft/segment.c, op_segment.c and the segment checks of operand.c, against SDM vol. 3A chapters
 * 3, 5. */
#include "cpu_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define ZF (fixture_vcpu()->flags & FLAG_ZF)

/* mov ds, ax; mov ss, ax */
static int load_ds(unsigned selector)
{
    fixture_vcpu()->gpr[CPU_RAX] = selector;
    return STEP(0x8e, 0xd8);
}
static int load_ss(unsigned selector)
{
    fixture_vcpu()->gpr[CPU_RAX] = selector;
    return STEP(0x8e, 0xd0);
}

static void real_mode_changes_the_base_only(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_REAL, 0);

    c->seg[CPU_DS].limit = 0xffffffff; /* big real mode */
    ASSERT_DONE(load_ds(0x1234));
    assert_int_equal(c->seg[CPU_DS].base, 0x12340);
    assert_int_equal(c->seg[CPU_DS].limit, 0xffffffff);
    ASSERT_DONE(load_ss(0x700));
    assert_true(c->shadow);
}

static void data_segments(void **state)
{
    static const struct {
        unsigned selector, cpl, vector, error;
    } rows[] = {
        {0, 3, 0, 0},
        {3, 3, 0, 0},
        {DATA3, 3, 0, 0},
        {DATA3, 0, 0, 0},
        {DATA0, 0, 0, 0},
        {DATA0, 3, VEC_GP, DATA0},
        {DATA0 | 3, 0, VEC_GP, DATA0}, /* RPL */
        {CODE3_32, 3, 0, 0},           /* readable */
        {CODE_CONF | 3, 3, 0, 0},      /* conforming: any level */
        {TSS_SEL, 0, VEC_GP, TSS_SEL},
        {GDT_LIMIT + 1, 0, VEC_GP, GDT_LIMIT + 1},
        {FREE_SEL, 0, VEC_NP, FREE_SEL},
        {FREE_SEL + 8, 0, VEC_GP, FREE_SEL + 8}, /* execute-only */
        {7, 0, VEC_GP, 4},                       /* LDT entry 0: no segment */
    };

    for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, rows[n].cpl);

        fixture_set_gdt(FREE_SEL, fixture_descriptor(0x1000, 0xfff, 0x12), 0);
        fixture_set_gdt(FREE_SEL + 8, fixture_descriptor(0, 0xfff, 0x98), 0);
        if (rows[n].vector) {
            ASSERT_FAULT(load_ds(rows[n].selector), rows[n].vector, rows[n].error);
            assert_int_equal(c->seg[CPU_DS].selector, rows[n].cpl ? DATA3 : DATA0);
        } else {
            ASSERT_DONE(load_ds(rows[n].selector));
            assert_int_equal(c->seg[CPU_DS].selector, rows[n].selector);
        }
        assert_false(c->shadow);
    }
}

static void stack_segments(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 3);

    fixture_set_gdt(FREE_SEL, fixture_descriptor(0, 0xfff, 0x72), 0);
    fixture_set_gdt(FREE_SEL + 8, fixture_descriptor(0, 0xfff, 0xf0), 0); /* read-only */
    ASSERT_FAULT(load_ss(0), VEC_GP, 0);
    ASSERT_FAULT(load_ss(DATA3 & ~3u), VEC_GP, DATA3 & ~3u); /* RPL */
    ASSERT_FAULT(load_ss(DATA0 | 3), VEC_GP, DATA0);         /* DPL */
    ASSERT_FAULT(load_ss(CODE3_32), VEC_GP, CODE3_32 & ~3u);
    ASSERT_FAULT(load_ss(FREE_SEL | 3), VEC_SS, FREE_SEL);
    ASSERT_FAULT(load_ss((FREE_SEL + 8) | 3), VEC_GP, FREE_SEL + 8);
    ASSERT_DONE(load_ss(DATA3));
    assert_true(c->shadow);

    /* In 64-bit mode SS may be null, with the CPL as its RPL, but at CPL 3. */
    c = fixture_cpu(MODE_LONG, 0);
    ASSERT_DONE(load_ss(0));
    ASSERT_FAULT(load_ss(1), VEC_GP, 0);
    fixture_cpu(MODE_LONG, 3);
    ASSERT_FAULT(load_ss(3), VEC_GP, 0);
}

static void loading_sets_the_accessed_bit(void **state)
{
    fixture_cpu(MODE_PROTECTED32, 0);
    fixture_set_gdt(FREE_SEL, fixture_descriptor(0x12345678, 0xfff, 0x8092), 0);
    ASSERT_DONE(load_ds(FREE_SEL));
    assert_int_equal(fixture_vcpu()->seg[CPU_DS].base, 0x12345678);
    assert_int_equal(fixture_vcpu()->seg[CPU_DS].limit, 0xffffff);
    assert_int_equal(fixture_read(GDT_AT + FREE_SEL + 5, 1), 0x93);
}

/* mov eax, [fs:disp32] and mov [fs:disp32], eax */
#define FS_READ(disp)  STEP(0x64, 0xa1, (disp)&0xff, (disp) >> 8 & 0xff, (disp) >> 16 & 0xff, (disp) >> 24)
#define FS_WRITE(disp) STEP(0x64, 0xa3, (disp)&0xff, (disp) >> 8 & 0xff, (disp) >> 16 & 0xff, (disp) >> 24)

static void limits_and_rights_of_accesses(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);

    c->seg[CPU_FS] = (struct cpu_segment_state){.base = DATA_AT, .limit = 0xfff, .attr = 0x93, .selector = 8};
    ASSERT_DONE(FS_READ(0xffcu));
    c->rip = CODE_AT;
    ASSERT_FAULT(FS_READ(0xffdu), VEC_GP, 0);
    ASSERT_FAULT(FS_WRITE(0xfffffffeu), VEC_GP, 0);
    c->seg[CPU_FS].attr = 0x91; /* read-only */
    ASSERT_DONE(FS_READ(0u));
    c->rip = CODE_AT;
    ASSERT_FAULT(FS_WRITE(0u), VEC_GP, 0);
    c->seg[CPU_FS].attr = 0x99; /* execute-only */
    ASSERT_FAULT(FS_READ(0u), VEC_GP, 0);
    c->seg[CPU_FS].attr = 0x9b; /* readable code */
    ASSERT_DONE(FS_READ(0u));
    c->rip = CODE_AT;
    ASSERT_FAULT(FS_WRITE(0u), VEC_GP, 0);
    c->seg[CPU_FS].attr = 0x97; /* expand-down, 16 bits: 0x1000-0xffff */
    ASSERT_FAULT(FS_READ(0xfffu), VEC_GP, 0);
    ASSERT_DONE(FS_READ(0x1000u));
    c->rip = CODE_AT;
    ASSERT_FAULT(FS_READ(0xfffdu), VEC_GP, 0);
    c->seg[CPU_FS].attr = 0x4097; /* 32 bits: to 4 GiB */
    ASSERT_DONE(FS_READ(0xfffdu));
    c->rip = CODE_AT;
    c->seg[CPU_FS] = (struct cpu_segment_state){0};
    ASSERT_FAULT(FS_READ(0u), VEC_GP, 0);
}

static void stack_faults_are_ss(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);

    c->seg[CPU_SS].limit = 0xfff;
    c->gpr[CPU_RBP] = 0x2000;
    ASSERT_FAULT(STEP(0x8b, 0x45, 0x00), VEC_SS, 0); /* mov eax, [ebp] */
    ASSERT_FAULT(STEP(0x50), VEC_SS, 0);             /* push eax */
    ASSERT_FAULT(STEP(0xe8, 0, 0, 0, 0), VEC_SS, 0); /* call */
    ASSERT_FAULT(STEP(0xc9), VEC_SS, 0);             /* leave */
    assert_int_equal(c->gpr[CPU_RSP], STACK_AT);
    c->gpr[CPU_RSP] = 0;
    ASSERT_FAULT(STEP(0x50), VEC_SS, 0);
    c->gpr[CPU_RSP] = 0x1000;
    ASSERT_DONE(STEP(0x50));
    c = fixture_cpu(MODE_LONG, 0);
    c->gpr[CPU_RBP] = 1ull << 47;
    ASSERT_FAULT(STEP(0x8b, 0x45, 0x00), VEC_SS, 0);
    ASSERT_FAULT(STEP(0x3e, 0x8b, 0x45, 0x00), VEC_SS, 0); /* a DS override counts for nothing */
    c->gpr[CPU_RBX] = 1ull << 47;
    ASSERT_FAULT(STEP(0x8b, 0x03), VEC_GP, 0);
}

static void far_pointers(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);

    fixture_write(DATA_AT, 0x11223344, 4);
    fixture_write(DATA_AT + 4, DATA3, 2);
    ASSERT_DONE(STEP(0x0f, 0xb4, 0x05, 0x00, 0x00, 0x02, 0x00)); /* lfs eax, [DATA_AT] */
    assert_int_equal(c->gpr[CPU_RAX], 0x11223344);
    assert_int_equal(c->seg[CPU_FS].selector, DATA3);
    fixture_write(DATA_AT + 4, TSS_SEL, 2);
    ASSERT_FAULT(STEP(0xc5, 0x1d, 0x00, 0x00, 0x02, 0x00), VEC_GP, TSS_SEL); /* lds ebx */
    assert_int_equal(c->gpr[CPU_RBX], 0);
}

/* ---- LAR, LSL, VERR, VERW ---- */

static void questions_about_descriptors(void **state)
{
    static const struct {
        unsigned selector, cpl;
        bool lar, lsl, verr, verw;
    } rows[] = {
        {0, 0, false, false, false, false},
        {DATA0, 0, true, true, true, true},
        {DATA0, 3, false, false, false, false},
        {DATA0 | 3, 0, false, false, false, false},
        {CODE0_32, 0, true, true, true, false},
        {CODE_CONF, 3, true, true, true, false},
        {TSS_SEL, 0, true, true, false, false},
        {LDT_SEL, 0, true, true, false, false},
        {FREE_SEL, 0, true, false, false, false},      /* a call gate */
        {FREE_SEL + 8, 0, false, false, false, false}, /* an interrupt gate */
        {GDT_LIMIT + 1, 0, false, false, false, false},
    };

    for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, rows[n].cpl);

        fixture_set_gdt(FREE_SEL, 0x8cull << 40, 0);
        fixture_set_gdt(FREE_SEL + 8, 0x8eull << 40, 0);
        c->gpr[CPU_RBX] = rows[n].selector;
        c->gpr[CPU_RAX] = 0xcccccccc;
        ASSERT_DONE(STEP(0x0f, 0x02, 0xc3));
        assert_int_equal(!!ZF, rows[n].lar);
        if (!rows[n].lar)
            assert_int_equal(c->gpr[CPU_RAX], 0xcccccccc);
        ASSERT_DONE(STEP(0x0f, 0x03, 0xc3));
        assert_int_equal(!!ZF, rows[n].lsl);
        ASSERT_DONE(STEP(0x0f, 0x00, 0xe3));
        assert_int_equal(!!ZF, rows[n].verr);
        ASSERT_DONE(STEP(0x0f, 0x00, 0xeb));
        assert_int_equal(!!ZF, rows[n].verw);
    }
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);

    c->gpr[CPU_RBX] = DATA3;
    ASSERT_DONE(STEP(0x0f, 0x02, 0xc3));
    assert_int_equal(c->gpr[CPU_RAX], 0x00cff300);
    ASSERT_DONE(STEP(0x0f, 0x03, 0xc3));
    assert_int_equal(c->gpr[CPU_RAX], 0xffffffff);
    c = fixture_cpu(MODE_LONG, 0);
    fixture_set_gdt(FREE_SEL, 0x8cull << 40, 0);
    fixture_set_gdt(FREE_SEL + 16, fixture_descriptor(0, 0x67, 0x81), 0); /* no 16-bit TSS */
    c->gpr[CPU_RBX] = FREE_SEL;
    ASSERT_DONE(STEP(0x0f, 0x02, 0xc3));
    assert_true(ZF);
    c->gpr[CPU_RBX] = FREE_SEL + 16;
    ASSERT_DONE(STEP(0x0f, 0x02, 0xc3));
    assert_false(ZF);
    fixture_cpu(MODE_REAL, 0);
    ASSERT_FAULT(STEP(0x0f, 0x02, 0xc3), VEC_UD, 0);
}

/* ---- LLDT, LTR, LGDT, ... ---- */

static void task_register(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    fixture_set_gdt(FREE_SEL, fixture_descriptor(0x87654321, 0x67, 0x89), 0xffff8888);
    c->gpr[CPU_RAX] = FREE_SEL;
    ASSERT_DONE(STEP(0x0f, 0x00, 0xd8));
    assert_true(c->tr.base == 0xffff888887654321);
    assert_int_equal(c->tr.limit, 0x67);
    assert_int_equal(fixture_read(GDT_AT + FREE_SEL + 5, 1), 0x8b); /* busy */
    ASSERT_FAULT(STEP(0x0f, 0x00, 0xd8), VEC_GP, FREE_SEL);         /* not twice */
    c->gpr[CPU_RAX] = 0;
    ASSERT_FAULT(STEP(0x0f, 0x00, 0xd8), VEC_GP, 0);
    c->gpr[CPU_RAX] = 4;
    ASSERT_FAULT(STEP(0x0f, 0x00, 0xd8), VEC_GP, 4);
    c->gpr[CPU_RAX] = FREE_SEL;
    fixture_set_gdt(FREE_SEL, fixture_descriptor(0, 0x67, 0x09), 0);
    ASSERT_FAULT(STEP(0x0f, 0x00, 0xd8), VEC_NP, FREE_SEL);
    fixture_set_gdt(FREE_SEL, fixture_descriptor(0, 0x67, 0x81), 0);
    ASSERT_FAULT(STEP(0x0f, 0x00, 0xd8), VEC_GP, FREE_SEL); /* of 16 bits */
    ASSERT_DONE(STEP(0x0f, 0x00, 0xc8));                    /* str eax */
    assert_int_equal(c->gpr[CPU_RAX], FREE_SEL);
    fixture_cpu(MODE_LONG, 3);
    ASSERT_FAULT(STEP(0x0f, 0x00, 0xd8), VEC_GP, 0);
}

static void local_descriptor_table(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);

    c->gpr[CPU_RAX] = TSS_SEL;
    ASSERT_FAULT(STEP(0x0f, 0x00, 0xd0), VEC_GP, TSS_SEL);
    c->gpr[CPU_RAX] = 0;
    ASSERT_DONE(STEP(0x0f, 0x00, 0xd0));
    ASSERT_FAULT(load_ds(0x14), VEC_GP, 0x14);
    c->gpr[CPU_RAX] = LDT_SEL;
    ASSERT_DONE(STEP(0x0f, 0x00, 0xd0));
    fixture_write(LDT_AT + 0x10, fixture_descriptor(0, 0xfffff, 0xc092), 8);
    ASSERT_DONE(load_ds(0x14));
}

static void descriptor_table_registers(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);

    fixture_write(DATA_AT, 0x1234, 2);
    fixture_write(DATA_AT + 2, 0xffffffff87654321, 8);
    ASSERT_DONE(STEP(0x0f, 0x01, 0x1d, 0x00, 0x00, 0x02, 0x00)); /* lidt */
    assert_int_equal(c->idt.limit, 0x1234);
    assert_true(c->idt.base == 0x87654321);
    ASSERT_DONE(STEP(0x66, 0x0f, 0x01, 0x1d, 0x00, 0x00, 0x02, 0x00));
    assert_int_equal(c->idt.base, 0x654321);
    ASSERT_DONE(STEP(0x0f, 0x01, 0x05, 0x10, 0x00, 0x02, 0x00)); /* sgdt */
    assert_int_equal(fixture_read(DATA_AT + 0x10, 2), GDT_LIMIT);
    assert_int_equal(fixture_read(DATA_AT + 0x12, 4), GDT_AT);

    c = fixture_cpu(MODE_LONG, 0);
    fixture_write(DATA_AT, 0x1234, 2);
    fixture_write(DATA_AT + 2, 0xffff800087654321, 8);
    c->gpr[CPU_RBX] = DATA_AT;
    ASSERT_DONE(STEP(0x0f, 0x01, 0x1b));
    assert_true(c->idt.base == 0xffff800087654321);
    fixture_write(DATA_AT + 2, 1ull << 47, 8);
    ASSERT_FAULT(STEP(0x0f, 0x01, 0x1b), VEC_GP, 0);
    assert_true(c->idt.base == 0xffff800087654321);
    c = fixture_cpu(MODE_LONG, 3);
    c->gpr[CPU_RBX] = DATA_AT;
    ASSERT_FAULT(STEP(0x0f, 0x01, 0x1b), VEC_GP, 0);
    ASSERT_DONE(STEP(0x0f, 0x01, 0x03)); /* sgdt at CPL 3, */
    c->cr4 |= CR4_UMIP;                  /* but not under UMIP */
    ASSERT_FAULT(STEP(0x0f, 0x01, 0x03), VEC_GP, 0);
    ASSERT_FAULT(STEP(0x0f, 0x01, 0x0b), VEC_GP, 0);
    ASSERT_FAULT(STEP(0x0f, 0x01, 0xe0), VEC_GP, 0);
    ASSERT_FAULT(STEP(0x0f, 0x00, 0xc0), VEC_GP, 0);
    ASSERT_FAULT(STEP(0x0f, 0x00, 0xc8), VEC_GP, 0);
}

static void fs_and_gs_bases(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    c->gpr[CPU_RAX] = 0xffff800000001234;
    ASSERT_FAULT(STEP(0xf3, 0x48, 0x0f, 0xae, 0xd0), VEC_UD, 0); /* wrfsbase without CR4.FSGSBASE */
    c->cr4 |= CR4_FSGSBASE;
    ASSERT_DONE(STEP(0xf3, 0x48, 0x0f, 0xae, 0xd0));
    ASSERT_DONE(STEP(0xf3, 0x48, 0x0f, 0xae, 0xc3)); /* rdfsbase rbx */
    assert_true(c->gpr[CPU_RBX] == 0xffff800000001234);
    ASSERT_DONE(STEP(0xf3, 0x0f, 0xae, 0xd8)); /* wrgsbase eax */
    assert_int_equal(c->seg[CPU_GS].base, 0x1234);
    c->gpr[CPU_RAX] = 1ull << 47;
    ASSERT_FAULT(STEP(0xf3, 0x48, 0x0f, 0xae, 0xd8), VEC_GP, 0);
    c->kernel_gs_base = 0x9999;
    ASSERT_DONE(STEP(0x0f, 0x01, 0xf8)); /* swapgs */
    assert_int_equal(c->seg[CPU_GS].base, 0x9999);
    assert_int_equal(c->kernel_gs_base, 0x1234);
    /* A null selector clears the base, as on Intel's. */
    c->gpr[CPU_RAX] = 0;
    ASSERT_DONE(STEP(0x8e, 0xe8));
    assert_int_equal(c->seg[CPU_GS].base, 0);
    fixture_cpu(MODE_LONG, 3);
    ASSERT_FAULT(STEP(0x0f, 0x01, 0xf8), VEC_GP, 0);
    fixture_cpu(MODE_COMPAT, 0);
    ASSERT_FAULT(STEP(0x0f, 0x01, 0xf8), VEC_UD, 0);
}

static int teardown(void **state)
{
    fixture_end();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_mode_changes_the_base_only),
        cmocka_unit_test(data_segments),
        cmocka_unit_test(stack_segments),
        cmocka_unit_test(loading_sets_the_accessed_bit),
        cmocka_unit_test(limits_and_rights_of_accesses),
        cmocka_unit_test(stack_faults_are_ss),
        cmocka_unit_test(far_pointers),
        cmocka_unit_test(questions_about_descriptors),
        cmocka_unit_test(task_register),
        cmocka_unit_test(local_descriptor_table),
        cmocka_unit_test(descriptor_table_registers),
        cmocka_unit_test(fs_and_gs_bases),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}

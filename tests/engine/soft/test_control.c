/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/engine/soft/op_control.c, op_system.c and msr.c: control, debug and model-specific registers and the
 * small system instructions, against SDM vol. 3A 2.5, vol. 3B 17.2 and vol. 4.
 */
#include "cpu_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* mov crN, rax; mov rax, crN; and drN */
static int set_cr(unsigned n, uint64_t value)
{
    fixture_vcpu()->gpr[CPU_RAX] = value;
    return STEP(0x0f, 0x22, (uint8_t)(0xc0 | n << 3));
}
static int set_dr(unsigned n, uint64_t value)
{
    fixture_vcpu()->gpr[CPU_RAX] = value;
    return STEP(0x0f, 0x23, (uint8_t)(0xc0 | n << 3));
}
static int get_dr(unsigned n)
{
    return STEP(0x0f, 0x21, (uint8_t)(0xc0 | n << 3));
}

/* ---- CR0, CR3, CR4 ---- */

static void cr0_combinations(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);

    ASSERT_FAULT(set_cr(0, CR0_PG), VEC_GP, 0);
    ASSERT_FAULT(set_cr(0, CR0_PE | CR0_NW), VEC_GP, 0);
    ASSERT_DONE(set_cr(0, CR0_PE | CR0_NW | CR0_CD | 0x1fffffc0));
    assert_int_equal(c->cr0, CR0_PE | CR0_ET | CR0_NW | CR0_CD | CR0_AM | CR0_WP);
    c = fixture_cpu(MODE_LONG, 0);
    ASSERT_FAULT(set_cr(0, c->cr0 | 1ull << 32), VEC_GP, 0);
    ASSERT_FAULT(set_cr(0, c->cr0 & ~(uint64_t)CR0_PG), VEC_GP, 0); /* not from 64-bit code */
    fixture_cpu(MODE_LONG, 3);
    ASSERT_FAULT(set_cr(0, 0), VEC_GP, 0);
}

static void long_mode_on_and_off(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);

    c->efer = EFER_LME;
    c->cr3 = 0x100000;
    ASSERT_FAULT(set_cr(0, CR0_PE | CR0_PG), VEC_GP, 0); /* without PAE */
    assert_int_equal(c->efer, EFER_LME);
    c->cr4 |= CR4_PAE;
    c->seg[CPU_CS].attr |= CPU_ATTR_L;
    ASSERT_FAULT(set_cr(0, CR0_PE | CR0_PG), VEC_GP, 0); /* from a segment with L */
    c->seg[CPU_CS].attr &= ~CPU_ATTR_L;
    c->tr.attr = 0x83;
    ASSERT_FAULT(set_cr(0, CR0_PE | CR0_PG), VEC_GP, 0); /* a 16-bit TSS */
    c->tr.attr = 0x8b;
    ASSERT_DONE(set_cr(0, CR0_PE | CR0_PG));
    assert_int_equal(c->efer, EFER_LME | EFER_LMA);
    ASSERT_FAULT(set_cr(4, c->cr4 & ~(uint64_t)CR4_PAE), VEC_GP, 0);
    ASSERT_DONE(set_cr(4, c->cr4 | CR4_PCIDE));
    ASSERT_FAULT(set_cr(0, CR0_PE), VEC_GP, 0); /* PCIDE needs paging */
    ASSERT_DONE(set_cr(4, c->cr4 & ~(uint64_t)CR4_PCIDE));
    ASSERT_DONE(set_cr(0, CR0_PE));
    assert_int_equal(c->efer, EFER_LME);
}

static void cr3_and_cr4_reserved_bits(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);
    uint64_t cr3 = c->cr3;

    for (unsigned bit = 46; bit < 64; bit++)
        ASSERT_FAULT(set_cr(3, cr3 | 1ull << bit), VEC_GP, 0);
    ASSERT_FAULT(set_cr(4, c->cr4 | CR4_VME), VEC_GP, 0);
    ASSERT_FAULT(set_cr(4, c->cr4 | 1ull << 12), VEC_GP, 0); /* LA57 */
    ASSERT_FAULT(set_cr(4, c->cr4 | 1ull << 22), VEC_GP, 0); /* PKE */
    ASSERT_FAULT(set_cr(4, c->cr4 | 1ull << 40), VEC_GP, 0);
    c->cr3 |= 5;
    ASSERT_FAULT(set_cr(4, c->cr4 | CR4_PCIDE), VEC_GP, 0); /* with a PCID there already */
    c->cr3 = cr3;
    ASSERT_DONE(set_cr(4, c->cr4 | CR4_PCIDE));
    ASSERT_DONE(set_cr(3, cr3 | 5 | 1ull << 63)); /* without a flush */
    assert_true(c->cr3 == (cr3 | 5));
    fixture_cpu(MODE_PROTECTED32, 0);
    ASSERT_FAULT(set_cr(4, CR4_PCIDE), VEC_GP, 0);
}

static void page_directory_pointers_are_checked_when_loaded(void **state)
{
    static const uint64_t reserved[] = {1ull << 1, 1ull << 2, 1ull << 5, 1ull << 8, 1ull << 46, 1ull << 63};
    const uint64_t table = 0x110020; /* 32 bytes, aligned to as many */
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);

    ASSERT_DONE(set_cr(4, c->cr4 | CR4_PAE));
    ASSERT_DONE(set_cr(3, table));
    fixture_write(table, 0x102001, 8);
    for (unsigned n = 0; n < sizeof(reserved) / sizeof(reserved[0]); n++) {
        fixture_write(table + 24, 1 | reserved[n], 8);
        ASSERT_FAULT(set_cr(0, c->cr0 | CR0_PG), VEC_GP, 0);
        assert_int_equal(c->cr0 & CR0_PG, 0);
    }
    fixture_write(table + 24, reserved[0], 8); /* not present: fine */
    ASSERT_DONE(set_cr(0, c->cr0 | CR0_PG));
    fixture_write(table + 8, 3, 8);
    ASSERT_FAULT(set_cr(3, table), VEC_GP, 0);
    ASSERT_FAULT(set_cr(4, c->cr4 | CR4_PGE), VEC_GP, 0);
    fixture_write(table + 8, 0, 8);
    ASSERT_DONE(set_cr(3, table));
}

static void registers_that_are_not_there(void **state)
{
    fixture_cpu(MODE_LONG, 0);
    ASSERT_FAULT(set_cr(1, 0), VEC_UD, 0);
    ASSERT_FAULT(set_cr(5, 0), VEC_UD, 0);
    ASSERT_FAULT(STEP(0x44, 0x0f, 0x22, 0xc8), VEC_UD, 0); /* CR9 */
}

static void status_word(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_REAL, 0);

    c->gpr[CPU_RAX] = 0xfff1;
    ASSERT_DONE(STEP(0x0f, 0x01, 0xf0)); /* lmsw ax: PE */
    assert_int_equal(c->cr0, CR0_PE | CR0_ET | CR0_NE);
    c->gpr[CPU_RAX] = CR0_TS;
    ASSERT_DONE(STEP(0x0f, 0x01, 0xf0)); /* does not clear PE */
    assert_int_equal(c->cr0, CR0_PE | CR0_ET | CR0_NE | CR0_TS);
    ASSERT_DONE(STEP(0x0f, 0x01, 0xe0)); /* smsw ax */
    assert_int_equal(c->gpr[CPU_RAX], CR0_PE | CR0_ET | CR0_NE | CR0_TS);
    ASSERT_DONE(STEP(0x0f, 0x06)); /* clts */
    assert_int_equal(c->cr0, CR0_PE | CR0_ET | CR0_NE);
    fixture_cpu(MODE_LONG, 3);
    ASSERT_FAULT(STEP(0x0f, 0x06), VEC_GP, 0);
}

/* A page that loses its rights is gone from the TLB with the write of CR3 or CR4. */
static void writes_flush_the_tlb(void **state)
{
    const uint64_t entry = 0x103000 + 8 * ((HOLE_AT + 0x1000) >> 12 & 511);
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    c->gpr[CPU_RBX] = HOLE_AT + 0x1000;
    ASSERT_DONE(STEP(0x8b, 0x0b)); /* mov ecx, [rbx] */
    fixture_write(entry, 0, 8);
    ASSERT_DONE(set_cr(3, c->cr3));
    c->rip = CODE_AT;
    ASSERT_FAULT(STEP(0x8b, 0x0b), VEC_PF, 0);

    fixture_write(entry, (HOLE_AT + 0x1000) | 7, 8);
    ASSERT_DONE(STEP(0x8b, 0x0b));
    fixture_write(entry, 0, 8);
    ASSERT_DONE(STEP(0x0f, 0x01, 0x3b)); /* invlpg [rbx] */
    ASSERT_FAULT(STEP(0x8b, 0x0b), VEC_PF, 0);

    fixture_write(entry, (HOLE_AT + 0x1000) | 7, 8);
    ASSERT_DONE(STEP(0x8b, 0x0b));
    ASSERT_DONE(set_cr(4, c->cr4 | CR4_SMAP)); /* a user page */
    ASSERT_FAULT(STEP(0x8b, 0x0b), VEC_PF, 1);
    ASSERT_DONE(STEP(0x0f, 0x01, 0xcb)); /* stac */
    ASSERT_DONE(STEP(0x8b, 0x0b));
    ASSERT_DONE(STEP(0x0f, 0x01, 0xca)); /* clac */
    ASSERT_FAULT(STEP(0x8b, 0x0b), VEC_PF, 1);
}

/* One INVLPG is enough for all of a large page. */
static void large_pages_leave_the_tlb_as_a_whole(void **state)
{
    const uint64_t entry = 0x102000 + 8 * 2, page = 0x400000;
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    for (unsigned round = 0; round < 2; round++) {
        c->gpr[CPU_RBX] = page + 0x5000;
        ASSERT_DONE(STEP(0x8b, 0x0b)); /* mov ecx, [rbx] */
        c->gpr[CPU_RBX] = page + 0x1ff000;
        ASSERT_DONE(STEP(0x8b, 0x0b));
        fixture_write(entry, 0, 8);
        c->gpr[CPU_RBX] = page + 0x3000 * round;
        ASSERT_DONE(STEP(0x0f, 0x01, 0x3b)); /* invlpg [rbx] */
        c->gpr[CPU_RBX] = page + 0x5000;
        ASSERT_FAULT(STEP(0x8b, 0x0b), VEC_PF, 0);
        c->gpr[CPU_RBX] = page + 0x1ff000;
        ASSERT_FAULT(STEP(0x8b, 0x0b), VEC_PF, 0);
        fixture_write(entry, page | 0x87, 8);
    }
}

/* It is enough for a page of 1 GiB, and for one of 4 MiB in 32-bit paging, too. */
static void huge_pages_leave_the_tlb_as_a_whole(void **state)
{
    const uint64_t pdpt_entry = 0x101000 + 8, gib = 1ull << 30;
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    fixture_write(pdpt_entry, 0x87, 8);
    c->gpr[CPU_RBX] = gib + DATA_AT;
    ASSERT_DONE(STEP(0x8b, 0x0b)); /* mov ecx, [rbx] */
    fixture_write(pdpt_entry, 0, 8);
    c->gpr[CPU_RBX] = gib + 0x30000000;
    ASSERT_DONE(STEP(0x0f, 0x01, 0x3b)); /* invlpg [rbx] */
    c->gpr[CPU_RBX] = gib + DATA_AT;
    ASSERT_FAULT(STEP(0x8b, 0x0b), VEC_PF, 0);

    c = fixture_cpu(MODE_PROTECTED32, 0);
    for (uint64_t n = 0; n < 2; n++)
        fixture_write(0x104000 + 4 * n, n << 22 | 0x87, 4);
    ASSERT_DONE(set_cr(3, 0x104000));
    ASSERT_DONE(set_cr(4, c->cr4 | CR4_PSE));
    ASSERT_DONE(set_cr(0, c->cr0 | CR0_PG));
    c->gpr[CPU_RBX] = 0x7ff000;
    ASSERT_DONE(STEP(0x8b, 0x0b));
    fixture_write(0x104004, 0, 4);
    c->gpr[CPU_RBX] = 0x400000;
    ASSERT_DONE(STEP(0x0f, 0x01, 0x3b));
    c->gpr[CPU_RBX] = 0x7ff000;
    ASSERT_FAULT(STEP(0x8b, 0x0b), VEC_PF, 0);
}

/* That a large page was met makes INVLPG drop no more than before elsewhere. (Programs had their TLB emptied
 * for each page that their kernel took back once they had met one.) */
static void pages_beside_large_ones_stay_in_the_tlb(void **state)
{
    const uint64_t beside = HOLE_AT + 0x1000, entry = 0x103000 + 8 * (beside >> 12 & 511);
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    for (uint64_t page = 0x400000; page < 0x800000; page += 0x200000) {
        c->gpr[CPU_RBX] = page;
        ASSERT_DONE(STEP(0x8b, 0x0b)); /* mov ecx, [rbx] */
    }
    c->gpr[CPU_RBX] = beside;
    ASSERT_DONE(STEP(0x8b, 0x0b));
    fixture_write(entry, 0, 8);
    for (uint64_t n = 2; n < 16; n++) {
        c->gpr[CPU_RBX] = HOLE_AT + n * 0x1000;
        ASSERT_DONE(STEP(0x0f, 0x01, 0x3b)); /* invlpg [rbx] */
    }
    c->gpr[CPU_RBX] = 0x400000;
    ASSERT_DONE(STEP(0x0f, 0x01, 0x3b));
    c->gpr[CPU_RBX] = beside;
    ASSERT_DONE(STEP(0x8b, 0x0b)); /* as it was */
    ASSERT_DONE(STEP(0x0f, 0x01, 0x3b));
    ASSERT_FAULT(STEP(0x8b, 0x0b), VEC_PF, 0);
    fixture_write(entry, beside | 7, 8);
    /* A new address space has met none. */
    ASSERT_DONE(set_cr(3, c->cr3));
    assert_false(c->large[0].any);
}

static void invpcid(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);
    const uint8_t insn[] = {0x66, 0x0f, 0x38, 0x82, 0x03}; /* invpcid rax, [rbx] */

    c->gpr[CPU_RBX] = DATA_AT;
    for (uint64_t type = 0; type < 4; type++) {
        fixture_write(DATA_AT, 0, 8);
        c->gpr[CPU_RAX] = type;
        c->rip = CODE_AT;
        ASSERT_DONE(fixture_step(insn, sizeof(insn)));
        fixture_write(DATA_AT, 1ull << 12, 8);
        ASSERT_FAULT(fixture_step(insn, sizeof(insn)), VEC_GP, 0);
        fixture_write(DATA_AT, 5, 8); /* a PCID without CR4.PCIDE */
        if (type < 2)
            ASSERT_FAULT(fixture_step(insn, sizeof(insn)), VEC_GP, 0);
    }
    fixture_write(DATA_AT, 0, 8);
    c->gpr[CPU_RAX] = 4;
    ASSERT_FAULT(fixture_step(insn, sizeof(insn)), VEC_GP, 0);
    c->gpr[CPU_RAX] = 0;
    fixture_write(DATA_AT + 8, 1ull << 47, 8);
    ASSERT_FAULT(fixture_step(insn, sizeof(insn)), VEC_GP, 0);
}

/* ---- debug registers ---- */

static void debug_registers(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    ASSERT_DONE(set_dr(6, 0xffffffff));
    ASSERT_DONE(get_dr(6));
    assert_true(c->gpr[CPU_RAX] == (0xffff0ff0 | 0xe00f));
    ASSERT_DONE(set_dr(6, 0));
    ASSERT_DONE(get_dr(4)); /* an alias without CR4.DE */
    assert_true(c->gpr[CPU_RAX] == 0xffff0ff0);
    ASSERT_DONE(set_dr(7, 0xffffdc00));
    ASSERT_DONE(get_dr(5));
    assert_true(c->gpr[CPU_RAX] == 0xffff0400);
    ASSERT_FAULT(set_dr(7, 1ull << 32), VEC_GP, 0);
    ASSERT_FAULT(set_dr(6, 1ull << 32), VEC_GP, 0);
    ASSERT_DONE(set_dr(0, 0xffff800000001234));
    ASSERT_DONE(set_cr(4, c->cr4 | CR4_DE));
    ASSERT_FAULT(get_dr(4), VEC_UD, 0);
    ASSERT_DONE(set_dr(7, 1 << 13)); /* GD */
    ASSERT_FAULT(get_dr(0), VEC_DB, 0);
    assert_int_equal(c->fault.dr6, 1 << 13);
    fixture_cpu(MODE_LONG, 3);
    ASSERT_FAULT(get_dr(0), VEC_GP, 0);
}

static void breakpoints_match(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    c->dr[0] = 0x1000;
    c->dr[1] = 0x2003; /* 4 bytes: aligned down */
    c->dr[2] = 0x3000;
    c->dr[3] = 0x80;
    c->cr4 |= CR4_DE;
    /* 0: execution; 1: writes, 4 bytes; 2: reads and writes, 8 bytes; 3: I/O */
    c->dr[7] = 0x400 | 0x55 | 0ull << 16 | 0xdull << 20 | 0xbull << 24 | 2ull << 28;
    assert_int_equal(soft_debug_match(c, 0x1000, 1, DEBUG_EXEC), 1);
    assert_int_equal(soft_debug_match(c, 0x1001, 1, DEBUG_EXEC), 0);
    assert_int_equal(soft_debug_match(c, 0x1000, 8, DEBUG_READ), 0);
    assert_int_equal(soft_debug_match(c, 0x2000, 1, DEBUG_WRITE), 2);
    assert_int_equal(soft_debug_match(c, 0x2003, 1, DEBUG_WRITE), 2);
    assert_int_equal(soft_debug_match(c, 0x1fff, 2, DEBUG_WRITE), 2);
    assert_int_equal(soft_debug_match(c, 0x2004, 4, DEBUG_WRITE), 0);
    assert_int_equal(soft_debug_match(c, 0x2000, 4, DEBUG_READ), 0);
    assert_int_equal(soft_debug_match(c, 0x3007, 1, DEBUG_READ), 4);
    assert_int_equal(soft_debug_match(c, 0x3000, 1, DEBUG_WRITE), 4);
    assert_int_equal(soft_debug_match(c, 0x80, 1, DEBUG_IO), 8);
    c->dr[7] &= ~0xc0ull; /* not enabled */
    assert_int_equal(soft_debug_match(c, 0x80, 1, DEBUG_IO), 0);
}

/* ---- MSRs ---- */

static int wrmsr(uint32_t msr, uint64_t value)
{
    struct soft_vcpu *c = fixture_vcpu();

    c->gpr[CPU_RCX] = msr;
    c->gpr[CPU_RAX] = 0xeeeeeeee00000000 | (uint32_t)value;
    c->gpr[CPU_RDX] = 0xeeeeeeee00000000 | value >> 32;
    return STEP(0x0f, 0x30);
}

static int rdmsr(uint32_t msr, uint64_t *value)
{
    struct soft_vcpu *c = fixture_vcpu();
    int result;

    c->gpr[CPU_RCX] = 0xffffffff00000000 | msr;
    result = STEP(0x0f, 0x32);
    *value = c->gpr[CPU_RAX] | c->gpr[CPU_RDX] << 32;
    return result;
}

static void msrs_that_keep_what_is_written(void **state)
{
    static const struct {
        uint32_t msr;
        uint64_t good, bad;
    } rows[] = {
        {0x48, 1, 1ull << 40},     /* SPEC_CTRL */
        {0x174, 0x10, 1ull << 32}, /* SYSENTER */
        {0x175, 0xffff800000000000, 1ull << 47},
        {0x176, 0xffff800000000000, 1ull << 47},
        {0x200, 0x80000006, 0x80000002},     /* MTRR base: type 2 */
        {0x201, 0x3fff80000800, 1ull << 46}, /* MTRR mask */
        {0x201, 0x3fff80000800, 1},
        {0x20f, 0x800, 1ull << 63},
        {0x250, 0x0606060606060606, 0x0606060606060602},
        {0x259, 0, 7}, /* UC- is for the PAT */
        {0x26f, 0x0505050505050505, 0xff},
        {0x277, 0x0007040600070406, 2}, /* PAT */
        {0x2ff, 0xc06, 0x1006},         /* MTRR default */
        {0x2ff, 0x806, 0x802},
        {0xc0000081, 0x0023001000000000, 0}, /* STAR */
        {0xc0000082, 0xffffffff81000000, 0x0000800000000000},
        {0xc0000083, 0xffffffff81000000, 0xffff7fffffffffff},
        {0xc0000084, 0x47700, 1ull << 32},
        {0xc0000100, 0x7fffffffffff, 0x800000000000},
        {0xc0000101, 0xffff888000000000, 0x800000000000},
        {0xc0000102, 0xffff888000000000, 0x800000000000},
        {0xc0000103, 0xffffffff, 1ull << 32},
    };

    fixture_cpu(MODE_LONG, 0);
    for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        uint64_t value = 0;

        ASSERT_DONE(wrmsr(rows[n].msr, rows[n].good));
        ASSERT_DONE(rdmsr(rows[n].msr, &value));
        assert_true(value == rows[n].good);
        if (!rows[n].bad)
            continue;
        ASSERT_FAULT(wrmsr(rows[n].msr, rows[n].bad), VEC_GP, 0);
        ASSERT_DONE(rdmsr(rows[n].msr, &value));
        assert_true(value == rows[n].good);
    }
}

static void msrs_that_are_fixed(void **state)
{
    static const uint32_t read_only[] = {0x17, 0x3a, 0xce, 0xfe, 0x10a, 0x179, 0x198};
    static const uint32_t missing[] = {0,     0x1c,  0x122, 0x186, 0xc1,       0x345,
                                       0x400, 0x560, 0x7ff, 0x900, 0xc0000104, UINT32_MAX};
    uint64_t value;

    fixture_cpu(MODE_LONG, 0);
    for (unsigned n = 0; n < sizeof(read_only) / sizeof(read_only[0]); n++) {
        ASSERT_DONE(rdmsr(read_only[n], &value));
        ASSERT_FAULT(wrmsr(read_only[n], value), VEC_GP, 0);
    }
    for (unsigned n = 0; n < sizeof(missing) / sizeof(missing[0]); n++) {
        ASSERT_FAULT(rdmsr(missing[n], &value), VEC_GP, 0);
        ASSERT_FAULT(wrmsr(missing[n], 0), VEC_GP, 0);
    }
    ASSERT_DONE(wrmsr(0x49, 1)); /* PRED_CMD: write-only */
    ASSERT_FAULT(wrmsr(0x49, 2), VEC_GP, 0);
    ASSERT_FAULT(rdmsr(0x49, &value), VEC_GP, 0);
    ASSERT_DONE(rdmsr(0x1a0, &value));
    assert_int_equal(value & 1, 1); /* fast strings: without, Linux gives up REP MOVS */
    fixture_cpu(MODE_LONG, 3);
    ASSERT_FAULT(rdmsr(0x10, &value), VEC_GP, 0);
    ASSERT_FAULT(wrmsr(0x10, 0), VEC_GP, 0);
}

static void efer(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    ASSERT_FAULT(wrmsr(0xc0000080, EFER_SCE | EFER_NX), VEC_GP, 0); /* LME while paging */
    ASSERT_FAULT(wrmsr(0xc0000080, c->efer | 1 << 12), VEC_GP, 0);
    ASSERT_DONE(wrmsr(0xc0000080, EFER_LME)); /* LMA stays */
    assert_int_equal(c->efer, EFER_LME | EFER_LMA);
    c = fixture_cpu(MODE_PROTECTED32, 0);
    ASSERT_DONE(wrmsr(0xc0000080, EFER_LMA | EFER_LME));
    assert_int_equal(c->efer, EFER_LME);
}

static void time_stamp_counter(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);
    uint64_t value, adjust = c->tsc_adjust;

    ASSERT_DONE(wrmsr(0x10, 1ull << 40));
    ASSERT_DONE(rdmsr(0x10, &value));
    assert_in_range(value, 1ull << 40, (1ull << 40) + (1ull << 36));
    ASSERT_DONE(rdmsr(0x3b, &adjust)); /* shows the same step */
    assert_true(adjust == c->tsc_adjust);
    ASSERT_DONE(wrmsr(0x3b, adjust + (1ull << 41)));
    ASSERT_DONE(rdmsr(0x10, &value));
    assert_in_range(value, 3ull << 40, (3ull << 40) + (1ull << 36));
    c->rip = CODE_AT;
    c->tsc_aux = 7;
    ASSERT_DONE(STEP(0x0f, 0x01, 0xf9)); /* rdtscp */
    assert_int_equal(c->gpr[CPU_RCX], 7);
    assert_in_range(c->gpr[CPU_RAX] | c->gpr[CPU_RDX] << 32, 3ull << 40, (3ull << 40) + (1ull << 36));
    ASSERT_DONE(STEP(0xf3, 0x0f, 0xc7, 0xfb)); /* rdpid rbx */
    assert_int_equal(c->gpr[CPU_RBX], 7);
    c = fixture_cpu(MODE_LONG, 3);
    ASSERT_DONE(STEP(0x0f, 0x31));
    c->cr4 |= CR4_TSD;
    ASSERT_FAULT(STEP(0x0f, 0x31), VEC_GP, 0);
    ASSERT_FAULT(STEP(0x0f, 0x01, 0xf9), VEC_GP, 0);
    ASSERT_FAULT(STEP(0x0f, 0x33), VEC_GP, 0); /* rdpmc */
}

/* ---- flags, HLT, and what is not there ---- */

static void interrupt_flag(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    ASSERT_DONE(STEP(0xfb)); /* sti */
    assert_true(c->iflag && c->shadow);
    c->shadow = 0;
    ASSERT_DONE(STEP(0xfb)); /* was set: no shadow */
    assert_false(c->shadow);
    ASSERT_DONE(STEP(0xfa));
    assert_false(c->iflag);
    c = fixture_cpu(MODE_LONG, 3);
    ASSERT_FAULT(STEP(0xfb), VEC_GP, 0);
    ASSERT_FAULT(STEP(0xfa), VEC_GP, 0);
    ASSERT_FAULT(STEP(0xf4), VEC_GP, 0);
    ASSERT_FAULT(STEP(0x0f, 0x01, 0xcb), VEC_UD, 0); /* stac */
    soft_set_rflags(c, FLAG_IOPL, FLAG_IOPL);
    ASSERT_DONE(STEP(0xfb));
    assert_true(c->iflag);
    c = fixture_cpu(MODE_LONG, 0);
    ASSERT_DONE(STEP(0xf4));
    assert_true(c->halted);
    assert_int_equal(c->rip, CODE_AT + 1);
}

static void popf_follows_privilege(void **state)
{
    const uint64_t all = FLAG_IF | FLAG_IOPL | FLAG_NT | FLAG_AC | FLAG_ID | FLAG_CF | FLAG_RF | FLAG_VM;
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 3);

    fixture_write(c->gpr[CPU_RSP] - 8, all, 8);
    c->gpr[CPU_RSP] -= 8;
    ASSERT_DONE(STEP(0x9d));
    assert_int_equal(soft_rflags(c), FLAG_NT | FLAG_AC | FLAG_ID | FLAG_CF | 2);
    c = fixture_cpu(MODE_LONG, 0);
    fixture_write(c->gpr[CPU_RSP] - 8, all, 8);
    c->gpr[CPU_RSP] -= 8;
    ASSERT_DONE(STEP(0x9d));
    assert_int_equal(soft_rflags(c), FLAG_IF | FLAG_IOPL | FLAG_NT | FLAG_AC | FLAG_ID | FLAG_CF | 2);
    c->sysflags |= FLAG_RF;
    ASSERT_DONE(STEP(0x9c)); /* pushf: without RF and VM */
    assert_int_equal(fixture_read(c->gpr[CPU_RSP], 8),
                     FLAG_IF | FLAG_IOPL | FLAG_NT | FLAG_AC | FLAG_ID | FLAG_CF | 2);
}

static void extended_state_register(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    ASSERT_FAULT(STEP(0x0f, 0x01, 0xd0), VEC_UD, 0); /* xgetbv without OSXSAVE */
    ASSERT_FAULT(STEP(0x0f, 0x01, 0xd1), VEC_UD, 0);
    if (set_cr(4, c->cr4 | CR4_OSXSAVE) == SOFT_FAULT)
        return; /* a host without XSAVE */
    c->gpr[CPU_RCX] = c->gpr[CPU_RDX] = 0;
    for (uint64_t value = 0; value < 16; value++) {
        bool good = (value & 1) && value < 8 && (!(value & 4) || (value & 2));

        c->rip = CODE_AT;
        c->gpr[CPU_RAX] = value;
        if (good && !(value & 4))
            ASSERT_DONE(STEP(0x0f, 0x01, 0xd1));
        else if (!good)
            ASSERT_FAULT(STEP(0x0f, 0x01, 0xd1), VEC_GP, 0);
    }
    ASSERT_DONE(STEP(0x0f, 0x01, 0xd0));
    assert_int_equal(c->gpr[CPU_RAX], 3);
    c->gpr[CPU_RCX] = 1;
    ASSERT_FAULT(STEP(0x0f, 0x01, 0xd0), VEC_GP, 0);
}

static void instructions_that_are_not_there(void **state)
{
    fixture_cpu(MODE_LONG, 0);
    ASSERT_FAULT(STEP(0x0f, 0x01, 0xc8), VEC_UD, 0); /* monitor */
    ASSERT_FAULT(STEP(0x0f, 0x01, 0xc9), VEC_UD, 0); /* mwait */
    ASSERT_FAULT(STEP(0x0f, 0xaa), VEC_UD, 0);       /* rsm */
    ASSERT_FAULT(STEP(0x0f, 0x01, 0xc1), VEC_UD, 0); /* vmcall */
    ASSERT_FAULT(STEP(0x0f, 0x01, 0xd9), VEC_UD, 0); /* vmmcall */
    ASSERT_FAULT(STEP(0x0f, 0x0b), VEC_UD, 0);       /* ud2 */
    ASSERT_FAULT(STEP(0x06), VEC_UD, 0);             /* push es */
    ASSERT_FAULT(STEP(0x60), VEC_UD, 0);             /* pusha */
    ASSERT_FAULT(STEP(0xce), VEC_UD, 0);             /* into */
    ASSERT_FAULT(STEP(0x0f, 0x37), VEC_UD, 0);       /* getsec */
}

static int teardown(void **state)
{
    fixture_end();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cr0_combinations),
        cmocka_unit_test(long_mode_on_and_off),
        cmocka_unit_test(cr3_and_cr4_reserved_bits),
        cmocka_unit_test(page_directory_pointers_are_checked_when_loaded),
        cmocka_unit_test(registers_that_are_not_there),
        cmocka_unit_test(status_word),
        cmocka_unit_test(writes_flush_the_tlb),
        cmocka_unit_test(large_pages_leave_the_tlb_as_a_whole),
        cmocka_unit_test(huge_pages_leave_the_tlb_as_a_whole),
        cmocka_unit_test(pages_beside_large_ones_stay_in_the_tlb),
        cmocka_unit_test(invpcid),
        cmocka_unit_test(debug_registers),
        cmocka_unit_test(breakpoints_match),
        cmocka_unit_test(msrs_that_keep_what_is_written),
        cmocka_unit_test(msrs_that_are_fixed),
        cmocka_unit_test(efer),
        cmocka_unit_test(time_stamp_counter),
        cmocka_unit_test(interrupt_flag),
        cmocka_unit_test(popf_follows_privilege),
        cmocka_unit_test(extended_state_register),
        cmocka_unit_test(instructions_that_are_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}

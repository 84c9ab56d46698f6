/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/engine/soft/xstate.c and op_x87.c: XSAVE, which the differential test can't compare (the host's XCR0 is
 * not the guest's), the real-mode x87 environment, and what the enable bits raise. SDM vol. 1 8.1.10 and
 * chapter 13.
 */
#include "cpu_fixture.h"

#include "base/bytes.h"
#include "engine/soft/handlers.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define AREA DATA_AT

/* A vCPU with XSAVE on and XCR0 7; skips the test on hosts that lack AVX. */
static struct soft_vcpu *cpu(enum fixture_mode mode)
{
    struct soft_vcpu *c = fixture_cpu(mode, 0);
    uint32_t out[4];

    soft_cpuid(c, 1, 0, out);
    if ((out[2] & (1u << 28 | 1u << 26)) != (1u << 28 | 1u << 26))
        skip();
    c->cr4 |= CR4_OSXSAVE;
    c->xcr0 = 7;
    soft_xstate_modify(c, 7);
    return c;
}

static void put_pattern(struct soft_vcpu *c)
{
    for (unsigned n = 0; n < 16; n++) {
        uint8_t value[32];

        memset(value, (int)(0x10 + n), 16);
        memset(value + 16, (int)(0x80 + n), 16);
        soft_vector_write(c, n, value);
    }
    memset(c->xsave + XSAVE_ST, 0x3f, 10);
    put_le16(c->xsave + XSAVE_FCW, 0x27f);
    c->xsave[XSAVE_FTW] = 0x80;
    put_le32(c->xsave + XSAVE_MXCSR, 0x1f80);
}

static uint8_t *area(void)
{
    return fixture_ram(AREA);
}

/* xsave64/xsave/xsaveopt/xrstor64/xrstor [rbx] with EDX:EAX */
static int xsave(uint64_t mask, unsigned modrm, bool wide)
{
    struct soft_vcpu *c = fixture_vcpu();

    c->gpr[CPU_RBX] = AREA;
    c->gpr[CPU_RAX] = (uint32_t)mask;
    c->gpr[CPU_RDX] = mask >> 32;
    return wide ? STEP(0x48, 0x0f, 0xae, (uint8_t)modrm) : STEP(0x0f, 0xae, (uint8_t)modrm);
}
#define XSAVE    0x23
#define XRSTOR   0x2b
#define XSAVEOPT 0x33

static void each_component_goes_to_its_place(void **state)
{
    struct soft_vcpu *c = cpu(MODE_LONG);

    for (uint64_t mask = 0; mask < 8; mask++) {
        put_pattern(c);
        memset(area(), 0xee, XSAVE_SIZE);
        put_le64(area() + XSAVE_BV, 0xffff0000);
        ASSERT_DONE(xsave(mask | 0xfffffff0, XSAVE, true)); /* what XCR0 lacks doesn't count */
        assert_int_equal(get_le16(area()), mask & 1 ? 0x27f : 0xeeee);
        assert_int_equal(get_le32(area() + XSAVE_MXCSR), mask & 6 ? 0x1f80 : 0xeeeeeeee);
        assert_int_equal(area()[XSAVE_ST], mask & 1 ? 0x3f : 0xee);
        assert_int_equal(area()[XSAVE_XMM + 16 * 15], mask & 2 ? 0x1f : 0xee);
        assert_int_equal(area()[XSAVE_YMM + 16 * 15], mask & 4 ? 0x8f : 0xee);
        assert_int_equal(area()[464], 0xee); /* for software */
        assert_int_equal(area()[XSAVE_BV + 8], 0xee);
        assert_int_equal(get_le64(area() + XSAVE_BV), 0xffff0000 | mask);
    }
}

static void components_in_their_initial_state(void **state)
{
    struct soft_vcpu *c = cpu(MODE_LONG);

    put_pattern(c);
    put_le64(c->xsave + XSAVE_BV, 1); /* SSE and AVX are initial, whatever the bytes are */
    memset(area(), 0xee, XSAVE_SIZE);
    put_le64(area() + XSAVE_BV, 7);
    ASSERT_DONE(xsave(7, XSAVE, true));
    assert_int_equal(area()[XSAVE_XMM], 0);
    assert_int_equal(area()[XSAVE_YMM], 0);
    assert_int_equal(get_le64(area() + XSAVE_BV) & 5, 1);

    put_pattern(c);
    put_le64(c->xsave + XSAVE_BV, 1);
    memset(area(), 0xee, XSAVE_SIZE);
    put_le64(area() + XSAVE_BV, 7);
    ASSERT_DONE(xsave(7, XSAVEOPT, true)); /* doesn't write them */
    assert_int_equal(get_le16(area()), 0x27f);
    assert_int_equal(area()[XSAVE_YMM], 0xee);
    assert_int_equal(get_le64(area() + XSAVE_BV) & 5, 1);
}

static void restores_what_was_saved(void **state)
{
    struct soft_vcpu *c = cpu(MODE_LONG);
    uint8_t value[32];

    put_pattern(c);
    memset(area(), 0, XSAVE_SIZE);
    ASSERT_DONE(xsave(7, XSAVE, true));
    memset(c->xsave, 0x55, XSAVE_LEGACY);
    memset(c->xsave + XSAVE_YMM, 0x55, 256);
    put_le32(c->xsave + XSAVE_MXCSR, 0x1f80);
    put_le32(c->xsave + XSAVE_MXCSR_MASK, 0xffff);
    put_le16(c->xsave + XSAVE_FSW, 0);
    ASSERT_DONE(xsave(7, XRSTOR, true));
    soft_xstate_normalise(c);
    soft_vector_read(c, 7, value);
    assert_int_equal(value[0], 0x17);
    assert_int_equal(value[16], 0x87);
    assert_int_equal(get_le16(c->xsave), 0x27f);
    assert_int_equal(c->xsave[XSAVE_ST], 0x3f);

    /* A clear bit in XSTATE_BV: the initial state; only what was asked for. */
    put_le64(area() + XSAVE_BV, 2);
    ASSERT_DONE(xsave(5, XRSTOR, true));
    soft_xstate_normalise(c);
    soft_vector_read(c, 7, value);
    assert_int_equal(value[0], 0x17);
    assert_int_equal(value[16], 0);
    assert_int_equal(get_le16(c->xsave), 0x37f);
    assert_int_equal(c->xsave[XSAVE_FTW], 0);
    /* MXCSR comes from memory even so. */
    put_le32(area() + XSAVE_MXCSR, 0x3f80);
    ASSERT_DONE(xsave(4, XRSTOR, true));
    assert_int_equal(get_le32(c->xsave + XSAVE_MXCSR), 0x3f80);
}

static void a_bad_header_restores_nothing(void **state)
{
    static const struct {
        unsigned at;
        uint64_t value;
    } rows[] = {
        {XSAVE_BV, 8}, /* not in XCR0 */
        {XSAVE_BV, 1ull << 63},
        {XSAVE_BV + 8, 1ull << 63}, /* the compacted form */
        {XSAVE_BV + 8, 1},
        {XSAVE_BV + 16, 1},
        {XSAVE_MXCSR, 0x1f80 | 1ull << 16}, /* a reserved bit */
    };
    struct soft_vcpu *c = cpu(MODE_LONG);
    uint8_t value[32];

    for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        put_pattern(c);
        memset(area(), 0, XSAVE_SIZE);
        put_le32(area() + XSAVE_MXCSR, 0x1f80);
        put_le64(area() + rows[n].at, rows[n].value);
        ASSERT_FAULT(xsave(7, XRSTOR, true), VEC_GP, 0);
        soft_vector_read(c, 3, value);
        assert_int_equal(value[0], 0x13);
    }
    /* Bytes 63-24 of the header are not looked at. */
    memset(area(), 0, XSAVE_SIZE);
    put_le64(area() + XSAVE_BV + 24, UINT64_MAX);
    ASSERT_DONE(xsave(7, XRSTOR, true));
}

static void alignment_and_enable_bits(void **state)
{
    struct soft_vcpu *c = cpu(MODE_LONG);

    c->gpr[CPU_RBX] = AREA + 32;
    c->gpr[CPU_RAX] = 7;
    ASSERT_FAULT(STEP(0x0f, 0xae, 0x23), VEC_GP, 0);
    ASSERT_DONE(STEP(0x0f, 0xae, 0x03)); /* fxsave: 16 are enough */
    c->gpr[CPU_RBX] = AREA + 8;
    ASSERT_FAULT(STEP(0x0f, 0xae, 0x03), VEC_GP, 0);
    c->gpr[CPU_RBX] = AREA;
    c->cr0 |= CR0_TS;
    ASSERT_FAULT(STEP(0x0f, 0xae, 0x23), VEC_NM, 0);
    ASSERT_FAULT(STEP(0x0f, 0xae, 0x03), VEC_NM, 0);
    ASSERT_FAULT(STEP(0xd9, 0x33), VEC_NM, 0); /* fnstenv */
    c->cr4 &= ~(uint64_t)CR4_OSXSAVE;
    ASSERT_FAULT(STEP(0x0f, 0xae, 0x23), VEC_UD, 0); /* comes before #NM */
    c->cr0 = (c->cr0 & ~(uint64_t)CR0_TS) | CR0_EM;
    ASSERT_FAULT(STEP(0x0f, 0xae, 0x03), VEC_NM, 0);
}

static void outside_64_bit_mode_the_upper_registers_stay(void **state)
{
    struct soft_vcpu *c = cpu(MODE_COMPAT);
    uint8_t value[32];

    put_pattern(c);
    memset(area(), 0xee, XSAVE_SIZE);
    ASSERT_DONE(xsave(7, XSAVE, false));
    assert_int_equal(area()[XSAVE_XMM + 16 * 7], 0x17);
    assert_int_equal(area()[XSAVE_XMM + 16 * 8], 0xee);
    assert_int_equal(area()[XSAVE_YMM + 16 * 8], 0xee);
    memset(area(), 0, XSAVE_SIZE);
    put_le32(area() + XSAVE_MXCSR, 0x1f80);
    ASSERT_DONE(xsave(7, XRSTOR, false));
    soft_xstate_normalise(c);
    soft_vector_read(c, 7, value);
    assert_int_equal(value[0] | value[16], 0);
    soft_vector_read(c, 8, value);
    assert_int_equal(value[0], 0x18);
    assert_int_equal(value[16], 0x88);
}

/* Linear addresses, split: bits 15-0 in one word, the rest at bit 12 of the next. */
static void the_real_mode_environment(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_REAL, 0);
    uint8_t *env = fixture_ram(0x6000);

    soft_xstate_modify(c, XSTATE_X87);
    put_le64(c->xsave + XSAVE_FIP, 0x000f1234);
    put_le64(c->xsave + XSAVE_FDP, 0x00095678);
    put_le16(c->xsave + XSAVE_FOP, 0x7ab);
    put_le16(c->xsave + XSAVE_FSW, 0x3000);
    c->xsave[XSAVE_FTW] = 0x40; /* physical register 6, ST(0) */
    memset(c->xsave + XSAVE_ST, 0, 10);
    c->gpr[CPU_RBX] = 0x6000;
    ASSERT_DONE(STEP(0xd9, 0x37)); /* fnstenv [bx], 14 bytes */
    assert_int_equal(get_le16(env), 0x37f);
    assert_int_equal(get_le16(env + 2), 0x3000);
    assert_int_equal(get_le16(env + 4), 0xdfff); /* zero, all others empty */
    assert_int_equal(get_le16(env + 6), 0x1234);
    assert_int_equal(get_le16(env + 8), 0xf7ab);
    assert_int_equal(get_le16(env + 10), 0x5678);
    assert_int_equal(get_le16(env + 12), 0x9000);
    ASSERT_DONE(STEP(0x66, 0xd9, 0x37)); /* 28 bytes */
    assert_int_equal(get_le32(env + 12) & 0xffff, 0x1234);
    assert_int_equal(get_le32(env + 16), 0xf7ab);
    assert_int_equal(get_le32(env + 24), 0x9000);
    put_le64(c->xsave + XSAVE_FIP, 0);
    put_le64(c->xsave + XSAVE_FDP, 0);
    put_le16(c->xsave + XSAVE_FOP, 0);
    ASSERT_DONE(STEP(0x66, 0xd9, 0x27)); /* fldenv */
    assert_int_equal(get_le64(c->xsave + XSAVE_FIP), 0xf1234);
    assert_int_equal(get_le64(c->xsave + XSAVE_FDP), 0x95678);
    assert_int_equal(get_le16(c->xsave + XSAVE_FOP), 0x7ab);
    assert_int_equal(c->xsave[XSAVE_FTW], 0x40);
}

/* An exception that the guest lets wait in its x87 must not come in ours. */
static void the_hosts_x87_is_its_own(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);
    volatile long double third = 3;
    uint16_t fcw;

    fixture_write(DATA_AT, 0x300, 2); /* FCW: all exceptions unmasked */
    ASSERT_DONE(STEP(0xd9, 0x2d, 0x00, 0x00, 0x02, 0x00));
    for (unsigned n = 0; n < 9; n++) /* fld1: the ninth overflows */
        ASSERT_DONE(STEP(0xd9, 0xe8));
    assert_int_equal(get_le16(c->xsave + XSAVE_FCW), 0x340);
    assert_int_equal(get_le16(c->xsave + XSAVE_FSW) & 0x80, 0x80);
    __asm__("fnstcw %0" : "=m"(fcw));
    assert_int_equal(fcw, 0x37f);
    third = 1 / third;
    assert_true(third > 0.333L && third < 0.334L);
}

static void top_moves_registers_in_the_image_only(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_PROTECTED32, 0);

    soft_xstate_modify(c, XSTATE_X87);
    put_le16(c->xsave + XSAVE_FSW, 5 << 11);
    for (unsigned n = 0; n < 8; n++)
        memset(c->xsave + XSAVE_ST + 16 * n, (int)n, 10); /* ST(n) is physical register n + 5 */
    soft_x87_set_top(c, 2);
    assert_int_equal(get_le16(c->xsave + XSAVE_FSW), 2 << 11);
    for (unsigned n = 0; n < 8; n++)
        assert_int_equal(c->xsave[XSAVE_ST + 16 * n], (n + 2 - 5) & 7);
}

static int teardown(void **state)
{
    fixture_end();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_component_goes_to_its_place),
        cmocka_unit_test(components_in_their_initial_state),
        cmocka_unit_test(restores_what_was_saved),
        cmocka_unit_test(a_bad_header_restores_nothing),
        cmocka_unit_test(alignment_and_enable_bits),
        cmocka_unit_test(outside_64_bit_mode_the_upper_registers_stay),
        cmocka_unit_test(the_real_mode_environment),
        cmocka_unit_test(the_hosts_x87_is_its_own),
        cmocka_unit_test(top_moves_registers_in_the_image_only),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}

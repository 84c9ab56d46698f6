/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where processors of AMD's and Intel's differ: each check on both. The differential test has them on real
 * ones. */
#include "cpu_fixture.h"

#include "base/bytes.h"
#include "engine/soft/soft_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
/* after those */
#include <cmocka.h>

static int teardown(void **state)
{
    fixture_end();
    return 0;
}

static struct soft_vcpu *cpu(enum fixture_mode mode, unsigned cpl, bool amd)
{
    struct soft_vcpu *c = fixture_cpu(mode, cpl);

    fixture_soft()->amd = amd;
    return c;
}

static void offsets_in_segments_with_a_base(void **state)
{
    for (unsigned amd = 0; amd < 2; amd++) {
        struct soft_vcpu *c = cpu(MODE_LONG, 0, amd);

        /* The address is canonical, and the page there. */
        c->seg[CPU_GS].base = 0xffff800000000000;
        c->gpr[CPU_RBX] = 0x800000000000 + DATA_AT;
        fixture_write(DATA_AT, 77, 8);
        if (amd) {
            ASSERT_FAULT(STEP(0x65, 0x48, 0x8b, 0x03), VEC_GP, 0);       /* mov rax, gs:[rbx] */
            ASSERT_FAULT(STEP(0x65, 0x0f, 0xc7, 0x0b), VEC_GP, 0);       /* cmpxchg8b gs:[rbx] */
            ASSERT_FAULT(STEP(0x65, 0x48, 0x8b, 0x43, 0x08), VEC_GP, 0); /* ... [rbx + 8] */
        } else {
            ASSERT_DONE(STEP(0x65, 0x48, 0x8b, 0x03));
            assert_int_equal(c->gpr[CPU_RAX], 77);
        }
        /* An offset that is, with an address that is: backwards from the base. */
        c->seg[CPU_GS].base = DATA_AT + 8;
        c->gpr[CPU_RBX] = -8ull;
        c->gpr[CPU_RAX] = 0;
        c->rip = CODE_AT;
        ASSERT_DONE(STEP(0x65, 0x48, 0x8b, 0x03));
        assert_int_equal(c->gpr[CPU_RAX], 77);
    }
}

static void syscall_in_compatibility_mode(void **state)
{
    for (unsigned amd = 0; amd < 2; amd++) {
        struct soft_vcpu *c = cpu(MODE_COMPAT, 3, amd);

        c->star = (uint64_t)CODE0_64 << 32;
        c->lstar = 0x1111;
        c->cstar = 0xffff800000002222;
        if (!amd) {
            ASSERT_FAULT(STEP(0x0f, 0x05), VEC_UD, 0);
            continue;
        }
        ASSERT_DONE(STEP(0x0f, 0x05));
        assert_true(c->rip == 0xffff800000002222);
        assert_int_equal(c->gpr[CPU_RCX], CODE_AT + 2);
        assert_true(c->key & KEY_CODE64);
        assert_int_equal(c->cpl, 0);
        c = cpu(MODE_PROTECTED32, 3, amd);
        c->efer |= EFER_SCE;
        ASSERT_FAULT(STEP(0x0f, 0x05), VEC_UD, 0);
    }
}

static void sysret_in_compatibility_mode(void **state)
{
    struct soft_vcpu *c = cpu(MODE_COMPAT, 0, false);

    ASSERT_FAULT(STEP(0x0f, 0x07), VEC_UD, 0);
    c = cpu(MODE_COMPAT, 3, true);
    ASSERT_FAULT(STEP(0x0f, 0x07), VEC_GP, 0);
    c = cpu(MODE_COMPAT, 0, true);
    c->star = (uint64_t)(CODE3_32 & ~3u) << 48;
    c->gpr[CPU_RCX] = 0x4321;
    ASSERT_DONE(STEP(0x0f, 0x07));
    assert_int_equal(c->rip, 0x4321);
    assert_int_equal(c->cpl, 3);
    assert_int_equal(c->seg[CPU_CS].selector, CODE3_32);
}

static void sysenter_in_long_mode(void **state)
{
    for (unsigned amd = 0; amd < 2; amd++) {
        struct soft_vcpu *c = cpu(MODE_LONG, 0, amd);

        c->sysenter_cs = CODE0_64;
        if (amd) {
            ASSERT_FAULT(STEP(0x0f, 0x34), VEC_UD, 0);
            ASSERT_FAULT(STEP(0x0f, 0x35), VEC_UD, 0);
        } else {
            ASSERT_DONE(STEP(0x0f, 0x34));
        }
        c = cpu(MODE_PROTECTED32, 3, amd);
        c->sysenter_cs = CODE0_32;
        ASSERT_DONE(STEP(0x0f, 0x34));
    }
}

/* 66 before a near branch of 64-bit mode: AMD's have 16 bits of RIP and of the stack. */
static void branches_of_16_bits(void **state)
{
    for (unsigned amd = 0; amd < 2; amd++) {
        struct soft_vcpu *c = cpu(MODE_LONG, 0, amd);
        uint64_t rsp = c->gpr[CPU_RSP];

        ASSERT_DONE(STEP(0x66, 0xeb, 0x10));
        assert_int_equal(c->rip, (CODE_AT + 0x13) & (amd ? 0xffff : 0xffffffff));
        c->rip = CODE_AT;
        ASSERT_DONE(STEP(0x66, 0x48, 0xeb, 0x10)); /* REX.W overrides it */
        assert_int_equal(c->rip, CODE_AT + 0x14);
        c->rip = CODE_AT;
        c->gpr[CPU_RBX] = 0x123456;
        ASSERT_DONE(STEP(0x66, 0xff, 0xd3)); /* call rbx, or bx */
        assert_int_equal(c->rip, amd ? 0x3456 : 0x123456);
        assert_int_equal(c->gpr[CPU_RSP], rsp - (amd ? 2 : 8));
        c->rip = CODE_AT;
        c->flags = FLAG_ZF;
        ASSERT_DONE(STEP(0x66, 0x74, 0x20));
        assert_int_equal(c->rip, (CODE_AT + 0x23) & (amd ? 0xffff : 0xffffffff));
        c->rip = CODE_AT;
        ASSERT_DONE(STEP(0x66, 0xc3)); /* back from the call */
        assert_int_equal(c->rip, CODE_AT + 3 - (amd ? CODE_AT : 0));
        assert_int_equal(c->gpr[CPU_RSP], rsp);
    }
}

static void far_pointers_have_32_bits(void **state)
{
    for (unsigned amd = 0; amd < 2; amd++) {
        struct soft_vcpu *c = cpu(MODE_LONG, 0, amd);

        put_le32(fixture_ram(DATA_AT), 0x89abcdef);
        put_le32((uint8_t *)fixture_ram(DATA_AT) + 4, DATA3);
        put_le32((uint8_t *)fixture_ram(DATA_AT) + 8, 0);
        c->gpr[CPU_RSI] = DATA_AT;
        ASSERT_DONE(STEP(0x48, 0x0f, 0xb4, 0x06)); /* lfs rax, [rsi] */
        assert_true(c->gpr[CPU_RAX] == (amd ? 0x89abcdefull : (uint64_t)DATA3 << 32 | 0x89abcdef));
        assert_int_equal(c->seg[CPU_FS].selector, amd ? DATA3 : 0);
    }
}

static void segments_fill_their_slot(void **state)
{
    for (unsigned amd = 0; amd < 2; amd++) {
        struct soft_vcpu *c = cpu(MODE_PROTECTED32, 0, amd);

        fixture_write(c->gpr[CPU_RSP] - 4, 0xdeadbeef, 4);
        ASSERT_DONE(STEP(0x1e)); /* push ds */
        assert_int_equal(fixture_read(c->gpr[CPU_RSP], 4), DATA0 | (amd ? 0 : 0xdead0000));
    }
}

/* Three bytes that are alike, then a page that is not there. */
static void flags_of_a_comparison_that_faults(void **state)
{
    for (unsigned amd = 0; amd < 2; amd++) {
        struct soft_vcpu *c = cpu(MODE_LONG, 0, amd);

        memset(fixture_ram(HOLE_AT - 3), 7, 3);
        c->gpr[CPU_RDI] = HOLE_AT - 3;
        c->gpr[CPU_RAX] = 7;
        c->gpr[CPU_RCX] = 10;
        c->flags = FLAG_SF;
        ASSERT_FAULT(STEP(0xf3, 0xae), VEC_PF, 0);
        assert_int_equal(c->gpr[CPU_RCX], 7);
        assert_int_equal(c->flags, amd ? FLAG_ZF | FLAG_PF : FLAG_SF);
    }
}

static void refused_forms(void **state)
{
    static const uint8_t prefetchw[] = {0x0f, 0x0d, 0xc9};
    struct soft_vcpu *c = cpu(MODE_LONG, 0, true);

    ASSERT_FAULT(fixture_step(prefetchw, sizeof(prefetchw)), VEC_UD, 0);
    c = cpu(MODE_LONG, 0, false);
    ASSERT_DONE(fixture_step(prefetchw, sizeof(prefetchw)));
    assert_int_equal(c->rip, CODE_AT + 3);
}

/* IRETQ to compatibility mode, to a RIP above 4 GiB. */
static void iret_beyond_the_limit(void **state)
{
    for (unsigned amd = 0; amd < 2; amd++) {
        struct soft_vcpu *c = cpu(MODE_LONG, 0, amd);
        const uint64_t frame[] = {0x100000000 + CODE_AT, CODE0_32, 2, c->gpr[CPU_RSP], DATA0};

        c->gpr[CPU_RSP] -= sizeof(frame);
        memcpy(fixture_ram(c->gpr[CPU_RSP]), frame, sizeof(frame));
        if (amd) {
            ASSERT_FAULT(STEP(0x48, 0xcf), VEC_GP, 0);
        } else {
            ASSERT_DONE(STEP(0x48, 0xcf));
            assert_int_equal(c->rip, CODE_AT);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offsets_in_segments_with_a_base),
        cmocka_unit_test(syscall_in_compatibility_mode),
        cmocka_unit_test(sysret_in_compatibility_mode),
        cmocka_unit_test(sysenter_in_long_mode),
        cmocka_unit_test(branches_of_16_bits),
        cmocka_unit_test(far_pointers_have_32_bits),
        cmocka_unit_test(segments_fill_their_slot),
        cmocka_unit_test(flags_of_a_comparison_that_faults),
        cmocka_unit_test(refused_forms),
        cmocka_unit_test(iret_beyond_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}

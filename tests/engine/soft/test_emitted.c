/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a kernel executes all the time, without its handlers in C: src/engine/soft/translate_system.c,
 * stubs_string.c. */
#include "cpu_fixture.h"
#include "engine/soft/soft.h"
#include "engine/soft/soft_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define FROM (DATA_AT + 0x2000)
#define TO   (DATA_AT + 0x4000)

/* Runs the bytes, which a jump to another page follows. What handlers in C there were. */
static uint64_t run_code(const uint8_t *bytes, size_t length)
{
    const uint8_t leave[] = {0xe9, 0x00, 0x10, 0x00, 0x00};
    struct soft_vcpu *c = fixture_vcpu();
    uint64_t end = CODE_AT + length + sizeof(leave) + 0x1000, before = c->stats.handlers;

    memcpy(fixture_ram(CODE_AT), bytes, length);
    memcpy((uint8_t *)fixture_ram(CODE_AT) + length, leave, sizeof(leave));
    soft_invalidate_code(fixture_soft(), CODE_AT, length + sizeof(leave));
    c->rip = CODE_AT;
    soft_update_key(c);
    for (unsigned n = 0; n < 8 && c->rip != end; n++)
        assert_int_equal(soft_run_block(c), SOFT_JUMP);
    assert_true(c->rip == end);
    return c->stats.handlers - before;
}
#define RUN(...) run_code((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void interrupts_off_and_on(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    assert_int_equal(RUN(0xfb, 0x90), 0); /* sti; nop */
    assert_true(c->iflag == FLAG_IF && !c->shadow && !c->pending);
    assert_int_equal(RUN(0xfa), 0); /* cli */
    assert_true(c->iflag == 0);
    assert_int_equal(RUN(0xfb, 0x90), 0);
    c->iflag = 0;
    c->held_back = 1; /* what has come in the meantime is looked at */
    c->rip = CODE_AT;
    assert_int_equal(soft_run_block(c), SOFT_JUMP);
    assert_true(c->pending && c->iflag && c->rip == CODE_AT + 2);
}

static void flags_are_pushed(void **state)
{
    const uint64_t flags[] = {FLAG_CF | FLAG_DF, FLAG_ZF | FLAG_PF, FLAG_OF | FLAG_SF | FLAG_AF, FLAGS_HOST,
                              0};

    for (unsigned cpl = 0; cpl < 4; cpl += 3) {
        struct soft_vcpu *c = fixture_cpu(MODE_LONG, cpl);

        for (unsigned n = 0; n < 2 * sizeof(flags) / sizeof(flags[0]); n++) {
            uint64_t f = flags[n / 2] | (n & 1 ? FLAG_IF | FLAG_AC | FLAG_ID : 0), rsp = c->gpr[CPU_RSP];
            soft_set_rflags(c, f, FLAGS_HOST | FLAG_IF | FLAG_AC | FLAG_ID);
            assert_int_equal(RUN(0x9c, 0x5b, 0x9c), 0); /* pushfq; pop rbx; pushfq */
            assert_true(c->gpr[CPU_RBX] == (f | 2));
            assert_true(c->gpr[CPU_RSP] == rsp - 8 && fixture_read(rsp - 8, 8) == (f | 2));
            assert_true(soft_rflags(c) == (f | 2));
        }
    }
}

static void the_kernels_gs_base(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    c->seg[CPU_GS].base = 0x1000;
    c->kernel_gs_base = FROM;
    c->gpr[CPU_RCX] = 77;
    fixture_write(FROM + 8, 0x1234, 8);
    /* swapgs; mov rbx, gs:[8] */
    assert_int_equal(RUN(0x0f, 0x01, 0xf8, 0x65, 0x48, 0x8b, 0x1c, 0x25, 8, 0, 0, 0), 0);
    assert_true(c->gpr[CPU_RBX] == 0x1234 && c->gpr[CPU_RCX] == 77);
    assert_true(c->kernel_gs_base == 0x1000 && c->seg[CPU_GS].base == FROM);
}

static void users_memory_is_opened(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    c->cr4 |= CR4_SMAP;
    soft_tlb_flush(c, true);
    fixture_write(FROM, 0x4321, 8);
    c->gpr[CPU_RSI] = FROM;
    for (unsigned again = 0; again < 3; again++) {
        c->gpr[CPU_RBX] = 0;
        /* stac; mov rbx, [rsi]; clac */
        assert_int_equal(RUN(0x0f, 0x01, 0xcb, 0x48, 0x8b, 0x1e, 0x0f, 0x01, 0xca), 0);
        assert_true(c->gpr[CPU_RBX] == 0x4321);
        assert_true(!(c->sysflags & FLAG_AC) && soft_key_mmu(c->key) == MMU_KERNEL);
        uint32_t key = c->key;
        soft_update_key(c);
        assert_true(c->key == key);
    }
    /* clac; stac; stac */
    assert_int_equal(RUN(0x0f, 0x01, 0xca, 0x0f, 0x01, 0xcb, 0x0f, 0x01, 0xcb), 0);
    assert_true((c->sysflags & FLAG_AC) && soft_key_mmu(c->key) == MMU_KERNEL_AC);
    c->sysflags &= ~(uint64_t)FLAG_AC;
    soft_update_key(c);
    const uint8_t read[] = {0x48, 0x8b, 0x1e};
    memcpy(fixture_ram(CODE_AT), read, sizeof(read));
    soft_invalidate_code(fixture_soft(), CODE_AT, sizeof(read));
    c->rip = CODE_AT;
    assert_int_equal(soft_run_block(c), SOFT_FAULT);
    assert_int_equal(c->fault.vector, VEC_PF);
}

static void time_and_control_registers(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    c->tsc_aux = 0xabc00000123;
    c->cr2 = 0x123456789abc;
    for (unsigned n = 0; n < 2; n++) {
        uint64_t before = soft_read_tsc(c);
        uint64_t handlers = n ? RUN(0x0f, 0x31) : RUN(0x0f, 0x01, 0xf9);
        uint64_t read = c->gpr[CPU_RDX] << 32 | c->gpr[CPU_RAX];

        assert_true(handlers == (fixture_soft()->use_pext ? 0 : 1));
        assert_true(c->gpr[CPU_RAX] <= UINT32_MAX && c->gpr[CPU_RDX] <= UINT32_MAX);
        assert_true(before <= read && read <= soft_read_tsc(c));
        assert_true(c->gpr[CPU_RCX] == 0x123);
    }
    c->seg[CPU_SS].selector = 0x8018;
    /* mov eax, ss; mov rbx, ss; mov r12w, ss; serialize */
    c->gpr[CPU_RAX] = c->gpr[CPU_RBX] = c->gpr[CPU_R12] = UINT64_MAX;
    assert_int_equal(RUN(0x8c, 0xd0, 0x48, 0x8c, 0xd3, 0x66, 0x41, 0x8c, 0xd4, 0x0f, 0x01, 0xe8), 1);
    assert_true(c->gpr[CPU_RAX] == 0x8018 && c->gpr[CPU_RBX] == 0x8018);
    assert_true(c->gpr[CPU_R12] == 0xffffffffffff8018);
    /* mov rax, cr0; mov rbx, cr2; mov rcx, cr3; mov r12, cr4 */
    assert_int_equal(RUN(0x0f, 0x20, 0xc0, 0x0f, 0x20, 0xd3, 0x0f, 0x20, 0xd9, 0x41, 0x0f, 0x20, 0xe4), 0);
    assert_true(c->gpr[CPU_RAX] == c->cr0 && c->gpr[CPU_RBX] == 0x123456789abc);
    assert_true(c->gpr[CPU_RCX] == c->cr3 && c->gpr[CPU_R12] == c->cr4);
}

/* REP MOVS and STOS of `n` elements at all places where something changes. `down`: with DF set. */
static void repeat(const uint8_t *code, bool stos, unsigned size, uint64_t n, uint64_t to, bool down)
{
    struct soft_vcpu *c = fixture_vcpu();
    uint8_t *at = fixture_ram(TO), expected[0x3000];
    uint64_t bytes = n * size, low = down ? to - (n - 1) * size : to, from = FROM + 0x123 + (low - TO);

    for (unsigned i = 0; i < sizeof(expected); i++) {
        expected[i] = at[i] = (uint8_t)(i * 7);
        ((uint8_t *)fixture_ram(FROM))[i / 2] = (uint8_t)(i * 13 / 3);
    }
    for (uint64_t i = 0; i < bytes; i++)
        expected[low - TO + i] =
            stos ? (uint8_t)(0x8877665544332211 >> 8 * (i % size)) : *(uint8_t *)fixture_ram(from + i);
    for (unsigned again = 0; again < 2; again++) {
        memset(at + (low - TO), 0xee, bytes);
        soft_set_rflags(c, FLAG_CF | (down ? FLAG_DF : 0), FLAGS_HOST);
        c->gpr[CPU_RAX] = 0x8877665544332211;
        c->gpr[CPU_RDX] = 0xdddd;
        c->gpr[CPU_RCX] = n;
        c->gpr[CPU_RDI] = to;
        c->gpr[CPU_RSI] = down ? from + (n - 1) * size : from;
        run_code(code, 3);
        assert_memory_equal(at, expected, 0x2400);
        assert_true(c->gpr[CPU_RCX] == 0 && c->gpr[CPU_RDI] == (down ? to - bytes : to + bytes));
        if (!stos)
            assert_true(c->gpr[CPU_RSI] == (down ? from - size : from + bytes));
        assert_true(c->gpr[CPU_RAX] == 0x8877665544332211 && c->gpr[CPU_RDX] == 0xdddd);
        assert_true((c->flags & (FLAG_CF | FLAG_DF | FLAG_ZF)) == (FLAG_CF | (down ? FLAG_DF : 0)));
    }
}

static void repeated_strings(void **state)
{
    static const uint8_t prefixes[] = {0x90, 0x66, 0x90, 0x48};
    const unsigned offsets[] = {0, 1, 0xf00, 0xfff, 0x800};

    fixture_cpu(MODE_LONG, 0);
    for (unsigned shift = 0; shift < 4; shift++) {
        unsigned size = 1u << shift;
        uint64_t counts[] = {0, 1, 5, 256 / size, 4096 / size - 1, 4096 / size, 4096 / size + 1};

        for (unsigned n = 0; n < sizeof(counts) / sizeof(counts[0]); n++) {
            for (unsigned o = 0; o < sizeof(offsets) / sizeof(offsets[0]); o++) {
                for (unsigned stos = 0; stos < 2; stos++) {
                    /* rep, a prefix or (before it) nothing, the instruction */
                    uint8_t op = (uint8_t)((stos ? 0xaa : 0xa4) | (shift > 0)), p = prefixes[shift];
                    const uint8_t plain[] = {0x90, 0xf3, op}, prefixed[] = {0xf3, p, op};
                    const uint8_t *code = p == 0x90 ? plain : prefixed;

                    repeat(code, stos, size, counts[n], TO + offsets[o], false);
                    if (counts[n])
                        repeat(code, stos, size, counts[n], TO + 0x10 + (counts[n] - 1) * size, true);
                }
            }
        }
    }
}

static void repeated_strings_need_no_handler(void **state)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 0);

    for (unsigned again = 0; again < 2; again++) {
        c->gpr[CPU_RCX] = 512;
        c->gpr[CPU_RDI] = TO;
        c->gpr[CPU_RSI] = FROM;
        /* mov [rdi], al; mov al, [rsi]; cld; rep movsq */
        uint64_t handlers = RUN(0x88, 0x07, 0x8a, 0x06, 0xfc, 0xf3, 0x48, 0xa5);
        assert_true(handlers == (fixture_soft()->use_pext ? 0 : 1));
        assert_true(c->gpr[CPU_RDI] == TO + 4096 && c->gpr[CPU_RSI] == FROM + 4096);
    }
    /* A page of bytes, to and from two pages each. */
    for (unsigned again = 0; again < 2; again++) {
        c->gpr[CPU_RCX] = 4096;
        c->gpr[CPU_RDI] = TO + 0x123;
        c->gpr[CPU_RSI] = FROM + 0x321;
        /* mov [rdi], al; mov [rdi + 0x1000], al; mov al, [rsi + 0x1000]; mov al, [rsi]; rep movsb */
        uint64_t handlers =
            RUN(0x88, 0x07, 0x88, 0x87, 0, 0x10, 0, 0, 0x8a, 0x86, 0, 0x10, 0, 0, 0x8a, 0x06, 0xf3, 0xa4);
        assert_true(handlers == (fixture_soft()->use_pext ? 0 : 1));
        assert_true(c->gpr[CPU_RDI] == TO + 0x1123 && c->gpr[CPU_RSI] == FROM + 0x1321);
    }
    /* Of pages that have been used, but are not in the TLB; and of one that has not. */
    for (unsigned used = 1; used < 2; used--) {
        const uint64_t pages = HOLE_AT + 0x30000;
        c->gpr[CPU_RDI] = pages + 0x123;
        c->gpr[CPU_RSI] = TO;
        RUN(0x88, 0x07, 0x88, 0x87, 0, 0x10, 0, 0, 0x8a, 0x06);
        fixture_write(TO + 0xfff, 0x5a + used, 1);
        c->gpr[CPU_RCX] = 4096;
        soft_tlb_flush(c, true);
        if (!used)
            fixture_map(pages + 0x1000, pages + 0x1000);
        uint64_t handlers = RUN(0xf3, 0xa4);
        assert_true(handlers == (used && fixture_soft()->use_pext ? 0 : 1));
        assert_true(c->gpr[CPU_RDI] == pages + 0x1123 && c->gpr[CPU_RSI] == TO + 0x1000);
        assert_int_equal(fixture_read(pages + 0x1122, 1), 0x5a + used);
        c->gpr[CPU_RCX] = 512;
        c->gpr[CPU_RDI] = pages;
        soft_tlb_flush(c, true);
        assert_true(RUN(0xf3, 0x48, 0xab) == (fixture_soft()->use_pext ? 0 : 1)); /* rep stosq */
    }
    soft_set_rflags(c, FLAG_DF, FLAG_DF);
    RUN(0xfc); /* cld */
    assert_true(!(c->flags & FLAG_DF) && !(c->key & KEY_DF));
    RUN(0xfd); /* std */
    assert_true((c->flags & FLAG_DF) && (c->key & KEY_DF));
}

static int end(void **state)
{
    fixture_end();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(interrupts_off_and_on, end),
        cmocka_unit_test_teardown(flags_are_pushed, end),
        cmocka_unit_test_teardown(the_kernels_gs_base, end),
        cmocka_unit_test_teardown(users_memory_is_opened, end),
        cmocka_unit_test_teardown(time_and_control_registers, end),
        cmocka_unit_test_teardown(repeated_strings, end),
        cmocka_unit_test_teardown(repeated_strings_need_no_handler, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

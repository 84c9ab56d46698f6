/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which translations there are, and for what they are used: src/engine/soft/cache.c, run.c. */
#include "cpu_fixture.h"
#include "engine/soft/soft.h"
#include "engine/soft/soft_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define PAGE_AT (HOLE_AT + 0x10000) /* of RAM, and one of its two addresses */
#define ALIAS   (HOLE_AT + 0x50000)

/*
 *     start:  call next             a block of its own
 *     next:   pop rbx
 *             lea rcx, [rip + 0x100 - 13]
 *             mov rdx, [rip + 0x108 - 20]
 *             jmp far_page          (+ 0x1000)
 */
static const uint8_t code[] = {0xe8, 0x00, 0x00, 0x00, 0x00, 0x5b, 0x48, 0x8d, 0x0d, 0xf3, 0x00, 0x00, 0x00,
                               0x48, 0x8b, 0x15, 0xf4, 0x00, 0x00, 0x00, 0xe9, 0xe7, 0x0f, 0x00, 0x00};

static struct soft_vcpu *begin(unsigned cpl)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, cpl);

    memcpy(fixture_ram(PAGE_AT), code, sizeof(code));
    fixture_write(PAGE_AT + 0x108, 0x1122334455667788, 8);
    fixture_map(ALIAS, PAGE_AT);
    return c;
}

static void run_at(struct soft_vcpu *c, uint64_t page)
{
    c->rip = page;
    for (unsigned n = 0; n < 8 && c->rip != page + 0x1000; n++)
        assert_int_equal(soft_run_block(c), SOFT_JUMP);
    assert_true(c->rip == page + 0x1000);
    assert_true(c->gpr[CPU_RBX] == page + 5);
    assert_true(c->gpr[CPU_RCX] == page + 0x100);
    assert_true(c->gpr[CPU_RDX] == 0x1122334455667788);
}

static void users_code_is_translated_once_for_all_addresses(void **state)
{
    struct soft_vcpu *c = begin(3);

    run_at(c, PAGE_AT);
    uint32_t blocks = fixture_soft()->n_blocks;
    for (unsigned n = 0; n < 3; n++) { /* the first time it finds the blocks, then their places */
        run_at(c, ALIAS);
        run_at(c, PAGE_AT);
    }
    assert_int_equal(fixture_soft()->n_blocks, blocks);
}

static void the_kernels_code_is_translated_where_it_is(void **state)
{
    struct soft_vcpu *c = begin(0);

    run_at(c, PAGE_AT);
    uint32_t blocks = fixture_soft()->n_blocks;
    run_at(c, ALIAS);
    assert_int_equal(fixture_soft()->n_blocks, 2 * blocks);
}

/* Not in the jump cache, but translated: the way there is found without leaving translated code. */
static void known_code_is_found_at_once(void **state)
{
    const uint8_t on[] = {0xe9, 0xfb, 0x0f, 0x00, 0x00}; /* jmp to the next page */

    for (unsigned cpl = 0; cpl < 4; cpl += 3) {
        struct soft_vcpu *c = begin(cpl);

        memcpy(fixture_ram(PAGE_AT + 0x1000), on, sizeof(on));
        for (unsigned n = 0; n < 4; n++) {
            uint64_t before = c->stats.exits[ENGINE_EXIT_LOOKUP];

            soft_jump_flush(c, soft_key_mmu(c->key));
            c->rip = PAGE_AT;
            for (unsigned i = 0; i < 9 && c->rip != PAGE_AT + 0x2000; i++)
                assert_int_equal(soft_run_block(c), SOFT_JUMP);
            assert_true(c->rip == PAGE_AT + 0x2000);
            if (n > 1) /* what is nowhere has to be looked for */
                assert_int_equal(c->stats.exits[ENGINE_EXIT_LOOKUP] - before, 1);
        }
    }
}

static void changed_code_is_new_at_every_address(void **state)
{
    struct soft_vcpu *c = begin(3);

    run_at(c, PAGE_AT);
    run_at(c, ALIAS);
    fixture_write(PAGE_AT + 5, 0x58, 1); /* pop rax */
    for (unsigned n = 0; n < 2; n++) {
        uint64_t page = n ? ALIAS : PAGE_AT;

        c->gpr[CPU_RBX] = page + 5;
        c->gpr[CPU_RAX] = 0;
        run_at(c, page);
        assert_true(c->gpr[CPU_RAX] == page + 5);
    }
}

static void another_page_at_the_same_address_is_other_code(void **state)
{
    struct soft_vcpu *c = begin(3);

    run_at(c, ALIAS);
    memcpy(fixture_ram(PAGE_AT + 0x2000), code, sizeof(code));
    fixture_write(PAGE_AT + 0x2000 + 5, 0x58, 1);
    fixture_write(PAGE_AT + 0x2000 + 0x108, 0x1122334455667788, 8);
    fixture_map(ALIAS, PAGE_AT + 0x2000);
    c->gpr[CPU_RBX] = ALIAS + 5;
    c->gpr[CPU_RAX] = 0;
    run_at(c, ALIAS);
    assert_true(c->gpr[CPU_RAX] == ALIAS + 5);
}

/* The same block at two addresses: each time the fault is where the code ran. */
static void faults_are_told_where_they_happened(void **state)
{
    /* nop; ud2; and nop; mov eax, [rsi] */
    const uint8_t undefined[] = {0x90, 0x0f, 0x0b};
    const uint8_t load[] = {0x90, 0x8b, 0x06};
    struct soft_vcpu *c = begin(3);

    for (unsigned n = 0; n < 4; n++) {
        uint64_t page = n & 1 ? ALIAS : PAGE_AT;

        memcpy(fixture_ram(PAGE_AT + 0x200), n & 2 ? load : undefined, 3);
        soft_invalidate_code(fixture_soft(), PAGE_AT + 0x200, 3);
        c->gpr[CPU_RSI] = HOLE_AT;
        c->rip = page + 0x200;
        assert_int_equal(soft_run_block(c), SOFT_FAULT);
        assert_int_equal(c->fault.vector, n & 2 ? VEC_PF : VEC_UD);
        assert_true(c->rip == page + 0x201);
    }
}

/* FXSAVE tells the address of the last x87 instruction, even if the code ran on elsewhere. AMD's processors
 * do if an exception waits, so the division by zero is not masked. */
static void the_x87_unit_knows_its_page(void **state)
{
    /* fninit; fldcw [rdi]; fld1; fldz; fdivp; jmp + 0x1000 / fxsave64 [rsi]; jmp . */
    const uint8_t first[] = {0xdb, 0xe3, 0xd9, 0x2f, 0xd9, 0xe8, 0xd9, 0xee,
                             0xde, 0xf9, 0xe9, 0xf1, 0x0d, 0x00, 0x00};
    const uint8_t second[] = {0x48, 0x0f, 0xae, 0x06, 0xeb, 0xfe};
    struct soft_vcpu *c = begin(3);

    memcpy(fixture_ram(PAGE_AT + 0x200), first, sizeof(first));
    memcpy(fixture_ram(PAGE_AT + 0x1000), second, sizeof(second));
    fixture_map(ALIAS + 0x1000, PAGE_AT + 0x1000);
    for (unsigned n = 0; n < 3; n++) {
        uint64_t page = n & 1 ? ALIAS : PAGE_AT;

        fixture_write(DATA_AT + 0x400, 0x37b, 2);
        c->gpr[CPU_RDI] = DATA_AT + 0x400;
        c->gpr[CPU_RSI] = DATA_AT;
        c->rip = page + 0x200;
        for (unsigned k = 0; k < 8 && c->rip != page + 0x1004; k++)
            assert_int_equal(soft_run_block(c), SOFT_JUMP);
        assert_true(c->rip == page + 0x1004);
        assert_true(fixture_read(DATA_AT + 8, 8) == page + 0x208);
    }
}

/* An instruction over the page's end is reached through the jump cache, not through the dispatcher each time.
 */
static void a_loop_over_the_pages_end_stays_in_code(void **state)
{
    /* At 0xff8: inc rbx; nop; mov rax, imm32 (from 0xffc on); dec rcx; jnz 0xff8; jmp . */
    const uint8_t loop[] = {0x48, 0xff, 0xc3, 0x90, 0x48, 0xc7, 0xc0, 0x78, 0x56,
                            0x34, 0x12, 0x48, 0xff, 0xc9, 0x75, 0xf0, 0xeb, 0xfe};

    for (unsigned n = 0; n < 2; n++) {
        struct soft_vcpu *c = begin(n ? 3 : 0);
        unsigned runs = 0;

        memcpy(fixture_ram(PAGE_AT + 0xff8), loop, sizeof(loop));
        c->gpr[CPU_RCX] = 1000;
        c->rip = PAGE_AT + 0xff8;
        for (; runs < 100 && c->rip != PAGE_AT + 0xff8 + 16; runs++)
            assert_int_equal(soft_run_block(c), SOFT_JUMP);
        assert_in_range(runs, 1, 20);
        assert_true(c->gpr[CPU_RBX] == 1000 && c->gpr[CPU_RCX] == 0 && c->gpr[CPU_RAX] == 0x12345678);
    }
}

/* ---- one look-up for several accesses ---- */

#define FIELDS (HOLE_AT + 0x20000) /* two pages of data that are neighbours, if not in RAM */

/* Runs the bytes, which a far jump follows, as one block; SOFT_JUMP at its end, or SOFT_FAULT. */
static int run_code(struct soft_vcpu *c, const uint8_t *bytes, size_t length)
{
    const uint8_t leave[] = {0xe9, 0x00, 0x10, 0x00, 0x00};
    uint64_t end = CODE_AT + length + sizeof(leave) + 0x1000;
    int rc = SOFT_JUMP;

    /* Once only: a page that becomes code empties the TLB of what can be written. */
    if (memcmp(fixture_ram(CODE_AT), bytes, length) != 0) {
        memcpy(fixture_ram(CODE_AT), bytes, length);
        memcpy((uint8_t *)fixture_ram(CODE_AT) + length, leave, sizeof(leave));
        soft_invalidate_code(fixture_soft(), CODE_AT, length + sizeof(leave));
    }
    c->rip = CODE_AT;
    for (unsigned n = 0; n < 8 && rc == SOFT_JUMP && c->rip != end; n++)
        rc = soft_run_block(c);
    assert_true(rc == SOFT_FAULT || c->rip == end);
    return rc;
}
#define RUN(...) run_code(c, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static struct soft_vcpu *with_fields(unsigned cpl)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, cpl);

    fixture_map(FIELDS + 0x1000, FIELDS + 0x3000);
    return c;
}

/* Fields of a structure at RSI: all in a page, or over two that are apart; the first time and when all is
 * known. */
static void fields_in_one_page_and_in_two(void **state)
{
    const uint64_t places[] = {0x100, 0xfe8, 0xff4, 0xfff};

    for (unsigned n = 0; n < 8; n++) {
        struct soft_vcpu *c = with_fields(n & 1 ? 3 : 0);
        uint64_t at = FIELDS + places[n / 2];

        for (unsigned again = 0; again < 3; again++) {
            c->gpr[CPU_RSI] = at;
            c->gpr[CPU_RBX] = 0x0102030405060708 + again;
            c->gpr[CPU_RCX] = 5;
            /* mov [rsi], rbx; lea each register but rsi, rbx, rcx, rsp, [rsi + 1]; add [rsi + 8], rcx;
             * mov rcx, [rsi]; add rsi, 0x10; xor eax, eax; mov [rsi - 4], ax; mov rdx, [rsi - 0x10] */
            assert_int_equal(RUN(0x48, 0x89, 0x1e, 0x48, 0x8d, 0x46, 0x01, 0x48, 0x8d, 0x56, 0x01, 0x48, 0x8d,
                                 0x6e, 0x01, 0x48, 0x8d, 0x7e, 0x01, 0x4c, 0x8d, 0x46, 0x01, 0x4c, 0x8d, 0x4e,
                                 0x01, 0x4c, 0x8d, 0x56, 0x01, 0x4c, 0x8d, 0x5e, 0x01, 0x4c, 0x8d, 0x66, 0x01,
                                 0x4c, 0x8d, 0x6e, 0x01, 0x4c, 0x8d, 0x76, 0x01, 0x4c, 0x8d, 0x7e, 0x01, 0x48,
                                 0x01, 0x4e, 0x08, 0x48, 0x8b, 0x0e, 0x48, 0x83, 0xc6, 0x10, 0x31, 0xc0, 0x66,
                                 0x89, 0x46, 0xfc, 0x48, 0x8b, 0x56, 0xf0),
                             SOFT_JUMP);
            for (unsigned r = CPU_R8; r <= CPU_R15; r++)
                assert_true(c->gpr[r] == at + 1);
            assert_true(c->gpr[CPU_RBP] == at + 1 && c->gpr[CPU_RDI] == at + 1 && c->gpr[CPU_RAX] == 0);
            assert_true(c->gpr[CPU_RSI] == at + 16);
            assert_true(c->gpr[CPU_RCX] == c->gpr[CPU_RBX] && c->gpr[CPU_RDX] == c->gpr[CPU_RBX]);
            for (unsigned k = 0; k < 8; k++) {
                uint64_t byte = at + 8 + k;

                if (byte >= FIELDS + 0x1000)
                    byte += 0x2000;
                assert_int_equal(fixture_read(byte, 1), k == 0 ? 5 * (again + 1) : 0);
            }
        }
    }
}

static void what_comes_before_a_fault_has_happened(void **state)
{
    for (unsigned n = 0; n < 3; n++) {
        struct soft_vcpu *c = with_fields(3);

        /* mov rax, [rsi - 8]; mov [rsi - 16], rbx; lea rdi, [rbx + 1]; mov [rsi], rbx */
        c->gpr[CPU_RSI] = n == 0 ? HOLE_AT : n == 1 ? READ_ONLY_AT : SUPERVISOR_AT;
        c->gpr[CPU_RBX] = 0x1234;
        fixture_write(c->gpr[CPU_RSI] - 8, 0x5678, 8);
        for (unsigned again = 0; again < 2; again++) {
            fixture_write(c->gpr[CPU_RSI] - 16, 0, 8);
            c->gpr[CPU_RAX] = c->gpr[CPU_RDI] = 0;
            assert_int_equal(
                RUN(0x48, 0x8b, 0x46, 0xf8, 0x48, 0x89, 0x5e, 0xf0, 0x48, 0x8d, 0x7b, 0x01, 0x48, 0x89, 0x1e),
                SOFT_FAULT);
            assert_int_equal(c->fault.vector, VEC_PF);
            assert_true(c->fault.cr2 == c->gpr[CPU_RSI]);
            assert_true(c->rip == CODE_AT + 12);
            assert_true(c->gpr[CPU_RAX] == 0x5678 && c->gpr[CPU_RDI] == 0x1235);
            assert_true(fixture_read(c->gpr[CPU_RSI] - 16, 8) == 0x1234);
        }
    }
}

static void what_is_read_only_can_be_read_until_it_is_written(void **state)
{
    struct soft_vcpu *c = with_fields(3);

    fixture_write(READ_ONLY_AT + 0x100, 0x5678, 8);
    c->gpr[CPU_RSI] = READ_ONLY_AT + 0x100;
    /* mov rax, [rsi]; mov [rsi + 8], rax */
    assert_int_equal(RUN(0x48, 0x8b, 0x06, 0x48, 0x89, 0x46, 0x08), SOFT_FAULT);
    assert_true(c->fault.cr2 == READ_ONLY_AT + 0x108);
    assert_true(c->rip == CODE_AT + 3);
    assert_true(c->gpr[CPU_RAX] == 0x5678);
}

static void pushes_and_pops_across_a_page(void **state)
{
    for (unsigned n = 0; n < 12; n++) {
        struct soft_vcpu *c = with_fields(3);
        uint64_t top = FIELDS + 0x1000 + 8 * (n / 2) + (n & 1 ? 3 : 0);

        for (unsigned again = 0; again < 3; again++) {
            c->gpr[CPU_RSP] = top;
            c->gpr[CPU_RBX] = 0x1111 + again;
            c->gpr[CPU_R12] = 0x2222 + again;
            /* push rbx; push r12; push -3; sub rsp, 16; mov [rsp + 8], rbx; pop rax; pop rcx; pop rdx; push
             * rsp; pop rsi; pop rdi; pop r8 */
            assert_int_equal(RUN(0x53, 0x41, 0x54, 0x6a, 0xfd, 0x48, 0x83, 0xec, 0x10, 0x48, 0x89, 0x5c, 0x24,
                                 0x08, 0x58, 0x59, 0x5a, 0x54, 0x5e, 0x5f, 0x41, 0x58),
                             SOFT_JUMP);
            assert_true(c->gpr[CPU_RSP] == top);
            assert_true(c->gpr[CPU_RCX] == 0x1111 + again && c->gpr[CPU_RDX] == (uint64_t)-3);
            assert_true(c->gpr[CPU_RSI] == top - 16);
            assert_true(c->gpr[CPU_RDI] == 0x2222 + again && c->gpr[CPU_R8] == 0x1111 + again);
        }
    }
}

static int end(void **state)
{
    fixture_end();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(users_code_is_translated_once_for_all_addresses, end),
        cmocka_unit_test_teardown(the_kernels_code_is_translated_where_it_is, end),
        cmocka_unit_test_teardown(known_code_is_found_at_once, end),
        cmocka_unit_test_teardown(changed_code_is_new_at_every_address, end),
        cmocka_unit_test_teardown(another_page_at_the_same_address_is_other_code, end),
        cmocka_unit_test_teardown(faults_are_told_where_they_happened, end),
        cmocka_unit_test_teardown(the_x87_unit_knows_its_page, end),
        cmocka_unit_test_teardown(a_loop_over_the_pages_end_stays_in_code, end),
        cmocka_unit_test_teardown(fields_in_one_page_and_in_two, end),
        cmocka_unit_test_teardown(what_comes_before_a_fault_has_happened, end),
        cmocka_unit_test_teardown(what_is_read_only_can_be_read_until_it_is_written, end),
        cmocka_unit_test_teardown(pushes_and_pops_across_a_page, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

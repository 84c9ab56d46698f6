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
        cmocka_unit_test_teardown(changed_code_is_new_at_every_address, end),
        cmocka_unit_test_teardown(another_page_at_the_same_address_is_other_code, end),
        cmocka_unit_test_teardown(faults_are_told_where_they_happened, end),
        cmocka_unit_test_teardown(the_x87_unit_knows_its_page, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

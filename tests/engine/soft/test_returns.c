/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where returns go on: struct soft_returns knows a short way, which must lead nowhere else than the stack. */
#include "cpu_fixture.h"
#include "engine/soft/soft.h"
#include "engine/soft/soft_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define CALLER   (HOLE_AT + 0x10000) /* of RAM, and one of its two addresses */
#define ALIAS    (HOLE_AT + 0x50000)
#define FUNCTION 0x1000u             /* from the caller's page */
#define OTHER    (HOLE_AT + 0x20000) /* other code for the same addresses */

/* call function; mov ebx, 1; ud2 */
static const uint8_t caller[] = {0xe8, 0xfb, 0x0f, 0x00, 0x00, 0xbb, 0x01, 0x00, 0x00, 0x00, 0x0f, 0x0b};
/* ud2, where the test stops it; ret */
static const uint8_t function[] = {0x0f, 0x0b, 0xc3};

static struct soft_vcpu *begin(unsigned cpl)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, cpl);

    memcpy(fixture_ram(CALLER), caller, sizeof(caller));
    memcpy(fixture_ram(CALLER + FUNCTION), function, sizeof(function));
    memcpy(fixture_ram(OTHER), caller, sizeof(caller));
    fixture_write(OTHER + 6, 2, 1); /* mov ebx, 2 */
    fixture_map(ALIAS, CALLER);
    fixture_map(ALIAS + FUNCTION, CALLER + FUNCTION);
    return c;
}

static void run_to_fault(struct soft_vcpu *c, unsigned vector)
{
    int rc = SOFT_JUMP;

    for (unsigned n = 0; n < 8 && rc == SOFT_JUMP; n++)
        rc = soft_run_block(c);
    assert_int_equal(rc, SOFT_FAULT);
    assert_int_equal(c->fault.vector, vector);
}

/* Into the function, where it stops. */
static void call_from(struct soft_vcpu *c, uint64_t page)
{
    c->rip = page;
    c->gpr[CPU_RBX] = 0;
    run_to_fault(c, VEC_UD);
    assert_true(c->rip == page + FUNCTION);
    c->rip += 2;
}

/* Out of it again: what RBX is then. */
static uint64_t return_to(struct soft_vcpu *c, uint64_t page)
{
    run_to_fault(c, VEC_UD);
    assert_true(c->rip == page + 10);
    return c->gpr[CPU_RBX];
}

static bool is_known(const struct soft_vcpu *c)
{
    return c->returns[soft_key_mmu(c->key)].code[(c->gpr[CPU_RSP] >> 3) % RETURNS] != 0;
}

/* After the first time the way back is known without the jump cache. */
static void a_return_goes_back_to_its_call(void **state)
{
    for (unsigned cpl = 0; cpl < 4; cpl += 3) {
        struct soft_vcpu *c = begin(cpl);
        enum soft_mmu mmu = soft_key_mmu(c->key);

        for (unsigned n = 0; n < 4; n++) {
            uint64_t page = n & 1 ? ALIAS : CALLER;

            call_from(c, page);
            assert_int_equal(is_known(c), fixture_soft()->use_pext);
            uint32_t at = soft_jump_index(page + 5);
            c->jump[mmu].at[at].tag = soft_jump_empty(at);
            unsigned before = c->jump_fills[mmu].n;
            assert_int_equal(return_to(c, page), 1);
            if (n > 1 && fixture_soft()->use_pext)
                assert_true(c->jump_fills[mmu].n - before <= 1); /* the function's, but not the caller's */
        }
    }
}

/* A function may return to where nobody has called it from. */
static void a_changed_address_counts(void **state)
{
    for (unsigned cpl = 0; cpl < 4; cpl += 3) {
        struct soft_vcpu *c = begin(cpl);

        for (unsigned n = 0; n < 3; n++) {
            call_from(c, CALLER);
            fixture_write(c->gpr[CPU_RSP], ALIAS + 5, 8);
            return_to(c, ALIAS);
            call_from(c, CALLER);
            return_to(c, CALLER);
        }
        call_from(c, CALLER);
        fixture_write(c->gpr[CPU_RSP], 1ull << 63, 8);
        uint64_t rip = c->rip, rsp = c->gpr[CPU_RSP];
        run_to_fault(c, VEC_GP);
        assert_true(c->rip == rip && c->gpr[CPU_RSP] == rsp);
    }
}

/* Not even for an address that its remains would stand for. */
static void an_empty_place_is_none(void **state)
{
    const uint64_t addresses[] = {UINT64_MAX, UINT64_MAX << 63};

    for (unsigned n = 0; n < 2; n++) {
        struct soft_vcpu *c = begin(3);

        call_from(c, CALLER);
        uint64_t ret = c->rip;
        soft_tlb_flush(c, true);
        assert_false(is_known(c));
        fixture_write(c->gpr[CPU_RSP], addresses[n], 8);
        c->returns[MMU_USER].tag[(c->gpr[CPU_RSP] >> 3) % RETURNS] = ~addresses[n];
        run_to_fault(c, n ? VEC_GP : VEC_PF);
        assert_true(c->rip == (n ? ret : addresses[n]));
    }
}

/* The caller's page has been replaced meanwhile. */
static void a_new_mapping_is_found(void **state)
{
    for (unsigned cpl = 0; cpl < 4; cpl += 3) {
        for (unsigned how = 0; how < 3; how++) {
            struct soft_vcpu *c = begin(cpl);

            for (unsigned n = 0; n < 3; n++) {
                call_from(c, ALIAS);
                assert_int_equal(return_to(c, ALIAS), 1);
            }
            call_from(c, ALIAS);
            fixture_map(ALIAS, OTHER);
            if (how == 2)
                soft_tlb_flush_page(c, ALIAS);
            else
                soft_tlb_flush(c, how);
            assert_int_equal(return_to(c, ALIAS), 2);
        }
    }
}

/* invpcid rax, [rbx]; call function; mov ebx, 1; ud2 */
static const uint8_t flusher[] = {0x66, 0x0f, 0x38, 0x82, 0x03, 0xe8, 0x76, 0x00, 0x00,
                                  0x00, 0xbb, 0x01, 0x00, 0x00, 0x00, 0x0f, 0x0b};
#define NEAR_FUNCTION 0x80u /* from its page */

/* By who empties the jump cache and goes on by links, so that nothing of it is in there, too. */
static void a_new_mapping_is_found_after_a_flush(void **state)
{
    struct soft_vcpu *c = begin(0);

    for (uint64_t page = CALLER; page <= OTHER; page += OTHER - CALLER) {
        memcpy(fixture_ram(page), flusher, sizeof(flusher));
        memcpy(fixture_ram(page + NEAR_FUNCTION), function, sizeof(function));
    }
    fixture_write(OTHER + 11, 2, 1); /* mov ebx, 2 */
    for (unsigned n = 1; n < 6; n++) {
        c->rip = ALIAS;
        c->gpr[CPU_RAX] = 3;       /* all pages but global ones */
        c->gpr[CPU_RBX] = DATA_AT; /* zeroes */
        run_to_fault(c, VEC_UD);
        assert_true(c->rip == ALIAS + NEAR_FUNCTION);
        c->rip += 2;
        fixture_map(ALIAS, n % 4 ? CALLER : OTHER);
        run_to_fault(c, VEC_UD);
        assert_int_equal(c->gpr[CPU_RBX], n % 4 ? 1 : 2);
    }
}

/* What its users lose is not where a kernel runs. */
static void a_kernel_keeps_its_own(void **state)
{
    const uint64_t high = 0xffffff8000000000;
    struct soft_vcpu *c = begin(0);

    fixture_write(0x100000 + 8 * 511, 0x101000 | 7, 8);
    call_from(c, high + CALLER);
    soft_tlb_flush(c, true);
    call_from(c, high + CALLER);
    soft_tlb_flush_page(c, ALIAS);
    assert_int_equal(is_known(c), fixture_soft()->use_pext);
    soft_tlb_flush_page(c, high + CALLER);
    assert_false(is_known(c));
    assert_int_equal(return_to(c, high + CALLER), 1);
}

/* And so if its bytes have changed, or all translations are forgotten. */
static void changed_code_is_found(void **state)
{
    for (unsigned cpl = 0; cpl < 4; cpl += 3) {
        struct soft_vcpu *c = begin(cpl);

        for (uint8_t n = 1; n < 6; n++) {
            call_from(c, CALLER);
            fixture_write(CALLER + 6, n, 1);
            soft_invalidate_code(fixture_soft(), CALLER + 6, 1);
            if (n == 4)
                soft_cache_flush_locked(fixture_soft());
            assert_int_equal(return_to(c, CALLER), n);
        }
    }
}

/* What the kernel has called is no way for its users, nor the other way round. */
static void each_mode_has_its_own(void **state)
{
    struct soft_vcpu *c = begin(0);

    call_from(c, CALLER);
    assert_int_equal(c->returns[MMU_USER].code[(c->gpr[CPU_RSP] >> 3) % RETURNS], 0);
    c = begin(3);
    call_from(c, CALLER);
    assert_int_equal(c->returns[MMU_KERNEL].code[(c->gpr[CPU_RSP] >> 3) % RETURNS], 0);
    assert_int_equal(c->returns[MMU_KERNEL_AC].code[(c->gpr[CPU_RSP] >> 3) % RETURNS], 0);
}

static int end(void **state)
{
    fixture_end();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_return_goes_back_to_its_call, end),
        cmocka_unit_test_teardown(a_changed_address_counts, end),
        cmocka_unit_test_teardown(an_empty_place_is_none, end),
        cmocka_unit_test_teardown(a_new_mapping_is_found, end),
        cmocka_unit_test_teardown(a_new_mapping_is_found_after_a_flush, end),
        cmocka_unit_test_teardown(a_kernel_keeps_its_own, end),
        cmocka_unit_test_teardown(changed_code_is_found, end),
        cmocka_unit_test_teardown(each_mode_has_its_own, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What comes from the cache is what decoding gives, whatever the bytes. */
#include "engine/soft/decode_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROUNDS (1u << 20)

static struct soft_decode_cache *cache;

static int begin(void **state)
{
    cache = soft_decode_cache_new();
    return cache ? 0 : -1;
}

static int end(void **state)
{
    soft_decode_cache_free(cache);
    return 0;
}

static void assert_same(const struct soft_decoded *got, const struct soft_decoded *want)
{
    assert_memory_equal(&got->z, &want->z, sizeof(want->z));
    assert_memory_equal(got->bytes, want->bytes, want->z.length);
    assert_memory_equal(&got->at, &want->at, sizeof(want->at));
    assert_true(got->rip == want->rip && got->row == want->row);
    assert_true(got->reads == want->reads && got->writes == want->writes);
    assert_true(got->address_regs == want->address_regs && got->high_byte == want->high_byte);
    assert_true(got->mem == want->mem && got->fpu_class == want->fpu_class);
    for (unsigned n = 0; n < ZYDIS_MAX_OPERAND_COUNT; n++) {
        if (n < want->z.operand_count)
            assert_memory_equal(&got->ops[n], &want->ops[n], sizeof(want->ops[n]));
        else
            assert_int_equal(got->ops[n].type, ZYDIS_OPERAND_TYPE_UNUSED);
    }
}

static void compare(const uint8_t *bytes, unsigned length, bool amd, uint64_t rip)
{
    struct soft_decoded got, want;
    enum soft_decode_result r = soft_decode(&want, bytes, length, 64, amd, rip);

    assert_int_equal(soft_decode_cached(cache, &got, bytes, length, 64, amd, rip), r);
    if (r == DECODE_OK)
        assert_same(&got, &want);
}

/* Few opcodes with many values behind them, so that entries are hit, and any bytes at all. */
static void test_random_bytes(void **state)
{
    static const uint8_t prefixes[] = {0x66, 0xf2, 0xf3, 0xf0, 0x64, 0x65,
                                       0x2e, 0x67, 0x48, 0x41, 0x4c, 0x44};

    srandom(1);
    for (unsigned n = 0; n < ROUNDS; n++) {
        uint8_t bytes[15];
        unsigned at = 0;

        for (unsigned i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)random();
        while (at < 3 && random() % 2)
            bytes[at++] = prefixes[(unsigned)random() % sizeof(prefixes)];
        if (random() % 3 == 0)
            bytes[at] = 0x0f;
        if (random() % 2) /* of a few registers only */
            bytes[at + 1] &= 0xc7;
        compare(bytes, random() % 8 ? sizeof(bytes) : (unsigned)random() % 16, random() % 4 == 0,
                (uint64_t)random() << 12);
    }
}

/* Only values differ: negative ones, those of one byte and of four. */
static void test_values(void **state)
{
    static const uint8_t first[] = {0x48, 0x81, 0x44, 0x8b, 0x10, 0x78, 0x56, 0x34, 0x12}; /* add qword */
    static const uint8_t second[] = {0x48, 0x81, 0x44, 0x8b, 0xf0, 0x00, 0x00, 0x00, 0x80};
    struct soft_decoded d;

    for (unsigned n = 0; n < 2; n++) {
        assert_int_equal(soft_decode_cached(cache, &d, first, sizeof(first), 64, false, 0), DECODE_OK);
        assert_true(d.ops[0].mem.disp.value == 0x10 && d.ops[1].imm.value.s == 0x12345678);
        assert_int_equal(soft_decode_cached(cache, &d, second, sizeof(second), 64, false, 0), DECODE_OK);
        assert_true(d.ops[0].mem.disp.value == -0x10 && d.ops[1].imm.value.s == -0x80000000ll);
    }
    /* One that does not end in the bytes at hand. */
    assert_int_equal(soft_decode_cached(cache, &d, first, sizeof(first) - 1, 64, false, 0), DECODE_MORE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_random_bytes, begin, end),
        cmocka_unit_test_setup_teardown(test_values, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

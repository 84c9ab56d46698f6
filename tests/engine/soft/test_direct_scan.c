/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which pages must not be executed in a stub: bytes as code, and the same bytes within other instructions. */
#include "engine/soft/direct_scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define PAGE 4096u

static const struct direct_scan intel = {.amd = false, .more_state = true};
static const struct direct_scan equal = {.amd = true, .more_state = false};

/* Code as compilers make it, in which nothing tells of anything. */
static const uint8_t usual[][8] = {
    {3, 0x48, 0x89, 0xe5},                         /* mov rbp, rsp */
    {7, 0x48, 0x8b, 0x05, 0x10, 0x22, 0x00, 0x00}, /* mov rax, [rip + disp] */
    {5, 0xe8, 0x12, 0x34, 0x00, 0x00},             /* call */
    {6, 0x0f, 0x84, 0x40, 0x01, 0x00, 0x00},       /* je */
    {4, 0x0f, 0xb6, 0x44, 0x24},                   /* (with the next) movzx eax, byte [rsp + disp] */
    {1, 0x18},
    {5, 0xc5, 0xf5, 0xfe, 0x47, 0x20},             /* vpaddd ymm0, ymm1, [rdi + 32] */
    {7, 0x48, 0x81, 0xec, 0x88, 0x00, 0x00, 0x00}, /* sub rsp, imm */
    {1, 0xc3},                                     /* ret */
    {6, 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00},       /* nop */
    {4, 0xf3, 0x0f, 0x1e, 0xfa},                   /* endbr64 */
    {2, 0x75, 0x0e},                               /* jne */
};

/* Fills [from, end) with whole instructions, the last of which may be nops. */
static void fill(uint8_t *from, const uint8_t *end, unsigned first)
{
    for (unsigned n = first;; n++) {
        const uint8_t *insn = usual[n % (sizeof(usual) / sizeof(usual[0]))];
        unsigned pair = insn[1] == 0x0f && insn[2] == 0xb6; /* is not to be parted */
        if (from + insn[0] + pair > end)
            break;
        memcpy(from, insn + 1, insn[0]);
        from += insn[0];
    }
    memset(from, 0x90, (size_t)(end - from));
}

static bool told(const struct direct_scan *how, const uint8_t *before, const uint8_t *page)
{
    struct direct_sites sites;

    return direct_scan_page(how, before, page, &sites) != DIRECT_HARMLESS;
}

static bool scan(const struct direct_scan *how, unsigned at, const uint8_t *bytes, unsigned length,
                 bool with_before)
{
    static uint8_t pages[3 * PAGE];

    fill(pages, pages + PAGE + at, 0);
    memcpy(pages + PAGE + at, bytes, length);
    fill(pages + PAGE + at + length, pages + sizeof(pages), 5);
    return told(how, with_before ? pages : NULL, pages + PAGE);
}

static const unsigned places[] = {0, 1, 7, 30, 170, 1000, 2047, PAGE - 80, PAGE - 16};
#define N_PLACES (sizeof(places) / sizeof(places[0]))

struct bytes {
    unsigned length;
    uint8_t bytes[12];
};

static void instructions_are_found_everywhere(void **state)
{
    static const struct bytes found[] = {
        {2, {0x0f, 0xa2}},       /* cpuid */
        {3, {0x48, 0x0f, 0xa2}}, /* with REX */
        {3, {0x66, 0x0f, 0xa2}},
        {4, {0xf3, 0x0f, 0xc7, 0xf8}},             /* rdpid rax */
        {5, {0xf3, 0x41, 0x0f, 0xc7, 0xf9}},       /* rdpid r9 */
        {3, {0x0f, 0x01, 0xf9}},                   /* rdtscp */
        {2, {0x0f, 0x34}},                         /* sysenter */
        {3, {0x0f, 0x01, 0xd0}},                   /* xgetbv */
        {3, {0x0f, 0x01, 0xef}},                   /* wrpkru */
        {5, {0x0f, 0xc7, 0x64, 0x24, 0x40}},       /* xsavec [rsp + 64] */
        {5, {0x0f, 0xae, 0x64, 0x24, 0x40}},       /* xsave */
        {6, {0x48, 0x0f, 0xae, 0x6c, 0x24, 0x40}}, /* xrstor64 */
        {5, {0x0f, 0xae, 0x74, 0x24, 0x40}},       /* xsaveopt */
    };

    for (size_t n = 0; n < sizeof(found) / sizeof(found[0]); n++) {
        for (size_t p = 0; p < N_PLACES; p++) {
            if (!scan(&intel, places[p], found[n].bytes, found[n].length, true) ||
                !scan(&intel, places[p], found[n].bytes, found[n].length, false))
                fail_msg("instruction %zu at %u", n, places[p]);
            bool always = n < 6;
            if (scan(&equal, places[p], found[n].bytes, found[n].length, true) != always)
                fail_msg("instruction %zu at %u without more state", n, places[p]);
        }
    }
}

static void the_same_bytes_elsewhere_are_not(void **state)
{
    static const struct bytes other[] = {
        {5, {0xb8, 0x0f, 0xa2, 0x00, 0x00}},             /* mov eax, imm */
        {6, {0x81, 0xf9, 0x00, 0x0f, 0xa2, 0x10}},       /* cmp ecx, imm */
        {7, {0x48, 0x8d, 0x05, 0x0f, 0xa2, 0x01, 0x00}}, /* lea rax, [rip + disp] */
        {7, {0x48, 0x8b, 0x83, 0x00, 0x0f, 0x34, 0x00}}, /* mov rax, [rbx + disp] */
        {5, {0xe8, 0x0f, 0x01, 0xd0, 0xff}},             /* call */
        {6, {0xc4, 0xe3, 0x75, 0x0f, 0xa2, 0x08}},       /* vpalignr ymm4, ymm1, [rdx + ...] */
        {10, {0x48, 0xb8, 0x11, 0x0f, 0xc7, 0xf8, 0x0f, 0xae, 0x24, 0x24}}, /* mov rax, imm64 */
        {4, {0x0f, 0xc7, 0x4f, 0x20}},       /* cmpxchg8b: nothing of the kind */
        {3, {0x0f, 0xc7, 0xf8}},             /* rdseed eax, where F3 is missing */
        {5, {0x66, 0x0f, 0xae, 0x30, 0x90}}, /* clwb [rax] */
        {3, {0x0f, 0xae, 0xf0}},             /* mfence */
    };

    for (size_t n = 0; n < sizeof(other) / sizeof(other[0]); n++) {
        for (size_t p = 4; p < N_PLACES; p++) {
            if (scan(&intel, places[p], other[n].bytes, other[n].length, true) ||
                scan(&intel, places[p], other[n].bytes, other[n].length, false))
                fail_msg("bytes %zu at %u", n, places[p]);
        }
        /* Where a page begins, only what lies before it can tell. */
        for (size_t p = 0; p < 4; p++) {
            if (scan(&intel, places[p], other[n].bytes, other[n].length, true))
                fail_msg("bytes %zu at %u", n, places[p]);
        }
    }
}

static void an_instruction_on_two_pages_belongs_to_the_second(void **state)
{
    static uint8_t pages[2 * PAGE];

    fill(pages, pages + PAGE - 1, 0);
    fill(pages + PAGE + 1, pages + 2 * PAGE, 5);
    pages[PAGE - 1] = 0x0f;
    pages[PAGE] = 0xa2;
    assert_true(told(&equal, pages, pages + PAGE));
    /* xgetbv, parted in both ways */
    for (unsigned first = 1; first < 3; first++) {
        fill(pages, pages + PAGE - first, 0);
        fill(pages + PAGE + 3 - first, pages + 2 * PAGE, 5);
        memcpy(pages + PAGE - first, (const uint8_t[]){0x0f, 0x01, 0xd0}, 3);
        assert_true(told(&intel, pages, pages + PAGE));
    }
}

/* Nothing that comes before can be code: who knows. */
static void an_instruction_behind_a_table_is_found(void **state)
{
    static uint8_t page[PAGE];

    fill(page, page + PAGE, 0);
    memset(page + 1000, 0x06, 1000); /* no instruction of 64-bit code */
    memcpy(page + 2000, (const uint8_t[]){0x0f, 0xa2}, 2);
    fill(page + 2002, page + PAGE, 0);
    assert_true(told(&equal, NULL, page));
    /* And one that a function begins with, after a few bytes that are. */
    memcpy(page + 1995, (const uint8_t[]){0xf3, 0x0f, 0x1e, 0xfa, 0x90}, 5);
    assert_true(told(&equal, NULL, page));
}

/* Where most of the code before it has the same opinion. */
static void what_is_beyond_doubt(void **state)
{
    static const uint8_t cpuid[] = {0x0f, 0xa2}, rdpid[] = {0xf3, 0x0f, 0xc7, 0xf8};
    static uint8_t pages[2 * PAGE];
    struct direct_sites sites;
    uint8_t *page = pages + PAGE;

    fill(pages, pages + PAGE + 20, 0);
    memcpy(page + 20, cpuid, 2);
    fill(page + 22, page + 2000, 3);
    memcpy(page + 2000, rdpid, 4);
    fill(page + 2004, page + PAGE, 7);
    assert_int_equal(direct_scan_page(&intel, pages, page, &sites), DIRECT_CERTAIN);
    assert_int_equal(sites.n, 2);
    assert_int_equal(sites.at[0], 21);
    assert_int_equal(sites.at[1], 2002);
    /* Too near the beginning of all that is known. */
    assert_int_equal(direct_scan_page(&intel, NULL, page, &sites), DIRECT_DOUBTFUL);
    fill(page, page + 1000, 0);
    assert_int_equal(direct_scan_page(&intel, NULL, page, &sites), DIRECT_CERTAIN);
    assert_int_equal(sites.n, 1);
    /* A table lies before it. */
    for (unsigned n = 1700, random = 1; n < 1990; n++) {
        random = random * 1103515245 + 12345;
        page[n] = (uint8_t)(random >> 16);
    }
    assert_int_equal(direct_scan_page(&intel, NULL, page, &sites), DIRECT_DOUBTFUL);
}

/* In the vDSO's first page what is not beyond doubt is what might be put elsewhere. */
static void the_vdso_keeps_spare_instructions(void **state)
{
    static const uint8_t rdpid[] = {0xf3, 0x0f, 0xc7, 0xf8}, rdtscp[] = {0x0f, 0x01, 0xf9};
    static uint8_t page[PAGE];
    struct direct_sites sites;

    memset(page, 0, PAGE);
    memcpy(page, "\177ELF", 4);
    fill(page + 1000, page + 2000, 0);
    memcpy(page + 2000, rdpid, sizeof(rdpid));
    fill(page + 2004, page + 2500, 7);
    memset(page + 2500, 0x06, 1000); /* no instruction */
    memcpy(page + 3500, rdtscp, sizeof(rdtscp));
    assert_int_equal(direct_scan_page(&equal, NULL, page, &sites), DIRECT_DOUBTFUL);
    strcpy((char *)page + 700, "linux-vdso.so.1");
    assert_int_equal(direct_scan_page(&equal, NULL, page, &sites), DIRECT_CERTAIN);
    assert_int_equal(sites.n, 1);
    assert_int_equal(sites.at[0], 2002);
    page[0] = 0;
    assert_int_equal(direct_scan_page(&equal, NULL, page, &sites), DIRECT_DOUBTFUL);
}

/* Bytes that have no order are left alone, or to the translator. */
static void tables_are_never_beyond_doubt(void **state)
{
    static uint8_t page[PAGE];
    struct direct_sites sites;
    unsigned doubtful = 0;

    for (unsigned round = 0, random = 1; round < 400; round++) {
        for (unsigned n = 0; n < PAGE; n++) {
            random = random * 1103515245 + 12345;
            page[n] = (uint8_t)(random >> 16);
        }
        for (unsigned n = 400; n < PAGE; n += 400)
            memcpy(page + n, (const uint8_t[]){0x0f, 0xa2}, 2);
        enum direct_verdict v = direct_scan_page(&intel, NULL, page, &sites);
        assert_int_not_equal(v, DIRECT_CERTAIN);
        doubtful += v == DIRECT_DOUBTFUL;
    }
    assert_true(doubtful > 0);
}

/* Whatever the verdict hangs on changes it. */
static void the_hash_is_of_all_that_counts(void **state)
{
    static uint8_t pages[2 * PAGE];
    uint64_t whole, alone, other;

    fill(pages, pages + sizeof(pages), 0);
    whole = direct_scan_hash(&intel, pages, pages + PAGE);
    alone = direct_scan_hash(&intel, NULL, pages + PAGE);
    other = direct_scan_hash(&equal, pages, pages + PAGE);
    assert_true(whole == direct_scan_hash(&intel, pages, pages + PAGE));
    assert_true(whole != alone && whole != other && alone != other);
    for (unsigned at = PAGE - 320; at < 2 * PAGE; at++) {
        pages[at] ^= 1u << at % 8;
        assert_true(direct_scan_hash(&intel, pages, pages + PAGE) != whole);
        pages[at] ^= 1u << at % 8;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instructions_are_found_everywhere),
        cmocka_unit_test(the_same_bytes_elsewhere_are_not),
        cmocka_unit_test(an_instruction_on_two_pages_belongs_to_the_second),
        cmocka_unit_test(an_instruction_behind_a_table_is_found),
        cmocka_unit_test(the_hash_is_of_all_that_counts),
        cmocka_unit_test(what_is_beyond_doubt),
        cmocka_unit_test(the_vdso_keeps_spare_instructions),
        cmocka_unit_test(tables_are_never_beyond_doubt),
    };

    return cmocka_run_group_tests_name("engine/soft/direct_scan", tests, NULL, NULL);
}

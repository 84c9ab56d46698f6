/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of functions by address: which lines count, what is near enough, and kernels that have moved. */
#include "base/error.h"
#include "guest/symbols.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct symbols *symbols_of(const char *text, uint64_t syscall_entry)
{
    struct symbols *s = symbols_new();

    assert_non_null(s);
    assert_int_equal(symbols_add(s, text, strlen(text), NULL), 0);
    symbols_settle(s, syscall_entry);
    return s;
}

static void expect(const struct symbols *s, uint64_t address, const char *name, uint64_t offset)
{
    uint64_t found = 0;
    const char *text = symbols_find(s, address, &found);

    if (!name) {
        assert_null(text);
        return;
    }
    assert_non_null(text);
    assert_string_equal(text, name);
    assert_int_equal(found, offset);
}

static void test_lines(void **state)
{
    struct symbols *s = symbols_of("ffffffff81000200 t second\n"
                                   "ffffffff81000100 T first\n"
                                   "ffffffff81000100 T alias\n"
                                   "ffffffff81000300 D data\n"
                                   "0000000000000000 A per_cpu\n"
                                   "                 U undefined\n"
                                   "ffffffffc0000000 t in_module\t[module]\n"
                                   "401000 W operator new(unsigned long); x\r\n"
                                   "nonsense\n"
                                   "ffffffff81000400 T\n"
                                   "fffffffff81000500 T too_long\n"
                                   "ffffffff81000280 T last \x1b[2J",
                                   0);

    expect(s, 0xffffffff810000ff, NULL, 0);
    expect(s, 0xffffffff81000100, "first", 0);
    expect(s, 0xffffffff810001ff, "first", 0xff);
    expect(s, 0xffffffff81000200, "second", 0);
    expect(s, 0xffffffff81000300, "last_?[2J", 0x80);
    expect(s, 0xffffffff81100280, NULL, 0);
    expect(s, 0xffffffffc0000001, "in_module", 1);
    expect(s, 0x401010, "operator_new(unsigned_long)__x", 0x10);
    expect(s, 0, NULL, 0);
    expect(s, UINT64_MAX, NULL, 0);
    symbols_free(s);
}

static void test_nothing_in_it(void **state)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "no line"},
        {"ELF\n\n\n", "no line"},
        {"ffffffff81000300 D data\n", "no line"},
        {"0000000000000000 T _text\n0000000000000000 t secret\n", "root only"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct symbols *s = symbols_new();
        cleanup_error struct error *err = NULL;

        assert_int_equal(symbols_add(s, cases[i].text, strlen(cases[i].text), &err), -EINVAL);
        assert_non_null(strstr(error_message(err), cases[i].why));
        symbols_settle(s, 0);
        expect(s, 0xffffffff81000300, NULL, 0);
        symbols_free(s);
    }
}

static void test_a_kernel_that_has_moved(void **state)
{
    static const char text[] =
        "ffffffff81000000 T _text\nffffffff81a00040 T entry_SYSCALL_64\n401000 T main\n";
    struct symbols *s = symbols_of(text, 0xffffffff81a00040 + 0x1c00000);

    expect(s, 0xffffffff82c00004, "_text", 4);
    expect(s, 0xffffffff81000000, NULL, 0);
    expect(s, 0x401000, "main", 0);
    symbols_free(s);
    /* Down as well; but not to where no kernel is, or by what is no distance between kernels. */
    s = symbols_of(text, 0xffffffff81a00040 - 0x200000);
    expect(s, 0xffffffff80e00000, "_text", 0);
    symbols_free(s);
    static const uint64_t others[] = {0, 0x200040, 0xffffffff81a00140, 0xffffffff81a00040};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        s = symbols_of(text, others[i]);
        expect(s, 0xffffffff81000000, "_text", 0);
        symbols_free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_nothing_in_it),
        cmocka_unit_test(test_a_kernel_that_has_moved),
    };

    return cmocka_run_group_tests_name("symbols", tests, NULL, NULL);
}

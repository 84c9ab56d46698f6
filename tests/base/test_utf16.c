/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names in UTF-16 and back, of one to four bytes a character; and what is no text. */
#include "base/utf16.h"

#include "base/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_both_ways(void **state)
{
    static const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\xa7.vhd";
    static const uint8_t big[] = {0,    'a', 0,   0xe9, 0x20, 0xac, 0xd8, 0x3d, 0xdc,
                                  0x27, 0,   '.', 0,    'v',  0,    'h',  0,    'd'};
    uint8_t out[64];

    assert_int_equal(utf16_encode(text, out, sizeof(out), true), sizeof(big));
    assert_memory_equal(out, big, sizeof(big));
    for (int order = 0; order < 2; order++) {
        size_t n = utf16_encode(text, out, sizeof(out), order);
        char *back = utf16_decode(out, n, order);
        assert_string_equal(back, text);
        free(back);
    }
    assert_int_equal(utf16_encode(text, out, sizeof(big) - 1, true), SIZE_MAX);
}

static void test_what_is_no_text(void **state)
{
    static const char *const bad[] = {"\xff",     "\xc3",         "\xe2\x82",
                                      "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80"};
    static const uint8_t units[] = {0xd8, 0, 0, 'a', 0xdc, 0, 0, 'b', 0xd8, 0x3d, 0, 0, 0, 'c', 0};
    uint8_t out[64];

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(utf16_encode(bad[i], out, sizeof(out), false), SIZE_MAX);
    char *text = utf16_decode(units, sizeof(units), true);
    assert_string_equal(text, "\xef\xbf\xbd"
                              "a\xef\xbf\xbd"
                              "b\xef\xbf\xbd");
    free(text);
    text = utf16_decode(units, 1, true);
    assert_string_equal(text, "");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_both_ways),
                                       cmocka_unit_test(test_what_is_no_text)};

    return cmocka_run_group_tests_name("utf16", tests, NULL, NULL);
}

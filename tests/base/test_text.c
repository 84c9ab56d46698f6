/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text for terminals and JSON: what stays, what becomes '?', where it is cut. */
#include "base/text.h"

#include "base/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_characters(void **state)
{
    static const struct {
        const char *from, *to;
    } texts[] = {
        {"d\xc3\xa9j\xc3\xa0 \xe2\x82\xac \xf0\x9f\x90\xa7",
         "d\xc3\xa9j\xc3\xa0 \xe2\x82\xac \xf0\x9f\x90\xa7"},
        {"\x1b[2J\x7f\n", "?[2J??"},
        {"\xc2\x9b"
         "2J",
         "??2J"},                                    /* CSI as one character, U+009B */
        {"\xff\xc3 \xe2\x82", "?? ??"},              /* no characters, or cut ones */
        {"\xc0\xaf\xe0\x80\xaf", "?????"},           /* longer than need be */
        {"\xed\xa0\x80\xf4\x90\x80\x80", "???????"}, /* a surrogate; beyond Unicode's end */
    };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        char out[64];

        memset(out, 'x', sizeof(out));
        text_make_printable(out, sizeof(out), texts[i].from);
        assert_string_equal(out, texts[i].to);
        for (size_t k = strlen(out); k < sizeof(out); k++)
            assert_int_equal(out[k], 0);
        strcpy(out, texts[i].from);
        text_make_printable(out, sizeof(out), out);
        assert_string_equal(out, texts[i].to);
    }
}

static void test_length(void **state)
{
    char out[6];

    text_make_printable(out, sizeof(out), "123456");
    assert_string_equal(out, "12345");
    text_make_printable(out, sizeof(out), "1234\xc3\xa9");
    assert_string_equal(out, "1234");
    text_make_printable(out, sizeof(out),
                        "123\xc3\xa9"
                        "4");
    assert_string_equal(out, "123\xc3\xa9");
    text_make_printable(out, 1, "1");
    assert_string_equal(out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_characters), cmocka_unit_test(test_length)};

    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}

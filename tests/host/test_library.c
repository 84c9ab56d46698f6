/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/library.h"

#include "base/bytes.h"
#include "base/error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <zlib.h>

/* One that this test is not linked with, and that is there wherever this program is built. */
#define LIBZ(F) F(crc32) F(zlibVersion)

struct libz {
    LIBZ(LIBRARY_POINTER)
};

static void functions_do_what_they_do(void **state)
{
    struct libz libz = {0};
    const char *const names[] = {LIBZ(LIBRARY_NAME)};
    const struct library library = {"libz.so.1", "zlib1g", names, ARRAY_SIZE(names), &libz};
    struct error *err = NULL;

    assert_int_equal(library_load(&library, &err), 0);
    assert_null(err);
    assert_int_equal(libz.crc32(0, (const uint8_t *)"123456789", 9), 0xcbf43926);
    assert_int_equal(libz.zlibVersion()[0], '1');
    /* Again, nothing changes. */
    struct libz before = libz;
    assert_int_equal(library_load(&library, &err), 0);
    assert_memory_equal(&before, &libz, sizeof(libz));
}

static void a_missing_library_names_its_package(void **state)
{
    struct libz libz = {0}, untouched = {0};
    const char *const names[] = {LIBZ(LIBRARY_NAME)};
    const struct library library = {"libnowhere.so.7", "libnowhere7", names, ARRAY_SIZE(names), &libz};
    struct error *err = NULL;

    assert_int_equal(library_load(&library, &err), -ENOPKG);
    assert_non_null(strstr(error_message(err), "libnowhere.so.7"));
    assert_non_null(strstr(error_message(err), "install the package libnowhere7"));
    assert_memory_equal(&libz, &untouched, sizeof(libz));
    error_free(err);
    assert_int_equal(library_load(&library, NULL), -ENOPKG);
}

static void a_library_without_a_function_is_not_taken(void **state)
{
    struct {
        void (*first)(void), (*second)(void);
    } functions = {0};
    const char *const names[] = {"crc32", "no_such_function"};
    const struct library library = {"libz.so.1", "zlib1g", names, ARRAY_SIZE(names), &functions};
    struct error *err = NULL;

    for (int i = 0; i < 2; i++) {
        assert_int_equal(library_load(&library, &err), -ENOPKG);
        assert_non_null(strstr(error_message(err), "no_such_function"));
        assert_null(functions.first);
        assert_null(functions.second);
        error_free(err);
        err = NULL;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(functions_do_what_they_do),
        cmocka_unit_test(a_missing_library_names_its_package),
        cmocka_unit_test(a_library_without_a_function_is_not_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

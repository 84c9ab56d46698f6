/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The error object: what it returns, and how its text grows. */
#include "base/error.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_set_and_wrap(void **state)
{
    cleanup_error struct error *err = NULL;

    assert_int_equal(error_set(&err, ENOENT, "no image '%s'", "a"), -ENOENT);
    assert_string_equal(error_message(err), "no image 'a'");
    assert_int_equal(error_wrap(&err, "disk %d", 3), -ENOENT);
    assert_int_equal(error_wrap(&err, "guest"), -ENOENT);
    assert_string_equal(error_message(err), "guest: disk 3: no image 'a'");
    assert_int_equal(error_errno(err), ENOENT);
}

static void test_set_errno_adds_its_text(void **state)
{
    cleanup_error struct error *err = NULL;

    assert_int_equal(error_set_errno(&err, EACCES, "open %s", "/x"), -EACCES);
    assert_string_equal(error_message(err), "open /x: Permission denied");
}

static void test_without_errno(void **state)
{
    cleanup_error struct error *err = NULL;

    assert_int_equal(error_set(&err, 0, "nonsense"), -EINVAL);
    assert_int_equal(error_errno(err), 0);
    assert_int_equal(error_wrap(&err, "x"), -EINVAL);
}

static void test_nobody_cares(void **state)
{
    assert_int_equal(error_set(NULL, EIO, "lost"), -EIO);
    assert_int_equal(error_set_errno(NULL, EIO, "lost"), -EIO);
    assert_int_equal(error_wrap(NULL, "lost"), -EINVAL);
    assert_string_equal(error_message(NULL), "no error");
    assert_int_equal(error_errno(NULL), 0);
    error_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_and_wrap),
        cmocka_unit_test(test_set_errno_adds_its_text),
        cmocka_unit_test(test_without_errno),
        cmocka_unit_test(test_nobody_cares),
    };
    return cmocka_run_group_tests_name("base/error", tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/device/devices.c: the table as a whole. */
#include "device/devices.h"

#include "device/device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_rows(void **state)
{
    assert_non_null(device_classes[0]);
    for (const struct device_class *const *c = device_classes; *c; c++) {
        assert_non_null((*c)->name);
        assert_non_null((*c)->summary);
        assert_non_null((*c)->create);
        assert_non_null((*c)->reset);
        assert_non_null((*c)->destroy);
        /* found by its name, which no other row has */
        assert_ptr_equal(device_class_find((*c)->name), *c);
        assert_true(strspn((*c)->name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen((*c)->name));
    }
    assert_null(device_class_find("no-such-device"));
    assert_null(device_class_find(""));
}

static void test_expected(void **state)
{
    static const char *const names[] = {"cmos", "debug-exit", "i8042", "pit", "uart16550"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_non_null(device_class_find(names[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_expected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

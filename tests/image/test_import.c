/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Importing, where the process that reads the stranger's file is not believed. What people import is in
 * tests/cli/test_image.py. */
#include "image/import_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static int check(uint8_t version, unsigned at, uint8_t byte)
{
    cleanup_error struct error *err = NULL;
    cleanup_close int fd = memfd_create("image", MFD_CLOEXEC);
    uint8_t head[104] = {'Q', 'F', 'I', 0xfb, 0, 0, 0, version};

    head[at] |= byte;
    assert_int_equal(write(fd, head, sizeof(head)), sizeof(head));
    int rc = import_check_names_nothing(fd, "web.qcow2", &err);
    if (rc)
        assert_string_equal(
            error_message(err),
            "web.qcow2: it needs another file: make one of the two first ('qemu-img convert' does)");
    return rc;
}

static void test_names_nothing(void **state)
{
    assert_int_equal(check(3, 79, 0), 0);
    assert_int_equal(check(3, 79, 1), 0);       /* dirty, which is no name */
    assert_int_equal(check(3, 79, 4), -EINVAL); /* its data is in another file */
    assert_int_equal(check(2, 79, 4), 0);       /* no features there yet */
    for (unsigned at = 8; at < 16; at++)
        assert_int_equal(check(2 + at % 2, at, 1), -EINVAL); /* the place of a backing file's name */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_names_nothing)};

    return cmocka_run_group_tests_name("import", tests, NULL, NULL);
}

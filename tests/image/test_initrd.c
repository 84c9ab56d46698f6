/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The initial RAM disk, taken apart by another program that knows the format. */
#include "base/cleanup.h"
#include "base/error.h"
#include "image/build_priv.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = "/tmp/tabique-initrd-XXXXXX";

static void write_file(const char *name, const char *text)
{
    cleanup_free char *path = NULL;

    assert_true(asprintf(&path, "%s/%s", directory, name) > 0);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int setup(void **state)
{
    char command[256];

    assert_non_null(mkdtemp(directory));
    write_file("one.ko", "first module");
    write_file("two.ko", "second module, which is compressed");
    snprintf(command, sizeof(command), "xz %s/two.ko", directory);
    assert_int_equal(system(command), 0);
    write_file("order", "one.ko\ntwo.ko.xz\n");
    return 0;
}

static int teardown(void **state)
{
    char command[256];

    snprintf(command, sizeof(command), "rm -r %s", directory);
    return system(command);
}

static void read_member(struct archive *a, const char *name, unsigned type, char *out, size_t size)
{
    struct archive_entry *entry;

    assert_int_equal(archive_read_next_header(a, &entry), ARCHIVE_OK);
    assert_string_equal(archive_entry_pathname(entry), name);
    assert_int_equal(archive_entry_filetype(entry), type);
    assert_int_equal(archive_entry_uid(entry), 0);
    memset(out, 0, size);
    if (type == AE_IFREG)
        assert_true(archive_read_data(a, out, size - 1) > 0);
    if (type == AE_IFCHR) {
        assert_int_equal(archive_entry_rdevmajor(entry), 5);
        assert_int_equal(archive_entry_rdevminor(entry), 1);
    }
}

static void test_content(void **state)
{
    cleanup_free char *path = NULL;
    struct archive *a = archive_read_new();
    struct archive_entry *entry;
    char text[256];

    assert_true(asprintf(&path, "%s/initrd", directory) > 0);
    assert_int_equal(initrd_write(path, directory, NULL), 0);
    archive_read_support_format_cpio(a);
    assert_int_equal(archive_read_open_filename(a, path, 4096), ARCHIVE_OK);
    read_member(a, "dev", AE_IFDIR, text, sizeof(text));
    read_member(a, "dev/console", AE_IFCHR, text, sizeof(text));
    read_member(a, "init", AE_IFREG, text, sizeof(text));
    assert_memory_equal(text, "\177ELF", 4);
    assert_int_equal(text[16], 2); /* ET_EXEC: static, so in need of nothing else */
    read_member(a, "modules", AE_IFDIR, text, sizeof(text));
    read_member(a, "modules/one.ko", AE_IFREG, text, sizeof(text));
    assert_string_equal(text, "first module");
    read_member(a, "modules/two.ko", AE_IFREG, text, sizeof(text));
    assert_string_equal(text, "second module, which is compressed");
    read_member(a, "modules/order", AE_IFREG, text, sizeof(text));
    assert_string_equal(text, "one.ko\ntwo.ko\n");
    assert_int_equal(archive_read_next_header(a, &entry), ARCHIVE_EOF);
    archive_read_free(a);
}

static void test_errors(void **state)
{
    cleanup_error struct error *err = NULL;
    cleanup_free char *path = NULL;

    assert_int_equal(initrd_write("/nonexistent/initrd", directory, NULL), -ENOENT);
    assert_true(asprintf(&path, "%s/initrd", directory) > 0);
    assert_int_equal(initrd_write(path, "/nonexistent", NULL), -ENOENT);
    assert_int_equal(initrd_write("/dev/full", directory, &err), -ENOSPC);
    write_file("order", "three.ko\n");
    assert_true(initrd_write(path, directory, NULL) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_content), cmocka_unit_test(test_errors)};

    return cmocka_run_group_tests(tests, setup, teardown);
}

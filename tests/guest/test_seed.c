/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/guest/seed.c: what is on the volume, as a reader of ISO 9660 finds it, and what is refused. */
#include "guest/seed.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MAX_TEXT 4096

static char directory[] = "/tmp/test_seed.XXXXXX";

static int setup(void **state)
{
    return mkdtemp(directory) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -r %s", directory);
    return system(command);
}

/* The path of a file with this text; of static storage, one a name. */
static const char *file_of(const char *name, const char *text, size_t size)
{
    static char paths[4][64];
    static unsigned next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof(paths[0]), "%s/%s", directory, name);
    cleanup_fclose FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, size, f), size);
    return path;
}

static const char *file_with(const char *name, const char *text)
{
    return file_of(name, text, strlen(text));
}

/* The contents of a file on the volume in `text`, or false. */
static bool on_volume(int fd, const char *name, char text[MAX_TEXT])
{
    struct archive *a = archive_read_new();
    struct archive_entry *entry;
    bool found = false;

    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    archive_read_support_format_iso9660(a);
    assert_int_equal(archive_read_open_fd(a, fd, 2048), ARCHIVE_OK);
    while (!found && archive_read_next_header(a, &entry) == ARCHIVE_OK) {
        if (strcmp(archive_entry_pathname(entry), name) != 0)
            continue;
        la_ssize_t n = archive_read_data(a, text, MAX_TEXT - 1);
        assert_true(n >= 0);
        text[n] = 0;
        found = true;
    }
    archive_read_free(a);
    return found;
}

static void test_volume(void **state)
{
    const char *user_data = "#cloud-config\nhostname: web\n";
    struct seed_config config = {.user_data = file_with("user", user_data),
                                 .network_config = file_with("network", "version: 2\n"),
                                 .instance_id = "iid-7",
                                 .hostname = "web"};
    char text[MAX_TEXT], label[33] = "";
    cleanup_close int fd = seed_create(&config, NULL);

    assert_true(fd >= 0);
    assert_true(on_volume(fd, "user-data", text));
    assert_string_equal(text, user_data);
    assert_true(on_volume(fd, "meta-data", text));
    assert_string_equal(text, "instance-id: iid-7\nlocal-hostname: web\n");
    assert_true(on_volume(fd, "network-config", text));
    assert_string_equal(text, "version: 2\n");
    /* ECMA-119, 8.4: the primary descriptor is in block 16, the volume's name at 40. */
    assert_int_equal(pread(fd, label, 32, 16 * 2048 + 40), 32);
    assert_memory_equal(label, "CIDATA    ", 10);
}

static void test_meta_data_is_completed(void **state)
{
    static const struct {
        const char *given, *made;
    } cases[] = {
        {"a: b", "a: b\ninstance-id: iid-7\nlocal-hostname: web\n"},
        {"instance-id: mine\n", "instance-id: mine\nlocal-hostname: web\n"},
        {"local-hostname: other\n", "local-hostname: other\ninstance-id: iid-7\n"},
        {"instance-id-of: x\n", "instance-id-of: x\ninstance-id: iid-7\nlocal-hostname: web\n"},
        {"{\"instance-id\": \"mine\"}\n", "{\"instance-id\": \"mine\"}\n"},
        {"", "instance-id: iid-7\nlocal-hostname: web\n"},
    };
    char text[MAX_TEXT];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct seed_config config = {.user_data = file_with("user", "#!/bin/sh\n"),
                                     .meta_data = file_with("meta", cases[i].given),
                                     .instance_id = "iid-7",
                                     .hostname = "web"};
        cleanup_close int fd = seed_create(&config, NULL);

        assert_true(fd >= 0);
        assert_true(on_volume(fd, "meta-data", text));
        assert_string_equal(text, cases[i].made);
        assert_false(on_volume(fd, "network-config", text));
    }
}

static void test_ids_are_new_each_time(void **state)
{
    struct seed_config config = {.user_data = file_with("user", "#!/bin/sh\n")};
    char text[2][MAX_TEXT];

    for (unsigned i = 0; i < 2; i++) {
        cleanup_close int fd = seed_create(&config, NULL);

        assert_true(fd >= 0);
        assert_true(on_volume(fd, "meta-data", text[i]));
        assert_int_equal(strlen(text[i]), strlen("instance-id: iid-\n") + 32);
    }
    assert_string_not_equal(text[0], text[1]);
}

static void test_large_files(void **state)
{
    const size_t size = (16 << 20) + 1;
    cleanup_free char *big = malloc(size);

    memset(big, '\n', size);
    memcpy(big, "#!/bin/sh", 9);
    struct seed_config config = {.user_data = file_of("user", big, size - 1)};
    int fd = seed_create(&config, NULL);
    assert_true(fd >= 0);
    close(fd);
    config.user_data = file_of("user", big, size);
    assert_int_equal(seed_create(&config, NULL), -EFBIG);
}

/* Every form that cloud-init's documentation lists is taken. */
static void test_user_data_that_is_taken(void **state)
{
    static const char *const texts[] = {
        "#cloud-config\npackages:\n  - vim\n",
        "#cloud-config\n# a comment\n\n---\nhostname: web\n...\n",
        "#cloud-config\nruncmd:\n- [ls, -l]\n- echo\n",
        "#cloud-config\n{\"hostname\": \"web\"}\n",
        "#cloud-config\r\nhostname: web\r\n",
        "#cloud-config\nwrite_files:\n- content: |\n    a\tb\n  path: /x\n",
        "#!/bin/sh\n\techo\n",
        "#include\nhttp://x/y\n",
        "#cloud-boothook\n",
        "#cloud-config-archive\n- x\n",
        "## template: jinja\n#cloud-config\na: {{ x }}\n",
        "Content-Type: multipart/mixed\n",
        "\x1f\x8b\x08",
    };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        struct seed_config config = {.user_data = file_with("user", texts[i])};
        cleanup_error struct error *err = NULL;
        cleanup_close int fd = seed_create(&config, &err);

        if (fd < 0)
            fail_msg("%s: %s", texts[i], error_message(err));
    }
}

static void test_user_data_that_is_refused(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "nothing that cloud-init takes"},
        {"hostname: web\n", "its first line must be #cloud-config"},
        {"cloud-config\n", "its first line must be"},
        {"#cloud-config\n", "says nothing"},
        {"#cloud-config\n# all\n#comments\n", "says nothing"},
        {"#cloud-config\nusers:\n\t- name: ana\n", "line 3: a tab"},
        {"#cloud-config\nusers:\n  \t- name: ana\n", "line 3: a tab"},
        {"#cloud-config\necho hello\n", "line 2: 'echo hello' is no key"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct seed_config config = {.user_data = file_with("user", cases[i].text)};
        cleanup_error struct error *err = NULL;

        assert_int_equal(seed_create(&config, &err), -EINVAL);
        if (!strstr(error_message(err), cases[i].message))
            fail_msg("'%s' says '%s'", cases[i].text, error_message(err));
    }
    struct seed_config config = {.user_data = file_of("user", "#cloud-config\na: b\0c\n", 21)};
    assert_int_equal(seed_create(&config, NULL), -EINVAL);
}

static void test_files_that_are_not_there(void **state)
{
    struct seed_config config = {.user_data = "/nonexistent/user-data"};
    cleanup_error struct error *err = NULL;

    assert_int_equal(seed_create(&config, &err), -ENOENT);
    assert_non_null(strstr(error_message(err), "user-data '/nonexistent/user-data'"));
    config.user_data = file_with("user", "#!/bin/sh\n");
    config.meta_data = "/nonexistent/meta-data";
    assert_int_equal(seed_create(&config, NULL), -ENOENT);
    config.meta_data = file_with("meta", "{\"a\": 1}");
    assert_int_equal(seed_create(&config, NULL), -EINVAL); /* JSON without an id can't be completed */
    config.meta_data = NULL;
    config.network_config = directory;
    assert_int_equal(seed_create(&config, NULL), -EISDIR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_volume),
        cmocka_unit_test(test_meta_data_is_completed),
        cmocka_unit_test(test_ids_are_new_each_time),
        cmocka_unit_test(test_large_files),
        cmocka_unit_test(test_user_data_that_is_taken),
        cmocka_unit_test(test_user_data_that_is_refused),
        cmocka_unit_test(test_files_that_are_not_there),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

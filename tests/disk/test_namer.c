/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The process that gives new files their names: what it does, and what it refuses whoever asks. */
#include "disk/namer.h"

#include "base/error.h"
#include "disk/new_file.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = "/tmp/tabique-test-namer-XXXXXX", image[64];

static struct disk_new_file begin(struct disk_namer **namer)
{
    struct disk_new_file file;

    assert_int_equal(disk_new_file_open(&file, image, NULL), 0);
    assert_int_equal(disk_namer_start(namer, &file, image, "said.raw", NULL), 0);
    assert_int_equal(write(file.fd, "image", 5), 5);
    return file;
}

static bool is_there(const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return access(path, F_OK) == 0;
}

static void take_away(const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    assert_int_equal(unlink(path), 0);
}

static bool is_empty(void)
{
    bool empty = rmdir(directory) == 0;

    return empty && mkdir(directory, 0700) == 0;
}

static void names_are_given(void **state)
{
    struct disk_namer *namer;
    struct disk_new_file part, file = begin(&namer);

    (void)state;
    assert_int_equal(disk_namer_open(namer, "a-s001.vmdk", &part, NULL), 0);
    assert_int_equal(write(part.fd, "part", 4), 4);
    assert_true(is_empty());
    assert_int_equal(disk_new_file_end(&part, true, true, NULL), 0);
    assert_true(is_there("a-s001.vmdk") && !is_there("a.vmdk"));
    assert_int_equal(disk_new_file_end(&file, true, true, NULL), 0);
    assert_true(is_there("a.vmdk"));
    disk_namer_end(namer);
    take_away("a-s001.vmdk");
    take_away("a.vmdk");
}

static void other_names_are_not(void **state)
{
    static const char *const names[] = {"",       "b",        "a",    "a.vmdk", ".profile",  "/etc/a-x",
                                        "../a-x", "a-x/../b", "a-/x", "..",     "b-a-x.vmdk"};
    struct disk_namer *namer;
    struct disk_new_file part, file = begin(&namer);

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct error *err = NULL;
        assert_int_equal(disk_namer_open(namer, names[i], &part, &err), -EPERM);
        assert_non_null(strstr(error_message(err), "no such file is made beside"));
        error_free(err);
    }
    assert_int_equal(disk_namer_open(namer, "said.raw", &part, NULL), 0);
    assert_int_equal(disk_new_file_end(&part, false, false, NULL), 0);
    /* And none twice, and none that it does not know. */
    assert_int_equal(disk_namer_open(namer, "a-1", &part, NULL), 0);
    assert_int_equal(disk_new_file_end(&part, true, false, NULL), 0);
    assert_int_equal(disk_namer_finish(namer, 2, true, false, NULL), -EINVAL);
    assert_int_equal(disk_namer_finish(namer, 3, true, false, NULL), -EINVAL);
    assert_int_equal(disk_namer_open(namer, "a-1", &part, NULL), -EEXIST);
    assert_int_equal(disk_new_file_end(&file, false, false, NULL), 0);
    disk_namer_end(namer);
    take_away("a-1");
    assert_true(is_empty());
}

/* Whoever asked is gone at once, in the middle of it. */
static void nothing_stays_after_a_kill(void **state)
{
    int pipes[2], status;
    char byte;

    (void)state;
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct disk_namer *namer;
        struct disk_new_file part;

        begin(&namer);
        if (disk_namer_open(namer, "a-s001.vmdk", &part, NULL))
            _exit(1);
        kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    /* The other end is the namer's, until it has ended. */
    close(pipes[1]);
    assert_int_equal(read(pipes[0], &byte, 1), 0);
    close(pipes[0]);
    assert_true(is_empty());
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(directory))
        return -1;
    snprintf(image, sizeof(image), "%s/a.vmdk", directory);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_given),
        cmocka_unit_test(other_names_are_not),
        cmocka_unit_test(nothing_stays_after_a_kill),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

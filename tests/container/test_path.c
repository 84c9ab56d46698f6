/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Paths below a root: nothing leads out, and what is missing is made where the kernel would look for it. */
#include "base/cleanup.h"
#include "container/path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

struct tree {
    char path[64];
    int root;
};

static int set_up(void **state)
{
    struct tree *t = calloc(1, sizeof(*t));

    strcpy(t->path, "/tmp/test-path-XXXXXX");
    if (!mkdtemp(t->path))
        return -1;
    t->root = open(t->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    mkdirat(t->root, "dir", 0755);
    close(openat(t->root, "dir/file", O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    symlinkat("/etc", t->root, "absolute");
    symlinkat("../../../../../../etc", t->root, "relative");
    symlinkat("/new/place", t->root, "dangling");
    symlinkat("up/../other", t->root, "odd");
    symlinkat("loop", t->root, "loop");
    symlinkat("/proc/self/root", t->root, "magic");
    *state = t;
    return 0;
}

static int tear_down(void **state)
{
    struct tree *t = *state;
    char command[128];

    close(t->root);
    snprintf(command, sizeof(command), "rm -rf %s", t->path);
    int rc = system(command);
    free(t);
    return rc;
}

static bool exists(const struct tree *t, const char *path)
{
    struct stat st;

    return fstatat(t->root, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static void gives(int fd)
{
    assert_true(fd >= 0);
    close(fd);
}

static void test_open_stays_inside(void **state)
{
    const struct tree *t = *state;

    gives(path_open(t->root, "/dir/file", O_RDONLY));
    gives(path_open(t->root, "../../dir/../dir/file", O_RDONLY));
    /* The host has these. */
    assert_int_equal(access("/etc/passwd", F_OK), 0);
    assert_int_equal(path_open(t->root, "/etc/passwd", O_PATH), -ENOENT);
    assert_int_equal(path_open(t->root, "absolute/passwd", O_PATH), -ENOENT);
    assert_int_equal(path_open(t->root, "relative/passwd", O_PATH), -ENOENT);
    assert_int_equal(path_open(t->root, "loop", O_PATH), -ELOOP);
    assert_int_equal(path_open(t->root, "dir/file/x", O_PATH), -ENOTDIR);
}

static void test_plain(void **state)
{
    const struct tree *t = *state;

    gives(path_open_plain(t->root, "dir/file", O_PATH));
    assert_int_equal(path_open_plain(t->root, "odd", O_PATH), -ELOOP);
}

static void test_making(void **state)
{
    const struct tree *t = *state;

    gives(path_make_directory(t->root, "/a/b//c/", 0700));
    gives(path_make_directory(t->root, "a/b/c", 0700));
    gives(path_make_file(t->root, "a/b/f"));
    struct stat st;
    assert_int_equal(fstatat(t->root, "a/b/f", &st, 0), 0);
    assert_true(S_ISREG(st.st_mode) && st.st_size == 0);
    assert_int_equal(fstatat(t->root, "a/b/c", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(path_make_directory(t->root, "dir/file/x", 0755), -ENOTDIR);
}

/* What a link names is made inside, not on the host. */
static void test_making_behind_links(void **state)
{
    const struct tree *t = *state;

    assert_int_not_equal(access("/new", F_OK), 0);
    gives(path_make_directory(t->root, "dangling/below", 0755));
    assert_true(exists(t, "new/place/below"));
    assert_int_not_equal(access("/new", F_OK), 0);
    gives(path_make_file(t->root, "odd"));
    assert_true(exists(t, "other"));
    gives(path_make_directory(t->root, "absolute/tabique-test", 0755));
    assert_true(exists(t, "etc/tabique-test"));
    assert_int_not_equal(access("/etc/tabique-test", F_OK), 0);
    assert_int_equal(path_make_directory(t->root, "loop/x", 0755), -ELOOP);
}

static void test_magic_links_lead_nowhere(void **state)
{
    const struct tree *t = *state;
    cleanup_close int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);

    assert_true(proc >= 0);
    assert_int_equal(path_open(proc, "self/root", O_PATH), -ELOOP);
    assert_int_equal(path_open(proc, "self/cwd/x", O_PATH), -ELOOP);
    assert_int_equal(path_open(t->root, "magic", O_PATH), -ENOENT);
}

static void test_parent(void **state)
{
    const struct tree *t = *state;
    const char *name;

    gives(path_open_parent(t->root, "/deep/er/name", &name));
    assert_string_equal(name, "name");
    assert_true(exists(t, "deep/er") && !exists(t, "deep/er/name"));
    gives(path_open_parent(t->root, "name", &name));
    assert_int_equal(path_open_parent(t->root, "/dir/", &name), -EINVAL);
    assert_int_equal(path_open_parent(t->root, "/dir/..", &name), -EINVAL);
    char *longest = calloc(1, 2 * PATH_MAX);
    memset(longest, 'a', 2 * PATH_MAX - 1);
    assert_int_equal(path_make_directory(t->root, longest, 0755), -ENAMETOOLONG);
    free(longest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_open_stays_inside, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_plain, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_making, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_making_behind_links, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_magic_links_lead_nowhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_parent, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

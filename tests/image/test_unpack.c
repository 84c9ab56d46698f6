/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Layers as files: whiteouts, links, owners; and archives that want out, or too much. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "image/unpack_priv.h"
#include "tar.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <cmocka.h>

struct fixture {
    char home[64], root[80];
    int fd;
    bool root_user;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    strcpy(f->home, "/tmp/tabique-unpack-XXXXXX");
    assert_non_null(mkdtemp(f->home));
    snprintf(f->root, sizeof(f->root), "%s/root", f->home);
    assert_int_equal(mkdir(f->root, 0755), 0);
    f->fd = open(f->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->root_user = geteuid() == 0;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    close(f->fd);
    work_delete_tree(f->home);
    assert_int_equal(access(f->home, F_OK), -1);
    free(f);
    return 0;
}

/* Unpacks in this process. What it gave; the reason in `why` (of 256 bytes) where it failed. */
static int layer(struct fixture *f, const struct tar_entry *entries, char *why)
{
    cleanup_error struct error *err = NULL;
    cleanup_close int in = tar_make(entries);
    const struct unpack_job job = {.name = "it", .in = in, .root = f->fd, .layer = true};
    struct unpack_result result;
    int rc = unpack_stream(&job, NULL, NULL, &result, &err);

    if (why)
        snprintf(why, 256, "%s", rc ? error_message(err) : "");
    if (rc)
        assert_non_null(err);
    return rc;
}

static struct stat look(struct fixture *f, const char *name)
{
    struct stat st = {0};

    if (fstatat(f->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        st.st_mode = 0;
    return st;
}

static bool is_whiteout(struct fixture *f, const char *name)
{
    struct stat st = look(f, name);

    return S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0);
}

static bool is_opaque(struct fixture *f, const char *name)
{
    char path[160], value[8];

    snprintf(path, sizeof(path), "%s/%s", f->root, name);
    return getxattr(path, "user.overlay.opaque", value, sizeof(value)) == 1 && value[0] == 'y';
}

static void test_paths(void **state)
{
    static const struct {
        const char *from, *to;
    } good[] = {{"a", "a"}, {"./a//b/", "a/b"}, {".", "."}, {"./", "."}, {"a/./b", "a/b"}, {"...", "..."}};
    static const char *const bad[] = {"", "/a", "..", "a/..", "a/../b", "../a", "/", "./../a"};
    char path[400];

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        strcpy(path, good[i].from);
        assert_null(unpack_path(path));
        assert_string_equal(path, good[i].to);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        strcpy(path, bad[i]);
        assert_non_null(unpack_path(path));
    }
    memset(path, 'x', 256);
    path[256] = '\0';
    assert_non_null(unpack_path(path));
    path[255] = '\0';
    assert_null(unpack_path(path));
}

static void test_files(void **state)
{
    struct fixture *f = *state;
    const unsigned id = f->root_user ? 1234 : geteuid();
    const struct tar_entry entries[] = {
        {'5', "./", .mode = 0711, .uid = id, .gid = id},
        {'5', "bin", .mode = 01777, .uid = id, .gid = id, .mtime = 1000},
        {'0', "bin/tool", .data = "hello", .mode = 04755, .uid = id, .gid = id, .mtime = 1000000000},
        {'1', "bin/same", .link = "./bin/tool"},
        {'2', "bin/short", .link = "/etc/passwd", .uid = id, .gid = id},
        {'6', "pipe", .mode = 0620, .uid = id, .gid = id},
        {'0', "new/dir/deep", .data = "x", .uid = id, .gid = id},
        {'3', "dev/null", .mode = 0666},
        {0}};
    char text[8] = "";

    assert_int_equal(layer(f, entries, NULL), 0);
    struct stat tool = look(f, "bin/tool"), bin = look(f, "bin"), root = look(f, ".");
    assert_int_equal(tool.st_mode, S_IFREG | 04755);
    assert_int_equal(tool.st_uid, id);
    assert_int_equal(tool.st_mtime, 1000000000);
    assert_int_equal(tool.st_nlink, 2);
    assert_int_equal(tool.st_ino, look(f, "bin/same").st_ino);
    assert_int_equal(bin.st_mode, S_IFDIR | 01777);
    assert_int_equal(bin.st_mtime, 1000); /* although files were made in it later */
    assert_int_equal(root.st_mode, S_IFDIR | 0711);
    assert_int_equal(readlinkat(f->fd, "bin/short", text, 4), 4);
    assert_int_equal(look(f, "pipe").st_mode, S_IFIFO | 0620);
    assert_int_equal(look(f, "new/dir").st_mode, S_IFDIR | 0755);
    assert_int_equal(look(f, "dev/null").st_mode, 0); /* the runtime has its own */
    cleanup_close int fd = openat(f->fd, "bin/tool", O_RDONLY);
    assert_int_equal(read(fd, text, sizeof(text)), 5);
    assert_memory_equal(text, "hello", 5);
}

static void test_whiteouts(void **state)
{
    struct fixture *f = *state;
    const unsigned id = geteuid();
    const struct tar_entry entries[] = {
        {'0', "etc/.wh.gone", .data = ""},
        {'5', "all", .mode = 0755, .uid = id, .gid = id},
        {'0', "all/.wh..wh..opq", .data = ""},
        {'0', "all/own", .data = "1", .uid = id, .gid = id},
        /* Both in one layer, in either order: what the layer has counts, and nothing shows through. */
        {'0', ".wh.first", .data = ""},
        {'5', "first", .mode = 0700, .uid = id, .gid = id},
        {'5', "second", .mode = 0700, .uid = id, .gid = id},
        {'0', ".wh.second", .data = ""},
        {'0', ".wh.file", .data = ""},
        {'0', "file", .data = "2", .uid = id, .gid = id},
        {'0', "late", .data = "3", .uid = id, .gid = id},
        {'0', ".wh.late", .data = ""},
        {'0', ".wh..wh.plnk", .data = ""},
        {0}};

    assert_int_equal(layer(f, entries, NULL), 0);
    assert_true(is_whiteout(f, "etc/gone"));
    assert_true(is_opaque(f, "all"));
    assert_int_equal(look(f, "all/own").st_size, 1);
    assert_int_equal(look(f, "all/.wh..wh..opq").st_mode, 0);
    assert_true(is_opaque(f, "first"));
    assert_true(is_opaque(f, "second"));
    assert_false(is_opaque(f, "etc"));
    assert_int_equal(look(f, "file").st_size, 1);
    assert_int_equal(look(f, "late").st_size, 1);
    assert_int_equal(look(f, ".wh..wh.plnk").st_mode, 0);
}

/* An archive may have a file twice: the last one counts. */
static void test_twice(void **state)
{
    struct fixture *f = *state;
    const unsigned id = geteuid();
    const struct tar_entry entries[] = {
        {'0', "a", .data = "long", .uid = id, .gid = id}, {'0', "a", .data = "s", .uid = id, .gid = id},
        {'2', "b", .link = "a", .uid = id, .gid = id},    {'0', "b", .data = "bb", .uid = id, .gid = id},
        {'0', "c", .data = "c", .uid = id, .gid = id},    {'5', "c", .mode = 0700, .uid = id, .gid = id},
        {'0', "c/d", .data = "d", .uid = id, .gid = id},  {0}};
    const struct tar_entry full[] = {{'0', "c", .data = "c", .uid = id, .gid = id}, {0}};
    char why[256];

    assert_int_equal(layer(f, entries, NULL), 0);
    assert_int_equal(look(f, "a").st_size, 1);
    assert_int_equal(look(f, "b").st_mode & S_IFMT, S_IFREG);
    assert_int_equal(look(f, "c/d").st_size, 1);
    assert_int_equal(layer(f, full, why), -EINVAL);
    assert_string_equal(why, "'c': it takes the place of a directory that is not empty");
}

static void test_hostile(void **state)
{
    struct fixture *f = *state;
    char outside[80], to_outside[96], why[256];
    const unsigned id = geteuid();
    snprintf(outside, sizeof(outside), "%s/outside", f->home);
    snprintf(to_outside, sizeof(to_outside), "../outside");
    assert_int_equal(mkdir(outside, 0777), 0);
    const struct {
        struct tar_entry entries[3];
        const char *why;
    } cases[] = {
        {{{'0', "../outside/x", .data = "x"}}, "'../outside/x': its name has '..' in it"},
        {{{'0', "a/../../outside/x", .data = "x"}}, "'a/../../outside/x': its name has '..' in it"},
        {{{'0', "/etc/x", .data = "x"}}, "'/etc/x': its name is absolute"},
        {{{'2', "l", .link = to_outside, .uid = id, .gid = id}, {'0', "l/x", .data = "x"}},
         "'l/x': 'l' leads out of it by a symbolic link"},
        {{{'2', "l2", .link = outside, .uid = id, .gid = id}, {'0', "l2/x", .data = "x"}},
         "'l2/x': 'l2' leads out of it by a symbolic link"},
        {{{'2', "l3", .link = outside, .uid = id, .gid = id}, {'0', "l3/.wh.x", .data = ""}},
         "'l3/.wh.x': 'l3' leads out of it by a symbolic link"},
        {{{'1', "h", .link = "../outside"}}, "'h': it is a link to '../outside': its name has '..' in it"},
        {{{'1', "h", .link = "/etc/passwd"}}, "'h': it is a link to '/etc/passwd': its name is absolute"},
        {{{'2', "l4", .link = outside, .uid = id, .gid = id}, {'1', "h", .link = "l4/x"}},
         "'h': 'l4' leads out of it by a symbolic link"},
        {{{'1', "h", .link = "nothing"}}, "'h': it is a link to 'nothing', which is not there"},
        {{{'3', "disk", .mode = 0666}},
         "'disk': it is a device node, which images have none of outside of dev/"},
        {{{'4', "a/dev/sda", .mode = 0666}},
         "'a/dev/sda': it is a device node, which images have none of outside of dev/"},
        {{{'0', ".wh.", .data = ""}}, "'.wh.': it deletes nothing that could be there"},
        {{{'0', ".wh...", .data = ""}}, "'.wh...': it deletes nothing that could be there"},
        {{{'0', ".", .data = "x"}}, "'.': the root is no directory"},
        {{{'0', "big", .data = "x", .claimed = 077777777777}},
         "'big': it unpacks to more than 1024 MiB, out of proportion to its size: this looks like a bomb"},
        {{{'0', "cut", .data = "x", .claimed = 100000}}, "'cut': Truncated tar archive"},
        {{{'0', "f", .data = "x", .uid = id, .gid = id}, {'0', "f/g", .data = "x"}},
         "'f/g': 'f' is no directory"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_true(layer(f, cases[i].entries, why) < 0);
        assert_string_equal(why, cases[i].why);
        assert_int_equal(rmdir(outside), 0); /* nothing is in it */
        assert_int_equal(mkdir(outside, 0777), 0);
        work_delete_tree(f->root);
        assert_int_equal(mkdir(f->root, 0755), 0);
        close(f->fd);
        f->fd = open(f->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
}

static void test_damaged(void **state)
{
    struct fixture *f = *state;
    static const char *const texts[] = {
        "", "no archive at all, but a text that is longer than a header would be"};

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        cleanup_error struct error *err = NULL;
        cleanup_close int in = memfd_create("it", MFD_CLOEXEC);
        const struct unpack_job job = {.name = "it", .in = in, .root = f->fd, .layer = true};
        struct unpack_result result;

        assert_int_equal(write(in, texts[i], strlen(texts[i])), strlen(texts[i]));
        assert_int_equal(unpack_stream(&job, NULL, NULL, &result, &err), -EINVAL);
    }
}

/* The tar stream's own proportion: many small files, of which none is large. */
static void test_bomb_of_a_stream(void **state)
{
    struct fixture *f = *state;
    cleanup_error struct error *err = NULL;
    struct tar_entry entries[200] = {{0}};
    char names[200][8];
    struct unpack_result result;

    for (size_t i = 0; i < 199; i++) {
        snprintf(names[i], sizeof(names[i]), "f%zu", i);
        entries[i] = (struct tar_entry){'0', names[i], .data = "", .uid = geteuid(), .gid = getegid()};
    }
    cleanup_close int in = tar_make(entries);
    const struct unpack_job job = {.name = "it", .in = in, .root = f->fd, .layer = true, .most = 65536};
    assert_int_equal(unpack_stream(&job, NULL, NULL, &result, &err), -EFBIG);
    assert_non_null(strstr(error_message(err), "this looks like a bomb"));
}

/* What an archive of a whole image may have. */
static void test_plain(void **state)
{
    struct fixture *f = *state;
    cleanup_error struct error *err = NULL;
    const struct tar_entry entries[] = {{'0', "blobs/sha256/x", .data = "x", .uid = 77777, .mode = 04777},
                                        {'2', "link", .link = "blobs/sha256/x", .uid = 77777},
                                        {'0', ".wh.kept", .data = "y"},
                                        {0}};
    const struct tar_entry fifo[] = {{'6', "pipe", .mode = 0600}, {0}};
    struct unpack_result result;
    cleanup_close int in = tar_make(entries), in2 = tar_make(fifo);
    struct unpack_job job = {.name = "it", .in = in, .root = f->fd};

    assert_int_equal(unpack_stream(&job, NULL, NULL, &result, &err), 0);
    assert_int_equal(look(f, "blobs/sha256/x").st_mode, S_IFREG | 0600);
    assert_int_equal(look(f, "blobs/sha256/x").st_uid, geteuid());
    assert_int_equal(look(f, ".wh.kept").st_size, 1);
    job.in = in2;
    assert_int_equal(unpack_stream(&job, NULL, NULL, &result, &err), -EINVAL);
}

/* The same through the confined process, whose list of system calls has to do for everything. */
static void test_confined(void **state)
{
    struct fixture *f = *state;
    struct error *err = NULL;
    const struct tar_entry entries[] = {{'5', "d", .mode = 0555, .uid = 7, .gid = 8},
                                        {'0', "d/f", .data = "hello", .mode = 06755, .uid = 7},
                                        {'1', "d/g", .link = "d/f"},
                                        {'2', "d/l", .link = "f"},
                                        {'0', "d/.wh.x", .data = ""},
                                        {'0', "d/.wh..wh..opq", .data = ""},
                                        {'6', "p", .mode = 0600},
                                        {'0', "d/f", .data = "again", .mode = 06755, .uid = 7},
                                        {'x', "pax", .data = "19 path=d/\xc3\xa9t\xc3\xa9/xx\n"},
                                        {'0', "cut", .data = "u"},
                                        {0}};
    const struct tar_entry bad[] = {{'0', "../x", .data = "x"}, {0}};
    struct unpack_result result;
    cleanup_close int in = tar_make(entries), in2 = tar_make(bad);
    struct unpack_job job = {.name = "it", .in = in, .root = f->fd, .layer = true};

    if (unpack(&job, NULL, &result, &err)) {
        print_error("%s\n", error_message(err));
        fail();
    }
    assert_int_equal(look(f, "d").st_mode, S_IFDIR | 0555);
    assert_int_equal(look(f, "d/f").st_mode, S_IFREG | 06755);
    assert_int_equal(look(f, "d/f").st_uid, 7);
    assert_true(is_whiteout(f, "d/x"));
    assert_true(is_opaque(f, "d"));
    assert_int_equal(look(f, "d/\xc3\xa9t\xc3\xa9/xx").st_size, 1);
    assert_int_equal(result.entries, 9);
    assert_string_not_equal(result.digest, "");
    assert_string_equal(result.digest, result.diff); /* it was not compressed */
    job.in = in2;
    assert_int_equal(unpack(&job, NULL, &result, &err), -EINVAL);
    assert_string_equal(error_message(err), "it: '../x': its name has '..' in it");
    error_free(err);
}

static void test_confined_as_root(void **state)
{
    if (geteuid() != 0)
        skip(); /* other users' files: the end-to-end tests have a person with /etc/subuid */
    test_confined(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_whiteouts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bomb_of_a_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_plain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_confined_as_root, setup, teardown),
    };
    return cmocka_run_group_tests_name("image/unpack", tests, NULL, NULL);
}

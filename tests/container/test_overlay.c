/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An image's layers under what a container writes: as root, and in a user namespace as a person has it. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "container/overlay.h"
#include "host/home.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

static char home[64];

static int setup(void **state)
{
    strcpy(home, "/tmp/tabique-overlay-XXXXXX");
    return mkdtemp(home) && chdir(home) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
    /* overlayfs leaves a directory that not even its owner may look into. */
    chmod("guest/work/work", 0700);
    return chdir("/") < 0 ? -1 : home_remove_tree(home);
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        _exit(50);
    close(fd);
}

static bool reads(const char *path, const char *text)
{
    char buf[64] = "";
    cleanup_close int fd = open(path, O_RDONLY);

    return fd >= 0 && read(fd, buf, sizeof(buf) - 1) >= 0 && strcmp(buf, text) == 0;
}

static void write_map(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        _exit(77);
    close(fd);
}

/* Where mounting is allowed, and seen by nobody else. */
static void enter(bool user)
{
    char map[32], gmap[32];

    snprintf(map, sizeof(map), "0 %u 1", geteuid());
    snprintf(gmap, sizeof(gmap), "0 %u 1", getegid());
    if (unshare(CLONE_NEWNS | (user ? CLONE_NEWUSER : 0)) < 0)
        _exit(77);
    if (user) {
        write_map("/proc/self/uid_map", map);
        write_map("/proc/self/setgroups", "deny");
        write_map("/proc/self/gid_map", gmap);
    }
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        _exit(77);
}

static void make_layers(void)
{
    mkdir("base", 0755);
    mkdir("base/etc", 0755);
    mkdir("base/all", 0755);
    write_file("base/etc/name", "base");
    write_file("base/etc/gone", "base");
    write_file("base/all/old", "base");
    mkdir("top", 0711);
    mkdir("top/etc", 0755);
    mkdir("top/all", 0755);
    write_file("top/etc/name", "top");
    write_file("top/all/new", "top");
    if (mknod("top/etc/gone", S_IFCHR, makedev(0, 0)) < 0 ||
        setxattr("top/all", "user.overlay.opaque", "y", 1, 0) < 0)
        _exit(51);
}

#define CHECK(number, condition)                                                                             \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            _exit(number);                                                                                   \
    } while (0)

static void look(void)
{
    struct stat st;

    CHECK(1, reads("guest/root/etc/name", "top"));
    CHECK(2, access("guest/root/etc/gone", F_OK) < 0 && errno == ENOENT);
    CHECK(3, access("guest/root/all/old", F_OK) < 0 && reads("guest/root/all/new", "top"));
    CHECK(4, stat("guest/root", &st) == 0 && (st.st_mode & 07777) == 0711);
}

_Noreturn static void play(bool user)
{
    const char *layers[2];
    char paths[2][96];
    struct error *err = NULL;

    enter(user);
    make_layers();
    mkdir("guest", 0700);
    for (int i = 0; i < 2; i++) {
        snprintf(paths[i], sizeof(paths[i]), "%s/%s", home, i ? "top" : "base");
        layers[i] = paths[i];
    }
    if (overlay_mount("guest", layers, 2, &err)) {
        fprintf(stderr, "%s\n", error_message(err));
        _exit(60);
    }
    look();
    write_file("guest/root/etc/name", "mine");
    CHECK(5, unlink("guest/root/all/new") == 0 && rmdir("guest/root/all") == 0 &&
                 mkdir("guest/root/all", 0755) == 0);
    CHECK(6, umount("guest/root") == 0 && overlay_mount("guest", layers, 2, NULL) == 0);
    /* What was written is there again, and the layers are as they were. */
    CHECK(7, reads("guest/root/etc/name", "mine") && access("guest/root/all/new", F_OK) < 0);
    CHECK(8, reads("top/etc/name", "top") && reads("top/all/new", "top"));
    CHECK(9, umount("guest/root") == 0 && overlay_mount("none", layers, 2, NULL) == -ENOENT);
    CHECK(10, overlay_mount("guest", layers, 0, NULL) == -EINVAL);
    _exit(0);
}

static void try(bool user)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        play(user);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip(); /* this host permits no such namespace */
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_as_root(void **state)
{
    try(false);
}

static void test_in_a_user_namespace(void **state)
{
    try(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_as_root, setup, teardown),
        cmocka_unit_test_setup_teardown(test_in_a_user_namespace, setup, teardown),
    };
    return cmocka_run_group_tests_name("container/overlay", tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process that writes an image is killed at a random moment, again and again: qemu-img finds no more than
 * leaks, and what was flushed is there. TABIQUE_ROUNDS makes more of it (of each kind; 8).
 */
#include "stamps.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SIZE (12u << 20)

static unsigned rounds = 8;

static _Noreturn void write_until_killed(struct stamps *s, const char *path)
{
    struct image image;

    image_open(&image, path, "qcow2", s->random & 2 ? IMAGE_NO_URING : 0);
    for (unsigned i = 0;; i++)
        stamps_batch(s, &image, stamps_random(s, 6) == 0);
}

static void crash(const char *name)
{
    char path[200];
    struct stamps *s = stamps_new(SIZE / 512, (uint64_t)time(NULL) * 2654435761u + (uint64_t)getpid());

    snprintf(path, sizeof(path), "%s", scratch_path(name));
    for (unsigned round = 0; round < rounds; round++) {
        struct image image;
        fflush(NULL);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            write_until_killed(s, path);
        usleep((useconds_t)(1000 + stamps_random(s, 150000)));
        kill(pid, SIGKILL);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        check_image(path, true);
        image_open(&image, path, "qcow2", 0);
        stamps_check(s, &image);
        image_close(&image);
    }
    assert_true(s->version > rounds);
    stamps_free(s);
}

static void crash_on(const char *options)
{
    assert_int_equal(shell("rm -f k.qcow2; qemu-img create -q -f qcow2 %s k.qcow2 12M", options), 0);
    crash("k.qcow2");
}

static void test_plain(void **state)
{
    crash_on("");
}

static void test_small_clusters(void **state)
{
    crash_on("-o cluster_size=512");
    crash_on("-o cluster_size=4k,refcount_bits=1");
}

static void test_subclusters(void **state)
{
    crash_on("-o extended_l2=on");
    crash_on("-o extended_l2=on,cluster_size=16k");
}

static void test_version_2(void **state)
{
    crash_on("-o compat=0.10");
}

static void test_overlay(void **state)
{
    assert_int_equal(shell("rm -f zeros; qemu-img create -q -f raw zeros 12M"), 0);
    crash_on("-b zeros -F raw");
}

static void test_snapshot(void **state)
{
    assert_int_equal(
        shell("rm -f k.qcow2; qemu-img create -q -f qcow2 -o cluster_size=8k k.qcow2 12M && qemu-io -f "
              "qcow2 -c 'write -P 0 1M 5M' k.qcow2 >/dev/null && qemu-img snapshot -c one k.qcow2"),
        0);
    crash("k.qcow2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),       cmocka_unit_test(test_small_clusters),
        cmocka_unit_test(test_subclusters), cmocka_unit_test(test_version_2),
        cmocka_unit_test(test_overlay),     cmocka_unit_test(test_snapshot),
    };
    const char *wanted = getenv("TABIQUE_ROUNDS");

    if (wanted)
        rounds = (unsigned)atoi(wanted);
    return cmocka_run_group_tests_name("qcow2 crash", tests, NULL, scratch_remove);
}

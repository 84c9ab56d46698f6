/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guests' locks: one holder, told apart from the processes that outlive it, and no trace of either. */
#include "guest/lock.h"
#include "host/home.h"

#include <errno.h>
#include <fcntl.h>
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

static char directory[64];

static int setup(void **state)
{
    strcpy(directory, "/tmp/tabique-test-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int teardown(void **state)
{
    return home_remove_tree(directory);
}

static void test_one_holder(void **state)
{
    assert_int_equal(lock_holder(directory), LOCK_FREE);
    int fd = lock_take(directory);
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(lock_holder(directory), LOCK_SUPERVISED);
    assert_int_equal(lock_take(directory), -EBUSY);
    assert_int_equal(lock_wait(directory, 10), -EBUSY);
    close(fd);
    assert_int_equal(lock_holder(directory), LOCK_FREE);
    fd = lock_take(directory);
    assert_true(fd >= 0);
    close(fd);
}

static void test_those_who_outlive_it(void **state)
{
    int fd = lock_take(directory), one = lock_share(directory), two = lock_share(directory);

    assert_true(fd >= 0 && one >= 0 && two >= 0);
    close(one);
    assert_int_equal(lock_holder(directory), LOCK_SUPERVISED);
    close(fd);
    assert_int_equal(lock_holder(directory), LOCK_ORPHANED);
    assert_int_equal(lock_take(directory), -EBUSY);
    close(two);
    assert_int_equal(lock_holder(directory), LOCK_FREE);
}

/* It is the kernel that lets go. */
static void test_death_of_the_holder(void **state)
{
    int ready[2];
    char byte;

    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (lock_take(directory) >= 0 && write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(lock_take(directory), -EBUSY);
    kill(pid, SIGKILL);
    int fd = lock_wait(directory, 20000);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(ready[0]);
    close(ready[1]);
}

/* A fork has the same lock, and keeps it. */
static void test_inheritance(void **state)
{
    int fd = lock_take(directory), go[2];

    assert_int_equal(pipe(go), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        close(go[1]);
        _exit(read(go[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(fd);
    assert_int_equal(lock_holder(directory), LOCK_SUPERVISED);
    close(go[1]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(go[0]);
    assert_int_equal(lock_holder(directory), LOCK_FREE);
}

/* A guest that was removed and made anew while its lock was waited for is another one. */
static void test_another_guest_of_the_name(void **state)
{
    char old[80], path[80];
    int fd = lock_take(directory);

    snprintf(old, sizeof(old), "%s.old", directory);
    snprintf(path, sizeof(path), "%s/lock", directory);
    assert_int_equal(rename(directory, old), 0);
    assert_int_equal(lock_take(directory), -ENOENT);
    assert_int_equal(lock_share(directory), -ENOENT);
    assert_int_equal(mkdir(directory, 0700), 0);
    assert_int_equal(lock_holder(directory), LOCK_FREE);
    int other = lock_take(directory);
    assert_true(other >= 0);
    close(fd);
    assert_int_equal(lock_holder(directory), LOCK_SUPERVISED);
    close(other);
    assert_int_equal(home_remove_tree(old), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_holder, setup, teardown),
        cmocka_unit_test_setup_teardown(test_those_who_outlive_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_death_of_the_holder, setup, teardown),
        cmocka_unit_test_setup_teardown(test_inheritance, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_guest_of_the_name, setup, teardown),
    };

    return cmocka_run_group_tests_name("lock", tests, NULL, NULL);
}

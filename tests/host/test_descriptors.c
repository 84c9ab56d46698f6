/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Closing all but some, with close_range and where a filter forbids it. */
#include "host/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { FIRST = 20, LAST = 40, FAR = 200 };

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void forbid_close_range(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

    if (!filter || seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(close_range), 0) ||
        seccomp_load(filter))
        _exit(100);
    seccomp_release(filter);
    if (syscall(SYS_close_range, 1000, 1000, 0) == 0 || errno != ENOSYS)
        _exit(101);
}

/* In a process of its own, for the test's descriptors go too. Its status: the first that is not as it should
 * be. */
static int status_of(const int *keep, size_t n, bool by_list)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        for (int fd = FIRST; fd <= LAST; fd++)
            dup2(STDERR_FILENO, fd);
        dup2(STDERR_FILENO, FAR);
        if (by_list)
            forbid_close_range();
        if (descriptors_close_but(FIRST, keep, n))
            _exit(102);
        for (int fd = 0; fd <= FAR; fd++) {
            bool kept = fd <= STDERR_FILENO;
            for (size_t i = 0; i < n; i++)
                kept = kept || keep[i] == fd;
            if ((fd <= STDERR_FILENO || fd >= FIRST) && is_open(fd) != kept)
                _exit(fd ? fd : 103);
        }
        _exit(0);
    }
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void all_but_those(void **state)
{
    static const int none[] = {-1}, ends[] = {FAR, FIRST}, unsorted[] = {35, -1, 22, 23, 35, LAST, -1};
    static const struct {
        const int *keep;
        size_t n;
    } cases[] = {{NULL, 0}, {none, 1}, {ends, 2}, {unsorted, 7}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_int_equal(status_of(cases[i].keep, cases[i].n, *(bool *)*state), 0);
}

int main(void)
{
    static bool by_range, by_list = true;
    const struct CMUnitTest tests[] = {
        {"by close_range", all_but_those, NULL, NULL, &by_range},
        {"by the list in /proc", all_but_those, NULL, NULL, &by_list},
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptors over Unix sockets: with bytes, without, several at once, and messages that are too long. */
#include "host/pass.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static int pair[2];

static int begin(void **state)
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
}

static int end(void **state)
{
    close(pair[0]);
    return close(pair[1]);
}

static void test_with_and_without(void **state)
{
    char text[8];
    int fd, other = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_int_equal(pass_send(pair[0], "abc", 3, other, 0), 3);
    assert_int_equal(pass_send(pair[0], "de", 2, -1, 0), 2);
    assert_int_equal(pass_receive(pair[1], text, sizeof(text), &fd, 0), 3);
    assert_memory_equal(text, "abc", 3);
    assert_true(fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC);
    close(fd);
    assert_int_equal(pass_receive(pair[1], text, sizeof(text), &fd, 0), 2);
    assert_int_equal(fd, -1);
    close(other);
    close(pair[0]);
    assert_int_equal(pass_receive(pair[1], text, sizeof(text), &fd, 0), 0);
    assert_int_equal(pass_send(pair[1], "x", 1, -1, 0), -EPIPE);
    pair[0] = dup(pair[1]);
}

/* What nobody asked for stays open with nobody. */
static void test_two_at_once(void **state)
{
    char byte = 0, control[CMSG_SPACE(2 * sizeof(int))] = {0};
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    const int fds[] = {0, 1};
    int fd, next = open("/dev/null", O_RDONLY | O_CLOEXEC);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(fds));
    memcpy(CMSG_DATA(header), fds, sizeof(fds));
    assert_int_equal(sendmsg(pair[0], &message, 0), 1);
    close(next);
    assert_int_equal(pass_receive(pair[1], &byte, 1, &fd, 0), 1);
    assert_int_equal(fd, next);
    assert_int_equal(open("/dev/null", O_RDONLY | O_CLOEXEC), next + 1);
    close(next + 1);
    close(fd);
}

static void test_too_long(void **state)
{
    char text[2];
    int fd;

    assert_int_equal(pass_send(pair[0], "abcdef", 6, -1, 0), 6);
    assert_int_equal(pass_receive(pair[1], text, sizeof(text), &fd, MSG_TRUNC), 6);
    assert_int_equal(pass_receive(pair[1], text, sizeof(text), &fd, MSG_DONTWAIT), -EAGAIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_with_and_without, begin, end),
        cmocka_unit_test_setup_teardown(test_two_at_once, begin, end),
        cmocka_unit_test_setup_teardown(test_too_long, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

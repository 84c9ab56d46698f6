/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sockets for a process without paths: where it listens, and what it gets when it asks. */
#include "host/dial.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[32], path[64];

static int setup(void **state)
{
    strcpy(dir, "/tmp/tabique-dial-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof(path), "%s/sock", dir);
    return 0;
}

static int teardown(void **state)
{
    char command[96];

    snprintf(command, sizeof(command), "rm -r %s", dir);
    return system(command);
}

static int listen_at(const char *where)
{
    cleanup_error struct error *err = NULL;
    int fd = dial_listen(where, &err);

    if (fd < 0)
        fail_msg("%s", error_message(err));
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    return fd;
}

static void expect_error(const char *where, const char *part)
{
    cleanup_error struct error *err = NULL;

    assert_true(dial_listen(where, &err) < 0);
    if (!strstr(error_message(err), part))
        fail_msg("\"%s\" is not in \"%s\"", part, error_message(err));
}

static void test_listen(void **state)
{
    int fd = listen_at(path);

    expect_error(path, "somebody listens there");
    /* Left behind by a process that is gone. */
    close(fd);
    close(listen_at(path));
    unlink(path);
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    expect_error(path, "a file of another kind");
    assert_int_equal(access(path, F_OK), 0);
    expect_error("/nonexistent/directory/sock", "No such file");
}

static void test_answers(void **state)
{
    char name[80], text[4];
    int channel[2], fd = -1;
    uint32_t id = 0;

    snprintf(name, sizeof(name), "%s_4000000000", path);
    int server = listen_at(name);
    assert_int_equal(dial_channel(channel, NULL), 0);
    assert_int_equal(dial_take(channel[1], &id, &fd), -EAGAIN);
    assert_int_equal(dial_answer(channel[0], path), -EAGAIN);
    assert_int_equal(dial_ask(channel[1], 7, 4000000000u), 0);
    assert_int_equal(dial_ask(channel[1], 8, 1), 0);
    assert_int_equal(dial_answer(channel[0], path), 0);
    assert_int_equal(dial_answer(channel[0], path), 0);
    assert_int_equal(dial_take(channel[1], &id, &fd), 0);
    assert_int_equal(id, 7);
    assert_true(fd >= 0 && fcntl(fd, F_GETFD) & FD_CLOEXEC);
    int accepted = accept(server, NULL, NULL);
    assert_int_equal(write(fd, "abc", 3), 3);
    assert_int_equal(read(accepted, text, sizeof(text)), 3);
    close(fd);
    close(accepted);
    /* Nobody is there: an answer, without a descriptor. */
    assert_int_equal(dial_take(channel[1], &id, &fd), 0);
    assert_int_equal(id, 8);
    assert_int_equal(fd, -ENOENT);
    close(server);
    assert_int_equal(dial_ask(channel[1], 9, 4000000000u), 0);
    assert_int_equal(dial_answer(channel[0], path), 0);
    assert_int_equal(dial_take(channel[1], &id, &fd), 0);
    assert_int_equal(fd, -ECONNREFUSED);
    close(channel[0]);
    assert_int_equal(dial_take(channel[1], &id, &fd), -ECONNRESET);
    close(channel[1]);
}

/* A confined side that was taken over: nonsense, a descriptor that nobody wants, and answers that nobody
 * reads. */
static void test_hostile_side(void **state)
{
    int channel[2];

    assert_int_equal(dial_channel(channel, NULL), 0);
    assert_int_equal(send(channel[1], "x", 1, 0), 1);
    assert_int_equal(dial_answer(channel[0], path), -EPROTO);
    assert_int_equal(send(channel[1], "0123456789", 10, 0), 10);
    assert_int_equal(dial_answer(channel[0], path), -EPROTO);
    for (unsigned i = 0; i < 5000; i++) {
        assert_int_equal(dial_ask(channel[1], i, i), 0);
        assert_int_equal(dial_answer(channel[0], path), 0);
    }
    /* And one that asks for more than is answered is told to wait. */
    int rc = 0;
    for (unsigned i = 0; i < 5000 && !rc; i++)
        rc = dial_ask(channel[1], i, i);
    assert_int_equal(rc, -EAGAIN);
    close(channel[1]);
    while ((rc = dial_answer(channel[0], path)) == 0)
        ;
    assert_int_equal(rc, -ECONNRESET);
    close(channel[0]);
}

/* Addresses of sockets have room for some hundred bytes; paths may have more. */
static void test_long_paths(void **state)
{
    char deep[256], longer[300];
    int channel[2], fd;
    uint32_t id;

    snprintf(deep, sizeof(deep), "%s/%0150d", dir, 0);
    assert_int_equal(mkdir(deep, 0700), 0);
    snprintf(longer, sizeof(longer), "%s/sock", deep);
    int door = listen_at(longer);
    expect_error(longer, "somebody listens there");
    snprintf(longer, sizeof(longer), "%s/sock_5", deep);
    int server = listen_at(longer);
    assert_int_equal(dial_channel(channel, NULL), 0);
    assert_int_equal(dial_ask(channel[1], 1, 5), 0);
    snprintf(longer, sizeof(longer), "%s/sock", deep);
    assert_int_equal(dial_answer(channel[0], longer), 0);
    assert_int_equal(dial_take(channel[1], &id, &fd), 0);
    assert_true(fd >= 0);
    close(fd);
    close(server);
    close(door);
    close(channel[0]);
    close(channel[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_listen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile_side, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_paths, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* D-Bus: with a real daemon, and what is made of answers that are none. */
#include "base/cleanup.h"
#include "container/bus.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cmocka.h>

static const struct bus_peer daemon_itself = {"org.freedesktop.DBus", "/org/freedesktop/DBus",
                                              "org.freedesktop.DBus"};

struct daemon {
    pid_t pid;
    char address[256];
};

/* A daemon of our own, whose address it tells; pid 0 where none is installed. */
static int set_up(void **state)
{
    struct daemon *d = calloc(1, sizeof(*d));
    int pipe_ends[2];

    if (!d || pipe(pipe_ends) < 0)
        return -1;
    d->pid = fork();
    if (d->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(pipe_ends[1], 1);
        close(pipe_ends[0]);
        execlp("dbus-daemon", "dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address=1",
               NULL);
        _exit(127);
    }
    close(pipe_ends[1]);
    ssize_t n = read(pipe_ends[0], d->address, sizeof(d->address) - 1);
    close(pipe_ends[0]);
    if (n <= 0) {
        waitpid(d->pid, NULL, 0);
        d->pid = 0;
    } else {
        d->address[strcspn(d->address, "\n")] = '\0';
        setenv("DBUS_SESSION_BUS_ADDRESS", d->address, 1);
    }
    *state = d;
    return 0;
}

static int tear_down(void **state)
{
    struct daemon *d = *state;

    if (d->pid) {
        kill(d->pid, SIGTERM);
        waitpid(d->pid, NULL, 0);
    }
    free(d);
    return 0;
}

/* The daemon checks each byte: it closes the connection for what is not as the specification has it. */
static void test_calls(void **state)
{
    const struct daemon *d = *state;
    struct buffer body = {0};
    char why[256] = "";

    if (!d->pid)
        skip();
    cleanup_close int bus = bus_open(true);
    assert_true(bus >= 0);
    bus_put_string(&body, "org.freedesktop.DBus");
    assert_int_equal(bus_call(bus, &daemon_itself, "GetNameOwner", "s", &body, why, sizeof(why)), 0);
    free(body.data);
    body = (struct buffer){0};
    bus_put_string(&body, "org.nobody.Here");
    assert_int_equal(bus_call(bus, &daemon_itself, "GetNameOwner", "s", &body, why, sizeof(why)), -EREMOTEIO);
    assert_non_null(strstr(why, "org.nobody.Here"));
    free(body.data);
    assert_int_equal(bus_call(bus, &daemon_itself, "NoSuchMethod", "", NULL, why, sizeof(why)), -EREMOTEIO);
    assert_non_null(strstr(why, "NoSuchMethod"));
}

/* What systemd is told has properties of each kind: the daemon reads the whole before it finds nobody to give
 * it to. */
static void test_properties(void **state)
{
    static const struct bus_peer nobody = {"org.nobody.Here", "/a/path", "org.nobody.Interface"};
    const struct daemon *d = *state;
    struct buffer body = {0};
    char why[256] = "";

    if (!d->pid)
        skip();
    cleanup_close int bus = bus_open(true);
    assert_true(bus >= 0);
    bus_put_string(&body, "odd length");
    bus_put_string(&body, "fail");
    size_t list = bus_begin_array(&body, 8);
    bus_put_property_string(&body, "Description", "text");
    bus_put_property_list(&body, "PIDs", 7);
    bus_put_property_bool(&body, "Delegate", true);
    bus_put_property_u64(&body, "MemoryMax", UINT64_MAX);
    bus_end_array(&body, list, 8);
    bus_end_array(&body, bus_begin_array(&body, 8), 8);
    assert_int_equal(bus_call(bus, &nobody, "Method", "ssa(sv)a(sa(sv))", &body, why, sizeof(why)),
                     -EREMOTEIO);
    assert_non_null(strstr(why, "org.nobody.Here"));
    /* And the connection is fine still: a message that is wrong would have closed it. */
    assert_int_equal(bus_call(bus, &daemon_itself, "GetId", "", NULL, why, sizeof(why)), 0);
    /* The daemon finds out: a body that is not what the signature says. */
    bus_call(bus, &nobody, "Method", "ssu", &body, why, sizeof(why));
    assert_int_not_equal(bus_call(bus, &daemon_itself, "GetId", "", NULL, why, sizeof(why)), 0);
    free(body.data);
}

static void test_nobody_there(void **state)
{
    const struct daemon *d = *state;

    setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus", 1);
    assert_int_equal(bus_open(true), -ENOENT);
    setenv("DBUS_SESSION_BUS_ADDRESS", "tcp:host=localhost", 1);
    assert_int_equal(bus_open(true), -EINVAL);
    setenv("DBUS_SESSION_BUS_ADDRESS", d->address, 1);
}

static void test_answers(void **state)
{
    /* An error of "E", serial 5, whose text is "no". */
    static const uint8_t good[] = {
        'l', 3, 1,   1, 7,   0,   0, 0, 9, 0, 0,   0, 31, 0,   0, 0, /* header */
        5,   1, 'u', 0, 5,   0,   0, 0, 4, 1, 's', 0, 1,  0,   0, 0, /* reply to 5; its name ... */
        'E', 0, 0,   0, 0,   0,   0, 0, 8, 1, 'g', 0, 1,  's', 0, 0, /* ... "E"; signature "s" */
        2,   0, 0,   0, 'n', 'o', 0,
    };
    struct bus_answer answer;
    uint8_t bad[sizeof(good)];

    assert_int_equal(bus_parse(good, sizeof(good), &answer), 0);
    assert_int_equal(answer.type, BUS_ERROR);
    assert_int_equal(answer.serial, 5);
    assert_string_equal(answer.error, "no");
    for (size_t n = 0; n < sizeof(good); n++)
        assert_int_equal(bus_parse(good, n, &answer), -EPROTO);
    for (size_t at = 0; at < sizeof(good); at++) {
        memcpy(bad, good, sizeof(good));
        bad[at] = 0xff;
        bus_parse(bad, sizeof(bad), &answer);
        assert_true(strnlen(answer.error, sizeof(answer.error)) < sizeof(answer.error));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_properties),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_answers),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}

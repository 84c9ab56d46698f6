/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Programs that build: their output by lines, their end, and that nothing of them stays when they are to end.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "image/build_priv.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct output {
    char text[16384];
    size_t lines, longest;
};

static void on_line(void *opaque, const char *line)
{
    struct output *o = opaque;
    size_t used = strlen(o->text);

    o->lines++;
    if (strlen(line) > o->longest)
        o->longest = strlen(line);
    snprintf(o->text + used, sizeof(o->text) - used, "%s|", line);
}

static int run(const char *script, struct output *o, int *status, struct error **err)
{
    const char *const argv[] = {"sh", "-c", script, NULL}, *const environment[] = {"NUMBER=7", NULL};
    const struct sandbox job = {
        .argv = argv, .environment = environment, .inherited = -1, .line = on_line, .opaque = o};

    memset(o, 0, sizeof(*o));
    return sandbox_run(&job, status, err);
}

/* A person without the ids to give away gets a text instead. */
static int skip_without_means(void **state)
{
    cleanup_error struct error *err = NULL;
    struct output o;
    int status;

    if (geteuid() == 0 || run("true", &o, &status, &err) == 0)
        return 0;
    print_message("%s\n", error_message(err));
    exit(77);
}

static void test_output_and_status(void **state)
{
    struct output o;
    int status = -1;

    assert_int_equal(
        run("id -u; echo $NUMBER; echo two >&2; printf 'no newline'; cat; exit 3", &o, &status, NULL), 0);
    assert_string_equal(o.text, "0|7|two|no newline|");
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3);
    /* In a shell of its own: the first process of a namespace can't kill itself. */
    assert_int_equal(run("sh -c 'kill -9 $$'", &o, &status, NULL), 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGKILL);
    /* A line without end does not grow without end. */
    assert_int_equal(run("head -c 10000 /dev/zero | tr '\\0' x", &o, &status, NULL), 0);
    assert_int_equal(o.lines, 3);
    assert_true(o.longest <= 4096);
}

static void test_a_program_that_is_not_there(void **state)
{
    const char *const argv[] = {"tabique-no-such-program", NULL};
    struct output o = {0};
    const struct sandbox job = {.argv = argv, .inherited = -1, .line = on_line, .opaque = &o};
    int status = 0;

    assert_int_equal(sandbox_run(&job, &status, NULL), 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 127);
    assert_non_null(strstr(o.text, "@error tabique-no-such-program: "));
}

static pid_t waiting_child;

static void on_first_line(void *opaque, const char *line)
{
    waiting_child = (pid_t)atoi(line);
    raise(SIGTERM);
}

/* What the signal interrupts, and what it has started in a session of its own, is gone when sandbox_run is
 * back. */
static void test_interruption(void **state)
{
    const char *const argv[] = {"sh", "-c", "setsid sleep 1000 & echo started; sleep 1000", NULL};
    int alive[2];
    char byte;

    /* Every process of it holds the pipe's end: it reads as ended when all are gone. */
    assert_int_equal(pipe(alive), 0);
    const struct sandbox job = {.argv = argv, .inherited = alive[1], .line = on_first_line};
    cleanup_error struct error *err = NULL;
    int status;

    interrupt_begin();
    int rc = sandbox_run(&job, &status, &err);
    assert_int_equal(interrupted(), SIGTERM);
    interrupt_end();
    assert_int_equal(rc, -EINTR);
    assert_non_null(strstr(error_message(err), "interrupted"));
    close(alive[1]);
    alarm(60);
    if (geteuid() != 0 || access("/proc/1/ns/pid", R_OK) == 0)
        assert_int_equal(read(alive[0], &byte, 1), 0);
    alarm(0);
    close(alive[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_and_status),
        cmocka_unit_test(test_a_program_that_is_not_there),
        cmocka_unit_test(test_interruption),
    };

    return cmocka_run_group_tests(tests, skip_without_means, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The console's person side: pipes, files and pseudo-terminals, flow control, and the way back from raw mode.
 */
#include "base/bytes.h"
#include "host/loop.h"
#include "host/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <utmp.h>

#include <cmocka.h>

#define MS 1000000ull

struct fixture {
    struct loop *loop;
    struct terminal *terminal;
    struct loop_timer *limit, *step;
    int in[2], out[2]; /* pipes */
    int master, slave; /* a pseudo-terminal */
    uint8_t got[256 * 1024];
    size_t n_got, room; /* input that the guest took, and what it will still take */
    size_t expect;      /* stop when that much came */
    int ended, left, ready;
};

static size_t on_input(void *opaque, const uint8_t *bytes, size_t len)
{
    struct fixture *f = opaque;
    size_t n = len < f->room ? len : f->room;

    memcpy(f->got + f->n_got, bytes, n);
    f->n_got += n;
    f->room -= n;
    if (f->n_got == f->expect)
        loop_stop(f->loop, 0);
    return n;
}

static void on_output_ready(void *opaque)
{
    struct fixture *f = opaque;

    f->ready++;
    loop_stop(f->loop, 0);
}

static void on_leave(void *opaque)
{
    struct fixture *f = opaque;

    f->left++;
    loop_stop(f->loop, 0);
}

static void on_ended(void *opaque, int sig)
{
    struct fixture *f = opaque;

    f->ended = sig;
    loop_stop(f->loop, 0);
}

static const struct terminal_events events = {on_input, on_output_ready, on_leave, on_ended, NULL, NULL};

static void on_limit(void *opaque)
{
    struct fixture *f = opaque;
    loop_stop(f->loop, -1);
}

/* Runs the loop for at most `ms`; true if something stopped it before. */
static bool run(struct fixture *f, unsigned ms)
{
    loop_timer_arm(f->limit, loop_now() + ms * MS);
    return loop_run(f->loop) == 0;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_int_equal(loop_create(&f->loop, NULL), 0);
    f->limit = loop_timer_new(f->loop, on_limit, f);
    assert_int_equal(pipe2(f->in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(f->out, O_CLOEXEC), 0);
    assert_int_equal(openpty(&f->master, &f->slave, NULL, NULL, NULL), 0);
    f->room = sizeof(f->got);
    f->expect = SIZE_MAX;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    terminal_close(f->terminal);
    loop_free(f->loop);
    close(f->in[0]);
    close(f->in[1]);
    close(f->out[0]);
    close(f->out[1]);
    close(f->master);
    close(f->slave);
    free(f);
    return 0;
}

static void open_on(struct fixture *f, int in, int out)
{
    assert_int_equal(terminal_open(&f->terminal, f->loop, in, out, &events, f, NULL), 0);
}

static void test_only_one_and_null(void **state)
{
    struct fixture *f = *state;
    struct terminal *second = NULL;

    terminal_close(NULL);
    open_on(f, f->slave, f->slave);
    struct termios raw;
    assert_int_equal(tcgetattr(f->slave, &raw), 0);
    assert_int_equal(terminal_open(&second, f->loop, f->in[0], f->out[1], &events, f, NULL), -EBUSY);
    assert_null(second);
    /* The refused one has not undone the first. */
    struct termios now;
    assert_int_equal(tcgetattr(f->slave, &now), 0);
    assert_int_equal(now.c_lflag, raw.c_lflag);
    assert_int_equal(now.c_lflag & (ICANON | ECHO | ISIG), 0);
}

static void test_pipe_input_passes_every_byte(void **state)
{
    struct fixture *f = *state;

    open_on(f, f->in[0], f->out[1]);
    assert_false(terminal_is_interactive(f->terminal));
    assert_int_equal(write(f->in[1], "a\x1d\x03z", 4), 4);
    f->expect = 4;
    assert_true(run(f, 2000));
    assert_memory_equal(f->got, "a\x1d\x03z", 4);
    assert_int_equal(f->left, 0);
    /* The end of the pipe is no event, and must not keep the loop busy. */
    close(f->in[1]);
    f->in[1] = -1;
    assert_false(run(f, 20));
}

static void test_input_waits_for_the_guest(void **state)
{
    struct fixture *f = *state;
    char all[1000];

    for (size_t i = 0; i < sizeof(all); i++)
        all[i] = (char)i;
    open_on(f, f->in[0], f->out[1]);
    assert_int_equal(write(f->in[1], all, sizeof(all)), sizeof(all));
    f->room = 0;
    assert_false(run(f, 10));
    f->room = 7;
    f->expect = 7;
    terminal_input_ready(f->terminal);
    assert_true(run(f, 2000));
    f->room = sizeof(all);
    f->expect = sizeof(all) + 1;
    terminal_input_ready(f->terminal);
    assert_int_equal(write(f->in[1], "!", 1), 1);
    assert_true(run(f, 2000));
    assert_memory_equal(f->got, all, sizeof(all));
    assert_int_equal(f->got[sizeof(all)], '!');
}

static void test_input_from_a_file(void **state)
{
    struct fixture *f = *state;
    FILE *file = tmpfile();
    enum { SIZE = 200000 };

    assert_non_null(file);
    for (int i = 0; i < SIZE; i++)
        fputc(i % 251, file);
    rewind(file);
    open_on(f, fileno(file), f->out[1]);
    f->room = 100;
    assert_false(run(f, 10));
    assert_int_equal(f->n_got, 100);
    f->room = sizeof(f->got) - f->n_got;
    f->expect = SIZE;
    terminal_input_ready(f->terminal);
    assert_true(run(f, 5000));
    for (int i = 0; i < SIZE; i++)
        assert_int_equal(f->got[i], i % 251);
    fclose(file);
}

static void test_input_from_nowhere(void **state)
{
    struct fixture *f = *state;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    open_on(f, null, null);
    assert_int_equal(terminal_write(f->terminal, "x", 1), 1);
    assert_false(run(f, 10));
    terminal_close(f->terminal);
    f->terminal = NULL;
    open_on(f, -1, f->out[1]); /* closed: no reason to fail */
    assert_false(run(f, 10));
    assert_int_equal(f->n_got, 0);
    close(null);
}

static void test_output_is_gathered(void **state)
{
    struct fixture *f = *state;
    char buf[100];

    open_on(f, f->in[0], f->out[1]);
    for (int i = 0; i < 50; i++)
        assert_int_equal(terminal_write(f->terminal, "ab", 2), 2);
    assert_false(run(f, 20));
    /* One write: all of it is there at once, in order. */
    assert_int_equal(read(f->out[0], buf, sizeof(buf)), 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(buf[i], "ab"[i % 2]);
}

static void test_close_flushes(void **state)
{
    struct fixture *f = *state;
    char buf[10];

    open_on(f, f->in[0], f->out[1]);
    assert_int_equal(terminal_write(f->terminal, "last words", 10), 10);
    terminal_close(f->terminal);
    f->terminal = NULL;
    assert_int_equal(read(f->out[0], buf, sizeof(buf)), 10);
    assert_memory_equal(buf, "last words", 10);
}

/* A reader that sleeps: output is refused rather than lost, and output_ready comes when it wakes. */
static void test_output_waits_for_the_reader(void **state)
{
    struct fixture *f = *state;
    static uint8_t sent[1 << 20], read_back[1 << 20];
    size_t n_sent = 0, n_read = 0;

    for (size_t i = 0; i < sizeof(sent); i++)
        sent[i] = (uint8_t)(i * 7 + (i >> 8));
    open_on(f, f->in[0], f->out[1]);
    while (n_read < sizeof(sent)) {
        size_t n = terminal_write(f->terminal, sent + n_sent, sizeof(sent) - n_sent);
        n_sent += n;
        if (n_sent < sizeof(sent)) {
            /* Nobody reads: first the pipe fills, then the ring, then bytes are refused. */
            bool room = run(f, n ? 5 : 50);
            if (room)
                continue;
        } else {
            run(f, 20);
        }
        ssize_t got = read(f->out[0], read_back + n_read, 60000);
        assert_true(got > 0);
        n_read += (size_t)got;
    }
    assert_true(f->ready > 3);
    assert_memory_equal(sent, read_back, sizeof(sent));
}

static void test_reader_gone(void **state)
{
    struct fixture *f = *state;

    open_on(f, f->in[0], f->out[1]);
    close(f->out[0]);
    f->out[0] = -1;
    assert_int_equal(terminal_write(f->terminal, "x", 1), 1);
    assert_true(run(f, 2000));
    assert_int_equal(f->ended, SIGPIPE);
    /* Told once; what follows is dropped, not refused. */
    f->ended = 0;
    static const char zeros[100000];
    assert_int_equal(terminal_write(f->terminal, zeros, sizeof(zeros)), sizeof(zeros));
    assert_false(run(f, 20));
    assert_int_equal(f->ended, 0);
}

static void test_the_shells_descriptor_stays_blocking(void **state)
{
    struct fixture *f = *state;

    open_on(f, f->in[0], f->out[1]);
    assert_int_equal(fcntl(f->out[1], F_GETFL) & O_NONBLOCK, 0);
    assert_int_equal(fcntl(f->in[0], F_GETFL) & O_NONBLOCK, 0);
}

static void test_raw_mode_and_back(void **state)
{
    struct fixture *f = *state;
    struct termios before, during, after;

    assert_int_equal(tcgetattr(f->slave, &before), 0);
    open_on(f, f->slave, f->slave);
    assert_true(terminal_is_interactive(f->terminal));
    assert_int_equal(tcgetattr(f->slave, &during), 0);
    assert_int_equal(during.c_lflag & (ICANON | ECHO | ISIG), 0);
    /* Ctrl-C is the guest's. */
    assert_int_equal(write(f->master, "\x03q", 2), 2);
    f->expect = 2;
    assert_true(run(f, 2000));
    assert_memory_equal(f->got, "\x03q", 2);
    assert_int_equal(f->ended, 0);
    terminal_close(f->terminal);
    f->terminal = NULL;
    assert_int_equal(tcgetattr(f->slave, &after), 0);
    assert_int_equal(after.c_lflag, before.c_lflag);
    assert_int_equal(after.c_iflag, before.c_iflag);
    assert_int_equal(after.c_oflag, before.c_oflag);
}

/* Also when the guest takes no input at all. */
static void test_leave_key(void **state)
{
    struct fixture *f = *state;

    open_on(f, f->slave, f->slave);
    f->room = 2;
    assert_int_equal(write(f->master, "abcd\x1d rest", 10), 10);
    assert_true(run(f, 2000));
    assert_int_equal(f->left, 1);
    assert_int_equal(f->n_got, 2);
    f->room = 100;
    terminal_input_ready(f->terminal);
    assert_false(run(f, 10));
    assert_int_equal(f->n_got, 4);
    assert_memory_equal(f->got, "abcd", 4);
}

static void test_signals_end_it(void **state)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        signal(signals[i], SIG_DFL); /* whoever started the tests may have it ignored */
        open_on(f, f->in[0], f->out[1]);
        raise(signals[i]);
        assert_true(run(f, 2000));
        assert_int_equal(f->ended, signals[i]);
        terminal_close(f->terminal);
        f->terminal = NULL;
        struct sigaction now;
        sigaction(signals[i], NULL, &now);
        assert_ptr_equal(now.sa_handler, SIG_DFL);
    }
}

/* As under nohup. */
static void test_ignored_signals_stay_ignored(void **state)
{
    struct fixture *f = *state;

    signal(SIGHUP, SIG_IGN);
    open_on(f, f->in[0], f->out[1]);
    raise(SIGHUP);
    assert_false(run(f, 100));
    terminal_close(f->terminal);
    f->terminal = NULL;
    assert_ptr_equal(signal(SIGHUP, SIG_DFL), SIG_IGN);
}

/* How a child process ends that has the terminal in raw mode; each must restore it. */
enum ending { BY_EXIT, BY_ABORT, BY_SEGV, BY_SECOND_SIGTERM };

static int run_child(int slave, enum ending how)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct loop *loop;
        struct terminal *terminal;

        /* A session of its own, with this as its terminal, as a shell's foreground job has it. The
         * sanitizers' handlers are not what is tested. */
        if (login_tty(dup(slave)) < 0)
            _exit(99);
        signal(SIGSEGV, SIG_DFL);
        signal(SIGABRT, SIG_DFL);
        if (loop_create(&loop, NULL) || terminal_open(&terminal, loop, 0, 1, &events, NULL, NULL))
            _exit(98);
        struct termios now;
        if (tcgetattr(0, &now) < 0 || now.c_lflag & ICANON)
            _exit(97);
        if (how == BY_EXIT)
            exit(5);
        if (how == BY_ABORT)
            abort();
        if (how == BY_SEGV)
            raise(SIGSEGV);
        raise(SIGTERM);
        raise(SIGTERM);
        _exit(96);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void test_every_end_restores(void **state)
{
    static const struct {
        enum ending how;
        int status;
    } ends[] = {{BY_EXIT, 5}, {BY_ABORT, -SIGABRT}, {BY_SEGV, -SIGSEGV}, {BY_SECOND_SIGTERM, -SIGTERM}};
    struct fixture *f = *state;
    struct termios before, after;

    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        int master, slave;

        assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
        assert_int_equal(tcgetattr(slave, &before), 0);
        assert_int_equal(run_child(slave, ends[i].how), ends[i].status);
        assert_int_equal(tcgetattr(slave, &after), 0);
        assert_int_equal(after.c_lflag, before.c_lflag);
        assert_int_equal(after.c_oflag, before.c_oflag);
        close(master);
        close(slave);
    }
    assert_non_null(f);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_only_one_and_null),
        TEST(test_pipe_input_passes_every_byte),
        TEST(test_input_waits_for_the_guest),
        TEST(test_input_from_a_file),
        TEST(test_input_from_nowhere),
        TEST(test_output_is_gathered),
        TEST(test_close_flushes),
        TEST(test_output_waits_for_the_reader),
        TEST(test_reader_gone),
        TEST(test_the_shells_descriptor_stays_blocking),
        TEST(test_raw_mode_and_back),
        TEST(test_leave_key),
        TEST(test_signals_end_it),
        TEST(test_ignored_signals_stay_ignored),
        TEST(test_every_end_restores),
    };
    return cmocka_run_group_tests_name("host/terminal", tests, NULL, NULL);
}

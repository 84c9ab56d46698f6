/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's console in the supervisor: everything goes to the log, to the terminal in the foreground, and
 * to all who are attached; what they type goes to the guest. The slowest of them sets the pace. Part of the
 * supervisor's one thread.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "guest/supervisor_priv.h"
#include "host/stream.h"
#include "host/terminal.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

/* How long who reads the console may take for nothing at all, once the guest has ended. */
#define DRAIN_NS (1000 * 1000000ull)

/* How long a guest in the background that is asked by a signal (the host goes down) may take. */
#define SIGNAL_STOP_MS 15000

static void remember_line(struct supervisor *s, const uint8_t *bytes, size_t len)
{
    const uint8_t *newline = memrchr(bytes, '\n', len);

    if (newline) {
        len -= (size_t)(newline + 1 - bytes);
        bytes = newline + 1;
        s->last_line_len = 0;
    }
    /* Of a line that is longer the beginning is kept, where a prompt is. */
    size_t room = sizeof(s->last_line) - s->last_line_len;
    len = len < room ? len : room;
    memcpy(s->last_line + s->last_line_len, bytes, len);
    s->last_line_len += len;
}

/* What all who listen can take; one that can take nothing will say when it can. */
static size_t room(struct supervisor *s)
{
    size_t attached = supervisor_control_room(s),
           terminal = s->terminal ? terminal_room(s->terminal) : SIZE_MAX;

    return attached < terminal ? attached : terminal;
}

static size_t on_guest_output(void *opaque, const uint8_t *bytes, size_t len)
{
    struct supervisor *s = opaque;
    size_t taken = room(s);

    taken = taken < len ? taken : len;
    if (!taken)
        return 0;
    if (s->phase == PHASE_DRAINING)
        loop_timer_arm(s->limit, loop_now() + DRAIN_NS);
    console_log_write(&s->log, bytes, taken);
    remember_line(s, bytes, taken);
    if (s->terminal)
        terminal_write(s->terminal, bytes, taken);
    supervisor_control_output(s, bytes, taken);
    /* Whoever set the limit is full now: it is to call. */
    if (taken < len)
        room(s);
    return taken;
}

static void on_guest_takes_more(void *opaque)
{
    struct supervisor *s = opaque;

    if (s->terminal)
        terminal_input_ready(s->terminal);
    supervisor_control_input_ready(s);
}

/* The VM process has closed its end: all output is here. */
static void on_console_ended(void *opaque)
{
    struct supervisor *s = opaque;

    s->console_ended = true;
    if (s->phase == PHASE_DRAINING)
        loop_timer_arm(s->limit, 0);
}

size_t supervisor_type(struct supervisor *s, const uint8_t *bytes, size_t len)
{
    /* Between two runs there is nobody to type to. */
    return s->console ? stream_write(s->console, bytes, len) : len;
}

int supervisor_console_begin(struct supervisor *s, struct error **err)
{
    static const struct stream_events events = {
        .input = on_guest_output,
        .output_ready = on_guest_takes_more,
        .input_ended = on_console_ended,
    };
    struct stream_config config = {
        .loop = s->loop,
        .in_fd = s->vm.console_fd,
        .out_fd = s->vm.console_fd,
        .events = &events,
        .opaque = s,
    };

    s->console_ended = false;
    int rc = stream_open(&s->console, &config, err);
    if (rc == 0 && s->input_ended)
        stream_end_output(s->console);
    return rc;
}

void supervisor_console_end(struct supervisor *s)
{
    stream_close(steal_ptr(s->console), 0);
}

/* ---- terminal ---- */

static size_t on_typed(void *opaque, const uint8_t *bytes, size_t len)
{
    return supervisor_type(opaque, bytes, len);
}

static void on_terminal_takes_more(void *opaque)
{
    struct supervisor *s = opaque;

    if (s->console)
        stream_input_ready(s->console);
}

/* A program sees the end of its input; a machine's console has none. */
static void on_terminal_ended(void *opaque)
{
    struct supervisor *s = opaque;

    s->input_ended = s->config.container;
    if (s->input_ended && s->console)
        stream_end_output(s->console);
}

static void on_leave(void *opaque)
{
    supervisor_leave(opaque, GUEST_EXIT_LEFT);
}

static void on_signal_ended(void *opaque, int signal)
{
    supervisor_leave(opaque, GUEST_EXIT_SIGNAL + signal);
}

static void on_resized(void *opaque, uint16_t columns, uint16_t rows)
{
    struct supervisor *s = opaque;
    struct vm_message m = {.type = VM_RESIZE, .columns = columns, .rows = rows};

    s->config.vm.columns = columns;
    s->config.vm.rows = rows;
    if (s->vm.pid)
        vm_message_send(s->vm.control_fd, &m);
}

int supervisor_console_open(struct supervisor *s, struct error **err)
{
    static const struct terminal_events events = {
        .input = on_typed,
        .output_ready = on_terminal_takes_more,
        .input_ended = on_terminal_ended,
        .leave = on_leave,
        .ended = on_signal_ended,
        .resized = on_resized,
    };

    console_log_open(&s->log, s->guest->directory);
    if (!s->foreground)
        return 0;
    int rc = terminal_open(&s->terminal, s->loop, STDIN_FILENO, STDOUT_FILENO, &events, s, err);
    if (rc == 0)
        supervisor_release_signals(s);
    return rc;
}

void supervisor_console_close(struct supervisor *s)
{
    supervisor_console_end(s);
    terminal_close(steal_ptr(s->terminal));
    console_log_close(&s->log);
}

/* ---- signals ---- */

static void ending_signals(sigset_t *set)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

    sigemptyset(set);
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        struct sigaction action;

        /* Whoever started us with one ignored (nohup) meant it. */
        if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(set, signals[i]);
    }
}

static void on_held_signal(void *opaque, uint32_t events)
{
    struct supervisor *s = opaque;
    struct signalfd_siginfo info;

    if (read(s->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    if (!s->foreground) {
        supervisor_stop(s, SIGNAL_STOP_MS);
        return;
    }
    s->early_signal = (int)info.ssi_signo;
    supervisor_kill(s);
}

int supervisor_hold_signals(struct supervisor *s, struct error **err)
{
    sigset_t set;

    ending_signals(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    int rc = s->signal_fd < 0
                 ? -errno
                 : loop_watch_add(s->loop, s->signal_fd, EPOLLIN, on_held_signal, s, &s->signal_watch);
    return rc ? error_set_errno(err, -rc, "signals") : 0;
}

/* From here on they go where they always go; one that waits is delivered now. */
void supervisor_release_signals(struct supervisor *s)
{
    sigset_t set;

    if (s->signal_fd < 0)
        return;
    loop_watch_remove(steal_ptr(s->signal_watch));
    close(steal_fd(s->signal_fd));
    ending_signals(&set);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

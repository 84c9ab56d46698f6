/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The terminal: a stream, and around it the mode, the keys and the signals that belong to a person. Used by
 * the supervisor and by `console`. All in the loop's thread, but for what a stream takes from any.
 */
#include "host/terminal.h"

#include "base/error.h"
#include "host/loop.h"
#include "host/stream.h"
#include "host/terminal_mode.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define KEY_LEAVE 0x1d /* Ctrl-] */

/* A guest writes its console byte by byte: what comes within this time goes out in one write. */
#define OUTPUT_DELAY_NS 1000000ull

#define CLOSE_WAIT_MS 1000

struct terminal {
    struct loop *loop;
    const struct terminal_events *events;
    void *opaque;
    int in_fd, out_fd;
    bool interactive;
    bool mode_entered;
    struct stream *stream;
    int signal_pipe[2];
    struct loop_watch *signal_watch;
    int resize_fd; /* tells SIGWINCH; -1 without */
    struct loop_watch *resize_watch;
};

static size_t on_input(void *opaque, const uint8_t *bytes, size_t len)
{
    struct terminal *t = opaque;

    return t->events->input(t->opaque, bytes, len);
}

static void on_output_ready(void *opaque)
{
    struct terminal *t = opaque;

    t->events->output_ready(t->opaque);
}

static size_t on_examine(void *opaque, const uint8_t *bytes, size_t len)
{
    struct terminal *t = opaque;
    const uint8_t *key = t->interactive ? memchr(bytes, KEY_LEAVE, len) : NULL;

    if (!key)
        return len;
    t->events->leave(t->opaque);
    return (size_t)(key - bytes);
}

static void on_input_ended(void *opaque)
{
    struct terminal *t = opaque;

    if (!t->interactive && t->events->input_ended)
        t->events->input_ended(t->opaque);
}

static void on_output_broke(void *opaque)
{
    struct terminal *t = opaque;

    t->events->ended(t->opaque, SIGPIPE);
}

static const struct stream_events stream_events = {
    .input = on_input,
    .output_ready = on_output_ready,
    .examine = on_examine,
    .input_ended = on_input_ended,
    .output_broke = on_output_broke,
};

size_t terminal_write(struct terminal *terminal, const void *bytes, size_t len)
{
    return stream_write(terminal->stream, bytes, len);
}

size_t terminal_room(struct terminal *terminal)
{
    return stream_room(terminal->stream);
}

void terminal_input_ready(struct terminal *terminal)
{
    stream_input_ready(terminal->stream);
}

bool terminal_is_interactive(const struct terminal *terminal)
{
    return terminal->interactive;
}

void terminal_size(int fd, uint16_t *columns, uint16_t *rows)
{
    struct winsize size;

    *columns = *rows = 0;
    if (ioctl(fd, TIOCGWINSZ, &size) == 0) {
        *columns = size.ws_col;
        *rows = size.ws_row;
    }
}

static void on_signal(void *opaque, uint32_t events)
{
    struct terminal *t = opaque;
    unsigned char sig;

    if (read(t->signal_pipe[0], &sig, 1) == 1)
        t->events->ended(t->opaque, sig);
}

static void on_resize(void *opaque, uint32_t events)
{
    struct terminal *t = opaque;
    struct signalfd_siginfo info;
    uint16_t columns, rows;

    /* Only that it came counts: the size is asked for now. */
    while (read(t->resize_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        ;
    terminal_size(t->out_fd, &columns, &rows);
    t->events->resized(t->opaque, columns, rows);
}

/* Without it a guest keeps the size that it started with: no reason not to run. */
static void watch_size(struct terminal *t)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGWINCH);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    t->resize_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (t->resize_fd >= 0)
        loop_watch_add(t->loop, t->resize_fd, EPOLLIN, on_resize, t, &t->resize_watch);
}

static int open_all(struct terminal *t, struct error **err)
{
    if (pipe2(t->signal_pipe, O_CLOEXEC | O_NONBLOCK) < 0)
        return error_set_errno(err, errno, "console");
    int rc = loop_watch_add(t->loop, t->signal_pipe[0], EPOLLIN, on_signal, t, &t->signal_watch);
    if (rc == 0)
        rc = terminal_mode_enter(t->in_fd, t->signal_pipe[1], &t->interactive);
    if (rc)
        return error_set_errno(err, -rc, "console");
    t->mode_entered = true;
    struct stream_config config = {
        .loop = t->loop,
        .in_fd = t->in_fd,
        .out_fd = t->out_fd,
        /* A person's keys are read even when the guest takes none: one of them may be Ctrl-]. */
        .always_read = t->interactive,
        .out_delay_ns = OUTPUT_DELAY_NS,
        .events = &stream_events,
        .opaque = t,
    };
    rc = stream_open(&t->stream, &config, err);
    if (rc == 0 && t->events->resized)
        watch_size(t);
    return rc;
}

int terminal_open(struct terminal **out, struct loop *loop, int in_fd, int out_fd,
                  const struct terminal_events *events, void *opaque, struct error **err)
{
    struct terminal *t = calloc(1, sizeof(*t));

    if (!t)
        return error_set_errno(err, ENOMEM, "console");
    *t = (struct terminal){
        .loop = loop,
        .events = events,
        .opaque = opaque,
        .in_fd = in_fd,
        .out_fd = out_fd,
        .signal_pipe = {-1, -1},
        .resize_fd = -1,
    };
    int rc = open_all(t, err);
    if (rc) {
        terminal_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

void terminal_close(struct terminal *terminal)
{
    struct terminal *t = terminal;

    if (!t)
        return;
    stream_close(t->stream, CLOSE_WAIT_MS);
    if (t->mode_entered)
        terminal_mode_leave();
    loop_watch_remove(t->signal_watch);
    loop_watch_remove(t->resize_watch);
    for (int i = 0; i < 2; i++)
        if (t->signal_pipe[i] >= 0)
            close(t->signal_pipe[i]);
    if (t->resize_fd >= 0)
        close(t->resize_fd);
    free(t);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The terminal's end of a guest's console: between the terminal and the supervisor. One thread, one loop. */
#include "base/cleanup.h"
#include "base/error.h"
#include "guest/control.h"
#include "guest/end.h"
#include "host/loop.h"
#include "host/stream.h"
#include "host/terminal.h"

#include <errno.h>

#define ANSWER_MS 10000

struct attachment {
    const struct home *home;
    const char *name;
    struct loop *loop;
    struct terminal *terminal;
    struct stream *stream;
    enum guest_attach_end how;
    int signal;
};

static size_t on_typed(void *opaque, const uint8_t *bytes, size_t len)
{
    struct attachment *a = opaque;

    return a->stream ? stream_write(a->stream, bytes, len) : 0;
}

static void on_terminal_takes_more(void *opaque)
{
    struct attachment *a = opaque;

    stream_input_ready(a->stream);
}

static void end(struct attachment *a, enum guest_attach_end how)
{
    a->how = how;
    loop_stop(a->loop, 0);
}

static void on_leave(void *opaque)
{
    end(opaque, GUEST_ATTACH_LEFT);
}

static void on_signal(void *opaque, int signal)
{
    struct attachment *a = opaque;

    a->signal = signal;
    end(a, GUEST_ATTACH_SIGNAL);
}

/* The console's connection carries nothing but the console. The answer is of no use. */
static void on_resized(void *opaque, uint16_t columns, uint16_t rows)
{
    struct attachment *a = opaque;
    struct control_request request = {.verb = CONTROL_RESIZE, .columns = columns, .rows = rows};
    cleanup_close int fd = control_connect(a->home, a->name, NULL);

    if (fd >= 0)
        control_send(fd, &request, NULL);
}

static const struct terminal_events terminal_events = {
    .input = on_typed,
    .output_ready = on_terminal_takes_more,
    .leave = on_leave,
    .ended = on_signal,
    .resized = on_resized,
};

static size_t on_output(void *opaque, const uint8_t *bytes, size_t len)
{
    struct attachment *a = opaque;

    return terminal_write(a->terminal, bytes, len);
}

static void on_guest_takes_more(void *opaque)
{
    struct attachment *a = opaque;

    terminal_input_ready(a->terminal);
}

static void on_guest_ended(void *opaque)
{
    end(opaque, GUEST_ATTACH_ENDED);
}

static const struct stream_events stream_events = {
    .input = on_output,
    .output_ready = on_guest_takes_more,
    .input_ended = on_guest_ended,
    .output_broke = on_guest_ended,
};

static int connect_console(struct attachment *a, int fd, struct error **err)
{
    struct control_request request = {.verb = CONTROL_CONSOLE};
    json_t *answer = NULL;

    terminal_size(STDOUT_FILENO, &request.columns, &request.rows);
    int rc = control_send(fd, &request, err);
    if (rc == 0)
        rc = control_receive(fd, ANSWER_MS, &answer, err);
    json_decref(answer);
    return rc ? error_wrap(err, "guest '%s'", a->name) : 0;
}

static int serve(struct attachment *a, int fd, struct error **err)
{
    struct stream_config config = {.in_fd = fd, .out_fd = fd, .events = &stream_events, .opaque = a};
    int rc = loop_create(&a->loop, err);

    config.loop = a->loop;
    if (rc == 0)
        rc = terminal_open(&a->terminal, a->loop, STDIN_FILENO, STDOUT_FILENO, &terminal_events, a, err);
    if (rc == 0)
        rc = stream_open(&a->stream, &config, err);
    if (rc == 0) {
        terminal_input_ready(a->terminal);
        loop_run(a->loop);
    }
    stream_close(a->stream, 0);
    terminal_close(a->terminal);
    loop_free(a->loop);
    return rc;
}

int guest_attach(const struct home *home, const char *name, enum guest_attach_end *how, int *signal,
                 struct error **err)
{
    struct attachment a = {.home = home, .name = name};
    cleanup_close int fd = control_connect(home, name, err);

    if (fd < 0)
        return fd;
    int rc = connect_console(&a, fd, err);
    if (rc == 0)
        rc = serve(&a, fd, err);
    if (rc == 0) {
        *how = a.how;
        *signal = a.signal;
    }
    return rc;
}

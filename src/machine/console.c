/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's consoles on a socket. Output comes from vCPU threads and the loop's, input from the loop's;
 * what they share is atomic or has a lock.
 */
#include "machine/console.h"

#include "base/cleanup.h"
#include "host/loop.h"
#include "host/stream.h"

/* A guest writes its console byte by byte: what comes within this time goes out in one write. */
#define OUTPUT_DELAY_NS 1000000ull

#define CLOSE_WAIT_MS 1000

static size_t port_output(struct char_backend *backend, const uint8_t *bytes, size_t len)
{
    struct console *c = backend->opaque;
    int port = (int)(backend - c->ports);

    if (!c->stream)
        return len;
    /* Whoever sees a prompt may answer at once: its focus must be known by then. */
    LOCK_SCOPE(&c->lock);
    size_t n = stream_write(c->stream, bytes, len);
    if (n < len) {
        atomic_store(&c->refused[port], true);
        /* Room may have come before it was noted that somebody waits for it; then nobody would say so. */
        size_t more = stream_write(c->stream, bytes + n, len - n);
        n += more;
        if (n == len)
            atomic_store(&c->refused[port], false);
    }
    console_focus_output(&c->focus, port, bytes, n, loop_now());
    return n;
}

static void port_input_ready(struct char_backend *backend)
{
    struct console *c = backend->opaque;

    if (c->stream)
        stream_input_ready(c->stream);
}

static enum console_port focus_of_input(struct console *c, const uint8_t *bytes, size_t len)
{
    LOCK_SCOPE(&c->lock);
    return console_focus_input(&c->focus, bytes, len, loop_now());
}

static size_t on_input(void *opaque, const uint8_t *bytes, size_t len)
{
    struct console *c = opaque;
    struct char_backend *port = &c->ports[focus_of_input(c, bytes, len)];

    /* No such device: what is typed is lost, as on a line that nobody listens to. */
    return port->input ? port->input(port->device, bytes, len) : len;
}

static void on_output_ready(void *opaque)
{
    struct console *c = opaque;

    for (int i = 0; i < CONSOLE_PORTS; i++)
        if (atomic_exchange(&c->refused[i], false) && c->ports[i].output_ready)
            c->ports[i].output_ready(c->ports[i].device);
}

void console_init(struct console *c)
{
    *c = (struct console){.lock = PTHREAD_MUTEX_INITIALIZER};
    for (int i = 0; i < CONSOLE_PORTS; i++)
        c->ports[i] =
            (struct char_backend){.output = port_output, .input_ready = port_input_ready, .opaque = c};
}

void console_reset(struct console *c)
{
    LOCK_SCOPE(&c->lock);
    c->focus = (struct console_focus){0};
}

int console_begin(struct console *c, struct loop *loop, int fd, struct error **err)
{
    static const struct stream_events events = {.input = on_input, .output_ready = on_output_ready};
    struct stream_config config = {
        .loop = loop,
        .in_fd = fd,
        .out_fd = fd,
        .out_delay_ns = OUTPUT_DELAY_NS,
        .events = &events,
        .opaque = c,
    };

    return stream_open(&c->stream, &config, err);
}

void console_close(struct console *c)
{
    struct stream *stream = c->stream;

    c->stream = NULL;
    stream_close(stream, CLOSE_WAIT_MS);
}

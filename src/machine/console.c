/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's consoles on the person's terminal. Output comes from vCPU threads and the loop's, input and the
 * terminal's events from the loop's; what they share is atomic.
 */
#include "machine/console.h"

#include "base/bytes.h"
#include "host/loop.h"
#include "host/terminal.h"
#include "machine/vm.h"

#include <sys/ioctl.h>
#include <unistd.h>

static size_t port_output(struct char_backend *backend, const uint8_t *bytes, size_t len)
{
    struct console *c = backend->opaque;
    int port = (int)(backend - c->ports);

    if (!c->terminal)
        return len;
    if (len)
        atomic_store(&c->focus, port);
    size_t n = terminal_write(c->terminal, bytes, len);
    if (n < len) {
        atomic_store(&c->refused[port], true);
        /* Room may have come before it was noted that somebody waits for it; then nobody would say so. */
        size_t more = terminal_write(c->terminal, bytes + n, len - n);
        n += more;
        if (n == len)
            atomic_store(&c->refused[port], false);
    }
    return n;
}

static void port_input_ready(struct char_backend *backend)
{
    struct console *c = backend->opaque;

    if (c->terminal)
        terminal_input_ready(c->terminal);
}

static size_t on_input(void *opaque, const uint8_t *bytes, size_t len)
{
    struct console *c = opaque;
    struct char_backend *port = &c->ports[atomic_load(&c->focus)];

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

static void leave(struct console *c, int status)
{
    int none = 0;

    atomic_compare_exchange_strong(&c->left, &none, status);
    loop_stop(c->loop, 0);
}

static void on_leave(void *opaque)
{
    leave(opaque, VM_EXIT_LEFT);
}

static void on_ended(void *opaque, int signal)
{
    leave(opaque, VM_EXIT_SIGNAL + signal);
}

void console_init(struct console *c, struct loop *loop)
{
    *c = (struct console){.loop = loop};
    for (int i = 0; i < CONSOLE_PORTS; i++)
        c->ports[i] =
            (struct char_backend){.output = port_output, .input_ready = port_input_ready, .opaque = c};
}

int console_open(struct console *c, struct error **err)
{
    static const struct terminal_events events = {
        .input = on_input,
        .output_ready = on_output_ready,
        .leave = on_leave,
        .ended = on_ended,
    };

    return terminal_open(&c->terminal, c->loop, STDIN_FILENO, STDOUT_FILENO, &events, c, err);
}

void console_close(struct console *c)
{
    struct terminal *terminal = c->terminal;

    c->terminal = NULL;
    terminal_close(terminal);
}

void console_size(uint16_t *columns, uint16_t *rows)
{
    struct winsize size = {0};

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0)
        size = (struct winsize){0};
    *columns = size.ws_col;
    *rows = size.ws_row;
}

int console_left(const struct console *c)
{
    return atomic_load(&c->left);
}

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

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
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

static void on_resize(void *opaque, uint32_t events)
{
    struct console *c = opaque;
    struct signalfd_siginfo info;
    uint16_t columns, rows;

    /* Only that it came counts: the size is asked for now. */
    while (read(c->resize_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        ;
    console_size(&columns, &rows);
    if (c->resized)
        c->resized(c->opaque, columns, rows);
}

static void window_signal(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGWINCH);
}

/* Without it a guest keeps the size that it started with: no reason not to run. */
static void watch_size(struct console *c)
{
    sigset_t set;

    window_signal(&set);
    c->resize_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (c->resize_fd >= 0)
        loop_watch_add(c->loop, c->resize_fd, EPOLLIN, on_resize, c, &c->resize_watch);
}

void console_init(struct console *c, struct loop *loop)
{
    sigset_t set;

    *c = (struct console){.loop = loop, .resize_fd = -1};
    window_signal(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
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

    int rc = terminal_open(&c->terminal, c->loop, STDIN_FILENO, STDOUT_FILENO, &events, c, err);

    if (rc == 0)
        watch_size(c);
    return rc;
}

void console_close(struct console *c)
{
    struct terminal *terminal = c->terminal;

    c->terminal = NULL;
    terminal_close(terminal);
    loop_watch_remove(c->resize_watch);
    c->resize_watch = NULL;
    if (c->resize_fd >= 0)
        close(c->resize_fd);
    c->resize_fd = -1;
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

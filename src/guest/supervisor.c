/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The supervisor of one guest: starts its VM process, joins its console to the terminal, and tells how it
 * ended. It reads nothing of the guest but console bytes, which mean nothing here, and checked messages. One
 * thread, so no locks.
 */
#include "guest/guest.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "host/confine.h"
#include "host/loop.h"
#include "host/stream.h"
#include "host/terminal.h"
#include "machine/vm_process.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

/* How long a VM process may take for an orderly end before it is killed. */
#define QUIT_NS (3000 * 1000000ull)
/* How long a reader of the console may take for nothing at all, once the guest has ended. */
#define DRAIN_NS (1000 * 1000000ull)

struct supervisor {
    struct loop *loop;
    struct vm_process vm;
    struct loop_watch *control_watch;
    struct stream *console;
    bool console_ended;
    struct terminal *terminal;
    struct loop_timer *limit; /* of an orderly end, then of the last output */
    int signal_fd;
    struct loop_watch *signal_watch;
    int early_signal; /* that came before there was a guest */
    int left;         /* what the person's leaving makes the exit status, or 0 */
    bool ended;       /* VM_ENDED came */
    struct vm_message end;
};

/* ---- console ---- */

static size_t on_guest_output(void *opaque, const uint8_t *bytes, size_t len)
{
    struct supervisor *s = opaque;

    if (!s->vm.pid)
        loop_timer_arm(s->limit, loop_now() + DRAIN_NS);
    return terminal_write(s->terminal, bytes, len);
}

static void on_guest_takes_more(void *opaque)
{
    struct supervisor *s = opaque;

    terminal_input_ready(s->terminal);
}

/* The VM process has closed its end: all output is here. */
static void on_console_ended(void *opaque)
{
    struct supervisor *s = opaque;

    s->console_ended = true;
    if (!s->vm.pid)
        loop_stop(s->loop, 0);
}

static const struct stream_events console_events = {
    .input = on_guest_output,
    .output_ready = on_guest_takes_more,
    .input_ended = on_console_ended,
};

static size_t on_typed(void *opaque, const uint8_t *bytes, size_t len)
{
    struct supervisor *s = opaque;

    return stream_write(s->console, bytes, len);
}

static void on_terminal_takes_more(void *opaque)
{
    struct supervisor *s = opaque;

    stream_input_ready(s->console);
}

/* The VM is given the time to leave its disks in order. */
static void leave(struct supervisor *s, int status)
{
    if (s->left)
        return;
    s->left = status;
    if (vm_process_tell(&s->vm, VM_QUIT) == 0)
        loop_timer_arm(s->limit, loop_now() + QUIT_NS);
    else
        loop_timer_arm(s->limit, 0);
}

static void on_leave(void *opaque)
{
    leave(opaque, GUEST_EXIT_LEFT);
}

static void on_signal_ended(void *opaque, int signal)
{
    leave(opaque, GUEST_EXIT_SIGNAL + signal);
}

static void on_resized(void *opaque, uint16_t columns, uint16_t rows)
{
    struct supervisor *s = opaque;
    struct vm_message m = {.type = VM_RESIZE, .columns = columns, .rows = rows};

    vm_message_send(s->vm.control_fd, &m);
}

static const struct terminal_events terminal_events = {
    .input = on_typed,
    .output_ready = on_terminal_takes_more,
    .leave = on_leave,
    .ended = on_signal_ended,
    .resized = on_resized,
};

static int open_console(struct supervisor *s, struct error **err)
{
    int fd = s->vm.console_fd;
    struct stream_config config = {
        .loop = s->loop, .in_fd = fd, .out_fd = fd, .events = &console_events, .opaque = s};
    int rc = terminal_open(&s->terminal, s->loop, STDIN_FILENO, STDOUT_FILENO, &terminal_events, s, err);

    return rc ? rc : stream_open(&s->console, &config, err);
}

/* ---- signals before there is a terminal that handles them ---- */

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

static void on_early_signal(void *opaque, uint32_t events)
{
    struct supervisor *s = opaque;
    struct signalfd_siginfo info;

    if (read(s->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    s->early_signal = (int)info.ssi_signo;
    loop_stop(s->loop, 0);
}

static int hold_signals(struct supervisor *s, struct error **err)
{
    sigset_t set;

    ending_signals(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    int rc = s->signal_fd < 0
                 ? -errno
                 : loop_watch_add(s->loop, s->signal_fd, EPOLLIN, on_early_signal, s, &s->signal_watch);
    return rc ? error_set_errno(err, -rc, "signals") : 0;
}

/* From here on they go where they always go; one that waits is delivered now. */
static void release_signals(struct supervisor *s)
{
    sigset_t set;

    if (s->signal_fd < 0)
        return;
    loop_watch_remove(s->signal_watch);
    s->signal_watch = NULL;
    close(steal_fd(s->signal_fd));
    ending_signals(&set);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* ---- the VM process ---- */

static void on_ready(struct supervisor *s)
{
    cleanup_error struct error *err = NULL;

    if (s->terminal)
        return;
    if (open_console(s, &err)) {
        s->ended = true;
        s->end = (struct vm_message){.type = VM_ENDED, .end = VM_END_FAILED, .status = VM_EXIT_FAILED};
        vm_message_set_text(&s->end, error_message(err));
        loop_stop(s->loop, 0);
    }
    release_signals(s);
}

/* What happens in the guest and does not end it. The terminal is raw while the guest has it. */
static void note(const char *what)
{
    const char *end = isatty(STDERR_FILENO) ? "\r\n" : "\n";

    fprintf(stderr, "%stabique: %s%s", isatty(STDERR_FILENO) ? end : "", what, end);
}

static void on_message(struct supervisor *s, const struct vm_message *m)
{
    if (m->type == VM_READY) {
        on_ready(s);
    } else if (m->type == VM_ENDED && !s->ended) {
        s->ended = true;
        s->end = *m;
    } else if (m->type == VM_CRASH_LOADED) {
        note("the guest has panicked; its crash kernel takes over");
    } else if (m->type == VM_WATCHDOG) {
        note("the guest's watchdog has expired");
    }
}

/* The process is gone, or no longer says anything that makes sense: it goes now. */
static void on_vm_gone(struct supervisor *s)
{
    int status = -1;

    loop_watch_remove(s->control_watch);
    s->control_watch = NULL;
    /* The console's end is still to be read. */
    int console_fd = steal_fd(s->vm.console_fd);
    status = vm_process_end(&s->vm);
    s->vm.console_fd = console_fd;
    if (!s->ended && !s->left) {
        const char *violation = confine_violation(status);
        char text[256];

        s->end = (struct vm_message){.type = VM_ENDED, .end = VM_END_FAILED, .status = VM_EXIT_FAILED};
        snprintf(text, sizeof(text), "the virtual machine's process ended by %s %d",
                 WIFSIGNALED(status) ? "signal" : "itself with status",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        if (violation)
            snprintf(text, sizeof(text), "the virtual machine's process: %s", violation);
        vm_message_set_text(&s->end, text);
    }
    if (!s->console || s->console_ended)
        loop_stop(s->loop, 0);
    else
        loop_timer_arm(s->limit, loop_now() + DRAIN_NS);
}

static void on_control(void *opaque, uint32_t events)
{
    struct supervisor *s = opaque;
    struct vm_message m;
    int rc = vm_message_receive(s->vm.control_fd, true, &m);

    if (rc == 0)
        on_message(s, &m);
    else if (rc != -EAGAIN)
        on_vm_gone(s);
}

static void on_limit(void *opaque)
{
    struct supervisor *s = opaque;

    if (s->vm.pid)
        on_vm_gone(s);
    else
        loop_stop(s->loop, 0);
}

static int start(struct supervisor *s, const struct vm_config *config, struct error **err)
{
    struct vm_config with_size = *config;
    int rc = loop_create(&s->loop, err);

    if (rc)
        return rc;
    s->limit = loop_timer_new(s->loop, on_limit, s);
    if (!s->limit)
        return error_set_errno(err, ENOMEM, "supervisor");
    rc = hold_signals(s, err);
    if (rc)
        return rc;
    terminal_size(STDOUT_FILENO, &with_size.columns, &with_size.rows);
    rc = vm_process_start(&s->vm, &with_size, err);
    if (rc)
        return rc;
    rc = loop_watch_add(s->loop, s->vm.control_fd, EPOLLIN, on_control, s, &s->control_watch);
    return rc ? error_set_errno(err, -rc, "control channel") : 0;
}

static void stop(struct supervisor *s)
{
    stream_close(s->console, 0);
    terminal_close(s->terminal);
    loop_watch_remove(s->control_watch);
    vm_process_end(&s->vm);
    loop_timer_free(s->limit);
    release_signals(s);
    loop_free(s->loop);
}

int guest_run(const struct vm_config *config, int *status, struct error **err)
{
    struct supervisor s = {.vm = VM_PROCESS_NONE, .signal_fd = -1};
    int rc = start(&s, config, err);

    *status = VM_EXIT_FAILED;
    if (rc == 0)
        loop_run(s.loop);
    if (s.early_signal)
        vm_process_end(&s.vm);
    stop(&s);
    if (rc)
        return rc;
    if (s.early_signal) {
        raise(s.early_signal);
        s.left = GUEST_EXIT_SIGNAL + s.early_signal; /* where its handler lets us live */
    }
    *status = s.left ? s.left : s.end.status;
    if (!s.left && s.end.text[0])
        return error_set(err, EIO, "%s", s.end.text);
    return 0;
}

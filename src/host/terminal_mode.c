/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Raw mode, and the way back from it on every end that a process can have. Used by terminal.c. State is
 * static since signal handlers need it: there is one controlling terminal a process. No locks.
 */
#include "host/terminal_mode.h"

#include "base/bytes.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

/* Those that ask the process to end, and those that tell of a bug. */
static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP};
static const int fatal_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGQUIT, SIGSYS, SIGTRAP};

static struct {
    atomic_bool entered;
    atomic_bool raw; /* `saved` is to be restored */
    int in_fd;
    int signal_fd;
    struct termios saved, wanted;
    atomic_int signals_seen;
    struct sigaction old_ending[ARRAY_SIZE(ending_signals)];
    struct sigaction old_fatal[ARRAY_SIZE(fatal_signals)];
    struct sigaction old_cont, old_pipe;
} mode;

/*
 * tcsetattr from a background process group of the controlling terminal would stop the process, and must not
 * in a handler that is on its way out. (On any other terminal tcgetpgrp fails, and nothing is stopped.)
 */
static bool in_foreground(void)
{
    pid_t group = tcgetpgrp(mode.in_fd);

    return group < 0 || group == getpgrp();
}

static void restore_settings(void)
{
    int saved_errno = errno;

    if (atomic_exchange(&mode.raw, false) && in_foreground())
        tcsetattr(mode.in_fd, TCSANOW, &mode.saved);
    errno = saved_errno;
}

static void die_of(int sig)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};

    restore_settings();
    sigaction(sig, &dfl, NULL);
    raise(sig);
}

static void on_ending(int sig)
{
    int saved_errno = errno;
    unsigned char byte = (unsigned char)sig;

    /* One who asks twice does not want to wait for an orderly end. */
    if (atomic_fetch_add(&mode.signals_seen, 1) > 0 || write(mode.signal_fd, &byte, 1) != 1)
        die_of(sig);
    errno = saved_errno;
}

/* Continued after a stop: the shell has put its own settings back meanwhile. */
static void on_continue(int sig)
{
    int saved_errno = errno;

    if (atomic_load(&mode.raw) && in_foreground())
        tcsetattr(mode.in_fd, TCSANOW, &mode.wanted);
    errno = saved_errno;
}

static void install_signals(void)
{
    struct sigaction ending = {.sa_handler = on_ending, .sa_flags = SA_RESTART | SA_ONSTACK};
    struct sigaction fatal = {.sa_handler = die_of, .sa_flags = SA_ONSTACK};
    struct sigaction cont = {.sa_handler = on_continue, .sa_flags = SA_RESTART | SA_ONSTACK};
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    for (size_t i = 0; i < ARRAY_SIZE(ending_signals); i++) {
        sigaction(ending_signals[i], NULL, &mode.old_ending[i]);
        /* Whoever started us with one ignored (nohup) meant it. */
        if (mode.old_ending[i].sa_handler != SIG_IGN)
            sigaction(ending_signals[i], &ending, NULL);
    }
    for (size_t i = 0; i < ARRAY_SIZE(fatal_signals); i++) {
        sigaction(fatal_signals[i], NULL, &mode.old_fatal[i]);
        /* An engine that handles its faults, or a sanitizer, keeps its handler. */
        if (mode.old_fatal[i].sa_handler == SIG_DFL)
            sigaction(fatal_signals[i], &fatal, NULL);
    }
    sigaction(SIGCONT, &cont, &mode.old_cont);
    sigaction(SIGPIPE, &ignore, &mode.old_pipe);
}

/* Puts back what was there, unless someone else has changed it since. */
static void uninstall(int sig, void (*ours)(int), const struct sigaction *old)
{
    struct sigaction now;

    if (sigaction(sig, NULL, &now) == 0 && now.sa_handler == ours)
        sigaction(sig, old, NULL);
}

int terminal_mode_enter(int in_fd, int signal_fd, bool *raw)
{
    static atomic_bool at_exit;

    if (atomic_exchange(&mode.entered, true))
        return -EBUSY;
    mode.in_fd = in_fd;
    mode.signal_fd = signal_fd;
    atomic_store(&mode.signals_seen, 0);
    if (!atomic_exchange(&at_exit, true))
        atexit(restore_settings);
    install_signals();
    *raw = isatty(in_fd) && tcgetattr(in_fd, &mode.saved) == 0;
    if (*raw) {
        mode.wanted = mode.saved;
        cfmakeraw(&mode.wanted);
        mode.wanted.c_cc[VMIN] = 1;
        mode.wanted.c_cc[VTIME] = 0;
        /* Marked first: a signal in between then restores what is there already. */
        atomic_store(&mode.raw, true);
        tcsetattr(in_fd, TCSANOW, &mode.wanted);
    }
    return 0;
}

void terminal_mode_leave(void)
{
    if (!atomic_load(&mode.entered))
        return;
    restore_settings();
    for (size_t i = 0; i < ARRAY_SIZE(ending_signals); i++)
        uninstall(ending_signals[i], on_ending, &mode.old_ending[i]);
    for (size_t i = 0; i < ARRAY_SIZE(fatal_signals); i++)
        uninstall(fatal_signals[i], die_of, &mode.old_fatal[i]);
    uninstall(SIGCONT, on_continue, &mode.old_cont);
    uninstall(SIGPIPE, SIG_IGN, &mode.old_pipe);
    atomic_store(&mode.entered, false);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The terminal's settings and the signals that touch them: the part of terminal.h that has to work in signal
 * handlers, and so lives in static storage.
 */
#ifndef TABIQUE_HOST_TERMINAL_MODE_H
#define TABIQUE_HOST_TERMINAL_MODE_H

#include <stdbool.h>

/*
 * Puts the terminal `in_fd` into raw mode if it is one, and has the signals SIGINT, SIGTERM and SIGHUP write
 * their number to `signal_fd` as one byte. *raw tells whether it was a terminal. 0 or -errno; -EBUSY if the
 * process has done so already.
 */
int terminal_mode_enter(int in_fd, int signal_fd, bool *raw);

/* Back to what it was before. Also runs at exit and on fatal signals; safe in signal handlers. */
void terminal_mode_leave(void);

#endif

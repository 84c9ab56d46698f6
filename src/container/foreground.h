/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A container's process in the foreground of this one: signals go to it, its end is waited for. */
#ifndef TABIQUE_CONTAINER_FOREGROUND_H
#define TABIQUE_CONTAINER_FOREGROUND_H

#include <sys/types.h>

/* Before the process is made, so that no signal is lost; they are blocked from here on. A descriptor or
 * -errno. */
int foreground_begin(void);

/*
 * Passes signals on to `pid`, a child, and what is typed and printed between this process's standard input
 * and output and the terminal whose master is `master` (-1: none), until the process has ended. Its exit
 * status, or 128 and its signal's number; -errno.
 */
int foreground_follow(int signals, pid_t pid, int master);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a guest wrote to its console, kept in its directory: console.log, and before it console.log.1. Its
 * size is bounded, so that a guest can't fill the host's disk.
 */
#ifndef TABIQUE_GUEST_CONSOLE_LOG_H
#define TABIQUE_GUEST_CONSOLE_LOG_H

#include <stddef.h>
#include <stdint.h>

#define CONSOLE_LOG     "console.log"
#define CONSOLE_LOG_OLD "console.log.1"
#define CONSOLE_LOG_MAX (8u << 20) /* bytes of each of the two */

struct console_log {
    char *directory;
    int fd; /* -1: could not be opened; tried again as it grows */
    uint64_t size;
    uint64_t lost; /* bytes that found no room on the disk */
};

/* Begins to write after what is there. `directory` is copied. */
void console_log_open(struct console_log *log, const char *directory);
/* Never fails: what can't be written is counted as lost. */
void console_log_write(struct console_log *log, const void *bytes, size_t len);
void console_log_close(struct console_log *log);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The console's log. Called by the supervisor alone, so no locks; readers follow the file's name. */
#include "guest/console_log.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static void open_file(struct console_log *log)
{
    cleanup_free char *path = NULL;
    struct stat st;

    if (!log->directory || asprintf(&path, "%s/" CONSOLE_LOG, log->directory) < 0)
        return;
    log->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    log->size = log->fd >= 0 && fstat(log->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

void console_log_open(struct console_log *log, const char *directory)
{
    *log = (struct console_log){.directory = strdup(directory), .fd = -1};
    open_file(log);
}

static void turn_over(struct console_log *log)
{
    cleanup_free char *path = NULL, *old = NULL;

    if (asprintf(&path, "%s/" CONSOLE_LOG, log->directory) < 0 ||
        asprintf(&old, "%s/" CONSOLE_LOG_OLD, log->directory) < 0)
        return;
    /* One that somebody has deleted must not grow unseen. */
    if (rename(path, old) < 0 && errno != ENOENT)
        return;
    close(steal_fd(log->fd));
    open_file(log);
}

void console_log_write(struct console_log *log, const void *bytes, size_t len)
{
    if (log->fd >= 0 && log->size >= CONSOLE_LOG_MAX)
        turn_over(log);
    if (log->fd < 0)
        open_file(log);
    while (log->fd >= 0 && len > 0) {
        ssize_t n = write(log->fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        log->size += (uint64_t)n;
        bytes = (const char *)bytes + n;
        len -= (size_t)n;
    }
    log->lost += len;
}

void console_log_close(struct console_log *log)
{
    cleanup_close_fn(&log->fd);
    free(log->directory);
    *log = (struct console_log){.fd = -1};
}

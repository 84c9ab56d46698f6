/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `logs`: the console's log, the part before it first, and what comes to it. */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/guests.h"
#include "guest/console_log.h"
#include "guest/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

/* How often it is looked whether the guest still runs. */
#define LOOK_MS 250

static int copy(int fd, struct error **err)
{
    static char bytes[65536];

    for (;;) {
        ssize_t n = read(fd, bytes, sizeof(bytes));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(err, errno, "console log");
        if (n == 0)
            return 0;
        if (fwrite(bytes, 1, (size_t)n, stdout) != (size_t)n)
            return error_set_errno(err, errno, "standard output");
    }
}

static int open_log(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    return fd < 0 ? -errno : fd;
}

/* 0 with *fd, which stays -1 where there is none; or -errno with *err. */
static int open_if_there(const char *path, int *fd, struct error **err)
{
    int got = open_log(path);

    if (got < 0 && got != -ENOENT)
        return error_set_errno(err, -got, "'%s'", path);
    *fd = got < 0 ? -1 : got;
    return 0;
}

/* Whether the path names another file by now: the log was turned over. */
static bool is_other(int fd, const char *path)
{
    struct stat ours, theirs;

    return stat(path, &theirs) == 0 && (fd < 0 || fstat(fd, &ours) < 0 || ours.st_ino != theirs.st_ino);
}

static void wait_for_more(int watch_fd)
{
    struct pollfd p = {.fd = watch_fd, .events = POLLIN};
    char events[4096];

    if (poll(&p, 1, LOOK_MS) > 0 && read(watch_fd, events, sizeof(events)) < 0)
        poll(NULL, 0, LOOK_MS);
}

static int follow(const char *directory, const char *path, int *fd, struct error **err)
{
    cleanup_close int watch_fd = inotify_init1(IN_CLOEXEC);
    bool live = true;
    int rc = 0;

    if (watch_fd >= 0)
        inotify_add_watch(watch_fd, directory, IN_MODIFY | IN_CREATE | IN_MOVED_TO);
    while (rc == 0 && live) {
        /* Asked before the last reading: what it wrote before its end is then read. */
        live = lock_holder(directory) != LOCK_FREE;
        rc = *fd < 0 ? 0 : copy(*fd, err);
        while (rc == 0 && is_other(*fd, path)) {
            cleanup_close_fn(fd);
            rc = open_if_there(path, fd, err);
            if (rc == 0 && *fd >= 0)
                rc = copy(*fd, err);
        }
        if (rc == 0 && fflush(stdout) != 0)
            rc = error_set_errno(err, errno, "standard output");
        if (rc == 0 && live)
            wait_for_more(watch_fd);
    }
    return rc;
}

static int print(const struct home *home, const char *name, bool following, struct error **err)
{
    cleanup_free char *directory = guest_path(home, name, NULL), *path = guest_path(home, name, CONSOLE_LOG),
                      *old_path = guest_path(home, name, CONSOLE_LOG_OLD);
    cleanup_close int fd = -1, old_fd = -1;

    if (!directory || !path || !old_path)
        return error_set_errno(err, ENOMEM, "console log");
    /* The newer first: turned over in between, a part would be missing otherwise. */
    int rc = open_if_there(path, &fd, err);
    if (rc == 0)
        rc = open_if_there(old_path, &old_fd, err);
    if (rc == 0 && old_fd >= 0)
        rc = copy(old_fd, err);
    if (rc == 0 && fd >= 0)
        rc = copy(fd, err);
    return rc || !following ? rc : follow(directory, path, &fd, err);
}

int cli_logs(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    struct guest_row row;
    int rc = home_find(&home, err);

    if (rc == 0)
        rc = guest_find(&home, cli_string(values, "NAME"), &row, err);
    if (rc)
        return rc;
    guest_row_clear(&row);
    rc = print(&home, cli_string(values, "NAME"), cli_bool(values, "follow"), err);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}

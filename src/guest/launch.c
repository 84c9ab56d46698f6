/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a guest's supervisor lives: in the process that was called, or in one of its own in the background,
 * which tells through a pipe whether the guest runs. Called by the command line.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "guest/guest.h"
#include "guest/supervisor.h"
#include "host/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

int guest_run(struct guest *guest, bool fresh, int *status, struct error **err)
{
    struct supervision how = {.foreground = true, .fresh = fresh, .ready_fd = -1};

    return supervise(guest, &how, status, err);
}

/* Nothing of who started us stays open: a shell that reads our output would wait for us. */
static void leave_everything(int lock_fd, int ready_fd)
{
    const int keep[] = {lock_fd, ready_fd};
    int null = open("/dev/null", O_RDWR);

    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        dup2(null, fd);
    descriptors_close_but(STDERR_FILENO + 1, keep, 2);
    setsid();
    umask(077);
    if (chdir("/") < 0)
        _exit(1);
    signal(SIGPIPE, SIG_IGN);
    /* Whoever starts a guest from a script under nohup still wants it to end with the host. */
    signal(SIGHUP, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    prctl(PR_SET_NAME, "tabique-guest");
}

_Noreturn static void run_in_background(struct guest *guest, bool fresh, int ready_fd)
{
    cleanup_error struct error *err = NULL;
    struct supervision how = {.fresh = fresh, .ready_fd = ready_fd};
    int status;

    leave_everything(guest->lock_fd, ready_fd);
    if (supervise(guest, &how, &status, &err) < 0) {
        const char *text = error_message(err);

        /* If the guest ran, nobody reads any more. */
        if (write(ready_fd, "-", 1) == 1 && write(ready_fd, text, strlen(text)) < 0)
            _exit(1);
    }
    _exit(0);
}

/* What the supervisor says: 0 when the guest runs. */
static int wait_until_ready(int fd, const char *name, struct error **err)
{
    char text[8192];
    size_t len = 0;
    ssize_t n;

    while (len < sizeof(text) - 1) {
        n = read(fd, text + len, sizeof(text) - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
        if (text[0] == '+')
            return 0;
    }
    text[len] = '\0';
    return error_set(err, EIO, "%s", len > 1 ? text + 1 : "its supervisor ended before the guest ran");
}

int guest_run_detached(struct guest *guest, bool fresh, struct error **err)
{
    int ends[2];
    pid_t pid = -1;

    if (pipe2(ends, O_CLOEXEC) < 0) {
        int rc = error_set_errno(err, errno, "guest '%s'", guest->row.name);
        guest_release(guest);
        return rc;
    }
    fflush(NULL);
    pid = fork();
    if (pid < 0) {
        int rc = error_set_errno(err, errno, "guest '%s': starting its supervisor", guest->row.name);
        close(ends[0]);
        close(ends[1]);
        guest_release(guest);
        return rc;
    }
    if (pid == 0) {
        close(ends[0]);
        run_in_background(guest, fresh, ends[1]);
    }
    close(ends[1]);
    int rc = wait_until_ready(ends[0], guest->row.name, err);
    close(ends[0]);
    guest_release(guest);
    return rc;
}

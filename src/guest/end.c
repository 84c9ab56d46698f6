/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ending guests from a command. One thread, no state. */
#include "guest/end.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "guest/control.h"
#include "guest/guest.h"
#include "guest/lock.h"
#include "host/loop.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

/* A supervisor does its part of an end in milliseconds; on a busy host in more. */
#define ANSWER_MS 10000
/* One that is asked to kill its guest has nothing to wait for. */
#define KILL_ANSWER_MS 5000
#define RETRY_NS       2000000

/* Until nobody holds the guest's lock. 0 or -ETIMEDOUT. */
static int wait_until_free(const struct home *home, const char *name)
{
    cleanup_free char *directory = guest_path(home, name, NULL);
    uint64_t until = loop_now() + ANSWER_MS * 1000000ull;

    while (directory && lock_holder(directory) != LOCK_FREE) {
        if (loop_now() >= until)
            return -ETIMEDOUT;
        nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
    }
    return 0;
}

int guest_end_begin(struct guest_end *end, const struct home *home, const char *name, bool kill,
                    uint64_t timeout_ms, struct error **err)
{
    struct control_request request = {.verb = kill ? CONTROL_KILL : CONTROL_STOP, .timeout_ms = timeout_ms};
    struct guest_row row;
    int rc = guest_find(home, name, &row, err);

    *end = (struct guest_end){.name = name, .kill = kill, .timeout_ms = timeout_ms, .fd = -1};
    if (rc)
        return rc;
    bool live = guest_state_is_live(row.state);
    guest_row_clear(&row);
    if (!live)
        return error_set(err, ESRCH, "guest '%s' is not running", name);
    end->fd = control_connect(home, name, err);
    /* No socket: a kill finds another way. */
    if (end->fd < 0)
        return kill && end->fd == -ETIMEDOUT ? (error_free(*err), *err = NULL, 0) : end->fd;
    rc = control_send(end->fd, &request, err);
    if (rc) {
        close(end->fd);
        end->fd = -1;
    }
    return rc;
}

/* The process that holds the lock, if it is the one that the row names; its guest dies with it. */
static int kill_supervisor(const struct home *home, const char *name, struct error **err)
{
    cleanup_free char *directory = guest_path(home, name, NULL);
    struct guest_row row;
    int rc = guest_find(home, name, &row, err);

    if (rc)
        return rc;
    pid_t pid = row.supervisor;
    guest_row_clear(&row);
    cleanup_close int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    /* Held still after it was opened: then the number was not given to another process before. */
    if (fd < 0 || !directory || lock_holder(directory) != LOCK_SUPERVISED)
        return 0;
    if (syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
        return error_set_errno(err, errno, "guest '%s': killing its supervisor (process %d)", name, (int)pid);
    return 0;
}

int guest_end_finish(struct guest_end *end, const struct home *home, struct error **err)
{
    cleanup_error struct error *why = NULL;
    json_t *answer = NULL;
    uint64_t ms = end->kill ? KILL_ANSWER_MS : end->timeout_ms + ANSWER_MS;
    int rc = end->fd < 0
                 ? -ETIMEDOUT
                 : control_receive(end->fd, (unsigned)(ms < INT32_MAX ? ms : INT32_MAX), &answer, &why);

    json_decref(answer);
    cleanup_close_fn(&end->fd);
    end->fd = -1;
    /* One that was killed meanwhile has ended too. */
    if (rc == -ECONNRESET)
        rc = 0;
    if (rc && end->kill)
        rc = kill_supervisor(home, end->name, err);
    else if (rc)
        rc = error_set(err, -rc, "guest '%s': %s; 'tabique kill %s' ends it", end->name, error_message(why),
                       end->name);
    if (rc == 0 && wait_until_free(home, end->name))
        rc = error_set(err, ETIMEDOUT, "guest '%s' does not end; 'tabique kill %s' ends it", end->name,
                       end->name);
    return rc;
}

int guest_ask(const struct home *home, const char *name, const struct control_request *request,
              json_t **answer, struct error **err)
{
    struct guest_row row;
    int rc = guest_find(home, name, &row, err);

    if (rc)
        return rc;
    guest_row_clear(&row);
    cleanup_close int fd = control_connect(home, name, err);
    if (fd < 0)
        return fd;
    rc = control_send(fd, request, err);
    if (rc == 0)
        rc = control_receive(fd, ANSWER_MS, answer, err);
    return rc ? error_wrap(err, "guest '%s'", name) : 0;
}

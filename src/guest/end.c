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
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

/* A supervisor does its part of an end in milliseconds; on a busy host in more. */
#define ANSWER_MS 10000
/* One that is asked to kill its guest has nothing to wait for. */
#define KILL_ANSWER_MS 5000
#define RETRY_NS       2000000

static bool has_exited(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    return pidfd >= 0 && poll(&p, 1, 0) > 0;
}

/* Until nobody holds the guest's lock, or it is another's already: another command has started the guest
 * again. 0 or -ETIMEDOUT. */
static int wait_until_ended(const struct guest_end *end, const struct home *home)
{
    cleanup_free char *directory = guest_path(home, end->name, NULL);
    uint64_t until = loop_now() + ANSWER_MS * 1000000ull;

    while (directory) {
        bool exited = has_exited(end->supervisor);
        enum lock_holder holder = lock_holder(directory);

        if (holder == LOCK_FREE || (exited && holder == LOCK_SUPERVISED))
            break;
        if (loop_now() >= until)
            return -ETIMEDOUT;
        nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
    }
    return 0;
}

/* Who listens at the other end, which no other process can become. -1 where the kernel does not tell. */
static int open_peer(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.pid <= 0)
        return -1;
    int pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
    /* It has not ended before it was opened, if it still holds the connection. */
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};
    if (pidfd >= 0 && poll(&p, 1, 0) > 0 && p.revents & (POLLRDHUP | POLLHUP | POLLERR)) {
        close(pidfd);
        return -1;
    }
    return pidfd;
}

int guest_end_begin(struct guest_end *end, const struct home *home, const char *name, enum guest_end_how how,
                    uint64_t timeout_ms, struct error **err)
{
    bool kill = how == GUEST_END_KILL;
    struct control_request request = {.verb = kill ? CONTROL_KILL : CONTROL_STOP,
                                      .timeout_ms = timeout_ms,
                                      .shutdown = how == GUEST_END_SHUTDOWN};
    struct guest_row row;
    int rc = guest_find(home, name, &row, err);

    *end = (struct guest_end){.name = name, .how = how, .timeout_ms = timeout_ms, .fd = -1, .supervisor = -1};
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
        return rc;
    }
    end->supervisor = open_peer(end->fd);
    return 0;
}

/* By the row, where there was no connection. -1: not known. */
static int open_supervisor(const struct home *home, const char *name)
{
    cleanup_free char *directory = guest_path(home, name, NULL);
    struct guest_row row;

    if (!directory || guest_find(home, name, &row, NULL))
        return -1;
    cleanup_close int fd = row.supervisor > 0 ? (int)syscall(SYS_pidfd_open, row.supervisor, 0) : -1;
    guest_row_clear(&row);
    /* Held still after it was opened: then the number was not given to another process before. */
    return lock_holder(directory) == LOCK_SUPERVISED ? steal_fd(fd) : -1;
}

/* Its guest dies with it. */
static int kill_supervisor(struct guest_end *end, const struct home *home, struct error **err)
{
    if (end->supervisor < 0)
        end->supervisor = open_supervisor(home, end->name);
    if (end->supervisor >= 0 && syscall(SYS_pidfd_send_signal, end->supervisor, SIGKILL, NULL, 0) < 0 &&
        errno != ESRCH)
        return error_set_errno(err, errno, "guest '%s': killing its supervisor", end->name);
    if (wait_until_ended(end, home) == 0)
        guest_ended_by_hand(home, end->name, NULL);
    return 0;
}

/* Until it has ended, one way or another. */
static int finish(struct guest_end *end, const struct home *home, struct error **err)
{
    cleanup_error struct error *why = NULL;
    json_t *answer = NULL;
    bool kill = end->how == GUEST_END_KILL;
    uint64_t ms = kill ? KILL_ANSWER_MS : end->timeout_ms + ANSWER_MS;
    int rc = end->fd < 0
                 ? -ETIMEDOUT
                 : control_receive(end->fd, (unsigned)(ms < INT32_MAX ? ms : INT32_MAX), &answer, &why);

    json_decref(answer);
    /* One that was killed meanwhile has ended too; or it has closed the connection only. */
    if (rc == -ECONNRESET)
        rc = 0;
    if (kill && (rc || wait_until_ended(end, home)))
        rc = kill_supervisor(end, home, err);
    else if (rc)
        rc = error_set(err, -rc, "guest '%s': %s; 'tabique kill %s' ends it", end->name, error_message(why),
                       end->name);
    if (rc == 0 && wait_until_ended(end, home))
        rc = error_set(err, ETIMEDOUT, "guest '%s' does not end; 'tabique kill %s' ends it", end->name,
                       end->name);
    return rc;
}

int guest_end_finish(struct guest_end *end, const struct home *home, struct error **err)
{
    int rc = finish(end, home, err);

    cleanup_close_fn(&end->fd);
    cleanup_close_fn(&end->supervisor);
    end->fd = end->supervisor = -1;
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
        rc = control_receive(fd, request->freeze ? CONTROL_FREEZE_MS : ANSWER_MS, answer, err);
    return rc ? error_wrap(err, "guest '%s'", name) : 0;
}

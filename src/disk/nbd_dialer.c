/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process that connects again (nbd_dialer.h). It is nobody's child that would have to wait for it, and
 * holds nothing but its end of a socket. Each request is answered once: with a connection, or when the time
 * is over. No locks.
 */
#include "disk/nbd_dialer.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "host/loop.h"
#include "host/pass.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Between two attempts, and before the first: who has just lost a connection may well lose the next at once.
 */
#define PAUSE_MS 100

struct request {
    uint32_t ms;
};

struct answer {
    int32_t rc;
};

struct nbd_dialer {
    int socket;
};

/* ---- the process ---- */

/* Nothing of what its maker has open stays so. */
static void let_go(int socket)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int fd = 0; fd < 3 && null >= 0; fd++)
        dup2(null, fd);
    if (socket > 3)
        close_range(3, (unsigned)socket - 1, 0);
    close_range((unsigned)socket + 1, ~0u, 0);
}

/* False if nobody waits any more. */
static bool pause_a_while(int socket)
{
    struct pollfd p = {.fd = socket};

    return poll(&p, 1, PAUSE_MS) == 0;
}

static int dial_until(int socket, uint64_t end, int (*dial)(const void *opaque), const void *opaque)
{
    int fd = -ENOTCONN;

    do {
        if (!pause_a_while(socket))
            return -ECONNRESET;
        fd = dial(opaque);
    } while (fd < 0 && loop_now() < end);
    return fd;
}

static _Noreturn void run(int socket, int (*dial)(const void *opaque), const void *opaque)
{
    struct request r;

    setsid();
    prctl(PR_SET_NAME, "tabique-dialer");
    let_go(socket);
    for (;;) {
        int none;
        ssize_t n = pass_receive(socket, &r, sizeof(r), &none, 0);
        cleanup_close_fn(&none);
        if (n != sizeof(r))
            break;
        cleanup_close int fd = dial_until(socket, loop_now() + r.ms * 1000000ull, dial, opaque);
        const struct answer a = {.rc = fd < 0 ? fd : 0};
        if (pass_send(socket, &a, sizeof(a), fd, 0) != sizeof(a))
            break;
    }
    _exit(0);
}

/* ---- who asks ---- */

int nbd_dialer_start(struct nbd_dialer **out, int (*dial)(const void *opaque), const void *opaque,
                     struct error **err)
{
    struct nbd_dialer *dialer = malloc(sizeof(*dialer));
    int sockets[2], status;

    if (!dialer)
        return error_set_errno(err, ENOMEM, "a process that connects again");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0) {
        free(dialer);
        return error_set_errno(err, errno, "a process that connects again");
    }
    /* The one between ends at once, so that nobody has to wait for the other, and some may not. */
    pid_t pid = fork();
    if (pid == 0) {
        close(sockets[0]);
        pid = fork();
        if (pid == 0)
            run(sockets[1], dial, opaque);
        _exit(pid < 0 ? errno : 0);
    }
    int rc = pid < 0 ? -errno : 0;
    close(sockets[1]);
    while (rc == 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (rc == 0 && WIFEXITED(status))
        rc = -WEXITSTATUS(status);
    if (rc) {
        close(sockets[0]);
        free(dialer);
        return error_set_errno(err, -rc, "a process that connects again");
    }
    dialer->socket = sockets[0];
    *out = dialer;
    return 0;
}

void nbd_dialer_free(struct nbd_dialer *dialer)
{
    if (dialer)
        close(dialer->socket);
    free(dialer);
}

int nbd_dialer_fd(const struct nbd_dialer *dialer)
{
    return dialer->socket;
}

int nbd_dialer_ask(struct nbd_dialer *dialer, unsigned ms)
{
    const struct request r = {.ms = ms};
    ssize_t n = pass_send(dialer->socket, &r, sizeof(r), -1, MSG_DONTWAIT);

    return n == sizeof(r) ? 0 : n < 0 ? (int)n : -EPIPE;
}

int nbd_dialer_take(struct nbd_dialer *dialer, int ms)
{
    struct pollfd p = {.fd = dialer->socket, .events = POLLIN};
    struct answer a;
    cleanup_close int fd = -1;
    ssize_t n =
        ms && poll(&p, 1, ms) <= 0 ? -EAGAIN : pass_receive(dialer->socket, &a, sizeof(a), &fd, MSG_DONTWAIT);

    if (n < 0)
        return (int)n;
    if (n != sizeof(a))
        return -ENOTCONN;
    return a.rc < 0 ? a.rc : fd < 0 ? -ENOTCONN : steal_fd(fd);
}

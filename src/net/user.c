/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The `user` backend, on the guest's side: starts the process that speaks for the guest (nat.c), joined to it
 * by a socket that carries frames with their headers. So whoever breaks into the guest's process still can't
 * make a connection of its own; and this needs no privilege. No locks.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "host/confine.h"
#include "net/frame.h"
#include "net/net_priv.h"
#include "net/user_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

struct net_user {
    struct net_fds fds;
    pid_t opener, pid; /* who started the process, and it */
};

/* Connections that a guest may have at once, and some of its own. */
#define DESCRIPTORS 4096

/* What the process says once: whether it is ready, and why not. */
struct report {
    int errnum; /* 0: ready */
    char text[512];
};

static void user_close(struct net_backend *backend)
{
    struct net_user *user = (struct net_user *)backend;
    net_fds_close(&user->fds);
    if (user->opener == getpid()) {
        /* It keeps nothing that would be worth an orderly end. */
        kill(user->pid, SIGKILL);
        while (waitpid(user->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    free(user);
}

static const struct net_backend_class user_class = {
    .name = "user",
    .start = net_fds_start,
    .stop = net_fds_stop,
    .send = net_fds_send,
    .receive = net_fds_receive,
    .watch = net_fds_watch,
    .descriptors = net_fds_descriptors,
    .release = net_fds_release,
    .close = user_close,
};

/* What it is made from is open then; it may make more connections, and has nothing else. */
static int confine(struct error **err)
{
    const struct confine_config config = {
        .kind = CONFINE_NAT, .title = "tabique: net", .file = "/etc/resolv.conf", .descriptors = DESCRIPTORS};
    struct confine_status status;
    return confine_process(&config, &status, err);
}

static _Noreturn void serve(const struct net_config *config, int frames, int reports, pid_t parent)
{
    struct report report = {0};
    struct error *err = NULL;
    struct nat *nat = NULL;

    const int keep[] = {frames, reports};
    int rc = confine_begin(parent, "tabique-net", keep, 2, &err);
    if (rc == 0)
        rc = nat_create(&nat, config, frames, &err);
    if (rc == 0)
        rc = confine(&err);
    if (rc < 0) {
        report.errnum = error_errno(err) ? error_errno(err) : EIO;
        strncpy(report.text, error_message(err), sizeof(report.text) - 1);
    }
    if (write(reports, &report, sizeof(report)) != sizeof(report) || report.errnum)
        _exit(1);
    close(reports);
    nat_run(nat);
    _exit(0);
}

/* Frames of 64 KiB should not wait for each other; the system's limit is met silently. */
static void enlarge_buffers(int fd)
{
    int size = 4 << 20;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static int start_process(struct net_user *user, const struct net_config *config, struct error **err)
{
    int pair[2], pipes[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return error_set_errno(err, errno, "socket");
    cleanup_close int ours = pair[0], theirs = pair[1];
    if (pipe2(pipes, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "pipe");
    cleanup_close int reader = pipes[0], writer = pipes[1];
    enlarge_buffers(ours);
    enlarge_buffers(theirs);
    user->opener = getpid();
    user->pid = fork();
    if (user->pid < 0)
        return error_set_errno(err, errno, "starting its process");
    if (user->pid == 0)
        serve(config, theirs, writer, user->opener);
    close(steal_fd(writer));
    struct report report;
    ssize_t n;
    while ((n = read(reader, &report, sizeof(report))) < 0 && errno == EINTR)
        ;
    if (n != sizeof(report) || report.errnum) {
        kill(user->pid, SIGKILL);
        waitpid(user->pid, NULL, 0);
        if (n != sizeof(report))
            return error_set(err, EIO, "its process ended while it started");
        report.text[sizeof(report.text) - 1] = '\0';
        return error_set(err, report.errnum, "%s", report.text);
    }
    net_fds_add(&user->fds, steal_fd(ours), true);
    return 0;
}

int net_user_open(struct net_backend **out, const struct net_config *config, struct error **err)
{
    struct net_user *user = calloc(1, sizeof(*user));
    if (!user)
        return error_set_errno(err, ENOMEM, "network user");
    user->fds.backend.class = &user_class;
    user->fds.backend.features = (struct net_features){
        .send = FRAME_OFFLOADS, .receive = NET_OFFLOAD_CSUM, .mtu = USER_MTU, .queues = 1};
    int rc = start_process(user, config, err);
    if (rc < 0) {
        free(user);
        return rc;
    }
    *out = &user->fds.backend;
    return 0;
}

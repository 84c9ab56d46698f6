/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the VM process needs for sockets between host and guest and can't have by itself, for it has no paths
 * (docs/vsock.md): the socket that it listens on, which stays while the VM process is started again, and an
 * answer when it asks for a connection. The supervisor's thread; no locks.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "guest/supervisor_priv.h"
#include "host/dial.h"

#include <errno.h>
#include <sys/epoll.h>

static void on_asked(void *opaque, uint32_t events)
{
    struct supervisor *s = opaque;
    int rc = dial_answer(s->dial_fd, s->vsock_path);

    /* Gone, or without sense: it is not listened to any more. */
    if (rc && rc != -EAGAIN)
        loop_watch_modify(s->dial_watch, 0);
}

int supervisor_vsock_open(struct supervisor *s, struct error **err)
{
    const struct vm_config *vm = &s->config.vm;
    cleanup_free char *path = NULL;

    if (!vm->vsock)
        return 0;
    if (asprintf(&path, "%s%s%s", vm->vsock[0] != '/' && vm->directory ? vm->directory : "",
                 vm->vsock[0] != '/' && vm->directory ? "/" : "", vm->vsock) < 0)
        return error_set_errno(err, ENOMEM, "socket '%s'", vm->vsock);
    int fd = dial_listen(path, err);
    if (fd < 0)
        return fd;
    s->vsock_fd = fd;
    s->vsock_path = steal_ptr(path);
    return 0;
}

int supervisor_vsock_begin(struct supervisor *s, int *theirs, struct error **err)
{
    int pair[2];

    if (s->vsock_fd < 0)
        return 0;
    int rc = dial_channel(pair, err);
    if (rc)
        return rc;
    s->dial_fd = pair[0];
    *theirs = pair[1];
    s->config.vm.vsock_listen_fd = s->vsock_fd;
    s->config.vm.vsock_dial_fd = pair[1];
    rc = loop_watch_add(s->loop, s->dial_fd, EPOLLIN, on_asked, s, &s->dial_watch);
    return rc ? error_set_errno(err, -rc, "channel for connections") : 0;
}

void supervisor_vsock_end(struct supervisor *s)
{
    loop_watch_remove(steal_ptr(s->dial_watch));
    cleanup_close_fn(&s->dial_fd);
    s->dial_fd = -1;
}

void supervisor_vsock_close(struct supervisor *s)
{
    supervisor_vsock_end(s);
    if (s->vsock_fd >= 0) {
        unlink(s->vsock_path);
        close(steal_fd(s->vsock_fd));
    }
    free(steal_ptr(s->vsock_path));
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Frames through file descriptors that keep them apart: a tap's queues, and the socket to the process of the
 * `user` backend. One read is one frame, one write is one. No locks: all in the loop's thread.
 */
#include "host/loop.h"
#include "net/net_priv.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static struct net_fds *fds_of(struct net_backend *backend)
{
    return (struct net_fds *)backend; /* its first member */
}

static void on_ready(void *opaque, uint32_t events)
{
    struct net_fd_queue *queue = opaque;
    struct net_client *client = &queue->owner->backend.client;
    client->ready(client->opaque, queue->index);
}

/* A queue that is gone would be ready for ever. */
static void update(struct net_fd_queue *queue)
{
    uint32_t events = 0;
    if (!queue->gone)
        events = (queue->receive ? EPOLLIN : 0u) | (queue->send ? EPOLLOUT : 0u);
    if (queue->watch)
        loop_watch_modify(queue->watch, events);
}

static int failed(struct net_fd_queue *queue, int errnum)
{
    switch (errnum) {
    case EAGAIN:
    case EINTR:
    case ENOBUFS: /* a full queue of the socket's peer */
        return -EAGAIN;
    case EINVAL: /* a tap found fault with the frame's header */
    case EMSGSIZE:
    case EFAULT:
    case ENOMEM:
    case EIO: /* the interface is down */
        return -errnum;
    default: /* EPIPE, ECONNRESET, EBADFD: the other side is gone */
        queue->gone = true;
        update(queue);
        return -EPIPE;
    }
}

int net_fds_send(struct net_backend *backend, unsigned index, const struct iovec *iov, unsigned n)
{
    struct net_fd_queue *queue = &fds_of(backend)->queues[index];
    if (queue->gone)
        return -EPIPE;
    ssize_t sent;
    if (queue->socket) {
        /* Its peer may be gone, which is no reason to end by a signal. */
        const struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n};
        sent = sendmsg(queue->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
        sent = writev(queue->fd, iov, (int)n);
    }
    return sent < 0 ? failed(queue, errno) : 0;
}

ssize_t net_fds_receive(struct net_backend *backend, unsigned index, void *frame, size_t size)
{
    struct net_fd_queue *queue = &fds_of(backend)->queues[index];
    if (queue->gone)
        return -EPIPE;
    ssize_t n = read(queue->fd, frame, size);
    if (n > 0)
        return n;
    /* No frame is empty: the peer has closed. */
    return failed(queue, n < 0 ? errno : EPIPE);
}

void net_fds_watch(struct net_backend *backend, unsigned index, bool receive, bool send)
{
    struct net_fd_queue *queue = &fds_of(backend)->queues[index];
    queue->receive = receive;
    queue->send = send;
    update(queue);
}

void net_fds_add(struct net_fds *fds, int fd, bool socket)
{
    fds->queues[fds->n] = (struct net_fd_queue){.owner = fds, .index = fds->n, .fd = fd, .socket = socket};
    fds->n++;
}

int net_fds_start(struct net_backend *backend, struct loop *loop, struct error **err)
{
    struct net_fds *fds = fds_of(backend);
    for (unsigned i = 0; i < fds->n; i++) {
        struct net_fd_queue *queue = &fds->queues[i];
        int rc = loop_watch_add(loop, queue->fd, 0, on_ready, queue, &queue->watch);
        if (rc < 0) {
            net_fds_stop(backend);
            return rc;
        }
    }
    return 0;
}

void net_fds_stop(struct net_backend *backend)
{
    struct net_fds *fds = fds_of(backend);
    for (unsigned i = 0; i < fds->n; i++) {
        loop_watch_remove(fds->queues[i].watch);
        fds->queues[i].watch = NULL;
        fds->queues[i].receive = fds->queues[i].send = false;
    }
}

void net_fds_close(struct net_fds *fds)
{
    for (unsigned i = 0; i < fds->n; i++)
        close(fds->queues[i].fd);
    fds->n = 0;
}

unsigned net_fds_descriptors(const struct net_backend *backend, int out[NET_MAX_QUEUES])
{
    const struct net_fds *fds = (const struct net_fds *)backend;
    for (unsigned i = 0; i < fds->n; i++)
        out[i] = fds->queues[i].fd;
    return fds->n;
}

void net_fds_release(struct net_backend *backend)
{
    net_fds_close(fds_of(backend));
}

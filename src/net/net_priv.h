/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the backends share: those whose frames go through file descriptors that keep frames apart. */
#ifndef TABIQUE_NET_NET_PRIV_H
#define TABIQUE_NET_NET_PRIV_H

#include "net/net.h"

struct loop_watch;

/* One direction each way of frames through `fd`, which doesn't block. */
struct net_fd_queue {
    struct net_fds *owner;
    unsigned index;
    int fd;      /* owned */
    bool socket; /* a SOCK_SEQPACKET one */
    bool receive, send;
    bool gone; /* no frame will come or go any more */
    struct loop_watch *watch;
};

/* What backends of this sort begin with. */
struct net_fds {
    struct net_backend backend;
    unsigned n;
    struct net_fd_queue queues[NET_MAX_QUEUES];
};

/* The ops that they share. */
int net_fds_start(struct net_backend *backend, struct loop *loop, struct error **err);
void net_fds_stop(struct net_backend *backend);
int net_fds_send(struct net_backend *backend, unsigned queue, const struct iovec *iov, unsigned n);
ssize_t net_fds_receive(struct net_backend *backend, unsigned queue, void *frame, size_t size);
void net_fds_watch(struct net_backend *backend, unsigned queue, bool receive, bool send);
unsigned net_fds_descriptors(const struct net_backend *backend, int fds[NET_MAX_QUEUES]);
void net_fds_release(struct net_backend *backend);

/* Takes the ownership of `fd` as the next queue. */
void net_fds_add(struct net_fds *fds, int fd, bool socket);
void net_fds_close(struct net_fds *fds);

int net_tap_open(struct net_backend **out, const struct net_config *config, struct error **err);
int net_user_open(struct net_backend **out, const struct net_config *config, struct error **err);

#endif

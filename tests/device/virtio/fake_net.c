/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The network of fake_net.h. One thread. */
#include "fake_net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct fake_net *fake_of(struct net_backend *backend)
{
    return (struct fake_net *)backend; /* its first member */
}

static int fake_start(struct net_backend *backend, struct loop *loop, struct error **err)
{
    fake_of(backend)->started = true;
    return 0;
}

static void fake_stop(struct net_backend *backend)
{
    fake_of(backend)->started = false;
}

static int fake_send(struct net_backend *backend, unsigned queue, const struct iovec *iov, unsigned n)
{
    struct fake_net *net = fake_of(backend);
    if (net->gone)
        return -EPIPE;
    if (net->full)
        return -EAGAIN;
    net->sent_len = 0;
    for (unsigned i = 0; i < n; i++) {
        if (iov[i].iov_len > sizeof(net->sent) - net->sent_len)
            abort();
        memcpy(net->sent + net->sent_len, iov[i].iov_base, iov[i].iov_len);
        net->sent_len += iov[i].iov_len;
    }
    net->sent_queue = queue;
    net->n_sent++;
    return 0;
}

static ssize_t fake_receive(struct net_backend *backend, unsigned queue, void *frame, size_t size)
{
    struct fake_net *net = fake_of(backend);
    size_t len = net->waiting_len[queue];
    if (net->gone)
        return -EPIPE;
    if (!len)
        return -EAGAIN;
    if (len > size)
        abort();
    memcpy(frame, net->waiting[queue], len);
    net->waiting_len[queue] = 0;
    return (ssize_t)len;
}

static void fake_watch(struct net_backend *backend, unsigned queue, bool receive, bool send)
{
    fake_of(backend)->watch_receive[queue] = receive;
    fake_of(backend)->watch_send[queue] = send;
}

static int fake_set_offloads(struct net_backend *backend, unsigned offloads)
{
    fake_of(backend)->offloads = offloads;
    return 0;
}

static int fake_set_queues(struct net_backend *backend, unsigned n)
{
    fake_of(backend)->queues = n;
    return 0;
}

static const struct net_backend_class fake_class = {
    .name = "fake",
    .start = fake_start,
    .stop = fake_stop,
    .send = fake_send,
    .receive = fake_receive,
    .watch = fake_watch,
    .set_offloads = fake_set_offloads,
    .set_queues = fake_set_queues,
};

void fake_net_init(struct fake_net *net, const struct net_features *features)
{
    /* All but the bytes of frames: those of length 0 don't count. */
    net->backend = (struct net_backend){.class = &fake_class, .features = *features};
    net->started = net->full = net->gone = false;
    memset(net->watch_receive, 0, sizeof(net->watch_receive));
    memset(net->watch_send, 0, sizeof(net->watch_send));
    memset(net->waiting_len, 0, sizeof(net->waiting_len));
    net->offloads = net->n_sent = net->sent_queue = 0;
    net->sent_len = 0;
    net->queues = 1;
}

void fake_net_ready(struct fake_net *net, unsigned queue)
{
    bool something = net->gone || net->waiting_len[queue];
    if (net->started && ((something && net->watch_receive[queue]) || (!net->full && net->watch_send[queue])))
        net->backend.client.ready(net->backend.client.opaque, queue);
}

void fake_net_deliver(struct fake_net *net, unsigned queue, const struct net_header *header,
                      const void *frame, size_t len)
{
    static const struct net_header plain;
    if (len > NET_FRAME_MAX)
        abort();
    memcpy(net->waiting[queue], header ? header : &plain, sizeof(plain));
    memcpy(net->waiting[queue] + sizeof(plain), frame, len);
    net->waiting_len[queue] = sizeof(plain) + len;
    fake_net_ready(net, queue);
}

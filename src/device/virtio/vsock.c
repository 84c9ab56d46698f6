/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtio socket device (virtio 1.2, 5.10): stream connections between programs in the guest and programs on
 * the host, which meet at Unix sockets. This file has the queues; vsock_conn.c has the connections. All
 * sockets are served in the loop's thread; a reset, which may come in a vCPU's, only marks its connections
 * dead.
 *
 * Everything is bounded: connections, what waits in each of them, and the resets that answer packets of no
 * connection: while there is no room for another one, no packet is taken from the guest.
 */
#include "device/virtio/vsock.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/virtio/virtio_priv.h"
#include "device/virtio/vsock_priv.h"
#include "host/dial.h"
#include "host/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#define VSOCK_CLASS      0x028000 /* PCI: network controller, other */
#define VSOCK_QUEUE_SIZE 256u
#define VSOCK_F_STREAM   0
#define TYPE_STREAM      1u
/* Packets to the guest before others get their turn of the loop. */
#define PUMP_BUDGET 256u

enum { RECEIVE, TRANSMIT, EVENTS };
enum { CONFIG_CID = 0, CONFIG_SIZE = 8 };

static struct vsock *vsock_of(struct virtio_device *vdev)
{
    return container_of(vdev, struct vsock, vdev);
}

static void parse(const uint8_t *p, struct vsock_packet *out)
{
    *out = (struct vsock_packet){
        .src_cid = get_le64(p),
        .dst_cid = get_le64(p + 8),
        .src_port = get_le32(p + 16),
        .dst_port = get_le32(p + 20),
        .len = get_le32(p + 24),
        .type = get_le16(p + 28),
        .op = get_le16(p + 30),
        .flags = get_le32(p + 32),
        .buf_alloc = get_le32(p + 36),
        .fwd_cnt = get_le32(p + 40),
    };
}

/* Puts a packet's header before its payload and gives the buffer to the guest. */
static void send_held(struct vsock *v, struct vsock_packet *packet)
{
    uint8_t p[VSOCK_HEADER];

    put_le64(p, VSOCK_HOST_CID);
    put_le64(p + 8, v->cid);
    put_le32(p + 16, packet->src_port);
    put_le32(p + 20, packet->dst_port);
    put_le32(p + 24, packet->len);
    put_le16(p + 28, TYPE_STREAM);
    put_le16(p + 30, packet->op);
    put_le32(p + 32, packet->flags);
    put_le32(p + 36, packet->buf_alloc);
    put_le32(p + 40, packet->fwd_cnt);
    virtqueue_write(&v->receive, 0, p, sizeof(p));
    v->holding = false;
    virtqueue_push(&v->vdev.queues[RECEIVE], &v->receive, VSOCK_HEADER + packet->len);
}

/* Has a buffer of the guest's to put a packet in. */
static bool hold(struct vsock *v)
{
    struct virtqueue *queue = &v->vdev.queues[RECEIVE];

    if (!queue->enabled || !virtio_device_running(&v->vdev))
        return false;
    if (!v->holding)
        v->holding = virtqueue_pop(queue, &v->receive);
    if (v->holding && v->receive.in_len < VSOCK_HEADER) {
        v->holding = false;
        virtio_device_broken(&v->vdev, "a buffer for packets that has no room for a header");
    }
    return v->holding;
}

static struct vsock_conn *pop_ready(struct vsock *v)
{
    struct vsock_conn *conn = v->ready_first;

    v->ready_first = conn->ready_next;
    if (!v->ready_first)
        v->ready_last = NULL;
    conn->ready = false;
    return conn;
}

/* A packet each in turn, so that no connection waits for another one's megabytes. */
void vsock_pump(struct vsock *v)
{
    unsigned budget = PUMP_BUDGET;

    while (budget && (v->n_replies || v->ready_first) && hold(v)) {
        struct vsock_packet packet = {0};

        if (v->n_replies) {
            packet = v->replies[v->first_reply];
            v->first_reply = (v->first_reply + 1) % VSOCK_REPLIES;
            v->n_replies--;
            send_held(v, &packet);
        } else {
            struct vsock_conn *conn = pop_ready(v);

            if (vsock_conn_next(conn, &packet, &v->receive)) {
                send_held(v, &packet);
                if (conn->state != VSOCK_DEAD)
                    vsock_conn_ready(conn); /* there may be more; its next turn tells */
            }
        }
        budget--;
    }
    virtqueue_notify(&v->vdev.queues[RECEIVE]);
    if (!budget)
        virtqueue_kick(&v->vdev.queues[RECEIVE]);
    if (v->transmit_waits && v->n_replies < VSOCK_REPLIES) {
        v->transmit_waits = false;
        virtqueue_kick(&v->vdev.queues[TRANSMIT]);
    }
}

/* The device stays whole: the guest's programs are no less able to talk for one packet that makes no sense.
 */
static void take_packet(struct vsock *v, const struct virtqueue_element *elem)
{
    struct vsock_packet packet;
    uint8_t header[VSOCK_HEADER];

    if (virtqueue_read(elem, 0, header, sizeof(header)) < sizeof(header)) {
        virtio_device_broken(&v->vdev, "a packet without a whole header");
        return;
    }
    parse(header, &packet);
    if (packet.len > elem->out_len - VSOCK_HEADER) {
        virtio_device_broken(&v->vdev, "a packet that is shorter than it says");
        return;
    }
    /* Whoever speaks for another, or to another, is not heard (5.10.6.4.2). */
    if (packet.src_cid != v->cid || packet.dst_cid != VSOCK_HOST_CID)
        return;
    if ((packet.type == TYPE_STREAM && vsock_conn_packet(v, &packet, elem)) || packet.op == VSOCK_RST)
        return;
    v->replies[(v->first_reply + v->n_replies++) % VSOCK_REPLIES] =
        (struct vsock_packet){.src_port = packet.dst_port, .dst_port = packet.src_port, .op = VSOCK_RST};
}

static void transmit(struct vsock *v, struct virtqueue *queue)
{
    struct virtqueue_element elem;
    unsigned n = 0;

    while (n < queue->size && v->n_replies < VSOCK_REPLIES && virtqueue_pop(queue, &elem)) {
        take_packet(v, &elem);
        virtqueue_push(queue, &elem, 0);
        n++;
    }
    v->transmit_waits = v->n_replies == VSOCK_REPLIES;
    virtqueue_notify(queue);
    if (n == queue->size)
        virtqueue_kick(queue);
}

static void vsock_queue_notify(struct virtio_device *vdev, struct virtqueue *queue)
{
    struct vsock *v = vsock_of(vdev);

    if (queue->index == TRANSMIT)
        transmit(v, queue);
    /* The queue of events keeps its buffers: they are for guests that have moved to another host. */
    if (queue->index != EVENTS)
        vsock_pump(v);
}

static void vsock_queue_reset(struct virtio_device *vdev, struct virtqueue *queue)
{
    if (queue->index == RECEIVE)
        vsock_of(vdev)->holding = false;
}

static void vsock_reset(struct virtio_device *vdev)
{
    struct vsock *v = vsock_of(vdev);

    vsock_conn_reset(v);
    v->ready_first = v->ready_last = NULL;
    v->first_reply = v->n_replies = 0;
    v->transmit_waits = v->holding = false;
}

static void vsock_config_read(struct virtio_device *vdev, uint8_t *config)
{
    put_le64(config + CONFIG_CID, vsock_of(vdev)->cid);
}

static const uint16_t vsock_queues[] = {VSOCK_QUEUE_SIZE, VSOCK_QUEUE_SIZE, VSOCK_QUEUE_SIZE};

static const struct virtio_device_class vsock_type = {
    .type = VIRTIO_TYPE_VSOCK,
    .pci_class = VSOCK_CLASS,
    .features = VIRTIO_FEATURE(VSOCK_F_STREAM),
    .config_size = CONFIG_SIZE,
    .n_queues = ARRAY_SIZE(vsock_queues),
    .queue_max = vsock_queues,
    .queue_notify = vsock_queue_notify,
    .reset = vsock_reset,
    .queue_reset = vsock_queue_reset,
    .config_read = vsock_config_read,
};

static void on_listen(void *opaque, uint32_t events)
{
    struct vsock *v = opaque;
    LOCK_SCOPE(&v->vdev.lock);

    vsock_conn_accept(v);
}

static void on_dialed(void *opaque, uint32_t events)
{
    struct vsock *v = opaque;
    uint32_t id;
    int fd, rc;
    LOCK_SCOPE(&v->vdev.lock);

    while ((rc = dial_take(v->dial_fd, &id, &fd)) == 0)
        vsock_conn_answer(v, id, fd);
    if (rc != -EAGAIN)
        loop_watch_modify(v->dial_watch, 0); /* nobody there: what is asked for runs out of time */
    vsock_pump(v);
}

static void on_timer(void *opaque)
{
    struct vsock *v = opaque;
    LOCK_SCOPE(&v->vdev.lock);

    vsock_conn_tick(v);
    vsock_pump(v);
}

static void vsock_destroy(struct device *device)
{
    struct vsock *v = container_of(device, struct vsock, vdev.device);

    loop_watch_remove(v->listen_watch);
    loop_watch_remove(v->dial_watch);
    loop_timer_free(v->timer);
    vsock_conn_free_all(v);
    virtio_device_fini(&v->vdev);
    free(v);
}

static int watch_sockets(struct vsock *v, struct error **err)
{
    struct loop *loop = v->vdev.loop;
    int rc = -ENOMEM;

    v->timer = loop_timer_new(loop, on_timer, v);
    if (v->timer)
        rc = loop_watch_add(loop, v->listen_fd, EPOLLIN, on_listen, v, &v->listen_watch);
    if (rc == 0)
        rc = loop_watch_add(loop, v->dial_fd, EPOLLIN, on_dialed, v, &v->dial_watch);
    return rc ? error_set_errno(err, -rc, "virtio-vsock: sockets") : 0;
}

static int vsock_create(struct device **out, const struct device_env *env, const void *config,
                        struct error **err)
{
    const struct virtio_vsock_config *how = config;

    if (!how || how->cid < VSOCK_CID_MIN || how->cid > VSOCK_CID_MAX)
        return error_set(err, EINVAL, "virtio-vsock: choose a context id from %u to %u", VSOCK_CID_MIN,
                         VSOCK_CID_MAX);
    struct vsock *v = calloc(1, sizeof(*v));
    if (!v)
        return error_set_errno(err, ENOMEM, "virtio-vsock");
    v->cid = how->cid;
    v->listen_fd = how->listen_fd;
    v->dial_fd = how->dial_fd;
    int rc = virtio_device_init(&v->vdev, &virtio_vsock_class, &vsock_type, env, NULL, err);
    if (rc < 0) {
        free(v);
        return rc;
    }
    rc = watch_sockets(v, err);
    if (rc == 0)
        rc = virtio_device_plug(&v->vdev, err);
    if (rc < 0) {
        vsock_destroy(&v->vdev.device);
        return rc;
    }
    *out = &v->vdev.device;
    return 0;
}

const struct device_class virtio_vsock_class = {
    .name = "virtio-vsock",
    .summary = "virtio sockets, which meet the host's at Unix sockets",
    .create = vsock_create,
    .reset = virtio_device_power_on,
    .destroy = vsock_destroy,
};

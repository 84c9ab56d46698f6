/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtio network card (virtio 1.2, 5.1) over any backend of net/. Pairs of a receive and a transmit queue,
 * then the control queue (net_control.c). The card pulls a frame from its backend into a buffer of its own
 * and from there into the guest's; what the guest sends goes to the backend from where it lies, but its
 * header, which is copied and checked first: whatever the guest changes afterwards are bytes on a wire.
 *
 * Queues and backend are served in the loop's thread, resets come in vCPU threads; both hold the device's
 * lock. The backend is never called with a frame of before a reset, and none that came before is delivered.
 */
#include "device/virtio/net.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/virtio/net_priv.h"

#include <errno.h>
#include <stdlib.h>

#define NET_CLASS          0x020000 /* PCI: Ethernet controller */
#define NET_QUEUE_SIZE     256
#define CONTROL_QUEUE_SIZE 64

/* Device configuration (5.1.4). */
enum { CONFIG_MAC = 0, CONFIG_STATUS = 6, CONFIG_PAIRS = 8, CONFIG_MTU = 10, CONFIG_SIZE = 12 };
#define STATUS_LINK_UP 1

/* What to move before others get their turn of the loop. */
#define FRAMES_AT_ONCE 128u
#define BYTES_AT_ONCE  (2u << 20)

/* Stale frames that a new driver is spared; the backend's own queue is shorter. */
#define STALE_FRAMES 4096u

static const struct {
    unsigned offload;
    uint64_t host, guest; /* feature bits: what the driver may leave to us, and we to it */
} offload_features[] = {
    {NET_OFFLOAD_CSUM, VIRTIO_FEATURE(NET_F_CSUM), VIRTIO_FEATURE(NET_F_GUEST_CSUM)},
    {NET_OFFLOAD_TSO4, VIRTIO_FEATURE(NET_F_HOST_TSO4), VIRTIO_FEATURE(NET_F_GUEST_TSO4)},
    {NET_OFFLOAD_TSO6, VIRTIO_FEATURE(NET_F_HOST_TSO6), VIRTIO_FEATURE(NET_F_GUEST_TSO6)},
    {NET_OFFLOAD_ECN, VIRTIO_FEATURE(NET_F_HOST_ECN), VIRTIO_FEATURE(NET_F_GUEST_ECN)},
    {NET_OFFLOAD_UFO, VIRTIO_FEATURE(NET_F_HOST_UFO), VIRTIO_FEATURE(NET_F_GUEST_UFO)},
    {NET_OFFLOAD_USO, VIRTIO_FEATURE(NET_F_HOST_USO),
     VIRTIO_FEATURE(NET_F_GUEST_USO4) | VIRTIO_FEATURE(NET_F_GUEST_USO6)},
};

unsigned net_offloads_of(uint64_t features)
{
    unsigned offloads = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(offload_features); i++)
        if ((features & offload_features[i].guest) == offload_features[i].guest)
            offloads |= offload_features[i].offload;
    /* Nothing can be cut later whose checksum can't be left out (5.1.3.1). */
    return offloads & NET_OFFLOAD_CSUM ? offloads : 0;
}

unsigned net_agreed_offloads(const struct virtio_net *net)
{
    return net_offloads_of(net->vdev.driver_features) & net->backend->features.receive;
}

/* What the driver may have left out of a frame that it sends. */
static unsigned send_offloads(const struct virtio_net *net)
{
    unsigned offloads = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(offload_features); i++)
        if (net->vdev.driver_features & offload_features[i].host)
            offloads |= offload_features[i].offload;
    return offloads;
}

void net_apply_offloads(struct virtio_net *net, unsigned offloads)
{
    net->offloads = offloads;
    net_set_offloads(net->backend, offloads);
}

/* ---- which queue is which ---- */

/* Without MQ the control queue comes after the first pair, whatever there could be (5.1.2). */
static unsigned control_index(const struct virtio_net *net)
{
    return virtio_has_feature(&net->vdev, NET_F_MQ) ? 2 * net->max_pairs : 2;
}

static struct virtqueue *receive_queue(struct virtio_net *net, unsigned pair)
{
    return &net->vdev.queues[2 * pair];
}

static struct virtqueue *transmit_queue(struct virtio_net *net, unsigned pair)
{
    return &net->vdev.queues[2 * pair + 1];
}

static void watch(struct virtio_net *net, unsigned i, bool receive, bool send)
{
    struct net_pair *pair = &net->pairs[i];
    if (receive == pair->watch_receive && send == pair->watch_send)
        return;
    pair->watch_receive = receive;
    pair->watch_send = send;
    net_watch(net->backend, i, receive, send);
}

static void link_is_down(struct virtio_net *net)
{
    if (!net->link_up)
        return;
    net->link_up = false;
    virtio_config_changed(&net->vdev);
    if (net->config.link_down)
        net->config.link_down(net->config.opaque);
}

/* ---- to the guest ---- */

static void rx_drop(struct virtio_net *net, struct net_pair *pair)
{
    net->stats.rx_drops++;
    pair->frame_len = 0;
}

/* Takes buffers until they hold the frame. False if there are not enough of them yet; *fits is false if there
 * never will be. */
static bool gather(struct virtio_net *net, struct net_pair *pair, struct virtqueue *queue, bool *fits)
{
    unsigned max = virtio_has_feature(&net->vdev, NET_F_MRG_RXBUF) ? NET_CHAIN_MAX : 1;
    uint64_t room = 0;
    for (unsigned i = 0; i < pair->n_buffers; i++)
        room += pair->buffers[i].in_len;
    while (room < pair->frame_len) {
        if (pair->n_buffers == max) {
            *fits = false;
            return true;
        }
        struct virtqueue_element *next = &pair->buffers[pair->n_buffers];
        if (!virtqueue_pop(queue, next))
            return false;
        pair->n_buffers++;
        room += next->in_len;
    }
    *fits = true;
    return true;
}

/* The driver's own header: nothing in it that was not agreed on. False if the frame can't be told so. */
static bool rx_header(const struct virtio_net *net, struct net_pair *pair)
{
    struct net_header h;
    memcpy(&h, pair->frame, sizeof(h));
    if (!net_header_valid(&h, pair->frame_len - sizeof(h), net->offloads))
        return false;
    bool told = net->offloads & NET_OFFLOAD_CSUM;
    h.flags &= told ? NET_NEEDS_CSUM | NET_DATA_VALID : 0;
    if (!(h.flags & NET_NEEDS_CSUM))
        h.csum_start = h.csum_offset = 0;
    if (h.gso_type == NET_GSO_NONE)
        h.gso_size = h.hdr_len = 0;
    h.num_buffers = htole16(1);
    memcpy(pair->frame, &h, sizeof(h));
    return true;
}

/* The frame and its header into the gathered buffers. */
static void fill(struct virtio_net *net, struct net_pair *pair, struct virtqueue *queue)
{
    uint32_t written[NET_CHAIN_MAX];
    size_t done = 0;
    unsigned n = 0;
    for (size_t left = pair->frame_len; left; n++) {
        uint32_t room = pair->buffers[n].in_len;
        written[n] = room < left ? room : (uint32_t)left;
        left -= written[n];
    }
    put_le16(pair->frame + offsetof(struct net_header, num_buffers), (uint16_t)n);
    for (unsigned i = 0; i < n; i++)
        done += virtqueue_write(&pair->buffers[i], 0, pair->frame + done, written[i]);
    virtqueue_push_all(queue, pair->buffers, written, n);
    pair->n_buffers -= n;
    /* More are there only after a frame that did not fit. */
    memmove(pair->buffers, pair->buffers + n, pair->n_buffers * sizeof(pair->buffers[0]));
}

/* False while the frame must wait for buffers. */
static bool deliver(struct virtio_net *net, struct net_pair *pair, struct virtqueue *queue)
{
    bool fits;
    if (!rx_header(net, pair) || !net_filter_passes(net, pair->frame + NET_HEADER_SIZE)) {
        rx_drop(net, pair);
        return true;
    }
    if (!gather(net, pair, queue, &fits))
        return false;
    if (!fits) {
        rx_drop(net, pair);
        return true;
    }
    net->stats.rx_packets++;
    net->stats.rx_bytes += pair->frame_len - NET_HEADER_SIZE;
    fill(net, pair, queue);
    pair->frame_len = 0;
    return true;
}

static void receive(struct virtio_net *net, unsigned i)
{
    struct net_pair *pair = &net->pairs[i];
    struct virtqueue *queue = receive_queue(net, i);
    bool room = true;
    for (unsigned n = 0; n < FRAMES_AT_ONCE && room; n++) {
        if (!pair->frame_len) {
            ssize_t len = net_receive(net->backend, i, pair->frame, sizeof(pair->frame));
            if (len == -EPIPE)
                link_is_down(net);
            if (len < 0)
                break;
            if ((size_t)len < NET_HEADER_SIZE + NET_ETHER_SIZE) {
                net->stats.rx_drops++;
                continue;
            }
            pair->frame_len = (size_t)len;
        }
        room = deliver(net, pair, queue);
    }
    /* Without room, the driver tells when it has added buffers. */
    watch(net, i, room && net->link_up, pair->watch_send);
    virtqueue_notify(queue);
}

/* ---- from the guest ---- */

/* False if the frame must wait. */
static bool send_frame(struct virtio_net *net, unsigned i)
{
    const struct virtqueue_element *elem = &net->pairs[i].output;
    struct net_header h;
    struct iovec iov[1 + VIRTQUEUE_MAX_SEGMENTS] = {{&h, sizeof(h)}};
    unsigned n = 1;
    size_t skip = sizeof(h);
    int rc = -EINVAL;

    if (virtqueue_read(elem, 0, &h, sizeof(h)) == sizeof(h) &&
        net_header_valid(&h, elem->out_len - sizeof(h), send_offloads(net))) {
        h.num_buffers = 0;
        for (unsigned k = 0; k < elem->n_out; k++) {
            struct iovec v = virtqueue_out(elem)[k];
            size_t gone = skip < v.iov_len ? skip : v.iov_len;
            skip -= gone;
            if (v.iov_len > gone)
                iov[n++] = (struct iovec){(uint8_t *)v.iov_base + gone, v.iov_len - gone};
        }
        rc = net->link_up ? net_send(net->backend, i, iov, n) : -EPIPE;
    }
    if (rc == -EAGAIN)
        return false;
    if (rc == 0) {
        net->stats.tx_packets++;
        net->stats.tx_bytes += elem->out_len - sizeof(h);
    } else {
        net->stats.tx_drops++;
    }
    if (rc == -EPIPE)
        link_is_down(net);
    return true;
}

static void transmit(struct virtio_net *net, unsigned i)
{
    struct net_pair *pair = &net->pairs[i];
    struct virtqueue *queue = transmit_queue(net, i);
    unsigned n = 0;
    uint64_t bytes = 0;
    while (n < queue->size && bytes < BYTES_AT_ONCE &&
           (pair->sending || virtqueue_pop(queue, &pair->output))) {
        pair->sending = !send_frame(net, i);
        if (pair->sending)
            break;
        bytes += pair->output.out_len;
        virtqueue_push(queue, &pair->output, 0);
        n++;
    }
    watch(net, i, pair->watch_receive, pair->sending);
    virtqueue_notify(queue);
    if (n == queue->size || bytes >= BYTES_AT_ONCE)
        virtqueue_kick(queue);
}

/* ---- the driver comes and goes ---- */

/* The first time that the driver lets us work: what came before it was not for it. */
static void start(struct virtio_net *net)
{
    net->started = true;
    net_apply_offloads(net, net_agreed_offloads(net));
    for (unsigned n = 0; n < STALE_FRAMES; n++) {
        ssize_t len = net_receive(net->backend, 0, net->pairs[0].frame, sizeof(net->pairs[0].frame));
        if (len == -EPIPE)
            link_is_down(net);
        if (len < 0)
            break;
        net->stats.rx_drops++;
    }
    for (unsigned i = 0; i < net->max_pairs; i++)
        watch(net, i, i == 0 && net->link_up, false);
}

int net_use_pairs(struct virtio_net *net, unsigned n)
{
    int rc = net_set_queues(net->backend, n);
    if (rc < 0)
        return rc;
    net->n_pairs = n;
    for (unsigned i = 0; i < net->max_pairs; i++) {
        watch(net, i, i < n && net->link_up && !net->pairs[i].frame_len, net->pairs[i].watch_send);
        /* A frame that has waited since the pair was used before: buffers that came for it meanwhile were not
         * looked at, and the driver need not tell of them again. */
        if (i < n && net->pairs[i].frame_len)
            virtqueue_kick(receive_queue(net, i));
    }
    return 0;
}

/* In the loop's thread, without the lock. */
static void backend_ready(void *opaque, unsigned i)
{
    struct virtio_net *net = opaque;
    LOCK_SCOPE(&net->vdev.lock);
    /* A reset in another thread may have come between. */
    if (!net->started) {
        watch(net, i, false, false);
        return;
    }
    if (net->pairs[i].sending)
        transmit(net, i);
    if (net->pairs[i].watch_receive)
        receive(net, i);
}

static void net_queue_notify(struct virtio_device *vdev, struct virtqueue *queue)
{
    struct virtio_net *net = net_of(vdev);
    unsigned control = virtio_has_feature(vdev, NET_F_CTRL_VQ) ? control_index(net) : UINT32_MAX;
    unsigned pair = queue->index / 2;
    if (!net->started)
        start(net);
    if (queue->index == control) {
        net_control(net, queue);
        return;
    }
    if (pair >= net->max_pairs || (pair && !virtio_has_feature(vdev, NET_F_MQ)))
        return;
    if (queue->index % 2) {
        transmit(net, pair);
        return;
    }
    /* New buffers: only where a frame waits for them. */
    if (pair < net->n_pairs && !net->pairs[pair].watch_receive)
        receive(net, pair);
}

static void pair_reset_receive(struct net_pair *pair)
{
    pair->n_buffers = 0;
    pair->frame_len = 0;
}

static void net_reset(struct virtio_device *vdev)
{
    struct virtio_net *net = net_of(vdev);
    for (unsigned i = 0; i < net->max_pairs; i++) {
        pair_reset_receive(&net->pairs[i]);
        net->pairs[i].sending = false;
    }
    net->started = false;
    if (net->n_pairs != 1)
        net_set_queues(net->backend, 1);
    net->n_pairs = 1;
    if (net->offloads)
        net_apply_offloads(net, 0);
    net_filter_reset(&net->filter);
    memcpy(net->mac, net->config.mac, NET_MAC_SIZE);
}

static void net_queue_reset(struct virtio_device *vdev, struct virtqueue *queue)
{
    struct virtio_net *net = net_of(vdev);
    struct net_pair *pair = &net->pairs[queue->index / 2];
    if (queue->index / 2 >= net->max_pairs)
        return;
    if (queue->index % 2)
        pair->sending = false;
    else
        pair_reset_receive(pair);
}

static void net_config_read(struct virtio_device *vdev, uint8_t *config)
{
    const struct virtio_net *net = net_of(vdev);
    memcpy(config + CONFIG_MAC, net->mac, NET_MAC_SIZE);
    put_le16(config + CONFIG_STATUS, net->link_up ? STATUS_LINK_UP : 0);
    put_le16(config + CONFIG_PAIRS, (uint16_t)net->max_pairs);
    put_le16(config + CONFIG_MTU, net->backend->features.mtu);
}

/* ---- made and unmade ---- */

static uint64_t offered(const struct net_features *backend)
{
    uint64_t features = VIRTIO_FEATURE(NET_F_MAC) | VIRTIO_FEATURE(NET_F_MRG_RXBUF) |
                        VIRTIO_FEATURE(NET_F_STATUS) | VIRTIO_FEATURE(NET_F_CTRL_VQ) |
                        VIRTIO_FEATURE(NET_F_CTRL_RX) | VIRTIO_FEATURE(NET_F_CTRL_RX_EXTRA) |
                        VIRTIO_FEATURE(NET_F_CTRL_MAC_ADDR) | VIRTIO_FEATURE(NET_F_CTRL_GUEST_OFFLOADS);
    if (backend->mtu)
        features |= VIRTIO_FEATURE(NET_F_MTU);
    if (backend->queues > 1)
        features |= VIRTIO_FEATURE(NET_F_MQ);
    for (unsigned i = 0; i < ARRAY_SIZE(offload_features); i++) {
        if (backend->send & offload_features[i].offload)
            features |= offload_features[i].host;
        if (backend->receive & offload_features[i].offload)
            features |= offload_features[i].guest;
    }
    return features;
}

static void net_init(struct virtio_net *net, const struct virtio_net_config *config)
{
    net->config = *config;
    net->backend = config->backend;
    net->max_pairs = config->backend->features.queues;
    net->n_pairs = 1;
    net->link_up = true;
    memcpy(net->mac, config->mac, NET_MAC_SIZE);
    net_filter_reset(&net->filter);
    for (unsigned i = 0; i < 2 * net->max_pairs; i++)
        net->queue_max[i] = NET_QUEUE_SIZE;
    net->queue_max[2 * net->max_pairs] = CONTROL_QUEUE_SIZE;
    net->class = (struct virtio_device_class){
        .type = VIRTIO_TYPE_NET,
        .pci_class = NET_CLASS,
        .features = offered(&config->backend->features),
        .config_size = CONFIG_SIZE,
        .n_queues = 2 * net->max_pairs + 1,
        .queue_max = net->queue_max,
        .queue_notify = net_queue_notify,
        .reset = net_reset,
        .queue_reset = net_queue_reset,
        .config_read = net_config_read,
    };
}

static void net_free(struct virtio_net *net)
{
    free(net->pairs);
    free(net);
}

static void net_destroy(struct device *device)
{
    struct virtio_net *net = container_of(device, struct virtio_net, vdev.device);
    if (net->connected)
        net_stop(net->backend);
    virtio_device_fini(&net->vdev);
    net_free(net);
}

static int net_create(struct device **out, const struct device_env *env, const void *config,
                      struct error **err)
{
    const struct virtio_net_config *how = config;
    if (!how || !how->backend)
        return error_set(err, EINVAL, "virtio-net: no backend given");
    struct virtio_net *net = calloc(1, sizeof(*net));
    if (net)
        net->pairs = calloc(how->backend->features.queues, sizeof(*net->pairs));
    if (!net || !net->pairs) {
        free(net);
        return error_set_errno(err, ENOMEM, "virtio-net");
    }
    net_init(net, how);
    int rc = virtio_device_init(&net->vdev, &virtio_net_class, &net->class, env, NULL, err);
    if (rc < 0) {
        net_free(net);
        return rc;
    }
    const struct net_client client = {.ready = backend_ready, .opaque = net};
    rc = virtio_device_plug(&net->vdev, err);
    if (rc == 0)
        rc = net_start(net->backend, &client, net->vdev.loop, err);
    net->connected = rc == 0;
    if (rc < 0) {
        net_destroy(&net->vdev.device);
        return rc;
    }
    *out = &net->vdev.device;
    return 0;
}

void virtio_net_stats(struct device *device, struct net_stats *stats)
{
    struct virtio_net *net = container_of(device, struct virtio_net, vdev.device);
    LOCK_SCOPE(&net->vdev.lock);
    *stats = net->stats;
}

bool virtio_net_link_up(struct device *device)
{
    struct virtio_net *net = container_of(device, struct virtio_net, vdev.device);
    LOCK_SCOPE(&net->vdev.lock);
    return net->link_up;
}

const struct device_class virtio_net_class = {
    .name = "virtio-net",
    .summary = "virtio network card",
    .create = net_create,
    .reset = virtio_device_power_on,
    .destroy = net_destroy,
};

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control queue of the network card (virtio 1.2, 5.1.6.5): what to receive, the address, offloads, how
 * many queues. Each command is read whole and checked before it changes anything. Runs in the loop's thread
 * with the device's lock held.
 */
#include "base/bytes.h"
#include "device/virtio/net_priv.h"

#include <string.h>

enum { CLASS_RX = 0, CLASS_MAC = 1, CLASS_MQ = 4, CLASS_OFFLOADS = 5 };
enum { RX_PROMISC, RX_ALLMULTI, RX_ALLUNI, RX_NOMULTI, RX_NOUNI, RX_NOBCAST, RX_COMMANDS };
enum { MAC_TABLE_SET, MAC_ADDR_SET };

#define ACK_OK  0
#define ACK_ERR 1

/* Two tables of addresses are the longest command. */
#define COMMAND_MAX (2u * (4u + 1024u * NET_MAC_SIZE))

void net_filter_reset(struct net_filter *filter)
{
    *filter = (struct net_filter){.promiscuous = true};
}

static bool in_table(const uint8_t table[][NET_MAC_SIZE], unsigned n, const uint8_t *mac)
{
    for (unsigned i = 0; i < n; i++)
        if (memcmp(table[i], mac, NET_MAC_SIZE) == 0)
            return true;
    return false;
}

bool net_filter_passes(const struct virtio_net *net, const uint8_t *to)
{
    static const uint8_t broadcast[NET_MAC_SIZE] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const struct net_filter *f = &net->filter;
    if (f->promiscuous)
        return true;
    if (memcmp(to, broadcast, NET_MAC_SIZE) == 0)
        return !f->no_broadcast;
    if (to[0] & 1)
        return !f->no_multicast &&
               (f->all_multicast || f->multicast_overflow || in_table(f->multicast, f->n_multicast, to));
    return !f->no_unicast &&
           (f->all_unicast || f->unicast_overflow || memcmp(to, net->mac, NET_MAC_SIZE) == 0 ||
            in_table(f->unicast, f->n_unicast, to));
}

static bool receive_mode(struct virtio_net *net, uint8_t command, const uint8_t *data, size_t len)
{
    struct net_filter *f = &net->filter;
    bool *const modes[RX_COMMANDS] = {&f->promiscuous,  &f->all_multicast, &f->all_unicast,
                                      &f->no_multicast, &f->no_unicast,    &f->no_broadcast};
    unsigned feature = command >= RX_ALLUNI ? NET_F_CTRL_RX_EXTRA : NET_F_CTRL_RX;
    if (command >= RX_COMMANDS || len != 1 || !virtio_has_feature(&net->vdev, feature))
        return false;
    *modes[command] = data[0];
    return true;
}

/* One table at the beginning of the data: how many bytes it has, or 0 if it is not whole. */
static size_t table_size(const uint8_t *data, size_t len)
{
    if (len < 4)
        return 0;
    uint64_t size = 4 + (uint64_t)get_le32(data) * NET_MAC_SIZE;
    return size <= len ? (size_t)size : 0;
}

/* A table that is too long is not kept: *all then. */
static void take_table(const uint8_t *table, uint8_t to[][NET_MAC_SIZE], unsigned *n, bool *all)
{
    uint32_t entries = get_le32(table);
    *all = entries > NET_FILTER_MAX;
    *n = *all ? 0 : entries;
    memcpy(to, table + 4, (size_t)*n * NET_MAC_SIZE);
}

static bool set_tables(struct virtio_net *net, const uint8_t *data, size_t len)
{
    struct net_filter *f = &net->filter;
    size_t first = table_size(data, len);
    size_t second = first ? table_size(data + first, len - first) : 0;
    if (!virtio_has_feature(&net->vdev, NET_F_CTRL_RX) || !second || first + second != len)
        return false;
    take_table(data, f->unicast, &f->n_unicast, &f->unicast_overflow);
    take_table(data + first, f->multicast, &f->n_multicast, &f->multicast_overflow);
    return true;
}

static bool set_address(struct virtio_net *net, const uint8_t *data, size_t len)
{
    if (!virtio_has_feature(&net->vdev, NET_F_CTRL_MAC_ADDR) || len != NET_MAC_SIZE || data[0] & 1)
        return false;
    memcpy(net->mac, data, NET_MAC_SIZE);
    return true;
}

static bool set_pairs(struct virtio_net *net, const uint8_t *data, size_t len)
{
    if (!virtio_has_feature(&net->vdev, NET_F_MQ) || len != 2)
        return false;
    unsigned n = get_le16(data);
    return n >= 1 && n <= net->max_pairs && net_use_pairs(net, n) == 0;
}

static bool set_offloads(struct virtio_net *net, const uint8_t *data, size_t len)
{
    if (!virtio_has_feature(&net->vdev, NET_F_CTRL_GUEST_OFFLOADS) || len != 8)
        return false;
    uint64_t bits = get_le64(data);
    if (bits & ~net->vdev.driver_features)
        return false;
    unsigned wanted = net_offloads_of(bits);
    if (wanted & ~net_agreed_offloads(net))
        return false;
    net_apply_offloads(net, wanted);
    return true;
}

static bool command(struct virtio_net *net, const uint8_t *bytes, size_t len)
{
    if (len < 2)
        return false;
    const uint8_t *data = bytes + 2;
    size_t data_len = len - 2;
    switch (bytes[0]) {
    case CLASS_RX:
        return receive_mode(net, bytes[1], data, data_len);
    case CLASS_MAC:
        if (bytes[1] == MAC_TABLE_SET)
            return set_tables(net, data, data_len);
        return bytes[1] == MAC_ADDR_SET && set_address(net, data, data_len);
    case CLASS_MQ:
        return bytes[1] == 0 && set_pairs(net, data, data_len);
    case CLASS_OFFLOADS:
        return bytes[1] == 0 && set_offloads(net, data, data_len);
    default:
        return false;
    }
}

void net_control(struct virtio_net *net, struct virtqueue *queue)
{
    uint8_t bytes[2 + COMMAND_MAX];
    struct virtqueue_element elem;
    unsigned n = 0;
    while (n < queue->size && virtqueue_pop(queue, &elem)) {
        size_t len = virtqueue_read(&elem, 0, bytes, sizeof(bytes));
        bool ok = len == elem.out_len && command(net, bytes, len);
        uint8_t ack = ok ? ACK_OK : ACK_ERR;
        virtqueue_push(queue, &elem, (uint32_t)virtqueue_write(&elem, 0, &ack, 1));
        n++;
    }
    virtqueue_notify(queue);
    if (n == queue->size)
        virtqueue_kick(queue);
}

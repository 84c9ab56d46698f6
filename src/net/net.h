/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a network card's frames go: one op table, one file a backend. A backend is opened while the process
 * still has its privileges (it may fork a process or need a device file), and started later, when the card
 * and its loop are there. The card pulls frames and pushes frames; neither ever blocks.
 *
 * Every frame has a struct net_header in front, as virtio 1.2 (5.1.6) and Linux's tap devices know it: it
 * tells of a checksum that is still to be filled in, and of a segment that is still to be cut.
 *
 * Called by device/virtio/net.c and, to open and close, by who starts a guest. A started backend is used
 * from its loop's thread alone, but for offloads and queues, which any thread may set.
 */
#ifndef TABIQUE_NET_NET_H
#define TABIQUE_NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct error;
struct loop;

#define NET_MAX_QUEUES  8u
#define NET_MAC_SIZE    6u
#define NET_ETHER_SIZE  14u /* the header of an Ethernet frame */
#define NET_HEADER_SIZE 12u
/* The largest IP packet in Ethernet with a VLAN tag. */
#define NET_FRAME_MAX  (NET_ETHER_SIZE + 4u + 65535u)
#define NET_BUFFER_MAX (NET_HEADER_SIZE + NET_FRAME_MAX)

/* All fields are little-endian. */
struct net_header {
    uint8_t flags;
    uint8_t gso_type;
    uint16_t hdr_len; /* of all headers, as a hint */
    uint16_t gso_size;
    uint16_t csum_start; /* from the Ethernet header on */
    uint16_t csum_offset;
    uint16_t num_buffers;
};
_Static_assert(sizeof(struct net_header) == NET_HEADER_SIZE, "as on the wire");

#define NET_NEEDS_CSUM 0x01 /* flags: the sum from csum_start on belongs at csum_start + csum_offset */
#define NET_DATA_VALID 0x02 /* flags: checksums have been checked */
#define NET_GSO_NONE   0x00
#define NET_GSO_TCPV4  0x01
#define NET_GSO_UDP    0x03
#define NET_GSO_TCPV6  0x04
#define NET_GSO_UDP_L4 0x05
#define NET_GSO_ECN    0x80

/* What may be left to the one who gets a frame. */
#define NET_OFFLOAD_CSUM (1u << 0)
#define NET_OFFLOAD_TSO4 (1u << 1)
#define NET_OFFLOAD_TSO6 (1u << 2)
#define NET_OFFLOAD_ECN  (1u << 3)
#define NET_OFFLOAD_UFO  (1u << 4)
#define NET_OFFLOAD_USO  (1u << 5)

struct net_features {
    unsigned send;    /* NET_OFFLOAD_...: what the backend does for the frames that it is given */
    unsigned receive; /* what it can leave to the card, if net_set_offloads allows it */
    uint16_t mtu;     /* largest IP packet; 0: not known */
    unsigned queues;  /* 1..NET_MAX_QUEUES, in each direction */
};

/* ---- what a person asks for ---- */

enum net_kind { NET_NONE, NET_USER, NET_TAP };

/* A port of the host whose traffic goes to one of the guest. */
struct net_publish {
    bool udp;
    uint8_t address[4]; /* IPv4 address of the host; all zero: each of them */
    uint16_t host, guest;
};

#define NET_INTERFACE_MAX 16u

struct net_config {
    enum net_kind kind;
    bool restricted;                 /* user: the guest reaches nothing but gets its published ports */
    const struct net_publish *ports; /* user */
    size_t n_ports;
    unsigned subnet;             /* user: 0 for 10.0.2.0/24, n for 10.0.(2+n).0/24; up to 250 */
    char tap[NET_INTERFACE_MAX]; /* tap: the interface's name */
    bool create;                 /* tap: make the interface if there is none; it goes when the guest ends */
    unsigned queues;             /* tap: how many are of use; 0 is 1 */
};

/* ---- backends ---- */

struct net_backend;

/* What a backend calls, in the loop's thread and with no lock held. */
struct net_client {
    /* Frames can be received, or sent again, or the link is gone. */
    void (*ready)(void *opaque, unsigned queue);
    void *opaque;
};

struct net_backend_class {
    const char *name;
    int (*start)(struct net_backend *backend, struct loop *loop, struct error **err);
    void (*stop)(struct net_backend *backend);
    int (*send)(struct net_backend *backend, unsigned queue, const struct iovec *iov, unsigned n);
    ssize_t (*receive)(struct net_backend *backend, unsigned queue, void *frame, size_t size);
    void (*watch)(struct net_backend *backend, unsigned queue, bool receive, bool send);
    int (*set_offloads)(struct net_backend *backend, unsigned offloads);
    int (*set_queues)(struct net_backend *backend, unsigned n);
    unsigned (*descriptors)(const struct net_backend *backend, int fds[NET_MAX_QUEUES]);
    void (*release)(struct net_backend *backend);
    void (*close)(struct net_backend *backend);
};

struct net_backend {
    const struct net_backend_class *class;
    struct net_features features;
    struct net_client client; /* set by net_start */
};

/*
 * Opens what `config` asks for, and starts the processes that it needs: call it from a process that has one
 * thread only. *out is NULL for NET_NONE. 0 or -errno with *err.
 */
int net_open(struct net_backend **out, const struct net_config *config, struct error **err);
/* The descriptors that a process needs to use it, up to NET_MAX_QUEUES: for one that closes all others. */
unsigned net_descriptors(const struct net_backend *backend, int fds[NET_MAX_QUEUES]);
/* Leaves its use to a process that was forked since; only net_close may follow here. NULL is fine. */
void net_release(struct net_backend *backend);
/* Ends it, and in the process that opened it also what was started for it. NULL is fine. Not while it is
 * started. */
void net_close(struct net_backend *backend);
/* From now on client->ready is called. 0 or -errno with *err. */
int net_start(struct net_backend *backend, const struct net_client *client, struct loop *loop,
              struct error **err);
/* In the loop's thread, or when that has ended. */
void net_stop(struct net_backend *backend);

/* Sends one frame with its header. 0; -EAGAIN: later, net_watch tells when; -EPIPE: the link is gone; other
 * errors: this frame can't be sent. */
static inline int net_send(struct net_backend *backend, unsigned queue, const struct iovec *iov, unsigned n)
{
    return backend->class->send(backend, queue, iov, n);
}

/* The next frame with its header, of which `size` bytes at most: its length, or -EAGAIN, or -EPIPE. */
static inline ssize_t net_receive(struct net_backend *backend, unsigned queue, void *frame, size_t size)
{
    return backend->class->receive(backend, queue, frame, size);
}

/* Which of the two to be told of by `ready`; at first neither. */
static inline void net_watch(struct net_backend *backend, unsigned queue, bool receive, bool send)
{
    backend->class->watch(backend, queue, receive, send);
}

/* What frames that are received may leave to be done (NET_OFFLOAD_..., of features.receive); at first
 * nothing. Any thread. 0 or -errno. */
int net_set_offloads(struct net_backend *backend, unsigned offloads);
/* How many queues (1..features.queues) frames are to be received from; at first 1. Any thread. 0 or -errno.
 */
int net_set_queues(struct net_backend *backend, unsigned n);

/* ---- what cards of every backend need ---- */

struct net_stats {
    uint64_t rx_packets, rx_bytes, rx_drops; /* to the guest */
    uint64_t tx_packets, tx_bytes, tx_drops; /* from the guest */
};

/*
 * Whether a header from the other side of the wall is one: all that it names lies in a frame of `len` bytes
 * (without the header), and it asks for nothing but `offloads`.
 */
bool net_header_valid(const struct net_header *header, size_t len, unsigned offloads);

/* A MAC address made of `name` and the card's number: always the same, of the locally administered ones. */
void net_mac_from_name(uint8_t mac[NET_MAC_SIZE], const char *name, unsigned card);

#endif

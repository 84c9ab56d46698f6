/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the socket device share. vsock.c has the device and its queues: it reads packets and
 * calls vsock_conn_packet, and it writes those that vsock_conn_next makes. vsock_conn.c has the connections
 * between the two sides. The device's lock is held for all calls.
 */
#ifndef TABIQUE_DEVICE_VIRTIO_VSOCK_PRIV_H
#define TABIQUE_DEVICE_VIRTIO_VSOCK_PRIV_H

#include "device/virtio/virtio.h"
#include "device/virtio/vsock.h"

#define VSOCK_HOST_CID   2u
#define VSOCK_HEADER     44u
#define VSOCK_BUFFER     65536u /* bytes of the guest's that wait for a slow reader, for each connection */
#define VSOCK_MAX_PACKET 65536u
#define VSOCK_MAX_CONNS  512u
#define VSOCK_HASH       256u
#define VSOCK_REPLIES    64u

enum vsock_op {
    VSOCK_REQUEST = 1,
    VSOCK_RESPONSE,
    VSOCK_RST,
    VSOCK_SHUTDOWN,
    VSOCK_RW,
    VSOCK_CREDIT_UPDATE,
    VSOCK_CREDIT_REQUEST
};

/* Of VSOCK_SHUTDOWN: whoever sends it will not receive, will not send. */
#define VSOCK_NO_RECEIVE 1u
#define VSOCK_NO_SEND    2u

/* A packet's header (virtio 1.2, 5.10.6), all of it in CPU order. */
struct vsock_packet {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
};

enum vsock_state {
    VSOCK_HELLO,   /* a host's program has connected, and not yet said to which port */
    VSOCK_ASKING,  /* the guest was asked whether it wants that connection */
    VSOCK_DIALING, /* the guest wants one, and the trusted side was asked for it */
    VSOCK_OPEN,
    VSOCK_ENDING, /* nothing but a reset to be sent */
    VSOCK_LINGER, /* no longer the guest's; the host's program still reads what came before */
    VSOCK_DEAD,   /* to be freed in the loop's thread */
};

struct vsock_conn {
    struct vsock *vsock;
    struct vsock_conn *next, *prev; /* of all */
    struct vsock_conn *hash_next;   /* of those with the same hash of their ports */
    struct vsock_conn *ready_next;
    enum vsock_state state;
    bool hashed, ready;
    uint32_t host_port, guest_port;
    uint32_t id;       /* of the question to the trusted side */
    uint64_t ask_at;   /* when to ask it again, as nobody had room for the connection; 0: no need */
    uint64_t ask_wait; /* before that */
    uint64_t deadline; /* of the present state; 0: none */

    int fd;
    struct loop_watch *watch;
    bool readable;   /* the socket has something, as far as is known */
    bool host_ended; /* all that the host's program sent was read */

    /* To the guest: what it has room for, what it has taken, what was sent. Counters wrap. */
    uint32_t peer_alloc, peer_taken, sent;
    bool credit_asked;
    /* From it: what came, what the host's program took, what of that the guest knows. */
    uint32_t received, taken, told;
    uint32_t guest_shut; /* VSOCK_NO_... that it has said */
    uint8_t *buffer;     /* VSOCK_BUFFER bytes around, while something waits */
    uint32_t buffer_at, buffered;

    uint32_t pending; /* bit op: to be sent */
    uint32_t our_shut;
    char hello[32];
    unsigned hello_len;
};

struct vsock {
    struct virtio_device vdev;
    uint32_t cid;
    int listen_fd, dial_fd;
    struct loop_watch *listen_watch, *dial_watch;
    struct loop_timer *timer;
    uint64_t next_tick; /* for which the timer is armed; 0: it is not */
    struct vsock_conn *conns;
    unsigned n_conns; /* the dead ones, too */
    struct vsock_conn *hash[VSOCK_HASH];
    struct vsock_conn *ready_first, *ready_last;
    uint32_t next_port, next_id;
    /* Resets for packets that belong to no connection. */
    struct vsock_packet replies[VSOCK_REPLIES];
    unsigned first_reply, n_replies;
    bool transmit_waits; /* for room in `replies` */
    bool holding;        /* `receive` is a buffer of the guest's that nothing was put in yet */
    struct virtqueue_element receive;
};

/* ---- vsock.c ---- */

/* Sends what can be sent to the guest. */
void vsock_pump(struct vsock *vsock);

/* ---- vsock_conn.c ---- */

/* A packet of the guest's, with its payload behind the header in `elem`. False if a reset is to be replied,
 * for it belongs to no connection. */
bool vsock_conn_packet(struct vsock *vsock, const struct vsock_packet *packet,
                       const struct virtqueue_element *elem);
/*
 * The next packet of a connection that is ready: fills in *packet, and puts `packet->len` bytes of payload
 * behind the header's place in `elem`. False if there is none.
 */
bool vsock_conn_next(struct vsock_conn *conn, struct vsock_packet *packet,
                     const struct virtqueue_element *elem);

/* It may have something to send. */
void vsock_conn_ready(struct vsock_conn *conn);
/* Has vsock_conn_tick called at this time of loop_now at the latest. */
void vsock_conn_tick_at(struct vsock *vsock, uint64_t when);

/* Events, in the loop's thread. */
void vsock_conn_accept(struct vsock *vsock);
void vsock_conn_answer(struct vsock *vsock, uint32_t id, int fd);
/* Ends what has waited too long, asks again for what had no room, and frees what is dead; arms the timer for
 * the next time. */
void vsock_conn_tick(struct vsock *vsock);
/* All connections end, without a word. Any thread; vsock_conn_tick frees them later. */
void vsock_conn_reset(struct vsock *vsock);
/* In the loop's thread: frees all. */
void vsock_conn_free_all(struct vsock *vsock);

#endif

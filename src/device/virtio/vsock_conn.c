/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The connections of the socket device. Each joins a port of the guest to a Unix socket on the host. What the
 * guest sends goes straight from its memory into the socket, and waits in a buffer only where the socket
 * takes no more; the guest never sends more than that buffer holds (5.10.6.3), so a reader that sleeps stops
 * its own connection alone. What the host's program sends stays in the socket until the guest has told that
 * it has room.
 *
 * A connection is watched only for what it can do something about, and is freed only in vsock_conn_tick: a
 * reset may come in a vCPU's thread while an event of the connection waits for the lock. The device's lock is
 * held.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "device/virtio/vsock_priv.h"
#include "host/dial.h"
#include "host/loop.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define SECOND      1000000000ull
#define HELLO_TIME  (60 * SECOND) /* a person may be typing it */
#define ANSWER_TIME (10 * SECOND)
/* Before a listener whose queue was full is tried again; each time twice as long. */
#define ASK_WAIT_FIRST (SECOND / 64)
#define ASK_WAIT_LAST  (SECOND / 2)
#define CLOSE_TIME     (10 * SECOND) /* for the guest to confirm; Linux itself waits 8 s */
#define LINGER_TIME    (60 * SECOND)
#define FIRST_PORT     0x40000000u /* of connections that come from the host */
#define BIT(op)        (1u << (op))

/* ---- the tables ---- */

static struct vsock_conn **bucket(struct vsock *v, uint32_t host_port, uint32_t guest_port)
{
    return &v->hash[((host_port * 0x9e3779b1u) ^ (guest_port * 0x85ebca6bu)) >> 16 & (VSOCK_HASH - 1)];
}

static struct vsock_conn *find(struct vsock *v, uint32_t host_port, uint32_t guest_port)
{
    struct vsock_conn *c = *bucket(v, host_port, guest_port);

    while (c && (c->host_port != host_port || c->guest_port != guest_port))
        c = c->hash_next;
    return c;
}

static void enter(struct vsock_conn *c)
{
    struct vsock_conn **b = bucket(c->vsock, c->host_port, c->guest_port);

    c->hash_next = *b;
    *b = c;
    c->hashed = true;
}

static void leave(struct vsock_conn *c)
{
    if (!c->hashed)
        return;
    struct vsock_conn **at = bucket(c->vsock, c->host_port, c->guest_port);
    while (*at != c)
        at = &(*at)->hash_next;
    *at = c->hash_next;
    c->hashed = false;
}

void vsock_conn_tick_at(struct vsock *v, uint64_t when)
{
    if (v->next_tick && v->next_tick <= when)
        return;
    v->next_tick = when;
    loop_timer_arm(v->timer, when);
}

static void set_deadline(struct vsock_conn *c, uint64_t ns)
{
    c->deadline = loop_now() + ns;
    /* The tick looks at all of them. */
    vsock_conn_tick_at(c->vsock, loop_now() + SECOND);
}

static struct vsock_conn *new_conn(struct vsock *v, enum vsock_state state)
{
    struct vsock_conn *c = v->n_conns < VSOCK_MAX_CONNS ? calloc(1, sizeof(*c)) : NULL;

    if (!c)
        return NULL;
    c->vsock = v;
    c->state = state;
    c->fd = -1;
    c->next = v->conns;
    if (c->next)
        c->next->prev = c;
    v->conns = c;
    v->n_conns++;
    return c;
}

void vsock_conn_ready(struct vsock_conn *c)
{
    struct vsock *v = c->vsock;

    if (c->ready)
        return;
    c->ready = true;
    c->ready_next = NULL;
    *(v->ready_last ? &v->ready_last->ready_next : &v->ready_first) = c;
    v->ready_last = c;
}

static void send_op(struct vsock_conn *c, enum vsock_op op)
{
    c->pending |= BIT(op);
    vsock_conn_ready(c);
}

/* ---- the end ---- */

static void unready(struct vsock_conn *c)
{
    struct vsock *v = c->vsock;
    struct vsock_conn *before = NULL;

    if (!c->ready)
        return;
    for (struct vsock_conn *r = v->ready_first; r != c; r = r->ready_next)
        before = r;
    *(before ? &before->ready_next : &v->ready_first) = c->ready_next;
    if (v->ready_last == c)
        v->ready_last = before;
    c->ready = false;
}

/* Its socket and its memory go at the next tick. */
static void die(struct vsock_conn *c)
{
    leave(c);
    unready(c);
    c->state = VSOCK_DEAD;
    c->pending = 0;
    if (c->watch)
        loop_watch_modify(c->watch, 0);
    vsock_conn_tick_at(c->vsock, 1);
}

/* The guest is told that it is over; what still waits for the host's program is lost. */
static void reset_conn(struct vsock_conn *c)
{
    if (c->fd >= 0)
        shutdown(c->fd, SHUT_RDWR);
    if (c->watch)
        loop_watch_modify(c->watch, 0);
    c->state = VSOCK_ENDING;
    c->pending = 0;
    c->deadline = 0;
    vsock_conn_tick_at(c->vsock, 1);
    send_op(c, VSOCK_RST);
}

static void free_conn(struct vsock_conn *c)
{
    struct vsock *v = c->vsock;

    loop_watch_remove(c->watch);
    cleanup_close_fn(&c->fd);
    if (c->next)
        c->next->prev = c->prev;
    *(c->prev ? &c->prev->next : &v->conns) = c->next;
    v->n_conns--;
    free(c->buffer);
    free(c);
}

void vsock_conn_reset(struct vsock *v)
{
    for (struct vsock_conn *c = v->conns; c; c = c->next) {
        c->ready = false; /* the list is emptied by the caller */
        leave(c);
        c->state = VSOCK_DEAD;
        c->pending = 0;
        if (c->watch)
            loop_watch_modify(c->watch, 0);
    }
    vsock_conn_tick_at(v, 1);
}

void vsock_conn_free_all(struct vsock *v)
{
    while (v->conns)
        free_conn(v->conns);
}

/* ---- from the guest to the socket ---- */

static uint32_t credit(const struct vsock_conn *c)
{
    uint32_t under_way = c->sent - c->peer_taken;

    /* A guest that says it has taken more than was sent gets nothing more. */
    return under_way > c->peer_alloc ? 0 : c->peer_alloc - under_way;
}

static void update_watch(struct vsock_conn *c)
{
    uint32_t events = 0;

    if (c->state == VSOCK_HELLO)
        events = EPOLLIN;
    else if (c->state == VSOCK_OPEN && !c->host_ended && !c->readable && !(c->guest_shut & VSOCK_NO_RECEIVE))
        events = EPOLLIN;
    if (c->buffered)
        events |= EPOLLOUT;
    if (c->watch)
        loop_watch_modify(c->watch, events);
}

/* The guest need not hear of every byte, but before it believes that there is no more room. */
static void note_taken(struct vsock_conn *c)
{
    if (c->state == VSOCK_OPEN && c->taken != c->told && c->received - c->told > VSOCK_BUFFER / 2)
        send_op(c, VSOCK_CREDIT_UPDATE);
}

/* After the last byte: what the guest has said of its own end can be passed on. */
static void drained(struct vsock_conn *c)
{
    free(c->buffer);
    c->buffer = NULL;
    c->buffer_at = 0;
    if (c->state == VSOCK_LINGER)
        die(c);
    else if (c->guest_shut == (VSOCK_NO_RECEIVE | VSOCK_NO_SEND))
        reset_conn(c); /* which confirms it (5.10.6.5) */
    else if (c->guest_shut & VSOCK_NO_SEND)
        shutdown(c->fd, SHUT_WR);
}

/* Sends from pieces of memory without waiting: how many bytes, or -errno. */
static ssize_t send_pieces(int fd, struct iovec *iov, unsigned n)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
    ssize_t sent;

    if (!n)
        return 0;
    do {
        sent = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent >= 0 ? sent : errno == EAGAIN ? 0 : -errno;
}

/* The pieces of `from` without its first `skip` bytes, `len` bytes at most; how many pieces. */
static unsigned slice(const struct iovec *from, unsigned n, size_t skip, size_t len, struct iovec *to)
{
    unsigned k = 0;

    for (unsigned i = 0; i < n && len; i++) {
        if (skip >= from[i].iov_len) {
            skip -= from[i].iov_len;
            continue;
        }
        size_t part = from[i].iov_len - skip < len ? from[i].iov_len - skip : len;
        to[k++] = (struct iovec){(uint8_t *)from[i].iov_base + skip, part};
        len -= part;
        skip = 0;
    }
    return k;
}

static void flush(struct vsock_conn *c)
{
    uint32_t to_end = VSOCK_BUFFER - c->buffer_at;
    uint32_t first = c->buffered < to_end ? c->buffered : to_end;
    struct iovec iov[2] = {{c->buffer + c->buffer_at, first}, {c->buffer, c->buffered - first}};
    ssize_t n = send_pieces(c->fd, iov, c->buffered > first ? 2 : 1);

    if (n < 0) {
        c->buffered = 0;
        if (c->state == VSOCK_LINGER)
            die(c);
        else
            reset_conn(c);
        return;
    }
    c->buffer_at = (c->buffer_at + (uint32_t)n) % VSOCK_BUFFER;
    c->buffered -= (uint32_t)n;
    c->taken += (uint32_t)n;
    if (!c->buffered)
        drained(c);
    note_taken(c);
    update_watch(c);
}

/* What the socket has not taken. There is room: the guest keeps to what it was told. */
static bool keep(struct vsock_conn *c, const struct virtqueue_element *elem, size_t from, size_t len)
{
    if (!c->buffer)
        c->buffer = malloc(VSOCK_BUFFER);
    if (!c->buffer)
        return false;
    while (len) {
        uint32_t end = (c->buffer_at + c->buffered) % VSOCK_BUFFER;
        size_t part = VSOCK_BUFFER - end < len ? VSOCK_BUFFER - end : len;

        virtqueue_read(elem, from, c->buffer + end, part);
        c->buffered += (uint32_t)part;
        from += part;
        len -= part;
    }
    return true;
}

static void take_data(struct vsock_conn *c, const struct vsock_packet *packet,
                      const struct virtqueue_element *elem)
{
    struct iovec iov[VIRTQUEUE_MAX_SEGMENTS];
    ssize_t sent = 0;

    if (c->state != VSOCK_OPEN || c->guest_shut & VSOCK_NO_SEND ||
        packet->len > VSOCK_BUFFER - (c->received - c->taken)) {
        reset_conn(c);
        return;
    }
    c->received += packet->len;
    if (!c->buffered)
        sent =
            send_pieces(c->fd, iov, slice(virtqueue_out(elem), elem->n_out, VSOCK_HEADER, packet->len, iov));
    if (sent < 0 ||
        (sent < packet->len && !keep(c, elem, VSOCK_HEADER + (size_t)sent, packet->len - (size_t)sent))) {
        reset_conn(c);
        return;
    }
    c->taken += (uint32_t)sent;
    note_taken(c);
    update_watch(c);
}

static void take_shutdown(struct vsock_conn *c, uint32_t flags)
{
    if (c->state != VSOCK_OPEN) {
        reset_conn(c);
        return;
    }
    uint32_t fresh = flags & (VSOCK_NO_RECEIVE | VSOCK_NO_SEND) & ~c->guest_shut;
    c->guest_shut |= fresh;
    if (fresh & VSOCK_NO_RECEIVE)
        shutdown(c->fd, SHUT_RD); /* the host's program learns of it by its next write */
    if (fresh && !c->buffered)
        drained(c);
    update_watch(c);
}

/* The guest has closed for good. Bytes that it sent before go on to a slow reader. */
static void take_reset(struct vsock_conn *c)
{
    if (c->state == VSOCK_OPEN && c->buffered && c->guest_shut & VSOCK_NO_SEND) {
        leave(c);
        unready(c);
        c->pending = 0;
        c->state = VSOCK_LINGER;
        shutdown(c->fd, SHUT_RD);
        set_deadline(c, LINGER_TIME);
        update_watch(c);
        return;
    }
    if (c->fd >= 0)
        shutdown(c->fd, SHUT_RDWR);
    die(c);
}

/* The guest accepts what a host's program asked for, which is told so. */
static void take_response(struct vsock_conn *c)
{
    char text[24];
    int n = snprintf(text, sizeof(text), "OK %u\n", c->host_port);
    struct iovec iov = {text, (size_t)n};

    if (c->state != VSOCK_ASKING || send_pieces(c->fd, &iov, 1) != n) {
        reset_conn(c);
        return;
    }
    c->state = VSOCK_OPEN;
    c->deadline = 0;
    update_watch(c);
}

/* Who listens has no room for the connection now, or the trusted side none for the question. */
static void ask_later(struct vsock_conn *c)
{
    c->ask_wait = !c->ask_wait                  ? ASK_WAIT_FIRST
                  : c->ask_wait < ASK_WAIT_LAST ? 2 * c->ask_wait
                                                : ASK_WAIT_LAST;
    c->ask_at = loop_now() + c->ask_wait;
    vsock_conn_tick_at(c->vsock, c->ask_at);
}

/* Asks the trusted side for the connection that the guest wants; false if there is nobody to ask. */
static bool ask_host(struct vsock_conn *c)
{
    int rc = dial_ask(c->vsock->dial_fd, c->id, c->host_port);

    c->ask_at = 0;
    if (rc == -EAGAIN)
        ask_later(c);
    return rc == 0 || rc == -EAGAIN;
}

static bool take_request(struct vsock *v, const struct vsock_packet *packet)
{
    struct vsock_conn *c = new_conn(v, VSOCK_DIALING);

    if (!c)
        return false;
    c->id = ++v->next_id;
    c->host_port = packet->dst_port;
    c->guest_port = packet->src_port;
    c->peer_alloc = packet->buf_alloc;
    c->peer_taken = packet->fwd_cnt;
    if (!ask_host(c)) {
        die(c);
        return false;
    }
    enter(c);
    set_deadline(c, ANSWER_TIME);
    return true;
}

bool vsock_conn_packet(struct vsock *v, const struct vsock_packet *packet,
                       const struct virtqueue_element *elem)
{
    struct vsock_conn *c = find(v, packet->dst_port, packet->src_port);

    if (!c)
        return packet->op == VSOCK_REQUEST && take_request(v, packet);
    if (c->state == VSOCK_ENDING) {
        /* Its reset is on the way, and answers whatever comes until then. */
        if (packet->op == VSOCK_RST)
            die(c);
        return true;
    }
    c->peer_alloc = packet->buf_alloc;
    c->peer_taken = packet->fwd_cnt;
    c->credit_asked = false;
    switch (packet->op) {
    case VSOCK_RESPONSE:
        take_response(c);
        break;
    case VSOCK_RST:
        take_reset(c);
        break;
    case VSOCK_SHUTDOWN:
        take_shutdown(c, packet->flags);
        break;
    case VSOCK_RW:
        take_data(c, packet, elem);
        break;
    case VSOCK_CREDIT_UPDATE:
        break;
    case VSOCK_CREDIT_REQUEST:
        send_op(c, VSOCK_CREDIT_UPDATE);
        break;
    default: /* a second request, or nothing known */
        reset_conn(c);
        return true;
    }
    if (c->state == VSOCK_OPEN && c->readable)
        vsock_conn_ready(c);
    return true;
}

/* ---- from the socket to the guest ---- */

/* All that the host's program sent is read. If it is gone altogether, it takes nothing more either. */
static void host_ended(struct vsock_conn *c)
{
    struct pollfd p = {.fd = c->fd};
    bool gone = poll(&p, 1, 0) == 1 && p.revents & (POLLHUP | POLLERR);

    c->host_ended = true;
    c->readable = false;
    c->our_shut = VSOCK_NO_SEND | (gone ? VSOCK_NO_RECEIVE : 0);
    c->pending |= BIT(VSOCK_SHUTDOWN);
    if (gone)
        set_deadline(c, CLOSE_TIME);
}

/* Reads into the guest's memory, behind the header's place. How many bytes; 0 for none now. */
static uint32_t read_socket(struct vsock_conn *c, const struct virtqueue_element *elem)
{
    struct iovec iov[VIRTQUEUE_MAX_SEGMENTS];
    uint32_t room = elem->in_len - VSOCK_HEADER, allowed = credit(c);
    ssize_t n;

    if (room > allowed)
        room = allowed;
    if (room > VSOCK_MAX_PACKET)
        room = VSOCK_MAX_PACKET;
    if (!room) {
        /* Its own word will come as soon as it has read something; asked once, in case that it was lost on
         * it. */
        if (!allowed && !c->credit_asked) {
            c->pending |= BIT(VSOCK_CREDIT_REQUEST);
            c->credit_asked = true;
        }
        /* A buffer for headers only is used up by one, so that the next is looked at. */
        if (allowed)
            c->pending |= BIT(VSOCK_CREDIT_UPDATE);
        return 0;
    }
    struct msghdr msg = {.msg_iov = iov,
                         .msg_iovlen = slice(virtqueue_in(elem), elem->n_in, VSOCK_HEADER, room, iov)};
    do {
        n = recvmsg(c->fd, &msg, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        c->sent += (uint32_t)n;
        return (uint32_t)n;
    }
    c->readable = false;
    if (n == 0 || errno != EAGAIN)
        host_ended(c);
    update_watch(c);
    return 0;
}

/* Of several, the one that has to go first. */
static enum vsock_op next_op(const struct vsock_conn *c)
{
    static const enum vsock_op order[] = {VSOCK_RST,      VSOCK_REQUEST,       VSOCK_RESPONSE,
                                          VSOCK_SHUTDOWN, VSOCK_CREDIT_UPDATE, VSOCK_CREDIT_REQUEST};

    for (size_t i = 0; i < ARRAY_SIZE(order); i++)
        if (c->pending & BIT(order[i]))
            return order[i];
    return 0;
}

bool vsock_conn_next(struct vsock_conn *c, struct vsock_packet *packet, const struct virtqueue_element *elem)
{
    bool may_read = c->state == VSOCK_OPEN && c->readable && !(c->guest_shut & VSOCK_NO_RECEIVE) &&
                    !(c->pending & (BIT(VSOCK_RESPONSE) | BIT(VSOCK_RST)));
    uint32_t len = may_read ? read_socket(c, elem) : 0;
    enum vsock_op op = len ? VSOCK_RW : next_op(c);

    if (!op)
        return false;
    *packet = (struct vsock_packet){
        .src_port = c->host_port,
        .dst_port = c->guest_port,
        .len = len,
        .op = (uint16_t)op,
        .flags = op == VSOCK_SHUTDOWN ? c->our_shut : 0,
        .buf_alloc = VSOCK_BUFFER,
        .fwd_cnt = c->taken,
    };
    c->told = c->taken;
    /* Every header tells of room. */
    c->pending &= ~(BIT(op) | BIT(VSOCK_CREDIT_UPDATE));
    if (op == VSOCK_RST)
        die(c);
    return true;
}

/* ---- events ---- */

static void on_socket(void *opaque, uint32_t events);

static bool watch(struct vsock_conn *c, uint32_t events)
{
    return loop_watch_add(c->vsock->vdev.loop, c->fd, events, on_socket, c, &c->watch) == 0;
}

static bool guest_listens(const struct vsock *v)
{
    return (v->vdev.status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET)) ==
           VIRTIO_STATUS_DRIVER_OK;
}

/* "CONNECT " and a port: whether it is one. */
static bool parse_hello(const char *line, uint32_t *port)
{
    static const char word[] = "CONNECT ";
    uint64_t value = 0;

    if (strncmp(line, word, sizeof(word) - 1) != 0)
        return false;
    line += sizeof(word) - 1;
    if (!*line)
        return false;
    for (; *line; line++) {
        if (*line < '0' || *line > '9')
            return false;
        value = value * 10 + (uint64_t)(*line - '0');
        if (value > UINT32_MAX)
            return false;
    }
    *port = (uint32_t)value;
    return true;
}

static void ask_guest(struct vsock_conn *c, uint32_t port)
{
    struct vsock *v = c->vsock;

    do {
        c->host_port = FIRST_PORT + v->next_port++ % FIRST_PORT;
    } while (find(v, c->host_port, port));
    c->guest_port = port;
    enter(c);
    c->state = VSOCK_ASKING;
    set_deadline(c, ANSWER_TIME);
    update_watch(c);
    send_op(c, VSOCK_REQUEST);
}

/* Reads the first line and not a byte more: what follows is the guest's. */
static void read_hello(struct vsock_conn *c)
{
    char *at = c->hello + c->hello_len;
    size_t room = sizeof(c->hello) - 1 - c->hello_len;
    ssize_t n = recv(c->fd, at, room, MSG_PEEK | MSG_DONTWAIT);
    uint32_t port;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    char *end = n > 0 ? memchr(at, '\n', (size_t)n) : NULL;
    size_t take = end ? (size_t)(end - at) + 1 : n > 0 ? (size_t)n : 0;
    if (n <= 0 || (!end && take == room) || recv(c->fd, at, take, MSG_DONTWAIT) != (ssize_t)take) {
        die(c);
        return;
    }
    c->hello_len += (unsigned)take;
    if (!end)
        return;
    *end = 0;
    if (parse_hello(c->hello, &port) && guest_listens(c->vsock))
        ask_guest(c, port);
    else
        die(c);
}

static void on_socket(void *opaque, uint32_t events)
{
    struct vsock_conn *c = opaque;
    struct vsock *v = c->vsock;
    LOCK_SCOPE(&v->vdev.lock);

    if (c->state == VSOCK_HELLO) {
        read_hello(c);
    } else if (c->state == VSOCK_OPEN || c->state == VSOCK_LINGER) {
        if (c->buffered && events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
            flush(c);
        if (c->state == VSOCK_OPEN && !c->host_ended && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
            c->readable = true;
            vsock_conn_ready(c);
            update_watch(c);
        }
    }
    vsock_pump(v);
}

void vsock_conn_accept(struct vsock *v)
{
    /* Who finds no room waits in the queue of the socket. */
    while (v->n_conns < VSOCK_MAX_CONNS) {
        int fd = accept4(v->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
            return;
        struct vsock_conn *c = fd >= 0 ? new_conn(v, VSOCK_HELLO) : NULL;
        if (!c) {
            cleanup_close_fn(&fd);
            break; /* no descriptor or no memory is left: later */
        }
        c->fd = fd;
        set_deadline(c, HELLO_TIME);
        if (!watch(c, EPOLLIN))
            die(c);
    }
    loop_watch_modify(v->listen_watch, 0);
    vsock_conn_tick_at(v, loop_now() + SECOND);
}

void vsock_conn_answer(struct vsock *v, uint32_t id, int fd)
{
    struct vsock_conn *c = v->conns;

    while (c && (c->state != VSOCK_DIALING || c->id != id))
        c = c->next;
    if (!c) {
        cleanup_close_fn(&fd);
        return;
    }
    if (fd == -EAGAIN) {
        ask_later(c);
        return;
    }
    c->deadline = 0;
    c->fd = fd;
    if (fd < 0 || !watch(c, EPOLLIN)) {
        reset_conn(c);
        return;
    }
    c->state = VSOCK_OPEN;
    send_op(c, VSOCK_RESPONSE);
}

void vsock_conn_tick(struct vsock *v)
{
    uint64_t now = loop_now(), next_ask = 0;
    bool waiting = false;

    v->next_tick = 0;
    for (struct vsock_conn *c = v->conns, *next; c; c = next) {
        next = c->next;
        if (c->deadline && now >= c->deadline && c->state != VSOCK_DEAD) {
            c->deadline = 0;
            if (c->state == VSOCK_HELLO || c->state == VSOCK_LINGER)
                die(c);
            else
                reset_conn(c);
        }
        if (c->state == VSOCK_DIALING && c->ask_at && now >= c->ask_at && !ask_host(c))
            reset_conn(c);
        if (c->state == VSOCK_DIALING && c->ask_at && (!next_ask || c->ask_at < next_ask))
            next_ask = c->ask_at;
        if (c->state == VSOCK_ENDING && c->fd >= 0 && !c->deadline) {
            /* Its reset may wait for the guest; the host's program need not. */
            loop_watch_remove(c->watch);
            c->watch = NULL;
            cleanup_close_fn(&c->fd);
            c->fd = -1;
        }
        if (c->state == VSOCK_DEAD)
            free_conn(c);
        else
            waiting |= c->deadline != 0;
    }
    bool room = v->n_conns < VSOCK_MAX_CONNS;
    if (room)
        loop_watch_modify(v->listen_watch, EPOLLIN);
    if (waiting || !room)
        vsock_conn_tick_at(v, now + SECOND);
    if (next_ask)
        vsock_conn_tick_at(v, next_ask);
}

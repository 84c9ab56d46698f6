/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The server's connections: accepting, bytes in and out, limits and ends. What bytes mean is in nbd_options.c
 * and nbd_requests.c. The loop's thread; no locks.
 */
#include "disk/nbd_server_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/disk_priv.h"
#include "disk/nbd_tls.h"
#include "host/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SECOND      1000000000ull
#define HELLO_TIME  (15 * SECOND) /* until an export is chosen */
#define STALL_TIME  (60 * SECOND) /* for the rest of a request, and without an answer being read */
#define READS       8u            /* of one client before others are looked at */
#define ROUNDS      8u            /* of reading and answering, likewise */
#define SEND_PIECES 128u
#define SPARE_LEAST 65536u
#define RECORD      16384u /* bytes of a record of TLS */

static void settle(struct nbd_client *client, bool progress);
static void read_and_use(struct nbd_client *client);

/* ---- buffers ---- */

/* Which of the sizes that are kept has room for it; NBD_SPARE_SIZES: none. */
static unsigned size_class(size_t size)
{
    unsigned i = 0;

    if (size < SPARE_LEAST)
        return NBD_SPARE_SIZES;
    while (i < NBD_SPARE_SIZES && size > (size_t)SPARE_LEAST << i)
        i++;
    return i;
}

uint8_t *nbd_take_buffer(struct nbd_server *server, size_t size)
{
    unsigned i = size_class(size);

    if (i == NBD_SPARE_SIZES)
        return size < SPARE_LEAST ? malloc(size) : disk_buffer_new(size);
    struct nbd_spare *spare = server->spare[i];
    if (!spare)
        return disk_buffer_new((size_t)SPARE_LEAST << i);
    server->spare[i] = spare->next;
    server->spare_bytes -= (size_t)SPARE_LEAST << i;
    return (uint8_t *)spare;
}

void nbd_give_buffer(struct nbd_server *server, uint8_t *buffer, size_t size)
{
    unsigned i = size_class(size);
    struct nbd_spare *spare = (struct nbd_spare *)buffer;

    if (!buffer || i == NBD_SPARE_SIZES || server->spare_bytes + ((size_t)SPARE_LEAST << i) > NBD_SPARE_MAX) {
        free(buffer);
        return;
    }
    spare->next = server->spare[i];
    server->spare[i] = spare;
    server->spare_bytes += (size_t)SPARE_LEAST << i;
}

static void free_buffers(struct nbd_server *server)
{
    for (unsigned i = 0; i < NBD_SPARE_SIZES; i++)
        while (server->spare[i]) {
            struct nbd_spare *next = server->spare[i]->next;
            free(server->spare[i]);
            server->spare[i] = next;
        }
}

/* ---- the end of a client ---- */

static void free_client(struct nbd_client *client)
{
    struct nbd_server *server = client->server;

    *(client->prev ? &client->prev->next : &server->clients) = client->next;
    if (client->next)
        client->next->prev = client->prev;
    server->n_clients--;
    loop_watch_remove(client->watch);
    loop_timer_free(client->timer);
    if (client->receiving)
        nbd_op_end(client->receiving);
    nbd_tls_free(client->tls);
    cleanup_close_fn(&client->fd);
    free(client->in);
    free(client);
    for (unsigned i = 0; i < server->n_listeners; i++)
        if (!server->stopping && server->listeners[i].watch)
            loop_watch_modify(server->listeners[i].watch, EPOLLIN);
    if (!server->n_clients && server->stopping && server->stopped) {
        void (*stopped)(void *) = steal_ptr(server->stopped);
        stopped(server->stopped_opaque);
    } else if (!server->n_clients && !server->stopping && server->config.idle) {
        server->config.idle(server->config.opaque);
    }
}

/* Frees it if nothing is to come of it any more. */
static bool free_if_done(struct nbd_client *client)
{
    unsigned own = client->receiving ? 1 : 0;

    if (client->busy || client->ops > own)
        return false;
    if (!client->broken && (!client->ending || client->out))
        return false;
    free_client(client);
    return true;
}

static void drop_output(struct nbd_client *client)
{
    struct nbd_out *out = steal_ptr(client->out), *next;

    client->out_tail = &client->out;
    for (; out; out = next) {
        next = out->next;
        if (out->op)
            nbd_op_end(out->op);
        else
            free(out);
    }
}

void nbd_break(struct nbd_client *client)
{
    client->broken = client->ending = true;
}

/* ---- output ---- */

void nbd_send(struct nbd_client *client, struct nbd_out *out)
{
    out->next = NULL;
    *client->out_tail = out;
    client->out_tail = &out->next;
}

/* Small pieces together, as a record of its own each would take time. */
static ssize_t send_record(struct nbd_client *client, const struct iovec *iov, unsigned n)
{
    uint8_t record[RECORD];
    size_t len = 0;

    if (n == 1 || iov[0].iov_len >= RECORD)
        return nbd_tls_send(client->tls, iov[0].iov_base, iov[0].iov_len);
    for (unsigned i = 0; i < n && len < RECORD; i++) {
        size_t part = iov[i].iov_len < RECORD - len ? iov[i].iov_len : RECORD - len;
        memcpy(record + len, iov[i].iov_base, part);
        len += part;
    }
    return nbd_tls_send(client->tls, record, len);
}

/* Sends pieces: how many bytes, or -errno. */
static ssize_t send_pieces(struct nbd_client *client, struct iovec *iov, unsigned n)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
    ssize_t sent;

    if (client->tls)
        return send_record(client, iov, n);
    do
        sent = sendmsg(client->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

static unsigned gather(const struct nbd_client *client, struct iovec *iov)
{
    unsigned n = 0;

    for (struct nbd_out *out = client->out; out && n < SEND_PIECES; out = out->next)
        for (unsigned i = out->at; i < out->n && n < SEND_PIECES; i++)
            iov[n++] = out->iov[i];
    return n;
}

static void sent(struct nbd_client *client, size_t bytes)
{
    while (client->out) {
        struct nbd_out *out = client->out;
        while (out->at < out->n && bytes >= out->iov[out->at].iov_len)
            bytes -= out->iov[out->at++].iov_len;
        if (out->at < out->n) {
            struct iovec *piece = &out->iov[out->at];
            piece->iov_base = (char *)piece->iov_base + bytes;
            piece->iov_len -= bytes;
            return;
        }
        client->out = out->next;
        if (!client->out)
            client->out_tail = &client->out;
        if (out->op)
            nbd_op_end(out->op);
        else
            free(out);
    }
}

/* Sends what there is: whether any of it went. */
static bool push(struct nbd_client *client)
{
    struct iovec iov[SEND_PIECES];
    bool progress = false;

    while (client->out && !client->broken && !client->tls_shaking) {
        ssize_t n = send_pieces(client, iov, gather(client, iov));
        if (n == -EAGAIN)
            break;
        if (n < 0) {
            nbd_break(client);
            break;
        }
        progress = true;
        sent(client, (size_t)n);
    }
    if (client->broken)
        drop_output(client);
    return progress;
}

void nbd_push(struct nbd_client *client)
{
    bool progress = push(client);

    if (client->busy)
        return;
    if (progress && client->blocked)
        read_and_use(client);
    else
        settle(client, progress);
}

/* ---- input ---- */

static ssize_t receive_bytes(struct nbd_client *client, struct iovec *iov, unsigned n)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
    ssize_t got;

    if (client->tls)
        return nbd_tls_receive(client->tls, iov[0].iov_base, iov[0].iov_len);
    do
        got = recvmsg(client->fd, &msg, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

/* Reads once: the rest of a write goes where it is wanted, what follows into client->in. */
static ssize_t receive(struct nbd_client *client)
{
    struct nbd_op *op = client->receiving;
    struct iovec iov[2];
    unsigned n = 0;

    if (client->in_at == client->in_end) {
        client->in_at = client->in_end = 0;
    } else if (client->in_at) {
        memmove(client->in, client->in + client->in_at, nbd_available(client));
        client->in_end -= client->in_at;
        client->in_at = 0;
    }
    size_t rest = op ? op->length - client->received : 0;
    if (rest)
        iov[n++] = (struct iovec){.iov_base = op->buf + op->skip + client->received, .iov_len = rest};
    iov[n++] = (struct iovec){.iov_base = client->in + client->in_end, .iov_len = NBD_IN - client->in_end};
    ssize_t got = receive_bytes(client, iov, n);
    if (got <= 0)
        return got;
    size_t direct = (size_t)got < rest ? (size_t)got : rest;
    client->received += direct;
    client->in_end += (size_t)got - direct;
    return got;
}

/* Uses bytes that have come. False if more are needed, or the client must wait. */
static bool use_bytes(struct nbd_client *client)
{
    if (client->skip) {
        size_t n = nbd_available(client) < client->skip ? nbd_available(client) : (size_t)client->skip;
        client->in_at += n;
        client->skip -= n;
        return n > 0;
    }
    if (client->receiving) {
        struct nbd_op *op = client->receiving;
        size_t rest = op->length - client->received;
        size_t n = nbd_available(client) < rest ? nbd_available(client) : rest;
        memcpy(op->buf + op->skip + client->received, client->in + client->in_at, n);
        client->in_at += n;
        client->received += n;
        if (client->received < op->length)
            return false;
        nbd_received(client);
        return true;
    }
    return client->state == NBD_SERVING ? nbd_take_request(client) : nbd_haggle(client);
}

static void shake(struct nbd_client *client)
{
    char why[256];
    int rc = nbd_tls_shake(client->tls, why, sizeof(why));

    if (rc < 0)
        nbd_break(client);
    else if (rc)
        client->tls_shaking = false;
}

/* Whether any of the bytes made sense. */
static bool use_all(struct nbd_client *client)
{
    bool any = false;

    while (!client->ending && !client->blocked && !client->tls_shaking && use_bytes(client))
        any = true;
    return any;
}

static bool read_some(struct nbd_client *client)
{
    bool progress = use_all(client);

    for (unsigned i = 0; i < READS && !client->ending && !client->blocked; i++) {
        if (client->tls_shaking)
            shake(client);
        if (client->tls_shaking || client->ending)
            break;
        ssize_t n = receive(client);
        if (n == -EAGAIN)
            return progress;
        if (n <= 0) {
            /* It is gone, or says no more: what it has asked for is answered still. */
            client->ending = true;
            client->broken |= n < 0;
            break;
        }
        progress |= use_all(client);
    }
    client->again = !client->ending && !client->blocked && !client->tls_shaking;
    return progress;
}

static void read_and_use(struct nbd_client *client)
{
    bool progress = false, sent_any = true;

    client->busy = true;
    client->again = false;
    for (unsigned i = 0; i < ROUNDS && sent_any; i++) {
        client->blocked = false;
        progress |= read_some(client);
        if (client->export)
            disk_start(client->export->disk);
        sent_any = push(client) && client->blocked;
        progress |= sent_any;
    }
    if (sent_any) {
        client->blocked = false;
        client->again = true;
    }
    client->busy = false;
    settle(client, progress);
}

static void on_socket(void *opaque, uint32_t events)
{
    struct nbd_client *client = opaque;

    if (events & (EPOLLERR | EPOLLHUP) && client->blocked)
        nbd_break(client);
    if (client->broken || (events & EPOLLOUT && client->out && !client->tls_shaking))
        nbd_push(client); /* it may be gone then; if it is not, what else there is comes again */
    else
        read_and_use(client);
}

/* Goes on where others had to have their turn: of what is in memory the socket does not tell. */
static void on_again(void *opaque)
{
    struct nbd_server *server = opaque;
    struct nbd_client *next;

    server->posted = false;
    for (struct nbd_client *client = server->clients; client; client = next) {
        next = client->next;
        if (client->again)
            read_and_use(client);
    }
}

static void update_events(struct nbd_client *client)
{
    struct nbd_server *server = client->server;
    uint32_t events = 0;

    if (client->tls_shaking)
        events = nbd_tls_wants_to_send(client->tls) ? EPOLLOUT : EPOLLIN;
    else if (!client->ending && !client->blocked)
        events = EPOLLIN;
    if (client->out && !client->tls_shaking)
        events |= EPOLLOUT;
    loop_watch_modify(client->watch, events);
    if (client->again && !server->posted)
        server->posted = loop_post(server->config.loop, on_again, server) == 0;
}

/* ---- time ---- */

static void on_time(void *opaque)
{
    nbd_break(opaque);
    nbd_push(opaque);
}

/* Who says nothing may stay; who has begun to, or does not listen, must go on. */
static void update_timer(struct nbd_client *client, bool progress)
{
    bool half = client->receiving || client->skip || (nbd_available(client) && !client->blocked);

    if (client->state != NBD_SERVING)
        return;
    if (!half && !client->out)
        loop_timer_disarm(client->timer);
    else if (progress || !client->timing)
        loop_timer_arm(client->timer, loop_now() + STALL_TIME);
    client->timing = half || client->out;
}

/* After everything that happened to a client, which may be gone then. */
static void settle(struct nbd_client *client, bool progress)
{
    if (client->broken)
        nbd_drop_waiting(client);
    if (free_if_done(client))
        return;
    update_events(client);
    update_timer(client, progress);
}

/* ---- the beginning ---- */

int nbd_server_take(struct nbd_server *server, int fd)
{
    struct nbd_client *client = calloc(1, sizeof(*client));

    if (!client) {
        close(fd);
        return -ENOMEM;
    }
    client->server = server;
    client->fd = fd;
    client->out_tail = &client->out;
    client->in = malloc(NBD_IN);
    client->timer = loop_timer_new(server->config.loop, on_time, client);
    client->next = server->clients;
    if (client->next)
        client->next->prev = client;
    server->clients = client;
    server->n_clients++;
    int rc = client->in && client->timer ? 0 : -ENOMEM;
    if (rc == 0)
        rc = loop_watch_add(server->config.loop, fd, EPOLLIN, on_socket, client, &client->watch);
    if (rc == 0)
        rc = nbd_greet(client);
    if (rc) {
        free_client(client);
        return rc;
    }
    loop_timer_arm(client->timer, loop_now() + HELLO_TIME);
    nbd_push(client);
    return 0;
}

static void on_connection(void *opaque, uint32_t events)
{
    struct nbd_listener *listener = opaque;
    struct nbd_server *server = listener->server;

    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    nbd_server_take(server, fd);
    for (unsigned i = 0; server->n_clients >= server->config.clients && i < server->n_listeners; i++)
        loop_watch_modify(server->listeners[i].watch, 0);
}

int nbd_server_listen(struct nbd_server *server, int fd)
{
    struct nbd_listener *listener = &server->listeners[server->n_listeners];

    if (server->n_listeners == ARRAY_SIZE(server->listeners))
        return -E2BIG;
    *listener = (struct nbd_listener){.server = server, .fd = fd};
    int rc = loop_watch_add(server->config.loop, fd, EPOLLIN, on_connection, listener, &listener->watch);
    if (rc == 0)
        server->n_listeners++;
    return rc;
}

/* ---- the server ---- */

int nbd_server_new(struct nbd_server **out, const struct nbd_server_config *config, struct error **err)
{
    struct nbd_server *server = calloc(1, sizeof(*server));

    if (!server)
        return error_set_errno(err, ENOMEM, "server");
    server->config = *config;
    server->exports_tail = &server->exports;
    *out = server;
    return 0;
}

/* Answers go out when the disk has a number of them. */
static void on_disk_batch(void *opaque)
{
    struct nbd_server *server = ((struct nbd_export *)opaque)->server;
    struct nbd_client *next;

    for (struct nbd_client *client = server->clients; client; client = next) {
        next = client->next;
        if (client->out || client->broken || client->ending)
            nbd_push(client);
    }
}

int nbd_server_add_export(struct nbd_server *server, const char *name, const char *description,
                          struct disk *disk)
{
    struct nbd_export *e = calloc(1, sizeof(*e));

    if (!e)
        return -ENOMEM;
    *e = (struct nbd_export){
        .server = server, .disk = disk, .name = strdup(name), .description = strdup(description)};
    e->waiting_tail = &e->waiting;
    *server->exports_tail = e;
    server->exports_tail = &e->next;
    disk_on_batch_end(disk, on_disk_batch, e);
    return e->name && e->description ? 0 : -ENOMEM;
}

int nbd_server_add_bitmap(struct nbd_server *server, const char *bitmap, struct error **err)
{
    struct nbd_export *e = container_of(server->exports_tail, struct nbd_export, next);
    int rc = disk_bitmap_get(e->disk, bitmap, &e->dirty, err);

    if (rc == 0 && asprintf(&e->bitmap, "qemu:dirty-bitmap:%s", bitmap) < 0) {
        e->bitmap = NULL;
        rc = error_set_errno(err, ENOMEM, "bitmap '%s'", bitmap);
    }
    return rc;
}

void nbd_server_stop(struct nbd_server *server, void (*stopped)(void *opaque), void *opaque)
{
    struct nbd_client *next;

    server->stopping = true;
    for (unsigned i = 0; i < server->n_listeners; i++) {
        loop_watch_remove(server->listeners[i].watch);
        server->listeners[i].watch = NULL;
    }
    if (!server->n_clients) {
        stopped(opaque);
        return;
    }
    server->stopped = stopped;
    server->stopped_opaque = opaque;
    for (struct nbd_client *client = server->clients; client; client = next) {
        next = client->next;
        nbd_break(client);
        nbd_push(client);
    }
}

void nbd_server_free(struct nbd_server *server)
{
    if (!server)
        return;
    for (unsigned i = 0; i < server->n_listeners; i++)
        loop_watch_remove(server->listeners[i].watch);
    while (server->exports) {
        struct nbd_export *next = server->exports->next;
        disk_on_batch_end(server->exports->disk, NULL, NULL);
        free(server->exports->name);
        free(server->exports->bitmap);
        disk_dirty_free(&server->exports->dirty);
        free(server->exports->description);
        free(server->exports);
        server->exports = next;
    }
    free_buffers(server);
    free(server);
}

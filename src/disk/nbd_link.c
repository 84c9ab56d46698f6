/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests to a server and their answers, in whichever order they come. In a loop's thread, or from several
 * threads at once: then one of those that wait does the reading for all.
 */
#include "disk/nbd_link.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "disk/nbd_tls.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define SLICE_MS 100

void nbd_link_init(struct nbd_link *link, int fd)
{
    *link = (struct nbd_link){.fd = fd,
                              .smallest = 1,
                              .largest = NBD_REQUEST_MAX,
                              .wait_ms = NBD_WAIT_MS,
                              .lock = PTHREAD_MUTEX_INITIALIZER,
                              .changed = PTHREAD_COND_INITIALIZER};
    link->out_tail = &link->out;
    link->held_tail = &link->held;
    link->kept_tail = &link->kept;
}

void nbd_link_clear(struct nbd_link *link)
{
    nbd_tls_free(link->tls);
    link->tls = NULL;
    nbd_again_clear(link);
}

/* ---- the end of calls ---- */

static void end_call(struct nbd_link *link, struct nbd_call *call, int result)
{
    if (call->cookie)
        link->calls[call->cookie % NBD_LINK_CALLS] = NULL;
    call->result = result;
    call->done = true;
    if (!result)
        nbd_again_note(link, call);
    if (call->ended)
        call->ended(call);
}

static void take_first(struct nbd_link *link)
{
    link->out = link->out->next;
    if (!link->out)
        link->out_tail = &link->out;
}

void nbd_link_fail(struct nbd_link *link, int rc)
{
    if (link->failure)
        return;
    nbd_again_stop(link);
    link->failure = rc;
    link->filling = NULL;
    link->fill_left = 0;
    for (unsigned i = 0; i < NBD_LINK_CALLS; i++) {
        struct nbd_call *call = link->calls[i];
        if (call && call == link->out) /* sent in part */
            take_first(link);
        if (call)
            end_call(link, call, rc);
    }
    while (link->out) {
        struct nbd_call *call = link->out;
        take_first(link);
        call->cookie = 0;
        end_call(link, call, rc);
    }
}

/* The connection has ended. */
static void lose(struct nbd_link *link, int rc)
{
    if (link->dialer)
        nbd_again_lose(link);
    else
        nbd_link_fail(link, rc);
}

/* ---- sending ---- */

static ssize_t send_some(struct nbd_link *link, const struct iovec *iov, unsigned n)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n};
    ssize_t sent;

    if (link->tls)
        return nbd_tls_send(link->tls, iov[0].iov_base, iov[0].iov_len);
    do
        sent = sendmsg(link->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

/* Gives it a number. False if the server has as many as it may. */
static bool enter(struct nbd_link *link, struct nbd_call *call)
{
    for (unsigned tries = 0; tries < NBD_LINK_CALLS; tries++) {
        uint64_t cookie = ++link->serial;
        if (link->calls[cookie % NBD_LINK_CALLS])
            continue;
        link->calls[cookie % NBD_LINK_CALLS] = call;
        call->cookie = cookie;
        call->told = 0;
        call->mark = link->written;
        put_be32(link->head, NBD_REQUEST_MAGIC);
        put_be16(link->head + 4, call->flags);
        put_be16(link->head + 6, call->command);
        put_be64(link->head + 8, cookie);
        put_be64(link->head + 16, call->offset);
        put_be32(link->head + 24, call->length);
        link->out_at = 0;
        return true;
    }
    return false;
}

/* What may have been lost is told of once, by whoever asks whether all is there. */
static bool is_in_doubt(const struct nbd_link *link, const struct nbd_call *call)
{
    return link->doubt && call->command == NBD_FLUSH && call != &link->sync;
}

void nbd_link_send(struct nbd_link *link)
{
    while (link->out && !link->failure && !link->lost) {
        struct nbd_call *call = link->out;
        if (is_in_doubt(link, call)) {
            link->doubt = false;
            link->not_kept = 0;
            take_first(link);
            end_call(link, call, -EIO);
            continue;
        }
        struct iovec iov[DISK_IOV_MAX + 1];
        unsigned n = 0;
        uint64_t data = call->command == NBD_WRITE ? call->length : 0;

        if (!call->cookie && !enter(link, call))
            return;
        if (link->out_at < NBD_REQUEST_SIZE)
            iov[n++] = (struct iovec){link->head + link->out_at, NBD_REQUEST_SIZE - link->out_at};
        uint64_t skip = link->out_at < NBD_REQUEST_SIZE ? 0 : link->out_at - NBD_REQUEST_SIZE;
        if (data)
            n += disk_iov_slice(call->iov, call->n_iov, skip, data - skip, iov + n);
        ssize_t sent = send_some(link, iov, n);
        if (sent == -EAGAIN)
            return;
        if (sent < 0) {
            lose(link, -EPIPE);
            return;
        }
        link->out_at += (uint64_t)sent;
        if (link->out_at == NBD_REQUEST_SIZE + data)
            take_first(link);
    }
}

/* ---- answers ---- */

static int error_of(uint32_t number)
{
    switch (number) {
    case NBD_EPERM:
    case NBD_ENOMEM:
    case NBD_EINVAL:
    case NBD_ENOSPC:
    case NBD_EOVERFLOW:
    case NBD_ENOTSUP:
    case NBD_ESHUTDOWN:
        return -(int)number;
    default:
        return -EIO;
    }
}

static size_t available(const struct nbd_link *link)
{
    return link->in_end - link->in_at;
}

/* Part of an answer is there; with `last` it is whole. */
static bool part_done(struct nbd_link *link, struct nbd_call *call, bool last)
{
    if (!last)
        return true;
    /* Whoever does not say all of what was asked for has not said the truth. */
    if (!call->result && call->command == NBD_READ && call->told != call->length)
        return false;
    end_call(link, call, call->result);
    return true;
}

static struct nbd_call *find(const struct nbd_link *link, uint64_t cookie)
{
    struct nbd_call *call = link->calls[cookie % NBD_LINK_CALLS];

    return call && call->cookie == cookie && call != link->out ? call : NULL;
}

/* Data of `n` bytes follow, that are at `offset` of the disk. */
static bool begin_data(struct nbd_link *link, struct nbd_call *call, uint64_t offset, uint64_t n, bool ends)
{
    if (call->command != NBD_READ || call->result || offset < call->offset ||
        offset - call->offset > call->length || n > call->length - (offset - call->offset) ||
        n > call->length - call->told)
        return false;
    call->told += n;
    link->filling = call;
    link->fill_at = offset - call->offset;
    link->fill_left = n;
    link->fill_ends = ends;
    return true;
}

static bool take_status(struct nbd_link *link, struct nbd_call *call, const uint8_t *p, uint32_t length)
{
    uint64_t at = 0;

    if (call->command != NBD_BLOCK_STATUS || length < 12 || length % 8 != 4 || get_be32(p) != link->context)
        return false;
    link->n_status = 0;
    link->status_from = call->offset;
    for (uint32_t i = 4; i < length && link->n_status < NBD_EXTENTS_MAX; i += 8) {
        uint32_t n = get_be32(p + i);
        /* The last may reach further than was asked. */
        if (!n || at >= call->length)
            return false;
        link->status[link->n_status].length = n;
        link->status[link->n_status++].state = get_be32(p + i + 4);
        at += n;
    }
    return true;
}

enum taken { TAKEN, MORE_NEEDED, NONSENSE };

static enum taken take_simple(struct nbd_link *link, const uint8_t *p)
{
    if (available(link) < NBD_SIMPLE_SIZE)
        return MORE_NEEDED;
    struct nbd_call *call = find(link, get_be64(p + 8));
    uint32_t error = get_be32(p + 4);
    if (!call || (link->structured && call->command == NBD_READ && !error))
        return NONSENSE;
    link->in_at += NBD_SIMPLE_SIZE;
    if (error)
        end_call(link, call, error_of(error));
    else if (call->command == NBD_READ)
        return begin_data(link, call, call->offset, call->length, true) ? TAKEN : NONSENSE;
    else
        end_call(link, call, 0);
    return TAKEN;
}

/* What is in a chunk but data; all of it is there. */
static bool take_body(struct nbd_link *link, struct nbd_call *call, uint16_t type, const uint8_t *body,
                      uint32_t length, bool last)
{
    uint64_t told = call->told;

    if (type == NBD_CHUNK_NONE)
        return length == 0 && last && part_done(link, call, last);
    if (type == NBD_CHUNK_OFFSET_HOLE) {
        uint32_t n = length == 12 ? get_be32(body + 8) : 0;
        if (!n || !begin_data(link, call, get_be64(body), n, last))
            return false;
        disk_iov_fill(call->iov, call->n_iov, link->fill_at, n, NULL);
        link->filling = NULL;
        link->fill_left = 0;
        return call->told > told && part_done(link, call, last);
    }
    if (type == NBD_CHUNK_BLOCK_STATUS)
        return take_status(link, call, body, length) && part_done(link, call, last);
    if (!(type & 1u << 15) || length < 6)
        return false;
    if (!call->result)
        call->result = error_of(get_be32(body));
    return part_done(link, call, last);
}

static enum taken take_chunk(struct nbd_link *link, const uint8_t *p)
{
    if (available(link) < NBD_CHUNK_SIZE)
        return MORE_NEEDED;
    bool last = get_be16(p + 4) & NBD_CHUNK_DONE;
    uint16_t type = get_be16(p + 6);
    uint32_t length = get_be32(p + 16);
    struct nbd_call *call = find(link, get_be64(p + 8));
    bool data = type == NBD_CHUNK_OFFSET_DATA;
    uint32_t body = data ? 8 : length;

    if (!call || !link->structured || (data && length < 9) || body > NBD_LINK_IN - NBD_CHUNK_SIZE)
        return NONSENSE;
    if (available(link) < NBD_CHUNK_SIZE + body)
        return MORE_NEEDED;
    link->in_at += NBD_CHUNK_SIZE + body;
    p += NBD_CHUNK_SIZE;
    if (data)
        return begin_data(link, call, get_be64(p), length - 8, last) ? TAKEN : NONSENSE;
    return take_body(link, call, type, p, length, last) ? TAKEN : NONSENSE;
}

/* Bytes of a read that are in the buffer go where they are wanted. */
static enum taken take_data(struct nbd_link *link)
{
    struct nbd_call *call = link->filling;
    size_t n = available(link) < link->fill_left ? available(link) : (size_t)link->fill_left;

    disk_iov_fill(call->iov, call->n_iov, link->fill_at, n, link->in + link->in_at);
    link->in_at += n;
    link->fill_at += n;
    link->fill_left -= n;
    if (link->fill_left)
        return MORE_NEEDED;
    link->filling = NULL;
    return part_done(link, call, link->fill_ends) ? TAKEN : NONSENSE;
}

static enum taken take(struct nbd_link *link)
{
    const uint8_t *p = link->in + link->in_at;

    if (link->filling)
        return take_data(link);
    if (available(link) < 4)
        return MORE_NEEDED;
    return get_be32(p) == NBD_SIMPLE_MAGIC  ? take_simple(link, p)
           : get_be32(p) == NBD_CHUNK_MAGIC ? take_chunk(link, p)
                                            : NONSENSE;
}

static ssize_t receive(struct nbd_link *link)
{
    struct iovec iov[DISK_IOV_MAX + 1];
    unsigned n = 0;
    ssize_t got;

    memmove(link->in, link->in + link->in_at, available(link));
    link->in_end -= link->in_at;
    link->in_at = 0;
    if (link->filling)
        n = disk_iov_slice(link->filling->iov, link->filling->n_iov, link->fill_at, link->fill_left, iov);
    iov[n++] = (struct iovec){link->in + link->in_end, NBD_LINK_IN - link->in_end};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
    if (link->tls)
        return nbd_tls_receive(link->tls, iov[0].iov_base, iov[0].iov_len);
    do
        got = recvmsg(link->fd, &msg, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

static void receive_answers(struct nbd_link *link)
{
    while (!link->failure && !link->lost) {
        enum taken taken;
        ssize_t got = receive(link);
        if (got == -EAGAIN)
            return;
        if (got <= 0) {
            lose(link, -ENOTCONN);
            return;
        }
        size_t direct =
            link->filling && (uint64_t)got > link->fill_left ? (size_t)link->fill_left : (size_t)got;
        if (link->filling) {
            link->fill_at += direct;
            link->fill_left -= direct;
            got -= (ssize_t)direct;
        }
        link->in_end += (size_t)got;
        while ((taken = take(link)) == TAKEN)
            continue;
        if (taken == NONSENSE)
            nbd_link_fail(link, -EPROTO);
    }
}

void nbd_link_pump(struct nbd_link *link)
{
    receive_answers(link);
    nbd_link_send(link);
}

uint32_t nbd_link_events(const struct nbd_link *link)
{
    bool sends = link->out && (link->out->cookie || !link->calls[(link->serial + 1) % NBD_LINK_CALLS]);

    return link->failure || link->lost ? 0 : EPOLLIN | (sends ? EPOLLOUT : 0);
}

void nbd_link_submit(struct nbd_link *link, struct nbd_call *call)
{
    call->next = NULL;
    call->cookie = 0;
    call->result = 0;
    call->done = false;
    if (link->failure) {
        end_call(link, call, link->failure);
        return;
    }
    if (link->replaying) {
        *link->held_tail = call;
        link->held_tail = &call->next;
        return;
    }
    *link->out_tail = call;
    link->out_tail = &call->next;
    nbd_link_send(link);
}

/* ---- waiting ---- */

static bool wait_for(const struct nbd_link *link, short events, int ms)
{
    struct pollfd p = {.fd = link->fd, .events = events};

    return poll(&p, 1, ms) > 0;
}

int nbd_link_do(struct nbd_link *link, struct nbd_call *call)
{
    int silent = 0;
    LOCK_SCOPE(&link->lock);

    call->ended = NULL;
    nbd_link_submit(link, call);
    if (call->done)
        return call->result;
    while (!call->done) {
        if (link->pumping) {
            pthread_cond_wait(&link->changed, &link->lock);
            continue;
        }
        link->pumping = true;
        if (link->lost)
            nbd_again_revive(link, true);
        short events = POLLIN | (link->out ? POLLOUT : 0);
        pthread_mutex_unlock(&link->lock);
        bool any = wait_for(link, events, SLICE_MS);
        pthread_mutex_lock(&link->lock);
        link->pumping = false;
        silent = any ? 0 : silent + SLICE_MS;
        if (silent >= NBD_WAIT_MS)
            nbd_link_fail(link, -ETIMEDOUT);
        nbd_link_pump(link);
        pthread_cond_broadcast(&link->changed);
    }
    return call->result;
}

int nbd_link_read(struct nbd_link *link, void *buf, size_t len)
{
    uint8_t *to = buf;

    while (len) {
        ssize_t n = link->tls ? nbd_tls_receive(link->tls, to, len) : recv(link->fd, to, len, MSG_DONTWAIT);
        int rc = n < 0 ? link->tls ? (int)n : -errno : 0;
        if (n == 0)
            return -ENOTCONN;
        if (rc && rc != -EAGAIN && rc != -EINTR)
            return rc;
        if (rc == -EAGAIN && !wait_for(link, POLLIN, link->wait_ms))
            return -ETIMEDOUT;
        if (n > 0) {
            to += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

int nbd_link_write(struct nbd_link *link, const void *buf, size_t len)
{
    const uint8_t *from = buf;

    while (len) {
        const struct iovec iov = {(void *)(uintptr_t)from, len};
        ssize_t n = send_some(link, &iov, 1);
        if (n < 0 && n != -EAGAIN)
            return (int)n;
        if (n == -EAGAIN && !wait_for(link, POLLOUT, link->wait_ms))
            return -ETIMEDOUT;
        if (n > 0) {
            from += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

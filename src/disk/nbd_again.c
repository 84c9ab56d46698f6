/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is done again when a connection to a server was lost. Another one is made (nbd_dialer.c), what was at
 * the server without an answer is asked for again, and before that what the server has been told to write and
 * has not flushed since is written again, in the order in which it said that it had: it may have been lost
 * with the server. So much is kept for that; when half of it is full, the server is told to flush. What could
 * not be kept is in doubt after that, and the next flush fails. The link's lock, or its thread.
 */
#include "disk/nbd_link.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "disk/nbd_dialer.h"
#include "disk/nbd_tls.h"
#include "host/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEPT_MAX   (32u << 20)
#define KEPT_FLUSH (KEPT_MAX / 2)
/* In which a server that was reached has to agree on the disk. */
#define HELLO_MS 5000

struct nbd_written {
    struct nbd_written *next;
    uint64_t number, offset;
    uint32_t length;
    uint16_t command, flags;
    struct iovec iov;
    uint8_t data[];
};

/* ---- what has been written ---- */

static size_t size_of(const struct nbd_written *w)
{
    return sizeof(*w) + w->iov.iov_len;
}

static void forget(struct nbd_link *link, uint64_t up_to)
{
    while (link->kept && link->kept->number <= up_to) {
        struct nbd_written *w = link->kept;
        link->kept = w->next;
        link->kept_bytes -= size_of(w);
        free(w);
    }
    if (!link->kept)
        link->kept_tail = &link->kept;
    if (link->not_kept <= up_to)
        link->not_kept = 0;
}

static bool keep(struct nbd_link *link, const struct nbd_call *call)
{
    size_t bytes = call->command == NBD_WRITE ? call->length : 0;
    struct nbd_written *w =
        link->kept_bytes + sizeof(*w) + bytes > KEPT_MAX ? NULL : malloc(sizeof(*w) + bytes);

    if (!w)
        return false;
    *w = (struct nbd_written){.number = link->written,
                              .offset = call->offset,
                              .length = call->length,
                              .command = call->command,
                              .flags = call->flags,
                              .iov = {.iov_base = w->data, .iov_len = bytes}};
    disk_iov_gather(call->iov, call->n_iov, 0, w->data, bytes);
    *link->kept_tail = w;
    link->kept_tail = &w->next;
    link->kept_bytes += size_of(w);
    return true;
}

static void on_synced(struct nbd_call *call)
{
    container_of(call, struct nbd_link, sync)->syncing = false;
}

void nbd_again_note(struct nbd_link *link, const struct nbd_call *call)
{
    /* Where nothing can be flushed, what is written is as safe as it ever will be. */
    if (!link->dialer || call == &link->again || !(link->flags & NBD_SEND_FLUSH))
        return;
    if (call->command == NBD_FLUSH)
        forget(link, call->mark);
    if (call->command != NBD_WRITE && call->command != NBD_WRITE_ZEROES && call->command != NBD_TRIM)
        return;
    link->written++;
    if (!keep(link, call))
        link->not_kept = link->written;
    if (link->kept_bytes > KEPT_FLUSH && !link->syncing) {
        link->syncing = true;
        link->sync = (struct nbd_call){.command = NBD_FLUSH, .ended = on_synced};
        nbd_link_submit(link, &link->sync);
    }
}

/* ---- the connection is gone ---- */

/* The call that was sent first of those without an answer. */
static struct nbd_call *first_sent(const struct nbd_link *link)
{
    struct nbd_call *first = NULL;

    for (unsigned i = 0; i < NBD_LINK_CALLS; i++)
        if (link->calls[i] && (!first || link->calls[i]->cookie < first->cookie))
            first = link->calls[i];
    return first;
}

/* All that have no answer wait to be sent, before those that wait already. */
static void take_back(struct nbd_link *link)
{
    struct nbd_call *list = NULL, **tail = &list, *call;

    while ((call = first_sent(link))) {
        link->calls[call->cookie % NBD_LINK_CALLS] = NULL;
        call->cookie = 0;
        call->told = 0;
        call->result = 0;
        if (call == link->out) /* sent in part, so the last of them */
            link->out = call->next;
        call->next = NULL;
        *tail = call;
        tail = &call->next;
    }
    *tail = link->out;
    if (!link->out)
        link->out_tail = tail;
    link->out = list;
    if (!list)
        link->out_tail = &link->out;
}

/* What has waited for the replay is next. */
static void end_replay(struct nbd_link *link)
{
    link->replaying = NULL;
    link->out = link->held;
    link->out_tail = link->held ? link->held_tail : &link->out;
    link->held = NULL;
    link->held_tail = &link->held;
}

void nbd_again_stop(struct nbd_link *link)
{
    if (!link->replaying)
        return;
    link->calls[link->again.cookie % NBD_LINK_CALLS] = NULL;
    end_replay(link);
}

void nbd_again_lose(struct nbd_link *link)
{
    if (link->lost)
        return;
    if (link->replaying)
        nbd_again_stop(link); /* and from the start, then */
    else
        take_back(link);
    link->lost = true;
    link->asked = false;
    link->give_up = loop_now() + link->patience * 1000000000ull;
    link->filling = NULL;
    link->fill_left = 0;
    link->in_at = link->in_end = 0;
    link->out_at = 0;
    link->n_status = 0;
    link->doubt |= link->not_kept != 0;
    if (link->on_lost)
        link->on_lost(link);
}

/* ---- another one ---- */

static void replay(struct nbd_link *link, struct nbd_written *w);

static void on_replayed(struct nbd_call *call)
{
    struct nbd_link *link = container_of(call, struct nbd_link, again);
    if (call->result)
        link->doubt = true;
    replay(link, link->replaying->next);
}

/* One at a time: a server may do what it has at once in any order. */
static void replay(struct nbd_link *link, struct nbd_written *w)
{
    if (!w) {
        end_replay(link);
        nbd_link_send(link);
        return;
    }
    link->replaying = w;
    link->again = (struct nbd_call){.command = w->command,
                                    .flags = w->flags,
                                    .offset = w->offset,
                                    .length = w->length,
                                    .iov = &w->iov,
                                    .n_iov = w->iov.iov_len != 0,
                                    .ended = on_replayed};
    link->out = &link->again;
    link->out_tail = &link->again.next;
    nbd_link_send(link);
}

static void go_on(struct nbd_link *link)
{
    link->lost = false;
    link->held = link->out;
    link->held_tail = link->out ? link->out_tail : &link->held;
    replay(link, link->kept);
}

static void use(struct nbd_link *link, int fd)
{
    nbd_tls_free(link->tls);
    link->tls = NULL;
    if (link->own_fd)
        close(link->fd);
    link->fd = fd;
    link->own_fd = true;
    link->smallest = 1;
    link->largest = NBD_REQUEST_MAX;
    link->structured = link->has_status = false;
}

/* Agrees on the disk anew. 0; -ENODEV if it is another one; or another error, after which one can try again.
 */
static int agree(struct nbd_link *link)
{
    uint64_t size = link->size;
    uint32_t largest = link->agreed_largest;
    uint16_t flags = link->flags;
    int wait = link->wait_ms;

    link->wait_ms = HELLO_MS;
    int rc = nbd_hello(link, link->remote, NULL);
    link->wait_ms = wait;
    bool same = link->size == size && !(flags & ~link->flags) && link->largest >= largest;
    link->size = size;
    link->flags = flags;
    return rc ? rc : same ? 0 : -ENODEV;
}

void nbd_again_revive(struct nbd_link *link, bool wait)
{
    while (link->lost && !link->failure) {
        uint64_t now = loop_now();
        int left = link->give_up > now ? (int)((link->give_up - now) / 1000000) : 0, rc;
        if (!left || (!link->asked && nbd_dialer_ask(link->dialer, (unsigned)left) < 0)) {
            nbd_link_fail(link, -ENOTCONN);
            return;
        }
        link->asked = true;
        int fd = nbd_dialer_take(link->dialer, wait ? left : 0);
        if (fd == -EAGAIN && !wait)
            return;
        link->asked = false;
        if (fd < 0) {
            nbd_link_fail(link, -ENOTCONN);
            return;
        }
        use(link, fd);
        rc = agree(link);
        if (rc == 0)
            go_on(link);
        else if (rc == -ENODEV)
            nbd_link_fail(link, -ENODEV);
    }
}

void nbd_again_hurry(struct nbd_link *link, unsigned seconds)
{
    uint64_t end = loop_now() + seconds * 1000000000ull;

    if (link->patience > seconds)
        link->patience = seconds;
    if (link->give_up > end)
        link->give_up = end;
}

void nbd_again_clear(struct nbd_link *link)
{
    forget(link, UINT64_MAX);
    if (link->own_fd)
        close(link->fd);
    link->own_fd = false;
}

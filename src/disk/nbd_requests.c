/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is asked of an export: a client's requests become requests to the disk. The disk knows whole sectors
 * only. A read is widened to them; a write that begins or ends within one has the disk for itself while the
 * rest of that sector is read and written back. A flush is one of the whole disk: what another connection has
 * been told is written is on the disk too then. The loop's thread; no locks.
 */
#include "disk/nbd_server_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "disk/disk_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_STEP (1u << 20)

static struct nbd_op *op_of(struct disk_request *request)
{
    return container_of(request, struct nbd_op, request);
}

static bool changes(const struct nbd_op *op)
{
    return op->command == NBD_WRITE || op->command == NBD_WRITE_ZEROES || op->command == NBD_TRIM;
}

/* Whether it needs the disk for itself. */
static bool is_torn(const struct nbd_op *op)
{
    return (op->command == NBD_WRITE || op->command == NBD_WRITE_ZEROES) &&
           (op->skip || op->span != op->length);
}

uint16_t nbd_export_flags(const struct nbd_export *export)
{
    bool read_only = disk_is_read_only(export->disk);

    return NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA | NBD_SEND_DF | NBD_SEND_CACHE | NBD_CAN_MULTI_CONN |
           (read_only ? NBD_READ_ONLY : NBD_SEND_TRIM | NBD_SEND_WRITE_ZEROES | NBD_SEND_FAST_ZERO);
}

void nbd_op_end(struct nbd_op *op)
{
    struct nbd_client *client = op->client;

    client->ops--;
    client->bytes -= op->room;
    if (client->receiving == op)
        client->receiving = NULL;
    nbd_give_buffer(client->server, op->buf, op->buf_size);
    free(op->more);
    free(op->pieces);
    free(op);
}

/* ---- doing it ---- */

static void begin(struct nbd_op *op);

static void begin_waiting(struct nbd_export *e)
{
    /* One that ends at once comes here again. */
    if (e->beginning)
        return;
    e->beginning = true;
    while (e->waiting && !e->exclusive && !(is_torn(e->waiting) && e->in_flight)) {
        struct nbd_op *op = e->waiting;
        e->waiting = op->next;
        if (!e->waiting)
            e->waiting_tail = &e->waiting;
        begin(op);
    }
    e->beginning = false;
}

static void finish(struct nbd_op *op, int result)
{
    struct nbd_export *e = op->export;

    e->in_flight--;
    if (is_torn(op))
        e->exclusive = false;
    nbd_answer(op, result);
    begin_waiting(e);
}

static void on_flushed(struct disk_request *request, int result)
{
    finish(op_of(request), result);
}

static void submit(struct nbd_op *op, enum disk_request_kind kind, uint64_t offset, uint64_t length,
                   void *buf, void (*done)(struct disk_request *request, int result))
{
    op->iov = (struct iovec){.iov_base = buf, .iov_len = length};
    op->request = (struct disk_request){.kind = kind,
                                        .unmap = !(op->flags & NBD_NO_HOLE),
                                        .fast = op->flags & NBD_FAST_ZERO,
                                        .offset = offset,
                                        .length = length,
                                        .iov = &op->iov,
                                        .n_iov = 1,
                                        .done = done};
    disk_submit(op->export->disk, &op->request);
}

static void on_done(struct disk_request *request, int result)
{
    struct nbd_op *op = op_of(request);

    if (result == 0 && changes(op) && op->flags & NBD_FUA)
        submit(op, DISK_FLUSH, 0, 0, NULL, on_flushed);
    else
        finish(op, result);
}

/* What a torn write leaves as it is in its first and last sector. */
static int fill_up(struct nbd_op *op)
{
    struct disk *disk = op->export->disk;
    uint8_t sector[DISK_SECTOR];
    uint64_t end = op->skip + op->length;
    int rc = 0;

    if (op->skip) {
        rc = disk_read_now(disk, op->start, sector, DISK_SECTOR);
        memcpy(op->buf, sector, op->skip);
    }
    if (rc == 0 && end != op->span) {
        rc = disk_read_now(disk, op->start + op->span - DISK_SECTOR, sector, DISK_SECTOR);
        memcpy(op->buf + end, sector + end % DISK_SECTOR, op->span - end);
    }
    return rc;
}

static void zero_step(struct nbd_op *op);

static void on_zeroed(struct disk_request *request, int result)
{
    if (result)
        finish(op_of(request), result);
    else
        zero_step(op_of(request));
}

/* Writes a sector again of which bytes are zeros now. */
static void zero_in_sector(struct nbd_op *op, uint64_t sector, uint32_t from, uint64_t to)
{
    struct disk *disk = op->export->disk;
    int rc = disk_read_now(disk, sector, op->buf, DISK_SECTOR);

    if (rc) {
        finish(op, rc);
        return;
    }
    memset(op->buf + from, 0, (to < DISK_SECTOR ? to : DISK_SECTOR) - from);
    submit(op, DISK_WRITE, sector, DISK_SECTOR, op->buf, on_zeroed);
}

/* Zeros from within a sector, or up to within one: that sector, those between, the last one. */
static void zero_step(struct nbd_op *op)
{
    uint64_t end = op->offset + op->length, first = op->skip ? op->start + DISK_SECTOR : op->start;
    uint64_t last = ALIGN_DOWN(end, (uint64_t)DISK_SECTOR);

    switch (op->step++) {
    case 0:
        if (op->skip) {
            zero_in_sector(op, op->start, op->skip, op->skip + op->length);
            return;
        }
        op->step++;
        /* fall through */
    case 1:
        if (first < last) {
            submit(op, DISK_WRITE_ZEROES, first, last - first, NULL, on_zeroed);
            op->step = 2;
            return;
        }
        op->step = 3;
        /* fall through */
    case 2:
        if (end != last && last >= first) {
            op->step = 3;
            zero_in_sector(op, last, 0, end - last);
            return;
        }
        break;
    default:
        break;
    }
    on_done(&op->request, 0);
}

static void on_cached(struct disk_request *request, int result)
{
    struct nbd_op *op = op_of(request);
    uint64_t left = op->start + op->span - op->at, n = left < CACHE_STEP ? left : CACHE_STEP;

    if (result || !left || op->client->broken) {
        finish(op, result);
        return;
    }
    op->at += n;
    submit(op, DISK_READ, op->at - n, n, op->buf, on_cached);
}

static void begin_trim(struct nbd_op *op)
{
    uint64_t from = ALIGN_UP(op->offset, (uint64_t)DISK_SECTOR);
    uint64_t to = ALIGN_DOWN(op->offset + op->length, (uint64_t)DISK_SECTOR);

    if (from < to)
        submit(op, DISK_DISCARD, from, to - from, NULL, on_done);
    else
        on_done(&op->request, 0);
}

/* The disk is free for it. */
static void begin(struct nbd_op *op)
{
    struct nbd_export *e = op->export;
    size_t needed = op->command == NBD_READ                          ? op->span
                    : op->command == NBD_CACHE                       ? CACHE_STEP
                    : op->command == NBD_WRITE_ZEROES && is_torn(op) ? DISK_SECTOR
                                                                     : 0;
    int rc = 0;

    e->in_flight++;
    e->exclusive = is_torn(op);
    if (needed && !op->buf) {
        op->buf = nbd_take_buffer(e->server, needed);
        op->buf_size = needed;
        rc = op->buf ? 0 : -ENOMEM;
    }
    if (rc == 0 && op->command == NBD_WRITE && is_torn(op))
        rc = fill_up(op);
    if (rc) {
        finish(op, rc);
        return;
    }
    switch ((enum nbd_command)op->command) {
    case NBD_READ:
        submit(op, DISK_READ, op->start, op->span, op->buf, on_done);
        break;
    case NBD_WRITE:
        submit(op, DISK_WRITE, op->start, op->span, op->buf, on_done);
        break;
    case NBD_FLUSH:
        submit(op, DISK_FLUSH, 0, 0, NULL, on_flushed);
        break;
    case NBD_TRIM:
        begin_trim(op);
        break;
    case NBD_WRITE_ZEROES:
        if (is_torn(op))
            zero_step(op);
        else
            submit(op, DISK_WRITE_ZEROES, op->start, op->span, NULL, on_done);
        break;
    case NBD_CACHE:
        op->at = op->start;
        on_cached(&op->request, 0);
        break;
    default:
        finish(op, -EINVAL);
        break;
    }
}

/* Begins it, or has it wait behind those that wait. */
static void submit_op(struct nbd_op *op)
{
    struct nbd_export *e = op->export;

    op->next = NULL;
    *e->waiting_tail = op;
    e->waiting_tail = &op->next;
    begin_waiting(e);
}

void nbd_drop_waiting(struct nbd_client *client)
{
    struct nbd_export *e = client->export;

    if (!e)
        return;
    struct nbd_op **link = &e->waiting;
    while (*link) {
        struct nbd_op *op = *link;
        if (op->client != client) {
            link = &op->next;
            continue;
        }
        *link = op->next;
        nbd_op_end(op);
    }
    e->waiting_tail = link;
}

/* ---- taking it ---- */

/* 0, or why it can't be done, as -errno. */
static int check(const struct nbd_op *op)
{
    static const uint16_t known[] = {
        [NBD_READ] = NBD_DF,
        [NBD_WRITE] = 0,
        [NBD_FLUSH] = 0,
        [NBD_TRIM] = 0,
        [NBD_CACHE] = 0,
        [NBD_WRITE_ZEROES] = NBD_NO_HOLE | NBD_FAST_ZERO,
        [NBD_BLOCK_STATUS] = NBD_REQ_ONE,
    };
    const struct nbd_client *client = op->client;
    uint64_t size = disk_size(op->export->disk);

    if (op->command >= ARRAY_SIZE(known) || op->command == NBD_DISCONNECT ||
        op->flags & ~(known[op->command] | NBD_FUA) || (op->flags & NBD_DF && !client->structured))
        return -EINVAL;
    if (op->command == NBD_FLUSH)
        return 0;
    if (changes(op) && disk_is_read_only(op->export->disk))
        return -EPERM;
    if (op->offset > size || op->length > size - op->offset)
        return op->command == NBD_WRITE || op->command == NBD_WRITE_ZEROES ? -ENOSPC : -EINVAL;
    if (!op->length ||
        ((op->command == NBD_READ || op->command == NBD_WRITE) && op->length > NBD_REQUEST_MAX))
        return -EINVAL;
    if (op->command == NBD_BLOCK_STATUS &&
        (!client->structured || client->contexts_export != client->export ||
         (!client->contexts[NBD_CONTEXT_ALLOCATION] && !client->contexts[NBD_CONTEXT_DEPTH] &&
          !client->contexts[NBD_CONTEXT_BITMAP])))
        return -EINVAL;
    return 0;
}

void nbd_received(struct nbd_client *client)
{
    submit_op(steal_ptr(client->receiving));
}

static void take_write(struct nbd_client *client, struct nbd_op *op, int refused)
{
    if (!refused) {
        op->buf = nbd_take_buffer(client->server, op->room);
        op->buf_size = op->room;
        refused = op->buf ? 0 : -ENOMEM;
    }
    if (refused) {
        client->skip = op->length;
        nbd_answer(op, refused);
        return;
    }
    client->receiving = op;
    client->received = 0;
}

static struct nbd_op *parse(struct nbd_client *client, const uint8_t *p)
{
    struct nbd_op *op = calloc(1, sizeof(*op));

    if (!op)
        return NULL;
    op->client = client;
    op->export = client->export;
    op->flags = get_be16(p + 4);
    op->command = get_be16(p + 6);
    op->cookie = get_be64(p + 8);
    op->offset = get_be64(p + 16);
    op->length = get_be32(p + 24);
    op->start = ALIGN_DOWN(op->offset, (uint64_t)DISK_SECTOR);
    op->skip = (uint32_t)(op->offset - op->start);
    op->span = ALIGN_UP((uint64_t)op->skip + op->length, (uint64_t)DISK_SECTOR);
    return op;
}

bool nbd_take_request(struct nbd_client *client)
{
    const uint8_t *p = client->in + client->in_at;

    if (client->ops >= NBD_OPS_MAX)
        client->blocked = true;
    if (client->blocked || nbd_available(client) < NBD_REQUEST_SIZE)
        return false;
    uint16_t command = get_be16(p + 6);
    if (get_be32(p) != NBD_REQUEST_MAGIC) {
        nbd_break(client);
        return true;
    }
    if (command == NBD_DISCONNECT) {
        client->ending = true;
        return true;
    }
    struct nbd_op *op = parse(client, p);
    if (!op) {
        nbd_break(client);
        return true;
    }
    int refused = check(op);
    size_t room = refused                                       ? 0
                  : command == NBD_READ || command == NBD_WRITE ? op->span
                  : command == NBD_CACHE                        ? CACHE_STEP
                                                                : 0;
    if (room && client->bytes && client->bytes + room > NBD_SERVER_CLIENT_BYTES) {
        free(op);
        client->blocked = true;
        return false;
    }
    client->in_at += NBD_REQUEST_SIZE;
    client->ops++;
    client->bytes += op->room = room;
    if (command == NBD_WRITE)
        take_write(client, op, refused);
    else if (refused)
        nbd_answer(op, refused);
    else if (command == NBD_BLOCK_STATUS)
        nbd_answer_status(op);
    else
        submit_op(op);
    return true;
}

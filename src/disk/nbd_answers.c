/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What clients are told: results, what was read, and where a disk has data. With structured replies, what
 * reads as zeros because nothing is there is told and not sent. The loop's thread; no locks.
 */
#include "disk/nbd_server_priv.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A read is looked at for holes if it has as many bytes; looking takes as long as sending fewer. */
#define SPARSE_MIN  65536u
#define CHUNKS_MAX  64u
#define HEAD_DATA   (NBD_CHUNK_SIZE + 8)
#define HEAD_HOLE   (NBD_CHUNK_SIZE + 12)
#define EXTENTS_MAX 1024u /* in one answer, of each context */

static uint32_t error_number(int result)
{
    switch (-result) {
    case 0:
        return 0;
    case EPERM:
    case EACCES:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
        return NBD_ENOSPC;
    case EOPNOTSUPP:
        return NBD_ENOTSUP;
    default:
        return NBD_EIO;
    }
}

static void put_chunk(uint8_t *p, const struct nbd_op *op, bool done, uint16_t type, uint32_t length)
{
    put_be32(p, NBD_CHUNK_MAGIC);
    put_be16(p + 4, done ? NBD_CHUNK_DONE : 0);
    put_be16(p + 6, type);
    put_be64(p + 8, op->cookie);
    put_be32(p + 16, length);
}

static void send_op(struct nbd_op *op, struct iovec *iov, unsigned n)
{
    op->out.op = op;
    op->out.iov = iov;
    op->out.n = n;
    op->out.at = 0;
    nbd_send(op->client, &op->out);
}

/* The head, and the data if there are any. */
static void send_head(struct nbd_op *op, size_t head, bool data)
{
    op->out.few[0] = (struct iovec){.iov_base = op->head, .iov_len = head};
    if (data)
        op->out.few[1] = (struct iovec){.iov_base = op->buf + op->skip, .iov_len = op->length};
    send_op(op, op->out.few, data ? 2 : 1);
}

static void send_simple(struct nbd_op *op, int result)
{
    put_be32(op->head, NBD_SIMPLE_MAGIC);
    put_be32(op->head + 4, error_number(result));
    put_be64(op->head + 8, op->cookie);
    send_head(op, NBD_SIMPLE_SIZE, result == 0 && op->command == NBD_READ);
}

static void send_error_chunk(struct nbd_op *op, int result)
{
    put_chunk(op->head, op, true, NBD_CHUNK_ERROR, 6);
    put_be32(op->head + NBD_CHUNK_SIZE, error_number(result));
    put_be16(op->head + NBD_CHUNK_SIZE + 4, 0);
    send_head(op, NBD_CHUNK_SIZE + 6, false);
}

static void send_data(struct nbd_op *op)
{
    put_chunk(op->head, op, true, NBD_CHUNK_OFFSET_DATA, 8 + op->length);
    put_be64(op->head + NBD_CHUNK_SIZE, op->offset);
    send_head(op, HEAD_DATA, true);
}

/* ---- reads with holes ---- */

/* How far from `at` on, up to `end`, the disk is zeros because nothing is there, or is not; both within
 * sectors. */
static uint64_t alike(const struct nbd_op *op, uint64_t at, uint64_t end, bool *hole)
{
    uint64_t start = ALIGN_DOWN(at, (uint64_t)DISK_SECTOR);
    struct disk_piece piece;

    if (disk_map(op->export->disk, start, ALIGN_UP(end, (uint64_t)DISK_SECTOR) - start, &piece)) {
        *hole = false;
        return end - at;
    }
    *hole = piece.kind == DISK_EXTENT_ZEROS;
    return start + piece.length < end ? start + piece.length - at : end - at;
}

struct chunk {
    uint64_t from, to;
    bool hole;
};

static unsigned find_chunks(const struct nbd_op *op, struct chunk *chunks)
{
    uint64_t end = op->offset + op->length;
    unsigned n = 0;

    for (uint64_t at = op->offset; at < end;) {
        bool hole;
        uint64_t next = at + alike(op, at, end, &hole);
        if (n == CHUNKS_MAX - 1) { /* the rest in one */
            hole = false;
            next = end;
        }
        if (n && chunks[n - 1].hole == hole)
            chunks[n - 1].to = next;
        else
            chunks[n++] = (struct chunk){at, next, hole};
        at = next;
    }
    return n;
}

/* False if it was not done: there is no memory, or nothing to be saved. */
static bool send_sparse(struct nbd_op *op)
{
    struct chunk chunks[CHUNKS_MAX];
    unsigned n = find_chunks(op, chunks), pieces = 0;

    if (n == 1 && !chunks[0].hole)
        return false;
    op->more = malloc((size_t)n * HEAD_HOLE);
    op->pieces = malloc(2 * n * sizeof(*op->pieces));
    if (!op->more || !op->pieces)
        return false;
    for (unsigned i = 0; i < n; i++) {
        const struct chunk *c = &chunks[i];
        uint8_t *p = op->more + (size_t)i * HEAD_HOLE;
        uint32_t length = (uint32_t)(c->to - c->from);
        put_chunk(p, op, i == n - 1, c->hole ? NBD_CHUNK_OFFSET_HOLE : NBD_CHUNK_OFFSET_DATA,
                  c->hole ? 12 : 8 + length);
        put_be64(p + NBD_CHUNK_SIZE, c->from);
        put_be32(p + NBD_CHUNK_SIZE + 8, length); /* of a hole; not sent otherwise */
        op->pieces[pieces++] = (struct iovec){p, c->hole ? HEAD_HOLE : HEAD_DATA};
        if (!c->hole)
            op->pieces[pieces++] = (struct iovec){op->buf + (c->from - op->start), length};
    }
    send_op(op, op->pieces, pieces);
    return true;
}

void nbd_answer(struct nbd_op *op, int result)
{
    const struct nbd_client *client = op->client;
    bool chunks = client->structured && (op->command == NBD_READ || op->command == NBD_BLOCK_STATUS);

    if (client->broken)
        nbd_op_end(op);
    else if (!chunks)
        send_simple(op, result);
    else if (result)
        send_error_chunk(op, result);
    else if (op->flags & NBD_DF || op->length < SPARSE_MIN || !send_sparse(op))
        send_data(op);
}

/* ---- where data are ---- */

/* What a context says of the disk at `at`, and in *length, up to `max`, how far. False if that can't be told.
 */
static bool state_at(const struct nbd_op *op, unsigned context, uint64_t at, uint64_t max, uint32_t *state,
                     uint64_t *length)
{
    struct disk_piece piece;

    if (context == NBD_CONTEXT_BITMAP) {
        *state = disk_dirty_at(&op->export->dirty, at, length) ? NBD_STATE_DIRTY : 0;
        if (*length > max)
            *length = max;
        return true;
    }
    if (disk_map(op->export->disk, at, max, &piece))
        return false;
    *length = piece.length;
    if (context == NBD_CONTEXT_DEPTH)
        *state = piece.allocated ? piece.depth + 1 : 0;
    else
        *state = piece.kind == DISK_EXTENT_ZEROS ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0;
    return true;
}

/* Pairs of a length and what is there, from `p` on: how many bytes they take. */
static size_t put_extents(const struct nbd_op *op, unsigned context, uint8_t *p)
{
    uint64_t end = op->offset + op->length, last = ALIGN_UP(end, (uint64_t)DISK_SECTOR);
    unsigned n = 0, max = op->flags & NBD_REQ_ONE ? 1 : EXTENTS_MAX;
    uint64_t length;

    for (uint64_t at = op->start; at < last; at += length) {
        uint32_t state;
        if (!state_at(op, context, at, last - at, &state, &length))
            break;
        uint64_t from = at > op->offset ? at : op->offset, to = at + length < end ? at + length : end;
        uint8_t *before = n ? p + 8 * (n - 1) : NULL;
        if (before && get_be32(before + 4) == state) {
            put_be32(before, get_be32(before) + (uint32_t)(to - from));
            continue;
        }
        if (n == max)
            break;
        put_be32(p + 8 * n, (uint32_t)(to - from));
        put_be32(p + 8 * n + 4, state);
        n++;
    }
    return 8 * n;
}

void nbd_answer_status(struct nbd_op *op)
{
    const struct nbd_client *client = op->client;
    size_t used = 0;
    unsigned last = NBD_CONTEXTS;

    while (!client->contexts[last])
        last--;
    op->more = malloc(NBD_CONTEXTS * (NBD_CHUNK_SIZE + 4 + 8 * EXTENTS_MAX));
    if (!op->more) {
        nbd_answer(op, -ENOMEM);
        return;
    }
    for (unsigned id = 1; id <= NBD_CONTEXTS; id++) {
        if (!client->contexts[id])
            continue;
        uint8_t *p = op->more + used;
        size_t n = put_extents(op, id, p + NBD_CHUNK_SIZE + 4);
        if (!n) {
            nbd_answer(op, -EIO);
            return;
        }
        put_chunk(p, op, id == last, NBD_CHUNK_BLOCK_STATUS, (uint32_t)(4 + n));
        put_be32(p + NBD_CHUNK_SIZE, id);
        used += NBD_CHUNK_SIZE + 4 + n;
    }
    op->out.few[0] = (struct iovec){.iov_base = op->more, .iov_len = used};
    send_op(op, op->out.few, 1);
}

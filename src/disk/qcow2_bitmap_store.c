/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Putting the bitmaps of a qcow2 file into it: bits, tables and the directory are written to clusters of
 * their own, then the header, in its first sector, is told of them at once, then what it told of before is
 * given back. An end at any moment leaves the old ones, which say that they are in use where they may lack
 * something, or the new ones; some space may leak. All at once, in the disk's thread; no locks.
 */
#include "disk/qcow2_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Pieces of the file. */
struct places {
    struct qcow2_freed *list;
    size_t n, room;
};

struct store {
    struct qcow2 *q;
    struct places taken, left; /* what was taken; what is to be given back */
};

static int note(struct qcow2 *q, struct places *p, uint64_t offset, uint64_t bytes)
{
    if (!bytes)
        return 0;
    if (p->n == p->room) {
        size_t room = p->room ? 2 * p->room : 64;
        struct qcow2_freed *list = realloc(p->list, room * sizeof(*list));
        if (!list)
            return -ENOMEM;
        p->list = list;
        p->room = room;
    }
    p->list[p->n++] = (struct qcow2_freed){.cluster = offset >> q->cluster_bits,
                                           .n = (bytes + q->cluster_size - 1) >> q->cluster_bits};
    return 0;
}

/* Writes bytes to clusters of their own. */
static int write_new(struct store *s, const void *bytes, uint64_t len, uint64_t *offset)
{
    struct qcow2 *q = s->q;
    int rc = qcow2_take_run(q, (len + q->cluster_size - 1) >> q->cluster_bits, offset);

    if (rc)
        return rc;
    rc = note(q, &s->taken, *offset, len);
    if (rc) {
        qcow2_untake_clusters(q, *offset, (len + q->cluster_size - 1) >> q->cluster_bits);
        return rc;
    }
    return disk_write_at(q->disk.fd, bytes, len, *offset);
}

/* What the file has of a bitmap is to be given back. A table that can't be right leaks. */
static int leave(struct store *s, struct qcow2_bitmap *b)
{
    struct qcow2 *q = s->q;
    int rc = 0;

    if (!b->at || qcow2_load_bitmap_table(q, b) < 0)
        return 0;
    for (uint32_t i = 0; rc == 0 && i < b->table_size; i++)
        if (b->table[i] > 1)
            rc = note(q, &s->left, b->table[i], q->cluster_size);
    return rc ? rc : note(q, &s->left, b->table_offset, 8ull * b->table_size);
}

static int write_bits(struct store *s, struct qcow2_bitmap *b)
{
    struct qcow2 *q = s->q;
    uint64_t n = qcow2_bitmap_entries(q, b);
    cleanup_free uint64_t *table = calloc(n + 1, sizeof(*table)), *bytes = calloc(n + 1, sizeof(*bytes));
    int rc = table && bytes ? leave(s, b) : -ENOMEM;

    for (uint64_t i = 0; rc == 0 && i < n; i++) {
        const uint8_t *from = b->bits + (i << q->cluster_bits);
        if (!disk_is_zero(from, q->cluster_size))
            rc = write_new(s, from, q->cluster_size, &table[i]);
        bytes[i] = htobe64(table[i]);
    }
    if (rc == 0)
        rc = write_new(s, bytes, 8 * n, &b->table_offset);
    if (rc)
        return rc;
    free(b->table);
    b->table = steal_ptr(table);
    b->table_size = (uint32_t)n;
    return 0;
}

/* Tells the header. */
static int switch_directory(struct store *s)
{
    struct qcow2 *q = s->q;
    struct qcow2_bitmaps *b = &q->bitmaps;
    uint64_t bytes, autoclear = q->autoclear & ~QCOW2_BITMAPS_VALID, offset = 0;
    cleanup_free uint8_t *directory = qcow2_pack_bitmaps(b, &bytes);
    uint8_t e[24] = {0};
    int rc = directory ? note(q, &s->left, b->offset, b->bytes) : -ENOMEM;

    if (rc == 0 && bytes > QCOW2_BITMAPS_BYTES)
        rc = -EFBIG;
    if (rc == 0 && b->n)
        rc = write_new(s, directory, bytes, &offset);
    if (rc == 0)
        rc = qcow2_write_tables(q);
    if (rc == 0)
        rc = qcow2_sync(q);
    put_be32(e, b->n);
    put_be64(e + 8, bytes);
    put_be64(e + 16, offset);
    if (rc)
        return rc;
    /* From here on the file may have the new ones. */
    s->taken.n = 0;
    if (b->n)
        autoclear |= QCOW2_BITMAPS_VALID;
    rc = qcow2_set_extension(q, QCOW2_EXTENSION_BITMAPS, b->n ? e : NULL, sizeof(e), autoclear);
    if (rc == 0)
        q->autoclear = autoclear;
    return rc;
}

static int store(struct store *s, struct qcow2_bitmap *gone, uint32_t n_gone)
{
    struct qcow2 *q = s->q;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < q->bitmaps.n; i++)
        if (q->bitmaps.list[i].changed)
            rc = write_bits(s, &q->bitmaps.list[i]);
    for (uint32_t i = 0; rc == 0 && i < n_gone; i++)
        rc = leave(s, &gone[i]);
    if (rc == 0)
        rc = switch_directory(s);
    for (size_t i = 0; rc == 0 && i < s->left.n; i++)
        rc = qcow2_lower(q, s->left.list[i].cluster << q->cluster_bits, s->left.list[i].n << q->cluster_bits);
    for (size_t i = 0; rc && i < s->taken.n; i++)
        qcow2_untake_clusters(q, s->taken.list[i].cluster << q->cluster_bits, s->taken.list[i].n);
    int end = qcow2_cache_write(q, &q->blocks);
    return rc ? rc : end;
}

int qcow2_store_bitmaps(struct qcow2 *q)
{
    struct qcow2_bitmaps *b = &q->bitmaps;
    cleanup_free struct qcow2_bitmap *gone = NULL;
    struct store s = {.q = q};
    uint32_t n_gone = 0, kept = 0;
    bool changed = b->changed;

    for (uint32_t i = 0; i < b->n; i++)
        changed = changed || b->list[i].changed || b->list[i].in_use;
    if (!b->read || !changed)
        return 0;
    if (q->damaged)
        return -EIO;
    gone = calloc(b->n + 1u, sizeof(*gone));
    if (!gone)
        return -ENOMEM;
    for (uint32_t i = 0; i < b->n; i++) {
        if (b->list[i].gone)
            gone[n_gone++] = b->list[i];
        else
            b->list[kept++] = b->list[i];
    }
    b->n = kept;
    int rc = store(&s, gone, n_gone);
    for (uint32_t i = 0; i < n_gone; i++)
        qcow2_free_bitmap(&gone[i]);
    free(s.taken.list);
    free(s.left.list);
    return rc;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Persistent bitmaps of a qcow2 file: what is written is recorded in memory, and stored when the disk is
 * closed (qcow2_bitmap_store.c). Before the first write the file says of each that it is in use, so who finds
 * that knows that its last user did not get to that, and that it may lack something. The disk's thread; no
 * locks.
 */
#include "disk/qcow2_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define AT_FLAGS 12u /* in an entry of the directory */

static struct qcow2 *qcow2_of(struct disk *disk)
{
    return container_of(disk, struct qcow2, disk);
}

/* ---- bits ---- */

static void set_bits(struct qcow2_bitmap *b, uint64_t first, uint64_t last)
{
    if (last >= b->n_bits)
        last = b->n_bits - 1;
    b->changed = true;
    while (first <= last && first % 8)
        b->bits[first / 8] |= (uint8_t)(1u << first % 8), first++;
    if (first > last)
        return;
    memset(b->bits + first / 8, 0xff, (last + 1 - first) / 8);
    for (first += (last + 1 - first) / 8 * 8; first <= last; first++)
        b->bits[first / 8] |= (uint8_t)(1u << first % 8);
}

static void mark(struct qcow2_bitmap *b, uint64_t offset, uint64_t length)
{
    set_bits(b, offset >> b->granularity_bits, (offset + length - 1) >> b->granularity_bits);
}

static void unload(struct qcow2 *q, struct qcow2_bitmap *b)
{
    if (b->bits)
        q->bitmaps.memory -= b->room;
    free(steal_ptr(b->bits));
}

/* A copy of it to be freed. */
static uint8_t *copy_bits(const struct qcow2_bitmap *b)
{
    uint8_t *copy = malloc((b->n_bits + 7) / 8 + 1);

    if (copy)
        memcpy(copy, b->bits, (b->n_bits + 7) / 8);
    return copy;
}

/* ---- recording ---- */

/* From now on it is held in memory, and the file says so; or can't be, and is not valid any more. */
static int hold(struct qcow2 *q, struct qcow2_bitmap *b, bool *wrote)
{
    uint8_t flags[4];
    bool can = qcow2_bitmap_is_known(b) && qcow2_load_bitmap(q, b) == 0;

    put_be32(flags, b->flags | QCOW2_BITMAP_IN_USE);
    int rc = b->at ? disk_write_at(q->disk.fd, flags, sizeof(flags), b->at + AT_FLAGS) : 0;
    if (rc)
        return rc;
    *wrote = *wrote || b->at;
    b->in_use = can;
    if (!can)
        b->flags |= QCOW2_BITMAP_IN_USE;
    return 0;
}

int qcow2_begin_recording(struct qcow2 *q, bool all)
{
    bool wrote = false;

    if (!q->bitmaps.read && qcow2_read_bitmaps(q, &q->bitmaps, NULL) < 0)
        return 0;
    for (uint32_t i = 0; i < q->bitmaps.n; i++) {
        struct qcow2_bitmap *b = &q->bitmaps.list[i];
        bool enabled = b->flags & QCOW2_BITMAP_AUTO;
        if (b->gone || b->flags & QCOW2_BITMAP_IN_USE || (!enabled && !all))
            continue;
        int rc = b->in_use ? 0 : hold(q, b, &wrote);
        if (rc)
            return rc;
        b->recording = b->in_use && enabled;
    }
    return wrote ? qcow2_sync(q) : 0;
}

void qcow2_record(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    for (uint32_t i = 0; length && i < q->bitmaps.n; i++)
        if (q->bitmaps.list[i].recording)
            mark(&q->bitmaps.list[i], offset, length);
}

static void resize_one(struct qcow2 *q, struct qcow2_bitmap *b)
{
    uint64_t n = qcow2_bitmap_bits(q, b), room = qcow2_bitmap_entries(q, b) << q->cluster_bits;
    uint64_t had = (b->n_bits + 7) / 8, has = (n + 7) / 8;
    uint8_t *bits = NULL;

    q->bitmaps.memory -= b->room;
    if (room <= QCOW2_BITMAPS_MEMORY - q->bitmaps.memory)
        bits = calloc(1, room + 1);
    if (!bits) {
        free(steal_ptr(b->bits));
        b->flags |= QCOW2_BITMAP_IN_USE;
        b->recording = b->changed = b->in_use = false;
        return;
    }
    memcpy(bits, b->bits, had < has ? had : has);
    if (n % 8)
        bits[n / 8] &= (uint8_t)((1u << n % 8) - 1);
    free(b->bits);
    b->bits = bits;
    b->n_bits = n;
    b->changed = true;
    b->room = room;
    q->bitmaps.memory += room;
}

void qcow2_resize_bitmaps(struct qcow2 *q)
{
    for (uint32_t i = 0; i < q->bitmaps.n; i++)
        if (q->bitmaps.list[i].bits && q->bitmaps.list[i].n_bits != qcow2_bitmap_bits(q, &q->bitmaps.list[i]))
            resize_one(q, &q->bitmaps.list[i]);
}

/* ---- the operations ---- */

static int begin(struct qcow2 *q, struct error **err)
{
    return q->bitmaps.read ? 0 : qcow2_read_bitmaps(q, &q->bitmaps, err);
}

static struct qcow2_bitmap *find(struct qcow2 *q, const char *name)
{
    for (uint32_t i = 0; i < q->bitmaps.n; i++)
        if (!q->bitmaps.list[i].gone && strcmp(q->bitmaps.list[i].name, name) == 0)
            return &q->bitmaps.list[i];
    return NULL;
}

static int load(struct qcow2 *q, struct qcow2_bitmap *b, struct error **err)
{
    if (!qcow2_bitmap_is_known(b))
        return error_set(err, ENOTSUP, "bitmap '%s' is of a kind that is not known here", b->name);
    int rc = qcow2_load_bitmap(q, b);
    if (rc == -EINVAL)
        return error_set(err, EINVAL, "is damaged: the table of bitmap '%s'", b->name);
    if (rc == -EFBIG)
        return error_set(err, EFBIG, "bitmap '%s' takes more memory than the %u MiB for all of an image",
                         b->name, QCOW2_BITMAPS_MEMORY >> 20);
    return rc ? error_set_errno(err, -rc, "reading bitmap '%s'", b->name) : 0;
}

/* One whose bits are right, loaded. */
static int find_sound(struct qcow2 *q, const char *name, struct qcow2_bitmap **out, struct error **err)
{
    int rc = begin(q, err);

    if (rc)
        return rc;
    *out = find(q, name);
    if (!*out)
        return error_set(err, ENOENT, "has no bitmap '%s'", name);
    if ((*out)->flags & QCOW2_BITMAP_IN_USE)
        return error_set(err, EINVAL,
                         "bitmap '%s' was not stored by its last user, so it may lack something: remove it",
                         name);
    return load(q, *out, err);
}

static uint64_t count(const struct qcow2 *q, const struct qcow2_bitmap *b)
{
    uint64_t n = 0, tail = q->disk.size & ((1ull << b->granularity_bits) - 1), last = b->n_bits - 1;

    for (uint64_t i = 0; i < (b->n_bits + 7) / 8; i++)
        n += (unsigned)__builtin_popcount(b->bits[i]);
    n <<= b->granularity_bits;
    if (tail && b->bits[last / 8] >> last % 8 & 1)
        n -= (1ull << b->granularity_bits) - tail;
    return n;
}

static int list(struct disk *disk, struct disk_bitmaps *out, struct error **err)
{
    struct qcow2 *q = qcow2_of(disk);
    struct disk_bitmaps all = {0};
    int rc = begin(q, err);

    if (rc)
        return rc;
    all.list = calloc(q->bitmaps.n + 1u, sizeof(*all.list));
    if (!all.list)
        return error_set_errno(err, ENOMEM, "reading its bitmaps");
    for (uint32_t i = 0; rc == 0 && i < q->bitmaps.n; i++) {
        struct qcow2_bitmap *b = &q->bitmaps.list[i];
        bool held = b->bits, inconsistent = b->flags & QCOW2_BITMAP_IN_USE;
        if (b->gone)
            continue;
        rc = inconsistent ? 0 : load(q, b, err);
        if (rc)
            break;
        all.list[all.n++] = (struct disk_bitmap){.name = strdup(b->name),
                                                 .granularity = 1u << b->granularity_bits,
                                                 .enabled = b->flags & QCOW2_BITMAP_AUTO,
                                                 .inconsistent = inconsistent,
                                                 .dirty = inconsistent ? 0 : count(q, b)};
        if (!held)
            unload(q, b);
        if (!all.list[all.n - 1].name)
            rc = error_set_errno(err, ENOMEM, "reading its bitmaps");
    }
    if (rc)
        disk_bitmaps_free(&all);
    *out = all;
    return rc;
}

static int get(struct disk *disk, const char *name, struct disk_dirty *out, struct error **err)
{
    struct qcow2_bitmap *b;
    int rc = find_sound(qcow2_of(disk), name, &b, err);

    if (rc)
        return rc;
    *out = (struct disk_dirty){
        .bits = copy_bits(b), .granularity = 1u << b->granularity_bits, .size = disk->size};
    return out->bits ? 0 : error_set_errno(err, ENOMEM, "reading bitmap '%s'", name);
}

/* As qemu-img has it: a cluster, but from 4 to 64 KiB. */
static uint64_t default_granularity(const struct qcow2 *q)
{
    return q->cluster_size < 4096 ? 4096 : q->cluster_size > 65536 ? 65536 : q->cluster_size;
}

static int add(struct disk *disk, const char *name, uint64_t granularity, struct error **err)
{
    struct qcow2 *q = qcow2_of(disk);
    size_t len = strlen(name);

    if (q->version < 3)
        return error_set(err, ENOTSUP, "is qcow2 of version 2, which has no bitmaps");
    if (!len || len > QCOW2_BITMAP_NAME_MAX)
        return error_set(err, EINVAL, "a bitmap's name has 1 to %u bytes", QCOW2_BITMAP_NAME_MAX);
    if (!granularity)
        granularity = default_granularity(q);
    if (granularity < 512 || granularity > 1ull << 31 || granularity & (granularity - 1))
        return error_set(err, EINVAL, "a granularity is a power of 2 from 512 bytes to 2 GiB");
    int rc = begin(q, err);
    if (rc)
        return rc;
    if (find(q, name))
        return error_set(err, EEXIST, "has a bitmap '%s' already", name);
    if (q->bitmaps.n >= QCOW2_BITMAPS_MAX)
        return error_set(err, EINVAL, "has %u bitmaps, and room for no more", q->bitmaps.n);
    struct qcow2_bitmap b = {.type = QCOW2_BITMAP_DIRTY,
                             .flags = QCOW2_BITMAP_AUTO,
                             .granularity_bits = (uint8_t)__builtin_ctzll(granularity),
                             .changed = true};
    uint64_t room = qcow2_bitmap_entries(q, &b) << q->cluster_bits;
    if (room > QCOW2_BITMAPS_MEMORY - q->bitmaps.memory)
        return error_set(err, EFBIG,
                         "bitmaps of an image take %u MiB of memory at most: choose a greater granularity",
                         QCOW2_BITMAPS_MEMORY >> 20);
    struct qcow2_bitmap *all = realloc(q->bitmaps.list, (q->bitmaps.n + 1u) * sizeof(*all));
    if (all)
        q->bitmaps.list = all;
    b.name = strdup(name);
    b.bits = calloc(1, room + 1);
    b.n_bits = qcow2_bitmap_bits(q, &b);
    b.room = room;
    if (!all || !b.name || !b.bits) {
        qcow2_free_bitmap(&b);
        return error_set_errno(err, ENOMEM, "making bitmap '%s'", name);
    }
    q->bitmaps.memory += room;
    q->bitmaps.changed = true;
    all[q->bitmaps.n++] = b;
    rc = q->changed ? qcow2_begin_recording(q, false) : 0;
    return rc ? error_set_errno(err, -rc, "writing it") : 0;
}

static int remove_bitmap(struct disk *disk, const char *name, struct error **err)
{
    struct qcow2 *q = qcow2_of(disk);
    int rc = begin(q, err);
    struct qcow2_bitmap *b = rc == 0 ? find(q, name) : NULL;

    if (rc)
        return rc;
    if (!b)
        return error_set(err, ENOENT, "has no bitmap '%s'", name);
    unload(q, b);
    b->gone = true;
    b->recording = b->changed = false;
    q->bitmaps.changed = true;
    return 0;
}

static int clear(struct disk *disk, const char *name, struct error **err)
{
    struct qcow2_bitmap *b;
    int rc = find_sound(qcow2_of(disk), name, &b, err);

    if (rc)
        return rc;
    memset(b->bits, 0, (b->n_bits + 7) / 8);
    b->changed = true;
    return 0;
}

static int enable(struct disk *disk, const char *name, bool enabled, struct error **err)
{
    struct qcow2 *q = qcow2_of(disk);
    struct qcow2_bitmap *b;
    int rc = find_sound(q, name, &b, err);

    if (rc)
        return rc;
    b->flags = enabled ? b->flags | QCOW2_BITMAP_AUTO : b->flags & ~QCOW2_BITMAP_AUTO;
    b->recording = b->recording && enabled;
    q->bitmaps.changed = true;
    rc = q->changed ? qcow2_begin_recording(q, false) : 0;
    return rc ? error_set_errno(err, -rc, "writing it") : 0;
}

static int merge(struct disk *disk, const char *name, const char *source, struct error **err)
{
    struct qcow2_bitmap *to, *from;
    int rc = find_sound(qcow2_of(disk), name, &to, err);

    if (rc == 0)
        rc = find_sound(qcow2_of(disk), source, &from, err);
    if (rc)
        return rc;
    for (uint64_t i = 0; i < from->n_bits; i++)
        if (from->bits[i / 8] >> i % 8 & 1)
            mark(to, i << from->granularity_bits, 1ull << from->granularity_bits);
    to->changed = true;
    return 0;
}

static int mark_range(struct disk *disk, const char *name, uint64_t offset, uint64_t length,
                      struct error **err)
{
    struct qcow2_bitmap *b;
    int rc = find_sound(qcow2_of(disk), name, &b, err);

    if (rc == 0 && length)
        mark(b, offset, length);
    return rc;
}

const struct disk_bitmap_ops qcow2_bitmap_ops = {.list = list,
                                                 .get = get,
                                                 .add = add,
                                                 .remove = remove_bitmap,
                                                 .clear = clear,
                                                 .enable = enable,
                                                 .merge = merge,
                                                 .mark = mark_range};

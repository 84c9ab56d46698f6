/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The half of convert that writes: zeros are looked for, the rest is compressed if that is wanted, is told
 * where it goes, and is written there in as few and as long pieces as can be. Any of the job's threads; what
 * they share is under the lock of `struct convert`, or atomic.
 */
#include "disk/convert_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <fcntl.h>
#include <string.h>

/* Zeros of this length and alignment are not written, even in a unit that has others. */
#define HOLE 65536u

/* A write of at least so many bytes is worth asking for their place in one piece first: where the kernel has
 * to find that page by page, it takes half as long again. */
#define RESERVE_MIN (128u << 10)

/* After so many bytes the disk begins with them, while others are still read: it would have nothing to do
 * until the end. */
#define BEGIN_BYTES (8u << 20)

static void note_written(struct convert *c, int fd, uint64_t len)
{
    uint64_t all = __atomic_add_fetch(&c->written, len, __ATOMIC_RELAXED);

    if (!c->sync || all < BEGIN_BYTES ||
        !__atomic_compare_exchange_n(&c->written, &all, 0, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        return;
    /* That this failed is told by the fsync at the end. */
    if (sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE) < 0)
        return;
}

static int write_at(struct convert *c, const uint8_t *p, uint64_t len, uint64_t offset)
{
    int fd = disk_build_file(&c->build, &offset);

    if (len >= RESERVE_MIN && __atomic_load_n(&c->reserves, __ATOMIC_RELAXED) &&
        fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len) < 0)
        __atomic_store_n(&c->reserves, false, __ATOMIC_RELAXED);
    int rc = disk_write_at(fd, p, len, offset);

    if (rc == 0)
        note_written(c, fd, len);
    return rc;
}

/* How many of the bytes, which are HOLEs but for the last, are zeros, or are none. */
static uint64_t alike(const uint8_t *p, uint64_t len, bool zeros)
{
    uint64_t at = 0;

    while (at < len && disk_is_zero(p + at, len - at < HOLE ? len - at : HOLE) == zeros)
        at += HOLE;
    return at < len ? at : len;
}

/* The file is new: what is not written reads as zeros. */
static int write_run(struct convert *c, uint8_t *p, uint64_t len, uint64_t offset)
{
    const struct disk_build *b = &c->build;
    int rc = b->format->build->seal ? b->format->build->seal(b, p, len, offset) : 0;

    if (rc)
        return rc;
    if (b->unit <= HOLE || b->format->build->seal)
        return write_at(c, p, len, offset);
    for (uint64_t done = 0; rc == 0 && done < len;) {
        done += alike(p + done, len - done, true);
        uint64_t n = alike(p + done, len - done, false);
        rc = n ? write_at(c, p + done, n, offset + done) : 0;
        done += n;
    }
    return rc;
}

/* Looks for zeros, and compresses the rest: what is packed comes to lie in a row, so that it can be written
 * in one piece. */
static void pack_piece(struct convert_worker *w, unsigned n)
{
    const struct disk_build *b = &w->c->build;
    uint8_t *out = w->packed;

    for (unsigned i = 0; i < n; i++) {
        struct convert_unit *u = &w->units[i];
        uint8_t *unit = w->buf + (size_t)i * b->unit;
        *u = (struct convert_unit){.zeros = !b->every && disk_is_zero(unit, b->unit), .from = unit};
        if (u->zeros || !b->pack_max)
            continue;
        u->packed = b->format->build->pack(b, w->packer, w->at / b->unit + i, unit, out);
        if (u->packed) {
            u->from = out;
            out += u->packed;
        }
    }
}

static uint32_t length_of(const struct convert_worker *w, unsigned i)
{
    const struct disk_build *b = &w->c->build;
    uint32_t at = i * b->unit;

    if (w->units[i].packed)
        return (uint32_t)w->units[i].packed;
    return b->whole || at + b->unit <= w->length ? b->unit : w->length - at;
}

static int place_piece(struct convert_worker *w, unsigned n)
{
    struct convert *c = w->c;
    int rc = 0;
    LOCK_SCOPE(&c->lock);

    /* Each piece that was taken is placed, unless something has failed. */
    while (c->build.ordered && c->turn != w->number && !c->result)
        pthread_cond_wait(&c->placed, &c->lock);
    if (c->result)
        return c->result;
    for (unsigned i = 0; i < n && rc == 0; i++)
        if (!w->units[i].zeros)
            rc = c->build.format->build->place(&c->build, w->at / c->build.unit + i, length_of(w, i),
                                               w->units[i].packed, &w->units[i].offset);
    c->turn++;
    if (c->build.ordered)
        pthread_cond_broadcast(&c->placed);
    return rc;
}

int convert_write(struct convert_worker *w)
{
    struct convert *c = w->c;
    uint32_t filled = ALIGN_UP(w->length, c->build.unit);
    unsigned n = filled / c->build.unit;
    uint8_t *run = NULL;
    uint64_t offset = 0, length = 0;

    memset(w->buf + w->length, 0, filled - w->length);
    pack_piece(w, n);
    int rc = place_piece(w, n);
    for (unsigned i = 0; rc == 0 && i < n; i++) {
        const struct convert_unit *u = &w->units[i];
        if (u->zeros)
            continue;
        if (length && (u->from != run + length || u->offset != offset + length)) {
            rc = write_run(c, run, length, offset);
            length = 0;
        }
        if (!length) {
            run = u->from;
            offset = u->offset;
        }
        length += length_of(w, i);
    }
    return rc || !length ? rc : write_run(c, run, length, offset);
}

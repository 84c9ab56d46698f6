/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The half of convert that writes: zeros are looked for, the rest is compressed if that is wanted, is told
 * where it goes, and is written there in as few and as long pieces as can be. Any of the job's threads finds
 * places, under the lock of `struct convert`; one at a time writes.
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

static int write_at(struct convert *c, const uint8_t *p, uint64_t len, uint64_t offset)
{
    int fd = disk_build_file(&c->build, &offset);

    if (len >= RESERVE_MIN && c->reserves)
        c->reserves = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len) == 0;
    int rc = disk_write_at(fd, p, len, offset);
    c->written += len;
    if (rc || !c->sync || c->written < BEGIN_BYTES)
        return rc;
    c->written = 0;
    /* What fails here, the fsync at the end tells. */
    if (sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE) < 0)
        return 0;
    return 0;
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
    int rc = b->seals ? b->format->build->seal(b, p, len, offset) : 0;

    if (rc)
        return rc;
    if (b->unit <= HOLE || b->seals)
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
static void pack_piece(struct convert *c, struct convert_piece *p, struct disk_packer *packer, unsigned n)
{
    const struct disk_build *b = &c->build;
    uint8_t *out = p->packed;

    for (unsigned i = 0; i < n; i++) {
        struct convert_unit *u = &p->units[i];
        uint8_t *unit = p->buf + (size_t)i * b->unit;
        *u = (struct convert_unit){.zeros = !b->every && disk_is_zero(unit, b->unit), .from = unit};
        if (u->zeros || !b->pack_max)
            continue;
        u->packed = b->format->build->pack(b, packer, p->at / b->unit + i, unit, out);
        if (u->packed) {
            u->from = out;
            out += u->packed;
        }
    }
}

static uint32_t length_of(const struct disk_build *b, const struct convert_piece *p, unsigned i)
{
    uint32_t at = i * b->unit;

    if (p->units[i].packed)
        return (uint32_t)p->units[i].packed;
    return b->whole || at + b->unit <= p->length ? b->unit : p->length - at;
}

static unsigned units_of(const struct disk_build *b, const struct convert_piece *p)
{
    return ALIGN_UP(p->length, b->unit) / b->unit;
}

int convert_place(struct convert *c, struct convert_piece *p, struct disk_packer *packer)
{
    struct disk_build *b = &c->build;
    unsigned n = units_of(b, p);
    int rc = 0;

    memset(p->buf + p->length, 0, n * b->unit - p->length);
    pack_piece(c, p, packer, n);
    LOCK_SCOPE(&c->lock);
    /* Each piece that was taken is placed, unless something has failed. */
    while (b->ordered && c->turn != p->number && !c->result)
        pthread_cond_wait(&c->placed, &c->lock);
    if (c->result)
        return c->result;
    for (unsigned i = 0; i < n && rc == 0; i++)
        if (!p->units[i].zeros)
            rc = b->format->build->place(b, p->at / b->unit + i, length_of(b, p, i), p->units[i].packed,
                                         &p->units[i].offset);
    c->turn++;
    if (b->ordered)
        pthread_cond_broadcast(&c->placed);
    return rc;
}

int convert_write(struct convert *c, const struct convert_piece *p)
{
    unsigned n = units_of(&c->build, p);
    uint8_t *run = NULL;
    uint64_t offset = 0, length = 0;
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < n; i++) {
        const struct convert_unit *u = &p->units[i];
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
        length += length_of(&c->build, p, i);
    }
    return rc || !length ? rc : write_run(c, run, length, offset);
}

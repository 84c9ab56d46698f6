/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The format `vhdx` of Hyper-V ([MS-VHDX] 1.0): see vhdx_header.c for the file's parts. The table of blocks
 * has 64 bits for each, and behind those of each 2^23 sectors one more, which matters to differencing images:
 * it says where a bit for each of these sectors is, for blocks of which only some are here. Such a block
 * becomes whole before it is written; no bits are ever changed here.
 *
 * A new block is at the end of the file, its entry reaches the table with the next flush, through the log:
 *
 *     content | sync | entry of the log | sync | [header that names the log | sync] | table
 *
 * The log's next entry is written after another sync, so the table has by then what the one before says.
 * With the image closed the header names no log. See blocks.h for the rest; vhdx_build.c makes images.
 */
#include "disk/vhdx_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct vhdx *vhdx_of(const struct blocks *b)
{
    return (struct vhdx *)(uintptr_t)container_of(b, struct vhdx, blocks);
}

static bool probe(const uint8_t *head, size_t len)
{
    return len >= 8 && memcmp(head, VHDX_SIGNATURE, 8) == 0;
}

/* The parent is a VHDX too. */
static int backing(int fd, char **name, char **format, struct error **err)
{
    cleanup_free char *found = NULL;
    struct vhdx_header h;
    struct vhdx_log log;
    uint64_t file_end;
    int rc = vhdx_header_read(&h, &log, fd, &file_end, err);

    if (rc == 0 && h.flags & VHDX_HAS_PARENT)
        rc = vhdx_parent_name(fd, &h, &log, &found, err);
    vhdx_log_free(&log);
    if (rc)
        return rc;
    *name = *format = NULL;
    if (!found)
        return 0;
    *format = strdup("vhdx");
    if (!*format)
        return error_set_errno(err, ENOMEM, "reading its metadata");
    *name = steal_ptr(found);
    return 0;
}

static int describe(int fd, struct disk_info *info, struct error **err)
{
    struct vhdx_header h;
    struct vhdx_log log;
    uint64_t file_end;
    int rc = vhdx_header_read(&h, &log, fd, &file_end, err);

    if (rc == 0) {
        info->size = h.size;
        disk_info_add(info, "type",
                      h.flags & VHDX_HAS_PARENT ? "differencing"
                      : h.flags & VHDX_FIXED    ? "fixed"
                                                : "dynamic");
        disk_info_add(info, "cluster-size", "%u", h.block_size);
        disk_info_add(info, "blocks", "%u", h.n);
        disk_info_add(info, "logical-sector-size", "%u", h.sector_size);
        disk_info_add(info, "physical-sector-size", "%u", h.physical_size);
        disk_info_add(info, "log-to-be-replayed", "%s", log.bytes ? "yes" : "no");
    }
    vhdx_log_free(&log);
    return rc;
}

/* ---- blocks ---- */

static uint64_t where(const struct blocks *b, uint32_t i)
{
    return (uint64_t)b->map[i] * VHDX_MIB;
}

/* Before anything else of the file changes. */
static int begin_change(struct vhdx *v)
{
    if (v->changed)
        return 0;
    int rc = vhdx_new_id(v->header.bytes + VHDX_AT_FILE_WRITE_ID);
    if (rc == 0)
        rc = vhdx_new_id(v->header.bytes + VHDX_AT_DATA_WRITE_ID);
    if (rc == 0)
        rc = vhdx_header_write(&v->header, v->blocks.disk.fd);
    if (rc == 0)
        rc = disk_sync_now(v->blocks.disk.io, v->blocks.disk.file);
    v->changed = rc == 0;
    return rc;
}

static void changed(struct blocks *b, uint32_t i)
{
    struct vhdx *v = vhdx_of(b);
    uint64_t sector = vhdx_entry_of(&v->header, i) / VHDX_ENTRIES;

    v->dirty[sector / 8] |= (uint8_t)(1 << sector % 8);
}

static int take(struct blocks *b, uint32_t i)
{
    struct vhdx *v = vhdx_of(b);
    int rc = begin_change(v);

    if (rc == 0 && b->end / VHDX_MIB >= UINT32_MAX)
        rc = -EFBIG;
    /* The file has all of the block, though not the space for it. */
    if (rc == 0 && ftruncate(b->disk.fd, (off_t)(b->end + b->block_size)) < 0)
        rc = -errno;
    if (rc)
        return rc;
    b->map[i] = (uint32_t)(b->end / VHDX_MIB);
    b->end += b->block_size;
    changed(b, i);
    return 0;
}

static int touch(struct blocks *b, uint32_t i)
{
    return begin_change(vhdx_of(b));
}

/* ---- differencing images ---- */

static bool get_bit(const uint8_t *bits, uint64_t i)
{
    return bits && bits[i / 8] & 1 << i % 8;
}

static bool zeros(const struct blocks *b, uint32_t i)
{
    return get_bit(vhdx_of(b)->zeros, i);
}

static int has(struct blocks *b, uint64_t at, uint64_t *length)
{
    struct vhdx *v = vhdx_of(b);
    uint32_t i = (uint32_t)(at / b->block_size), sector = v->header.sector_size,
             bytes = b->block_size / sector / 8;
    uint64_t in = at & (b->block_size - 1), end = in + *length, k = in / sector;

    if (!get_bit(v->partly, i))
        return 1;
    if (v->bits_of != i + 1) {
        uint64_t place = (uint64_t)v->bitmaps[i / v->header.ratio] * VHDX_MIB;
        int rc = disk_read_at(b->disk.fd, v->bits, bytes, place + (uint64_t)(i % v->header.ratio) * bytes);
        v->bits_of = rc ? 0 : i + 1;
        if (rc)
            return rc;
    }
    bool here = get_bit(v->bits, k);
    while (k * sector < end && get_bit(v->bits, k) == here)
        k++;
    if (k * sector < end)
        *length = k * sector - in;
    return here;
}

/* Its entry says so with the next flush. */
static int filled(struct blocks *b, uint32_t i)
{
    vhdx_of(b)->partly[i / 8] &= (uint8_t) ~(1 << i % 8);
    blocks_changed(b, i);
    return 0;
}

/* A sector of the table as it is to be. Of what has no block it keeps what the file says. */
static int make_update(struct vhdx *v, uint64_t sector, struct vhdx_update *u)
{
    struct blocks *b = &v->blocks;
    const struct vhdx_header *h = &v->header;

    u->offset = h->table.offset + sector * VHDX_SECTOR;
    int rc = disk_read_at(b->disk.fd, u->bytes, VHDX_SECTOR, u->offset);
    for (uint64_t k = 0; k < VHDX_ENTRIES && rc == 0; k++) {
        uint64_t entry = sector * VHDX_ENTRIES + k, i = entry - entry / (h->ratio + 1ull);
        if (entry % (h->ratio + 1ull) == h->ratio || i >= b->n || !b->map[i])
            continue;
        put_le64(u->bytes + 8 * k, (uint64_t)b->map[i] << VHDX_PLACE_SHIFT |
                                       (get_bit(v->partly, i) ? VHDX_PARTLY_PRESENT : VHDX_PRESENT));
    }
    return rc;
}

int vhdx_write_updates(struct vhdx *v, const struct vhdx_update *updates, unsigned n)
{
    const struct disk *d = &v->blocks.disk;
    struct vhdx_journal *j = &v->journal;
    int rc = j->open ? 0 : vhdx_new_id(j->id);

    if (rc == 0)
        rc = vhdx_log_write(j, &v->header.log, d->fd, v->blocks.end, updates, n);
    if (rc == 0)
        rc = disk_sync_now(d->io, d->file);
    if (rc == 0 && !j->open) {
        memcpy(v->header.bytes + VHDX_AT_LOG_ID, j->id, VHDX_GUID);
        rc = vhdx_header_write(&v->header, d->fd);
        if (rc == 0)
            rc = disk_sync_now(d->io, d->file);
        j->open = rc == 0;
    }
    for (unsigned i = 0; i < n && rc == 0; i++)
        rc = disk_write_at(d->fd, updates[i].bytes, VHDX_SECTOR, updates[i].offset);
    return rc;
}

static int write_map(struct blocks *b, uint32_t from, uint32_t to)
{
    struct vhdx *v = vhdx_of(b);
    uint64_t sector = vhdx_entry_of(&v->header, from) / VHDX_ENTRIES,
             last = vhdx_entry_of(&v->header, to - 1) / VHDX_ENTRIES;
    cleanup_free struct vhdx_update *updates = malloc(VHDX_UPDATES_MAX * sizeof(*updates));
    int rc = updates ? 0 : -ENOMEM;

    while (rc == 0 && sector <= last) {
        uint64_t first = sector;
        unsigned n = 0;
        for (; sector <= last && n < VHDX_UPDATES_MAX && rc == 0; sector++)
            if (v->dirty[sector / 8] & 1 << sector % 8)
                rc = make_update(v, sector, &updates[n++]);
        if (rc == 0 && n)
            rc = vhdx_write_updates(v, updates, n);
        /* The next entry takes the place of this one. */
        if (rc == 0 && sector <= last)
            rc = disk_sync_now(b->disk.io, b->disk.file);
        for (; rc == 0 && first < sector; first++)
            v->dirty[first / 8] &= (uint8_t) ~(1 << first % 8);
    }
    return rc;
}

/* All is in its place, and synced: the log is not needed any more. */
static int finish(struct blocks *b)
{
    struct vhdx *v = vhdx_of(b);

    if (!v->journal.open)
        return 0;
    memset(v->header.bytes + VHDX_AT_LOG_ID, 0, VHDX_GUID);
    int rc = vhdx_header_write(&v->header, b->disk.fd);
    if (rc == 0)
        rc = disk_sync_now(b->disk.io, b->disk.file);
    v->journal.open = rc != 0;
    return rc;
}

/* A log says how long the file is at least: one that is left open would not do any more. */
static int cut(struct blocks *b, int fd)
{
    int rc = finish(b);

    if (rc == 0)
        return ftruncate(fd, (off_t)b->end);
    errno = -rc;
    return -1;
}

static uint64_t own_end(const struct blocks *b)
{
    const struct vhdx *v = vhdx_of(b);

    return v->kept > v->header.end ? v->kept : v->header.end;
}

static void free_vhdx(struct blocks *b)
{
    struct vhdx *v = vhdx_of(b);

    free(v->dirty);
    free(v->zeros);
    free(v->partly);
    free(v->bitmaps);
    free(v->bits);
}

static const char *wrong(const struct blocks *b)
{
    return vhdx_of(b)->left ? "it was not closed: its log is to be replayed" : NULL;
}

static const struct blocks_ops vhdx_blocks = {.wrong = wrong,
                                              .where = where,
                                              .zeros = zeros,
                                              .has = has,
                                              .filled = filled,
                                              .take = take,
                                              .touch = touch,
                                              .changed = changed,
                                              .cut = cut,
                                              .nowhere = 0,
                                              .max = BLOCKS_MAX,
                                              .own_end = own_end,
                                              .resize = vhdx_resize,
                                              .write_map = write_map,
                                              .finish = finish,
                                              .free = free_vhdx};

/* ---- opening ---- */

static int take_entry(struct vhdx *v, uint32_t i, uint64_t entry, uint64_t file_end, struct error **err)
{
    struct blocks *b = &v->blocks;
    unsigned state = entry & VHDX_STATE;
    uint64_t place = entry >> VHDX_PLACE_SHIFT;

    if (state == VHDX_PARTLY_PRESENT && b->differs) {
        v->partly[i / 8] |= (uint8_t)(1 << i % 8);
        state = VHDX_PRESENT;
    }
    if (b->differs && state >= VHDX_UNDEFINED && state <= VHDX_UNMAPPED)
        v->zeros[i / 8] |= (uint8_t)(1 << i % 8);
    if (state != VHDX_PRESENT && state > VHDX_UNMAPPED)
        return error_set(err, EINVAL, "is damaged: block %u is in state %u", i, state);
    if (state == VHDX_PRESENT && (!place || place >= UINT32_MAX || place * VHDX_MIB >= file_end))
        return error_set(err, EINVAL, "is damaged or cut off: block %u is said to lie behind its end", i);
    b->map[i] = state == VHDX_PRESENT ? (uint32_t)place : 0;
    /* A block that has no content may keep its place: nothing else goes there. */
    uint64_t end = place >= UINT32_MAX || place * VHDX_MIB >= file_end ? 0 : place * VHDX_MIB + b->block_size;
    if (end > b->end)
        b->end = end;
    if (state != VHDX_PRESENT && end > v->kept)
        v->kept = end;
    return 0;
}

/* Where the bits of `ratio` blocks' sectors are: the last entry of these. */
static int take_bitmap(struct vhdx *v, uint32_t chunk, uint64_t entry, uint64_t file_end, struct error **err)
{
    struct blocks *b = &v->blocks;
    uint64_t place = entry >> VHDX_PLACE_SHIFT, first = (uint64_t)chunk * v->header.ratio;
    bool there = (entry & VHDX_STATE) == VHDX_PRESENT;

    if (there && (!place || place >= UINT32_MAX || place * VHDX_MIB >= file_end))
        return error_set(err, EINVAL,
                         "is damaged or cut off: bits of its sectors are said to lie behind its end");
    for (uint64_t i = first; i < b->n && i < first + v->header.ratio && !there; i++)
        if (get_bit(v->partly, i))
            return error_set(err, EINVAL,
                             "is damaged: nothing says which sectors of block %" PRIu64 " it has", i);
    v->bitmaps[chunk] = there ? (uint32_t)place : 0;
    if (there && (place + 1) * VHDX_MIB > b->end)
        b->end = (place + 1) * VHDX_MIB;
    return 0;
}

static int read_map(struct vhdx *v, const struct vhdx_log *log, uint64_t file_end, struct error **err)
{
    struct blocks *b = &v->blocks;
    const struct vhdx_header *h = &v->header;
    uint64_t entries = vhdx_entry_of(h, b->n - 1) + 1;
    cleanup_free uint8_t *piece = malloc(VHDX_REGIONS);

    if (!piece)
        return error_set_errno(err, ENOMEM, "reading its table");
    if (b->differs)
        entries = ((uint64_t)b->n + h->ratio - 1) / h->ratio * (h->ratio + 1ull);
    b->end = h->end;
    for (uint64_t entry = 0; entry < entries; entry++) {
        uint64_t in = entry % (VHDX_REGIONS / 8), i = entry - entry / (h->ratio + 1ull);
        int rc = in ? 0 : vhdx_log_read(log, b->disk.fd, piece, VHDX_REGIONS, h->table.offset + 8 * entry);
        if (rc)
            return error_set_errno(err, -rc, "reading its table");
        if (entry % (h->ratio + 1ull) == h->ratio)
            rc = b->differs ? take_bitmap(v, (uint32_t)(entry / (h->ratio + 1ull)), get_le64(piece + 8 * in),
                                          file_end, err)
                            : 0;
        else if (i < b->n)
            rc = take_entry(v, (uint32_t)i, get_le64(piece + 8 * in), file_end, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int compare_places(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* Whether one of `n` blocks at these places, sorted, has bytes of this range. */
static bool has_block(const uint32_t *places, uint32_t n, uint32_t block_size, const struct vhdx_patch *p)
{
    uint32_t low = 0, high = n;

    while (low < high) {
        uint32_t i = low + (high - low) / 2;
        if ((uint64_t)places[i] * VHDX_MIB + block_size > p->offset)
            high = i;
        else
            low = i + 1;
    }
    return low < n && p->length && (uint64_t)places[low] * VHDX_MIB < p->offset + p->length;
}

/* The places of all blocks, sorted; to be freed. NULL if there is no memory. */
static uint32_t *list_places(const struct blocks *b, uint32_t *n)
{
    uint32_t *places = malloc(4 * (size_t)b->n);

    *n = 0;
    for (uint32_t i = 0; i < b->n && places; i++)
        if (b->map[i])
            places[(*n)++] = b->map[i];
    if (places)
        qsort(places, *n, sizeof(*places), compare_places);
    return places;
}

/* A log that changes content is not one that may be: only who writes could bring it there. */
static int check_log(const struct vhdx *v, const struct vhdx_log *log, struct error **err)
{
    const struct blocks *b = &v->blocks;
    uint32_t n;

    if (!log->n)
        return 0;
    cleanup_free uint32_t *places = list_places(b, &n);
    if (!places)
        return error_set_errno(err, ENOMEM, "reading its log");
    for (uint32_t k = 0; k < log->n; k++)
        if (has_block(places, n, b->block_size, &log->patches[k]))
            return error_set(err, EINVAL, "is damaged: its log changes the content of a block");
    return 0;
}

/* Whether bits lie where a block or something else is. 0, -EUCLEAN or -ENOMEM. */
static int check_bitmaps(const struct vhdx *v)
{
    const struct blocks *b = &v->blocks;
    uint32_t n, chunks = (b->n + v->header.ratio - 1) / v->header.ratio;

    if (!b->differs)
        return 0;
    cleanup_free uint32_t *places = list_places(b, &n);
    if (!places)
        return -ENOMEM;
    for (uint32_t i = 0; i < chunks; i++) {
        struct vhdx_patch bits = {(uint64_t)v->bitmaps[i] * VHDX_MIB, VHDX_MIB, NULL};
        if (v->bitmaps[i] && (bits.offset < v->header.end || has_block(places, n, b->block_size, &bits)))
            return -EUCLEAN;
    }
    return 0;
}

static int prepare_writing(struct vhdx *v, struct error **err)
{
    const struct blocks *b = &v->blocks;
    const struct vhdx_header *h = &v->header;
    int rc = blocks_check_overlap(b, 0);
    bool hit = false;

    if (rc == 0)
        rc = check_bitmaps(v);
    if (h->sector_size != DISK_SECTOR)
        return error_set(err, EROFS, "has sectors of %u bytes, which is read but not written here",
                         h->sector_size);
    for (uint32_t i = 0; i < b->n && !hit; i++)
        hit = b->map[i] && where(b, i) < h->end;
    if (rc == -EUCLEAN || hit)
        return error_set(err, EROFS,
                         "is damaged: two of its parts lie in one place, so it can't be written; use it "
                         "readonly");
    return rc ? error_set_errno(err, -rc, "reading its table") : 0;
}

/* What the log says goes to its place, and then there is no log. */
static int replay(struct vhdx *v, const struct vhdx_log *log, struct error **err)
{
    const struct disk *d = &v->blocks.disk;

    if (!log->bytes)
        return 0;
    int rc = vhdx_log_apply(log, d->fd);
    if (rc == 0)
        rc = disk_sync_now(d->io, d->file);
    if (rc == 0) {
        memset(v->header.bytes + VHDX_AT_LOG_ID, 0, VHDX_GUID);
        rc = vhdx_header_write(&v->header, d->fd);
    }
    if (rc == 0)
        rc = disk_sync_now(d->io, d->file);
    return rc ? error_set_errno(err, -rc, "replaying its log") : 0;
}

/* The bits are read when they are needed, when the log is not there any more. */
static int prepare_differing(struct vhdx *v, const struct vhdx_log *log, struct error **err)
{
    struct blocks *b = &v->blocks;

    if (log->bytes && b->disk.read_only && b->disk.files)
        return error_set(err, EUCLEAN,
                         "was not closed, and is based on another image: let 'tabique disk repair -r all' "
                         "replay its log first");
    v->zeros = calloc(1, b->n / 8 + 1);
    v->partly = calloc(1, b->n / 8 + 1);
    v->bitmaps = calloc(b->n / v->header.ratio + 1, sizeof(*v->bitmaps));
    v->bits = malloc(b->block_size / v->header.sector_size / 8);
    if (!v->zeros || !v->partly || !v->bitmaps || !v->bits)
        return error_set_errno(err, ENOMEM, "opening it");
    return vhdx_check_parent(b->disk.fd, &v->header, log, b->disk.backing, err);
}

static int prepare(struct vhdx *v, const struct vhdx_log *log, uint64_t file_end, struct error **err)
{
    struct blocks *b = &v->blocks;
    uint64_t sectors = v->header.table.length / VHDX_SECTOR;
    int rc = disk_check_behind(&b->disk, v->header.flags & VHDX_HAS_PARENT, err);

    if (rc)
        return rc;
    b->ops = &vhdx_blocks;
    b->block_size = v->header.block_size;
    b->n = v->header.n;
    b->map = malloc(4 * (size_t)b->n);
    v->dirty = calloc(1, sectors / 8 + 1);
    if (!b->map || !v->dirty)
        return error_set_errno(err, ENOMEM, "opening it");
    b->disk.size = v->header.size;
    b->disk.granularity = b->block_size;
    b->differs = v->header.flags & VHDX_HAS_PARENT;
    rc = b->differs ? prepare_differing(v, log, err) : 0;
    if (rc)
        return rc;
    v->journal.sequence = 1;
    v->left = log->bytes;
    rc = read_map(v, log, file_end, err);
    if (rc == 0)
        rc = check_log(v, log, err);
    if (rc == 0 && !b->disk.read_only)
        rc = prepare_writing(v, err);
    return rc || b->disk.read_only ? rc : replay(v, log, err);
}

static int open_vhdx(struct disk **out, const struct disk *common, struct error **err)
{
    struct vhdx *v = calloc(1, sizeof(*v));
    struct vhdx_log log = {0};
    uint64_t file_end;

    if (!v)
        return error_set_errno(err, ENOMEM, "opening it");
    v->blocks.disk = *common;
    int rc = vhdx_header_read(&v->header, &log, common->fd, &file_end, err);
    if (rc == 0)
        rc = prepare(v, &log, file_end, err);
    vhdx_log_free(&log);
    if (rc) {
        free_vhdx(&v->blocks);
        free(v->blocks.map);
        free(v);
        return rc;
    }
    *out = &v->blocks.disk;
    return 0;
}

static int check(struct disk_check *c, struct error **err)
{
    return blocks_check(&disk_format_vhdx, c, err);
}

const struct disk_format disk_format_vhdx = {
    .name = "vhdx",
    .probe = probe,
    .backing = backing,
    .open = open_vhdx,
    .submit = blocks_submit,
    .read = blocks_read,
    .close = blocks_close,
    .extent = blocks_extent,
    .describe = describe,
    .build = &vhdx_build,
    .check = check,
    .resize = blocks_resize,
};

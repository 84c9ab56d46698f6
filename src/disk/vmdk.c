/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The format `vmdk` of VMware (Virtual Disk Format 5.0), where all is in one file: monolithicSparse,
 * streamOptimized, and each sparse extent of an image in several files (vmdk_set.c).
 *
 *     header | descriptor, a text | directory --> tables --> grains of 64 KiB, as they are or compressed
 *
 * All tables are read when it is opened, into the map of blocks.h. New grains go to the end of the file,
 * their entries into the tables, of which there may be two sets, with the next flush. What is compressed is
 * read here and made (vmdk_build.c), but not written: opening one to be written is refused.
 */
#include "disk/vmdk_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

struct header {
    uint32_t version, flags, grain, entries; /* grain: bytes */
    uint64_t capacity, descriptor, descriptor_size, directory, spare, overhead;
    bool at_end; /* that is where it has its directory from */
};

static struct vmdk *vmdk_of(const struct blocks *b)
{
    return (struct vmdk *)(uintptr_t)container_of(b, struct vmdk, blocks);
}

static bool probe(const uint8_t *head, size_t len)
{
    return len >= VMDK_HEAD && (get_le32(head) == VMDK_MAGIC || vmdk_is_text(head));
}

/* ---- header and descriptor ---- */

static int parse(const uint8_t *h, struct header *out, struct error **err)
{
    struct header r = {.version = get_le32(h + VMDK_AT_VERSION),
                       .flags = get_le32(h + VMDK_AT_FLAGS),
                       .entries = get_le32(h + VMDK_AT_TABLE_ENTRIES),
                       .capacity = get_le64(h + VMDK_AT_CAPACITY),
                       .descriptor = get_le64(h + VMDK_AT_DESCRIPTOR),
                       .descriptor_size = get_le64(h + VMDK_AT_DESCRIPTOR_SIZE),
                       .directory = get_le64(h + VMDK_AT_DIRECTORY),
                       .overhead = get_le64(h + VMDK_AT_OVERHEAD)};
    r.spare = r.flags & VMDK_SPARE ? get_le64(h + VMDK_AT_SPARE_DIRECTORY) : 0;
    uint64_t grain = get_le64(h + VMDK_AT_GRAIN);

    if (vmdk_is_text(h))
        return error_set(err, EINVAL, "is a descriptor, where a file with content is to be");
    if (get_le32(h) != VMDK_MAGIC)
        return error_set(err, EINVAL, "is not a VMDK image");
    if (!r.version || r.version > 3)
        return error_set(err, ENOTSUP, "is VMDK of version %u: 1 to 3 are known here", r.version);
    if (r.flags & VMDK_LINE_ENDS_VALID && memcmp(h + VMDK_AT_LINE_ENDS, VMDK_LINE_ENDS, 4) != 0)
        return error_set(err, EINVAL, "is damaged: it was transferred as if it were a text");
    if (r.flags & VMDK_COMPRESSED &&
        (!(r.flags & VMDK_MARKERS) || get_le16(h + VMDK_AT_COMPRESSION) != VMDK_DEFLATE))
        return error_set(err, ENOTSUP, "is compressed in a way that is not known");
    if (grain < 8 || grain & (grain - 1) || grain > VMDK_GRAIN_MAX / DISK_SECTOR || !r.entries ||
        r.entries > VMDK_TABLE_MAX)
        return error_set(err, EINVAL, "is damaged: grains of %" PRIu64 " sectors, tables of %u", grain,
                         r.entries);
    r.grain = (uint32_t)grain * DISK_SECTOR;
    if (!r.capacity || r.capacity > (uint64_t)VMDK_GRAINS_MAX * grain)
        return error_set(err, EINVAL, "is damaged or too large: %" PRIu64 " sectors (%u grains at most)",
                         r.capacity, VMDK_GRAINS_MAX);
    *out = r;
    return 0;
}

/* The directory of what was written as a stream is told at the end, in the header's other copy. */
static int read_header(int fd, struct header *out, uint64_t *file_end, struct error **err)
{
    uint8_t h[VMDK_HEAD];
    struct header first;
    struct stat st;
    int rc = fstat(fd, &st) < 0 ? -errno : disk_read_at(fd, h, sizeof(h), 0);

    if (rc)
        return error_set_errno(err, -rc, "reading its header");
    *file_end = (uint64_t)st.st_size;
    rc = parse(h, out, err);
    if (rc || out->directory != VMDK_GD_AT_END)
        return rc;
    first = *out;
    rc = *file_end < 3 * VMDK_HEAD ? -EINVAL : disk_read_at(fd, h, sizeof(h), *file_end - 2 * VMDK_HEAD);
    if (rc || get_le32(h) != VMDK_MAGIC)
        return error_set(err, EINVAL, "is cut off: its end, which says where all is, is missing");
    rc = parse(h, out, err);
    if (rc == 0 && (out->directory == VMDK_GD_AT_END || out->capacity != first.capacity ||
                    out->grain != first.grain || out->entries != first.entries || out->flags != first.flags))
        rc = error_set(err, EINVAL, "is damaged: its header and the copy at its end differ");
    out->descriptor = first.descriptor;
    out->descriptor_size = first.descriptor_size;
    out->at_end = true;
    return rc;
}

/* The text in a file that has content too; NULL if there is none. To be freed. */
static int read_descriptor(int fd, const struct header *h, uint64_t file_end, char **out, struct error **err)
{
    *out = NULL;
    if (!h->descriptor)
        return 0;
    uint64_t bytes = h->descriptor_size * DISK_SECTOR;
    if (!h->descriptor_size || h->descriptor_size > VMDK_DESCRIPTOR_MAX / DISK_SECTOR ||
        h->descriptor > file_end / DISK_SECTOR || bytes > file_end - h->descriptor * DISK_SECTOR)
        return error_set(err, EINVAL, "is damaged: its descriptor does not fit");
    char *text = calloc(1, bytes + 1);
    int rc = text ? disk_read_at(fd, text, bytes, h->descriptor * DISK_SECTOR) : -ENOMEM;
    if (rc) {
        free(text);
        return error_set_errno(err, -rc, "reading its descriptor");
    }
    *out = text;
    return 0;
}

static int is_text(int fd)
{
    uint8_t head[VMDK_HEAD];
    int rc = disk_read_at(fd, head, sizeof(head), 0);

    return rc ? rc : vmdk_is_text(head);
}

int vmdk_read_text(int fd, char **out, struct error **err)
{
    struct header h;
    uint64_t file_end;
    int rc = is_text(fd);

    if (rc < 0)
        return error_set_errno(err, -rc, "reading its header");
    if (rc > 0)
        return vmdk_text_read(fd, out, err);
    rc = read_header(fd, &h, &file_end, err);
    return rc ? rc : read_descriptor(fd, &h, file_end, out, err);
}

static int describe_set(int fd, struct disk_info *info, struct error **err)
{
    cleanup_free char *text = NULL, *type = NULL;
    cleanup_free struct vmdk_extent *list = NULL;
    unsigned n = 0;
    int rc = vmdk_text_read(fd, &text, err);

    if (rc == 0)
        rc = vmdk_text_extents(text, &list, &n, err);
    if (rc)
        return rc;
    for (unsigned i = 0; i < n; i++)
        info->size += list[i].sectors * DISK_SECTOR;
    type = vmdk_text_value(text, "createType");
    disk_info_add(info, "type", "%s", type ? type : "unknown");
    disk_info_add(info, "files", "%u", n);
    disk_info_add(info, "first-file", "%s", list[0].name);
    return 0;
}

static int describe(int fd, struct disk_info *info, struct error **err)
{
    struct header h;
    uint64_t file_end;
    cleanup_free char *text = NULL, *type = NULL;
    int rc = is_text(fd);

    if (rc > 0)
        return describe_set(fd, info, err);
    rc = read_header(fd, &h, &file_end, err);
    if (rc == 0)
        rc = read_descriptor(fd, &h, file_end, &text, err);
    if (rc)
        return rc;
    type = text ? vmdk_text_value(text, "createType") : NULL;
    info->size = h.capacity * DISK_SECTOR;
    disk_info_add(info, "version", "%u", h.version);
    disk_info_add(info, "type", "%s", type ? type : "extent");
    disk_info_add(info, "cluster-size", "%u", h.grain);
    disk_info_add(info, "compressed", h.flags & VMDK_COMPRESSED ? "yes" : "no");
    return 0;
}

static int parts(int fd, struct disk_names *out, struct error **err)
{
    cleanup_free char *text = NULL;
    cleanup_free struct vmdk_extent *list = NULL;
    unsigned n = 0;
    int rc = is_text(fd);

    *out = (struct disk_names){0};
    if (rc <= 0)
        return rc ? error_set_errno(err, -rc, "reading its header") : 0;
    rc = vmdk_text_read(fd, &text, err);
    if (rc == 0)
        rc = vmdk_text_extents(text, &list, &n, err);
    for (unsigned i = 0; i < n && rc == 0; i++)
        if (disk_names_add(out, list[i].name))
            rc = error_set_errno(err, ENOMEM, "reading its descriptor");
    if (rc)
        disk_names_free(out);
    return rc;
}

/* The parent is a VMDK too. */
int vmdk_backing(int fd, char **name, char **format, struct error **err)
{
    cleanup_free char *text = NULL, *found = NULL;
    int rc = vmdk_read_text(fd, &text, err);

    if (rc)
        return rc;
    *name = *format = NULL;
    if (vmdk_text_number(text, "parentCID") == VMDK_NO_PARENT)
        return 0;
    found = vmdk_text_value(text, "parentFileNameHint");
    if (!found || !*found)
        return error_set(err, EINVAL, "is based on another image, and does not say which");
    *format = strdup("vmdk");
    if (!*format)
        return error_set_errno(err, ENOMEM, "reading its descriptor");
    *name = steal_ptr(found);
    return 0;
}

/* ---- reading ---- */

#define ZERO_GRAIN 1u /* an entry, where the header says that there are such */

static bool zeros(const struct blocks *b, uint32_t i)
{
    return b->map[i] == ZERO_GRAIN && vmdk_of(b)->zero_grains;
}

static uint64_t where(const struct blocks *b, uint32_t i)
{
    return zeros(b, i) ? 0 : (uint64_t)b->map[i] * DISK_SECTOR;
}

/* ---- writing ---- */

/* Says that somebody writes, and that the content is another. */
static int begin_change(struct vmdk *v)
{
    const struct disk *d = &v->blocks.disk;
    uint8_t unclean = 1;

    if (v->changed)
        return 0;
    int rc = vmdk_change_id(d->fd, v->id_at);
    if (rc == 0)
        rc = disk_write_at(d->fd, &unclean, 1, VMDK_AT_UNCLEAN);
    v->changed = rc == 0;
    return rc;
}

static int take(struct blocks *b, uint32_t i)
{
    struct vmdk *v = vmdk_of(b);
    uint64_t at = ALIGN_UP(b->end, (uint64_t)b->block_size);
    int rc = begin_change(v);

    if (rc == 0 && at / DISK_SECTOR > UINT32_MAX)
        rc = -EFBIG;
    /* The file has all of the grain, though not the space for it. */
    if (rc == 0 && ftruncate(b->disk.fd, (off_t)(at + b->block_size)) < 0)
        rc = -errno;
    if (rc)
        return rc;
    b->map[i] = (uint32_t)(at / DISK_SECTOR);
    b->end = at + b->block_size;
    return 0;
}

static void changed(struct blocks *b, uint32_t i)
{
    struct vmdk *v = vmdk_of(b);

    v->dirty[i / v->entries / 8] |= (uint8_t)(1 << i / v->entries % 8);
}

static int touch(struct blocks *b, uint32_t i)
{
    return begin_change(vmdk_of(b));
}

/* All entries of a table, into both sets. */
static int write_table(const struct vmdk *v, uint32_t t)
{
    const struct blocks *b = &v->blocks;
    uint32_t first = t * v->entries, n = b->n - first < v->entries ? b->n - first : v->entries;
    uint8_t bytes[VMDK_TABLE_MAX * 4];

    for (uint32_t i = 0; i < n; i++)
        put_le32(bytes + 4 * (size_t)i, b->map[first + i]);
    int rc = disk_write_at(b->disk.fd, bytes, 4 * (size_t)n, (uint64_t)v->tables[t] * DISK_SECTOR);
    if (rc == 0 && v->spares)
        rc = disk_write_at(b->disk.fd, bytes, 4 * (size_t)n, (uint64_t)v->spares[t] * DISK_SECTOR);
    return rc;
}

static int write_map(struct blocks *b, uint32_t from, uint32_t to)
{
    struct vmdk *v = vmdk_of(b);
    int rc = 0;

    for (uint32_t t = from / v->entries; rc == 0 && t <= (to - 1) / v->entries; t++) {
        if (!(v->dirty[t / 8] & 1 << t % 8))
            continue;
        rc = write_table(v, t);
        if (rc == 0)
            v->dirty[t / 8] &= (uint8_t) ~(1 << t % 8);
    }
    return rc;
}

static int finish(struct blocks *b)
{
    uint8_t clean = 0;

    return vmdk_of(b)->changed ? disk_write_at(b->disk.fd, &clean, 1, VMDK_AT_UNCLEAN) : 0;
}

static void free_vmdk(struct blocks *b)
{
    struct vmdk *v = vmdk_of(b);

    free(v->tables);
    free(v->spares);
    free(v->dirty);
}

/* Of the tables and directories and the descriptor, whichever is last. */
static uint64_t own_end(const struct blocks *b)
{
    const struct vmdk *v = vmdk_of(b);
    uint64_t table = (v->entries * 4 + DISK_SECTOR - 1) / DISK_SECTOR,
             directory = (v->n_tables * 4 + DISK_SECTOR - 1) / DISK_SECTOR, end = v->text + v->text_size;

    if (end < v->overhead)
        end = v->overhead;

    if (end < v->directory + directory)
        end = v->directory + directory;
    if (v->spares && end < v->spare + directory)
        end = v->spare + directory;
    for (uint32_t t = 0; t < v->n_tables; t++) {
        if (end < v->tables[t] + table)
            end = v->tables[t] + table;
        if (v->spares && end < v->spares[t] + table)
            end = v->spares[t] + table;
    }
    return end * DISK_SECTOR;
}

static const struct blocks_ops vmdk_blocks = {.where = where,
                                              .zeros = zeros,
                                              .take = take,
                                              .touch = touch,
                                              .changed = changed,
                                              .write_map = write_map,
                                              .finish = finish,
                                              .nowhere = 0,
                                              .max = VMDK_GRAINS_MAX,
                                              .own_end = own_end,
                                              .resize = vmdk_resize,
                                              .free = free_vmdk};

static int extent(struct disk *disk, uint64_t offset, uint64_t length, struct disk_extent *out)
{
    const struct vmdk *v = container_of(disk, struct vmdk, blocks.disk);
    const struct blocks *b = &v->blocks;
    uint32_t i = (uint32_t)(offset / b->block_size);
    uint64_t skip = offset & (b->block_size - 1);

    if (!v->packed || !where(b, i))
        return blocks_extent(disk, offset, length, out);
    *out = (struct disk_extent){.kind = DISK_EXTENT_PACKED,
                                .allocated = true,
                                .disk = disk,
                                .length = length < b->block_size - skip ? length : b->block_size - skip,
                                .entry = i,
                                .skip = (uint32_t)skip};
    return 0;
}

/* Exactly a grain; the last one of a disk may be shorter. */
static int inflate_grain(uint8_t *packed, uint32_t len, uint8_t *out, uint32_t size, bool last)
{
    z_stream z = {.next_in = packed, .avail_in = len, .next_out = out, .avail_out = size};

    if (inflateInit(&z) != Z_OK)
        return -ENOMEM;
    int rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    if (rc != Z_STREAM_END || (z.avail_out && !last))
        return -EIO;
    memset(out + size - z.avail_out, 0, z.avail_out);
    return 0;
}

static int unpack(const struct disk_extent *e, uint8_t *buf)
{
    const struct vmdk *v = container_of(e->disk, struct vmdk, blocks.disk);
    const struct blocks *b = &v->blocks;
    uint32_t i = (uint32_t)e->entry;
    uint8_t marker[VMDK_MARKER];
    int rc = disk_read_at(e->disk->fd, marker, sizeof(marker), where(b, i));

    if (rc)
        return rc;
    uint32_t len = get_le32(marker + 8);
    /* It says whose grain it is: tables that mix them up are found out. */
    if (get_le64(marker) != (uint64_t)i * (b->block_size / DISK_SECTOR) || !len || len > 2 * b->block_size)
        return -EIO;
    cleanup_free uint8_t *packed = malloc(len), *grain = malloc(b->block_size);
    if (!packed || !grain)
        return -ENOMEM;
    rc = disk_read_at(e->disk->fd, packed, len, where(b, i) + VMDK_MARKER);
    if (rc == 0)
        rc = inflate_grain(packed, len, grain, b->block_size, i == b->n - 1);
    if (rc == 0)
        memcpy(buf, grain + e->skip, e->length);
    return rc;
}

static int read_now(struct disk *disk, uint64_t offset, void *buf, size_t len)
{
    struct disk_extent e;

    for (uint8_t *to = buf; len; to += e.length, offset += e.length, len -= e.length) {
        int rc = extent(disk, offset, len, &e);
        if (rc == 0)
            rc = disk_extent_read(&e, to, e.length);
        if (rc)
            return rc;
    }
    return 0;
}

/* What is compressed is read at once, in the disk's thread. */
static void submit(struct disk *disk, struct disk_request *r)
{
    const struct vmdk *v = container_of(disk, struct vmdk, blocks.disk);
    uint64_t at = r->offset;
    int rc = 0;

    if (!v->packed) {
        blocks_submit(disk, r);
        return;
    }
    for (unsigned i = 0; i < r->n_iov && rc == 0 && r->kind == DISK_READ; i++) {
        /* Pieces follow no sectors; grains do not mind. */
        rc = read_now(disk, at, r->iov[i].iov_base, r->iov[i].iov_len);
        at += r->iov[i].iov_len;
    }
    disk_request_end(r, rc);
}

/* ---- opening ---- */

/* Entries of one table, for the grains from `first` on. */
static int read_table(struct vmdk *v, uint32_t first, uint32_t n, uint64_t at, uint64_t file_end,
                      struct error **err)
{
    struct blocks *b = &v->blocks;

    if (at > file_end || 4ull * n > file_end - at)
        return error_set(err, EINVAL, "is damaged or cut off: a table of its grains lies behind its end");
    int rc = disk_read_at(b->disk.fd, b->map + first, 4 * (size_t)n, at);
    if (rc)
        return error_set_errno(err, -rc, "reading its tables");
    for (uint32_t i = first; i < first + n; i++) {
        b->map[i] = le32toh(b->map[i]);
        if (where(b, i) >= file_end || (where(b, i) && where(b, i) < VMDK_HEAD))
            return error_set(err, EINVAL, "is damaged or cut off: grain %u is said to lie behind its end", i);
    }
    return 0;
}

/* The directory: of each table the sector where it is. To be freed. */
static int read_directory(const struct vmdk *v, uint64_t at, uint64_t file_end, uint32_t **out,
                          struct error **err)
{
    uint32_t *directory = malloc(4 * (size_t)v->n_tables);
    int rc = directory ? 0 : -ENOMEM;

    *out = directory;
    if (at > file_end / DISK_SECTOR || 4ull * v->n_tables > file_end - at * DISK_SECTOR)
        return error_set(err, EINVAL,
                         "is damaged or cut off: the directory of its grains lies behind its end");
    if (rc == 0)
        rc = disk_read_at(v->blocks.disk.fd, directory, 4 * (size_t)v->n_tables, at * DISK_SECTOR);
    if (rc)
        return error_set_errno(err, -rc, "reading its tables");
    for (uint32_t t = 0; t < v->n_tables; t++)
        directory[t] = le32toh(directory[t]);
    return 0;
}

static int read_tables(struct vmdk *v, const struct header *h, uint64_t file_end, struct error **err)
{
    struct blocks *b = &v->blocks;
    int rc = read_directory(v, h->directory, file_end, &v->tables, err);

    for (uint32_t t = 0; t < v->n_tables && rc == 0; t++) {
        uint32_t first = t * h->entries, count = b->n - first < h->entries ? b->n - first : h->entries;
        if (v->tables[t])
            rc = read_table(v, first, count, (uint64_t)v->tables[t] * DISK_SECTOR, file_end, err);
    }
    return rc;
}

/* A part of the file, in sectors. */
struct part {
    uint32_t at, n;
};

static int compare_parts(const void *a, const void *b)
{
    uint32_t x = ((const struct part *)a)->at, y = ((const struct part *)b)->at;

    return x < y ? -1 : x > y;
}

/* All parts of the file that must not share a sector. The number of them. */
static size_t list_parts(const struct vmdk *v, const struct header *h, struct part *parts)
{
    const struct blocks *b = &v->blocks;
    uint32_t table = (h->entries * 4 + DISK_SECTOR - 1) / DISK_SECTOR,
             directory = (v->n_tables * 4 + DISK_SECTOR - 1) / DISK_SECTOR;
    size_t n = 0;

    parts[n++] = (struct part){0, 1};
    parts[n++] = (struct part){(uint32_t)h->directory, directory};
    if (h->descriptor)
        parts[n++] = (struct part){(uint32_t)h->descriptor, (uint32_t)h->descriptor_size};
    if (v->spares)
        parts[n++] = (struct part){(uint32_t)h->spare, directory};
    for (uint32_t t = 0; t < v->n_tables; t++) {
        parts[n++] = (struct part){v->tables[t], table};
        if (v->spares)
            parts[n++] = (struct part){v->spares[t], table};
    }
    for (uint32_t i = 0; i < b->n; i++)
        if (where(b, i))
            parts[n++] = (struct part){b->map[i], b->block_size / DISK_SECTOR};
    return n;
}

static void set_end(struct blocks *b, const struct part *parts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (((uint64_t)parts[i].at + parts[i].n) * DISK_SECTOR > b->end)
            b->end = ((uint64_t)parts[i].at + parts[i].n) * DISK_SECTOR;
}

static int check_parts(struct vmdk *v, const struct header *h, struct error **err)
{
    struct blocks *b = &v->blocks;
    cleanup_free struct part *parts = malloc((4 + 2 * (size_t)v->n_tables + b->n) * sizeof(*parts));

    if (!parts)
        return error_set_errno(err, ENOMEM, "opening it");
    size_t n = list_parts(v, h, parts);
    qsort(parts, n, sizeof(*parts), compare_parts);
    for (size_t i = 1; i < n; i++)
        if (parts[i].at - parts[i - 1].at < parts[i - 1].n)
            return error_set(err, EROFS,
                             "is damaged: two of its parts lie in one place, so it can't be written; use it "
                             "readonly");
    set_end(b, parts, n);
    return 0;
}

/* For who only looks: the end, if all is known that may lie there. */
static int find_end(struct vmdk *v, const struct header *h, uint64_t file_end)
{
    cleanup_free struct part *parts = malloc((4 + 2 * (size_t)v->n_tables + v->blocks.n) * sizeof(*parts));

    if (!parts)
        return -ENOMEM;
    if (h->directory > UINT32_MAX || h->spare > UINT32_MAX || h->descriptor > UINT32_MAX ||
        (h->spare && read_directory(v, h->spare, file_end, &v->spares, NULL) < 0))
        return 0;
    set_end(&v->blocks, parts, list_parts(v, h, parts));
    return 0;
}

static int prepare_writing(struct vmdk *v, const struct header *h, uint64_t file_end, struct error **err)
{
    bool all = true;
    int rc = 0;

    if (v->packed)
        return error_set(err, EROFS,
                         "is compressed VMDK, which is read but not written here: use it readonly, or "
                         "'tabique disk convert -O qcow2' it");
    if (h->directory > UINT32_MAX || h->spare > UINT32_MAX || h->descriptor > UINT32_MAX)
        return error_set(err, EINVAL, "is damaged: its directory is nowhere");
    if (h->at_end)
        return error_set(err, EROFS,
                         "has its header's copy where new grains would be, so it is read but not written "
                         "here");
    if (h->spare)
        rc = read_directory(v, h->spare, file_end, &v->spares, err);
    if (rc)
        return rc;
    for (uint32_t t = 0; t < v->n_tables; t++)
        all = all && v->tables[t] && (!v->spares || v->spares[t]);
    if (!all)
        return error_set(err, EROFS, "has not all of its tables, so it is read but not written here");
    v->dirty = calloc(1, v->n_tables / 8 + 1);
    return v->dirty ? check_parts(v, h, err) : error_set_errno(err, ENOMEM, "opening it");
}

static int prepare(struct vmdk *v, const struct header *h, uint64_t file_end, struct error **err)
{
    struct blocks *b = &v->blocks;
    uint32_t sectors = h->grain / DISK_SECTOR;

    v->packed = h->flags & VMDK_COMPRESSED;
    b->uneven = v->packed;
    v->zero_grains = h->flags & VMDK_ZERO_GRAINS;
    v->entries = h->entries;
    b->ops = &vmdk_blocks;
    b->block_size = h->grain;
    b->n = (uint32_t)((h->capacity + sectors - 1) / sectors);
    v->directory = h->directory;
    v->spare = h->spare;
    v->text = h->descriptor;
    v->text_size = h->descriptor ? h->descriptor_size : 0;
    v->overhead = h->overhead < file_end / DISK_SECTOR ? h->overhead : file_end / DISK_SECTOR;
    if (!v->packed)
        b->end = v->overhead * DISK_SECTOR;
    b->disk.size = h->capacity * DISK_SECTOR;
    b->disk.granularity = h->grain;
    v->n_tables = b->n / h->entries + (b->n % h->entries != 0);
    b->map = calloc(b->n, sizeof(uint32_t));
    int rc = b->map ? read_tables(v, h, file_end, err) : error_set_errno(err, ENOMEM, "opening it");
    if (rc == 0 && b->disk.read_only && !v->packed && find_end(v, h, file_end) < 0)
        rc = error_set_errno(err, ENOMEM, "opening it");
    return rc || b->disk.read_only ? rc : prepare_writing(v, h, file_end, err);
}

static int prepare_all(struct vmdk *v, const struct header *h, const char *text, uint64_t file_end,
                       struct error **err)
{
    struct blocks *b = &v->blocks;
    size_t id = text ? vmdk_text_id(text) : 0;

    v->id_at = id ? h->descriptor * DISK_SECTOR + id : 0;
    b->differs = vmdk_text_number(text, "parentCID") != VMDK_NO_PARENT;
    int rc = disk_check_behind(&b->disk, b->differs, err);
    if (rc == 0 && b->differs)
        rc = vmdk_check_parent(text, &b->disk, err);
    return rc ? rc : prepare(v, h, file_end, err);
}

int vmdk_open_sparse(struct disk **out, const struct disk *common, struct error **err)
{
    struct header h;
    uint64_t file_end;
    cleanup_free char *text = NULL;
    int rc = read_header(common->fd, &h, &file_end, err);

    if (rc == 0)
        rc = read_descriptor(common->fd, &h, file_end, &text, err);
    if (rc)
        return rc;
    struct vmdk *v = calloc(1, sizeof(*v));
    if (!v)
        return error_set_errno(err, ENOMEM, "opening it");
    v->blocks.disk = *common;
    rc = prepare_all(v, &h, text, file_end, err);
    if (rc) {
        free_vmdk(&v->blocks);
        free(v->blocks.map);
        free(v);
        return rc;
    }
    *out = &v->blocks.disk;
    return 0;
}

static int open_vmdk(struct disk **out, const struct disk *common, struct error **err)
{
    int rc = is_text(common->fd);

    if (rc < 0)
        return error_set_errno(err, -rc, "reading its header");
    return rc ? vmdk_set_open(out, common, err) : vmdk_open_sparse(out, common, err);
}

/* Compressed grains are of any length: only where they are has been checked, while it was opened. */
static int check(struct disk_check *c, struct error **err)
{
    int rc = is_text(c->fd);

    if (rc < 0)
        return error_set_errno(err, -rc, "reading its header");
    return rc ? vmdk_set_check(c, err) : blocks_check(&disk_format_vmdk, c, err);
}

const struct disk_format disk_format_vmdk = {
    .name = "vmdk",
    .probe = probe,
    .backing = vmdk_backing,
    .parts = parts,
    .open = open_vmdk,
    .submit = submit,
    .read = read_now,
    .close = blocks_close,
    .extent = extent,
    .unpack = unpack,
    .describe = describe,
    .build = &vmdk_build,
    .check = check,
    .resize = blocks_resize,
};

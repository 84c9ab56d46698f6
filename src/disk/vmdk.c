/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The format `vmdk` of VMware (Virtual Disk Format 5.0), where all is in one file: monolithicSparse and
 * streamOptimized.
 *
 *     header | descriptor, a text | directory --> tables --> grains of 64 KiB, as they are or compressed
 *
 * All tables are read when it is opened, into the map of blocks.h. Such images are read here and made
 * (vmdk_build.c), but not written: opening one to be written is refused.
 */
#include "disk/vmdk_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/blocks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#define TEXT_START "# Disk DescriptorFile"

struct header {
    uint32_t version, flags, grain, entries; /* grain: bytes */
    uint64_t capacity, descriptor, descriptor_size, directory;
};

struct vmdk {
    struct blocks blocks;
    bool packed, zero_grains;
};

static bool probe(const uint8_t *head, size_t len)
{
    return len >= VMDK_HEAD &&
           (get_le32(head) == VMDK_MAGIC || memcmp(head, TEXT_START, strlen(TEXT_START)) == 0);
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
                       .directory = get_le64(h + VMDK_AT_DIRECTORY)};
    uint64_t grain = get_le64(h + VMDK_AT_GRAIN);

    if (memcmp(h, TEXT_START, strlen(TEXT_START)) == 0)
        return error_set(err, ENOTSUP,
                         "is a VMDK whose content is in other files, which is not supported: convert it with "
                         "'qemu-img convert -O qcow2'");
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
    return rc;
}

/* What "name=" is followed by in the text, up to the line's end and without quotes; NULL if it is not there.
 * To be freed. */
static char *value_of(const char *text, const char *name)
{
    size_t len = strlen(name);

    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncasecmp(line, name, len) != 0 || line[len] != '=')
            continue;
        const char *from = line + len + 1;
        from += *from == '"';
        return strndup(from, strcspn(from, "\"\r\n"));
    }
    return NULL;
}

/* *type is what the descriptor calls the image; NULL if it has none. To be freed. */
static int read_descriptor(int fd, const struct header *h, uint64_t file_end, char **type, struct error **err)
{
    *type = NULL;
    if (!h->descriptor)
        return 0;
    uint64_t bytes = h->descriptor_size * DISK_SECTOR;
    if (!h->descriptor_size || h->descriptor_size > VMDK_DESCRIPTOR_MAX / DISK_SECTOR ||
        h->descriptor > file_end / DISK_SECTOR || bytes > file_end - h->descriptor * DISK_SECTOR)
        return error_set(err, EINVAL, "is damaged: its descriptor does not fit");
    cleanup_free char *text = calloc(1, bytes + 1);
    int rc = text ? disk_read_at(fd, text, bytes, h->descriptor * DISK_SECTOR) : -ENOMEM;
    if (rc)
        return error_set_errno(err, -rc, "reading its descriptor");
    cleanup_free char *parent = value_of(text, "parentCID");
    if (parent && strcasecmp(parent, "ffffffff") != 0)
        return error_set(err, ENOTSUP,
                         "has only what differs from another image, which is not supported: convert it "
                         "with 'qemu-img convert -O qcow2'");
    *type = value_of(text, "createType");
    return 0;
}

static int describe(int fd, struct disk_info *info, struct error **err)
{
    struct header h;
    uint64_t file_end;
    cleanup_free char *type = NULL;
    int rc = read_header(fd, &h, &file_end, err);

    if (rc == 0)
        rc = read_descriptor(fd, &h, file_end, &type, err);
    if (rc)
        return rc;
    info->size = h.capacity * DISK_SECTOR;
    disk_info_add(info, "version", "%u", h.version);
    disk_info_add(info, "type", "%s", type ? type : "extent");
    disk_info_add(info, "cluster-size", "%u", h.grain);
    disk_info_add(info, "compressed", h.flags & VMDK_COMPRESSED ? "yes" : "no");
    return 0;
}

/* ---- reading ---- */

static uint64_t where(const struct blocks *b, uint32_t i)
{
    return (uint64_t)b->map[i] * DISK_SECTOR;
}

static const struct blocks_ops vmdk_blocks = {.where = where};

static int extent(struct disk *disk, uint64_t offset, uint64_t length, struct disk_extent *out)
{
    const struct vmdk *v = container_of(disk, struct vmdk, blocks.disk);
    const struct blocks *b = &v->blocks;
    uint32_t i = (uint32_t)(offset / b->block_size);
    uint64_t skip = offset & (b->block_size - 1);

    if (!v->packed || !b->map[i])
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

static void completed(struct disk_io_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);

    r->done(r, result);
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
    r->op = (struct disk_io_op){.kind = DISK_IO_NONE, .result = rc, .done = completed};
    disk_io_submit(disk->io, &r->op);
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
        if (v->zero_grains && b->map[i] == 1)
            b->map[i] = 0;
        if (where(b, i) >= file_end || (b->map[i] && where(b, i) < VMDK_HEAD))
            return error_set(err, EINVAL, "is damaged or cut off: grain %u is said to lie behind its end", i);
    }
    return 0;
}

static int read_tables(struct vmdk *v, const struct header *h, uint64_t file_end, struct error **err)
{
    struct blocks *b = &v->blocks;
    uint32_t n = b->n / h->entries + (b->n % h->entries != 0);
    cleanup_free uint32_t *directory = malloc(4 * (size_t)n);
    int rc = directory ? 0 : -ENOMEM;

    if (h->directory > file_end / DISK_SECTOR || 4ull * n > file_end - h->directory * DISK_SECTOR)
        return error_set(err, EINVAL,
                         "is damaged or cut off: the directory of its grains lies behind its end");
    if (rc == 0)
        rc = disk_read_at(b->disk.fd, directory, 4 * (size_t)n, h->directory * DISK_SECTOR);
    if (rc)
        return error_set_errno(err, -rc, "reading its tables");
    for (uint32_t t = 0; t < n && rc == 0; t++) {
        uint32_t first = t * h->entries, count = b->n - first < h->entries ? b->n - first : h->entries;
        if (directory[t])
            rc = read_table(v, first, count, (uint64_t)le32toh(directory[t]) * DISK_SECTOR, file_end, err);
    }
    return rc;
}

static int open_vmdk(struct disk **out, const struct disk *common, struct error **err)
{
    struct header h;
    uint64_t file_end;
    cleanup_free char *type = NULL;
    int rc = read_header(common->fd, &h, &file_end, err);

    if (rc == 0)
        rc = read_descriptor(common->fd, &h, file_end, &type, err);
    if (rc)
        return rc;
    if (!common->read_only)
        return error_set(err, EROFS,
                         "is VMDK, which is read but not written here: use it readonly, or 'tabique disk "
                         "convert -O qcow2' it");
    struct vmdk *v = calloc(1, sizeof(*v));
    if (!v)
        return error_set_errno(err, ENOMEM, "opening it");
    uint32_t sectors = h.grain / DISK_SECTOR;
    v->packed = h.flags & VMDK_COMPRESSED;
    v->zero_grains = h.flags & VMDK_ZERO_GRAINS;
    v->blocks = (struct blocks){.disk = *common,
                                .ops = &vmdk_blocks,
                                .block_size = h.grain,
                                .n = (uint32_t)((h.capacity + sectors - 1) / sectors)};
    v->blocks.disk.size = h.capacity * DISK_SECTOR;
    v->blocks.disk.granularity = h.grain;
    v->blocks.map = calloc(v->blocks.n, sizeof(uint32_t));
    rc = v->blocks.map ? read_tables(v, &h, file_end, err) : error_set_errno(err, ENOMEM, "opening it");
    if (rc) {
        free(v->blocks.map);
        free(v);
        return rc;
    }
    *out = &v->blocks.disk;
    return 0;
}

const struct disk_format disk_format_vmdk = {
    .name = "vmdk",
    .probe = probe,
    .open = open_vmdk,
    .submit = submit,
    .read = read_now,
    .close = blocks_close,
    .extent = extent,
    .unpack = unpack,
    .describe = describe,
    .build = &vmdk_build,
};

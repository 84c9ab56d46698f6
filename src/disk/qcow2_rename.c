/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The name of a qcow2 file's backing file, and the extensions of its header:
 *
 *     header | extensions: the one that changes, others, one that ends them | the name
 *
 * What of them counts is said in the first sector, and that is written last, at once. For that the table of
 * features' names, which nobody needs, goes where it would not fit. The disk's thread; no locks.
 */
#include "disk/qcow2_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR 512u

struct rename {
    struct qcow2_header h;
    uint8_t *old, *new; /* a cluster each */
    uint32_t size;      /* of a cluster */
    uint32_t at;        /* what of the new one is filled */
    uint32_t type;      /* of the extension that is to change */
    const void *data;   /* what it is to be; NULL: it goes */
    uint32_t len;
    uint64_t autoclear;
};

static bool add(struct rename *r, uint32_t type, const void *data, uint32_t len)
{
    if (r->size - r->at < 8 || len > r->size - r->at - 8)
        return false;
    put_be32(r->new + r->at, type);
    put_be32(r->new + r->at + 4, len);
    if (len)
        memcpy(r->new + r->at + 8, data, len);
    r->at += 8 + ALIGN_UP(len, 8);
    return r->at <= r->size;
}

/* The old extensions, but for the one that is to change. */
static bool keep_others(struct rename *r, bool with_features)
{
    uint64_t next = r->h.header_length, end = r->size;

    if (r->h.backing_offset && r->h.backing_offset < end)
        end = r->h.backing_offset;
    while (next + 8 <= end) {
        uint32_t type = get_be32(r->old + next), len = get_be32(r->old + next + 4);
        if (!type || len > end - next - 8)
            break;
        if (type != r->type && (type != QCOW2_EXTENSION_FEATURES || with_features) &&
            !add(r, type, r->old + next + 8, len))
            return false;
        next += 8 + ALIGN_UP((uint64_t)len, 8);
    }
    return true;
}

/* Lays out all but the name. */
static bool lay_out(struct rename *r, bool with_features)
{
    memset(r->new, 0, r->size);
    memcpy(r->new, r->old, r->h.header_length);
    if (r->h.version >= 3)
        put_be64(r->new + QCOW2_AT_AUTOCLEAR, r->autoclear);
    r->at = r->h.header_length;
    return (!r->data || add(r, r->type, r->data, r->len)) && keep_others(r, with_features) &&
           add(r, 0, NULL, 0);
}

/* The name beside the old one, so that there is one at any moment. 0 or -errno. */
static int write_name(struct qcow2 *q, struct rename *r, const char *name, uint32_t len)
{
    uint64_t at = r->at > SECTOR ? r->at : SECTOR, old_end = r->h.backing_offset + r->h.backing_size;

    if (old_end > at)
        at = ALIGN_UP(old_end, 8);
    if (at + len > r->size)
        at = r->at > SECTOR ? r->at : SECTOR;
    if (at + len > r->size)
        return -ENAMETOOLONG;
    put_be64(r->new + QCOW2_AT_BACKING_OFFSET, at);
    put_be32(r->new + QCOW2_AT_BACKING_SIZE, len);
    int rc = disk_write_at(q->disk.fd, name, len, at);
    return rc ? rc : qcow2_sync(q);
}

static int write_all(struct qcow2 *q, struct rename *r, const char *name)
{
    uint32_t len = name ? (uint32_t)strlen(name) : 0;
    bool fits = lay_out(r, true) && r->at + len <= SECTOR;
    int rc = 0;

    if (!fits && !lay_out(r, false))
        return -ENAMETOOLONG;
    put_be64(r->new + QCOW2_AT_BACKING_OFFSET, len ? r->at : 0);
    put_be32(r->new + QCOW2_AT_BACKING_SIZE, len);
    if (r->at + len <= SECTOR)
        memcpy(r->new + r->at, name ? name : "", len);
    else
        rc = write_name(q, r, name, len);
    /* More than a sector of extensions: as good as it gets. */
    if (rc == 0 && r->at > SECTOR)
        rc = disk_write_at(q->disk.fd, r->new + SECTOR, r->at - SECTOR, SECTOR);
    if (rc == 0)
        rc = disk_write_at(q->disk.fd, r->new, SECTOR, 0);
    return rc ? rc : qcow2_sync(q);
}

int qcow2_set_backing(struct disk *disk, const char *name, const char *format, struct error **err)
{
    struct qcow2 *q = container_of(disk, struct qcow2, disk);
    cleanup_free uint8_t *old = calloc(1, q->cluster_size), *new = calloc(1, q->cluster_size);
    struct rename r = {.old = old,
                       .new = new,
                       .size = q->cluster_size,
                       .type = QCOW2_EXTENSION_BACKING_FORMAT,
                       .data = name ? format : NULL,
                       .len = name &&format ? (uint32_t)strlen(format) : 0};

    if (name && (!*name || strlen(name) > QCOW2_BACKING_MAX))
        return error_set(err, ENAMETOOLONG, "the name of what it is based on has 1 to %u bytes",
                         QCOW2_BACKING_MAX);
    if (name && q->data_raw)
        return error_set(err, EINVAL,
                         "has its data in a raw file (data_file_raw), which can't be based on "
                         "another");
    if (!old || !new)
        return error_set_errno(err, ENOMEM, "writing its header");
    int rc = qcow2_read_fields(disk->fd, &r.h, err);
    if (rc)
        return rc;
    r.autoclear = r.h.autoclear;
    rc = q->damaged ? -EIO : qcow2_flush_to_close(q);
    if (rc == 0)
        rc = disk_read_at(disk->fd, old, q->cluster_size, 0);
    if (rc == 0)
        rc = write_all(q, &r, name);
    if (rc == 0)
        q->behind = name;
    if (rc == -ENAMETOOLONG)
        return error_set(err, ENAMETOOLONG, "the name '%s' does not fit into its header", name ? name : "");
    return rc ? error_set_errno(err, -rc, "writing its header") : 0;
}

int qcow2_set_extension(struct qcow2 *q, uint32_t type, const void *data, uint32_t len, uint64_t autoclear)
{
    cleanup_free uint8_t *old = calloc(1, q->cluster_size), *new = calloc(1, q->cluster_size);
    cleanup_free char *name = NULL;
    struct rename r = {.old = old,
                       .new = new,
                       .size = q->cluster_size,
                       .type = type,
                       .data = data,
                       .len = len,
                       .autoclear = autoclear};

    if (!old || !new)
        return -ENOMEM;
    int rc = qcow2_read_fields(q->disk.fd, &r.h, NULL);
    if (rc == 0)
        rc = disk_read_at(q->disk.fd, old, q->cluster_size, 0);
    if (rc == 0 && r.h.backing_offset) {
        name = strndup((const char *)old + r.h.backing_offset, r.h.backing_size);
        rc = name ? 0 : -ENOMEM;
    }
    return rc ? rc : write_all(q, &r, name);
}

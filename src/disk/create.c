/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making new images: raw, and qcow2 of version 3 with clusters of 64 KiB, empty or on top of another image.
 *
 * A new qcow2 file is the header, the refcount table, one refcount block, and the L1 table, in this order;
 * all of them are counted by that block. No state, no locks.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/qcow2_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define CLUSTER_BITS 16u
#define CLUSTER      (1u << CLUSTER_BITS)
#define REACH        ((uint64_t)CLUSTER * CLUSTER / 8) /* of one L1 entry */

enum { REFTABLE_CLUSTER = 1, BLOCK_CLUSTER = 2, L1_CLUSTER = 3 };

static int write_header(int fd, const struct disk_create *what, uint32_t l1_entries, struct error **err)
{
    cleanup_free uint8_t *h = calloc(1, CLUSTER);
    uint32_t at = QCOW2_HEADER_V3;

    if (!h)
        return error_set_errno(err, ENOMEM, "header");
    put_be32(h, QCOW2_MAGIC);
    put_be32(h + QCOW2_AT_VERSION, 3);
    put_be32(h + QCOW2_AT_CLUSTER_BITS, CLUSTER_BITS);
    put_be64(h + QCOW2_AT_SIZE, what->size);
    put_be32(h + QCOW2_AT_L1_SIZE, l1_entries);
    put_be64(h + QCOW2_AT_L1_OFFSET, (uint64_t)L1_CLUSTER * CLUSTER);
    put_be64(h + QCOW2_AT_REFTABLE_OFFSET, (uint64_t)REFTABLE_CLUSTER * CLUSTER);
    put_be32(h + QCOW2_AT_REFTABLE_CLUSTERS, 1);
    put_be32(h + QCOW2_AT_REFCOUNT_ORDER, 4);
    put_be32(h + QCOW2_AT_HEADER_LENGTH, QCOW2_HEADER_V3);
    if (what->backing) {
        size_t format = strlen(what->backing_format), name = strlen(what->backing);
        put_be32(h + at, QCOW2_EXTENSION_BACKING_FORMAT);
        put_be32(h + at + 4, (uint32_t)format);
        memcpy(h + at + 8, what->backing_format, format);
        at += 8 + ALIGN_UP((uint32_t)format, 8);
        at += 8; /* the extension that ends the list: zeros */
        put_be64(h + QCOW2_AT_BACKING_OFFSET, at);
        put_be32(h + QCOW2_AT_BACKING_SIZE, (uint32_t)name);
        memcpy(h + at, what->backing, name);
    }
    int rc = disk_write_at(fd, h, CLUSTER, 0);
    return rc ? error_set_errno(err, -rc, "writing its header") : 0;
}

static int write_tables(int fd, uint32_t l1_clusters, struct error **err)
{
    cleanup_free uint8_t *bytes = calloc(1, CLUSTER);
    uint32_t used = L1_CLUSTER + l1_clusters;
    int rc = bytes ? 0 : -ENOMEM;

    if (rc == 0) {
        put_be64(bytes, (uint64_t)BLOCK_CLUSTER * CLUSTER);
        rc = disk_write_at(fd, bytes, CLUSTER, (uint64_t)REFTABLE_CLUSTER * CLUSTER);
        put_be64(bytes, 0);
    }
    for (uint32_t i = 0; rc == 0 && i < used; i++)
        put_be16(bytes + 2 * (size_t)i, 1);
    if (rc == 0)
        rc = disk_write_at(fd, bytes, CLUSTER, (uint64_t)BLOCK_CLUSTER * CLUSTER);
    if (rc == 0)
        memset(bytes, 0, CLUSTER);
    for (uint32_t i = 0; rc == 0 && i < l1_clusters; i++)
        rc = disk_write_at(fd, bytes, CLUSTER, (uint64_t)(L1_CLUSTER + i) * CLUSTER);
    return rc ? error_set_errno(err, -rc, "writing its tables") : 0;
}

static int create_qcow2(int fd, const struct disk_create *what, struct error **err)
{
    uint64_t entries = what->size / REACH + (what->size % REACH != 0);

    if (entries > QCOW2_L1_MAX / 8)
        return error_set(err, EFBIG, "a size of %" PRIu64 " bytes is too large: %" PRIu64 " at most",
                         what->size, QCOW2_L1_MAX / 8 * REACH);
    if (what->backing && (!what->backing_format || !disk_format_find(what->backing_format)))
        return error_set(err, EINVAL, "the format of what it is based on is not given, or unknown");
    if (what->backing && (!*what->backing || strlen(what->backing) > QCOW2_BACKING_MAX))
        return error_set(err, ENAMETOOLONG, "the name of what it is based on has more than %u bytes",
                         QCOW2_BACKING_MAX);
    uint32_t l1_clusters = (uint32_t)(ALIGN_UP(entries * 8, (uint64_t)CLUSTER) / CLUSTER);
    /* The header last: until then it is no image. */
    int rc = write_tables(fd, l1_clusters, err);
    return rc ? rc : write_header(fd, what, (uint32_t)entries, err);
}

static int create_raw(int fd, const struct disk_create *what, struct error **err)
{
    if (what->backing)
        return error_set(err, EINVAL, "a raw image can't be based on another");
    return ftruncate(fd, (off_t)what->size) < 0 ? error_set_errno(err, errno, "setting its size") : 0;
}

int disk_create(const char *path, const struct disk_create *what, struct error **err)
{
    int rc;

    if (!what->size || what->size % DISK_SECTOR || what->size > INT64_MAX)
        return error_set(err, EINVAL, "disk '%s': a size of %" PRIu64 " bytes: choose a multiple of %u", path,
                         what->size, DISK_SECTOR);
    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set_errno(err, errno, "disk '%s'", path);
    if (strcmp(what->format, "qcow2") == 0)
        rc = create_qcow2(fd, what, err);
    else if (strcmp(what->format, "raw") == 0)
        rc = create_raw(fd, what, err);
    else
        rc = error_set(err, EINVAL, "'%s' is no format that can be made", what->format);
    if (rc == 0 && fsync(fd) < 0)
        rc = error_set_errno(err, errno, "writing it");
    if (rc) {
        unlink(path);
        return error_wrap(err, "disk '%s'", path);
    }
    return 0;
}

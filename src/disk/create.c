/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making new images, empty or on top of another image: what convert.c does, without content. And the options
 * of both. No state, no locks.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/suggest.h"
#include "disk/disk_priv.h"
#include "disk/namer.h"
#include "disk/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- options ---- */

/* A cluster is what VHDX calls a block. */
static const char *const options[] = {
    "cluster_size",  "block_size",    "compression_type", "subformat",
    "backing_file",  "backing_fmt",   "encrypt.key-file", "encrypt.iter-time",
    "compat",        "refcount_bits", "encrypt.format",   "lazy_refcounts",
    "preallocation", "extended_l2",   "data_file",        "data_file_raw"};

/* Bytes, with K or M behind the number. */
static int parse_cluster(const char *text, uint32_t *out)
{
    char *end;

    errno = 0;
    unsigned long long n = text[0] >= '0' && text[0] <= '9' ? strtoull(text, &end, 10) : 0;
    if (!n || errno)
        return -EINVAL;
    unsigned shift = *end == 'K' || *end == 'k' ? 10 : *end == 'M' || *end == 'm' ? 20 : 0;
    if (n > UINT32_MAX >> shift || end[shift != 0])
        return -EINVAL;
    *out = (uint32_t)n << shift;
    return 0;
}

static int switch_option(bool *out, const char *name, const char *value, struct error **err)
{
    *out = strcmp(value, "on") == 0;
    return *out || strcmp(value, "off") == 0 ? 0
                                             : error_set(err, EINVAL, "%s=%s: choose on or off", name, value);
}

/* Those that qcow2 alone has. 1: it is none of them. */
static int qcow2_option(struct disk_create *what, const char *name, const char *value, struct error **err)
{
    if (strcmp(name, "compat") == 0) {
        bool old = strcmp(value, "0.10") == 0 || strcmp(value, "v2") == 0;
        if (!old && strcmp(value, "1.1") != 0 && strcmp(value, "v3") != 0)
            return error_set(err, EINVAL, "compat=%s: choose 0.10 (version 2) or 1.1 (version 3)", value);
        what->version = old ? 2 : 3;
        return 0;
    }
    if (strcmp(name, "lazy_refcounts") == 0)
        return switch_option(&what->lazy_refcounts, name, value, err);
    if (strcmp(name, "extended_l2") == 0)
        return switch_option(&what->extended_l2, name, value, err);
    if (strcmp(name, "data_file_raw") == 0)
        return switch_option(&what->data_file_raw, name, value, err);
    if (strcmp(name, "data_file") == 0) {
        what->data_file = value;
        return 0;
    }
    if (strcmp(name, "refcount_bits") == 0) {
        char *end;
        unsigned long bits = strtoul(value, &end, 10);
        if (*end || !bits || bits > 64 || bits & (bits - 1))
            return error_set(err, EINVAL, "refcount_bits=%s: choose 1, 2, 4, 8, 16, 32 or 64", value);
        what->refcount_bits = (unsigned)bits;
        return 0;
    }
    return 1;
}

static int preallocation_option(struct disk_create *what, const char *value, struct error **err)
{
    static const char *const names[] = {[DISK_PREALLOCATE_OFF] = "off",
                                        [DISK_PREALLOCATE_METADATA] = "metadata",
                                        [DISK_PREALLOCATE_FALLOC] = "falloc",
                                        [DISK_PREALLOCATE_FULL] = "full"};

    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        if (strcmp(value, names[i]) == 0) {
            what->preallocation = (enum disk_preallocation)i;
            return 0;
        }
    }
    return error_set(err, EINVAL, "preallocation=%s: choose off, metadata, falloc or full", value);
}

int disk_create_option(struct disk_create *what, const char *name, const char *value, struct error **err)
{
    if (strcmp(name, "cluster_size") == 0 || strcmp(name, "block_size") == 0)
        return parse_cluster(value, &what->cluster_size)
                   ? error_set(err, EINVAL, "%s=%s: give bytes, such as 64K", name, value)
                   : 0;
    int rc = qcow2_option(what, name, value, err);
    if (rc <= 0)
        return rc;
    if (strcmp(name, "compression_type") == 0) {
        bool zstd = strcmp(value, "zstd") == 0;
        if (!zstd && strcmp(value, "zlib") != 0)
            return error_set(err, EINVAL, "compression_type=%s: choose zlib or zstd", value);
        what->compression = zstd ? DISK_COMPRESS_ZSTD : DISK_COMPRESS_ZLIB;
    } else if (strcmp(name, "preallocation") == 0) {
        return preallocation_option(what, value, err);
    } else if (strcmp(name, "subformat") == 0) {
        what->subformat = value;
    } else if (strcmp(name, "encrypt.format") == 0) {
        if (strcmp(value, "luks") != 0)
            return error_set(err, EINVAL, "encrypt.format=%s: choose luks", value);
        what->encrypt = true;
    } else if (strcmp(name, "encrypt.key-file") == 0) {
        what->key_file = value;
    } else if (strcmp(name, "encrypt.iter-time") == 0) {
        char *end;
        unsigned long ms = strtoul(value, &end, 10);
        if (*end || end == value || *value == '-' || !ms || ms > 60000)
            return error_set(err, EINVAL, "encrypt.iter-time=%s: give milliseconds, 1 to 60000", value);
        what->iter_time = (unsigned)ms;
    } else if (strcmp(name, "backing_file") == 0) {
        what->backing = value;
    } else if (strcmp(name, "backing_fmt") == 0) {
        what->backing_format = value;
    } else {
        const char *meant = suggest_nearest(name, options, ARRAY_SIZE(options));
        return error_set(err, EINVAL, "unknown option '%s'%s%s%s", name, meant ? ": did you mean " : "",
                         meant ? meant : "", meant ? "?" : "");
    }
    return 0;
}

bool disk_format_can_create(const char *name)
{
    const struct disk_format *format = disk_format_find(name);

    return format && format->build;
}

/* ---- making one ---- */

static int check_preallocation(const struct disk_create *what, const struct disk_format *format,
                               struct error **err)
{
    if (what->preallocation == DISK_PREALLOCATE_OFF)
        return 0;
    if (format != &disk_format_qcow2 && format != &disk_format_raw)
        return error_set(err, EINVAL, "preallocation is an option of qcow2 and raw");
    if (format == &disk_format_raw && what->preallocation == DISK_PREALLOCATE_METADATA)
        return error_set(err, EINVAL,
                         "preallocation=metadata: a raw image has none; choose off, falloc or full");
    if (what->compress)
        return error_set(err, EINVAL, "preallocation and compression exclude one another");
    if (what->backing)
        return error_set(err, EINVAL, "preallocation would hide all that the image is based on");
    return 0;
}

static const uint8_t zeros[64u << 10];

int disk_build_write(const struct disk_build *build, const void *bytes, uint64_t len, uint64_t room,
                     uint64_t offset)
{
    int rc = disk_write_at(build->fd, bytes, len, offset);

    if (rc == 0 && build->fresh) {
        off_t end = lseek(build->fd, 0, SEEK_END);
        return end < 0 || ((uint64_t)end < offset + room && ftruncate(build->fd, (off_t)(offset + room)) < 0)
                   ? -errno
                   : 0;
    }
    for (uint64_t n; rc == 0 && len < room; len += n) {
        n = room - len < sizeof(zeros) ? room - len : sizeof(zeros);
        rc = disk_write_at(build->fd, zeros, n, offset + len);
    }
    return rc;
}

static int fill_holes(int fd, uint64_t end)
{
    bool hole;
    int rc = 0;

    for (uint64_t at = 0, n; rc == 0 && at < end; at += n) {
        n = disk_alike_at(fd, at, end - at, &hole);
        if (!hole)
            continue;
        if (n > sizeof(zeros))
            n = sizeof(zeros);
        rc = disk_write_at(fd, zeros, n, at);
    }
    return rc;
}

/* Has the file that the content is in take the space that it says to have. */
static int take_space(const struct disk_build *build)
{
    int fd = build->n_parts ? build->parts[0].fd : build->fd;
    off_t end = lseek(fd, 0, SEEK_END);

    if (end < 0)
        return -errno;
    if (build->what->preallocation == DISK_PREALLOCATE_FALLOC) {
        if (fallocate(fd, 0, 0, end) == 0)
            return 0;
        if (errno != EOPNOTSUPP && errno != ENOSYS)
            return -errno;
    }
    return fill_holes(fd, (uint64_t)end);
}

int disk_build_add_part(struct disk_build *build, const char *name, struct error **err)
{
    cleanup_free char *path = disk_name_beside(build->path, name);
    struct disk_new_file *more = realloc(build->parts, (build->n_parts + 1) * sizeof(*more));

    if (more)
        build->parts = more;
    if (!path || !more)
        return error_set_errno(err, ENOMEM, "disk '%s'", name);
    int rc = build->namer ? disk_namer_open(build->namer, name, &more[build->n_parts], err)
                          : disk_new_file_open_beside(&more[build->n_parts], path, err);
    build->n_parts += rc == 0;
    return rc;
}

int disk_build_file(const struct disk_build *build, uint64_t *offset)
{
    uint64_t part = build->n_parts ? *offset >> 48 : 0;

    *offset -= part << 48;
    return part ? build->parts[part - 1].fd : build->fd;
}

/* Parts have their names before the image has: `rc` is how it went so far. */
static int end_parts(struct disk_build *build, bool ok, int rc, struct error **err)
{
    for (unsigned i = 0; i < build->n_parts; i++) {
        int named = disk_new_file_end(&build->parts[i], ok && rc == 0, true, rc ? NULL : err);
        rc = rc ? rc : named;
    }
    free(build->parts);
    build->parts = NULL;
    build->n_parts = 0;
    return rc;
}

int disk_build_begin(struct disk_build *build, int fd, const char *path, const struct disk_create *what,
                     struct disk_namer *namer, struct error **err)
{
    const char *slash = strrchr(path, '/');
    const struct disk_format *format = disk_format_find(what->format);

    struct stat st;

    *build = (struct disk_build){.format = format,
                                 .fd = fd,
                                 .what = what,
                                 .path = path,
                                 .name = slash ? slash + 1 : path,
                                 .namer = namer};
    build->fresh = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !st.st_size;
    if (!format || !format->build)
        return error_set(err, EINVAL, "'%s' is no format that can be made", what->format);
    if (!what->size || what->size % DISK_SECTOR || what->size > INT64_MAX)
        return error_set(err, EINVAL, "a size of %" PRIu64 " bytes: choose a multiple of %u", what->size,
                         DISK_SECTOR);
    if (what->encrypt && !what->key_file)
        return error_set(err, EINVAL, "encryption needs a secret: -o encrypt.key-file=FILE");
    if (what->key_file && !format->build->encrypts)
        return error_set(err, EINVAL, "the format %s is not encrypted: choose luks or qcow2", what->format);
    if ((what->version || what->refcount_bits || what->lazy_refcounts || what->extended_l2 ||
         what->data_file || what->data_file_raw) &&
        format != &disk_format_qcow2)
        return error_set(
            err, EINVAL,
            "compat, refcount_bits, lazy_refcounts, extended_l2, data_file and data_file_raw are "
            "options of qcow2");
    int rc = check_preallocation(what, format, err);
    if (rc)
        return rc;
    rc = format->build->begin(build, err);
    if (rc && format->build->free)
        format->build->free(build);
    return rc ? end_parts(build, false, rc, err) : 0;
}

int disk_build_end(struct disk_build *build, bool ok, struct error **err)
{
    int rc = ok ? build->format->build->end(build) : 0;

    if (ok && rc == 0 && build->what->preallocation >= DISK_PREALLOCATE_FALLOC)
        rc = take_space(build);
    if (build->format->build->free)
        build->format->build->free(build);
    if (rc)
        error_set_errno(err, -rc, "writing %s",
                        build->what->preallocation ? "its tables, and taking space" : "its tables");
    return end_parts(build, ok, rc, err);
}

int disk_create(const char *path, const struct disk_create *what, struct error **err)
{
    struct disk_build build;

    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set_errno(err, errno, "disk '%s'", path);
    int rc = disk_build_begin(&build, fd, path, what, NULL, err);
    if (rc == 0)
        rc = disk_build_end(&build, true, err);
    if (rc == 0 && fsync(fd) < 0)
        rc = error_set_errno(err, errno, "writing it");
    if (rc) {
        unlink(path);
        return error_wrap(err, "disk '%s'", path);
    }
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What commands ask of an image: its header's facts, and where its content is. No state, no locks. */
#include "disk/disk_priv.h"
#include "disk/nbd_link.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

bool disk_is_zero(const uint8_t *p, size_t len)
{
    return !len || (!p[0] && memcmp(p, p + 1, len - 1) == 0);
}

static bool files_are_remote(const struct disk *disk)
{
    return disk->files->files[disk->file].remote;
}

static unsigned depth_of(const struct disk_files *files, unsigned file)
{
    unsigned depth = 0;

    for (unsigned i = 1; i <= file; i++)
        depth += !files->files[i].part;
    return depth;
}

int disk_map(struct disk *disk, uint64_t start, uint64_t length, struct disk_piece *out)
{
    struct disk_extent e;

    if (start >= disk->size || length > disk->size - start || !length)
        return -EINVAL;
    int rc = disk_extent(disk, start, length, &e);
    if (rc)
        return rc;
    *out = (struct disk_piece){.kind = e.kind,
                               .allocated = e.allocated,
                               .encrypted = e.encrypted,
                               .file = e.disk->file,
                               .depth = depth_of(disk->files, e.disk->file),
                               .start = start,
                               .length = e.length,
                               .offset = e.kind == DISK_EXTENT_DATA ? e.offset : 0};
    /* What a server has is not packed, but where it is. */
    if (files_are_remote(disk) && e.kind == DISK_EXTENT_PACKED) {
        out->kind = DISK_EXTENT_DATA;
        out->offset = start;
        return 0;
    }
    /* Formats stop where their tables do. */
    while (out->length < length && e.kind != DISK_EXTENT_PACKED) {
        rc = disk_extent(disk, start + out->length, length - out->length, &e);
        if (rc)
            return rc;
        if (e.kind != out->kind || e.allocated != out->allocated || e.disk->file != out->file ||
            (e.kind == DISK_EXTENT_DATA && e.offset != out->offset + out->length))
            break;
        out->length += e.length;
    }
    return 0;
}

int disk_extent_read(const struct disk_extent *e, uint8_t *buf, size_t len)
{
    switch (e->kind) {
    case DISK_EXTENT_ZEROS:
        memset(buf, 0, len);
        return 0;
    case DISK_EXTENT_DATA:
        return disk_read_at(e->disk->fd, buf, len, e->offset);
    case DISK_EXTENT_PACKED: {
        struct disk_extent first = *e;
        first.length = len;
        return e->disk->format->unpack(&first, buf);
    }
    }
    return -EIO;
}

void disk_info_add(struct disk_info *info, const char *name, const char *format, ...)
{
    va_list args;

    if (info->n_details == DISK_DETAILS_MAX)
        return;
    va_start(args, format);
    snprintf(info->details[info->n_details].name, sizeof(info->details[0].name), "%s", name);
    vsnprintf(info->details[info->n_details].value, sizeof(info->details[0].value), format, args);
    va_end(args);
    info->n_details++;
}

void disk_info_free(struct disk_info *info)
{
    free(info->backing);
    free(info->backing_format);
    *info = (struct disk_info){0};
}

static int read_info(const char *path, const char *format, bool unlocked, int (*opened)(struct error **err),
                     struct disk_info *out, struct error **err)
{
    struct disk_info info = {0};
    struct disk_files *files;
    struct stat st;
    int rc = disk_files_open_first(&files, path, format, unlocked, err);

    if (rc)
        return rc;
    const struct disk_file *f = &files->files[0];
    const struct disk_format *which = disk_format_find(f->format);
    snprintf(info.format, sizeof(info.format), "%s", which->name);
    if (opened)
        rc = opened(err);
    if (rc == 0 && fstat(f->fd, &st) < 0)
        rc = error_set_errno(err, errno, "reading it");
    if (rc == 0) {
        info.file_size = (uint64_t)st.st_size;
        info.host_bytes = (uint64_t)st.st_blocks * 512;
        rc = f->remote ? nbd_describe(files, &info, err) : which->describe(f->fd, &info, err);
    }
    if (rc == 0 && which->backing)
        rc = which->backing(f->fd, &info.backing, &info.backing_format, err);
    if (rc) {
        error_wrap(err, "disk '%s'", path);
        disk_info_free(&info);
    } else {
        *out = info;
    }
    disk_files_close(files);
    return rc;
}

int disk_read_info(const char *path, const char *format, int (*opened)(struct error **err),
                   struct disk_info *out, struct error **err)
{
    return read_info(path, format, false, opened, out, err);
}

int disk_look(const char *path, const char *format, struct disk_info *out, struct error **err)
{
    return read_info(path, format, true, NULL, out, err);
}

int disk_backing_size(const char *path, const struct disk_create *what, uint64_t *out, struct error **err)
{
    cleanup_free char *name = disk_name_beside(path, what->backing);
    struct disk_info info;
    int rc = name ? disk_read_info(name, what->backing_format, NULL, &info, err)
                  : error_set_errno(err, ENOMEM, "disk '%s'", path);

    if (rc)
        return rc;
    *out = info.size;
    disk_info_free(&info);
    return 0;
}

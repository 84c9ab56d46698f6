/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The face of disk/: finds the format, checks each request, hands it on. The disk's own thread; no locks. */
#include "base/error.h"
#include "disk/copy_priv.h"
#include "disk/fill_priv.h"

#include <errno.h>
#include <string.h>

static const struct disk_format *const formats[] = {&disk_format_raw,  &disk_format_luks, &disk_format_qcow2,
                                                    &disk_format_vdi,  &disk_format_vhd,  &disk_format_vhdx,
                                                    &disk_format_vmdk, &disk_format_nbd,  NULL};

const char *disk_format_name(size_t i)
{
    return formats[i] ? formats[i]->name : NULL;
}

const struct disk_format *disk_format_find(const char *name)
{
    for (size_t i = 0; formats[i]; i++)
        if (strcmp(formats[i]->name, name) == 0)
            return formats[i];
    return NULL;
}

const struct disk_format *disk_format_probe(const uint8_t *head, size_t len)
{
    for (size_t i = 0; formats[i]; i++)
        if (formats[i]->probe && formats[i]->probe(head, len))
            return formats[i];
    return &disk_format_raw;
}

int disk_named(const struct disk *disk, int rc, struct error **err)
{
    return rc ? error_wrap(err, "disk '%s'", disk->files->files[disk->file].name) : 0;
}

int disk_check_behind(const struct disk *disk, bool based, struct error **err)
{
    if (disk->backing && !based)
        return error_set(err, EINVAL, "is based on nothing, but a file for that is given");
    if (based && !disk->backing && disk->files && !disk->files->alone)
        return error_set(err, EINVAL, "is based on a file that is not given");
    return 0;
}

unsigned disk_part(const struct disk *disk, unsigned i)
{
    const struct disk_files *files = disk->files;
    unsigned file = disk->file;

    for (unsigned k = 0; k <= i; k++)
        if (!files || ++file >= files->n || !files->files[file].part)
            return 0;
    return file;
}

/* Of what an image is based on `backing` is open already; it stays the caller's after a failure. */
static int open_file(struct disk **out, struct disk_files *files, unsigned file, struct disk *backing,
                     struct loop *loop, struct error **err)
{
    const struct disk_file *f = &files->files[file];
    const struct disk_format *format = disk_format_find(f->format);
    const struct disk common = {
        .format = format,
        .files = files,
        .file = file,
        .fd = f->fd,
        .io = files->io,
        .loop = loop,
        /* What an image is based on is never written. */
        .read_only = files->read_only || file > 0,
        .backing = backing,
    };

    if (!format)
        return error_set(err, EINVAL, "disk '%s': '%s' is no format", f->name, f->format);
    int rc = 0;
    if (!format->backing)
        rc = disk_check_behind(&common, false, err);
    if (rc == 0 && disk_part(&common, 0) && !format->parts)
        rc = error_set(err, EINVAL, "has one file, but another is given");
    if (rc == 0)
        rc = format->open(out, &common, err);
    return rc ? error_wrap(err, "disk '%s'", f->name) : 0;
}

/* From the far end of the chain, so that its length takes nothing of the stack. */
static int open_chain(struct disk **out, struct disk_files *files, struct loop *loop, struct error **err)
{
    struct disk *disk = NULL;

    for (unsigned file = files->n; file-- > 0;) {
        if (files->files[file].part)
            continue;
        struct disk *backing = disk;
        int rc = open_file(&disk, files, file, backing, loop, err);

        if (rc) {
            if (backing)
                backing->format->close(backing);
            return rc;
        }
    }
    *out = disk;
    return 0;
}

int disk_open(struct disk **out, struct disk_files *files, struct loop *loop, struct error **err)
{
    struct disk *disk;
    int rc = open_chain(&disk, files, loop, err);

    if (rc)
        return rc;
    rc = disk_io_attach(files->io, loop);
    if (rc) {
        disk->format->close(disk);
        return error_set_errno(err, -rc, "disk '%s'", files->files[0].name);
    }
    *out = disk;
    return 0;
}

int disk_close(struct disk *disk)
{
    if (!disk)
        return 0;
    if (disk->copy)
        disk_copy_forget(disk->copy);
    while (disk->fill) /* one on reads may be behind one that goes on */
        disk_fill_forget(disk->fill);
    disk_io_attach(disk->io, NULL);
    disk_io_on_batch_end(disk->io, NULL, NULL);
    return disk->format->close(disk);
}

bool disk_is_idle(const struct disk *disk)
{
    return disk_io_is_idle(disk->io);
}

uint64_t disk_size(const struct disk *disk)
{
    return disk->size;
}

bool disk_is_read_only(const struct disk *disk)
{
    return disk->read_only;
}

uint32_t disk_granularity(const struct disk *disk)
{
    return disk->granularity;
}

/* ---- chains ---- */

int disk_extent(const struct disk *disk, uint64_t offset, uint64_t length, struct disk_extent *out)
{
    for (;;) {
        struct disk *behind = disk->backing;
        int rc = disk->format->extent((struct disk *)(uintptr_t)disk, offset, length, out);

        if (rc || out->allocated || !behind || offset >= behind->size)
            return rc;
        length = out->length < length ? out->length : length;
        if (length > behind->size - offset)
            length = behind->size - offset;
        disk = behind;
    }
}

int disk_find_owner(struct disk **disk, uint64_t offset, uint64_t *length)
{
    while ((*disk)->backing) {
        struct disk *behind = (*disk)->backing;
        struct disk_extent e;
        int rc = (*disk)->format->extent(*disk, offset, *length, &e);

        if (rc)
            return rc;
        *length = e.length < *length ? e.length : *length;
        if (e.allocated || offset >= behind->size)
            return 0;
        if (*length > behind->size - offset)
            *length = behind->size - offset;
        *disk = behind;
    }
    return 0;
}

int disk_read_now(struct disk *disk, uint64_t offset, void *buf, size_t len)
{
    uint64_t there = offset < disk->size ? disk->size - offset : 0;
    int rc = 0;

    if (there < len)
        memset((uint8_t *)buf + there, 0, len - there);
    else
        there = len;
    for (uint64_t done = 0; done < there && rc == 0;) {
        struct disk *owner = disk;
        uint64_t length = there - done;

        rc = disk_find_owner(&owner, offset + done, &length);
        if (rc == 0)
            rc = owner->format->read(owner, offset + done, (uint8_t *)buf + done, length);
        done += length;
    }
    return rc;
}

/* ---- requests ---- */

static int check(const struct disk *disk, const struct disk_request *request)
{
    uint64_t bytes = 0;

    if (request->kind == DISK_FLUSH)
        return 0;
    if (request->kind != DISK_READ && disk->read_only)
        return -EROFS;
    if (request->offset > disk->size || request->length > disk->size - request->offset ||
        (request->offset | request->length) % DISK_SECTOR)
        return -EINVAL;
    if (request->kind != DISK_READ && request->kind != DISK_WRITE)
        return 0;
    if (request->n_iov > DISK_IOV_MAX)
        return -EINVAL;
    for (unsigned i = 0; i < request->n_iov; i++)
        bytes += request->iov[i].iov_len;
    return bytes == request->length ? 0 : -EINVAL;
}

void disk_submit(struct disk *disk, struct disk_request *request)
{
    int result = check(disk, request);

    request->disk = disk;
    if (result == 0 && (request->length || request->kind == DISK_FLUSH)) {
        if (disk->copy)
            disk_copy_submit(disk->copy, request);
        else if (disk->fill)
            disk_fill_submit(disk->fill, request);
        else
            disk->format->submit(disk, request);
        return;
    }
    disk_request_end(request, result);
}

void disk_start(struct disk *disk)
{
    disk_io_start(disk->io);
}

void disk_on_batch_end(struct disk *disk, void (*fn)(void *opaque), void *opaque)
{
    disk_io_on_batch_end(disk->io, fn, opaque);
}

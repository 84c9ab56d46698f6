/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Having an image be based on another one. One thread; no locks. */
#include "disk/maintain.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/disk_priv.h"
#include "host/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK (2u << 20) /* as large as any cluster */

struct rebase {
    struct disk *disk, *base; /* the image; the new base, NULL: none */
    uint8_t *before, *after;
    const struct disk_job *job;
};

static bool is_zeros(const struct disk *disk, uint64_t at, uint64_t len)
{
    struct disk_extent e;

    return !disk || at >= disk->size ||
           (disk_extent(disk, at, len, &e) == 0 && e.kind == DISK_EXTENT_ZEROS &&
            (e.length >= len || at + e.length >= disk->size));
}

static int read_all(struct disk *disk, uint64_t at, uint8_t *buf, uint64_t len)
{
    if (disk)
        return disk_read_now(disk, at, buf, len);
    memset(buf, 0, len);
    return 0;
}

/* Copies those clusters of a piece that the new base has otherwise. */
static int copy_differences(struct rebase *r, uint64_t at, uint64_t len)
{
    uint64_t unit = r->disk->granularity;
    int rc = read_all(r->disk->backing, at, r->before, len);

    if (rc == 0)
        rc = read_all(r->base, at, r->after, len);
    for (uint64_t done = 0, n; rc == 0 && done < len; done += n) {
        n = unit - (at + done) % unit;
        if (n > len - done)
            n = len - done;
        if (memcmp(r->before + done, r->after + done, n) == 0)
            continue;
        /* Where nothing is behind it, the image has zeros without saying so: it must say so now. */
        bool behind = r->disk->backing && at + done < r->disk->backing->size;
        if (behind && disk_is_zero(r->before + done, n))
            rc = disk_do_now(r->disk, DISK_WRITE_ZEROES, at + done, NULL, n);
        else
            rc = disk_do_now(r->disk, DISK_WRITE, at + done, r->before + done, n);
    }
    return rc;
}

static int copy(struct rebase *r, struct error **err)
{
    uint64_t size = r->disk->size;
    struct disk_extent e;

    for (uint64_t at = 0, len; at < size; at += len) {
        if (r->job->cancel && *r->job->cancel)
            return error_set(err, EINTR, "interrupted: it is based on what it was before");
        len = size - at < CHUNK ? size - at : CHUNK;
        int rc = r->disk->format->extent(r->disk, at, size - at, &e);
        if (rc)
            return error_set_errno(err, -rc, "reading its tables");
        if (e.allocated || (is_zeros(r->disk->backing, at, e.length) && is_zeros(r->base, at, e.length))) {
            len = e.length;
        } else {
            if (len > e.length)
                len = e.length;
            rc = copy_differences(r, at, len);
        }
        if (rc)
            return error_set_errno(err, -rc, "copying what the new one has not");
        if (r->job->report)
            r->job->report(r->job->opaque, (double)at / (double)size);
    }
    int rc = disk_do_now(r->disk, DISK_FLUSH, 0, NULL, 0);
    return rc ? error_set_errno(err, -rc, "writing it") : 0;
}

static int check_format(const struct disk_files *files, struct error **err)
{
    const struct disk_file *f = &files->files[0];

    if (disk_format_find(f->format)->set_backing)
        return 0;
    return error_set(err, ENOTSUP, "disk '%s': an image of the format %s can't be based on another one",
                     f->name, f->format);
}

static int change_name(struct disk *disk, const struct disk_rebase *what, struct error **err)
{
    return disk->format->set_backing(disk, what->base, what->base_format, err);
}

static int rebase_names(const char *path, const char *format, const struct disk_rebase *what,
                        struct error **err)
{
    struct disk_files *files = NULL;
    struct disk *disk = NULL;
    int rc = disk_files_open_alone(&files, path, format, false, err);

    if (rc == 0)
        rc = check_format(files, err);
    if (rc == 0 && what->opened)
        rc = what->opened(err);
    if (rc == 0)
        rc = disk_open(&disk, files, NULL, err);
    if (rc == 0) {
        rc = change_name(disk, what, err);
        if (rc)
            error_wrap(err, "disk '%s'", path);
    }
    disk_close(disk);
    disk_files_close(files);
    return rc;
}

static int rebase_open(struct rebase *r, const char *path, const struct disk_rebase *what, struct error **err)
{
    int rc = 0;

    r->before = disk_buffer_new(CHUNK);
    r->after = disk_buffer_new(CHUNK);
    if (!r->before || !r->after)
        rc = error_set_errno(err, ENOMEM, "copying");
    if (rc == 0)
        rc = copy(r, err);
    if (rc == 0)
        rc = change_name(r->disk, what, err);
    free(r->before);
    free(r->after);
    return rc ? error_wrap(err, "disk '%s'", path) : 0;
}

int disk_rebase(const char *path, const char *format, const struct disk_rebase *what,
                const struct disk_job *job, struct error **err)
{
    struct disk_files *files = NULL, *base = NULL;
    struct rebase r = {.job = job};
    struct loop *loop = NULL;

    if (what->names_only)
        return rebase_names(path, format, what, err);
    cleanup_free char *name = what->base ? disk_name_beside(path, what->base) : NULL;
    if (what->base && !name)
        return error_set_errno(err, ENOMEM, "disk '%s'", path);
    int rc = loop_create(&loop, err);
    if (rc == 0)
        rc = disk_files_open_to_write(&files, path, format, what->follow, err);
    if (rc == 0)
        rc = check_format(files, err);
    if (rc == 0 && name) {
        rc = disk_files_open(&base, name, what->base_format, true, err);
        if (rc)
            error_wrap(err, "what disk '%s' is to be based on", path);
    }
    if (rc == 0 && what->secret_file)
        rc = disk_files_read_secret(files, what->secret_file, err);
    if (rc == 0 && base && what->secret_file)
        rc = disk_files_read_secret(base, what->secret_file, err);
    if (rc == 0 && what->opened)
        rc = what->opened(err);
    if (rc == 0)
        rc = disk_open(&r.disk, files, loop, err);
    if (rc == 0 && base)
        rc = disk_open(&r.base, base, NULL, err);
    if (rc == 0)
        rc = rebase_open(&r, path, what, err);
    disk_close(r.base);
    int end = disk_close(r.disk);
    if (rc == 0 && end)
        rc = error_set_errno(err, -end, "disk '%s': writing it", path);
    disk_files_close(base);
    disk_files_close(files);
    loop_free(loop);
    return rc;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying what an image has into what it is based on, which may be several files further: each file between
 * is opened alone, so that it tells what it has itself. One thread; no locks.
 */
#include "disk/maintain.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "disk/disk_priv.h"
#include "host/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define LAYERS_MAX 256u

struct layer {
    struct disk_files *files;
    struct disk *disk;
};

struct commit {
    struct layer layers[LAYERS_MAX]; /* the image first */
    unsigned n;
    struct layer base;
    struct loop *loop;
    uint8_t *buf;
    const char *secret_file;
    const struct disk_job *job;
};

/* ---- opening ---- */

static bool is_same_file(const char *a, const char *b)
{
    struct stat x, y;

    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int read_secret(const struct commit *c, struct disk_files *files, struct error **err)
{
    return c->secret_file ? disk_files_read_secret(files, c->secret_file, err) : 0;
}

static int open_layer(struct commit *c, const char *path, const char *format, bool read_only,
                      struct error **err)
{
    struct layer *l = &c->layers[c->n];

    if (c->n == LAYERS_MAX)
        return error_set(err, ELOOP, "there are more than %u images above that one, or it is none of them",
                         LAYERS_MAX);
    int rc = disk_files_open_alone(&l->files, path, format, read_only, err);
    if (rc)
        return rc;
    c->n++;
    return read_secret(c, l->files, err);
}

/* What the last layer is based on: its path and format, to be freed. */
static int look_behind(const struct commit *c, char **path, char **format, struct error **err)
{
    const struct disk_file *file = &c->layers[c->n - 1].files->files[0];
    const struct disk_format *f = disk_format_find(file->format);
    const char *own = file->name;
    cleanup_free char *name = NULL;
    int rc = f->backing ? f->backing(file->fd, &name, format, err) : 0;

    if (rc == 0 && !name)
        rc = error_set(err, EINVAL,
                       c->n == 1 ? "is based on nothing" : "is where the chain ends: that one is not in it");
    if (rc)
        return error_wrap(err, "disk '%s'", own);
    *path = disk_name_beside(own, name);
    return *path ? 0 : error_set_errno(err, ENOMEM, "disk '%s'", own);
}

static int open_files(struct commit *c, const char *path, const char *format, const struct disk_commit *what,
                      struct error **err)
{
    int rc = open_layer(c, path, format, what->keep, err);
    const struct disk_format *first = rc ? NULL : disk_format_find(c->layers[0].files->files[0].format);

    while (rc == 0) {
        cleanup_free char *name = NULL, *its_format = NULL;
        rc = look_behind(c, &name, &its_format, err);
        if (rc == 0 && !what->follow)
            rc = error_set(
                err, EPERM,
                "disk '%s' is based on the file '%s': if it is from somebody you trust, let that be "
                "written with --follow",
                path, name);
        /* A base that was written is another one for such an image. */
        if (rc == 0 && !what->keep && !first->empty)
            rc = error_set(
                err, ENOTSUP,
                "disk '%s': of the format %s an image can't be emptied: with -d it is committed, and "
                "of no use afterwards",
                path, first->name);
        if (rc)
            return rc;
        if (what->base && !is_same_file(what->base, name)) {
            rc = open_layer(c, name, its_format, true, err);
            continue;
        }
        rc = disk_files_open(&c->base.files, name, its_format, false, err);
        return rc ? rc : read_secret(c, c->base.files, err);
    }
    return rc;
}

static int open_disks(struct commit *c, struct error **err)
{
    int rc = disk_open(&c->base.disk, c->base.files, c->loop, err);

    for (unsigned i = 0; i < c->n && rc == 0; i++)
        rc = disk_open(&c->layers[i].disk, c->layers[i].files, NULL, err);
    return rc;
}

/* ---- copying ---- */

/* What the uppermost layer says that has anything to say of `at`, and for how far. False: none has. */
static int find(struct commit *c, uint64_t at, uint64_t length, struct disk_extent *out, bool *found)
{
    for (unsigned i = 0; i < c->n; i++) {
        struct disk *disk = c->layers[i].disk;
        /* Behind the end of one that is shorter nothing else is seen. */
        if (at >= disk->size) {
            *out = (struct disk_extent){.kind = DISK_EXTENT_ZEROS, .disk = disk, .length = length};
            *found = true;
            return 0;
        }
        if (length > disk->size - at)
            length = disk->size - at;
        int rc = disk->format->extent(disk, at, length, out);
        if (rc)
            return rc;
        if (length > out->length)
            length = out->length;
        *found = out->allocated;
        if (*found)
            return 0;
    }
    out->length = length;
    return 0;
}

static int copy(struct commit *c, struct error **err)
{
    uint64_t size = c->layers[0].disk->size;
    struct disk_extent e;

    for (uint64_t at = 0; at < size; at += e.length) {
        bool found = false;
        if (c->job->cancel && *c->job->cancel)
            return error_set(err, EINTR,
                             "interrupted: the image has all that it had, and can be committed again");
        int rc = find(c, at, size - at, &e, &found);
        if (rc == 0 && found)
            rc = disk_copy_now(c->base.disk, at, &e, c->buf);
        if (rc == -EACCES)
            return error_set(err, EACCES,
                             "it is encrypted: give the file that has its secret (--secret-file FILE)");
        if (rc)
            return error_set_errno(err, -rc, "copying");
        if (c->job->report)
            c->job->report(c->job->opaque, (double)at / (double)size);
    }
    int rc = disk_do_now(c->base.disk, DISK_FLUSH, 0, NULL, 0);
    return rc ? error_set_errno(err, -rc, "writing what it is based on") : 0;
}

static int commit(struct commit *c, const char *path, const struct disk_commit *what, struct error **err)
{
    struct disk *top = c->layers[0].disk;
    int rc = 0;

    c->buf = disk_buffer_new(DISK_COPY_PIECE);
    if (!c->buf)
        return error_set_errno(err, ENOMEM, "copying");
    if (top->size > c->base.disk->size)
        rc = disk_resize(c->base.disk, top->size, err);
    if (rc == 0)
        rc = copy(c, err);
    if (rc)
        return error_wrap(err, "disk '%s'", path);
    return !what->keep && c->n == 1 ? disk_empty(top, err) : 0;
}

int disk_commit(const char *path, const char *format, const struct disk_commit *what,
                const struct disk_job *job, struct error **err)
{
    struct commit *c = calloc(1, sizeof(*c));

    if (!c)
        return error_set_errno(err, ENOMEM, "disk '%s'", path);
    c->job = job;
    c->secret_file = what->secret_file;
    int rc = loop_create(&c->loop, err);
    if (rc == 0)
        rc = open_files(c, path, format, what, err);
    if (rc == 0 && what->opened)
        rc = what->opened(err);
    if (rc == 0)
        rc = open_disks(c, err);
    if (rc == 0)
        rc = commit(c, path, what, err);
    int end = disk_close(c->base.disk);
    disk_files_close(c->base.files);
    for (unsigned i = 0; i < c->n; i++) {
        int closed = disk_close(c->layers[i].disk);
        end = end ? end : closed;
        disk_files_close(c->layers[i].files);
    }
    if (rc == 0 && end)
        rc = error_set_errno(err, -end, "disk '%s': writing it", path);
    loop_free(c->loop);
    free(c->buf);
    free(c);
    return rc;
}

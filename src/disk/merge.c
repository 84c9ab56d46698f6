/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Merging an image into the one that it is based on. Whatever moment this ends at, the image shows what it
 * showed before: where it has something of its own it hides what is behind, and only there that is written.
 * Called by what takes snapshots away. No locks: nobody else may write either of the two.
 */
#include "base/error.h"
#include "disk/disk_priv.h"
#include "disk/maintain.h"
#include "host/loop.h"

#include <errno.h>
#include <stdlib.h>

struct merge {
    struct disk_files *from_files, *to_files;
    struct disk *from, *to;
    struct loop *loop;
    uint8_t *buf;
};

static int copy_all(struct merge *m, const struct disk_job *job)
{
    uint64_t size = m->from->size;
    struct disk_extent e;

    for (uint64_t at = 0; at < size; at += e.length) {
        if (job && job->cancel && *job->cancel)
            return -EINTR;
        int rc = m->from->format->extent(m->from, at, size - at, &e);
        if (rc)
            return rc;
        if (e.length > size - at)
            e.length = size - at;
        rc = e.allocated ? disk_copy_now(m->to, at, &e, m->buf) : 0;
        if (rc)
            return rc;
        if (job && job->report)
            job->report(job->opaque, (double)at / (double)size);
    }
    return disk_do_now(m->to, DISK_FLUSH, 0, NULL, 0);
}

static int open_both(struct merge *m, const char *from, const char *to, const char *to_format,
                     struct error **err)
{
    int rc = disk_files_open_unlocked(&m->from_files, from, "qcow2", true, err);

    if (rc == 0)
        rc = disk_files_open_unlocked(&m->to_files, to, to_format, false, err);
    if (rc == 0)
        rc = loop_create(&m->loop, err);
    if (rc == 0)
        rc = disk_open(&m->from, m->from_files, m->loop, err);
    if (rc == 0)
        rc = disk_open(&m->to, m->to_files, m->loop, err);
    /* What the image shows of it is the same before and after. */
    if (rc == 0 && m->from->size != m->to->size)
        rc = disk_resize(m->to, m->from->size, err);
    m->buf = disk_buffer_new(DISK_COPY_PIECE);
    return rc == 0 && !m->buf ? error_set_errno(err, ENOMEM, "disk '%s'", from) : rc;
}

int disk_merge(const char *from, const char *to, const char *to_format, const struct disk_job *job,
               struct error **err)
{
    struct merge m = {0};
    int rc = open_both(&m, from, to, to_format, err);

    if (rc == 0) {
        rc = copy_all(&m, job);
        if (rc)
            error_set_errno(err, -rc, "merging disk '%s' into '%s'", from, to);
    }
    int closed = disk_close(m.to);
    if (rc == 0 && closed)
        rc = error_set_errno(err, -closed, "disk '%s'", to);
    disk_close(m.from);
    disk_files_close(m.from_files);
    disk_files_close(m.to_files);
    loop_free(m.loop);
    free(m.buf);
    return rc;
}

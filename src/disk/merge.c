/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Merging an image into the one that it is based on. Whatever moment this ends at, the image shows what it
 * showed before: where it has something of its own it hides what is behind, and only there that is written.
 * Called by what takes snapshots away. No locks: nobody else may write either of the two.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/disk_priv.h"
#include "disk/maintain.h"
#include "host/loop.h"

#include <errno.h>
#include <stdlib.h>

#define PIECE (2u << 20) /* no cluster is larger */

struct merge {
    struct disk_files *from_files, *to_files;
    struct disk *from, *to;
    struct loop *loop;
    uint8_t *buf;
    struct disk_request request;
};

static void on_done(struct disk_request *request, int result)
{
    struct merge *m = container_of(request, struct merge, request);

    loop_stop(m->loop, result);
}

static int do_request(struct merge *m, struct disk_request request)
{
    m->request = request;
    m->request.done = on_done;
    disk_submit(m->to, &m->request);
    disk_start(m->to);
    return loop_run(m->loop);
}

/* Writes up to a piece of what is in the extent, from its beginning on: *length is how much. */
static int copy(struct merge *m, uint64_t at, const struct disk_extent *e, uint64_t *length)
{
    if (e->kind == DISK_EXTENT_ZEROS)
        return do_request(m, (struct disk_request){
                                 .kind = DISK_WRITE_ZEROES, .unmap = true, .offset = at, .length = *length});
    if (*length > PIECE)
        *length = PIECE;
    int rc = disk_extent_read(e, m->buf, *length);
    const struct iovec iov = {.iov_base = m->buf, .iov_len = *length};
    return rc ? rc
              : do_request(m,
                           (struct disk_request){
                               .kind = DISK_WRITE, .offset = at, .length = *length, .iov = &iov, .n_iov = 1});
}

static int copy_all(struct merge *m, const struct disk_job *job)
{
    uint64_t size = m->from->size;
    int rc = 0;

    for (uint64_t at = 0; at < size && rc == 0;) {
        struct disk_extent e;

        if (job && job->cancel && *job->cancel)
            return -EINTR;
        rc = m->from->format->extent(m->from, at, size - at, &e);
        uint64_t length = e.length < size - at ? e.length : size - at;
        if (rc == 0 && e.allocated)
            rc = copy(m, at, &e, &length);
        at += length;
        if (rc == 0 && job && job->report)
            job->report(job->opaque, (double)at / (double)size);
    }
    return rc ? rc : do_request(m, (struct disk_request){.kind = DISK_FLUSH});
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
    m->buf = malloc(PIECE);
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

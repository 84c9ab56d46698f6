/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying a disk's content into a new image. Several threads each take the next piece of the disk, read it,
 * and write it (convert_write.c); so reads, processors and writes are busy at the same time. Only finding out
 * where a piece is, in either image, is done by one at a time, under the lock of `struct convert`.
 */
#include "disk/convert_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/new_file.h"
#include "disk/pack.h"
#include "host/thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK (1u << 20)
/* Where units are compressed, two for each processor: one of them reads or writes while the other computes.
 * Where all is copied, one reads while the other writes: the kernel lets one at a time write to a file. */
#define THREADS_COPY 2u
#define THREADS_MIN  4u
#define THREADS_MAX  16u

static bool ended(const struct convert *c)
{
    return c->result || (c->job->cancel && *c->job->cancel);
}

static int fail(struct convert *c, int rc, const char *doing)
{
    pthread_mutex_lock(&c->lock);
    if (!c->result) {
        c->result = rc;
        c->doing = doing;
    }
    pthread_cond_broadcast(&c->placed);
    pthread_mutex_unlock(&c->lock);
    return rc;
}

/* ---- taking a piece ---- */

/* Jumps over zeros, by whole units. */
static int skip_zeros(struct convert *c)
{
    struct disk_extent e;

    while (!c->build.every && c->at < c->source->size && !ended(c)) {
        int rc = disk_extent(c->source, c->at, c->source->size - c->at, &e);
        if (rc)
            return rc;
        uint64_t end = c->at + e.length;
        if (end < c->source->size)
            end = ALIGN_DOWN(end, (uint64_t)c->build.unit);
        if (e.kind != DISK_EXTENT_ZEROS || end <= c->at)
            return 0;
        c->at = end;
    }
    return 0;
}

static int take_extents(struct convert *c, struct convert_worker *w)
{
    uint64_t left = c->source->size - c->at;

    w->at = c->at;
    w->length = (uint32_t)(left < c->chunk ? left : c->chunk - c->at % c->chunk);
    if (w->length > left)
        w->length = (uint32_t)left;
    w->n = 0;
    for (uint32_t done = 0; done < w->length;) {
        struct disk_extent *e = &w->extents[w->n++];
        int rc = disk_extent(c->source, w->at + done, w->length - done, e);
        if (rc)
            return rc;
        done += (uint32_t)e->length;
    }
    c->at += w->length;
    w->number = c->next++;
    return 0;
}

/* False when nothing is left to do. */
static bool take(struct convert *c, struct convert_worker *w)
{
    LOCK_SCOPE(&c->lock);
    int rc = ended(c) ? 0 : skip_zeros(c);

    if (rc == 0 && (ended(c) || c->at == c->source->size))
        return false;
    if (rc == 0)
        rc = take_extents(c, w);
    if (rc) {
        c->result = rc;
        c->doing = "reading";
        pthread_cond_broadcast(&c->placed);
        return false;
    }
    if (c->job->report)
        c->job->report(c->job->opaque, (double)w->at / (double)c->source->size);
    return true;
}

static int read_piece(struct convert_worker *w)
{
    uint32_t at = 0;

    for (unsigned i = 0; i < w->n; i++) {
        int rc = disk_extent_read(&w->extents[i], w->buf + at, w->extents[i].length);
        if (rc)
            return rc;
        at += (uint32_t)w->extents[i].length;
    }
    return 0;
}

static void work(struct convert_worker *w)
{
    int rc;

    while (take(w->c, w)) {
        rc = read_piece(w);
        if (rc) {
            fail(w->c, rc, "reading");
            return;
        }
        rc = convert_write(w);
        if (rc) {
            fail(w->c, rc, "writing");
            return;
        }
    }
}

static void *thread_main(void *opaque)
{
    work(opaque);
    return NULL;
}

/* ---- all of it ---- */

static void worker_free(struct convert_worker *w)
{
    free(w->buf);
    free(w->packed);
    free(w->units);
    free(w->extents);
    disk_packer_free(w->packer);
}

static int worker_init(struct convert_worker *w, struct convert *c)
{
    *w = (struct convert_worker){.c = c,
                                 .buf = disk_buffer_new(c->chunk),
                                 .packed = disk_buffer_new(c->chunk / c->build.unit * c->build.pack_max + 1),
                                 .units = calloc(c->chunk / c->build.unit, sizeof(*w->units)),
                                 .packer = disk_packer_new(),
                                 .extents = calloc(c->chunk / DISK_SECTOR, sizeof(*w->extents))};
    return w->buf && w->packed && w->units && w->packer && w->extents ? 0 : -ENOMEM;
}

static void run(struct convert *c)
{
    struct convert_worker workers[THREADS_MAX];
    pthread_t threads[THREADS_MAX];
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned wanted = cpus < 1 ? THREADS_MIN : cpus > (long)THREADS_MAX ? THREADS_MAX : 2 * (unsigned)cpus;
    unsigned n = 0, started = 0;

    if (wanted < THREADS_MIN)
        wanted = THREADS_MIN;
    if (wanted > THREADS_MAX)
        wanted = THREADS_MAX;
    if (!c->build.pack_max)
        wanted = THREADS_COPY;
    while (n < wanted && worker_init(&workers[n], c) == 0)
        n++;
    if (n < wanted)
        worker_free(&workers[n]);
    if (!n) {
        fail(c, -ENOMEM, "reading");
        return;
    }
    /* The first is this thread. Fewer than wanted are slower, and that is all. */
    while (started + 1 < n && thread_start(&threads[started], thread_main, &workers[started + 1]) == 0)
        started++;
    work(&workers[0]);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < n; i++)
        worker_free(&workers[i]);
}

static int copy(struct convert *c, const struct disk_create *what, const char *path, struct error **err)
{
    run(c);
    bool cancelled = c->job->cancel && *c->job->cancel;
    bool ok = !c->result && !cancelled;
    int rc = disk_build_end(&c->build, ok, err);

    if (cancelled)
        return error_set(err, EINTR, "interrupted: nothing has changed");
    if (c->result && strcmp(c->doing, "reading") == 0)
        return error_set_errno(err, -c->result, "disk '%s': reading it", c->source->files->files[0].name);
    if (c->result)
        return error_set_errno(err, -c->result, "disk '%s': writing it", path);
    return rc ? error_wrap(err, "disk '%s'", path) : 0;
}

int disk_convert(struct disk_files *source, const char *path, const struct disk_convert *what,
                 const struct disk_job *job, struct error **err)
{
    struct convert c = {.lock = PTHREAD_MUTEX_INITIALIZER,
                        .placed = PTHREAD_COND_INITIALIZER,
                        .sync = !what->no_sync,
                        .reserves = true,
                        .job = job};
    struct disk_create target = what->target;
    struct disk_new_file file;
    int rc = disk_open(&c.source, source, NULL, err);

    if (rc)
        return rc;
    rc = disk_new_file_open(&file, path, err);
    if (rc == 0) {
        target.size = c.source->size;
        rc = disk_build_begin(&c.build, file.fd, path, &target, err);
        if (rc) {
            error_wrap(err, "disk '%s'", path);
        } else {
            c.chunk = c.build.unit > CHUNK ? c.build.unit : CHUNK;
            rc = copy(&c, &target, path, err);
        }
        int end = disk_new_file_end(&file, rc == 0, !what->no_sync, rc ? NULL : err);
        rc = rc ? rc : end;
    }
    disk_close(c.source);
    return rc;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying a disk's content into a new image. Several threads each take the next piece of the disk, read it,
 * look for what is zeros, compress it if that is wanted, are told where it goes, and write it there; so
 * reads, processors and writes are busy at the same time. Only finding out where a piece is, in either image,
 * is done by one at a time, under the lock of `struct convert`.
 */
#include "disk/job.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/disk_priv.h"
#include "disk/new_file.h"
#include "disk/pack.h"
#include "host/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK (1u << 20)
/* Where units are compressed, two for each processor: one of them reads or writes while the other computes.
 * Where all is copied, one reads while the other writes: the kernel lets one at a time write to a file. */
#define THREADS_COPY 2u
#define THREADS_MIN  4u
#define THREADS_MAX  16u
/* Zeros of this length and alignment are not written, even in a unit that has others. */
#define HOLE 65536u

/* A write of at least so many bytes is worth asking for their place in one piece first: where the kernel has
 * to find that page by page, it takes half as long again. */
#define RESERVE_MIN (128u << 10)

struct convert {
    pthread_mutex_t lock;
    pthread_mutex_t
        writing;   /* held by the one that writes, as to wait for it here is cheaper than in the kernel */
    bool reserves; /* the file system can */
    struct disk *source;
    struct disk_build build;
    const struct disk_job *job;
    uint32_t chunk;
    uint64_t at;         /* of the disk: from here on nobody has begun */
    uint64_t next, turn; /* pieces that were taken; the first that is not placed yet */
    pthread_cond_t placed;
    int result;
    const char *doing; /* when that happened */
};

struct worker {
    struct convert *c;
    uint8_t *buf, *packed;
    struct disk_packer *packer;
    uint64_t at, number; /* its piece */
    uint32_t length;
    struct unit {
        bool zeros;
        size_t packed; /* bytes; 0: it stays as it is */
        uint64_t offset;
    } * units;
    struct disk_extent *extents;
    unsigned n;
};

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

static int take_extents(struct convert *c, struct worker *w)
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
static bool take(struct convert *c, struct worker *w)
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

/* ---- copying it ---- */

static int read_piece(struct worker *w)
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

static int write_at(struct convert *c, const uint8_t *p, uint64_t len, uint64_t offset)
{
    int fd = disk_build_file(&c->build, &offset);
    LOCK_SCOPE(&c->writing);

    if (len >= RESERVE_MIN && c->reserves)
        c->reserves = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len) == 0;
    return disk_write_at(fd, p, len, offset);
}

/* The file is new: what is not written reads as zeros. */
static int write_run(struct convert *c, uint8_t *p, uint64_t len, uint64_t offset)
{
    const struct disk_build *b = &c->build;
    int rc = b->format->build->seal ? b->format->build->seal(b, p, len, offset) : 0;

    if (rc)
        return rc;
    if (b->unit <= HOLE || b->format->build->seal)
        return write_at(c, p, len, offset);
    for (uint64_t done = 0; done < len; done += HOLE) {
        uint64_t n = len - done < HOLE ? len - done : HOLE;
        rc = disk_is_zero(p + done, n) ? 0 : write_at(c, p + done, n, offset + done);
        if (rc)
            return rc;
    }
    return 0;
}

/* Looks for zeros, and compresses the rest. */
static void pack_piece(struct worker *w, unsigned n)
{
    const struct disk_build *b = &w->c->build;

    for (unsigned i = 0; i < n; i++) {
        const uint8_t *unit = w->buf + (size_t)i * b->unit;
        w->units[i] = (struct unit){.zeros = !b->every && disk_is_zero(unit, b->unit)};
        if (!w->units[i].zeros && b->pack_max)
            w->units[i].packed =
                b->format->build->pack(b, w->packer, w->at / b->unit + i, unit, w->packed + i * b->pack_max);
    }
}

static uint32_t length_of(const struct worker *w, unsigned i)
{
    const struct disk_build *b = &w->c->build;
    uint32_t at = i * b->unit;

    if (w->units[i].packed)
        return (uint32_t)w->units[i].packed;
    return b->whole || at + b->unit <= w->length ? b->unit : w->length - at;
}

static int place_piece(struct worker *w, unsigned n)
{
    struct convert *c = w->c;
    int rc = 0;
    LOCK_SCOPE(&c->lock);

    /* Each piece that was taken is placed, unless something has failed. */
    while (c->build.ordered && c->turn != w->number && !c->result)
        pthread_cond_wait(&c->placed, &c->lock);
    if (c->result)
        return c->result;
    for (unsigned i = 0; i < n && rc == 0; i++)
        if (!w->units[i].zeros)
            rc = c->build.format->build->place(&c->build, w->at / c->build.unit + i, length_of(w, i),
                                               w->units[i].packed, &w->units[i].offset);
    c->turn++;
    pthread_cond_broadcast(&c->placed);
    return rc;
}

/* Writes the piece, unit by unit; those that come to lie in a row, at once. */
static int write_piece(struct worker *w)
{
    struct convert *c = w->c;
    uint32_t unit = c->build.unit, filled = ALIGN_UP(w->length, unit), run_at = 0, run = 0;
    uint64_t run_offset = 0;
    unsigned n = filled / unit;

    memset(w->buf + w->length, 0, filled - w->length);
    pack_piece(w, n);
    int rc = place_piece(w, n);
    for (unsigned i = 0; rc == 0 && i < n; i++) {
        const struct unit *u = &w->units[i];
        if (u->zeros)
            continue;
        if (u->packed) {
            rc = write_at(c, w->packed + i * c->build.pack_max, u->packed, u->offset);
            continue;
        }
        if (run && (run_at + run != i * unit || run_offset + run != u->offset)) {
            rc = write_run(c, w->buf + run_at, run, run_offset);
            run = 0;
        }
        if (!run) {
            run_at = i * unit;
            run_offset = u->offset;
        }
        run += length_of(w, i);
    }
    return rc || !run ? rc : write_run(c, w->buf + run_at, run, run_offset);
}

static void work(struct worker *w)
{
    int rc;

    while (take(w->c, w)) {
        rc = read_piece(w);
        if (rc) {
            fail(w->c, rc, "reading");
            return;
        }
        rc = write_piece(w);
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

static void worker_free(struct worker *w)
{
    free(w->buf);
    free(w->packed);
    free(w->units);
    free(w->extents);
    disk_packer_free(w->packer);
}

static int worker_init(struct worker *w, struct convert *c)
{
    *w = (struct worker){.c = c,
                         .buf = malloc(c->chunk),
                         .packed = malloc(c->chunk / c->build.unit * c->build.pack_max + 1),
                         .units = calloc(c->chunk / c->build.unit, sizeof(*w->units)),
                         .packer = disk_packer_new(),
                         .extents = calloc(c->chunk / DISK_SECTOR, sizeof(*w->extents))};
    return w->buf && w->packed && w->units && w->packer && w->extents ? 0 : -ENOMEM;
}

static void run(struct convert *c)
{
    struct worker workers[THREADS_MAX];
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
                        .writing = PTHREAD_MUTEX_INITIALIZER,
                        .reserves = true,
                        .placed = PTHREAD_COND_INITIALIZER,
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

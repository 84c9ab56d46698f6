/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying a disk's content into a new image. Several threads each take the next piece of the disk, read it,
 * and find a place for it (convert_write.c), one after the other under the lock of `struct convert`. One of
 * them at a time writes what is ready, for the kernel lets no more write to a file; the others go on reading
 * as long as there are pieces. So nobody waits for another at each piece, which takes longer than the piece
 * where processors are scarce: with one thread alone running, all goes on.
 */
#include "disk/convert_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/luks.h"
#include "disk/namer.h"
#include "disk/new_file.h"
#include "disk/pack.h"
#include "host/thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK (1u << 20)
/* Where units are compressed, two for each processor: one of them reads or writes while the other computes.
 * Where all is copied, one reads while the other writes. */
#define THREADS_COPY 2u
#define THREADS_MIN  4u
#define THREADS_MAX  16u
/* So many a thread: what is read while another writes, or waits to be written. */
#define PIECES 3u

static bool ended(const struct convert *c)
{
    return c->result || (c->job->cancel && *c->job->cancel);
}

/* Under the lock. */
static void fail(struct convert *c, int rc, const char *doing)
{
    if (!c->result) {
        c->result = rc;
        c->doing = doing;
    }
    pthread_cond_broadcast(&c->placed);
    pthread_cond_broadcast(&c->spared);
}

/* ---- taking a piece ---- */

/* What is at `at`, looking no further than `length` bytes. What the source says of more is kept: it may have
 * to ask the kernel. */
static int look(struct convert *c, uint64_t at, uint64_t length, struct disk_extent *out)
{
    uint64_t skip = at - c->known_at;

    if (at < c->known_at || skip >= c->known.length || c->known.kind == DISK_EXTENT_PACKED) {
        c->known.length = 0;
        int rc = disk_extent(c->source, at, c->source->size - at, &c->known);
        if (rc)
            return rc;
        c->known_at = at;
        skip = 0;
    }
    *out = c->known;
    out->length -= skip;
    if (out->kind == DISK_EXTENT_DATA)
        out->offset += skip;
    if (out->length > length)
        out->length = length;
    return 0;
}

/* Jumps over zeros, by whole units. */
static int skip_zeros(struct convert *c)
{
    struct disk_extent e;

    while (!c->build.every && c->at < c->source->size && !ended(c)) {
        int rc = look(c, c->at, c->source->size - c->at, &e);
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

static int take_extents(struct convert *c, struct convert_piece *p)
{
    uint64_t left = c->source->size - c->at;

    p->at = c->at;
    p->length = (uint32_t)(left < c->chunk ? left : c->chunk - c->at % c->chunk);
    if (p->length > left)
        p->length = (uint32_t)left;
    p->n = 0;
    for (uint32_t done = 0; done < p->length;) {
        struct disk_extent *e = &p->extents[p->n++];
        int rc = look(c, p->at + done, p->length - done, e);
        if (rc)
            return rc;
        done += (uint32_t)e->length;
    }
    c->at += p->length;
    p->number = c->next++;
    return 0;
}

/* Under the lock. NULL when nothing is left to take. */
static struct convert_piece *take(struct convert *c)
{
    struct convert_piece *p = c->spare;
    int rc = skip_zeros(c);

    if (rc == 0 && (ended(c) || c->at == c->source->size))
        return NULL;
    if (rc == 0)
        rc = take_extents(c, p);
    if (rc) {
        fail(c, rc, "reading");
        return NULL;
    }
    c->spare = p->next;
    c->n_spare--;
    if (c->job->report)
        c->job->report(c->job->opaque, (double)p->at / (double)c->source->size);
    return p;
}

static int read_piece(const struct convert_piece *p)
{
    uint32_t at = 0;

    for (unsigned i = 0; i < p->n; i++) {
        int rc = disk_extent_read(&p->extents[i], p->buf + at, p->extents[i].length);
        if (rc)
            return rc;
        at += (uint32_t)p->extents[i].length;
    }
    return 0;
}

/* ---- what each thread does ---- */

/* With the lock, as it is left; without it meanwhile. */
static void fill_piece(struct convert *c, struct disk_packer *packer)
{
    struct convert_piece *p = take(c);

    if (!p)
        return;
    pthread_mutex_unlock(&c->lock);
    int read = read_piece(p), rc = read ? read : convert_place(c, p, packer);
    pthread_mutex_lock(&c->lock);
    if (rc) {
        fail(c, rc, read ? "reading" : "writing");
        return;
    }
    p->next = NULL;
    *c->full_tail = p;
    c->full_tail = &p->next;
}

static void add_spare(struct convert *c, struct convert_piece *p)
{
    p->next = c->spare;
    c->spare = p;
    c->n_spare++;
}

/* The same: writes all that is ready, also what becomes so meanwhile. */
static void write_pieces(struct convert *c)
{
    c->writing = true;
    while (c->full && !ended(c)) {
        struct convert_piece *p = c->full;
        c->full = p->next;
        if (!c->full)
            c->full_tail = &c->full;
        pthread_mutex_unlock(&c->lock);
        int rc = convert_write(c, p);
        pthread_mutex_lock(&c->lock);
        if (rc)
            fail(c, rc, "writing");
        add_spare(c, p);
        /* Those who wait are worth waking for a few at once. */
        if (c->n_spare == c->n_pieces / 2)
            pthread_cond_broadcast(&c->spared);
    }
    c->writing = false;
    pthread_cond_broadcast(&c->spared);
}

static void *work(void *opaque)
{
    struct convert *c = opaque;
    struct disk_packer *packer = disk_packer_new();
    LOCK_SCOPE(&c->lock);

    if (!packer)
        fail(c, -ENOMEM, "reading");
    while (!ended(c)) {
        if (c->full && !c->writing)
            write_pieces(c);
        else if (c->at == c->source->size)
            break; /* who still reads or writes does the rest */
        else if (c->spare)
            fill_piece(c, packer);
        else
            pthread_cond_wait(&c->spared, &c->lock);
    }
    disk_packer_free(packer);
    return NULL;
}

/* ---- all of it ---- */

static void piece_free(struct convert_piece *p)
{
    free(p->buf);
    free(p->packed);
    free(p->units);
    free(p->extents);
}

static int piece_init(struct convert_piece *p, const struct convert *c)
{
    unsigned n = c->chunk / c->build.unit;

    *p = (struct convert_piece){.buf = disk_buffer_new(c->chunk),
                                .packed = disk_buffer_new(n * c->build.pack_max + 1),
                                .units = calloc(n, sizeof(*p->units)),
                                .extents = calloc(c->chunk / DISK_SECTOR, sizeof(*p->extents))};
    return p->buf && p->packed && p->units && p->extents ? 0 : -ENOMEM;
}

static unsigned threads_wanted(const struct convert *c)
{
    long cpus = c->cpus;
    unsigned wanted = cpus < 1 ? THREADS_MIN : cpus > (long)THREADS_MAX ? THREADS_MAX : 2 * (unsigned)cpus;

    if (!c->build.pack_max)
        return THREADS_COPY;
    return wanted < THREADS_MIN ? THREADS_MIN : wanted > THREADS_MAX ? THREADS_MAX : wanted;
}

static void run(struct convert *c)
{
    struct convert_piece pieces[PIECES * THREADS_MAX];
    pthread_t threads[THREADS_MAX];
    unsigned wanted = threads_wanted(c), n = 0, started = 0;

    c->full_tail = &c->full;
    while (n < PIECES * wanted && piece_init(&pieces[n], c) == 0)
        add_spare(c, &pieces[n++]);
    c->n_pieces = n;
    if (n < PIECES * wanted)
        piece_free(&pieces[n]);
    if (!n)
        fail(c, -ENOMEM, "reading");
    /* The first is this thread. Fewer than wanted are slower, and that is all; each can have a piece. */
    while (started + 1 < wanted && started + 1 < n && thread_start(&threads[started], work, c) == 0)
        started++;
    work(c);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < n; i++)
        piece_free(&pieces[i]);
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

/* All that takes more rights than reading and writing what is open is done by now, or by another process. */
static int give_up(struct disk_new_file *file, const char *path, const struct disk_convert *what,
                   struct disk_namer **namer, struct disk_secret **secret, struct error **err)
{
    const struct disk_format *format = disk_format_find(what->target.format);
    bool encrypts = format && format->build && format->build->encrypts && what->target.key_file;
    int rc = encrypts ? disk_secret_read(secret, what->target.key_file, err) : 0;

    if (rc == 0)
        rc = disk_namer_start(namer, file, path, what->target.data_file, err);
    return rc ? rc : what->opened(err);
}

int disk_convert(struct disk_files *source, const char *path, const struct disk_convert *what,
                 const struct disk_job *job, struct error **err)
{
    struct convert c = {.lock = PTHREAD_MUTEX_INITIALIZER,
                        .placed = PTHREAD_COND_INITIALIZER,
                        .spared = PTHREAD_COND_INITIALIZER,
                        .sync = !what->no_sync,
                        .reserves = true,
                        .cpus = sysconf(_SC_NPROCESSORS_ONLN),
                        .job = job};
    struct disk_create target = what->target;
    struct disk_namer *namer = NULL;
    struct disk_secret *secret = NULL;
    struct disk_new_file file;
    int rc = disk_new_file_open(&file, path, err);

    if (rc)
        return rc;
    if (what->opened)
        rc = give_up(&file, path, what, &namer, &secret, err);
    target.secret = secret;
    if (rc == 0)
        rc = disk_open(&c.source, source, NULL, err);
    if (rc == 0) {
        target.size = c.source->size;
        rc = disk_build_begin(&c.build, file.fd, path, &target, namer, err);
        if (rc) {
            error_wrap(err, "disk '%s'", path);
        } else {
            c.chunk = c.build.unit > CHUNK ? c.build.unit : CHUNK;
            rc = copy(&c, &target, path, err);
        }
    }
    int end = disk_new_file_end(&file, rc == 0, !what->no_sync, rc ? NULL : err);
    disk_namer_end(namer);
    disk_secret_free(secret);
    disk_close(c.source);
    return rc ? rc : end;
}

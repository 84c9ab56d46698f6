/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VMDK in several files: a descriptor, and extents beside it, each sparse (a file of vmdk.c) or flat (raw).
 * Each is an open disk of its own; a request is cut where one ends and the next begins. The disk's thread; no
 * locks.
 */
#include "disk/vmdk_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A part of a request, for one of the extents. */
struct child {
    struct disk_request request, *whole;
    struct iovec iov[];
};

struct vmdk_set *vmdk_set_of(const struct disk *disk)
{
    return (struct vmdk_set *)(uintptr_t)container_of(disk, struct vmdk_set, disk);
}

static const struct vmdk_piece *piece_at(const struct vmdk_set *s, uint64_t at)
{
    unsigned low = 0, high = s->n;

    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2;
        if (s->pieces[middle].start <= at)
            low = middle;
        else
            high = middle;
    }
    return &s->pieces[low];
}

static uint64_t rest_of(const struct vmdk_piece *p, uint64_t at, uint64_t length)
{
    uint64_t rest = p->start + p->length - at;

    return rest < length ? rest : length;
}

int vmdk_set_touch(struct vmdk_set *s)
{
    int rc = s->changed ? 0 : vmdk_change_id(s->disk.fd, s->id_at);

    s->changed |= rc == 0;
    return rc;
}

/* ---- requests ---- */

static void put(struct disk_request *r)
{
    disk_request_put(r, vmdk_set_of(r->disk)->submitting);
}

static void child_done(struct disk_request *request, int result)
{
    struct child *c = container_of(request, struct child, request);
    struct disk_request *r = c->whole;

    free(c);
    if (result && !r->result)
        r->result = result;
    put(r);
}

/* Hands on what of the request lies in `p`, from byte `at` of the disk on. */
static int hand_on(struct disk_request *r, const struct vmdk_piece *p, uint64_t at, uint64_t length)
{
    struct child *c = malloc(sizeof(*c) + r->n_iov * sizeof(struct iovec));

    if (!c)
        return -ENOMEM;
    c->whole = r;
    c->request = (struct disk_request){.kind = r->kind,
                                       .unmap = r->unmap,
                                       .fast = r->fast,
                                       .offset = length ? at - p->start + p->skip : 0,
                                       .length = length,
                                       .iov = c->iov,
                                       .done = child_done};
    if (r->kind == DISK_READ || r->kind == DISK_WRITE)
        c->request.n_iov = disk_iov_slice(r->iov, r->n_iov, at - r->offset, length, c->iov);
    r->pending++;
    disk_submit(p->disk, &c->request);
    return 0;
}

static int hand_on_all(struct vmdk_set *s, struct disk_request *r)
{
    uint64_t end = r->offset + r->length;
    int rc = 0;

    if (r->kind == DISK_FLUSH) {
        for (unsigned i = 0; i < s->n && rc == 0; i++)
            rc = hand_on(r, &s->pieces[i], 0, 0);
        return rc;
    }
    if (r->kind != DISK_READ)
        rc = vmdk_set_touch(s);
    for (uint64_t at = r->offset; at < end && rc == 0;) {
        const struct vmdk_piece *p = piece_at(s, at);
        uint64_t n = rest_of(p, at, end - at);
        rc = hand_on(r, p, at, n);
        at += n;
    }
    return rc;
}

static void submit(struct disk *disk, struct disk_request *r)
{
    struct vmdk_set *s = vmdk_set_of(disk);
    bool before = s->submitting;

    s->submitting = true;
    r->pending = 1;
    r->result = 0;
    int rc = hand_on_all(s, r);
    if (rc && !r->result)
        r->result = rc;
    put(r);
    s->submitting = before;
}

static int read_now(struct disk *disk, uint64_t offset, void *buf, size_t len)
{
    const struct vmdk_set *s = vmdk_set_of(disk);
    int rc = 0;

    for (uint8_t *to = buf; len && rc == 0;) {
        const struct vmdk_piece *p = piece_at(s, offset);
        size_t n = rest_of(p, offset, len);
        rc = p->disk->format->read(p->disk, offset - p->start + p->skip, to, n);
        to += n;
        offset += n;
        len -= n;
    }
    return rc;
}

static int extent(struct disk *disk, uint64_t offset, uint64_t length, struct disk_extent *out)
{
    const struct vmdk_piece *p = piece_at(vmdk_set_of(disk), offset);

    return p->disk->format->extent(p->disk, offset - p->start + p->skip, rest_of(p, offset, length), out);
}

static int close_set(struct disk *disk)
{
    struct vmdk_set *s = vmdk_set_of(disk);
    int rc = 0;

    for (unsigned i = 0; i < s->n; i++) {
        /* The parent is the whole's. */
        if (s->pieces[i].disk)
            s->pieces[i].disk->backing = NULL;
        int closed = s->pieces[i].disk ? s->pieces[i].disk->format->close(s->pieces[i].disk) : 0;
        rc = rc ? rc : closed;
    }
    if (s->changed) {
        int synced = disk_sync_now(disk->io, disk->file);
        rc = rc ? rc : synced;
    }
    if (disk->backing)
        disk->backing->format->close(disk->backing);
    free(s->pieces);
    free(s);
    return rc;
}

/* What an open set has in place of disk_format_vmdk. */
static const struct disk_format set_format = {.name = "vmdk",
                                              .submit = submit,
                                              .read = read_now,
                                              .close = close_set,
                                              .extent = extent,
                                              .backing = vmdk_backing,
                                              .resize = vmdk_set_resize};

/* ---- opening ---- */

static int open_piece(struct vmdk_set *s, const struct vmdk_extent *e, unsigned i, uint64_t start, bool last,
                      struct error **err)
{
    unsigned file = disk_part(&s->disk, i);
    struct disk common = s->disk;
    struct vmdk_piece *p = &s->pieces[i];

    if (!file)
        return error_set(err, EINVAL, "consists of several files, of which '%s' is not given", e->name);
    *p = (struct vmdk_piece){start, e->sectors * DISK_SECTOR, e->skip * DISK_SECTOR, NULL};
    common.file = file;
    common.fd = s->disk.files->files[file].fd;
    common.backing = NULL;
    common.format = e->flat ? &disk_format_raw : &disk_format_vmdk;
    int rc =
        e->flat ? disk_format_raw.open(&p->disk, &common, err) : vmdk_open_sparse(&p->disk, &common, err);
    if (rc)
        return error_wrap(err, "extent '%s'", e->name);
    /* The last one is longer where a change of the size was cut off. */
    if (p->disk->size < p->skip + p->length || (p->disk->size > p->length && !e->flat && !last))
        return error_set(err, EINVAL,
                         "extent '%s' is damaged or cut off: it has %" PRIu64 " bytes, and not %" PRIu64,
                         e->name, p->disk->size - (e->flat ? p->skip : 0), p->length);
    return 0;
}

/* The extents' own texts, if they have any, say nothing of what the whole is based on. */
static void base_on(struct vmdk_piece *p, struct disk *backing)
{
    struct blocks *b = container_of(p->disk, struct blocks, disk);

    b->differs = true;
    b->backing_at = p->start;
    b->disk.backing = backing;
}

static int open_pieces(struct vmdk_set *s, const struct vmdk_extent *list, unsigned n, bool differs,
                       struct error **err)
{
    uint64_t at = 0, grains = 0;
    int rc = disk_check_behind(&s->disk, differs, err);

    if (rc)
        return rc;
    for (s->n = 0; s->n < n;) {
        const struct vmdk_extent *e = &list[s->n];
        rc = open_piece(s, e, s->n, at, s->n == n - 1, err);
        if (rc == 0 && !e->flat && differs)
            base_on(&s->pieces[s->n], s->disk.backing);
        if (rc == 0 && !e->flat)
            grains += s->pieces[s->n].length / s->pieces[s->n].disk->granularity;
        s->n++;
        if (rc)
            return rc;
        if (grains > VMDK_GRAINS_MAX)
            return error_set(err, EFBIG, "is too large: more than %u grains", VMDK_GRAINS_MAX);
        at += e->sectors * DISK_SECTOR;
    }
    if (disk_part(&s->disk, n))
        return error_set(err, EINVAL, "has %u extents, but more files are given", n);
    s->disk.size = at;
    s->disk.granularity = s->pieces[0].disk->granularity;
    return 0;
}

int vmdk_set_open(struct disk **out, const struct disk *common, struct error **err)
{
    cleanup_free char *text = NULL;
    cleanup_free struct vmdk_extent *list = NULL;
    unsigned n = 0;
    int rc = vmdk_text_read(common->fd, &text, err);

    if (rc == 0)
        rc = vmdk_text_extents(text, &list, &n, err);
    if (rc)
        return rc;
    struct vmdk_set *s = calloc(1, sizeof(*s));
    struct vmdk_piece *pieces = calloc(n, sizeof(*pieces));
    if (!s || !pieces) {
        free(s);
        free(pieces);
        return error_set_errno(err, ENOMEM, "opening it");
    }
    s->disk = *common;
    s->disk.format = &set_format;
    s->pieces = pieces;
    s->id_at = vmdk_text_id(text);
    rc = vmdk_text_number(text, "parentCID") == VMDK_NO_PARENT ? 0 : vmdk_check_parent(text, &s->disk, err);
    if (rc == 0)
        rc = open_pieces(s, list, n, vmdk_text_number(text, "parentCID") != VMDK_NO_PARENT, err);
    if (rc) {
        s->disk.backing = NULL;
        close_set(&s->disk);
        return rc;
    }
    *out = &s->disk;
    return 0;
}

/* ---- checking ---- */

static void add(struct disk_check_result *sum, const struct disk_check_result *one)
{
    sum->corruptions += one->corruptions;
    sum->corruptions_fixed += one->corruptions_fixed;
    sum->leaks += one->leaks;
    sum->leaks_fixed += one->leaks_fixed;
    sum->unit = one->unit;
    sum->units += one->units;
    sum->allocated += one->allocated;
    sum->fragmented += one->fragmented;
    sum->end += one->end;
}

/* That all are there and are as long as the descriptor says; then each that has tables. */
int vmdk_set_check(struct disk_check *check, struct error **err)
{
    const struct disk common = {.format = &disk_format_vmdk,
                                .files = (struct disk_files *)(uintptr_t)check->files,
                                .fd = check->fd,
                                .read_only = true};
    struct disk *disk;
    int rc = vmdk_set_open(&disk, &common, err);

    if (rc)
        return rc;
    const struct vmdk_set *s = vmdk_set_of(disk);
    for (unsigned i = 0; i < s->n && rc == 0; i++) {
        const struct disk *piece = s->pieces[i].disk;
        struct disk_check_result one = {0};
        struct disk_check part = *check;
        if (piece->format != &disk_format_vmdk) {
            check->result->end += s->pieces[i].length;
            continue;
        }
        part.fd = piece->fd;
        part.result = &one;
        rc = blocks_check(&disk_format_vmdk, &part, err);
        if (rc)
            disk_named(piece, rc, err);
        check->said = part.said;
        add(check->result, &one);
    }
    close_set(disk);
    return rc;
}

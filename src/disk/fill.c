/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Filling an image in use from behind: fill.h. Parts are taken in the disk's order, some at a time, each in a
 * slot: read, then written. The disk's thread; no locks. */
#include "disk/fill_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/copy.h"
#include "disk/copy_record.h"
#include "disk/disk_priv.h"
#include "disk/throttle.h"
#include "host/loop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define SLOTS    8u
#define PIECE    (DISK_FILL_MEMORY / SLOTS)
#define RETRY_NS 1000000u   /* what the format does by itself comes to an end so soon, or a little later */
#define TELL     (8u << 20) /* how far it is, every so many bytes */

struct slot {
    struct disk_fill *fill;
    bool used;
    uint64_t offset, length;
    uint8_t *data;
    struct disk_request request;
    struct iovec iov;
};

struct disk_fill {
    struct disk *disk;
    struct disk_filling what;
    struct slot slots[SLOTS];
    uint8_t *buffers;
    uint64_t at, told; /* all before `at` is done or in a slot; as far as the other end knows */

    struct disk_request *held, **held_tail; /* wait for a slot, or for the end */
    struct disk_request *passing;           /* under way */
    struct disk_fill *before;               /* on reads, which goes on if this one fails; NULL: none */
    unsigned n_passing;

    int fd;
    struct loop_watch *watch;
    struct loop_timer *pace, *end;
    struct disk_throttle throttle;
    bool on_read; /* what is read, and no more; the end of it is the disk's */
    bool broken;  /* could not be written: reads don't wait any more */
    bool paced, flushing, flushed, closing, ending;
    int failure;
    char text[COPY_TEXT_MAX];
};

/* ---- requests ---- */

static void go_on(struct disk_fill *f);

static bool overlap(const struct disk_request *r, uint64_t offset, uint64_t length)
{
    return r->offset < offset + length && offset < r->offset + r->length;
}

static bool changes(const struct disk_request *r)
{
    return r->kind != DISK_READ && r->kind != DISK_FLUSH;
}

static int look(const struct disk_fill *f, uint64_t at, uint64_t end, uint64_t *length, bool *nothing);

/* The first part of what is read, from *at on, that is not there yet; before `end`. */
static bool find_missing(const struct disk_fill *f, uint64_t *at, uint64_t end, uint64_t *length)
{
    bool nothing;

    for (; *at < end; *at += *length) {
        if (look(f, *at, end, length, &nothing))
            return false; /* reading it tells why */
        if (!nothing)
            return true;
    }
    return false;
}

static bool is_in_slot(const struct disk_fill *f, uint64_t offset, uint64_t length)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (f->slots[i].used && f->slots[i].offset < offset + length &&
            offset < f->slots[i].offset + f->slots[i].length)
            return true;
    return false;
}

static bool read_must_wait(const struct disk_fill *f, const struct disk_request *r)
{
    uint64_t at = r->offset, length;

    if (!f->on_read || f->broken || r->kind != DISK_READ)
        return false;
    return is_in_slot(f, r->offset, r->length) || find_missing(f, &at, r->offset + r->length, &length);
}

static bool must_wait(const struct disk_fill *f, const struct disk_request *r)
{
    return f->closing || (changes(r) && is_in_slot(f, r->offset, r->length)) || read_must_wait(f, r);
}

static bool is_being_written(const struct disk_fill *f, uint64_t offset, uint64_t length)
{
    for (const struct disk_request *r = f->passing; r; r = r->passing)
        if (changes(r) && overlap(r, offset, length))
            return true;
    return false;
}

static void on_passed(struct disk_request *r, int result)
{
    struct disk_fill *f = r->disk->fill;

    r->done = r->behind_fill;
    for (struct disk_request **p = f ? &f->passing : NULL; p && *p; p = &(*p)->passing)
        if (*p == r) {
            *p = r->passing;
            f->n_passing--;
            break;
        }
    r->done(r, result);
    if (f)
        go_on(f);
}

static void pass(struct disk_fill *f, struct disk_request *r)
{
    if (!f->ending) {
        r->behind_fill = r->done;
        r->done = on_passed;
        r->passing = f->passing;
        f->passing = r;
        f->n_passing++;
    }
    f->disk->format->submit(f->disk, r);
}

static void hold(struct disk_fill *f, struct disk_request *r)
{
    r->next = NULL;
    *f->held_tail = r;
    f->held_tail = &r->next;
}

static void release_held(struct disk_fill *f)
{
    struct disk_request *r = steal_ptr(f->held), *next;

    f->held_tail = &f->held;
    for (; r; r = next) {
        next = r->next;
        if (!f->ending && must_wait(f, r))
            hold(f, r);
        else
            pass(f, r);
    }
    disk_io_start(f->disk->io);
}

void disk_fill_submit(struct disk_fill *f, struct disk_request *r)
{
    if (!f->ending && must_wait(f, r))
        hold(f, r);
    else
        pass(f, r);
    if (f->on_read && f->held)
        go_on(f);
}

/* ---- the other end, and the end ---- */

static void tell(const struct disk_fill *f, enum copy_type type, uint64_t offset, uint64_t length,
                 uint64_t value)
{
    const struct copy_record record = {.type = type, .offset = offset, .length = length, .value = value};
    uint8_t bytes[COPY_HEADER_SIZE];

    copy_record_pack(bytes, &record);
    /* Who does not read how far it is does not want to know. */
    if (send(f->fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return;
}

static void free_fill(struct disk_fill *f)
{
    /* What is based on nothing any more has nothing to be filled with. */
    struct disk_fill *before = f->before;

    if (before && !f->disk->backing)
        free_fill(steal_ptr(before));
    f->disk->fill = before;
    loop_watch_remove(f->watch);
    cleanup_close_fn(&f->fd);
    loop_timer_free(f->pace);
    loop_timer_free(f->end);
    free(f->buffers);
    free(f);
}

static bool uses_slots(const struct disk_fill *f)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (f->slots[i].used)
            return true;
    return f->flushing;
}

static void on_end(void *opaque)
{
    struct disk_fill *f = opaque;
    void (*ended)(void *) = f->what.ended;
    void *theirs = f->what.opaque;

    if (!f->ending) { /* to look again */
        go_on(f);
        return;
    }
    if (uses_slots(f))
        return; /* the last one arms the timer again */
    if (f->failure && f->text[0])
        disk_copy_refuse(f->fd, f->failure, f->text);
    free_fill(f);
    if (ended)
        ended(theirs);
}

static void finish(struct disk_fill *f, int error, const char *text)
{
    if (f->ending)
        return;
    f->failure = error;
    snprintf(f->text, sizeof(f->text), "%s", text ? text : "");
    f->ending = true;
    release_held(f);
    loop_timer_arm(f->end, 0);
}

void disk_fill_cancel(struct disk *disk)
{
    if (disk->fill && !disk->fill->on_read)
        finish(disk->fill, ECANCELED, "the guest's disk is being closed");
}

bool disk_fill_is_busy(const struct disk *disk)
{
    return disk->fill && !disk->fill->on_read;
}

void disk_fill_forget(struct disk_fill *f)
{
    free_fill(f);
}

static void on_socket(void *opaque, uint32_t events)
{
    struct disk_fill *f = opaque;
    char byte;

    if (recv(f->fd, &byte, 1, MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    loop_watch_modify(f->watch, 0);
    finish(f, ECANCELED, NULL);
}

/* ---- slots ---- */

static void slot_done(struct slot *slot, int result, const char *what)
{
    struct disk_fill *f = slot->fill;
    char why[COPY_TEXT_MAX];

    slot->used = false;
    if (f->ending) {
        loop_timer_arm(f->end, 0);
        return;
    }
    snprintf(why, sizeof(why), "%s: %s", what, strerror(-result));
    f->broken = f->broken || result;
    if (result && !f->on_read)
        finish(f, -result, why);
    else
        go_on(f);
}

static void on_written(struct disk_request *request, int result)
{
    slot_done(container_of(request, struct slot, request), result, "writing the guest's disk");
}

static void on_read(struct disk_request *request, int result)
{
    struct slot *slot = container_of(request, struct slot, request);
    struct disk_fill *f = slot->fill;

    bool zeros = result == 0 && disk_is_zero(slot->data, slot->length);
    /* What is zeros behind it is zeros without that, too; but then it must be known here. */
    if (result || f->ending || (zeros && !f->on_read)) {
        slot_done(slot, result, "reading what the guest's disk is based on");
        return;
    }
    slot->request.kind = zeros ? DISK_WRITE_ZEROES : DISK_WRITE;
    slot->request.done = on_written;
    f->disk->format->submit(f->disk, &slot->request);
    disk_io_start(f->disk->io);
}

static void begin_slot(struct disk_fill *f, struct slot *slot, uint64_t offset, uint64_t length)
{
    slot->fill = f;
    slot->used = true;
    slot->offset = offset;
    slot->length = length;
    slot->iov = (struct iovec){.iov_base = slot->data, .iov_len = length};
    disk_request_read(&slot->request, f->disk, offset, &slot->iov, on_read);
}

static struct slot *free_slot(struct disk_fill *f)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (!f->slots[i].used)
            return &f->slots[i];
    return NULL;
}

/* From `at` on: how far there is nothing to be done (true), or what is to be read. 0 or -errno. */
static int look(const struct disk_fill *f, uint64_t at, uint64_t end, uint64_t *length, bool *nothing)
{
    struct disk *disk = f->disk;
    struct disk_extent e;
    int rc = disk->format->extent(disk, at, end - at, &e);

    *nothing = rc == 0 && e.allocated;
    *length = e.length;
    if (rc || e.allocated)
        return rc;
    rc = disk_extent(disk, at, e.length, &e);
    *nothing = rc == 0 && e.kind == DISK_EXTENT_ZEROS;
    *length = e.length;
    return rc;
}

/* As far as it can now. 0 or -errno. */
static int fill_on(struct disk_fill *f)
{
    struct slot *slot;
    uint64_t length;
    bool nothing;

    while (f->at < f->disk->size && !f->paced && (slot = free_slot(f))) {
        int rc = look(f, f->at, f->disk->size, &length, &nothing);
        if (rc)
            return rc;
        if (!nothing && length > PIECE)
            length = PIECE;
        /* What is being written may be there or not yet. */
        if (!nothing && is_being_written(f, f->at, length))
            return 0;
        uint64_t now = loop_now(), wait = nothing ? 0 : disk_throttle_take(&f->throttle, false, length, now);
        if (wait) {
            f->paced = true;
            loop_timer_arm(f->pace, now + wait);
            return 0;
        }
        if (!nothing)
            begin_slot(f, slot, f->at, length);
        f->at += length;
    }
    return 0;
}

/* ---- the last steps ---- */

static void on_flushed(struct disk_request *request, int result)
{
    struct slot *slot = container_of(request, struct slot, request);
    struct disk_fill *f = slot->fill;

    f->flushing = false;
    f->flushed = result == 0;
    slot_done(slot, result, "writing the guest's disk");
}

/* It has everything now: what is behind it is let go. */
static void cut_off(struct disk_fill *f)
{
    struct disk *disk = f->disk, *behind = disk->backing;
    int rc = disk->format->set_backing(disk, NULL, NULL, NULL);

    if (rc) {
        finish(f, -rc, "the header of the guest's disk could not be written");
        return;
    }
    disk->backing = NULL;
    behind->format->close(behind);
    disk_files_keep_first(disk->files);
    tell(f, COPY_DONE, 0, 0, 0);
    finish(f, 0, NULL);
}

static void close_in(struct disk_fill *f)
{
    if (!f->flushed && !f->flushing) {
        struct slot *slot = &f->slots[0];

        slot->fill = f;
        slot->used = f->flushing = true;
        slot->length = 0;
        slot->request = (struct disk_request){.kind = DISK_FLUSH, .disk = f->disk, .done = on_flushed};
        f->disk->format->submit(f->disk, &slot->request);
    } else if (f->flushed) {
        f->closing = true;
        if (!f->n_passing && disk_is_idle(f->disk))
            cut_off(f);
        else if (!f->n_passing)
            loop_timer_arm(f->end, loop_now() + RETRY_NS);
    }
}

/* What reads wait for: in whole clusters as far as it is alike, so that no part has to be read again to be
 * written. */
static void fill_for_reads(struct disk_fill *f)
{
    struct slot *slot;

    for (const struct disk_request *r = f->held; r && !f->broken; r = r->next) {
        uint64_t at = r->offset, end = r->offset + r->length, length;

        if (r->kind != DISK_READ)
            continue;
        for (; at < end && (slot = free_slot(f)) && find_missing(f, &at, end, &length); at += length) {
            uint64_t first = at & ~(uint64_t)(f->disk->granularity - 1), last = at + length;

            last = ALIGN_UP(last, (uint64_t)f->disk->granularity);
            length = last - first < PIECE ? last - first : PIECE;
            if (length > f->disk->size - first)
                length = f->disk->size - first;
            if (!is_being_written(f, first, length) && !is_in_slot(f, first, length))
                begin_slot(f, slot, first, length);
            length -= at - first;
        }
    }
}

static void go_on(struct disk_fill *f)
{
    if (f->on_read && !f->ending) {
        fill_for_reads(f);
        release_held(f);
    }
    if (f->ending || f->on_read)
        return;
    int rc = fill_on(f);
    if (rc) {
        finish(f, -rc, "the guest's disk image can't be read");
        return;
    }
    if (f->at - f->told >= TELL || (f->at == f->disk->size && f->told < f->at)) {
        tell(f, COPY_PASSED, f->told, f->at - f->told, 0);
        f->told = f->at;
    }
    if (f->at == f->disk->size && (!uses_slots(f) || f->flushing))
        close_in(f);
    if (!f->ending)
        release_held(f);
}

static void on_pace(void *opaque)
{
    struct disk_fill *f = opaque;

    f->paced = false;
    go_on(f);
}

/* ---- beginning ---- */

static int refusal(const struct disk *disk, struct error **err)
{
    if ((disk->fill && !disk->fill->on_read) || disk->copy)
        return error_set(err, EBUSY, "the disk is being copied already");
    if (disk->read_only)
        return error_set(err, EROFS, "the disk is only read");
    if (!disk->backing)
        return error_set(err, ENODATA, "the disk is based on nothing: there is nothing to be done");
    if (!disk->format->set_backing)
        return error_set(err, ENOTSUP, "what a disk of the format %s is based on can't be changed",
                         disk->format->name);
    return 0;
}

/* `fd` -1: on reads. */
static int make(struct disk *disk, int fd, const struct disk_filling *what, struct error **err)
{
    struct disk_fill *f = calloc(1, sizeof(*f));
    const struct disk_limits limits = {.values[DISK_LIMIT_BPS] = what->rate};

    if (!f)
        return error_set_errno(err, ENOMEM, "filling the disk");
    f->disk = disk;
    f->what = *what;
    f->on_read = fd < 0;
    f->held_tail = &f->held;
    f->fd = -1;
    f->buffers = malloc(DISK_FILL_MEMORY);
    f->pace = loop_timer_new(disk->loop, on_pace, f);
    f->end = loop_timer_new(disk->loop, on_end, f);
    int rc = f->buffers && f->pace && f->end ? 0 : -ENOMEM;
    if (rc == 0 && fd >= 0)
        rc = loop_watch_add(disk->loop, fd, EPOLLIN, on_socket, f, &f->watch);
    if (rc) {
        free_fill(f);
        return error_set_errno(err, -rc, "filling the disk");
    }
    f->fd = fd;
    for (unsigned i = 0; i < SLOTS; i++)
        f->slots[i].data = f->buffers + (size_t)i * PIECE;
    disk_throttle_set(&f->throttle, &limits, loop_now());
    disk->fill = f;
    return 0;
}

int disk_fill_on_read(struct disk *disk)
{
    const struct disk_filling what = {0};

    return disk->read_only || !disk->backing || disk->fill ? 0 : make(disk, -1, &what, NULL);
}

int disk_fill_begin(struct disk *disk, int fd, const struct disk_filling *what, struct error **err)
{
    struct error *why = NULL;
    struct disk_fill *on_read = disk->fill;
    int rc = refusal(disk, &why);

    disk->fill = rc ? on_read : NULL;
    if (rc == 0)
        rc = make(disk, fd, what, &why);
    if (rc) {
        disk->fill = on_read;
        rc = disk_copy_refuse_for(fd, why, err);
        close(fd);
        return rc;
    }
    disk->fill->before = on_read;
    tell(disk->fill, COPY_BEGUN, disk->size, disk->size, 0);
    go_on(disk->fill);
    disk_io_start(disk->io);
    return 0;
}

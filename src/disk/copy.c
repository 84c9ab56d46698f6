/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying a disk in use: which parts are read when, and which requests wait for that. See copy.h. The disk is
 * taken in units of 64 KiB (more of a very large one). A unit is todo, or being read into a slot, or done; a
 * write goes on when all its units are done, and has the next slots until then. A slot is free again when its
 * data are with the socket. The disk's thread; no locks.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/copy_priv.h"
#include "disk/fill_priv.h"
#include "disk/maintain.h"
#include "host/loop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNIT_BITS     16u
#define UNIT_BITS_MAX 20u
#define UNITS_MAX     (128ull << 20)

/* When a mirror comes to its end: so little is left, or so often it has been through. */
#define FINAL_UNITS 64u
#define PASSES_MAX  16u

/* ---- units ---- */

static bool is_todo(const struct disk_copy *c, uint64_t unit)
{
    return c->todo[unit / 8] >> unit % 8 & 1;
}

static void set_todo(struct disk_copy *c, uint64_t unit, bool todo)
{
    if (todo == is_todo(c, unit))
        return;
    c->todo[unit / 8] ^= (uint8_t)(1u << unit % 8);
    c->left += todo ? 1 : (uint64_t)-1;
}

/* The first that is todo from `unit` on, before `end`; or `end`. */
static uint64_t next_todo(const struct disk_copy *c, uint64_t unit, uint64_t end)
{
    while (unit < end && !is_todo(c, unit))
        unit = unit % 8 == 0 && !c->todo[unit / 8] ? unit + 8 : unit + 1;
    return unit < end ? unit : end;
}

static uint64_t first_unit(const struct disk_copy *c, const struct disk_request *r)
{
    return r->offset >> c->unit_bits;
}

static uint64_t end_unit(const struct disk_copy *c, const struct disk_request *r)
{
    return ((r->offset + r->length - 1) >> c->unit_bits) + 1;
}

/* Of a mirror: what was written is to be copied, again. */
static void mark(struct disk_copy *c, const struct disk_request *r)
{
    for (uint64_t i = first_unit(c, r); (!c->fixed || c->what.pivot) && i < end_unit(c, r); i++)
        set_todo(c, i, true);
}

static void on_passed(struct disk_request *r, int result)
{
    struct disk_copy *c = r->disk->copy;

    r->done = r->behind;
    if (c) {
        c->passing--;
        mark(c, r);
    }
    r->done(r, result);
    if (c)
        disk_copy_go_on(c);
}

static void pass(struct disk_copy *c, struct disk_request *r)
{
    if (c->what.mirror && !c->ending && r->kind != DISK_READ && r->kind != DISK_FLUSH) {
        r->behind = r->done;
        r->done = on_passed;
        c->passing++;
    }
    if (c->disk->fill)
        disk_fill_submit(c->disk->fill, r);
    else
        c->disk->format->submit(c->disk, r);
}

/* ---- ending ---- */

static void release_held(struct disk_copy *c, bool all);

static bool is_reading(const struct disk_copy *c)
{
    for (unsigned i = 0; i < COPY_SLOTS; i++)
        if (c->slots[i].reading)
            return true;
    return false;
}

static void free_copy(struct disk_copy *c)
{
    c->disk->copy = NULL;
    disk_copy_output_close(&c->output);
    loop_timer_free(c->patience);
    loop_timer_free(c->pace);
    loop_timer_free(c->end);
    free(c->since);
    free(c->bitmap);
    free(c->todo);
    free(c->buffers);
    free(c);
}

/* Those that nobody can ever use: their guest has not got to storing them. */
static void remove_lost_bitmaps(struct disk *disk)
{
    struct disk_bitmaps all = {0};

    if (disk_bitmap_list(disk, &all, NULL))
        return;
    for (size_t i = 0; i < all.n; i++)
        if (all.list[i].inconsistent &&
            strncmp(all.list[i].name, DISK_COPY_BITMAP, strlen(DISK_COPY_BITMAP)) == 0)
            disk_bitmap_remove(disk, all.list[i].name, NULL);
    disk_bitmaps_free(&all);
}

/* The copy is there: what it needed of the past goes. Or it is not, and what it brought does. */
static void settle_bitmaps(struct disk_copy *c)
{
    if (c->kept && c->since)
        disk_bitmap_remove(c->disk, c->since, NULL);
    if (c->kept && c->has_bitmap)
        remove_lost_bitmaps(c->disk);
    if (!c->kept && c->has_bitmap)
        disk_bitmap_remove(c->disk, c->bitmap, NULL);
}

static void tell_end(struct disk_copy *c)
{
    if (c->kept)
        disk_copy_tell_done(c->output.fd);
    else if (c->text[0] && !c->output.sent)
        disk_copy_refuse(c->output.fd, c->failure, c->text);
}

static void on_end(void *opaque)
{
    struct disk_copy *c = opaque;
    void (*ended)(void *) = c->what.ended;
    void *theirs = c->what.opaque;

    if (is_reading(c))
        return; /* the last one arms the timer again */
    settle_bitmaps(c);
    tell_end(c);
    free_copy(c);
    if (ended)
        ended(theirs);
}

static void end(struct disk_copy *c)
{
    c->ending = true;
    release_held(c, true);
    loop_timer_arm(c->end, 0);
}

void disk_copy_fail(struct disk_copy *c, int error, const char *text)
{
    if (c->ending)
        return;
    c->failure = error;
    if (text)
        snprintf(c->text, sizeof(c->text), "%s", text);
    end(c);
}

void disk_copy_cancel(struct disk *disk)
{
    if (disk->copy)
        disk_copy_fail(disk->copy, ECANCELED, "the guest's disk is being closed");
    disk_fill_cancel(disk);
}

void disk_copy_forget(struct disk_copy *c)
{
    settle_bitmaps(c);
    free_copy(c);
}

/* ---- reading ---- */

static void on_read(struct disk_request *request, int result)
{
    struct copy_slot *slot = container_of(request, struct copy_slot, request);
    struct disk_copy *c = slot->copy;

    slot->reading = false;
    if (c->ending) {
        slot->used = false;
        loop_timer_arm(c->end, 0);
        return;
    }
    if (result) {
        char why[COPY_TEXT_MAX];
        snprintf(why, sizeof(why), "reading the guest's disk: %s", strerror(-result));
        disk_copy_fail(c, -result, why);
        return;
    }
    disk_copy_send(c, slot);
    disk_copy_go_on(c);
}

static struct copy_slot *free_slot(struct disk_copy *c)
{
    for (unsigned i = 0; i < COPY_SLOTS; i++)
        if (!c->slots[i].used)
            return &c->slots[i];
    return NULL;
}

/* How many units from `unit` on are zeros by what the image says, without reading. */
static int zero_units(struct disk_copy *c, uint64_t unit, uint64_t *n)
{
    uint64_t at = unit << c->unit_bits;
    struct disk_extent e;

    *n = 0;
    if (c->disk->format == &disk_format_nbd) /* would wait for its server */
        return 0;
    int rc = disk_extent(c->disk, at, c->disk->size - at, &e);
    if (rc == 0 && e.kind == DISK_EXTENT_ZEROS)
        *n = e.length >= c->disk->size - at ? c->n_units - unit : e.length >> c->unit_bits;
    return rc;
}

/* From `unit`, which is todo, as far as that goes on, before `end`. 1; 0: it has to wait for the rate;
 * -errno. */
static int begin_slot(struct disk_copy *c, struct copy_slot *slot, uint64_t unit, uint64_t end, bool paced)
{
    uint64_t zeros, n = 1;
    int rc = zero_units(c, unit, &zeros);

    if (rc)
        return rc;
    uint64_t most = zeros ? zeros : COPY_PIECE >> c->unit_bits;
    while (n < most && unit + n < end && is_todo(c, unit + n))
        n++;
    uint64_t offset = unit << c->unit_bits, length = n << c->unit_bits;
    if (length > c->disk->size - offset)
        length = c->disk->size - offset;
    uint64_t now = paced && !zeros ? loop_now() : 0;
    uint64_t wait = now ? disk_throttle_take(&c->throttle, false, length, now) : 0;
    if (wait) {
        c->paced = true;
        loop_timer_arm(c->pace, now + wait);
        return 0;
    }
    for (uint64_t i = 0; i < n; i++)
        set_todo(c, unit + i, false);
    slot->used = true;
    slot->first = unit;
    slot->n = n;
    slot->record =
        (struct copy_record){.type = zeros ? COPY_ZEROS : COPY_DATA, .offset = offset, .length = length};
    if (zeros) {
        disk_copy_send(c, slot);
        return 1;
    }
    slot->reading = true;
    slot->iov = (struct iovec){.iov_base = slot->data, .iov_len = length};
    disk_request_read(&slot->request, c->disk, offset, &slot->iov, on_read);
    return 1;
}

/* What writes wait for goes first. 0 or -errno. */
static int read_for_held(struct disk_copy *c)
{
    for (struct disk_request *r = c->held; r; r = r->next) {
        uint64_t end = end_unit(c, r), unit = next_todo(c, first_unit(c, r), end);
        while (unit < end) {
            struct copy_slot *slot = free_slot(c);
            int rc = slot ? begin_slot(c, slot, unit, end, false) : 0;
            if (!slot || rc < 0)
                return rc;
            unit = next_todo(c, unit, end);
        }
    }
    return 0;
}

static int read_on(struct disk_copy *c)
{
    struct copy_slot *slot;
    int rc = c->what.mirror ? 0 : read_for_held(c);

    if (c->what.mirror && (c->left <= FINAL_UNITS || c->passes >= PASSES_MAX))
        c->holding = true;
    while (rc >= 0 && c->left && (!c->paced || c->holding) && (slot = free_slot(c))) {
        c->cursor = next_todo(c, c->cursor, c->n_units);
        if (c->cursor == c->n_units) {
            c->passes++;
            c->cursor = 0;
            continue;
        }
        rc = begin_slot(c, slot, c->cursor, c->n_units, !c->holding);
        if (rc == 0)
            break;
    }
    c->fixed = c->fixed || (c->holding && !c->left && !c->passing && !is_reading(c));
    return rc < 0 ? rc : 0;
}

/* ---- writes ---- */

static bool must_wait(const struct disk_copy *c, const struct disk_request *r)
{
    uint64_t first = first_unit(c, r), end = end_unit(c, r);

    if (c->what.mirror)
        return c->holding && !c->fixed;
    for (unsigned i = 0; i < COPY_SLOTS; i++) {
        const struct copy_slot *s = &c->slots[i];
        if (s->reading && s->first < end && first < s->first + s->n)
            return true;
    }
    return next_todo(c, first, end) < end;
}

static void release_held(struct disk_copy *c, bool all)
{
    struct disk_request *r = steal_ptr(c->held), *next;

    c->held_tail = &c->held;
    for (; r; r = next) {
        next = r->next;
        if (all || !must_wait(c, r)) {
            pass(c, r);
        } else {
            r->next = NULL;
            *c->held_tail = r;
            c->held_tail = &r->next;
        }
    }
    if (all)
        disk_io_start(c->disk->io);
    if (c->held)
        loop_timer_arm(c->patience, c->held->at + DISK_COPY_PATIENCE);
    else
        loop_timer_disarm(c->patience);
}

static void on_patience(void *opaque)
{
    struct disk_copy *c = opaque;

    if (c->held && loop_now() >= c->held->at + DISK_COPY_PATIENCE)
        disk_copy_fail(c, ETIMEDOUT, "the target is too slow: the guest has waited for it for 10 s");
}

static void on_pace(void *opaque)
{
    struct disk_copy *c = opaque;

    c->paced = false;
    disk_copy_go_on(c);
}

void disk_copy_submit(struct disk_copy *c, struct disk_request *r)
{
    if (c->ending || r->kind == DISK_READ || r->kind == DISK_FLUSH || !must_wait(c, r)) {
        pass(c, r);
        return;
    }
    r->next = NULL;
    r->at = loop_now();
    *c->held_tail = r;
    c->held_tail = &r->next;
    disk_copy_go_on(c);
}

void disk_copy_go_on(struct disk_copy *c)
{
    if (c->ending)
        return;
    disk_copy_flush(c);
    int rc = c->ending || c->kept || c->fixed ? 0 : read_on(c);
    if (rc < 0)
        disk_copy_fail(c, -rc, "the guest's disk image can't be read");
    if (c->ending)
        return;
    disk_copy_flush(c);
    if ((c->what.mirror ? c->fixed : !c->left) && !c->sent_end && !c->output.first && !is_reading(c)) {
        c->control.record = (struct copy_record){.type = COPY_END};
        c->sent_end = true;
        disk_copy_send(c, &c->control);
        disk_copy_flush(c);
    }
    if (c->ending)
        return;
    if (c->kept && !c->what.pivot) {
        end(c);
        return;
    }
    if (c->kept && !c->told) {
        c->told = true;
        disk_copy_tell_done(c->output.fd);
    }
    release_held(c, false);
    disk_io_start(c->disk->io);
}

/* ---- beginning ---- */

/* Everything is to be copied, or what has changed by a bitmap. */
static int choose_units(struct disk_copy *c, struct error **err)
{
    struct disk_dirty d;
    uint64_t size = c->disk->size, length;

    if (!c->since) {
        for (uint64_t i = 0; i < c->n_units; i++)
            set_todo(c, i, true);
        c->bytes = size;
        return 0;
    }
    int rc = disk_bitmap_get(c->disk, c->since, &d, err);
    if (rc)
        return rc;
    for (uint64_t at = 0; at < size; at += length) {
        if (!disk_dirty_at(&d, at, &length))
            continue;
        for (uint64_t i = at >> c->unit_bits; i <= (at + length - 1) >> c->unit_bits; i++)
            set_todo(c, i, true);
    }
    disk_dirty_free(&d);
    c->bytes = c->left << c->unit_bits;
    if (c->bytes > size)
        c->bytes = size;
    return 0;
}

static int prepare(struct disk_copy *c, struct error **err)
{
    uint64_t size = c->disk->size;

    c->unit_bits = UNIT_BITS;
    while (size >> c->unit_bits >= UNITS_MAX && c->unit_bits < UNIT_BITS_MAX)
        c->unit_bits++;
    if (size >> c->unit_bits >= UNITS_MAX)
        return error_set(err, EFBIG, "the disk is larger than 128 TiB");
    c->n_units = (size + (1ull << c->unit_bits) - 1) >> c->unit_bits;
    c->todo = calloc(1, c->n_units / 8 + 1);
    c->buffers = malloc(DISK_COPY_MEMORY);
    c->since = c->what.since ? strdup(c->what.since) : NULL;
    c->bitmap = c->what.bitmap ? strdup(c->what.bitmap) : NULL;
    c->patience = loop_timer_new(c->disk->loop, on_patience, c);
    c->pace = loop_timer_new(c->disk->loop, on_pace, c);
    c->end = loop_timer_new(c->disk->loop, on_end, c);
    if (!c->todo || !c->buffers || !c->patience || !c->pace || !c->end || (c->what.since && !c->since) ||
        (c->what.bitmap && !c->bitmap))
        return error_set_errno(err, ENOMEM, "copying the disk");
    for (unsigned i = 0; i < COPY_SLOTS; i++) {
        c->slots[i].copy = c;
        c->slots[i].data = c->buffers + (size_t)i * COPY_PIECE;
    }
    const struct disk_limits limits = {.values[DISK_LIMIT_BPS] = c->what.rate};
    disk_throttle_set(&c->throttle, &limits, loop_now());
    return choose_units(c, err);
}

int disk_copy_begin(struct disk *disk, int fd, const struct disk_copying *what, struct error **err)
{
    if (what->fill)
        return disk_fill_begin(
            disk, fd,
            &(const struct disk_filling){.rate = what->rate, .ended = what->ended, .opaque = what->opaque},
            err);
    bool busy = disk->copy || disk_fill_is_busy(disk);
    struct disk_copy *c = busy ? NULL : calloc(1, sizeof(*c));
    struct error *why = NULL;
    int rc;

    if (!c) {
        if (busy)
            error_set(&why, EBUSY, "the disk is being copied already");
        else
            error_set_errno(&why, ENOMEM, "copying the disk");
        rc = disk_copy_refuse_for(fd, why, err);
        close(fd);
        return rc;
    }
    c->disk = disk;
    c->what = *what;
    c->held_tail = &c->held;
    rc = disk_copy_output_open(c, fd);
    if (rc)
        error_set_errno(&why, -rc, "copying the disk");
    if (rc == 0)
        rc = prepare(c, &why);
    if (rc) {
        rc = disk_copy_refuse_for(fd, why, err);
        free_copy(c);
        return rc;
    }
    c->has_bitmap = c->bitmap && disk_bitmap_add(disk, c->bitmap, 0, NULL) == 0;
    c->control.record = (struct copy_record){.type = COPY_BEGUN,
                                             .offset = disk->size,
                                             .length = c->bytes,
                                             .value = (c->has_bitmap ? COPY_HAS_BITMAP : 0) |
                                                      (what->mirror ? COPY_REPEATS : 0)};
    disk->copy = c;
    disk_copy_send(c, &c->control);
    disk_copy_go_on(c);
    return 0;
}

/* ---- going on in the copy ---- */

static int take_piece(struct disk_copy *c, struct disk_copy_rest *rest, uint64_t unit)
{
    struct disk_copy_piece *p = &rest->list[rest->n];
    uint64_t offset = unit << c->unit_bits, length = 1ull << c->unit_bits;

    if (length > c->disk->size - offset)
        length = c->disk->size - offset;
    *p = (struct disk_copy_piece){.offset = offset, .length = length, .data = disk_buffer_new(length)};
    if (!p->data)
        return -ENOMEM;
    rest->n++;
    return disk_read_now(c->disk, offset, p->data, length);
}

int disk_copy_take_rest(struct disk *disk, struct disk_copy_rest *out)
{
    struct disk_copy *c = disk->copy;
    struct disk_copy_rest rest = {0};
    int rc = 0;

    if (!c || !c->told || c->ending)
        return -ENODEV;
    if (c->left << c->unit_bits > DISK_COPY_REST_MAX)
        return -EAGAIN;
    rest.list = calloc(c->left + 1, sizeof(*rest.list));
    if (!rest.list)
        return -ENOMEM;
    for (uint64_t unit = next_todo(c, 0, c->n_units); rc == 0 && unit < c->n_units;
         unit = next_todo(c, unit + 1, c->n_units))
        rc = take_piece(c, &rest, unit);
    if (rc)
        disk_copy_rest_free(&rest);
    else
        *out = rest;
    return rc;
}

void disk_copy_rest_free(struct disk_copy_rest *rest)
{
    for (size_t i = 0; i < rest->n; i++)
        free(rest->list[i].data);
    free(rest->list);
    *rest = (struct disk_copy_rest){0};
}

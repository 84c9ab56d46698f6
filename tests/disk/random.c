/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random requests on an image, many at once, against a flat copy in memory; the image is opened anew now and
 * then, and looked at by qemu-img. One thread. */
#include "random.h"

#include "base/error.h"
#include "disk/maintain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SIZE_MAX_BYTES (24u << 20)
#define AT_ONCE        12u
#define SNAPSHOTS      5u

static unsigned long long rng_state;

static uint64_t rng(uint64_t below)
{
    /* xorshift64* */
    rng_state ^= rng_state >> 12;
    rng_state ^= rng_state << 25;
    rng_state ^= rng_state >> 27;
    return (rng_state * 0x2545f4914f6cdd1dull >> 11) % below;
}

struct run {
    struct image image;
    const char *path;
    const char *format;
    uint64_t size;
    uint8_t *model, *buf[AT_ONCE];
    uint64_t offset[AT_ONCE], length[AT_ONCE];
    enum disk_request_kind kind[AT_ONCE];
    struct image_request requests[AT_ONCE];
    struct kept {
        unsigned number; /* its name */
        uint64_t size;
        uint8_t *bytes;
    } kept[SNAPSHOTS];
    unsigned n_kept, n_made;
    unsigned with; /* enum random_with */
    uint8_t *then; /* what the disk had when its bitmap began; NULL: it has none */
    uint64_t then_size;
    unsigned rarely; /* QEMU is asked each so many times */
};

static void compare_all(struct run *r)
{
    static uint8_t seen[1 << 20];

    for (uint64_t at = 0; at < r->size; at += sizeof(seen)) {
        uint64_t n = r->size - at < sizeof(seen) ? r->size - at : sizeof(seen);
        assert_int_equal(image_read(&r->image, at, seen, n), 0);
        assert_memory_equal(seen, r->model + at, n);
    }
}

static bool without_qemu;

void random_without_qemu(bool without)
{
    without_qemu = without;
}

/* What qemu-img reads in the image, against the model. */
static void compare_qemu(const struct run *r)
{
    if (without_qemu)
        return;
    FILE *f = fopen(scratch_path("model.raw"), "we");

    assert_non_null(f);
    assert_int_equal(fwrite(r->model, 1, r->size, f), r->size);
    assert_int_equal(fclose(f), 0);
    /* QEMU has other names for some. */
    const char *theirs = strcmp(r->format, "vhd") == 0 ? "vpc" : r->format;
    int status = shell("qemu-img compare %s driver=raw,file.filename=model.raw >compare.log 2>&1",
                       image_for_qemu(r->path, theirs));
    if (status != 0) {
        shell("cat compare.log >&2");
        fail_msg("qemu-img reads something else");
    }
}

/* What QEMU reads of each snapshot. */
static void compare_snapshots(const struct run *r)
{
    for (unsigned i = 0; i < r->n_kept; i++) {
        FILE *f = fopen(scratch_path("kept.raw"), "we");
        assert_non_null(f);
        assert_int_equal(fwrite(r->kept[i].bytes, 1, r->kept[i].size, f), r->kept[i].size);
        assert_int_equal(fclose(f), 0);
        /* It reads as much as the disk has now. */
        unsigned long long n = r->kept[i].size < r->size ? r->kept[i].size : r->size;
        if (shell(
                "qemu-img convert -l snapshot.name=s%u -O raw %s its.raw && cmp -n %llu its.raw kept.raw >&2",
                r->kept[i].number, image_for_qemu(r->path, r->format), n) != 0)
            fail_msg("snapshot s%u is not what it was", r->kept[i].number);
    }
}

/* By our own check, which takes no other program. */
static void look(const struct run *r)
{
    struct disk_job job = {0};
    struct disk_checking how = {.job = &job};
    struct disk_check_result result;
    struct error *err = NULL;
    int rc = disk_check(r->path, r->format, &how, &result, &err);

    if (rc && rc != -ENOTSUP)
        fail_msg("%s", error_message(err));
    error_free(err);
    if (rc == 0 && (result.corruptions || result.leaks))
        fail_msg("'disk check' finds %llu corruptions, %llu leaks", (unsigned long long)result.corruptions,
                 (unsigned long long)result.leaks);
}

static void reopen(struct run *r, bool check)
{
    image_close(&r->image);
    look(r);
    if (check) {
        if (strcmp(r->format, "qcow2") == 0)
            check_image(r->path, false);
        if (!without_qemu && (strcmp(r->format, "vdi") == 0 || strcmp(r->format, "vhdx") == 0 ||
                              strcmp(r->format, "vmdk") == 0))
            assert_int_equal(shell("qemu-img check -q -f %s '%s'", r->format, r->path), 0);
        compare_qemu(r);
        compare_snapshots(r);
    }
    image_open(&r->image, r->path, r->format, rng(4) ? 0 : IMAGE_NO_URING);
    compare_all(r);
}

/* A range that touches none of the first `n` of this batch; half of them at cluster bounds. */
static bool choose_range(struct run *r, unsigned n)
{
    static const uint32_t lengths[] = {512, 512, 4096, 4096, 65536, 65536 * 2, 1 << 20, 3 << 20};
    uint64_t most = lengths[rng(8)], unit = rng(2) ? 512 : 65536;
    uint64_t offset = rng(r->size / unit + 1) * unit, length = (1 + rng(most / 512)) * 512;

    if (rng(3) == 0)
        length = (length + 65535) & ~65535ull;
    if (offset >= r->size)
        return false;
    if (length > r->size - offset)
        length = r->size - offset;
    for (unsigned i = 0; i < n; i++)
        if (offset < r->offset[i] + r->length[i] && r->offset[i] < offset + length)
            return false;
    r->offset[n] = offset;
    r->length[n] = length;
    return true;
}

static void batch(struct run *r)
{
    static const enum disk_request_kind kinds[] = {
        DISK_READ,         DISK_READ,         DISK_WRITE,   DISK_WRITE,   DISK_WRITE,
        DISK_WRITE_ZEROES, DISK_WRITE_ZEROES, DISK_DISCARD, DISK_DISCARD, DISK_FLUSH};
    unsigned n = 0, wanted = 1 + (unsigned)rng(AT_ONCE);

    for (unsigned tries = 0; tries < 4 * wanted && n < wanted; tries++) {
        if (!choose_range(r, n))
            continue;
        r->kind[n] = kinds[rng(10)];
        if (r->kind[n] == DISK_WRITE)
            for (uint64_t i = 0; i < r->length[n]; i += 8)
                memcpy(r->buf[n] + i, &(uint64_t){rng(1ull << 53)}, 8);
        bool data = r->kind[n] == DISK_READ || r->kind[n] == DISK_WRITE;
        image_submit(&r->image, &r->requests[n], r->kind[n], r->offset[n], data ? r->buf[n] : NULL,
                     r->kind[n] == DISK_FLUSH ? 0 : r->length[n], rng(2));
        n++;
    }
    image_wait(&r->image);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *m = r->model + r->offset[i];
        assert_int_equal(r->requests[i].result, 0);
        if (r->kind[i] == DISK_WRITE)
            memcpy(m, r->buf[i], r->length[i]);
        else if (r->kind[i] == DISK_WRITE_ZEROES)
            memset(m, 0, r->length[i]);
        else if (r->kind[i] == DISK_READ)
            assert_memory_equal(r->buf[i], m, r->length[i]);
        else if (r->kind[i] ==
                 DISK_DISCARD) /* it may hold anything, but only within its bounds, and for good */
            assert_int_equal(image_read(&r->image, r->offset[i], m, r->length[i]), 0);
    }
}

/* ---- sizes and snapshots ---- */

static void must(int rc, struct error *err)
{
    if (rc)
        fail_msg("%s", error_message(err));
}

static void resize(struct run *r)
{
    struct error *err = NULL;
    uint64_t size = (1 + rng(SIZE_MAX_BYTES / 512)) * 512;

    int rc = disk_resize(r->image.disk, size, &err);
    must(rc, err);
    if (size < r->size)
        memset(r->model + size, 0, r->size - size);
    r->size = size;
}

static void snapshot(struct run *r)
{
    struct error *err = NULL;
    unsigned i = r->n_kept ? (unsigned)rng(r->n_kept) : 0;
    struct kept *kept = &r->kept[i];
    char name[32];

    if (r->n_kept < SNAPSHOTS && (!r->n_kept || rng(2))) {
        kept = &r->kept[r->n_kept++];
        *kept = (struct kept){.number = r->n_made++, .size = r->size, .bytes = malloc(r->size)};
        assert_non_null(kept->bytes);
        memcpy(kept->bytes, r->model, r->size);
        snprintf(name, sizeof(name), "s%u", kept->number);
        must(disk_snapshot_create(r->image.disk, name, &err), err);
        return;
    }
    snprintf(name, sizeof(name), "s%u", kept->number);
    if (rng(2)) {
        must(disk_snapshot_apply(r->image.disk, name, &err), err);
        memset(r->model, 0, SIZE_MAX_BYTES);
        memcpy(r->model, kept->bytes, kept->size);
        r->size = kept->size;
    } else {
        must(disk_snapshot_delete(r->image.disk, name, &err), err);
        free(kept->bytes);
        *kept = r->kept[--r->n_kept];
    }
}

/* ---- what it is based on, and bitmaps ---- */

/* Copies all into what it is based on: the disk stays what it is. */
static void commit(struct run *r)
{
    const struct disk_commit what = {.follow = true, .keep = rng(4) == 0};
    struct disk_job job = {0};
    struct error *err = NULL;

    image_close(&r->image);
    must(disk_commit(r->path, r->format, &what, &job, &err), err);
    image_open(&r->image, r->path, r->format, 0);
    compare_all(r);
}

/* What has changed since the bitmap began, it has. */
static void check_bitmap(struct run *r)
{
    struct disk_dirty dirty;
    struct error *err = NULL;
    uint64_t length;

    must(disk_bitmap_get(r->image.disk, "b", &dirty, &err), err);
    assert_int_equal(dirty.size, r->size);
    for (uint64_t at = 0; at < r->size; at += length) {
        bool changed = disk_dirty_at(&dirty, at, &length);
        if (length > r->size - at)
            length = r->size - at;
        if (!changed && at < r->then_size)
            assert_memory_equal(r->model + at, r->then + at,
                                length < r->then_size - at ? length : r->then_size - at);
    }
    disk_dirty_free(&dirty);
}

static void bitmap(struct run *r)
{
    struct error *err = NULL;

    if (r->then)
        check_bitmap(r);
    if (r->then && rng(2))
        return;
    if (!r->then)
        must(disk_bitmap_add(r->image.disk, "b", 4096u << rng(6), &err), err);
    else
        must(disk_bitmap_clear(r->image.disk, "b", &err), err);
    if (!r->then)
        r->then = malloc(SIZE_MAX_BYTES);
    assert_non_null(r->then);
    memcpy(r->then, r->model, r->size);
    r->then_size = r->size;
}

static void step(struct run *r, bool sizes, bool snapshots)
{
    uint64_t what = rng(12);

    if (what == 0 && sizes)
        resize(r);
    else if (r->with && what == 1)
        bitmap(r);
    else if (r->with & RANDOM_BASE && what == 2)
        commit(r);
    else if (what <= 2 && snapshots)
        snapshot(r);
    else
        batch(r);
}

static void begin(struct run *r, const char *path)
{
    image_open(&r->image, path, r->format, 0);
    r->size = disk_size(r->image.disk);
    assert_in_range(r->size, 1, SIZE_MAX_BYTES);
    r->model = calloc(1, SIZE_MAX_BYTES);
    assert_non_null(r->model);
    for (unsigned i = 0; i < AT_ONCE; i++) {
        r->buf[i] = malloc(SIZE_MAX_BYTES);
        assert_non_null(r->buf[i]);
    }
    assert_int_equal(image_read(&r->image, 0, r->model, r->size), 0);
}

static void end(struct run *r)
{
    reopen(r, true);
    image_close(&r->image);
    for (unsigned i = 0; i < AT_ONCE; i++)
        free(r->buf[i]);
    for (unsigned i = 0; i < r->n_kept; i++)
        free(r->kept[i].bytes);
    free(r->model);
    free(r->then);
}

void random_run(const char *path, const char *format, unsigned batches)
{
    char own[200];
    struct run r = {.path = own, .format = format};

    snprintf(own, sizeof(own), "%s", path);
    begin(&r, own);
    reopen(&r, true);
    for (unsigned i = 0; i < batches; i++) {
        batch(&r);
        if (rng(40) == 0)
            reopen(&r, rng(2));
    }
    end(&r);
}

void random_life(const char *path, const char *format, bool sizes, bool snapshots, unsigned steps)
{
    random_life_with(path, format, 0, sizes, snapshots, steps);
}

void random_life_with(const char *path, const char *format, unsigned with, bool sizes, bool snapshots,
                      unsigned steps)
{
    char own[200];
    struct run r = {.path = own, .format = format, .with = with};
    const char *wanted = getenv("TABIQUE_STEPS");

    if (wanted)
        steps = (unsigned)strtoul(wanted, NULL, 10);
    snprintf(own, sizeof(own), "%s", path);
    begin(&r, own);
    /* In a long series QEMU's programs would take nearly all of the time. */
    r.rarely = 2 + steps / 6000;
    for (unsigned i = 0; i < steps; i++) {
        step(&r, sizes, snapshots);
        if (rng(60) == 0)
            reopen(&r, rng(r.rarely) == 0);
    }
    end(&r);
}

void random_begin(void)
{
    const char *seed = getenv("TABIQUE_SEED"), *tests = getenv("TABIQUE_TESTS");

    if (tests)
        cmocka_set_test_filter(tests);
    rng_state = seed ? strtoull(seed, NULL, 0) : (unsigned long long)time(NULL) << 20 | (unsigned)getpid();
    printf("TABIQUE_SEED=%llu\n", rng_state);
    fflush(stdout);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copies of a disk that is written all the while: random writes, discards and zeroes before, while and after;
 * each copy must be what the disk had when it began, and the disk what a plain array says. TABIQUE_COPIES:
 * how many copies of each format. TABIQUE_SEED repeats a run.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/copy.h"
#include "disk/copy_receive.h"
#include "disk/fill.h"
#include "disk/maintain.h"
#include "host/loop.h"
#include "image.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SIZE  ((24u << 20) + 5 * DISK_SECTOR) /* ends in the middle of a unit */
#define BATCH 12u

static uint64_t rng;

static uint64_t random_below(uint64_t n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng % n;
}

/* ---- the receiver, in a thread of its own ---- */

struct receiver {
    pthread_t thread;
    int fd;
    const char *path, *backing;
    unsigned delay_us; /* before it takes anything */
    bool gated;        /* and not before the gate is open */
    sem_t gate;
    bool deaf; /* takes nothing but the first record */
    int rc;
    bool has_bitmap;
    char why[300];
};

static void *receive(void *opaque)
{
    struct receiver *r = opaque;
    const struct disk_copy_target target = {
        .path = r->path, .format = "qcow2", .backing = r->backing, .backing_format = "qcow2"};
    const struct disk_job job = {0};
    struct disk_copy_begun begun;
    cleanup_error struct error *err = NULL;

    r->rc = disk_copy_meet(r->fd, &job, &begun, &err);
    usleep(r->delay_us);
    sem_wait(&r->gate);
    if (r->rc == 0) {
        r->has_bitmap = begun.has_bitmap;
        r->rc = r->deaf ? -ECANCELED : disk_copy_receive(r->fd, &begun, &target, &job, &err);
    }
    snprintf(r->why, sizeof(r->why), "%s", err ? error_message(err) : "");
    close(r->fd);
    return NULL;
}

/* ---- the disk ---- */

struct run {
    struct image image;
    uint8_t *model, *frozen, *buf;
    bool copying, waiting;
};

static void on_ended(void *opaque)
{
    struct run *run = opaque;

    run->copying = false;
    if (run->waiting)
        loop_stop(run->image.loop, 0);
}

static void wait_for_all(struct run *run, bool copy_too)
{
    disk_start(run->image.disk);
    run->waiting = copy_too;
    while (run->image.pending || (copy_too && run->copying))
        loop_run(run->image.loop);
    run->waiting = false;
}

/* Several at once, of which no two touch the same sector. */
static void batch(struct run *run)
{
    struct image_request r[BATCH];
    unsigned n = 1 + (unsigned)random_below(BATCH);
    uint64_t share = SIZE / DISK_SECTOR / n;
    bool discards = false;

    for (unsigned i = 0; i < n; i++) {
        uint64_t sectors = 1 + random_below(random_below(4) ? 40 : share);
        uint64_t offset = (i * share + random_below(share)) * DISK_SECTOR, length = sectors * DISK_SECTOR;
        unsigned kind = (unsigned)random_below(8);

        if (offset + length > (i + 1) * share * DISK_SECTOR)
            length = (i + 1) * share * DISK_SECTOR - offset;
        if (kind == 0) {
            discards = true;
            image_submit(&run->image, &r[i], DISK_DISCARD, offset, NULL, length, true);
            memset(run->model + offset, 0, length);
        } else if (kind == 1) {
            image_submit(&run->image, &r[i], DISK_WRITE_ZEROES, offset, NULL, length, random_below(2));
            memset(run->model + offset, 0, length);
        } else {
            memset(run->model + offset, (int)random_below(256), length);
            image_submit(&run->image, &r[i], DISK_WRITE, offset, run->model + offset, length, false);
        }
    }
    wait_for_all(run, false);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(r[i].result, 0);
    /* What was discarded is what it is. */
    if (discards)
        assert_int_equal(image_read(&run->image, 0, run->model, SIZE), 0);
}

static void compare(struct run *run, const char *path, const uint8_t *with)
{
    struct image image;

    image_open(&image, path, "qcow2", IMAGE_READ_ONLY);
    assert_int_equal(disk_size(image.disk), SIZE);
    assert_int_equal(image_read(&image, 0, run->buf, SIZE), 0);
    image_close(&image);
    for (uint64_t at = 0; at < SIZE; at += DISK_SECTOR)
        if (memcmp(run->buf + at, with + at, DISK_SECTOR) != 0)
            fail_msg("%s: sector %llu is not what it was", path, (unsigned long long)(at / DISK_SECTOR));
    check_image(path, false);
}

static void begin_copy(struct run *run, struct receiver *r, const struct disk_copying *how)
{
    struct disk_copying what = *how;
    int pair[2];

    what.ended = on_ended;
    what.opaque = run;
    sem_init(&r->gate, 0, r->gated ? 0 : 1);
    assert_int_equal(image_read(&run->image, 0, run->frozen, SIZE), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    r->fd = pair[1];
    run->copying = disk_copy_begin(run->image.disk, pair[0], &what, NULL) == 0;
    assert_int_equal(pthread_create(&r->thread, NULL, receive, r), 0);
}

static void begin(struct run *run, struct receiver *r, const char *since, const char *bitmap, uint64_t rate)
{
    const struct disk_copying what = {.since = since, .bitmap = bitmap, .rate = rate};

    begin_copy(run, r, &what);
}

static void finish(struct run *run, struct receiver *r)
{
    wait_for_all(run, true);
    pthread_join(r->thread, NULL);
}

static void open_run(struct run *run, const char *name, const char *format)
{
    const struct disk_create create = {.format = format, .size = SIZE};

    *run = (struct run){.model = calloc(1, SIZE), .frozen = malloc(SIZE), .buf = malloc(SIZE)};
    unlink(scratch_path(name));
    assert_int_equal(disk_create(scratch_path(name), &create, NULL), 0);
    image_open(&run->image, scratch_path(name), format, 0);
}

static void close_run(struct run *run)
{
    image_close(&run->image);
    free(run->model);
    free(run->frozen);
    free(run->buf);
}

/* Each the difference to the one before, where there is a bitmap of that. */
static void random_copies(const char *format, unsigned flags)
{
    const char *count = getenv("TABIQUE_COPIES");
    unsigned copies = count ? (unsigned)atoi(count) : 8;
    struct run run;
    char since[32] = "", last[300] = "";
    bool bitmaps = strcmp(format, "qcow2") == 0;

    open_run(&run, "disk", format);
    for (unsigned i = 0; i < copies; i++) {
        char path[300], bitmap[32];
        bool whole = !*since || random_below(4) == 0;
        struct receiver r = {.path = path, .backing = whole ? NULL : last};

        snprintf(bitmap, sizeof(bitmap), "backup-%u", i);
        snprintf(path, sizeof(path), "%s-%s", scratch_path(bitmap), format);
        for (uint64_t n = random_below(6); n > 0; n--)
            batch(&run);
        begin(&run, &r, whole ? NULL : since, bitmap, random_below(3) ? 0 : 64u << 20);
        while (run.copying && random_below(60))
            batch(&run);
        finish(&run, &r);
        if (r.rc)
            fail_msg("copy %u: %s", i, r.why);
        assert_true(r.has_bitmap == bitmaps);
        compare(&run, path, run.frozen);
        assert_int_equal(image_read(&run.image, 0, run.buf, SIZE), 0);
        assert_memory_equal(run.buf, run.model, SIZE);
        strcpy(last, path);
        strcpy(since, bitmaps ? bitmap : "");
        /* Bitmaps outlive the program that has the disk. */
        if (random_below(3) == 0) {
            image_close(&run.image);
            image_open(&run.image, scratch_path("disk"), format, flags);
        }
    }
    close_run(&run);
    if (bitmaps)
        check_image(scratch_path("disk"), false);
}

static void test_qcow2(void **state)
{
    random_copies("qcow2", 0);
}

static void test_raw(void **state)
{
    random_copies("raw", IMAGE_NO_URING);
}

/* ---- ends before the end ---- */

static bool has_bitmap(struct run *run, const char *name)
{
    struct disk_bitmaps all;
    bool found = false;

    assert_int_equal(disk_bitmap_list(run->image.disk, &all, NULL), 0);
    for (size_t i = 0; i < all.n; i++)
        found = found || strcmp(all.list[i].name, name) == 0;
    disk_bitmaps_free(&all);
    return found;
}

static void fill(struct run *run)
{
    for (uint64_t at = 0; at < SIZE; at += 1 << 20)
        memset(run->model + at, (int)(at >> 20) + 1, SIZE - at < 1 << 20 ? SIZE - at : 1 << 20);
    assert_int_equal(image_write(&run->image, 0, run->model, SIZE), 0);
}

/* The receiver goes, in the middle: writes go on, and the next one of the old bitmap has all since then. */
static void test_receiver_gone(void **state)
{
    struct run run;
    char first[300], second[300];
    struct receiver r = {.path = first}, gone = {.deaf = true}, again = {.path = second, .backing = first};

    snprintf(first, sizeof(first), "%s", scratch_path("first"));
    snprintf(second, sizeof(second), "%s", scratch_path("second"));
    open_run(&run, "gone", "qcow2");
    fill(&run);
    begin(&run, &r, NULL, "backup-a", 0);
    finish(&run, &r);
    assert_int_equal(r.rc, 0);
    fill(&run);
    batch(&run);
    begin(&run, &gone, "backup-a", "backup-b", 0);
    for (unsigned i = 0; i < 4; i++)
        batch(&run);
    finish(&run, &gone);
    assert_true(has_bitmap(&run, "backup-a"));
    assert_false(has_bitmap(&run, "backup-b"));
    batch(&run);
    begin(&run, &again, "backup-a", "backup-b", 0);
    batch(&run);
    finish(&run, &again);
    assert_int_equal(again.rc, 0);
    compare(&run, second, run.frozen);
    assert_false(has_bitmap(&run, "backup-a"));
    assert_true(has_bitmap(&run, "backup-b"));
    close_run(&run);
}

/* It takes nothing for a while: writes wait, no more is held than may be, and then all is well. */
static void test_slow_receiver(void **state)
{
    struct run run;
    char path[300];
    struct receiver r = {.path = path, .delay_us = 1500000};
    struct image_request write;

    snprintf(path, sizeof(path), "%s", scratch_path("slow-copy"));
    open_run(&run, "slow", "raw");
    fill(&run);
    begin(&run, &r, NULL, NULL, 0);
    uint64_t since = loop_now();
    memset(run.model + SIZE - DISK_SECTOR, 0xee, DISK_SECTOR);
    image_submit(&run.image, &write, DISK_WRITE, SIZE - DISK_SECTOR, run.model + SIZE - DISK_SECTOR,
                 DISK_SECTOR, false);
    wait_for_all(&run, false);
    assert_int_equal(write.result, 0);
    assert_true(loop_now() - since > 500000000);
    finish(&run, &r);
    assert_int_equal(r.rc, 0);
    compare(&run, path, run.frozen);
    close_run(&run);
}

/* What can't be: said to the receiver, in words, and nothing has changed. */
static void test_refused(void **state)
{
    struct run run;
    struct receiver none = {.path = "/nowhere"}, two = {.path = "/nowhere"}, full = {.path = "/nowhere/file"};

    open_run(&run, "refused", "qcow2");
    fill(&run);
    begin(&run, &none, "backup-x", NULL, 0);
    finish(&run, &none);
    assert_int_equal(none.rc, -ENOENT);
    assert_non_null(strstr(none.why, "has no bitmap 'backup-x'"));
    full.delay_us = 300000;
    begin(&run, &full, NULL, "backup-y", 0);
    assert_true(run.copying);
    begin(&run, &two, NULL, NULL, 0);
    assert_false(run.copying);
    run.copying = true;
    pthread_join(two.thread, NULL);
    assert_int_equal(two.rc, -EBUSY);
    finish(&run, &full);
    assert_int_equal(full.rc, -ENOENT);
    assert_false(has_bitmap(&run, "backup-y"));
    /* Closed in the middle. */
    full = (struct receiver){.path = scratch_path("closed"), .delay_us = 300000};
    begin(&run, &full, NULL, "backup-z", 0);
    disk_copy_cancel(run.image.disk);
    finish(&run, &full);
    assert_true(full.rc < 0);
    assert_int_not_equal(access(full.path, F_OK), 0);
    close_run(&run);
}

/* As it is at the end. Not all of it is taken before the last write, and what was is written over. */
static void test_mirror(void **state)
{
    struct run run;

    open_run(&run, "mirrored", "qcow2");
    for (unsigned i = 0; i < 4; i++) {
        const struct disk_copying what = {.mirror = true, .rate = random_below(2) ? 0 : 128u << 20};
        char name[32], path[300];
        struct receiver r = {.path = path, .gated = true};

        snprintf(name, sizeof(name), "mirror-%u", i);
        snprintf(path, sizeof(path), "%s", scratch_path(name));
        fill(&run);
        begin_copy(&run, &r, &what);
        for (uint64_t batches = random_below(40); batches > 0; batches--)
            batch(&run);
        assert_true(run.copying);
        sem_post(&r.gate);
        finish(&run, &r);
        assert_int_equal(r.rc, 0);
        compare(&run, path, run.model);
        assert_int_equal(image_read(&run.image, 0, run.buf, SIZE), 0);
        assert_memory_equal(run.buf, run.model, SIZE);
    }
    close_run(&run);
}

/* ---- filled from behind ---- */

static void *follow(void *opaque)
{
    struct receiver *r = opaque;
    const struct disk_job job = {0};
    struct disk_copy_begun begun;
    cleanup_error struct error *err = NULL;

    r->rc = disk_copy_meet(r->fd, &job, &begun, &err);
    if (r->rc == 0)
        r->rc = r->deaf ? -ECANCELED : disk_copy_follow(r->fd, &begun, &job, &err);
    snprintf(r->why, sizeof(r->why), "%s", err ? error_message(err) : "");
    close(r->fd);
    return NULL;
}

static void begin_filling(struct run *run, struct receiver *r, uint64_t rate)
{
    const struct disk_filling what = {.rate = rate, .ended = on_ended, .opaque = run};
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    r->fd = pair[1];
    run->copying = disk_fill_begin(run->image.disk, pair[0], &what, NULL) == 0;
    assert_int_equal(pthread_create(&r->thread, NULL, follow, r), 0);
}

/* A chain of three, each with something of its own, and of other sizes. */
static void open_chain(struct run *run)
{
    static const uint64_t sizes[] = {SIZE / 2 / DISK_SECTOR * DISK_SECTOR, SIZE, SIZE};
    static const char *const names[] = {"low", "middle", "top"};

    *run = (struct run){.model = calloc(1, SIZE), .frozen = malloc(SIZE), .buf = malloc(SIZE)};
    for (unsigned i = 0; i < 3; i++) {
        const struct disk_create create = {.format = "qcow2",
                                           .size = sizes[i],
                                           .backing = i ? names[i - 1] : NULL,
                                           .backing_format = i ? "qcow2" : NULL};
        unlink(scratch_path(names[i]));
        assert_int_equal(disk_create(scratch_path(names[i]), &create, NULL), 0);
        image_open(&run->image, scratch_path(names[i]), "qcow2", 0);
        for (unsigned k = 0; k < 20; k++) {
            uint64_t at = random_below(sizes[i] / DISK_SECTOR - 600) * DISK_SECTOR;
            uint64_t length = (1 + random_below(600)) * DISK_SECTOR;
            memset(run->model + at, (int)random_below(256), length);
            assert_int_equal(image_write(&run->image, at, run->model + at, length), 0);
        }
        if (i < 2)
            image_close(&run->image);
    }
}

static void test_fill(void **state)
{
    for (unsigned i = 0; i < 4; i++) {
        struct run run;
        struct receiver gone = {.deaf = true}, r = {0};

        open_chain(&run);
        begin_filling(&run, &gone, 32u << 20);
        batch(&run);
        finish(&run, &gone);
        begin_filling(&run, &r, random_below(2) ? 0 : 64u << 20);
        for (uint64_t batches = random_below(60); batches > 0; batches--)
            batch(&run);
        finish(&run, &r);
        if (r.rc)
            fail_msg("%s", r.why);
        batch(&run);
        assert_int_equal(image_read(&run.image, 0, run.buf, SIZE), 0);
        assert_memory_equal(run.buf, run.model, SIZE);
        assert_int_equal(run.image.files->n, 1);
        image_close(&run.image);
        /* It needs the others no more. */
        unlink(scratch_path("low"));
        unlink(scratch_path("middle"));
        compare(&run, scratch_path("top"), run.model);
        image_open(&run.image, scratch_path("top"), "qcow2", 0);
        struct receiver none = {0};
        begin_filling(&run, &none, 0);
        assert_false(run.copying);
        pthread_join(none.thread, NULL);
        assert_non_null(strstr(none.why, "based on nothing"));
        close_run(&run);
    }
}

/* Only what is read; then nothing of it is read from behind any more, and what was not read still is. */
static void test_copy_on_read(void **state)
{
    for (unsigned i = 0; i < 3; i++) {
        struct image_request r[BATCH];
        struct receiver copied = {.path = scratch_path("copied")}, filled = {0};
        struct run run;

        open_chain(&run);
        assert_int_equal(disk_fill_on_read(run.image.disk), 0);
        for (unsigned k = 0; k < 40; k++) {
            for (unsigned n = 0; n < BATCH; n++) {
                uint64_t at = random_below(SIZE / 2 / DISK_SECTOR - 700) * DISK_SECTOR;
                image_submit(&run.image, &r[n], DISK_READ, at, run.frozen + n * (700ull << 9),
                             (1 + random_below(700)) * DISK_SECTOR, false);
            }
            batch(&run);
            for (unsigned n = 0; n < BATCH; n++)
                assert_int_equal(r[n].result, 0);
        }
        assert_int_equal(image_read(&run.image, 0, run.buf, SIZE / 2 / DISK_SECTOR * DISK_SECTOR), 0);
        assert_memory_equal(run.buf, run.model, SIZE / 2 / DISK_SECTOR * DISK_SECTOR);
        for (uint64_t at = 0; at < SIZE / 2 / DISK_SECTOR * DISK_SECTOR;) {
            struct disk_piece piece;
            assert_int_equal(disk_map(run.image.disk, at, SIZE - at, &piece), 0);
            assert_true(piece.file == 0 || piece.kind == DISK_EXTENT_ZEROS);
            at += piece.length;
        }
        /* A copy and a filling go with it. */
        unlink(copied.path);
        begin(&run, &copied, NULL, NULL, 64u << 20);
        batch(&run);
        finish(&run, &copied);
        assert_int_equal(copied.rc, 0);
        compare(&run, copied.path, run.frozen);
        if (i % 2) {
            begin_filling(&run, &filled, 0);
            batch(&run);
            finish(&run, &filled);
            assert_int_equal(filled.rc, 0);
        }
        assert_int_equal(image_read(&run.image, 0, run.buf, SIZE), 0);
        assert_memory_equal(run.buf, run.model, SIZE);
        close_run(&run);
        check_image(scratch_path("top"), false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qcow2),         cmocka_unit_test(test_raw),
        cmocka_unit_test(test_receiver_gone), cmocka_unit_test(test_slow_receiver),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_mirror),
        cmocka_unit_test(test_fill),          cmocka_unit_test(test_copy_on_read),
    };
    const char *seed = getenv("TABIQUE_SEED");

    rng = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) << 20 | (unsigned)getpid();
    printf("TABIQUE_SEED=%llu\n", (unsigned long long)rng);
    fflush(stdout);
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Long chains of images: 1,000 files that are opened, read and written with the stack that a disk's thread
 * has. */
#include "base/cleanup.h"
#include "disk/disk.h"
#include "host/loop.h"
#include "host/thread.h"
#include "image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH   1000u
#define STRIDE  10u /* every so manieth file has something of its own: the cluster of its number */
#define CLUSTER 65536u
#define SIZE    ((uint64_t)DEPTH * CLUSTER)

static const char *name_of(unsigned i)
{
    static char names[2][32];

    snprintf(names[i % 2], sizeof(names[0]), "chain-%u", i);
    return names[i % 2];
}

static int value_of(unsigned i)
{
    return i % STRIDE ? 0 : (int)(i % 251) + 1;
}

static void make_chain(void)
{
    static uint8_t buf[CLUSTER];

    for (unsigned i = 0; i < DEPTH; i++) {
        const struct disk_create create = {.format = "qcow2",
                                           .size = SIZE,
                                           .backing = i ? name_of(i - 1) : NULL,
                                           .backing_format = i ? "qcow2" : NULL};
        struct image image;

        assert_int_equal(disk_create(scratch_path(name_of(i)), &create, NULL), 0);
        if (i % STRIDE)
            continue;
        memset(buf, value_of(i), sizeof(buf));
        image_open(&image, scratch_path(name_of(i)), "qcow2", 0);
        assert_int_equal(image.files->n, i + 1);
        assert_int_equal(image_write(&image, (uint64_t)i * CLUSTER, buf, CLUSTER), 0);
        image_close(&image);
    }
}

static bool is_all(const uint8_t *buf, size_t len, int value)
{
    for (size_t i = 0; i < len; i++)
        if (buf[i] != value)
            return false;
    return true;
}

static void read_all(struct image *image)
{
    cleanup_free uint8_t *buf = malloc(SIZE);

    assert_non_null(buf);
    assert_int_equal(image_read(image, 0, buf, SIZE), 0);
    for (unsigned i = 0; i < DEPTH; i++)
        assert_true(is_all(buf + (size_t)i * CLUSTER, CLUSTER, value_of(i)));
}

/* What is written in part is filled up with what lies 1,000 files behind. */
static void write_far(struct image *image)
{
    uint8_t sector[DISK_SECTOR], buf[CLUSTER];

    memset(sector, 0xee, sizeof(sector));
    assert_int_equal(image_write(image, DISK_SECTOR, sector, sizeof(sector)), 0);
    assert_int_equal(image_flush(image), 0);
    assert_int_equal(image_read(image, 0, buf, sizeof(buf)), 0);
    assert_true(is_all(buf, DISK_SECTOR, value_of(0)));
    assert_true(is_all(buf + DISK_SECTOR, DISK_SECTOR, 0xee));
    assert_true(is_all(buf + 2 * DISK_SECTOR, CLUSTER - 2 * DISK_SECTOR, value_of(0)));
}

static void map_all(struct image *image)
{
    unsigned found = 0;

    for (uint64_t at = 0; at < SIZE;) {
        struct disk_piece piece;

        assert_int_equal(disk_map(image->disk, at, SIZE - at, &piece), 0);
        unsigned i = (unsigned)(at / CLUSTER);
        if (piece.allocated) {
            assert_int_equal(piece.file, i ? DEPTH - 1 - i : 0); /* the first was written above */
            found++;
        }
        at += piece.length;
    }
    assert_int_equal(found, DEPTH / STRIDE);
}

/* cmocka's checks leave by longjmp, which only its own thread may. */
static void *open_and_close(void *opaque)
{
    int *result = opaque;
    struct disk_files *files = NULL;
    struct loop *loop = NULL;
    struct disk *disk = NULL;

    *result = disk_files_open(&files, scratch_path(name_of(DEPTH - 1)), "qcow2", false, NULL);
    if (*result == 0)
        *result = loop_create(&loop, NULL);
    if (*result == 0)
        *result = disk_open(&disk, files, loop, NULL);
    if (*result == 0)
        *result = disk_close(disk);
    loop_free(loop);
    disk_files_close(files);
    return NULL;
}

static void test_long_chain(void **state)
{
    struct image image;
    pthread_t thread;
    int result = -1;

    make_chain();
    assert_int_equal(thread_start(&thread, open_and_close, &result), 0);
    pthread_join(thread, NULL);
    assert_int_equal(result, 0);
    uint64_t begin = loop_now();
    image_open(&image, scratch_path(name_of(DEPTH - 1)), "qcow2", 0);
    uint64_t opened = loop_now();
    assert_int_equal(image.files->n, DEPTH);
    read_all(&image);
    uint64_t whole = loop_now();
    write_far(&image);
    map_all(&image);
    image_close(&image);
    print_message("%u files: opened in %u ms, %u MiB of them read in %u ms\n", DEPTH,
                  (unsigned)((opened - begin) / 1000000), (unsigned)(SIZE >> 20),
                  (unsigned)((whole - opened) / 1000000));
    /* QEMU's programs take minutes for all of it on a busy host: they look at the first hundred. */
    assert_int_equal(
        shell("qemu-io -r -f qcow2 -c 'read -P %d %u 64k' -c 'read -P 0 %u 64k' chain-99 >qemu.log "
              "&& ! grep -q failed qemu.log",
              value_of(20), 20 * CLUSTER, 21 * CLUSTER),
        0);
}

/* A chain that is longer than any may be, and one that comes back to itself after a while. */
static void test_endless(void **state)
{
    struct disk_create create = {
        .format = "qcow2", .size = CLUSTER, .backing = "ring-b", .backing_format = "qcow2"};

    assert_int_equal(disk_create(scratch_path("ring-a"), &create, NULL), 0);
    create.backing = "ring-a";
    assert_int_equal(disk_create(scratch_path("ring-b"), &create, NULL), 0);
    image_refused(scratch_path("ring-a"), "qcow2", 0, "is based on itself");
    for (unsigned i = 0; i <= DISK_FILES_MAX; i++) {
        char backing[32];

        snprintf(backing, sizeof(backing), "%s", name_of(i + 1));
        create.backing = backing;
        if (i < DEPTH)
            assert_int_equal(unlink(scratch_path(name_of(i))), 0);
        assert_int_equal(disk_create(scratch_path(name_of(i)), &create, NULL), 0);
    }
    image_refused(scratch_path(name_of(0)), "qcow2", 0, "is based on more than 2047 files");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_chain),
        cmocka_unit_test(test_endless),
    };

    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}

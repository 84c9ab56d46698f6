/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host loses power (power.h) at a random moment of random requests: qemu-img finds no more than leaks,
 * and what was flushed is there.
 */
#include "base/bytes.h"
#include "disk/maintain.h"
#include "host/loop.h"
#include "power.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SIZE (6u << 20)
#define CUTS 25u

static const char *format = "qcow2";
static uint32_t size = SIZE;  /* of the disk */
static bool on_top;           /* a VHDX that QEMU does not know */
static bool apart, apart_raw; /* the clusters are in a file of their own; which shows the same */

#define FLUSHES_MAX 64u

/* When each flush was done, and what then was sure to stay. */
struct history {
    unsigned n, entry[FLUSHES_MAX];
    struct stamp *sectors[FLUSHES_MAX];
};

static void write_with_history(struct stamps *s, const char *path, struct history *h)
{
    struct image image;

    /* Without io_uring, whose writes can't be seen here; the order is the same. */
    image_open(&image, path, format, IMAGE_NO_URING);
    power_log_begin();
    for (unsigned i = 0; i < 120; i++) {
        bool flush = i % 6 == 5 && h->n < FLUSHES_MAX;
        stamps_batch(s, &image, flush);
        if (!flush)
            continue;
        h->entry[h->n] = power_log_length();
        h->sectors[h->n] = malloc(s->n * sizeof(struct stamp));
        assert_non_null(h->sectors[h->n]);
        memcpy(h->sectors[h->n++], s->sectors, s->n * sizeof(struct stamp));
    }
    image_close(&image);
    power_log_end();
}

static void cut_and_check(struct stamps *s, const struct history *h, const char *start, unsigned cut)
{
    char path[200];
    struct stamps *then = stamps_new(s->n, 1);
    struct image image;

    memcpy(then->sectors, s->sectors, s->n * sizeof(struct stamp));
    for (uint32_t i = 0; i < s->n; i++)
        then->sectors[i].flushed = 0;
    for (unsigned f = 0; f < h->n && h->entry[f] <= cut; f++)
        for (uint32_t i = 0; i < s->n; i++)
            then->sectors[i].flushed = h->sectors[f][i].flushed;
    snprintf(path, sizeof(path), "%s", scratch_path("cut.qcow2"));
    power_build(s, start, path, cut);
    if (strcmp(format, "qcow2") == 0)
        check_image(path, true);
    bool has_log = strcmp(format, "vhdx") == 0 && !on_top;
    if (has_log) {
        /* With the log in memory; and as QEMU replays it. */
        image_open(&image, path, format, IMAGE_READ_ONLY);
        stamps_check(then, &image);
        image_close(&image);
        assert_int_equal(shell("cp cut.qcow2 theirs && qemu-img check -q -r all -f vhdx theirs"), 0);
    }
    if (apart_raw) {
        struct stamps *raw = stamps_new(then->n, 1);
        memcpy(raw->sectors, then->sectors, then->n * sizeof(struct stamp));
        image_open(&image, scratch_path("p-data"), "raw", IMAGE_READ_ONLY);
        stamps_check(raw, &image);
        image_close(&image);
        stamps_free(raw);
    }
    image_open(&image, path, format, 0);
    stamps_check(then, &image);
    image_close(&image);
    if (apart_raw)
        assert_int_equal(shell("qemu-img compare -q -f qcow2 -F raw cut.qcow2 p-data"), 0);
    if (has_log)
        assert_int_equal(shell("qemu-img check -q -f vhdx cut.qcow2 && qemu-img compare -q cut.qcow2 theirs"),
                         0);
    if (strcmp(format, "qcow2") == 0)
        check_image(path, true);
    /* QEMU's check has no leaks there, and none is left once the image was open. */
    if (strcmp(format, "vdi") == 0 || strcmp(format, "vmdk") == 0)
        assert_int_equal(shell("qemu-img check -q -f %s cut.qcow2", format), 0);
    stamps_free(then);
}

/* `make`: a shell command that makes p.qcow2, of 6 MiB or somewhat less. */
static void power_loss_of(const char *make)
{
    char path[200], start[200];
    struct history h = {0};
    struct stamps *s = stamps_new(size / 512, (uint64_t)time(NULL) * 40503u + (uint64_t)getpid());

    assert_int_equal(shell("rm -f p.qcow2; %s && cp p.qcow2 start.qcow2", make), 0);
    if (apart)
        assert_int_equal(shell("cp p-data start-data"), 0);
    snprintf(path, sizeof(path), "%s", scratch_path("p.qcow2"));
    snprintf(start, sizeof(start), "%s", scratch_path("start.qcow2"));
    write_with_history(s, path, &h);
    assert_true(h.n > 5 && power_log_length() > 100);
    for (unsigned i = 0; i < CUTS; i++)
        cut_and_check(s, &h, start, 1 + (unsigned)stamps_random(s, power_log_length()));
    for (unsigned i = 0; i < h.n; i++)
        free(h.sectors[i]);
    power_log_free();
    stamps_free(s);
}

static void power_loss(const char *options, const char *more)
{
    char make[500];

    snprintf(make, sizeof(make), "qemu-img create -q -f qcow2 %s p.qcow2 6M && %s", options, more);
    power_loss_of(make);
}

/* Blocks of a mebibyte or two are few in a small disk: so a quarter of them is there, and the disk is larger.
 */
static void test_blocks(void **state)
{
    static const char *const formats[][2] = {
        {"vdi", "vdi"}, {"vhd", "vpc"}, {"vmdk", "vmdk"}, {"vhdx", "vhdx -o block_size=1M"}};

    /* On top of others, from which blocks are copied. */
    static const char *const differing[][2] = {
        {"vmdk", "vmdk"}, {"vhd", "vpc -o force_size=on"}, {"vhdx", "vhdx -o block_size=1M"}};

    for (unsigned i = 0; i < 4; i++) {
        char make[500];
        snprintf(make, sizeof(make),
                 "qemu-img create -q -f %s p.qcow2 32M && qemu-io -f %.4s -c 'write -P 0 4M 1M' p.qcow2 "
                 ">/dev/null",
                 formats[i][1], formats[i][1]);
        format = formats[i][0];
        size = 32u << 20;
        for (unsigned n = 0; n < (i >= 2 ? 2 : 4); n++)
            power_loss_of(make);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(differing); i++) {
        const char *kind = differing[i][0];
        const struct disk_create top = {.format = kind,
                                        .backing = "below",
                                        .backing_format = kind,
                                        .cluster_size = strcmp(kind, "vhdx") == 0 ? 1 << 20 : 0,
                                        .size = 32u << 20};
        assert_int_equal(shell("rm -f below above; qemu-img create -q -f %s below 32M", differing[i][1]), 0);
        assert_int_equal(disk_create(scratch_path("above"), &top, NULL), 0);
        format = kind;
        on_top = true;
        for (unsigned n = 0; n < 2; n++)
            power_loss_of("cp above p.qcow2");
    }
    on_top = false;
    format = "qcow2";
    size = SIZE;
}

/* The size is the old one or the new one, and what both have is there; what is new is zeros. */
static void check_size(const char *kind, uint64_t before, uint64_t after)
{
    static uint8_t seen[1 << 20];
    struct image image;

    image_open(&image, scratch_path("cut"), kind, IMAGE_NO_URING);
    uint64_t now = disk_size(image.disk);
    assert_true(now == before || now == after);
    for (uint64_t at = 0; at < now; at += sizeof(seen)) {
        uint8_t wanted = at >> 20 == 1 || at >> 20 == 17 || at >> 20 == 37 ? 3 : 0;
        assert_int_equal(image_read(&image, at, seen, sizeof(seen)), 0);
        for (unsigned i = 0; i < sizeof(seen); i += 256)
            assert_int_equal(seen[i], wanted);
    }
    assert_int_equal(image_write(&image, now - sizeof(seen), seen, sizeof(seen)), 0);
    image_close(&image);
}

/* Power is lost before every write of a change of size. */
static void test_sizes(void **state)
{
    static const char *const formats[][2] = {
        {"vdi", "vdi"}, {"vhd", "vpc -o force_size=on"}, {"vmdk", "vmdk"}, {"vhdx", "vhdx -o block_size=1M"}};
    static const uint64_t sizes[] = {90u << 20, 20u << 20};
    struct stamps *s = stamps_new(16, (uint64_t)time(NULL) + (uint64_t)getpid());

    for (unsigned i = 0; i < 2 * ARRAY_SIZE(formats); i++) {
        const char *kind = formats[i / 2][0];
        char start[200], cut_path[200];
        struct image image;
        assert_int_equal(
            shell("rm -f start r; qemu-img create -q -f %s start 40M && qemu-io -f %.4s -c 'write -P 3 "
                  "1M 1M' -c 'write -P 3 37M 1M' -c 'write -P 3 17M 1M' start >/dev/null && cp start r",
                  formats[i / 2][1], formats[i / 2][1]),
            0);
        snprintf(start, sizeof(start), "%s", scratch_path("start"));
        snprintf(cut_path, sizeof(cut_path), "%s", scratch_path("cut"));
        image_open(&image, scratch_path("r"), kind, IMAGE_NO_URING);
        power_log_begin();
        assert_int_equal(disk_resize(image.disk, sizes[i % 2], NULL), 0);
        image_close(&image);
        power_log_end();
        assert_true(power_log_length() > 2);
        for (unsigned cut = 0; cut <= power_log_length(); cut++) {
            power_build(s, start, cut_path, cut);
            check_size(kind, 40u << 20, sizes[i % 2]);
        }
        power_log_free();
    }
    stamps_free(s);
}

static void test_data_file(void **state)
{
    char start[200];

    assert_int_equal(shell("rm -f zeros; qemu-img create -q -f raw zeros 6M"), 0);
    snprintf(start, sizeof(start), "%s", scratch_path("start-data"));
    power_also(scratch_path("p-data"), start);
    apart = true;
    power_loss("-o data_file=p-data", "true");
    power_loss("-o data_file=p-data,cluster_size=4k -b zeros -F raw", "true");
    power_loss("-o data_file=p-data,extended_l2=on", "true");
    apart_raw = true;
    power_loss("-o data_file=p-data,data_file_raw=on", "true");
    apart = apart_raw = false;
    power_also(NULL, NULL);
}

static void test_encrypted(void **state)
{
    char key[200];
    const struct disk_create what = {.format = "qcow2", .size = SIZE, .key_file = key, .iter_time = 1};

    assert_int_equal(shell("printf 'a secret' >secret; rm -f sealed"), 0);
    snprintf(key, sizeof(key), "%s", scratch_path("secret"));
    assert_int_equal(disk_create(scratch_path("sealed"), &what, NULL), 0);
    image_use_secret(key);
    power_loss_of("cp sealed p.qcow2");
    image_use_secret(NULL);
}

static void test_plain(void **state)
{
    power_loss("", "true");
}

static void test_small_clusters(void **state)
{
    power_loss("-o cluster_size=512", "true");
    power_loss("-o cluster_size=2k,refcount_bits=64", "true");
}

static void test_subclusters(void **state)
{
    assert_int_equal(shell("rm -f zeros; qemu-img create -q -f raw zeros 6M"), 0);
    power_loss("-o extended_l2=on,cluster_size=16k", "true");
    power_loss("-b zeros -F raw -o extended_l2=on", "true");
    power_loss(
        "-o extended_l2=on",
        "qemu-io -f qcow2 -c 'write -P 0 1M 3M' p.qcow2 >/dev/null && qemu-img snapshot -c one p.qcow2");
}

static void test_overlay(void **state)
{
    assert_int_equal(shell("rm -f zeros; qemu-img create -q -f raw zeros 6M"), 0);
    power_loss("-b zeros -F raw", "true");
    power_loss("-b zeros -F raw -o compat=0.10,cluster_size=4k", "true");
}

static void test_snapshot(void **state)
{
    power_loss(
        "-o cluster_size=4k",
        "qemu-io -f qcow2 -c 'write -P 0 1M 3M' p.qcow2 >/dev/null && qemu-img snapshot -c one p.qcow2");
}

/* The kernel forgets what a failed sync could not write: nothing counts as safe afterwards, and no table that
 * points to it is written. */
static void test_sync_fails_once(void **state)
{
    static uint8_t bytes[65536];
    static const char *const formats[] = {"qcow2", "raw"};

    for (unsigned i = 0; i < 2; i++) {
        struct image image;
        const char *path = scratch_path("s");
        assert_int_equal(shell("rm -f s; qemu-img create -q -f %s s 6M", formats[i]), 0);
        image_open(&image, path, formats[i], IMAGE_NO_URING);
        memset(bytes, 0x42, sizeof(bytes));
        assert_int_equal(image_write(&image, 0, bytes, sizeof(bytes)), 0);
        power_fail_syncs(1);
        assert_int_equal(image_flush(&image), -EIO);
        assert_int_equal(power_syncs_to_fail(), 0);
        assert_int_equal(image_flush(&image), -EIO);
        memset(bytes, 0, sizeof(bytes));
        assert_int_equal(image_read(&image, 0, bytes, sizeof(bytes)), 0);
        assert_int_equal(bytes[0] + bytes[65535], 0x84);
        assert_int_equal(disk_close(image.disk), -EIO);
        disk_files_close(image.files);
        loop_free(image.loop);
        if (i == 0) {
            check_image(path, true);
            image_open(&image, path, "qcow2", IMAGE_NO_URING);
            assert_int_equal(image_read(&image, 0, bytes, sizeof(bytes)), 0);
            assert_int_equal(bytes[0], 0);
            assert_int_equal(image_flush(&image), 0);
            image_close(&image);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),         cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_data_file),      cmocka_unit_test(test_encrypted),
        cmocka_unit_test(test_plain),          cmocka_unit_test(test_subclusters),
        cmocka_unit_test(test_small_clusters), cmocka_unit_test(test_overlay),
        cmocka_unit_test(test_snapshot),       cmocka_unit_test(test_sync_fails_once),
    };
    return cmocka_run_group_tests_name("qcow2 power loss", tests, NULL, scratch_remove);
}

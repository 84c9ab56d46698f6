/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host loses power: of what was written since the last sync any part may be gone. All writes to the image
 * are logged here, by standing in for the C library's calls, and the file is built anew from the log up to a
 * random moment: everything before the last sync, and after it each sector or not, in any combination. Then
 * qemu-img finds no more than leaks, and what was flushed is there.
 */
#include "host/loop.h"
#include "stamps.h"

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

#define SIZE    (6u << 20)
#define ENTRIES 100000u
#define CUTS    25u

static struct entry {
    enum { WRITTEN, PUNCHED, TRUNCATED, SYNCED } what;
    uint64_t offset, length;
    uint8_t *bytes;
} log_entries[ENTRIES];
static unsigned n_entries;
static bool logging;
static unsigned syncs_to_fail;
static const char *format = "qcow2";
static uint32_t size = SIZE; /* of the disk */

static void log_entry(struct entry e)
{
    assert_in_range(n_entries, 0, ENTRIES - 1);
    log_entries[n_entries++] = e;
}

/* In place of the C library's, for the whole program. */
ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
    if (logging) {
        struct entry e = {.what = WRITTEN, .offset = (uint64_t)offset};
        for (int i = 0; i < n; i++) {
            e.bytes = realloc(e.bytes, e.length + iov[i].iov_len);
            assert_non_null(e.bytes);
            memcpy(e.bytes + e.length, iov[i].iov_base, iov[i].iov_len);
            e.length += iov[i].iov_len;
        }
        log_entry(e);
    }
    return syscall(SYS_pwritev, fd, iov, (long)n, (long)offset, 0l);
}

int fdatasync(int fd)
{
    if (syncs_to_fail) {
        syncs_to_fail--;
        errno = EIO;
        return -1;
    }
    if (logging)
        log_entry((struct entry){.what = SYNCED});
    return 0;
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    if (logging)
        log_entry((struct entry){.what = PUNCHED, .offset = (uint64_t)offset, .length = (uint64_t)length});
    return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

int ftruncate(int fd, off_t length)
{
    if (logging)
        log_entry((struct entry){.what = TRUNCATED, .length = (uint64_t)length});
    return (int)syscall(SYS_ftruncate, fd, length);
}

static void truncate_to(uint8_t *file, size_t room, size_t *end, uint64_t length)
{
    assert_true(length <= room);
    if (length < *end)
        memset(file + length, 0, *end - length);
    *end = length;
}

static void apply(uint8_t *file, size_t room, size_t *end, const struct entry *e, uint64_t skip, uint64_t n)
{
    if (e->what == SYNCED)
        return;
    assert_true(e->offset + skip + n <= room);
    if (e->what == WRITTEN)
        memcpy(file + e->offset + skip, e->bytes + skip, n);
    else
        memset(file + e->offset + skip, 0, n);
    if (e->what == WRITTEN && *end < e->offset + skip + n)
        *end = e->offset + skip + n;
}

/* The file as it may be found when power went before log entry `cut`. */
static void build(struct stamps *s, const char *start, const char *path, unsigned cut)
{
    size_t room = 64u << 20;
    uint8_t *file = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = open(start, O_RDONLY | O_CLOEXEC);
    unsigned synced = 0;

    assert_true(file != MAP_FAILED && fd >= 0);
    ssize_t got = read(fd, file, room);
    assert_true(got > 0);
    close(fd);
    size_t end = (size_t)got;
    for (unsigned i = 0; i < cut; i++)
        if (log_entries[i].what == SYNCED)
            synced = i;
    /* Few of the later writes, most of them, or half. */
    uint64_t chance = 1 + stamps_random(s, 3);
    for (unsigned i = 0; i < cut; i++) {
        const struct entry *e = &log_entries[i];
        if (e->what == TRUNCATED) {
            if (i < synced || stamps_random(s, 4) < chance)
                truncate_to(file, room, &end, e->length);
            continue;
        }
        if (i < synced) {
            apply(file, room, &end, e, 0, e->length);
            continue;
        }
        bool by_sector = stamps_random(s, 2), all = stamps_random(s, 4) < chance;
        for (uint64_t at = 0; at < e->length; at += 512) {
            uint64_t n = e->length - at < 512 ? e->length - at : 512;
            if (by_sector ? stamps_random(s, 4) < chance : all)
                apply(file, room, &end, e, at, n);
        }
    }
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, file, end), end);
    close(fd);
    munmap(file, room);
}

#define FLUSHES_MAX 64u

/* When each flush was done, and what then was sure to stay. */
struct history {
    unsigned n, entry[FLUSHES_MAX];
    struct stamp *sectors[FLUSHES_MAX];
};

static void write_with_history(struct stamps *s, const char *path, struct history *h)
{
    struct image image;

    n_entries = 0;
    /* Without io_uring, whose writes can't be seen here; the order is the same. */
    image_open(&image, path, format, IMAGE_NO_URING);
    logging = true;
    for (unsigned i = 0; i < 120; i++) {
        bool flush = i % 6 == 5 && h->n < FLUSHES_MAX;
        stamps_batch(s, &image, flush);
        if (!flush)
            continue;
        h->entry[h->n] = n_entries;
        h->sectors[h->n] = malloc(s->n * sizeof(struct stamp));
        assert_non_null(h->sectors[h->n]);
        memcpy(h->sectors[h->n++], s->sectors, s->n * sizeof(struct stamp));
    }
    image_close(&image);
    logging = false;
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
    build(s, start, path, cut);
    if (strcmp(format, "qcow2") == 0)
        check_image(path, true);
    bool has_log = strcmp(format, "vhdx") == 0;
    if (has_log) {
        /* With the log in memory; and as QEMU replays it. */
        image_open(&image, path, format, IMAGE_READ_ONLY);
        stamps_check(then, &image);
        image_close(&image);
        assert_int_equal(shell("cp cut.qcow2 theirs && qemu-img check -q -r all -f vhdx theirs"), 0);
    }
    image_open(&image, path, format, 0);
    stamps_check(then, &image);
    image_close(&image);
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
    snprintf(path, sizeof(path), "%s", scratch_path("p.qcow2"));
    snprintf(start, sizeof(start), "%s", scratch_path("start.qcow2"));
    write_with_history(s, path, &h);
    assert_true(h.n > 5 && n_entries > 100);
    for (unsigned i = 0; i < CUTS; i++)
        cut_and_check(s, &h, start, 1 + (unsigned)stamps_random(s, n_entries));
    for (unsigned i = 0; i < h.n; i++)
        free(h.sectors[i]);
    for (unsigned i = 0; i < n_entries; i++)
        free(log_entries[i].bytes);
    memset(log_entries, 0, sizeof(log_entries));
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
    format = "qcow2";
    size = SIZE;
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
        syncs_to_fail = 1;
        assert_int_equal(image_flush(&image), -EIO);
        assert_int_equal(syncs_to_fail, 0);
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
        cmocka_unit_test(test_blocks),         cmocka_unit_test(test_plain),
        cmocka_unit_test(test_small_clusters), cmocka_unit_test(test_overlay),
        cmocka_unit_test(test_snapshot),       cmocka_unit_test(test_sync_fails_once),
    };
    return cmocka_run_group_tests_name("qcow2 power loss", tests, NULL, scratch_remove);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What images of qcow2 may be, one property at a time; those that must be refused, and what the message says;
 * who may open what together; a file system that is full. */
#include "image.h"

#include "base/bytes.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (1u << 20)

static uint8_t buf[4 * MIB], seen[4 * MIB];

static void make(const char *name, const char *options)
{
    assert_int_equal(shell("rm -f %s; qemu-img create -q -f qcow2 %s %s 64M", name, options, name), 0);
}

/* Overwrites some bytes of a file, as hostile or broken software may. */
static void patch(const char *name, uint64_t at, const void *bytes, size_t n)
{
    int fd = open(scratch_path(name), O_WRONLY | O_CLOEXEC);

    assert_int_equal(pwrite(fd, bytes, n, (off_t)at), n);
    close(fd);
}

static void patch32(const char *name, uint64_t at, uint32_t value)
{
    uint8_t bytes[4];

    put_be32(bytes, value);
    patch(name, at, bytes, 4);
}

static void patch64(const char *name, uint64_t at, uint64_t value)
{
    uint8_t bytes[8];

    put_be64(bytes, value);
    patch(name, at, bytes, 8);
}

static uint64_t read64(const char *name, uint64_t at)
{
    uint8_t bytes[8];
    int fd = open(scratch_path(name), O_RDONLY | O_CLOEXEC);

    assert_int_equal(pread(fd, bytes, 8, (off_t)at), 8);
    close(fd);
    return get_be64(bytes);
}

static uint64_t space(const char *name)
{
    struct stat st;

    assert_int_equal(stat(scratch_path(name), &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

/* ---- headers ---- */

static void refused_after(uint64_t at, unsigned bytes, uint64_t value, const char *part)
{
    make("bad.qcow2", "");
    if (bytes == 4)
        patch32("bad.qcow2", at, (uint32_t)value);
    else
        patch64("bad.qcow2", at, value);
    image_refused(scratch_path("bad.qcow2"), "qcow2", 0, part);
    image_refused(scratch_path("bad.qcow2"), "qcow2", IMAGE_READ_ONLY, part);
}

static void test_bad_headers(void **state)
{
    refused_after(0, 4, 0x514649fa, "is not a qcow2 image");
    refused_after(4, 4, 4, "version 4");
    refused_after(4, 4, 1, "version 1");
    refused_after(8, 8, 65536 - 4, "backing file does not fit");
    refused_after(20, 4, 8, "clusters of 2^8 bytes");
    refused_after(20, 4, 22, "clusters of 2^22 bytes");
    refused_after(20, 4, UINT32_MAX, "clusters");
    refused_after(24, 8, 0, "size of 0 bytes");
    refused_after(24, 8, 64 * MIB + 1, "no number of sectors");
    refused_after(24, 8, 1ull << 63, "no number of sectors");
    refused_after(24, 8, 1ull << 62, "too many for its clusters");
    refused_after(24, 8, 1ull << 40, "L1 table is too small");
    refused_after(32, 4, 2, "is encrypted");
    refused_after(36, 4, 0, "L1 table is too small");
    refused_after(40, 8, 0, "L1 table is not in the file");
    refused_after(40, 8, 512, "L1 table is not in the file");
    refused_after(40, 8, 1ull << 60, "L1 table is not in the file");
    refused_after(40, 8, UINT64_MAX << 16, "L1 table is not in the file");
    refused_after(48, 8, 1ull << 40, "refcount table is not in the file");
    refused_after(48, 8, 3, "refcount table is not in the file");
    refused_after(56, 4, 0, "refcount table is not in the file");
    refused_after(56, 4, UINT32_MAX, "refcount table is not in the file");
    refused_after(72, 8, 4, "data in another file");
    refused_after(72, 8, 1ull << 40, "0x10000000000");
    refused_after(72, 8, 8, "contradicts itself about compression");
    refused_after(96, 4, 7, "refcounts of 2^7 bits");
    refused_after(100, 4, 96, "a header of 96 bytes");
    refused_after(100, 4, 1u << 30, "a header of 1073741824 bytes");
    refused_after(104, 4, 2u << 24, "unknown method (2)");
    make("bad.qcow2", "-o cluster_size=4k");
    patch64("bad.qcow2", 72, 16);
    image_refused(scratch_path("bad.qcow2"), "qcow2", IMAGE_READ_ONLY,
                  "subclusters in clusters of 4096 bytes");
}

static void test_short_files(void **state)
{
    make("bad.qcow2", "");
    for (unsigned length = 0; length < 300; length += 7) {
        assert_int_equal(truncate(scratch_path("bad.qcow2"), 300 - length), 0);
        image_refused(scratch_path("bad.qcow2"), "qcow2", 0, "");
    }
    assert_int_equal(truncate(scratch_path("bad.qcow2"), 0), 0);
    image_refused(scratch_path("bad.qcow2"), "qcow2", 0, "is not a qcow2 image");
    image_refused(scratch_path("bad.qcow2"), "raw", 0, "is empty");
    image_refused(scratch_path("nowhere"), NULL, 0, "No such file or directory");
    image_refused(scratch(), NULL, 0, "is a directory");
    image_refused("/dev/null", NULL, 0, "neither a file nor a block device");
    assert_int_equal(shell("mkfifo -m 600 fifo"), 0);
    image_refused(scratch_path("fifo"), NULL, 0, "neither a file nor a block device");
}

static void test_dirty_and_corrupt(void **state)
{
    struct image image;

    for (uint64_t bit = 1; bit <= 2; bit++) {
        make("marked.qcow2", "");
        patch64("marked.qcow2", 72, bit);
        image_refused(scratch_path("marked.qcow2"), "qcow2", 0, "tabique disk repair");
        image_open(&image, scratch_path("marked.qcow2"), "qcow2", IMAGE_READ_ONLY);
        assert_int_equal(image_read(&image, 0, seen, MIB), 0);
        image_close(&image);
        assert_int_equal(read64("marked.qcow2", 72), bit);
    }
}

/* Whoever keeps something about the content beside it must learn that it has changed. */
static void test_autoclear(void **state)
{
    struct image image;

    make("a.qcow2", "");
    patch64("a.qcow2", 88, 0x8000000000000003ull);
    image_open(&image, scratch_path("a.qcow2"), "qcow2", 0);
    assert_int_equal(image_read(&image, 0, seen, MIB), 0);
    image_close(&image);
    assert_int_equal(read64("a.qcow2", 88), 0x8000000000000003ull);
    image_open(&image, scratch_path("a.qcow2"), "qcow2", 0);
    assert_int_equal(image_write(&image, 0, buf, 512), 0);
    assert_int_equal(read64("a.qcow2", 88), 0);
    image_close(&image);
    /* Bitmaps are kept true, so that bit stays; nothing is known of the others. */
    assert_int_equal(shell("qemu-img bitmap --add a.qcow2 bitmap"), 0);
    patch64("a.qcow2", 88, 0x8000000000000003ull);
    image_open(&image, scratch_path("a.qcow2"), "qcow2", 0);
    assert_int_equal(image_write(&image, 0, buf, 512), 0);
    assert_int_equal(read64("a.qcow2", 88), 1);
    image_close(&image);
    assert_int_equal(read64("a.qcow2", 88), 1);
}

/* ---- tables that can't be ---- */

/* An image with data at 1 MiB, whose L2 table and entry for it are found here. */
static void find_entry(const char *name, uint64_t *l1_at, uint64_t *l2_at)
{
    make(name, "");
    assert_int_equal(shell("qemu-io -f qcow2 -c 'write -P 5 1M 256k' %s >/dev/null", name), 0);
    *l1_at = read64(name, 40);
    *l2_at = (read64(name, *l1_at) & 0xfffffffffffe00ull) + 8 * 16;
}

static void test_bad_tables(void **state)
{
    static const uint64_t entries[] = {
        1ull << 63 | 512,         1ull << 63 | 1ull << 50, 1ull << 63 | 0x10000 | 2,
        1ull << 56 | 0x50000,     1ull << 62 | 1ull << 53, 1ull << 62,
        (1ull << 62) + (1 << 30), 3ull << 62 | 0x50000,    1ull << 62 | 0x50000};
    struct image image;
    uint64_t l1_at, l2_at;

    for (unsigned i = 0; i < 2 + ARRAY_SIZE(entries); i++) {
        find_entry("bad.qcow2", &l1_at, &l2_at);
        if (i < 2)
            patch64("bad.qcow2", l1_at, i ? 1ull << 63 | 1ull << 52 : 1ull << 63 | 0x200);
        else
            patch64("bad.qcow2", l2_at, entries[i - 2]);
        image_open(&image, scratch_path("bad.qcow2"), "qcow2", IMAGE_READ_ONLY);
        assert_int_equal(image_read(&image, MIB, seen, 4096), -EIO);
        image_close(&image);
        image_open(&image, scratch_path("bad.qcow2"), "qcow2", 0);
        bool unpackable = i == 1 + ARRAY_SIZE(entries);
        if (!unpackable) {
            /* Nothing is written any more, and the next one to open it is told. */
            assert_int_equal(image_write(&image, MIB, buf, 4096), -EIO);
            assert_int_equal(image_write(&image, 8 * MIB, buf, 4096), -EIO);
            assert_int_equal(image_discard(&image, 0, 4 * MIB), -EIO);
            assert_int_equal(disk_close(image.disk), -EIO);
            image.disk = NULL;
            image_close(&image);
            image_refused(scratch_path("bad.qcow2"), "qcow2", 0, "marked as corrupt");
        } else {
            /* Bytes that are no compressed ones: that cluster is lost, the rest goes on. */
            assert_int_equal(image_write(&image, MIB, buf, 4096), -EIO);
            assert_int_equal(image_write(&image, 8 * MIB, buf, 4096), 0);
            image_close(&image);
        }
    }
}

/* What counts as free but is a table must not be overwritten. */
static void test_refcounts_that_lie(void **state)
{
    struct image image;

    for (unsigned i = 0; i < 5; i++) {
        make("bad.qcow2", "");
        assert_int_equal(shell("qemu-io -f qcow2 -c 'write -P 5 1M 64k' bad.qcow2 >/dev/null"), 0);
        uint64_t block = read64("bad.qcow2", read64("bad.qcow2", 48));
        patch("bad.qcow2", block + 2 * i, "\0", 2);
        image_open(&image, scratch_path("bad.qcow2"), "qcow2", 0);
        int rc = image_write(&image, 32 * MIB, buf, 65536);
        if (i == 4) /* the data cluster or the table, whichever comes first there */
            assert_true(rc == 0 || rc == -EIO);
        else
            assert_int_equal(rc, -EIO);
        disk_close(image.disk);
        image.disk = NULL;
        image_close(&image);
    }
}

/* ---- what it is based on ---- */

static void test_opening_rule(void **state)
{
    struct image image;

    assert_int_equal(
        shell("rm -f base top; qemu-img create -q -f raw base 1M && qemu-img create -q -f qcow2 -b base -F "
              "raw top"),
        0);
    image_refused(scratch_path("top"), NULL, 0, "say format=qcow2");
    image_open(&image, scratch_path("top"), "qcow2", 0);
    assert_int_equal(image.files->n, 2);
    image_close(&image);
    image_open(&image, scratch_path("top"), "raw", 0);
    assert_int_equal(image.files->n, 1);
    image_close(&image);
    make("plain.qcow2", "");
    image_open(&image, scratch_path("plain.qcow2"), NULL, 0);
    assert_int_equal(disk_size(image.disk), 64 * MIB);
    image_close(&image);
    /* What is behind an image without saying its format is subject to the same. */
    assert_int_equal(shell("qemu-img create -q -f qcow2 -b top -F qcow2 over 1M"), 0);
    assert_int_equal(read64("over", 112) >> 32, 0xe2792aca);
    patch32("over", 112, 0x12345678);
    image_refused(scratch_path("over"), "qcow2", 0, "say format=qcow2");
    make("data.qcow2", "-o data_file=data.raw");
    image_refused(scratch_path("data.qcow2"), NULL, 0, "names another file");
    image_open(&image, scratch_path("data.qcow2"), "qcow2", 0);
    assert_int_equal(image.files->n, 2);
    assert_true(image.files->files[1].part);
    image_close(&image);
}

/* What names the file of its data may be anyone's. */
static void test_hostile_data_files(void **state)
{
    static const char *const names[] = {"/etc/x",   "../a.raw", "..",      "d/a.raw",
                                        "link.raw", "h.qcow2",  "gone.raw"};
    static const char *const faults[] = {"plain names", "plain names", "plain names",        "plain names",
                                         "symbolic",    "twice",       "No such file or dir"};
    struct image image;

    assert_int_equal(shell("mkdir -p d; truncate -s 64M d/a.raw; ln -sf d/a.raw link.raw"), 0);
    for (unsigned i = 0; i < 7; i++) {
        make("h.qcow2", "-o data_file=data.raw");
        /* The extension comes first: its length, then the name. */
        assert_int_equal(read64("h.qcow2", 112) >> 32, 0x44415441);
        assert_int_equal(shell("printf '%%s' '%s' | dd of=h.qcow2 bs=1 seek=120 "
                               "conv=notrunc status=none",
                               names[i]),
                         0);
        patch32("h.qcow2", 116, (uint32_t)strlen(names[i]));
        image_refused(scratch_path("h.qcow2"), "qcow2", 0, faults[i]);
    }
    make("h.qcow2", "-o data_file=data.raw");
    patch32("h.qcow2", 116, 0x7fffffff);
    image_refused(scratch_path("h.qcow2"), "qcow2", 0, "the name of the file that has its data");
    make("h.qcow2", "-o data_file=data.raw");
    patch32("h.qcow2", 112, 0x12345678);
    image_refused(scratch_path("h.qcow2"), "qcow2", 0, "is not given");
    /* A cluster that lies where another one does. */
    make("h.qcow2", "-o data_file=data.raw");
    assert_int_equal(shell("qemu-io -c 'write 64k 64k' h.qcow2 >/dev/null"), 0);
    uint64_t l2 = read64("h.qcow2", read64("h.qcow2", 40)) & ~(1ull << 63);
    patch32("h.qcow2", l2 + 8 + 4, 0x30000);
    image_open(&image, scratch_path("h.qcow2"), "qcow2", 0);
    assert_int_equal(image_read(&image, 65536, seen, 512), -EIO);
    assert_int_equal(image_write(&image, 65536, seen, 512), -EIO);
    disk_close(image.disk);
    image.disk = NULL;
    image_close(&image);
}

static void test_bad_chains(void **state)
{
    const struct disk_create itself = {
        .format = "qcow2", .size = MIB, .backing = "loop", .backing_format = "qcow2"};

    assert_int_equal(disk_create(scratch_path("loop"), &itself, NULL), 0);
    image_refused(scratch_path("loop"), "qcow2", 0, "is based on itself");
    image_refused(scratch_path("loop"), "qcow2", IMAGE_READ_ONLY, "is based on itself");
    assert_int_equal(shell("qemu-img create -q -f qcow2 -u -b missing -F qcow2 a 1M"), 0);
    image_refused(scratch_path("a"), "qcow2", 0, "what disk '");
    assert_int_equal(shell("qemu-img create -q -f qcow2 -u -b missing -F qed a 1M"), 0);
    image_refused(scratch_path("a"), "qcow2", 0, "missing");
    assert_int_equal(
        shell("qemu-img create -q -f raw base 1M; qemu-img create -q -f qcow2 -u -b base -F qed a 1M"), 0);
    image_refused(scratch_path("a"), "qcow2", 0, "'qed' is no format known here");
    assert_int_equal(shell("qemu-img create -q -f qcow2 -u -b nbd://host/x -F raw a 1M"), 0);
    image_refused(scratch_path("a"), "qcow2", 0, "only names of files");
    assert_int_equal(shell("qemu-img create -q -f qcow2 -u -b 'json:{\"driver\":\"raw\"}' -F raw a 1M"), 0);
    image_refused(scratch_path("a"), "qcow2", 0, "only names of files");
}

/* Names are relative to the file that they are in; "file:" is no part of one. */
static void test_where_names_point(void **state)
{
    struct image image;

    assert_int_equal(
        shell("rm -rf d; mkdir -p d/e && qemu-img create -q -f raw d/base 1M && qemu-io -f raw -c 'write -P "
              "6 0 1M' d/base >/dev/null && cd d/e && qemu-img create -q -f qcow2 -b ../base -F raw top && "
              "qemu-img create -q -f qcow2 -b file:../base -F raw top2"),
        0);
    for (unsigned i = 0; i < 2; i++) {
        image_open(&image, scratch_path(i ? "d/e/top2" : "d/e/top"), "qcow2", 0);
        assert_int_equal(image_read(&image, 0, seen, MIB), 0);
        assert_int_equal(seen[0], 6);
        image_close(&image);
    }
}

/* ---- who may open what together ---- */

static void test_locks(void **state)
{
    struct image image, second;

    make("l.qcow2", "");
    image_open(&image, scratch_path("l.qcow2"), "qcow2", 0);
    image_refused(scratch_path("l.qcow2"), "qcow2", 0, "is in use by another program");
    image_refused(scratch_path("l.qcow2"), "qcow2", IMAGE_READ_ONLY, "is in use by another program");
    assert_int_not_equal(shell("qemu-img info l.qcow2 >/dev/null 2>&1"), 0);
    image_close(&image);
    image_open(&image, scratch_path("l.qcow2"), "qcow2", IMAGE_READ_ONLY);
    image_open(&second, scratch_path("l.qcow2"), "qcow2", IMAGE_READ_ONLY);
    assert_int_equal(shell("qemu-img info l.qcow2 >/dev/null"), 0);
    assert_int_not_equal(shell("qemu-io -f qcow2 -c 'write 0 512' l.qcow2 >/dev/null 2>&1"), 0);
    image_refused(scratch_path("l.qcow2"), "qcow2", 0, "only one may write it");
    image_close(&second);
    image_close(&image);
    /* Many tops of one base, which nobody may write meanwhile. */
    assert_int_equal(shell("for i in 1 2; do qemu-img create -q -f qcow2 -b l.qcow2 -F qcow2 top$i; done"),
                     0);
    image_open(&image, scratch_path("top1"), "qcow2", 0);
    image_open(&second, scratch_path("top2"), "qcow2", 0);
    image_refused(scratch_path("l.qcow2"), "qcow2", 0, "only one may write it");
    image_close(&second);
    image_close(&image);
    image_open(&image, scratch_path("l.qcow2"), "qcow2", 0);
    image_refused(scratch_path("top1"), "qcow2", 0, "which writes it");
    image_close(&image);
}

/* ---- space ---- */

static void test_discard_gives_space_back(void **state)
{
    struct image image;

    memset(buf, 3, sizeof(buf));
    make("s.qcow2", "");
    image_open(&image, scratch_path("s.qcow2"), "qcow2", 0);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(image_write(&image, i * 4ull * MIB, buf, 4 * MIB), 0);
    assert_int_equal(image_flush(&image), 0);
    assert_in_range(space("s.qcow2"), 32 * MIB, 40 * MIB);
    assert_int_equal(image_discard(&image, 0, 16 * MIB), 0);
    assert_int_equal(image_zero(&image, 16 * MIB, 8 * MIB, true), 0);
    assert_int_equal(image_flush(&image), 0);
    assert_in_range(space("s.qcow2"), 8 * MIB, 10 * MIB);
    /* And the clusters are used again. */
    struct stat before, after;
    assert_int_equal(stat(scratch_path("s.qcow2"), &before), 0);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(image_write(&image, (32 + i * 4ull) * MIB, buf, 4 * MIB), 0);
    assert_int_equal(image_flush(&image), 0);
    assert_int_equal(stat(scratch_path("s.qcow2"), &after), 0);
    assert_int_equal(before.st_size, after.st_size);
    /* Zeros that are to keep their space do. */
    uint64_t full = space("s.qcow2");
    assert_int_equal(image_zero(&image, 32 * MIB, 24 * MIB, false), 0);
    assert_int_equal(image_flush(&image), 0);
    assert_int_equal(space("s.qcow2"), full);
    assert_int_equal(image_read(&image, 40 * MIB, seen, 4 * MIB), 0);
    assert_int_equal(seen[0] | seen[4 * MIB - 1], 0);
    image_close(&image);
    check_image("s.qcow2", false);
}

/* Without a flush by the guest, a moment later. */
static void test_discard_without_flush(void **state)
{
    struct image image;

    make("s.qcow2", "");
    image_open(&image, scratch_path("s.qcow2"), "qcow2", 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(image_write(&image, i * 4ull * MIB, buf, 4 * MIB), 0);
    assert_int_equal(image_flush(&image), 0);
    assert_int_equal(image_discard(&image, 0, 16 * MIB), 0);
    for (unsigned i = 0; space("s.qcow2") > 2 * MIB; i++) {
        assert_in_range(i, 0, 1000);
        usleep(20000);
        assert_int_equal(image_read(&image, 0, seen, 512), 0);
    }
    image_close(&image);
    check_image("s.qcow2", false);
}

/* A file that can't grow, as on a full file system: the guest gets errors, and the image stays whole. */
static void test_no_space(void **state)
{
    struct rlimit limit, before;
    struct image image;

    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    for (unsigned i = 0; i < 12; i++) {
        make("n.qcow2", i % 3 == 0   ? ""
                        : i % 3 == 1 ? "-o cluster_size=512"
                                     : "-o cluster_size=4k,refcount_bits=64");
        image_open(&image, scratch_path("n.qcow2"), "qcow2", i % 2 ? IMAGE_NO_URING : 0);
        memset(buf, 1, MIB);
        assert_int_equal(image_write(&image, 0, buf, MIB), 0);
        assert_int_equal(image_flush(&image), 0);
        limit = (struct rlimit){.rlim_cur = 2 * MIB + i * 13001, .rlim_max = before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        bool refused = false;
        for (unsigned k = 1; k < 32; k++) {
            memset(buf, (int)k + 1, MIB);
            refused |= image_write(&image, (k * 7 % 64) * (uint64_t)MIB + 3 * 512, buf, MIB - 4096) != 0;
            if (k % 8 == 0)
                image_flush(&image);
        }
        assert_true(refused);
        assert_int_equal(image_read(&image, 0, seen, MIB), 0);
        for (unsigned k = 0; k < MIB; k++)
            assert_int_equal(seen[k], 1);
        disk_close(image.disk);
        image.disk = NULL;
        image_close(&image);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        check_image("n.qcow2", true);
        /* With room again it goes on. */
        image_open(&image, scratch_path("n.qcow2"), "qcow2", 0);
        assert_int_equal(image_write(&image, 5 * MIB, buf, 2 * MIB), 0);
        image_close(&image);
        check_image("n.qcow2", true);
    }
}

/* More L1 entries and clusters than caches hold, and a refcount table that has to grow. */
static void test_large_disk_small_clusters(void **state)
{
    struct image image;

    assert_int_equal(shell("rm -f b.qcow2; qemu-img create -q -f qcow2 -o cluster_size=512 b.qcow2 2G"), 0);
    image_open(&image, scratch_path("b.qcow2"), "qcow2", 0);
    for (uint64_t i = 0; i < 3000; i++) {
        put_le64(buf, i);
        assert_int_equal(image_write(&image, i * 700001 / 512 * 512, buf, 512), 0);
    }
    memset(buf, 4, sizeof(buf));
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(image_write(&image, 1000 * 700416ull + i * 4ull * MIB, buf, 4 * MIB), 0);
    image_close(&image);
    check_image("b.qcow2", false);
    image_open(&image, scratch_path("b.qcow2"), "qcow2", 0);
    for (uint64_t i = 0; i < 1000; i++) {
        assert_int_equal(image_read(&image, i * 700001 / 512 * 512, seen, 512), 0);
        assert_int_equal(get_le64(seen), i);
    }
    image_close(&image);
}

/* Clusters that lie as far apart as a guest can have them, and requests of which each is thousands of reads.
 */
static void test_many_parts(void **state)
{
    enum { CLUSTER = 512, CLUSTERS = sizeof(buf) / CLUSTER, REQUESTS = 16 };
    struct image_request requests[REQUESTS];

    for (unsigned flags = 0; flags <= IMAGE_NO_URING; flags += IMAGE_NO_URING) {
        struct image image;
        make("parts.qcow2", "-o cluster_size=512");
        image_open(&image, scratch_path("parts.qcow2"), "qcow2", flags);
        for (unsigned i = 0; i < CLUSTERS; i++) {
            uint32_t at = i * 4099 % CLUSTERS * CLUSTER;
            memset(buf + at, (int)(i * 7 + i / 256), CLUSTER);
            assert_int_equal(image_write(&image, at, buf + at, CLUSTER), 0);
        }
        size_t before = mallinfo2().uordblks;
        for (unsigned i = 0; i < REQUESTS; i++)
            image_submit(&image, &requests[i], DISK_READ, 0, seen, sizeof(seen), false);
        assert_in_range(mallinfo2().uordblks, 0, before + MIB);
        image_wait(&image);
        for (unsigned i = 0; i < REQUESTS; i++)
            assert_int_equal(requests[i].result, 0);
        assert_memory_equal(seen, buf, sizeof(buf));
        /* Writes in place, and zeros, come in as many parts. */
        for (unsigned i = 0; i < REQUESTS; i++)
            image_submit(&image, &requests[i], DISK_WRITE, 0, buf, sizeof(buf), false);
        assert_in_range(mallinfo2().uordblks, 0, before + MIB);
        image_wait(&image);
        for (unsigned i = 0; i < REQUESTS; i++)
            assert_int_equal(requests[i].result, 0);
        assert_int_equal(image_read(&image, 0, seen, sizeof(seen)), 0);
        assert_memory_equal(seen, buf, sizeof(buf));
        image_close(&image);
        check_image("parts.qcow2", false);
    }
}

static void test_wrong_requests(void **state)
{
    struct image image;

    make("w.qcow2", "");
    image_open(&image, scratch_path("w.qcow2"), "qcow2", 0);
    assert_int_equal(image_read(&image, 64 * MIB, seen, 512), -EINVAL);
    assert_int_equal(image_read(&image, UINT64_MAX - 511, seen, 1024), -EINVAL);
    assert_int_equal(image_write(&image, 100, buf, 512), -EINVAL);
    assert_int_equal(image_write(&image, 0, buf, 100), -EINVAL);
    assert_int_equal(image_discard(&image, 64 * MIB - 512, 1024), -EINVAL);
    assert_int_equal(image_zero(&image, 0, 1ull << 62, true), -EINVAL);
    assert_int_equal(image_read(&image, 0, seen, 0), 0);
    image_close(&image);
    image_open(&image, scratch_path("w.qcow2"), "qcow2", IMAGE_READ_ONLY);
    assert_int_equal(image_write(&image, 0, buf, 512), -EROFS);
    assert_int_equal(image_discard(&image, 0, 65536), -EROFS);
    assert_int_equal(image_zero(&image, 0, 65536, true), -EROFS);
    assert_int_equal(image_flush(&image), 0);
    image_close(&image);
}

static void create_fails(const struct disk_create *what, const char *part)
{
    struct error *err = NULL;

    assert_true(disk_create(scratch_path("c"), what, &err) < 0);
    if (!strstr(error_message(err), part))
        fail_msg("'%s' says nothing of '%s'", error_message(err), part);
    error_free(err);
}

static void test_create(void **state)
{
    char name[1100];
    struct disk_create what = {
        .format = "qcow2", .size = 10ull << 40, .backing = "base", .backing_format = "raw"};

    assert_int_equal(shell("rm -f c; qemu-img create -q -f raw base 1M"), 0);
    assert_int_equal(disk_create(scratch_path("c"), &what, NULL), 0);
    check_image("c", false);
    assert_int_equal(
        shell("qemu-img info c | grep -q '^virtual size: 10 TiB' && qemu-img info c | grep -q '^backing "
              "file format: raw' && qemu-img info c | grep -q '^backing file: base'"),
        0);
    create_fails(&what, "File exists");
    assert_int_equal(unlink(scratch_path("c")), 0);
    what.size = 1ull << 60;
    create_fails(&what, "too large");
    what.size = 1000;
    create_fails(&what, "multiple of 512");
    what.size = MIB;
    what.backing_format = "qed";
    create_fails(&what, "unknown");
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    what.backing = name;
    what.backing_format = "raw";
    create_fails(&what, "more than 1023 bytes");
    what.format = "raw";
    create_fails(&what, "can't be based");
    what.backing = NULL;
    what.format = "qed";
    create_fails(&what, "no format");
    assert_int_equal(access(scratch_path("c"), F_OK), -1);
    what.format = "raw";
    assert_int_equal(disk_create(scratch_path("c"), &what, NULL), 0);
    assert_int_equal(shell("test $(stat -c %%s c) = 1048576"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_short_files),
        cmocka_unit_test(test_dirty_and_corrupt),
        cmocka_unit_test(test_autoclear),
        cmocka_unit_test(test_bad_tables),
        cmocka_unit_test(test_refcounts_that_lie),
        cmocka_unit_test(test_opening_rule),
        cmocka_unit_test(test_hostile_data_files),
        cmocka_unit_test(test_bad_chains),
        cmocka_unit_test(test_where_names_point),
        cmocka_unit_test(test_locks),
        cmocka_unit_test(test_discard_gives_space_back),
        cmocka_unit_test(test_discard_without_flush),
        cmocka_unit_test(test_no_space),
        cmocka_unit_test(test_large_disk_small_clusters),
        cmocka_unit_test(test_many_parts),
        cmocka_unit_test(test_wrong_requests),
        cmocka_unit_test(test_create),
    };
    return cmocka_run_group_tests_name("qcow2", tests, NULL, scratch_remove);
}

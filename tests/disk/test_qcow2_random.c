/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random requests on raw and qcow2 images of every kind (random.h). */
#include "random.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>

/* An image by qemu-img with these options; then random requests on it. */
static void random_qcow2(const char *options, const char *size, unsigned batches)
{
    assert_int_equal(shell("rm -f r.qcow2; qemu-img create -q -f qcow2 -o '%s' r.qcow2 %s", options, size),
                     0);
    assert_int_equal(
        shell("qemu-io -f qcow2 -c 'write -P 7 64k 300k' -c 'write -z 1M 128k' r.qcow2 >/dev/null"), 0);
    random_run(scratch_path("r.qcow2"), "qcow2", batches);
}

static void test_raw(void **state)
{
    assert_int_equal(shell("truncate -s 12345856 r.raw"), 0);
    random_run(scratch_path("r.raw"), "raw", 100);
}

static void test_plain(void **state)
{
    random_qcow2("compat=1.1", "16M", 133);
}

static void test_cluster_sizes(void **state)
{
    random_qcow2("cluster_size=512", "6M", 66);
    random_qcow2("cluster_size=4k", "9M", 100);
    random_qcow2("cluster_size=2M", "21M", 66);
}

static void test_version_2(void **state)
{
    random_qcow2("compat=0.10", "16777216", 100);
}

static void test_refcount_sizes(void **state)
{
    random_qcow2("refcount_bits=1,cluster_size=512", "5M", 50);
    random_qcow2("refcount_bits=4", "9M", 50);
    random_qcow2("refcount_bits=8,cluster_size=1k", "9M", 50);
    random_qcow2("refcount_bits=64,cluster_size=512", "5M", 50);
}

static void test_preallocation_and_lazy_refcounts(void **state)
{
    random_qcow2("preallocation=metadata", "16M", 50);
    random_qcow2("preallocation=falloc", "16M", 50);
    random_qcow2("lazy_refcounts=on", "16M", 50);
}

static void test_subclusters(void **state)
{
    random_qcow2("extended_l2=on", "16M", 100);
    random_qcow2("extended_l2=on,cluster_size=16k", "9M", 50);
    random_qcow2("extended_l2=on,cluster_size=2M", "21M", 50);
    random_qcow2("extended_l2=on,preallocation=metadata", "16M", 50);
}

/* The clusters in a file of their own, which is a raw image of the disk or not. */
static void test_data_file(void **state)
{
    static const char *const kinds[] = {
        "data_file=r-data", "data_file=r-data,cluster_size=4k", "data_file=r-data,extended_l2=on",
        "data_file=r-data,data_file_raw=on", "data_file=r-data,data_file_raw=on,extended_l2=on"};
    const struct disk_create ours = {
        .format = "qcow2", .size = 13 << 20, .data_file = "made-data", .data_file_raw = true};

    for (unsigned i = 0; i < 5; i++) {
        random_qcow2(kinds[i], "12M", 50);
        assert_int_equal(i < 3 ? 0 : shell("qemu-img compare -q -f qcow2 -F raw r.qcow2 r-data"), 0);
        assert_int_equal(shell("rm r.qcow2 r-data; qemu-img create -q -f qcow2 -o %s r.qcow2 9M", kinds[i]),
                         0);
        random_life(scratch_path("r.qcow2"), "qcow2", true, false, 60);
        assert_int_equal(i < 3 ? 0 : shell("cmp r-data model.raw"), 0);
    }
    assert_int_equal(disk_create(scratch_path("made-apart"), &ours, NULL), 0);
    random_run(scratch_path("made-apart"), "qcow2", 50);
    assert_int_equal(shell("cmp made-data model.raw"), 0);
}

/* Encrypted; QEMU's and ours, the latter also on top of another, and with its clusters elsewhere. */
static void test_encrypted(void **state)
{
    static const char *const kinds[] = {"", ",cluster_size=4k", ",extended_l2=on", ",cluster_size=2M"};
    char key[200];

    snprintf(key, sizeof(key), "%s", scratch_path("secret"));
    assert_int_equal(shell("printf 'a secret' >secret"), 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(
            shell("rm -f r.qcow2; for i in 1 2 3 4 5; do qemu-img create -q -f qcow2 --object "
                  "secret,id=s,file=secret -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-"
                  "time=10%s r.qcow2 9M 2>make.log && exit 0; done; exit 1",
                  kinds[i]),
            0);
        image_use_secret(key);
        random_life(scratch_path("r.qcow2"), "qcow2", true, true, 60);
    }
    const struct disk_create ours[] = {
        {.format = "qcow2", .size = 13 << 20, .key_file = key, .iter_time = 10, .cluster_size = 512},
        {.format = "qcow2", .size = 13 << 20, .key_file = key, .iter_time = 10, .data_file = "sealed-data"},
    };
    for (unsigned i = 0; i < 2; i++) {
        struct error *err = NULL;
        assert_int_equal(shell("rm -f sealed sealed-data"), 0);
        if (disk_create(scratch_path("sealed"), &ours[i], &err))
            fail_msg("%s", error_message(err));
        random_life(scratch_path("sealed"), "qcow2", true, !i, 60);
    }
    image_use_secret(NULL);
}

/* On top of an image that is shorter, longer, raw, compressed. */
static void random_overlay(const char *base_options, const char *base_format, const char *options,
                           const char *size)
{
    assert_int_equal(
        shell("rm -f base; qemu-img create -q -f %s %s base 11M && for i in 1 3 5 7 9; do qemu-io -f "
              "%s -c \"write -P $i ${i}M 777k\" base >/dev/null || exit 1; done",
              base_format, base_options, base_format),
        0);
    assert_int_equal(shell("rm -f r.qcow2; qemu-img create -q -f qcow2 -b base -F %s %s r.qcow2 %s",
                           base_format, options, size),
                     0);
    assert_int_equal(shell("cp base before"), 0);
    random_run(scratch_path("r.qcow2"), "qcow2", 83);
    assert_int_equal(shell("cmp -s base before"), 0);
}

static void test_overlays(void **state)
{
    random_overlay("", "raw", "", "11M");
    random_overlay("", "qcow2", "", "16M");
    random_overlay("-o cluster_size=4k", "qcow2", "-o compat=0.10", "7M");
    random_overlay("-o compat=0.10", "qcow2", "-o cluster_size=2k", "13M");
    random_overlay("", "raw", "-o extended_l2=on", "13M");
    random_overlay("-o extended_l2=on,cluster_size=16k", "qcow2", "-o extended_l2=on,cluster_size=32k", "7M");
    random_overlay("", "qcow2", "-o data_file=r-data", "13M");
    random_overlay("-o data_file=base-data", "qcow2", "-o extended_l2=on,data_file=r-data", "13M");
}

static void test_compressed(void **state)
{
    static const char *const kinds[] = {
        "compression_type=zlib", "compression_type=zstd", "compression_type=zlib,cluster_size=4k",
        "compression_type=zstd,cluster_size=512", "compression_type=zlib,extended_l2=on"};
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(
            shell("rm -f source r.qcow2; truncate -s 9M source && for i in 1 2 3; do seq 1 90000 | dd "
                  "of=source bs=1M seek=$((2*i)) conv=notrunc status=none; done; qemu-img convert -q "
                  "-c -f raw -O qcow2 -o %s source r.qcow2",
                  kinds[i]),
            0);
        random_run(scratch_path("r.qcow2"), "qcow2", 50);
    }
}

/* A snapshot inside the image stays what it was. */
static void test_internal_snapshot(void **state)
{
    static const char *const kinds[] = {"cluster_size=64k", "cluster_size=4k", "extended_l2=on"};

    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(
            shell("rm -f r.qcow2; qemu-img create -q -f qcow2 -o %s r.qcow2 12M && "
                  "qemu-io -f qcow2 -c 'write -P 9 1M 3M' -c 'write -P 8 7M 900k' r.qcow2 >/dev/null && "
                  "qemu-img snapshot -c one r.qcow2 && qemu-img convert -f qcow2 -l one -O raw r.qcow2 "
                  "before",
                  kinds[i]),
            0);
        random_run(scratch_path("r.qcow2"), "qcow2", 66);
        assert_int_equal(shell("qemu-img convert -f qcow2 -l one -O raw r.qcow2 after && cmp before after"),
                         0);
        /* What only the snapshot kept is free once it is gone. */
        assert_int_equal(shell("qemu-img snapshot -d one r.qcow2"), 0);
        check_image("r.qcow2", false);
    }
}

/* All that can be done to an image, in any order. */
static void test_lives(void **state)
{
    static const char *const kinds[] = {"",
                                        "cluster_size=4k",
                                        "cluster_size=512,refcount_bits=8",
                                        "compat=0.10",
                                        "refcount_bits=64,lazy_refcounts=on",
                                        "extended_l2=on",
                                        "extended_l2=on,cluster_size=16k"};

    for (unsigned i = 0; i < 7; i++) {
        /* In version 2 a disk that has snapshots keeps its size. */
        bool old = i == 3;
        assert_int_equal(shell("rm -f r.qcow2; qemu-img create -q -f qcow2 %s%s r.qcow2 9M",
                               *kinds[i] ? "-o " : "", kinds[i]),
                         0);
        random_life(scratch_path("r.qcow2"), "qcow2", !old, true, 80);
    }
    assert_int_equal(shell("rm -f r.raw; truncate -s 5M r.raw"), 0);
    random_life(scratch_path("r.raw"), "raw", true, false, 80);
}

/* On top of another, into which all is committed now and then; with bitmaps. */
static void test_commits(void **state)
{
    static const char *const kinds[][2] = {{"cluster_size=64k", "cluster_size=64k"},
                                           {"extended_l2=on", "cluster_size=4k,compression_type=zstd"},
                                           {"data_file=r-data", "data_file=base-data,data_file_raw=on"}};

    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(
            shell(
                "rm -f r.qcow2 base; seq 1 400000 >source && truncate -s 9M source && qemu-img convert "
                "-f raw -O qcow2 %s -o %s source base && qemu-img create -q -f qcow2 -b base -F qcow2 -o %s "
                "r.qcow2 11M",
                i < 2 ? "-c" : "", kinds[i][1], kinds[i][0]),
            0);
        random_life_with(scratch_path("r.qcow2"), "qcow2", RANDOM_BITMAP | RANDOM_BASE, true, false, 60);
        check_image("base", false);
    }
    assert_int_equal(shell("rm -f r.qcow2; qemu-img create -q -f qcow2 r.qcow2 9M"), 0);
    random_life_with(scratch_path("r.qcow2"), "qcow2", RANDOM_BITMAP, true, true, 60);
}

/* Images made here. */
static void test_made_here(void **state)
{
    const struct disk_create plain = {.format = "qcow2", .size = 17 << 20};
    const struct disk_create overlay = {
        .format = "qcow2", .size = 20 << 20, .backing = "made", .backing_format = "qcow2"};

    assert_int_equal(disk_create(scratch_path("made"), &plain, NULL), 0);
    check_image("made", false);
    random_run(scratch_path("made"), "qcow2", 50);
    assert_int_equal(disk_create(scratch_path("made-overlay"), &overlay, NULL), 0);
    check_image("made-overlay", false);
    assert_int_equal(shell("cp made before"), 0);
    random_run(scratch_path("made-overlay"), "qcow2", 50);
    assert_int_equal(shell("cmp -s made before"), 0);
    const struct disk_create wide = {.format = "qcow2", .size = 18 << 20, .extended_l2 = true};
    assert_int_equal(disk_create(scratch_path("made-wide"), &wide, NULL), 0);
    check_image("made-wide", false);
    random_run(scratch_path("made-wide"), "qcow2", 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raw),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_cluster_sizes),
        cmocka_unit_test(test_version_2),
        cmocka_unit_test(test_refcount_sizes),
        cmocka_unit_test(test_preallocation_and_lazy_refcounts),
        cmocka_unit_test(test_subclusters),
        cmocka_unit_test(test_data_file),
        cmocka_unit_test(test_encrypted),
        cmocka_unit_test(test_overlays),
        cmocka_unit_test(test_compressed),
        cmocka_unit_test(test_internal_snapshot),
        cmocka_unit_test(test_lives),
        cmocka_unit_test(test_commits),
        cmocka_unit_test(test_made_here),
    };
    random_begin();
    return cmocka_run_group_tests_name("qcow2 random", tests, NULL, scratch_remove);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random requests on images of every kind, many at once, against a flat copy in memory; the image is opened
 * anew now and then, and looked at by qemu-img. The seed is printed; TABIQUE_SEED repeats a run.
 */
#include "image.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SIZE_MAX_BYTES (24u << 20)
#define AT_ONCE        12u

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

/* What qemu-img reads in the image, against the model. */
static void compare_qemu(const struct run *r)
{
    FILE *f = fopen(scratch_path("model.raw"), "we");

    assert_non_null(f);
    assert_int_equal(fwrite(r->model, 1, r->size, f), r->size);
    assert_int_equal(fclose(f), 0);
    if (shell("qemu-img compare -f raw -F %s model.raw '%s' >compare.log 2>&1", r->format, r->path) != 0) {
        shell("cat compare.log >&2");
        fail_msg("qemu-img reads something else");
    }
}

static void reopen(struct run *r, bool check)
{
    image_close(&r->image);
    if (check) {
        if (strcmp(r->format, "qcow2") == 0)
            check_image(r->path, false);
        compare_qemu(r);
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

static void run_on(const char *path, const char *format, unsigned batches)
{
    char own[200];
    struct run r = {.path = own, .format = format};

    snprintf(own, sizeof(own), "%s", path);

    image_open(&r.image, own, format, 0);
    r.size = disk_size(r.image.disk);
    assert_in_range(r.size, 1, SIZE_MAX_BYTES);
    r.model = malloc(r.size);
    assert_non_null(r.model);
    for (unsigned i = 0; i < AT_ONCE; i++) {
        r.buf[i] = malloc(SIZE_MAX_BYTES);
        assert_non_null(r.buf[i]);
    }
    assert_int_equal(image_read(&r.image, 0, r.model, r.size), 0);
    reopen(&r, true);
    for (unsigned i = 0; i < batches; i++) {
        batch(&r);
        if (rng(40) == 0)
            reopen(&r, rng(2));
    }
    reopen(&r, true);
    image_close(&r.image);
    for (unsigned i = 0; i < AT_ONCE; i++)
        free(r.buf[i]);
    free(r.model);
}

/* An image by qemu-img with these options; then random requests on it. */
static void random_qcow2(const char *options, const char *size, unsigned batches)
{
    assert_int_equal(shell("rm -f r.qcow2; qemu-img create -q -f qcow2 -o '%s' r.qcow2 %s", options, size),
                     0);
    assert_int_equal(
        shell("qemu-io -f qcow2 -c 'write -P 7 64k 300k' -c 'write -z 1M 128k' r.qcow2 >/dev/null"), 0);
    run_on(scratch_path("r.qcow2"), "qcow2", batches);
}

static void test_raw(void **state)
{
    assert_int_equal(shell("truncate -s 12345856 r.raw"), 0);
    run_on(scratch_path("r.raw"), "raw", 100);
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
    run_on(scratch_path("r.qcow2"), "qcow2", 83);
    assert_int_equal(shell("cmp -s base before"), 0);
}

static void test_overlays(void **state)
{
    random_overlay("", "raw", "", "11M");
    random_overlay("", "qcow2", "", "16M");
    random_overlay("-o cluster_size=4k", "qcow2", "-o compat=0.10", "7M");
    random_overlay("-o compat=0.10", "qcow2", "-o cluster_size=2k", "13M");
}

static void test_compressed(void **state)
{
    static const char *const kinds[] = {"compression_type=zlib", "compression_type=zstd",
                                        "compression_type=zlib,cluster_size=4k",
                                        "compression_type=zstd,cluster_size=512"};
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(
            shell("rm -f source r.qcow2; truncate -s 9M source && for i in 1 2 3; do seq 1 90000 | dd "
                  "of=source bs=1M seek=$((2*i)) conv=notrunc status=none; done; qemu-img convert -q "
                  "-c -f raw -O qcow2 -o %s source r.qcow2",
                  kinds[i]),
            0);
        run_on(scratch_path("r.qcow2"), "qcow2", 50);
    }
}

/* A snapshot inside the image stays what it was. */
static void test_internal_snapshot(void **state)
{
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(
            shell("rm -f r.qcow2; qemu-img create -q -f qcow2 -o cluster_size=%s r.qcow2 12M && "
                  "qemu-io -f qcow2 -c 'write -P 9 1M 3M' -c 'write -P 8 7M 900k' r.qcow2 >/dev/null && "
                  "qemu-img snapshot -c one r.qcow2 && qemu-img convert -f qcow2 -l one -O raw r.qcow2 "
                  "before",
                  i ? "4k" : "64k"),
            0);
        run_on(scratch_path("r.qcow2"), "qcow2", 66);
        assert_int_equal(shell("qemu-img convert -f qcow2 -l one -O raw r.qcow2 after && cmp before after"),
                         0);
        /* What only the snapshot kept is free once it is gone. */
        assert_int_equal(shell("qemu-img snapshot -d one r.qcow2"), 0);
        check_image("r.qcow2", false);
    }
}

/* Images made here. */
static void test_made_here(void **state)
{
    const struct disk_create plain = {.format = "qcow2", .size = 17 << 20};
    const struct disk_create overlay = {
        .format = "qcow2", .size = 20 << 20, .backing = "made", .backing_format = "qcow2"};

    assert_int_equal(disk_create(scratch_path("made"), &plain, NULL), 0);
    check_image("made", false);
    run_on(scratch_path("made"), "qcow2", 50);
    assert_int_equal(disk_create(scratch_path("made-overlay"), &overlay, NULL), 0);
    check_image("made-overlay", false);
    assert_int_equal(shell("cp made before"), 0);
    run_on(scratch_path("made-overlay"), "qcow2", 50);
    assert_int_equal(shell("cmp -s made before"), 0);
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
        cmocka_unit_test(test_overlays),
        cmocka_unit_test(test_compressed),
        cmocka_unit_test(test_internal_snapshot),
        cmocka_unit_test(test_made_here),
    };
    const char *seed = getenv("TABIQUE_SEED");

    rng_state = seed ? strtoull(seed, NULL, 0) : (unsigned long long)time(NULL) << 20 | (unsigned)getpid();
    printf("TABIQUE_SEED=%llu\n", rng_state);
    fflush(stdout);
    return cmocka_run_group_tests_name("qcow2 random", tests, NULL, scratch_remove);
}

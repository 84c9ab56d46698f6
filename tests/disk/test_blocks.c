/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VDI, VHD, VHDX and VMDK: random requests against a model and QEMU's reading, and images that lie.
 * TABIQUE_STEPS makes the sequences longer (of each kind; 10,000 requests).
 */
#include "base/bytes.h"
#include "base/error.h"
#include "random.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned batches = 10000 / 6;

/* `theirs`: QEMU's name of the format, with options. */
static void random_on_theirs(const char *format, const char *theirs, const char *size)
{
    assert_int_equal(shell("rm -f r; qemu-img create -q -f %s r %s", theirs, size), 0);
    random_run(scratch_path("r"), format, batches / 2);
}

static void random_on_ours(const char *format, const char *subformat, uint64_t size)
{
    const struct disk_create what = {.format = format, .subformat = subformat, .size = size};

    assert_int_equal(shell("rm -f r"), 0);
    assert_int_equal(disk_create(scratch_path("r"), &what, NULL), 0);
    random_run(scratch_path("r"), format, batches / 2);
}

/* With other sizes in between. `options`: QEMU's, of 10 MiB; NULL: one of ours. */
static void random_sizes(const char *format, const char *options)
{
    const struct disk_create what = {.format = format, .size = 10 << 20};

    assert_int_equal(shell("rm -f r"), 0);
    if (options)
        assert_int_equal(shell("qemu-img create -q -f %s r 10M", options), 0);
    else
        assert_int_equal(disk_create(scratch_path("r"), &what, NULL), 0);
    random_life(scratch_path("r"), format, true, false, 150);
}

static void test_vdi_sizes(void **state)
{
    random_sizes("vdi", NULL);
    random_sizes("vdi", "vdi");
    random_sizes("vdi", "vdi -o static=on");
}

static void test_vhd_sizes(void **state)
{
    random_sizes("vhd", NULL);
    random_sizes("vhd", "vpc");
    random_sizes("vhd", "vpc -o subformat=fixed");
}

static void test_vhdx_sizes(void **state)
{
    random_sizes("vhdx", NULL);
    random_sizes("vhdx", "vhdx -o block_size=1M");
}

static void test_vmdk_sizes(void **state)
{
    random_sizes("vmdk", NULL);
    random_sizes("vmdk", "vmdk");
}

static void test_vdi_random(void **state)
{
    random_on_theirs("vdi", "vdi", "19M");
    random_on_theirs("vdi", "vdi -o static=on", "5M");
    random_on_ours("vdi", NULL, (19 << 20) + 512);
}

static void test_vhd_random(void **state)
{
    random_on_theirs("vhd", "vpc", "19M");
    random_on_theirs("vhd", "vpc -o subformat=fixed", "7M");
    random_on_ours("vhd", NULL, (21 << 20) - 512);
    random_on_ours("vhd", "fixed", (17 << 20) + 1024);
}

static void test_vmdk_random(void **state)
{
    random_on_theirs("vmdk", "vmdk", "19M");
    random_on_ours("vmdk", NULL, (21 << 20) - 512);
}

/* In several files, sparse and flat, which end within grains, and the second of which does not begin with
 * the disk's. */
static void test_vmdk_set_random(void **state)
{
    assert_int_equal(
        shell(
            "rm -f r r-*; qemu-img create -q -f vmdk r-1 3M && head -c 5000k /dev/urandom >r-2 && qemu-img "
            "create -q -f vmdk r-3 $((1024*512)) && qemu-img create -q -f raw r-4 512 && qemu-img create -q "
            "-f vmdk r-5 8M && { echo '# Disk DescriptorFile'; echo CID=12345678; echo parentCID=ffffffff; "
            "echo 'createType=\"twoGbMaxExtentSparse\"'; echo 'RW 6144 SPARSE \"r-1\"'; echo 'RW 9993 FLAT "
            "\"r-2\" 7'; "
            "echo 'RW 1024 SPARSE \"r-3\"'; echo 'RW 1 FLAT \"r-4\" 0'; echo 'RW 16384 SPARSE \"r-5\"'; } "
            ">r"),
        0);
    random_run(scratch_path("r"), "vmdk", batches / 2);
}

/* On top of another image, which is shorter, of the same format. */
static void random_on_top(const char *format, const char *theirs, const char *options)
{
    struct error *err = NULL;
    const struct disk_create what = {
        .format = format, .backing = "base", .backing_format = format, .size = 19 << 20};

    assert_int_equal(
        shell("rm -f r base; head -c 9m /dev/urandom >base.raw && truncate -s 12m base.raw && head "
              "-c 2m /dev/urandom >>base.raw && qemu-img convert -f raw -O %s %s base.raw base",
              theirs, options),
        0);
    if (disk_create(scratch_path("r"), &what, &err))
        fail_msg("%s", error_message(err));
    random_run(scratch_path("r"), format, batches / 4);
}

static void test_vmdk_on_top(void **state)
{
    random_on_top("vmdk", "vmdk", "");
    assert_int_equal(
        shell("rm r && qemu-img create -q -f vmdk -b base -F vmdk -o zeroed_grain=on r && qemu-io "
              "-f vmdk -c 'write -z 5M 1M' r >/dev/null"),
        0);
    random_run(scratch_path("r"), "vmdk", batches / 4);
}

/* Of a block some sectors are the parent's, at random. */
static void tear_block(uint32_t entry_at)
{
    uint8_t bits[512], entry[4];
    int fd = open(scratch_path("r"), O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, entry, 4, entry_at), 4);
    assert_int_not_equal(get_be32(entry), UINT32_MAX);
    assert_int_equal(shell("head -c 512 /dev/urandom >bits"), 0);
    int from = open(scratch_path("bits"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(from, bits, 512), 512);
    close(from);
    assert_int_equal(pwrite(fd, bits, 512, (off_t)get_be32(entry) * 512), 512);
    close(fd);
}

static void test_vhd_on_top(void **state)
{
    struct image image;
    static uint8_t bytes[5 << 20];

    random_without_qemu(true);
    random_on_top("vhd", "vpc", "-o force_size=on");
    assert_int_equal(shell("rm r"), 0);
    const struct disk_create what = {
        .format = "vhd", .backing = "base", .backing_format = "vhd", .size = 14 << 20};
    assert_int_equal(disk_create(scratch_path("r"), &what, NULL), 0);
    memset(bytes, 0x5a, sizeof(bytes));
    image_open(&image, scratch_path("r"), "vhd", 0);
    assert_int_equal(image_write(&image, 3 << 20, bytes, sizeof(bytes)), 0);
    image_close(&image);
    for (unsigned i = 1; i < 4; i++)
        tear_block(1536 + 4 * i);
    random_run(scratch_path("r"), "vhd", batches / 4);
    random_without_qemu(false);
}

/* The same of blocks of a VHDX, of 1 MiB: the bits go to the end of the file. */
static void tear_vhdx(uint32_t from, uint32_t to)
{
    const uint64_t table = 3 << 20;
    uint8_t entry[8];
    int fd = open(scratch_path("r"), O_RDWR | O_CLOEXEC);
    off_t end = lseek(fd, 0, SEEK_END);

    assert_true(fd >= 0 && end % (1 << 20) == 0);
    assert_int_equal(shell("head -c 1M /dev/urandom >>r"), 0);
    put_le64(entry, (uint64_t)end | 6);
    assert_int_equal(pwrite(fd, entry, 8, (off_t)(table + 8ull * 4096)), 8);
    for (uint32_t i = from; i < to; i++) {
        assert_int_equal(pread(fd, entry, 8, (off_t)(table + 8ull * i)), 8);
        assert_int_equal(entry[0] & 7, 6);
        entry[0] |= 7;
        assert_int_equal(pwrite(fd, entry, 8, (off_t)(table + 8ull * i)), 8);
    }
    close(fd);
}

static void test_vhdx_on_top(void **state)
{
    const struct disk_create what = {.format = "vhdx",
                                     .backing = "base",
                                     .backing_format = "vhdx",
                                     .cluster_size = 1 << 20,
                                     .size = 14 << 20};
    static uint8_t bytes[5 << 20];
    struct image image;

    random_without_qemu(true);
    random_on_top("vhdx", "vhdx", "-o block_size=1M");
    assert_int_equal(shell("rm r"), 0);
    assert_int_equal(disk_create(scratch_path("r"), &what, NULL), 0);
    memset(bytes, 0x5a, sizeof(bytes));
    image_open(&image, scratch_path("r"), "vhdx", 0);
    assert_int_equal(image_write(&image, 3 << 20, bytes, sizeof(bytes)), 0);
    image_close(&image);
    tear_vhdx(3, 8);
    random_run(scratch_path("r"), "vhdx", batches / 4);
    random_without_qemu(false);
}

static void test_vhdx_random(void **state)
{
    const struct disk_create what = {.format = "vhdx", .cluster_size = 1 << 20, .size = (19 << 20) + 512};

    random_on_theirs("vhdx", "vhdx -o block_size=1M", "19M");
    random_on_theirs("vhdx", "vhdx -o subformat=fixed", "16M");
    random_on_ours("vhdx", NULL, 20 << 20);
    random_on_ours("vhdx", "fixed", (9 << 20) + 1024);
    assert_int_equal(shell("rm -f r"), 0);
    assert_int_equal(disk_create(scratch_path("r"), &what, NULL), 0);
    random_run(scratch_path("r"), "vhdx", batches / 2);
}

/* ---- images that lie ---- */

static void put(const char *name, uint64_t at, const void *bytes, size_t len)
{
    int fd = open(scratch_path(name), O_WRONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, len, (off_t)at), len);
    close(fd);
}

static void put_le(const char *name, uint64_t at, uint32_t value)
{
    uint8_t bytes[4];

    put_le32(bytes, value);
    put(name, at, bytes, 4);
}

/* With two blocks of content. */
static void make(const char *format)
{
    assert_int_equal(
        shell("rm -f bad; qemu-img create -q -f %s bad 12M && qemu-io -f %s -c 'write -P 1 0 64k' "
              "-c 'write -P 2 6M 64k' bad >/dev/null",
              format, format),
        0);
}

static void vdi_refused(uint64_t at, uint32_t value, unsigned flags, const char *part)
{
    make("vdi");
    put_le("bad", at, value);
    image_refused(scratch_path("bad"), "vdi", flags, part);
}

static void test_vdi_lies(void **state)
{
    struct image image;
    uint8_t sector[512];

    vdi_refused(0x40, 1, 0, "not a VDI image");
    vdi_refused(0x44, 0x20001, 0, "version 2.1");
    vdi_refused(0x4c, 4, 0, "differs from another");
    vdi_refused(0x1b8, 1, 0, "differs from another");
    vdi_refused(0x168, 4096, 0, "sectors of 4096");
    vdi_refused(0x178, 0, 0, "blocks of 0");
    vdi_refused(0x178, 3 << 20, 0, "blocks of 3145728");
    vdi_refused(0x178, 1u << 31, 0, "blocks of 2147483648");
    vdi_refused(0x17c, 512, 0, "and 512 more");
    vdi_refused(0x174, 0x7fffffff, 0, "too large");
    vdi_refused(0x180, 0xffffffff, 0, "too large");
    vdi_refused(0x180, 15 << 20, 0, "table");
    vdi_refused(0x154, 0, 0, "table");
    vdi_refused(0x154, 0xfffffe00, 0, "table");
    vdi_refused(0x158, 512, 0, "table");
    vdi_refused(512, 0xfffffffd, 0, "block 0 is said to lie behind its end");
    /* Two blocks in one place: read, but never written. */
    vdi_refused(512 + 4 * 6, 0, 0, "in one place");
    image_open(&image, scratch_path("bad"), "vdi", IMAGE_READ_ONLY);
    assert_int_equal(image_read(&image, 6 << 20, sector, 512), 0);
    assert_int_equal(sector[0], 1);
    image_close(&image);
    assert_int_equal(shell("truncate -s 600 bad"), 0);
    image_refused(scratch_path("bad"), "vdi", 0, "behind its end");
}

/* Changes the header of a dynamic image and makes its checksum right. */
static void vhd_refused(uint64_t at, uint32_t value, unsigned flags, const char *part)
{
    uint8_t h[1024];
    uint32_t sum = 0;

    make("vpc");
    int fd = open(scratch_path("bad"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, h, sizeof(h), 512), sizeof(h));
    close(fd);
    put_be32(h + at, value);
    put_be32(h + 36, 0);
    for (unsigned i = 0; i < sizeof(h); i++)
        sum += h[i];
    put_be32(h + 36, ~sum);
    put("bad", 512, h, sizeof(h));
    image_refused(scratch_path("bad"), "vhd", flags, part);
}

static void test_vhd_lies(void **state)
{
    uint8_t entry[4];
    struct image image;

    vhd_refused(28, 0xffffffff, 0, "too large");
    vhd_refused(28, 1, 0, "too large");
    vhd_refused(28, 15 << 20, 0, "within its table");
    vhd_refused(32, 3000, 0, "blocks of 3000");
    vhd_refused(32, 1u << 31, 0, "blocks of 2147483648");
    vhd_refused(16, 0x7fffffff, 0, "within its table");
    vhd_refused(20, 0, 0, "lie");
    make("vpc");
    put("bad", 512 + 40, "x", 1);
    image_refused(scratch_path("bad"), "vhd", 0, "no valid header");
    make("vpc");
    put_be32(entry, 0xfffffffe);
    put("bad", 1536, entry, 4);
    image_refused(scratch_path("bad"), "vhd", 0, "block 0 is said to lie behind its end");
    /* A block on the header. */
    make("vpc");
    put_be32(entry, 1);
    put("bad", 1536, entry, 4);
    image_refused(scratch_path("bad"), "vhd", 0, "in one place");
    /* The footer is gone: there is its copy. */
    make("vpc");
    assert_int_equal(shell("truncate -s -512 bad"), 0);
    image_open(&image, scratch_path("bad"), "vhd", 0);
    assert_int_equal(image_write(&image, 8 << 20, (uint8_t[512]){7}, 512), 0);
    image_close(&image);
    assert_int_equal(
        shell("cp bad good && qemu-io -f vpc -c 'read -P 7 8M 1' good >read.log && grep -q 'read 1/1' "
              "read.log && ! grep -q failed read.log"),
        0);
    put("bad", 0, "x", 1);
    assert_int_equal(shell("truncate -s -512 bad"), 0);
    image_refused(scratch_path("bad"), "vhd", 0, "no valid footer");
    assert_int_equal(shell("truncate -s 100 bad"), 0);
    image_refused(scratch_path("bad"), "vhd", 0, "no valid footer");
}

static uint32_t get_le(const char *name, uint64_t at)
{
    uint8_t bytes[4];
    int fd = open(scratch_path(name), O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, bytes, 4, (off_t)at), 4);
    close(fd);
    return get_le32(bytes);
}

/* What can be read, but must not be written. */
static void test_vmdk_lies(void **state)
{
    struct image image;

    make("vmdk");
    uint32_t spare = get_le("bad", 48), directory = get_le("bad", 56), table = get_le("bad", directory * 512);
    uint32_t grain = get_le("bad", table * 512), other = get_le("bad", table * 512 + 4 * 96);
    const struct {
        uint64_t at;
        uint32_t value;
        const char *part;
    } lies[] = {
        {directory * 512, 0, "not all of its tables"},
        {spare * 512, 0, "not all of its tables"},
        {spare * 512, table, "in one place"},
        {directory * 512, spare, "in one place"},
        {table * 512, other, "in one place"},
        {table * 512, other - 1, "in one place"},
        {table * 512, directory, "in one place"},
        {table * 512, spare, "in one place"},
        {table * 512, get_le("bad", spare * 512), "in one place"},
        {table * 512, 1, "in one place"},
        {48, 0x7fffffff, "behind its end"},
        {52, 1, "nowhere"},
    };

    assert_true(grain && other && spare);
    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        make("vmdk");
        put_le("bad", lies[i].at, lies[i].value);
        image_refused(scratch_path("bad"), "vmdk", 0, lies[i].part);
        image_open(&image, scratch_path("bad"), "vmdk", IMAGE_READ_ONLY);
        image_close(&image);
    }
    assert_int_equal(shell("rm -f r && qemu-img create -q -f vmdk -o subformat=streamOptimized r 1M"), 0);
    image_refused(scratch_path("r"), "vmdk", 0, "compressed VMDK");
    /* Who writes says so, and gives the content another ID. */
    make("vmdk");
    assert_int_equal(shell("head -c 2000 bad | grep -a ^CID= >before"), 0);
    image_open(&image, scratch_path("bad"), "vmdk", 0);
    assert_int_equal(get_le("bad", 72) & 0xff, 0);
    assert_int_equal(image_write(&image, 0, (uint8_t[512]){7}, 512), 0);
    assert_int_equal(get_le("bad", 72) & 0xff, 1);
    image_close(&image);
    assert_int_equal(get_le("bad", 72) & 0xff, 0);
    assert_int_equal(shell("head -c 2000 bad | grep -a ^CID= >after && ! cmp -s before after"), 0);
}

/* What a program that was cut off has left behind the last block is not what the next block begins with. */
static void test_rest_of_a_lost_block(void **state)
{
    static const char *const formats[][2] = {
        {"vdi", "vdi"}, {"vhd", "vpc"}, {"vhdx", "vhdx"}, {"vmdk", "vmdk"}};
    uint8_t buf[4096] = {9};
    struct image image;

    for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
        make(formats[i][1]);
        assert_int_equal(shell("head -c 3M /dev/urandom >>bad"), 0);
        image_open(&image, scratch_path("bad"), formats[i][0], 0);
        assert_int_equal(image_write(&image, 10 << 20, buf, 512), 0);
        memset(buf, 1, sizeof(buf));
        assert_int_equal(image_read(&image, (10 << 20) + 512, buf, sizeof(buf)), 0);
        for (unsigned k = 0; k < sizeof(buf); k++)
            assert_int_equal(buf[k], 0);
        memset(buf, 9, 1);
        image_close(&image);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vdi_random),      cmocka_unit_test(test_vhd_random),
        cmocka_unit_test(test_vhdx_random),     cmocka_unit_test(test_vmdk_random),
        cmocka_unit_test(test_vmdk_set_random), cmocka_unit_test(test_vmdk_on_top),
        cmocka_unit_test(test_vhd_on_top),      cmocka_unit_test(test_vhdx_on_top),
        cmocka_unit_test(test_vdi_sizes),       cmocka_unit_test(test_vhd_sizes),
        cmocka_unit_test(test_vhdx_sizes),      cmocka_unit_test(test_vmdk_sizes),
        cmocka_unit_test(test_vdi_lies),        cmocka_unit_test(test_vhd_lies),
        cmocka_unit_test(test_vmdk_lies),       cmocka_unit_test(test_rest_of_a_lost_block),
    };
    const char *steps = getenv("TABIQUE_STEPS");

    if (steps)
        batches = (unsigned)atoi(steps) / 6;
    random_begin();
    return cmocka_run_group_tests_name("blocks", tests, NULL, scratch_remove);
}

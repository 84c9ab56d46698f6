/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VHDX files that lie, and logs that were left behind: those that QEMU replays too, and those that nobody
 * may. */
#include "base/bytes.h"
#include "disk/crc32c.h"
#include "disk/maintain.h"
#include "image.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB (1u << 20)
/* Where QEMU has them. */
#define LOG      MIB
#define TABLE    (2 * MIB)
#define METADATA (3 * MIB)

static void at_file(const char *name, uint64_t at, void *bytes, size_t len, bool write)
{
    int fd = open(scratch_path(name), O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write ? pwrite(fd, bytes, len, (off_t)at) : pread(fd, bytes, len, (off_t)at), len);
    close(fd);
}

/* With two blocks of content. */
static void make(void)
{
    assert_int_equal(
        shell("rm -f bad; qemu-img create -q -f vhdx -o block_size=1M bad 12M && qemu-io -f vhdx "
              "-c 'write -P 1 0 64k' -c 'write -P 2 6M 64k' bad >/dev/null"),
        0);
}

/* Changes bytes of a structure of `len` bytes and makes its checksum right. */
static void change(uint64_t structure, size_t len, uint64_t at, uint64_t value, unsigned bytes)
{
    uint8_t *p = malloc(len), word[8];

    assert_non_null(p);
    at_file("bad", structure, p, len, false);
    put_le64(word, value);
    memcpy(p + at, word, bytes);
    put_le32(p + 4, 0);
    put_le32(p + 4, crc32c(0, p, len));
    at_file("bad", structure, p, len, true);
    free(p);
}

static void header_refused(uint64_t at, uint64_t value, unsigned bytes, const char *part)
{
    make();
    change(64 << 10, 4096, at, value, bytes);
    change(128 << 10, 4096, at, value, bytes);
    image_refused(scratch_path("bad"), "vhdx", 0, part);
}

static void region_refused(uint64_t at, uint64_t value, unsigned bytes, const char *part)
{
    make();
    change(192 << 10, 65536, at, value, bytes);
    image_refused(scratch_path("bad"), "vhdx", 0, part);
}

static void bytes_refused(uint64_t at, uint64_t value, unsigned bytes, const char *part)
{
    uint8_t word[8];

    make();
    put_le64(word, value);
    at_file("bad", at, word, bytes, true);
    image_refused(scratch_path("bad"), "vhdx", 0, part);
}

static void test_lies(void **state)
{
    uint8_t zeros[4096] = {0}, sector[512];
    struct image image;

    header_refused(66, 2, 2, "version 2");
    header_refused(68, 4096, 4, "region of 4096 bytes");
    header_refused(68, 0, 4, "region of 0 bytes");
    header_refused(72, 0, 8, "at byte 0");
    header_refused(72, UINT64_MAX - MIB + 1, 8, "is said to lie at");
    header_refused(72, TABLE, 8, "in one place");
    header_refused(8, 77, 8, "one number");
    region_refused(8, 3, 4, "is said to lie at");
    region_refused(8, 1, 4, "no metadata");
    region_refused(8, 2048, 4, "no valid table of regions");
    region_refused(16 + 16, METADATA, 8, "in one place");
    region_refused(16 + 16, 1ull << 62, 8, "is said to lie at");
    region_refused(16 + 16, 1ull << 40, 8, "cut off");
    region_refused(16, 0, 4, "no table of blocks");
    /* Its checksum is wrong, and so is the other copy's. */
    make();
    at_file("bad", 192 << 10, zeros, 4096, true);
    image_open(&image, scratch_path("bad"), "vhdx", 0);
    image_close(&image);
    at_file("bad", 256 << 10, zeros, 4096, true);
    image_refused(scratch_path("bad"), "vhdx", 0, "no valid table of regions");
    make();
    at_file("bad", 64 << 10, zeros, 4096, true);
    image_open(&image, scratch_path("bad"), "vhdx", IMAGE_READ_ONLY);
    assert_int_equal(image_read(&image, 6 << 20, sector, 512), 0);
    assert_int_equal(sector[0], 2);
    image_close(&image);
    at_file("bad", 128 << 10, zeros, 4096, true);
    image_refused(scratch_path("bad"), "vhdx", 0, "no valid header");
}

static void test_metadata_and_table_that_lie(void **state)
{
    uint8_t word[8];
    struct image image;

    bytes_refused(METADATA, 0, 8, "no valid metadata");
    bytes_refused(METADATA + 10, 2048, 2, "no valid metadata");
    bytes_refused(METADATA + 10, 4, 2, "missing");
    bytes_refused(METADATA + 64, 0, 8, "not known here");
    bytes_refused(METADATA + 32 + 16, 0, 4, "not where they are said");
    bytes_refused(METADATA + 32 + 16, UINT32_MAX, 4, "not where they are said");
    bytes_refused(METADATA + 32 + 20, 9, 4, "not where they are said");
    bytes_refused(METADATA + 65536, 3 << 20, 4, "blocks of 3145728");
    bytes_refused(METADATA + 65536, 1u << 31, 4, "blocks of");
    bytes_refused(METADATA + 65536, 65536, 4, "blocks of 65536");
    bytes_refused(METADATA + 65536 + 4, 2, 4, "does not say what it is based on");
    bytes_refused(METADATA + 65536 + 8, 1ull << 63, 8, "size of");
    bytes_refused(METADATA + 65536 + 8, 513, 8, "size of");
    bytes_refused(METADATA + 65536 + 8, 64ull << 40, 8, "16777216 are read here");
    bytes_refused(METADATA + 65536 + 8, 1ull << 40, 8, "too short");
    bytes_refused(METADATA + 65536 + 32, 1024, 4, "sectors of 1024");
    bytes_refused(METADATA + 65536 + 32, 4096, 4, "read but not written");
    bytes_refused(TABLE, 6, 8, "block 0 is said to lie behind its end");
    bytes_refused(TABLE, 6 | 500ull << 20, 8, "block 0 is said to lie behind its end");
    bytes_refused(TABLE, UINT64_MAX - 1, 8, "block 0");
    bytes_refused(TABLE, 4, 8, "state 4");
    bytes_refused(TABLE, 7 | 4ull << 20, 8, "state 7");
    bytes_refused(TABLE, 6 | 2ull << 20, 8, "in one place");
    /* Two blocks in one place: read, but never written. */
    make();
    at_file("bad", TABLE, word, 8, false);
    at_file("bad", TABLE + 8, word, 8, true);
    image_refused(scratch_path("bad"), "vhdx", 0, "in one place");
    image_open(&image, scratch_path("bad"), "vhdx", IMAGE_READ_ONLY);
    image_close(&image);
}

/* ---- logs ---- */

static const uint8_t log_id[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9};

struct change {
    const char *kind; /* "desc" or "zero" */
    uint64_t offset, length;
    uint8_t fill;
};

/* An entry at sector `at` of the log, of which the oldest is at sector `tail`. */
static void put_entry(uint32_t at, uint32_t tail, uint64_t sequence, const struct change *c, unsigned n,
                      uint64_t last_end)
{
    static uint8_t e[64 * 4096];
    uint32_t sectors = 1;

    memset(e, 0, sizeof(e));
    for (unsigned i = 0; i < n; i++) {
        uint8_t *d = e + 64 + 32 * i;
        memcpy(d, c[i].kind, 4);
        put_le64(d + 8, c[i].length);
        put_le64(d + 16, c[i].offset);
        put_le64(d + 24, sequence);
        if (strcmp(c[i].kind, "desc") != 0)
            continue;
        uint8_t *bytes = e + 4096 * (size_t)sectors++;
        memset(d + 4, c[i].fill, 12);
        memset(bytes, c[i].fill, 4096);
        memcpy(bytes, "data", 4);
        put_le32(bytes + 4, (uint32_t)(sequence >> 32));
        put_le32(bytes + 4092, (uint32_t)sequence);
    }
    memcpy(e, "loge", 4);
    put_le32(e + 8, sectors * 4096);
    put_le32(e + 12, tail * 4096);
    put_le64(e + 16, sequence);
    put_le32(e + 24, n);
    memcpy(e + 32, log_id, 16);
    put_le64(e + 48, MIB);
    put_le64(e + 56, last_end);
    put_le32(e + 4, crc32c(0, e, sectors * 4096));
    for (uint32_t i = 0; i < sectors; i++)
        at_file("bad", LOG + (at + i) % 256 * 4096, e + 4096 * (size_t)i, 4096, true);
}

static void name_log(void)
{
    uint64_t a, b;

    memcpy(&a, log_id, 8);
    memcpy(&b, log_id + 8, 8);
    for (unsigned i = 0; i < 2; i++) {
        change(65536 + 65536 * i, 4096, 48, a, 8);
        change(65536 + 65536 * i, 4096, 56, b, 8);
    }
}

static void log_refused(const struct change *c, uint64_t last_end, const char *part)
{
    make();
    name_log();
    put_entry(3, 3, 9, c, 1, last_end);
    image_refused(scratch_path("bad"), "vhdx", IMAGE_READ_ONLY, part);
    image_refused(scratch_path("bad"), "vhdx", 0, part);
}

static void check_and_repair(void)
{
    struct disk_job job = {0};
    struct disk_checking how = {.job = &job};
    struct disk_check_result result;

    assert_int_equal(disk_check(scratch_path("bad"), "vhdx", &how, &result, NULL), 0);
    assert_int_equal(result.corruptions, 1);
    how.repair = DISK_REPAIR_ALL;
    assert_int_equal(disk_check(scratch_path("bad"), "vhdx", &how, &result, NULL), 0);
    assert_int_equal(result.corruptions, 0);
    assert_int_equal(result.corruptions_fixed, 1);
    assert_int_equal(shell("qemu-img check -q -f vhdx bad && qemu-img compare -q bad theirs"), 0);
}

/* Three entries, the last around the ring's end; a newer one is torn, an older one is of the past. They make
 * block 9 one with the content of block 0's place. */
static void test_replay(void **state)
{
    struct image image;
    uint8_t sector[512], table[4096], word[8];

    for (unsigned read_only = 0; read_only < 2; read_only++) {
        make();
        at_file("bad", TABLE, table, 4096, false);
        name_log();
        struct change first[] = {{"desc", TABLE, 0, 0xff}};
        struct change zero[] = {{"zero", TABLE, 4096, 0}};
        struct change last[] = {{"zero", TABLE + 65536, 8192, 0}, {"desc", TABLE + 8192, 0, 0}};
        put_entry(250, 250, 41, first, 1, 24 * MIB);
        put_entry(252, 252, 42, first, 1, 24 * MIB);
        put_entry(254, 252, 43, zero, 1, 24 * MIB);
        put_entry(255, 252, 44, last, 2, 24 * MIB);
        put_entry(1, 252, 45, first, 1, 24 * MIB);
        memset(word, 0x55, 8);
        at_file("bad", LOG + 2 * 4096 + 100, word, 8, true);
        assert_int_equal(shell("cp bad theirs && qemu-img check -q -r all -f vhdx theirs"), 0);
        image_open(&image, scratch_path("bad"), "vhdx", read_only ? IMAGE_READ_ONLY : 0);
        assert_int_equal(image_read(&image, 6 << 20, sector, 512), 0);
        assert_int_equal(sector[0], 0); /* the table is zeros now */
        image_close(&image);
        at_file("bad", TABLE, table, 8, false);
        assert_int_equal(get_le64(table) == 0, !read_only);
        if (read_only)
            check_and_repair();
        if (!read_only) {
            assert_int_equal(shell("qemu-img check -q -f vhdx bad && qemu-img compare -q bad theirs"), 0);
            assert_int_equal(shell("test $(stat -c %%s bad) = 25165824"), 0);
        }
    }
}

static void test_logs_that_lie(void **state)
{
    struct change c = {"desc", TABLE, 4096, 0};

    make();
    name_log();
    image_refused(scratch_path("bad"), "vhdx", 0, "no valid entry");
    log_refused(&(struct change){"desc", 0, 0, 7}, 16 * MIB, "where it may not");
    log_refused(&(struct change){"desc", LOG + 4096, 0, 7}, 16 * MIB, "where it may not");
    log_refused(&(struct change){"zero", 256 << 10, 1ull << 62, 7}, 16 * MIB, "where it may not");
    log_refused(&(struct change){"zero", 256 << 10, 16 * MIB, 7}, 16 * MIB, "where it may not");
    log_refused(&(struct change){"desc", 8 * MIB, 0, 7}, 16 * MIB, "content of a block");
    log_refused(&(struct change){"desc", TABLE + 1, 0, 7}, 16 * MIB, "no valid entry");
    log_refused(&(struct change){"nonsense", TABLE, 0, 7}, 16 * MIB, "no valid entry");
    log_refused(&(struct change){"zero", TABLE, 77, 7}, 16 * MIB, "no valid entry");
    log_refused(&c, 1ull << 62, "size that it can't have");
    log_refused(&c, 77, "size that it can't have");
    /* The oldest that it needs is not there; a chain that never comes to its end. */
    make();
    name_log();
    put_entry(3, 9, 9, &c, 1, 16 * MIB);
    image_refused(scratch_path("bad"), "vhdx", 0, "no valid entry");
    put_entry(9, 3, 8, &c, 1, 16 * MIB);
    image_refused(scratch_path("bad"), "vhdx", 0, "no valid entry");
    /* A log that is larger than the memory it may take. */
    make();
    name_log();
    change(65536, 4096, 68, 65 << 20, 4);
    change(131072, 4096, 68, 65 << 20, 4);
    image_refused(scratch_path("bad"), "vhdx", 0, "64 are read here at most");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_metadata_and_table_that_lie),
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_logs_that_lie),
    };
    return cmocka_run_group_tests_name("vhdx", tests, NULL, scratch_remove);
}

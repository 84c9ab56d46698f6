/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests of the block device through its registers and queue, on a raw file. The device has a thread of its
 * own, so answers are waited for. */
#include "base/bytes.h"
#include "base/error.h"
#include "device/virtio/block.h"
#include "disk/disk.h"
#include "driver.h"
#include "host/loop.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define SECTOR 512u
#define SIZE   (1u << 20)
#define QUEUE  64u

/* Where a request's parts are in RAM. */
#define HEADER (DRIVER_BUFFERS)
#define STATUS (DRIVER_BUFFERS + 0x800)
#define DATA   (DRIVER_BUFFERS + 0x1000)

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2, NONE = 0xee };

#define F_RO           VIRTIO_FEATURE(5)
#define F_FLUSH        VIRTIO_FEATURE(9)
#define F_CONFIG_WCE   VIRTIO_FEATURE(11)
#define F_DISCARD      VIRTIO_FEATURE(13)
#define F_WRITE_ZEROES VIRTIO_FEATURE(14)

struct rig {
    struct fixture f;
    struct disk_files *files;
    int fd; /* of the image, for the test's own eyes */
    struct device *device;
    struct driver d;
    struct driver_queue q;
};

/* Memory has no holes to punch and nothing to sync where it is a file of /dev/shm or the like; a real file is
 * nearer to what is used. */
static int image(uint64_t size)
{
    char path[] = "/var/tmp/tabique-test-block-XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);

    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static struct rig *start(bool read_only, bool uring, uint64_t features)
{
    struct rig *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    fixture_init(&r->f);
    r->fd = image(SIZE);
    const struct disk_file file = {.fd = dup(r->fd), .name = (char *)"image", .format = (char *)"raw"};
    assert_int_equal(disk_files_new(&r->files, &file, 1, read_only, NULL), 0);
    if (!uring)
        disk_files_avoid_uring(r->files);
    const struct virtio_block_config config = {.files = r->files, .serial = "serial-number"};
    assert_int_equal(virtio_block_class.create(&r->device, &r->f.env, &config, NULL), 0);
    assert_true(driver_find(&r->d, &r->f, VIRTIO_TYPE_BLOCK));
    assert_true(driver_start(&r->d, features, &r->q, 1, QUEUE));
    return r;
}

static void stop(struct rig *r)
{
    r->device->class->destroy(r->device);
    disk_files_close(r->files);
    fixture_fini(&r->f);
    close(r->fd);
    free(r);
}

static uint8_t *ram(struct rig *r, uint64_t gpa)
{
    return driver_ram(&r->f, gpa, 1);
}

static void kick(struct rig *r)
{
    io_space_write(r->f.env.mmio, r->q.doorbell, 2, 0);
}

/* Waits for a used buffer: its length. */
static uint32_t wait_used(struct rig *r)
{
    uint32_t id, len;
    uint64_t until = loop_now() + 60000000000ull;

    while (!driver_used(&r->q, &id, &len)) {
        assert_true(loop_now() < until);
        usleep(50);
    }
    return len;
}

static void header(struct rig *r, uint64_t gpa, uint32_t type, uint64_t sector)
{
    put_le32(ram(r, gpa), type);
    put_le32(ram(r, gpa + 4), 0);
    put_le64(ram(r, gpa + 8), sector);
}

/* One request with `len` bytes of data at DATA: its status. */
static uint8_t request(struct rig *r, uint32_t type, uint64_t sector, uint32_t len, bool in)
{
    const struct piece pieces[] = {{HEADER, 16, false}, {DATA, len, in}, {STATUS, 1, true}};
    const struct piece bare[] = {{HEADER, 16, false}, {STATUS, 1, true}};

    header(r, HEADER, type, sector);
    *ram(r, STATUS) = NONE;
    if (len)
        driver_add(&r->q, pieces, 3, false);
    else
        driver_add(&r->q, bare, 2, false);
    kick(r);
    assert_int_equal(wait_used(r), in ? len + 1 : 1);
    return *ram(r, STATUS);
}

static void fill(uint8_t *p, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 8));
}

static void write_and_read(bool uring, uint64_t features)
{
    struct rig *r = start(false, uring, features);
    static uint8_t expected[0x4000], seen[0x4000];

    for (unsigned round = 0; round < 40; round++) {
        uint32_t len = (1 + round % 32) * SECTOR;
        uint64_t sector = round * 50;
        fill(expected, len, round);
        memcpy(ram(r, DATA), expected, len);
        assert_int_equal(request(r, OUT, sector, len, false), OK);
        assert_int_equal(pread(r->fd, seen, len, (off_t)(sector * SECTOR)), len);
        assert_memory_equal(seen, expected, len);
        memset(ram(r, DATA), 0, len);
        fixture_clear_marks(&r->f);
        assert_int_equal(request(r, IN, sector, len, true), OK);
        assert_memory_equal(ram(r, DATA), expected, len);
        assert_int_equal(r->f.marked[DATA], 1);
        assert_int_equal(r->f.marked[DATA + len - 1], 1);
        assert_int_equal(r->f.marked[DATA + len], 0);
        assert_int_equal(r->f.marked[STATUS], 1);
    }
    assert_int_equal(request(r, FLUSH, 0, 0, false), OK);
    stop(r);
}

static void test_write_and_read(void **state)
{
    write_and_read(true, RINGS_SPLIT | F_FLUSH);
    write_and_read(true, RINGS_PACKED | RINGS_ALL | F_FLUSH);
    write_and_read(false, RINGS_SPLIT | RINGS_ALL | F_FLUSH);
    /* Write-through. */
    write_and_read(true, RINGS_SPLIT);
    write_and_read(false, RINGS_SPLIT | F_CONFIG_WCE);
}

/* 2.6.4.1: parts of a request may be cut anywhere, and share descriptors. */
static void test_framing(void **state)
{
    struct rig *r = start(false, true, RINGS_SPLIT | RINGS_ALL | F_FLUSH);
    static uint8_t expected[1024];

    fill(expected, sizeof(expected), 3);
    header(r, HEADER, OUT, 9);
    memcpy(ram(r, HEADER + 16), expected, 1000);
    memcpy(ram(r, DATA), expected + 1000, 24);
    const struct piece write[] = {
        {HEADER, 7, false}, {HEADER + 7, 1009, false}, {DATA, 24, false}, {STATUS, 1, true}};
    *ram(r, STATUS) = NONE;
    driver_add(&r->q, write, 4, true);
    kick(r);
    assert_int_equal(wait_used(r), 1);
    assert_int_equal(*ram(r, STATUS), OK);

    header(r, HEADER, IN, 9);
    const struct piece read[] = {
        {HEADER, 9, false}, {HEADER + 9, 7, false}, {DATA, 1, true}, {DATA + 1, 1024, true}};
    memset(ram(r, DATA), NONE, 1026);
    driver_add(&r->q, read, 4, true);
    kick(r);
    assert_int_equal(wait_used(r), 1025);
    assert_memory_equal(ram(r, DATA), expected, 1024);
    assert_int_equal(*ram(r, DATA + 1024), OK);
    assert_int_equal(*ram(r, DATA + 1025), NONE);
    stop(r);
}

static uint64_t config(struct rig *r, unsigned offset, unsigned size)
{
    return io_space_read(r->f.env.mmio, r->d.config + offset, size);
}

static void test_configuration(void **state)
{
    struct rig *r = start(false, true, RINGS_SPLIT | F_FLUSH | F_CONFIG_WCE);

    assert_int_equal(config(r, 0, 8), SIZE / SECTOR);
    assert_in_range(config(r, 12, 4), 64, 254);
    assert_int_equal(config(r, 20, 4), SECTOR);
    assert_true(config(r, 36, 4) && config(r, 40, 4) && config(r, 48, 4) && config(r, 52, 4));
    assert_int_equal(driver_offered(&r->d) & (F_RO | F_FLUSH | F_DISCARD | F_WRITE_ZEROES),
                     F_FLUSH | F_DISCARD | F_WRITE_ZEROES);
    /* Cached, for the driver can flush; until it says otherwise. */
    assert_int_equal(config(r, 32, 1), 1);
    io_space_write(r->f.env.mmio, r->d.config + 32, 1, 0);
    assert_int_equal(config(r, 32, 1), 0);
    assert_int_equal(request(r, OUT, 0, SECTOR, false), OK);
    assert_true(driver_start(&r->d, RINGS_SPLIT | F_CONFIG_WCE, &r->q, 1, QUEUE));
    assert_int_equal(config(r, 32, 1), 0);
    assert_true(driver_start(&r->d, RINGS_SPLIT | F_FLUSH, &r->q, 1, QUEUE));
    assert_int_equal(config(r, 32, 1), 1);
    io_space_write(r->f.env.mmio, r->d.config + 32, 1, 0);
    assert_int_equal(config(r, 32, 1), 1);
    stop(r);
}

static void test_serial(void **state)
{
    struct rig *r = start(false, true, RINGS_SPLIT);

    memset(ram(r, DATA), NONE, 32);
    assert_int_equal(request(r, GET_ID, 0, 20, true), OK);
    assert_memory_equal(ram(r, DATA), "serial-number\0\0\0\0\0\0\0", 20);
    assert_int_equal(*ram(r, DATA + 20), NONE);
    memset(ram(r, DATA), NONE, 32);
    assert_int_equal(request(r, GET_ID, 0, 6, true), OK);
    assert_memory_equal(ram(r, DATA), "serial\xee", 7);
    stop(r);
}

static uint64_t space(const struct rig *r)
{
    struct stat st;

    assert_int_equal(fstat(r->fd, &st), 0);
    return (uint64_t)st.st_blocks * SECTOR;
}

static void range(struct rig *r, unsigned i, uint64_t sector, uint32_t n, uint32_t flags)
{
    put_le64(ram(r, DATA + 16 * i), sector);
    put_le32(ram(r, DATA + 16 * i + 8), n);
    put_le32(ram(r, DATA + 16 * i + 12), flags);
}

static void write_all(struct rig *r)
{
    static uint8_t bytes[SIZE];

    memset(bytes, 0x5a, sizeof(bytes));
    assert_int_equal(pwrite(r->fd, bytes, sizeof(bytes), 0), sizeof(bytes));
    assert_int_equal(fsync(r->fd), 0);
}

static void check_bytes(const struct rig *r, uint64_t sector, uint32_t n, uint8_t value)
{
    static uint8_t seen[SIZE];

    assert_int_equal(pread(r->fd, seen, n * SECTOR, (off_t)(sector * SECTOR)), n * SECTOR);
    for (uint32_t i = 0; i < n * SECTOR; i++)
        assert_int_equal(seen[i], value);
}

static void discard_and_zero(bool uring)
{
    struct rig *r = start(false, uring, RINGS_SPLIT | F_FLUSH | F_DISCARD | F_WRITE_ZEROES);

    write_all(r);
    uint64_t full = space(r);
    range(r, 0, 0, 512, 0);
    range(r, 1, 1024, 256, 0);
    assert_int_equal(request(r, DISCARD, 0, 32, false), OK);
    assert_in_range(space(r), 0, full - 700 * SECTOR);
    check_bytes(r, 512, 512, 0x5a);
    check_bytes(r, 1280, 700, 0x5a);

    write_all(r);
    range(r, 0, 3, 400, 0);
    assert_int_equal(request(r, WRITE_ZEROES, 0, 16, false), OK);
    check_bytes(r, 0, 3, 0x5a);
    check_bytes(r, 3, 400, 0);
    check_bytes(r, 403, 1600, 0x5a);
    assert_in_range(space(r), full - 16 * SECTOR, UINT32_MAX);
    range(r, 0, 800, 800, 1);
    range(r, 1, 1999, 1, 1);
    assert_int_equal(request(r, WRITE_ZEROES, 0, 32, false), OK);
    check_bytes(r, 403, 397, 0x5a);
    check_bytes(r, 800, 800, 0);
    check_bytes(r, 1600, 399, 0x5a);
    check_bytes(r, 1999, 1, 0);
    check_bytes(r, 2000, 48, 0x5a);
    assert_in_range(space(r), 0, full - 700 * SECTOR);
    stop(r);
}

static void test_discard_and_zero(void **state)
{
    discard_and_zero(true);
    discard_and_zero(false);
}

static void test_bad_requests(void **state)
{
    struct rig *r = start(false, true, RINGS_SPLIT | F_FLUSH | F_DISCARD | F_WRITE_ZEROES);
    uint64_t end = SIZE / SECTOR;

    write_all(r);
    assert_int_equal(request(r, IN, end, SECTOR, true), IOERR);
    assert_int_equal(request(r, IN, end - 1, 2 * SECTOR, true), IOERR);
    assert_int_equal(request(r, IN, UINT64_MAX, SECTOR, true), IOERR);
    assert_int_equal(request(r, IN, UINT64_MAX / SECTOR + 1, SECTOR, true), IOERR);
    assert_int_equal(request(r, OUT, end, SECTOR, false), IOERR);
    assert_int_equal(request(r, IN, 0, SECTOR - 1, true), IOERR);
    assert_int_equal(request(r, OUT, 0, SECTOR + 1, false), IOERR);
    assert_int_equal(request(r, IN, 0, 0, false), IOERR);
    assert_int_equal(request(r, OUT, 0, 0, false), IOERR);
    assert_int_equal(request(r, 2, 0, SECTOR, true), UNSUPP);
    assert_int_equal(request(r, UINT32_MAX, 0, 0, false), UNSUPP);
    /* A good range before a bad one is not touched. */
    range(r, 0, 0, 8, 0);
    range(r, 1, end - 1, 2, 0);
    assert_int_equal(request(r, DISCARD, 0, 32, false), IOERR);
    range(r, 1, UINT64_MAX, 2, 0);
    assert_int_equal(request(r, WRITE_ZEROES, 0, 32, false), IOERR);
    range(r, 1, 0, UINT32_MAX, 0);
    assert_int_equal(request(r, WRITE_ZEROES, 0, 32, false), IOERR);
    range(r, 1, 0, 8, 1);
    assert_int_equal(request(r, DISCARD, 0, 32, false), UNSUPP);
    range(r, 1, 0, 8, 2);
    assert_int_equal(request(r, WRITE_ZEROES, 0, 32, false), UNSUPP);
    assert_int_equal(request(r, DISCARD, 0, 15, false), IOERR);
    assert_int_equal(request(r, DISCARD, 0, 0, false), IOERR);
    assert_int_equal(request(r, DISCARD, 0, 17 * 16, false), IOERR);
    check_bytes(r, 0, (uint32_t)end, 0x5a);
    assert_int_equal(driver_status(&r->d) & VIRTIO_STATUS_NEEDS_RESET, 0);
    stop(r);
}

/* Without a header or a place for the status there is no way to answer. */
static void test_no_answer_possible(void **state)
{
    struct rig *r = start(false, true, RINGS_SPLIT);
    const struct piece short_header[] = {{HEADER, 15, false}, {STATUS, 1, true}};
    const struct piece no_status[] = {{HEADER, 16, false}, {DATA, 512, false}};

    for (unsigned i = 0; i < 2; i++) {
        uint64_t until = loop_now() + 60000000000ull;
        header(r, HEADER, OUT, 0);
        driver_add(&r->q, i ? no_status : short_header, 2, false);
        kick(r);
        while (!(driver_status(&r->d) & VIRTIO_STATUS_NEEDS_RESET)) {
            assert_true(loop_now() < until);
            usleep(50);
        }
        assert_true(driver_start(&r->d, RINGS_SPLIT, &r->q, 1, QUEUE));
        assert_int_equal(request(r, IN, 0, SECTOR, true), OK);
    }
    stop(r);
}

static void test_read_only(void **state)
{
    struct rig *r = start(true, true, RINGS_SPLIT | F_RO);

    write_all(r);
    assert_int_equal(driver_offered(&r->d) & (F_RO | F_DISCARD | F_WRITE_ZEROES), F_RO);
    assert_int_equal(request(r, IN, 5, SECTOR, true), OK);
    assert_int_equal(*ram(r, DATA), 0x5a);
    assert_int_equal(request(r, OUT, 5, SECTOR, false), IOERR);
    range(r, 0, 0, 8, 0);
    assert_int_equal(request(r, DISCARD, 0, 16, false), IOERR);
    assert_int_equal(request(r, WRITE_ZEROES, 0, 16, false), IOERR);
    assert_int_equal(request(r, FLUSH, 0, 0, false), OK);
    check_bytes(r, 0, SIZE / SECTOR, 0x5a);
    stop(r);
}

/* Fills the queue with reads of a sector each, all with their own memory. */
static void add_reads(struct rig *r, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t at = DATA + i * 0x1000ull;
        const struct piece pieces[] = {{at, 16, false}, {at + 0x200, SECTOR, true}, {at + 0x100, 1, true}};
        header(r, at, IN, i);
        driver_add(&r->q, pieces, 3, true);
    }
}

static void test_many_at_once(void **state)
{
    for (unsigned uring = 0; uring < 2; uring++) {
        struct rig *r = start(false, uring, RINGS_SPLIT | RINGS_ALL);
        for (unsigned i = 0; i < QUEUE; i++) {
            uint8_t sector[SECTOR];
            memset(sector, (int)i + 1, sizeof(sector));
            assert_int_equal(pwrite(r->fd, sector, sizeof(sector), i * SECTOR), sizeof(sector));
        }
        for (unsigned round = 0; round < 20; round++) {
            add_reads(r, QUEUE);
            kick(r);
            for (unsigned i = 0; i < QUEUE; i++)
                assert_int_equal(wait_used(r), SECTOR + 1);
            for (unsigned i = 0; i < QUEUE; i++) {
                assert_int_equal(*ram(r, DATA + i * 0x1000ull + 0x200), i + 1);
                assert_int_equal(*ram(r, DATA + i * 0x1000ull + 0x100), OK);
            }
        }
        stop(r);
    }
}

/* Once a reset has been, the memory belongs to the guest. */
static void test_reset_with_requests_under_way(void **state)
{
    for (unsigned round = 0; round < 200; round++) {
        struct rig *r = start(false, round % 2, RINGS_SPLIT | RINGS_ALL);
        write_all(r);
        add_reads(r, QUEUE);
        kick(r);
        if (round % 4 < 2)
            usleep(round);
        if (round % 8 < 4)
            driver_write(&r->d, C_STATUS, 1, 0);
        else
            r->device->class->reset(r->device);
        uint8_t *first = driver_ram(&r->f, DATA, QUEUE * 0x1000);
        memset(first, 0x77, QUEUE * 0x1000);
        usleep(500);
        for (size_t i = 0; i < QUEUE * 0x1000; i++)
            assert_int_equal(first[i], 0x77);
        if (round % 8 < 4) {
            assert_true(driver_start(&r->d, RINGS_SPLIT, &r->q, 1, QUEUE));
            assert_int_equal(request(r, IN, 0, SECTOR, true), OK);
        }
        stop(r);
    }
}

/* And so it is for one queue, and for a device that goes. */
static void test_queue_reset(void **state)
{
    struct rig *r = start(false, true, RINGS_SPLIT | RINGS_ALL);

    for (unsigned round = 0; round < 50; round++) {
        add_reads(r, QUEUE);
        kick(r);
        driver_write(&r->d, C_QUEUE_SELECT, 2, 0);
        driver_write(&r->d, C_QUEUE_RESET, 2, 1);
        uint8_t *first = driver_ram(&r->f, DATA, QUEUE * 0x1000);
        memset(first, 0x77, QUEUE * 0x1000);
        usleep(200);
        for (size_t i = 0; i < QUEUE * 0x1000; i++)
            assert_int_equal(first[i], 0x77);
        driver_queue_init(&r->q, &r->d, 0, QUEUE);
        assert_int_equal(request(r, IN, 0, SECTOR, true), OK);
    }
    add_reads(r, QUEUE);
    kick(r);
    stop(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_and_read),     cmocka_unit_test(test_framing),
        cmocka_unit_test(test_configuration),      cmocka_unit_test(test_serial),
        cmocka_unit_test(test_discard_and_zero),   cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_no_answer_possible), cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_many_at_once),       cmocka_unit_test(test_reset_with_requests_under_way),
        cmocka_unit_test(test_queue_reset),
    };
    return cmocka_run_group_tests_name("virtio block", tests, NULL, NULL);
}

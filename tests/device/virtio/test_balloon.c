/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The balloon through its registers and queues: what goes back to the host, and what must not. */
#include "device/virtio/balloon.h"

#include "base/bytes.h"
#include "driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#define F_STATS     VIRTIO_FEATURE(1)
#define F_POISON    VIRTIO_FEATURE(4)
#define F_REPORTING VIRTIO_FEATURE(5)
#define QUEUES      5u
#define PAGES       0x300000ull /* what the tests give back: the fourth MiB */
#define FIRST       (PAGES / GUEST_PAGE_SIZE)

enum { INFLATE, DEFLATE, STATISTICS, REPORTS_COUNTED, REPORTS };

struct rig {
    struct fixture f;
    struct device *device;
    struct driver d;
    struct driver_queue q[QUEUES];
};

static int setup(void **state)
{
    const struct virtio_balloon_config config = {.target = 0x10000};
    struct rig *r = calloc(1, sizeof(*r));
    if (!r)
        return -1;
    fixture_init(&r->f);
    if (virtio_balloon_class.create(&r->device, &r->f.env, &config, NULL) < 0 ||
        !driver_find(&r->d, &r->f, VIRTIO_TYPE_BALLOON))
        return -1;
    memset(driver_ram(&r->f, PAGES, 0x100000), 0x55, 0x100000);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    r->device->class->destroy(r->device);
    fixture_fini(&r->f);
    free(r);
    return 0;
}

static void start(struct rig *r, uint64_t features)
{
    assert_true(driver_start(&r->d, features, r->q, QUEUES, 16));
}

/* Bytes that the host has for RAM. */
static uint64_t host_bytes(struct rig *r)
{
    struct stat s;
    assert_int_equal(fstat(r->f.env.memory->fd, &s), 0);
    return (uint64_t)s.st_blocks * 512;
}

static bool needs_reset(struct rig *r)
{
    return driver_status(&r->d) & VIRTIO_STATUS_NEEDS_RESET;
}

static bool gone(struct rig *r, uint64_t page)
{
    const uint8_t *p = driver_ram(&r->f, page * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);
    return p[0] == 0 && p[GUEST_PAGE_SIZE - 1] == 0;
}

static bool give(struct rig *r, unsigned queue, const uint32_t *numbers, unsigned n)
{
    const struct piece list = {DRIVER_BUFFERS, n * 4, false};
    uint32_t id, len;
    for (unsigned i = 0; i < n; i++)
        put_le32(driver_ram(&r->f, DRIVER_BUFFERS + i * 4ull, 4), numbers[i]);
    driver_add(&r->q[queue], &list, 1, false);
    driver_kick(&r->q[queue]);
    return driver_used(&r->q[queue], &id, &len) && len == 0;
}

static void inflate_and_deflate(struct rig *r, uint64_t features)
{
    static const uint32_t numbers[] = {FIRST + 5, FIRST + 3, FIRST + 4, FIRST + 9, FIRST + 3};
    start(r, features);
    memset(driver_ram(&r->f, PAGES, 0x100000), 0x55, 0x100000);
    driver_ram(&r->f, DRIVER_BUFFERS, 1)[0] = 0; /* the list's page is there */
    uint64_t before = host_bytes(r);
    fixture_clear_marks(&r->f);
    assert_true(give(r, INFLATE, numbers, ARRAY_SIZE(numbers)));
    assert_int_equal(host_bytes(r), before - 4 * GUEST_PAGE_SIZE);
    for (uint64_t i = 0; i < 16; i++) {
        bool in = (i >= 3 && i <= 5) || i == 9;
        assert_int_equal(gone(r, FIRST + i), in);
        assert_int_equal(r->f.marked[(FIRST + i) * GUEST_PAGE_SIZE], in); /* for the engine's translations */
    }
    driver_ram(&r->f, PAGES + 3 * GUEST_PAGE_SIZE, 1)[0] = 1;
    assert_true(give(r, DEFLATE, numbers, ARRAY_SIZE(numbers)));
    assert_int_equal(driver_ram(&r->f, PAGES + 3 * GUEST_PAGE_SIZE, 1)[0], 1);
    assert_false(needs_reset(r));
}

static void test_inflate_and_deflate(void **state)
{
    inflate_and_deflate(*state, RINGS_SPLIT);
    inflate_and_deflate(*state, RINGS_PACKED | RINGS_ALL | F_STATS | F_REPORTING);
}

static void test_pages_that_are_not_ram(void **state)
{
    static const uint32_t wrong[] = {FIXTURE_RAM / GUEST_PAGE_SIZE, UINT32_MAX, 0xc0000, 0xfffff, 0x100000};
    struct rig *r = *state;
    assert_int_equal(guest_memory_add_rom(r->f.env.memory, 4096, NULL), 0);
    uint8_t *rom = guest_memory_rom(r->f.env.memory)->host;
    *rom = 0xaa;
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        start(r, RINGS_SPLIT);
        assert_false(give(r, INFLATE, &wrong[i], 1));
        assert_true(needs_reset(r));
    }
    assert_int_equal(*rom, 0xaa);
}

/* A run of numbers that leaves RAM half-way. */
static void test_the_end_of_ram(void **state)
{
    const uint32_t last = FIXTURE_RAM / GUEST_PAGE_SIZE - 1, numbers[] = {last - 1, last, last + 1};
    struct rig *r = *state;
    start(r, RINGS_SPLIT);
    assert_true(give(r, INFLATE, numbers, 2));
    assert_true(gone(r, last));
    assert_false(give(r, INFLATE, numbers, 3));
    assert_true(needs_reset(r));
}

static void test_lists_of_wrong_length(void **state)
{
    struct rig *r = *state;
    const struct piece odd = {DRIVER_BUFFERS, 6, false}, huge = {0, 0x20000, false};
    start(r, RINGS_SPLIT);
    driver_add(&r->q[INFLATE], &odd, 1, false);
    driver_kick(&r->q[INFLATE]);
    assert_true(needs_reset(r));
    start(r, RINGS_SPLIT);
    driver_add(&r->q[INFLATE], &huge, 1, false);
    driver_kick(&r->q[INFLATE]);
    assert_true(needs_reset(r));
}

/* The device does no more than its share at a time, but all in the end. */
static void test_many_lists(void **state)
{
    struct rig *r = *state;
    uint32_t id, len;
    start(r, RINGS_SPLIT);
    for (unsigned i = 0; i < 4096; i++)
        put_le32(driver_ram(&r->f, DRIVER_BUFFERS + i * 4ull, 4), (uint32_t)(FIRST + i % 16));
    const struct piece list = {DRIVER_BUFFERS, 4096 * 4, false};
    for (unsigned i = 0; i < 16; i++)
        driver_add(&r->q[INFLATE], &list, 1, false);
    driver_kick(&r->q[INFLATE]);
    for (unsigned i = 0; i < 16; i++) {
        for (unsigned turns = 0; !driver_used(&r->q[INFLATE], &id, &len); turns++) {
            assert_in_range(turns, 0, 16);
            fixture_run_loop(&r->f);
        }
    }
    assert_true(gone(r, FIRST + 15));
    assert_false(gone(r, FIRST + 16));
}

static void report(struct rig *r, unsigned queue, uint64_t gpa, uint32_t bytes)
{
    const struct piece pieces[] = {{gpa, bytes, true}};
    uint32_t id, len;
    driver_add(&r->q[queue], pieces, 1, false);
    driver_kick(&r->q[queue]);
    assert_true(driver_used(&r->q[queue], &id, &len));
    assert_int_equal(len, 0);
}

/* Both where the specification has the queue and where older Linux has it. */
static void test_free_pages(void **state)
{
    struct rig *r = *state;
    struct virtio_balloon_report now;
    start(r, RINGS_SPLIT | RINGS_ALL | F_STATS | F_REPORTING);
    uint64_t before = host_bytes(r);
    report(r, REPORTS, PAGES, 0x10000);
    report(r, REPORTS_COUNTED, PAGES + 0x20000, 0x10000);
    assert_int_equal(host_bytes(r), before - 0x20000);
    assert_true(gone(r, FIRST) && gone(r, FIRST + 15) && !gone(r, FIRST + 16) && gone(r, FIRST + 32));
    assert_int_equal(r->f.marked[PAGES + 0xffff], 1);
    virtio_balloon_report(r->device, &now);
    assert_int_equal(now.reported, 0x20000);
    /* Pieces of pages stay. */
    report(r, REPORTS, PAGES + 0x40001, 0x2ffe);
    assert_false(gone(r, FIRST + 0x40));
    assert_true(gone(r, FIRST + 0x41));
    assert_false(gone(r, FIRST + 0x42));
    report(r, REPORTS, PAGES + 0x50001, 0xffe);
    assert_false(gone(r, FIRST + 0x50));
    assert_false(needs_reset(r));
}

static void test_reports_need_the_feature(void **state)
{
    struct rig *r = *state;
    start(r, RINGS_SPLIT);
    report(r, REPORTS, PAGES, 0x10000);
    assert_false(gone(r, FIRST));
}

/* A guest that fills its free pages with something relies on finding it again; zeros are what it finds
 * anyway. */
static void test_poisoned_pages(void **state)
{
    struct rig *r = *state;
    start(r, RINGS_SPLIT | F_POISON | F_REPORTING);
    io_space_write(r->f.env.mmio, r->d.config + 12, 4, 0xaaaaaaaa);
    assert_int_equal(io_space_read(r->f.env.mmio, r->d.config + 12, 4), 0xaaaaaaaa);
    report(r, REPORTS, PAGES, 0x10000);
    assert_false(gone(r, FIRST));
    io_space_write(r->f.env.mmio, r->d.config + 12, 4, 0);
    report(r, REPORTS, PAGES, 0x10000);
    assert_true(gone(r, FIRST));
}

static void put_stat(struct rig *r, unsigned n, uint16_t tag, uint64_t value)
{
    uint8_t *entry = driver_ram(&r->f, DRIVER_BUFFERS + n * 10ull, 10);
    put_le16(entry, tag);
    put_le64(entry + 2, value);
}

static void test_statistics(void **state)
{
    struct rig *r = *state;
    struct virtio_balloon_report now;
    const struct piece two = {DRIVER_BUFFERS, 25, false};
    uint32_t id, len;
    virtio_balloon_ask(r->device); /* without a driver it means nothing */
    start(r, RINGS_SPLIT | F_STATS);
    put_stat(r, 0, BALLOON_FREE, 1234567);
    put_stat(r, 1, 999, 1);
    driver_add(&r->q[STATISTICS], &two, 1, false);
    driver_kick(&r->q[STATISTICS]);
    /* It is held until the next question. */
    assert_false(driver_used(&r->q[STATISTICS], &id, &len));
    virtio_balloon_report(r->device, &now);
    assert_int_equal(now.serial, 1);
    assert_int_equal(now.valid, 1u << BALLOON_FREE);
    assert_int_equal(now.stats[BALLOON_FREE], 1234567);
    virtio_balloon_ask(r->device);
    assert_true(driver_used(&r->q[STATISTICS], &id, &len));
    /* A question before the answer to the last one is asked as soon as that is possible. */
    virtio_balloon_ask(r->device);
    put_stat(r, 0, BALLOON_FREE, 7);
    driver_add(&r->q[STATISTICS], &two, 1, false);
    driver_kick(&r->q[STATISTICS]);
    assert_true(driver_used(&r->q[STATISTICS], &id, &len));
    virtio_balloon_report(r->device, &now);
    assert_int_equal(now.serial, 2);
    assert_int_equal(now.stats[BALLOON_FREE], 7);
}

/* Nothing that was held before a reset is written to after it. */
static void test_reset_drops_what_is_held(void **state)
{
    struct rig *r = *state;
    struct virtio_balloon_report now;
    const struct piece one = {DRIVER_BUFFERS, 10, false};
    uint32_t id, len;
    start(r, RINGS_SPLIT | F_STATS);
    driver_add(&r->q[STATISTICS], &one, 1, false);
    driver_kick(&r->q[STATISTICS]);
    driver_write(&r->d, C_STATUS, 1, 0);
    virtio_balloon_ask(r->device);
    fixture_run_loop(&r->f);
    assert_false(driver_used(&r->q[STATISTICS], &id, &len));
    virtio_balloon_report(r->device, &now);
    assert_int_equal(now.serial, 0);
    start(r, RINGS_SPLIT | F_STATS);
    virtio_balloon_ask(r->device);
    assert_false(driver_used(&r->q[STATISTICS], &id, &len));
}

static void test_target(void **state)
{
    struct rig *r = *state;
    struct virtio_balloon_report now;
    virtio_balloon_report(r->device, &now);
    assert_false(now.driver);
    start(r, RINGS_SPLIT);
    virtio_balloon_report(r->device, &now);
    assert_true(now.driver);
    assert_int_equal(io_space_read(r->f.env.mmio, r->d.config, 4), 16);
    uint8_t generation = (uint8_t)driver_read(&r->d, C_GENERATION, 1);
    virtio_balloon_set_target(r->device, 0x200fff);
    assert_int_equal(io_space_read(r->f.env.mmio, r->d.config, 4), 0x200);
    assert_int_not_equal(driver_read(&r->d, C_GENERATION, 1), generation);
    assert_int_equal(io_space_read(r->f.env.mmio, r->d.isr, 1), 2);
    virtio_balloon_set_target(r->device, UINT64_MAX);
    assert_int_equal(io_space_read(r->f.env.mmio, r->d.config, 4), FIXTURE_RAM / GUEST_PAGE_SIZE);
    io_space_write(r->f.env.mmio, r->d.config + 4, 4, 0x123);
    io_space_write(r->f.env.mmio, r->d.config, 4, 0); /* the monitor's, not the driver's */
    virtio_balloon_report(r->device, &now);
    assert_int_equal(now.target, FIXTURE_RAM);
    assert_int_equal(now.actual, 0x123000);
    r->device->class->reset(r->device);
    virtio_balloon_report(r->device, &now);
    assert_int_equal(now.target, FIXTURE_RAM);
    assert_int_equal(now.actual, 0);
    assert_false(now.driver);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_inflate_and_deflate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_that_are_not_ram, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_end_of_ram, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lists_of_wrong_length, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_lists, setup, teardown),
        cmocka_unit_test_setup_teardown(test_free_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reports_need_the_feature, setup, teardown),
        cmocka_unit_test_setup_teardown(test_poisoned_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_statistics, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_drops_what_is_held, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target, setup, teardown),
    };
    return cmocka_run_group_tests_name("virtio balloon", tests, NULL, NULL);
}

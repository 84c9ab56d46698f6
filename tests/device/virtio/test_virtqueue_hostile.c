/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of the queues with guests that break the rules: each ends in a device that needs a reset, and works
 * again after it.
 */
#include "base/bytes.h"
#include "echo.h"

ECHO_SETUP(split, RINGS_SPLIT | ECHO_RESET_AND_INDIRECT)
ECHO_SETUP(split_event, RINGS_SPLIT | RINGS_ALL)
ECHO_SETUP(packed, RINGS_PACKED | ECHO_RESET_AND_INDIRECT)
ECHO_SETUP(packed_event, RINGS_PACKED | RINGS_ALL)
ECHO_SETUP(plain, RINGS_SPLIT)
ECHO_SETUP(plain_packed, RINGS_PACKED)

static void expect_broken(struct echo *e)
{
    unsigned before = e->f.n_messages;
    driver_kick(&e->q);
    assert_true(driver_status(&e->d) & VIRTIO_STATUS_NEEDS_RESET);
    assert_non_null(e->vdev.fault);
    /* From now on the device leaves everything alone. */
    driver_kick(&e->q);
    uint32_t id, len;
    assert_false(driver_used(&e->q, &id, &len));
    assert_true(e->f.n_messages - before <= 1);
    echo_restart(e);
    assert_null(e->vdev.fault);
}

/* Makes one entry available by hand: the descriptors are there already, the first is number 0. */
static void publish(struct echo *e)
{
    if (e->q.packed)
        return;
    put_le16(driver_ram(&e->f, e->q.driver + 4, 2), 0);
    put_le16(driver_ram(&e->f, e->q.driver + 2, 2), 1);
}

/* A descriptor in the format of the queue, available from the start. */
static void raw(struct echo *e, unsigned i, uint64_t gpa, uint32_t len, uint16_t flags, uint16_t next)
{
    if (e->q.packed)
        driver_descriptor(&e->f, e->q.desc, i, gpa, len, (uint16_t)i, flags | 0x80);
    else
        driver_descriptor(&e->f, e->q.desc, i, gpa, len, flags, next);
}

static void test_bad_addresses(void **state)
{
    struct echo *e = *state;
    static const struct {
        uint64_t gpa;
        uint32_t len;
    } bad[] = {
        {FIXTURE_RAM, 1},         {FIXTURE_RAM - 1, 2}, {0, FIXTURE_RAM + 1},
        {UINT64_MAX, 1},          {UINT64_MAX, 2},      {UINT64_MAX - 0xfff, 0x1000},
        {0xffffffff, 0xffffffff}, {PCI_ECAM_BASE, 4},   {0x8000000000000000ull, 8},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        for (unsigned write = 0; write < 2; write++) {
            raw(e, 0, bad[i].gpa, bad[i].len, write ? D_WRITE : 0, 0);
            publish(e);
            expect_broken(e);
        }
}

/* A device may read it, and changes it no more than a vCPU can. */
static void test_rom(void **state)
{
    struct echo *e = *state;
    uint64_t gpa = GUEST_ROM_END - 4096;
    assert_int_equal(guest_memory_add_rom(e->f.env.memory, 4096, NULL), 0);
    uint8_t *rom = guest_memory_rom(e->f.env.memory)->host;
    memset(rom, 0x5a, 4096);
    raw(e, 0, gpa, 16, D_WRITE, 0);
    publish(e);
    expect_broken(e);
    raw(e, 0, gpa, 16, 0, 0);
    publish(e);
    driver_kick(&e->q);
    assert_false(driver_status(&e->d) & VIRTIO_STATUS_NEEDS_RESET);
    for (unsigned i = 0; i < 4096; i++)
        assert_int_equal(rom[i], 0x5a);
}

static void test_endless_chain(void **state)
{
    struct echo *e = *state;
    for (unsigned i = 0; i < QUEUE_SIZE; i++)
        raw(e, i, DRIVER_BUFFERS, 1, D_NEXT, (uint16_t)((i + 1) % QUEUE_SIZE));
    publish(e);
    expect_broken(e);
    raw(e, 0, DRIVER_BUFFERS, 0, D_NEXT, 0);
    for (unsigned i = 1; i < QUEUE_SIZE; i++)
        raw(e, i, DRIVER_BUFFERS, 0, D_NEXT, 0);
    publish(e);
    expect_broken(e);
}

/* A table that names the same memory again and again: more bytes than there is RAM, and fine. */
static void test_repeated_memory(void **state)
{
    struct echo *e = *state;
    struct piece many[8];
    for (unsigned i = 0; i < 8; i++)
        many[i] = (struct piece){0, FIXTURE_RAM, false};
    driver_add(&e->q, many, 8, true);
    driver_kick(&e->q);
    assert_int_equal(driver_status(&e->d) & VIRTIO_STATUS_NEEDS_RESET, 0);
    uint32_t id, len;
    assert_true(driver_used(&e->q, &id, &len));
    assert_int_equal(e->pieces, 8);
    assert_int_equal(len, 0);
}

static void test_wrong_order(void **state)
{
    struct echo *e = *state;
    raw(e, 0, DRIVER_BUFFERS, 1, D_NEXT | D_WRITE, 1);
    raw(e, 1, DRIVER_BUFFERS, 1, 0, 0);
    publish(e);
    expect_broken(e);
}

static void test_bad_indirect(void **state)
{
    struct echo *e = *state;
    uint64_t table = DRIVER_BUFFERS;
    const struct {
        uint64_t gpa;
        uint32_t len;
        uint16_t flags;
    } bad[] = {
        {table, 0, D_INDIRECT},
        {table, 17, D_INDIRECT},
        {table, 16 * (VIRTQUEUE_MAX_SEGMENTS + 1), D_INDIRECT},
        {table, 0xfffffff0, D_INDIRECT},
        {table, 16, D_INDIRECT | D_NEXT},
        {FIXTURE_RAM - 8, 16, D_INDIRECT},
        {UINT64_MAX - 7, 16, D_INDIRECT},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        raw(e, 0, bad[i].gpa, bad[i].len, bad[i].flags, 1);
        raw(e, 1, DRIVER_BUFFERS, 1, 0, 0);
        publish(e);
        expect_broken(e);
    }
    /* A table in a table. */
    driver_descriptor(&e->f, table, 0, table, 16, D_INDIRECT, D_INDIRECT);
    raw(e, 0, table, 16, D_INDIRECT, 0);
    publish(e);
    expect_broken(e);
    /* An entry outside of RAM; at 14 are the packed format's flags, at 12 the split one's. */
    driver_descriptor(&e->f, table, 0, FIXTURE_RAM, 16, 0, 0);
    raw(e, 0, table, 16, D_INDIRECT, 0);
    publish(e);
    expect_broken(e);
    if (!e->q.packed) {
        driver_descriptor(&e->f, table, 0, DRIVER_BUFFERS, 1, D_NEXT, 1);
        raw(e, 0, table, 16, D_INDIRECT, 0);
        publish(e);
        expect_broken(e);
    }
}

/* The longest chain and the longest table together are more pieces than a buffer may have. */
static void test_too_many_pieces(void **state)
{
    struct echo *e = *state;
    uint64_t table = DRIVER_BUFFERS + 0x1000;
    for (unsigned i = 0; i < VIRTQUEUE_MAX_SEGMENTS; i++)
        driver_descriptor(&e->f, table, i, DRIVER_BUFFERS, 1, i + 1 < VIRTQUEUE_MAX_SEGMENTS ? D_NEXT : 0,
                          (uint16_t)(i + 1));
    raw(e, 0, table, 16 * VIRTQUEUE_MAX_SEGMENTS, D_INDIRECT, 0);
    publish(e);
    driver_kick(&e->q);
    assert_int_equal(driver_status(&e->d) & VIRTIO_STATUS_NEEDS_RESET, 0);
    assert_int_equal(e->pieces, VIRTQUEUE_MAX_SEGMENTS);
    echo_restart(e);
    raw(e, 0, DRIVER_BUFFERS, 1, D_NEXT, 1);
    raw(e, 1, table, 16 * VIRTQUEUE_MAX_SEGMENTS, D_INDIRECT, 0);
    publish(e);
    expect_broken(e);
}

static void test_packed_indirect_in_chain(void **state)
{
    struct echo *e = *state;
    driver_descriptor(&e->f, DRIVER_BUFFERS, 0, DRIVER_BUFFERS, 1, 0, 0);
    raw(e, 0, DRIVER_BUFFERS, 1, D_NEXT, 0);
    raw(e, 1, DRIVER_BUFFERS, 16, D_INDIRECT, 0);
    expect_broken(e);
}

static void test_indirect_not_negotiated(void **state)
{
    struct echo *e = *state;
    driver_descriptor(&e->f, DRIVER_BUFFERS, 0, DRIVER_BUFFERS, 1, 0, 0);
    raw(e, 0, DRIVER_BUFFERS, 16, D_INDIRECT, 0);
    publish(e);
    expect_broken(e);
}

/* An indirect table as the end of a chain of ordinary descriptors, which split rings allow. */
static void test_indirect_after_direct(void **state)
{
    struct echo *e = *state;
    uint64_t table = DRIVER_BUFFERS + 0x800;
    memcpy(echo_ram(e, DRIVER_BUFFERS), "abcd", 4);
    driver_descriptor(&e->f, table, 0, DRIVER_BUFFERS + 2, 2, D_NEXT, 1);
    driver_descriptor(&e->f, table, 1, DRIVER_BUFFERS + 0x100, 8, D_WRITE, 0);
    raw(e, 0, DRIVER_BUFFERS, 2, D_NEXT, 5);
    /* The device ignores the write flag of the indirect descriptor itself. */
    raw(e, 5, table, 32, D_INDIRECT | D_WRITE, 0);
    publish(e);
    driver_kick(&e->q);
    uint32_t id, len;
    assert_true(driver_used(&e->q, &id, &len));
    assert_int_equal(len, 4);
    assert_memory_equal(echo_ram(e, DRIVER_BUFFERS + 0x100), "abcd", 4);
}

static void test_split_bad_indexes(void **state)
{
    struct echo *e = *state;
    /* More available than fits. */
    put_le16(driver_ram(&e->f, e->q.driver + 2, 2), QUEUE_SIZE + 1);
    expect_broken(e);
    put_le16(driver_ram(&e->f, e->q.driver + 2, 2), 0xffff);
    expect_broken(e);
    /* Heads and links beyond the table. */
    put_le16(driver_ram(&e->f, e->q.driver + 4, 2), QUEUE_SIZE);
    put_le16(driver_ram(&e->f, e->q.driver + 2, 2), 1);
    expect_broken(e);
    put_le16(driver_ram(&e->f, e->q.driver + 4, 2), 0xffff);
    put_le16(driver_ram(&e->f, e->q.driver + 2, 2), 1);
    expect_broken(e);
    raw(e, 0, DRIVER_BUFFERS, 1, D_NEXT, QUEUE_SIZE);
    publish(e);
    expect_broken(e);
    /* The same buffers again and again while the device holds them. */
    e->hold = true;
    raw(e, 0, DRIVER_BUFFERS, 1, 0, 0);
    put_le16(driver_ram(&e->f, e->q.driver + 2, 2), QUEUE_SIZE);
    driver_kick(&e->q);
    assert_int_equal(e->n_held, HOLD_MAX);
    e->n_held = 0;
    put_le16(driver_ram(&e->f, e->q.driver + 2, 2), QUEUE_SIZE + 1);
    expect_broken(e);
}

static void test_packed_overrun(void **state)
{
    struct echo *e = *state;
    /* All held, then made available again, in the next round's colours. */
    e->hold = true;
    for (unsigned i = 0; i < QUEUE_SIZE; i++)
        raw(e, i, DRIVER_BUFFERS, 1, 0, 0);
    driver_kick(&e->q);
    assert_int_equal(e->n_held, QUEUE_SIZE);
    e->n_held = 0;
    driver_descriptor(&e->f, e->q.desc, 0, DRIVER_BUFFERS, 1, 0, 0x8000);
    expect_broken(e);
}

static void test_packed_ids_and_events(void **state)
{
    struct echo *e = *state;
    /* Ids are the driver's own affair: any comes back as it was. */
    driver_descriptor(&e->f, e->q.desc, 0, DRIVER_BUFFERS, 1, 0xfffe, 0x80);
    driver_kick(&e->q);
    assert_int_equal(get_le16(driver_ram(&e->f, e->q.desc + 12, 2)), 0xfffe);
    assert_int_equal(get_le16(driver_ram(&e->f, e->q.desc + 14, 2)) & 0x8080, 0x8080);
    /* Event positions outside the ring, and undefined event flags. */
    for (unsigned v = 0; v < 0x10000; v += 0x0fff) {
        driver_descriptor(&e->f, e->q.driver, 0, v | (v & 3) << 16, 0, 0, 0);
        echo_restart(e);
        driver_descriptor(&e->f, e->q.driver, 0, v | 2u << 16, 0, 0, 0);
        driver_descriptor(&e->f, e->q.desc, 0, DRIVER_BUFFERS, 1, 1, 0x80);
        unsigned before = e->f.n_messages;
        driver_kick(&e->q);
        /* A position that can't come interrupts always: better once too often than never. */
        if ((v & 0x7fff) >= QUEUE_SIZE)
            assert_int_equal(e->f.n_messages, before + 1);
        assert_int_equal(get_le16(driver_ram(&e->f, e->q.desc + 14, 2)) & 0x8080, 0x8080);
    }
    assert_int_equal(driver_status(&e->d) & VIRTIO_STATUS_NEEDS_RESET, 0);
}

/* Rings that lie over each other are the guest's problem, not ours. */
static void test_overlapping_rings(void **state)
{
    struct echo *e = *state;
    for (unsigned i = 0; i < 64; i++) {
        assert_true(driver_negotiate(&e->d, e->features));
        memset(echo_ram(e, DRIVER_RINGS), (int)(i * 37), 0x1000);
        driver_write(&e->d, C_QUEUE_SELECT, 2, 0);
        driver_write(&e->d, C_QUEUE_DESC, 8, DRIVER_RINGS);
        driver_write(&e->d, C_QUEUE_DRIVER, 8, DRIVER_RINGS + i % 3 * 4);
        driver_write(&e->d, C_QUEUE_DEVICE, 8, DRIVER_RINGS + i % 5 * 4);
        driver_write(&e->d, C_QUEUE_ENABLE, 2, 1);
        assert_int_equal(driver_read(&e->d, C_QUEUE_ENABLE, 2), 1);
        driver_ready(&e->d);
        driver_kick(&e->q);
    }
    echo_restart(e);
    echo_once(e, 1, false);
}

#define BOTH(test) ECHO_TEST(test, split), ECHO_TEST(test, packed)
#define ALL(test)  BOTH(test), ECHO_TEST(test, split_event), ECHO_TEST(test, packed_event)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_bad_addresses),
        BOTH(test_rom),
        BOTH(test_endless_chain),
        BOTH(test_repeated_memory),
        BOTH(test_wrong_order),
        BOTH(test_bad_indirect),
        ECHO_TEST(test_indirect_not_negotiated, plain),
        ECHO_TEST(test_indirect_not_negotiated, plain_packed),
        ECHO_TEST(test_indirect_after_direct, split),
        ECHO_TEST(test_too_many_pieces, split),
        ECHO_TEST(test_packed_indirect_in_chain, packed),
        ECHO_TEST(test_split_bad_indexes, split),
        ECHO_TEST(test_packed_overrun, packed),
        ECHO_TEST(test_packed_ids_and_events, packed_event),
        ALL(test_overlapping_rings),
    };
    return cmocka_run_group_tests_name("virtqueue hostile", tests, NULL, NULL);
}

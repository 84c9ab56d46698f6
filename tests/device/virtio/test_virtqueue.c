/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of the queues with a driver that keeps the rules, through registers and rings. The same tests run for
 * both ring formats, with and without event indexes.
 */
#include "base/bytes.h"
#include "echo.h"

ECHO_SETUP(split, RINGS_SPLIT | ECHO_RESET_AND_INDIRECT)
ECHO_SETUP(split_event, RINGS_SPLIT | RINGS_ALL)
ECHO_SETUP(packed, RINGS_PACKED | ECHO_RESET_AND_INDIRECT)
ECHO_SETUP(packed_event, RINGS_PACKED | RINGS_ALL)
ECHO_SETUP(plain, RINGS_SPLIT)
ECHO_SETUP(plain_packed, RINGS_PACKED)

static void test_echo(void **state)
{
    struct echo *e = *state;
    /* Often enough for every position of the ring and both wrap counters. */
    for (unsigned i = 0; i < 5 * QUEUE_SIZE; i++)
        echo_once(e, i, false);
    bool indirect = e->features >> VIRTIO_F_INDIRECT_DESC & 1;
    for (unsigned i = 0; i < 5 * QUEUE_SIZE; i++)
        echo_once(e, i, indirect && i % 3);
}

/* Split indexes run to 65535 and on from 0. */
static void test_index_wrap(void **state)
{
    struct echo *e = *state;
    const struct piece piece = {DRIVER_BUFFERS, 1, true};
    for (unsigned i = 0; i < 65536 + 100; i += QUEUE_SIZE) {
        uint32_t id, len;
        for (unsigned k = 0; k < QUEUE_SIZE; k++)
            driver_add(&e->q, &piece, 1, false);
        driver_kick(&e->q);
        for (unsigned k = 0; k < QUEUE_SIZE; k++)
            assert_true(driver_used(&e->q, &id, &len));
    }
    assert_int_equal(driver_status(&e->d) & VIRTIO_STATUS_NEEDS_RESET, 0);
    echo_once(e, 3, false);
}

static void test_out_of_order(void **state)
{
    struct echo *e = *state;
    const struct piece pieces[] = {{DRIVER_BUFFERS, 4, false}, {DRIVER_BUFFERS + 0x100, 8, true}};
    uint16_t ids[8];
    uint32_t id, len;
    e->hold = true;
    for (unsigned i = 0; i < 8; i++)
        ids[i] = driver_add(&e->q, pieces, 2, false);
    driver_kick(&e->q);
    assert_int_equal(e->n_held, 8);
    assert_false(driver_used(&e->q, &id, &len));
    static const unsigned order[8] = {3, 0, 7, 1, 2, 6, 5, 4};
    pthread_mutex_lock(&e->vdev.lock);
    for (unsigned i = 0; i < 8; i++)
        virtqueue_push(&e->vdev.queues[0], &e->held[order[i]], i);
    virtqueue_notify(&e->vdev.queues[0]);
    pthread_mutex_unlock(&e->vdev.lock);
    for (unsigned i = 0; i < 8; i++) {
        assert_true(driver_used(&e->q, &id, &len));
        assert_int_equal(id, ids[order[i]]);
        assert_int_equal(len, i);
    }
    e->n_held = 0;
    e->hold = false;
    echo_once(e, 1, false);
}

/* What a device claims to have written never exceeds the room there was. */
static void test_written_is_bounded(void **state)
{
    struct echo *e = *state;
    const struct piece pieces[] = {{DRIVER_BUFFERS, 4, false}, {DRIVER_BUFFERS + 0x100, 8, true}};
    uint32_t id, len;
    e->use_flood = true;
    driver_add(&e->q, pieces, 2, false);
    driver_kick(&e->q);
    assert_true(driver_used(&e->q, &id, &len));
    assert_int_equal(len, 8);
}

static void test_interrupts(void **state)
{
    struct echo *e = *state;
    const struct piece piece = {DRIVER_BUFFERS, 1, true};
    uint32_t id, len;
    for (unsigned round = 0; round < 3 * QUEUE_SIZE; round++) {
        unsigned before = e->f.n_messages;
        driver_want_interrupt(&e->q, 0);
        driver_add(&e->q, &piece, 1, false);
        driver_kick(&e->q);
        assert_int_equal(e->f.n_messages, before + 1);
        assert_int_equal(e->f.messages[before % FIXTURE_MESSAGES].data, 0x41);
        assert_true(driver_used(&e->q, &id, &len));
        /* An event that has passed is not one again. */
        driver_add(&e->q, &piece, 1, false);
        driver_kick(&e->q);
        assert_int_equal(e->f.n_messages, before + (e->q.event_idx ? 1 : 2));
        before = e->f.n_messages - 1;
        assert_true(driver_used(&e->q, &id, &len));
        /* Not wanted, not sent; with event indexes, sent with the third buffer. */
        driver_want_interrupt(&e->q, 2);
        for (unsigned i = 0; i < 3; i++) {
            driver_add(&e->q, &piece, 1, false);
            driver_kick(&e->q);
            assert_int_equal(e->f.n_messages, before + 1 + (e->q.event_idx && i == 2));
        }
        /* The three in one go, too. */
        for (unsigned i = 0; i < 3; i++)
            assert_true(driver_used(&e->q, &id, &len));
        before = e->f.n_messages;
        driver_want_interrupt(&e->q, 1);
        for (unsigned i = 0; i < 3; i++)
            driver_add(&e->q, &piece, 1, false);
        driver_kick(&e->q);
        assert_int_equal(e->f.n_messages, before + e->q.event_idx);
        for (unsigned i = 0; i < 3; i++)
            assert_true(driver_used(&e->q, &id, &len));
    }
}

static void test_kick_suppression(void **state)
{
    struct echo *e = *state;
    const struct piece piece = {DRIVER_BUFFERS, 1, true};
    uint32_t id, len;
    for (unsigned round = 0; round < 3 * QUEUE_SIZE; round++) {
        /* Idle: the device has seen the ring empty, so it must hear of the next buffer. */
        driver_add(&e->q, &piece, 1, false);
        assert_true(driver_kick_wanted(&e->q, 1));
        e->hold = true;
        driver_kick(&e->q);
        assert_int_equal(e->n_held, 1);
        pthread_mutex_lock(&e->vdev.lock);
        virtqueue_push(&e->vdev.queues[0], &e->held[0], 1);
        pthread_mutex_unlock(&e->vdev.lock);
        e->n_held = 0;
        e->hold = false;
        assert_true(driver_used(&e->q, &id, &len));
    }
    /* Busy: a device that has taken one of two buffers and not looked further needs no notification. */
    driver_add(&e->q, &piece, 1, false);
    driver_add(&e->q, &piece, 1, false);
    pthread_mutex_lock(&e->vdev.lock);
    assert_true(virtqueue_pop(&e->vdev.queues[0], &e->held[0]));
    driver_add(&e->q, &piece, 1, false);
    assert_false(driver_kick_wanted(&e->q, 1));
    assert_true(virtqueue_pop(&e->vdev.queues[0], &e->held[1]));
    assert_true(virtqueue_pop(&e->vdev.queues[0], &e->held[2]));
    assert_false(virtqueue_pop(&e->vdev.queues[0], &e->held[3]));
    pthread_mutex_unlock(&e->vdev.lock);
    driver_add(&e->q, &piece, 1, false);
    assert_true(driver_kick_wanted(&e->q, 1));
}

/* When the device has seen an empty ring and is about to ask for notifications, the driver, which does not
 * know of that yet, adds a buffer and notifies nobody. */
static struct echo *racer;

static void add_behind_its_back(void *opaque, uint64_t gpa, uint64_t len)
{
    const struct piece piece = {DRIVER_BUFFERS, 1, true};
    struct driver_queue *q = &racer->q;
    /* The event position or flags, and nothing else, is written with these lengths here. Flags of 0 switch
     * notifications on. */
    bool arming = q->packed ? gpa == q->device : gpa >= q->device && len == 2;
    if (!q->event_idx)
        arming = arming && !get_le16(echo_ram(racer, q->device + (q->packed ? 2 : 0)));
    if (arming && q->avail_idx == 1) {
        racer->f.env.memory->written = NULL;
        driver_add(q, &piece, 1, false);
    }
}

static void test_late_buffer(void **state)
{
    struct echo *e = *state;
    const struct piece piece = {DRIVER_BUFFERS, 1, true};
    uint32_t id, len;
    racer = e;
    e->f.env.memory->written = add_behind_its_back;
    driver_add(&e->q, &piece, 1, false);
    driver_kick(&e->q);
    assert_null(e->f.env.memory->written);
    assert_true(driver_used(&e->q, &id, &len));
    assert_true(driver_used(&e->q, &id, &len));
}

static void test_readiness(void **state)
{
    struct echo *e = *state;
    const struct piece pieces[] = {{DRIVER_BUFFERS, 4, false}, {DRIVER_BUFFERS + 0x100, 8, true}};
    uint32_t id, len;
    /* Not before DRIVER_OK, and then without another notification. */
    assert_true(driver_negotiate(&e->d, e->features));
    driver_queue_init(&e->q, &e->d, 0, QUEUE_SIZE);
    driver_add(&e->q, pieces, 2, false);
    driver_kick(&e->q);
    assert_false(driver_used(&e->q, &id, &len));
    driver_ready(&e->d);
    fixture_run_loop(&e->f);
    assert_true(driver_used(&e->q, &id, &len));
    /* Not while the function may not be bus master, and then by itself. */
    fixture_config_write(&e->f, e->d.devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    driver_add(&e->q, pieces, 2, false);
    driver_kick(&e->q);
    assert_false(driver_used(&e->q, &id, &len));
    fixture_config_write(&e->f, e->d.devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    fixture_run_loop(&e->f);
    assert_true(driver_used(&e->q, &id, &len));
}

static void test_queue_reset(void **state)
{
    struct echo *e = *state;
    const struct piece pieces[] = {{DRIVER_BUFFERS, 4, false}, {DRIVER_BUFFERS + 0x100, 8, true}};
    echo_once(e, 9, false);
    e->hold = true;
    driver_add(&e->q, pieces, 2, false);
    driver_kick(&e->q);
    assert_int_equal(e->n_held, 1);
    struct virtqueue_element stale = e->held[0];
    driver_write(&e->d, C_QUEUE_SELECT, 2, 0);
    driver_write(&e->d, C_QUEUE_RESET, 2, 1);
    assert_int_equal(e->queue_resets, 1);
    assert_int_equal(driver_read(&e->d, C_QUEUE_RESET, 2), 0);
    assert_int_equal(driver_read(&e->d, C_QUEUE_ENABLE, 2), 0);
    assert_int_equal(driver_read(&e->d, C_QUEUE_SIZE, 2), QUEUE_SIZE);
    e->n_held = 0;
    driver_queue_init(&e->q, &e->d, 0, QUEUE_SIZE / 2);
    driver_add(&e->q, pieces, 2, false);
    driver_kick(&e->q);
    assert_int_equal(e->n_held, 1);
    /* A late completion of a buffer of the queue's former life does nothing to those of its present one. */
    pthread_mutex_lock(&e->vdev.lock);
    virtqueue_push(&e->vdev.queues[0], &stale, 8);
    pthread_mutex_unlock(&e->vdev.lock);
    uint32_t id, len;
    assert_false(driver_used(&e->q, &id, &len));
    pthread_mutex_lock(&e->vdev.lock);
    virtqueue_push(&e->vdev.queues[0], &e->held[0], 8);
    pthread_mutex_unlock(&e->vdev.lock);
    assert_true(driver_used(&e->q, &id, &len));
    assert_int_equal(len, 8);
    e->hold = false;
    for (unsigned i = 0; i < 3 * QUEUE_SIZE; i++)
        echo_once(e, i, false);
    assert_int_equal(driver_status(&e->d) & VIRTIO_STATUS_NEEDS_RESET, 0);
}

static void test_device_reset(void **state)
{
    struct echo *e = *state;
    for (unsigned i = 0; i < 3; i++) {
        unsigned resets = e->resets;
        echo_once(e, i, false);
        driver_write(&e->d, C_STATUS, 1, 0);
        assert_int_equal(e->resets, resets + 1);
        assert_int_equal(driver_status(&e->d), 0);
        assert_int_equal(driver_read(&e->d, C_QUEUE_ENABLE, 2), 0);
        echo_restart(e);
    }
}

#define BOTH(test) ECHO_TEST(test, split), ECHO_TEST(test, packed)
#define ALL(test)  BOTH(test), ECHO_TEST(test, split_event), ECHO_TEST(test, packed_event)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ALL(test_echo),       ECHO_TEST(test_echo, plain), ECHO_TEST(test_echo, plain_packed),
        ALL(test_index_wrap), ALL(test_out_of_order),      BOTH(test_written_is_bounded),
        ALL(test_interrupts), ALL(test_kick_suppression),  ALL(test_late_buffer),
        ALL(test_readiness),  ALL(test_queue_reset),       ALL(test_device_reset),
    };
    return cmocka_run_group_tests_name("virtqueue", tests, NULL, NULL);
}

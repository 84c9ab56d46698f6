/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Queues with driver and device at work at the same time, each notifying only when the other asks for it: a
 * notification lost on either side stops the flow, which the test sees as a wait without end.
 */
#include "base/bytes.h"
#include "echo.h"
#include "host/loop.h"

#include <semaphore.h>
#include <stdlib.h>
#include <time.h>

#define BUFFERS      20000u
#define PATIENCE     20 /* seconds until a notification counts as lost */
#define IN_FLIGHT    (QUEUE_SIZE / 2)
#define BUFFER_SPACE 64u

ECHO_SETUP(split, RINGS_SPLIT)
ECHO_SETUP(split_event, RINGS_SPLIT | RINGS_ALL)
ECHO_SETUP(packed, RINGS_PACKED)
ECHO_SETUP(packed_event, RINGS_PACKED | RINGS_ALL)

static sem_t interrupt;

static void msi_arrives(void *opaque, uint64_t address, uint32_t data)
{
    sem_post(&interrupt);
}

static void *serve(void *loop)
{
    loop_run(loop);
    return NULL;
}

static void wait_interrupt(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    assert_int_equal(sem_timedwait(&interrupt, &until), 0);
}

static void add(struct echo *e, unsigned n)
{
    uint64_t at = DRIVER_BUFFERS + n % QUEUE_SIZE * 2 * BUFFER_SPACE;
    const struct piece pieces[] = {{at, 4, false}, {at + BUFFER_SPACE, 4, true}};
    put_le32(echo_ram(e, at), n);
    put_le32(echo_ram(e, at + BUFFER_SPACE), ~n);
    driver_add(&e->q, pieces, 2, false);
}

static void test_no_notification_is_lost(void **state)
{
    struct echo *e = *state;
    pthread_t server;
    unsigned added = 0, done = 0, waits = 0;
    sem_init(&interrupt, 0, 0);
    e->f.env.msi_send = msi_arrives;
    assert_int_equal(pthread_create(&server, NULL, serve, e->f.env.loop), 0);
    while (done < BUFFERS) {
        unsigned batch = 0;
        while (added < BUFFERS && added - done < IN_FLIGHT && batch < 1 + added % 5) {
            add(e, added++);
            batch++;
        }
        /* The driver's fence of 2.7.13.4.1: what it added is visible before it looks whether to notify. */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if (batch && driver_kick_wanted(&e->q, e->q.packed ? 2 * batch : batch))
            io_space_write(e->f.env.mmio, e->q.doorbell, 2, 0);
        uint32_t id, len;
        while (!driver_used(&e->q, &id, &len)) {
            driver_want_interrupt(&e->q, 0);
            __atomic_thread_fence(__ATOMIC_SEQ_CST);
            if (driver_used(&e->q, &id, &len))
                break;
            waits++;
            wait_interrupt();
        }
        assert_int_equal(len, 4);
        uint64_t at = DRIVER_BUFFERS + done % QUEUE_SIZE * 2 * BUFFER_SPACE;
        assert_int_equal(get_le32(echo_ram(e, at + BUFFER_SPACE)), done);
        done++;
    }
    loop_stop(e->f.env.loop, 0);
    pthread_join(server, NULL);
    sem_destroy(&interrupt);
    /* Otherwise it has tested nothing. */
    assert_int_not_equal(waits, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ECHO_TEST(test_no_notification_is_lost, split),
        ECHO_TEST(test_no_notification_is_lost, split_event),
        ECHO_TEST(test_no_notification_is_lost, packed),
        ECHO_TEST(test_no_notification_is_lost, packed_event),
    };
    return cmocka_run_group_tests_name("virtqueue threads", tests, NULL, NULL);
}

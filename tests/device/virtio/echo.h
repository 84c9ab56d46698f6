/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The device under test of the virtqueue tests. It echoes: it copies the readable bytes of a buffer into its
 * writable ones, at once or when the test pushes what it holds.
 */
#ifndef TABIQUE_TESTS_DEVICE_VIRTIO_ECHO_H
#define TABIQUE_TESTS_DEVICE_VIRTIO_ECHO_H

#include "driver.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define QUEUE_SIZE 16u
#define HOLD_MAX   QUEUE_SIZE

struct echo {
    struct virtio_device vdev;
    struct fixture f;
    struct driver d;
    struct driver_queue q;
    uint64_t features;
    bool hold;      /* keep what was popped, for the test to push */
    bool use_flood; /* claim more bytes than there is room for */
    unsigned n_held, notified, pieces, resets, queue_resets;
    struct virtqueue_element held[HOLD_MAX];
};

/* A started device with its driver; fails the test where that can't be. */
struct echo *echo_new(uint64_t features);
/* A cmocka teardown: frees *state. */
int echo_teardown(void **state);
/* Resets the device and starts it again with empty rings. */
void echo_restart(struct echo *e);
/* RAM at gpa. */
uint8_t *echo_ram(struct echo *e, uint64_t gpa);
/* One round trip of a buffer in two and two pieces, with every byte checked. */
void echo_once(struct echo *e, unsigned seed, bool indirect);

/* Set-up functions for the ring formats. */
#define ECHO_SETUP(name, features)                                                                           \
    static int setup_##name(void **state)                                                                    \
    {                                                                                                        \
        *state = echo_new(features);                                                                         \
        return 0;                                                                                            \
    }
#define ECHO_RESET_AND_INDIRECT   (VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC) | VIRTIO_FEATURE(VIRTIO_F_RING_RESET))
#define ECHO_TEST(test, features) cmocka_unit_test_setup_teardown(test, setup_##features, echo_teardown)

#endif

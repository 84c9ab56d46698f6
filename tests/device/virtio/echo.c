/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The echoing device of echo.h. One thread. */
#include "echo.h"

#include "base/bytes.h"

#include <stdlib.h>

static struct echo *echo_of(struct virtio_device *vdev)
{
    return container_of(vdev, struct echo, vdev);
}

static void echo_notify(struct virtio_device *vdev, struct virtqueue *queue)
{
    struct echo *e = echo_of(vdev);
    struct virtqueue_element elem;
    uint8_t buf[4096];
    e->notified++;
    while (e->hold && e->n_held < HOLD_MAX && virtqueue_pop(queue, &e->held[e->n_held]))
        e->n_held++;
    while (!e->hold && virtqueue_pop(queue, &elem)) {
        e->pieces = elem.n_in + elem.n_out;
        size_t n = virtqueue_read(&elem, 0, buf, sizeof(buf));
        n = virtqueue_write(&elem, 0, buf, n);
        virtqueue_push(queue, &elem, e->use_flood ? UINT32_MAX : (uint32_t)n);
    }
    virtqueue_notify(queue);
}

static void echo_reset(struct virtio_device *vdev)
{
    echo_of(vdev)->n_held = 0;
    echo_of(vdev)->resets++;
}

static void echo_queue_reset(struct virtio_device *vdev, struct virtqueue *queue)
{
    echo_of(vdev)->n_held = 0;
    echo_of(vdev)->queue_resets++;
}

static const uint16_t queue_max[] = {QUEUE_SIZE};

static const struct virtio_device_class echo_type = {
    .type = 60,
    .pci_class = 0xff0000,
    .n_queues = 1,
    .queue_max = queue_max,
    .queue_notify = echo_notify,
    .reset = echo_reset,
    .queue_reset = echo_queue_reset,
};

static const struct device_class echo_class = {.name = "echo", .reset = virtio_device_power_on};

struct echo *echo_new(uint64_t features)
{
    struct echo *e = calloc(1, sizeof(*e));
    assert_non_null(e);
    fixture_init(&e->f);
    e->features = features;
    assert_int_equal(virtio_device_init(&e->vdev, &echo_class, &echo_type, &e->f.env, NULL, NULL), 0);
    assert_int_equal(virtio_device_plug(&e->vdev, NULL), 0);
    assert_true(driver_find(&e->d, &e->f, echo_type.type));
    assert_true(driver_start(&e->d, features, &e->q, 1, QUEUE_SIZE));
    fixture_msix_vector(&e->f, e->d.devfn, 1, 0x41);
    fixture_msix_control(&e->f, e->d.devfn, 0x8000);
    return e;
}

void echo_restart(struct echo *e)
{
    assert_true(driver_start(&e->d, e->features, &e->q, 1, QUEUE_SIZE));
}

int echo_teardown(void **state)
{
    struct echo *e = *state;
    virtio_device_fini(&e->vdev);
    fixture_fini(&e->f);
    free(e);
    return 0;
}

uint8_t *echo_ram(struct echo *e, uint64_t gpa)
{
    return driver_ram(&e->f, gpa, 1);
}

void echo_once(struct echo *e, unsigned seed, bool indirect)
{
    const struct piece pieces[] = {{DRIVER_BUFFERS, 5, false},
                                   {DRIVER_BUFFERS + 0x1000, 7, false},
                                   {DRIVER_BUFFERS + 0x2000, 3, true},
                                   {DRIVER_BUFFERS + 0x3000, 100, true}};
    memset(echo_ram(e, DRIVER_BUFFERS + 0x2000), 0, 0x2000);
    fixture_clear_marks(&e->f);
    for (unsigned i = 0; i < 12; i++)
        *echo_ram(e, i < 5 ? DRIVER_BUFFERS + i : DRIVER_BUFFERS + 0x1000 + i - 5) = (uint8_t)(seed + i);
    uint16_t id = driver_add(&e->q, pieces, 4, indirect);
    driver_kick(&e->q);
    uint32_t used, len;
    assert_true(driver_used(&e->q, &used, &len));
    assert_int_equal(used, id);
    assert_int_equal(len, 12);
    assert_int_equal(e->pieces, 4);
    for (unsigned i = 0; i < 12; i++) {
        uint64_t at = i < 3 ? DRIVER_BUFFERS + 0x2000 + i : DRIVER_BUFFERS + 0x3000 + i - 3;
        assert_int_equal(*echo_ram(e, at), (uint8_t)(seed + i));
        /* The engine was told of each byte written, and of no other. */
        assert_int_equal(e->f.marked[at], 1);
    }
    assert_int_equal(e->f.marked[DRIVER_BUFFERS], 0);
    assert_int_equal(e->f.marked[DRIVER_BUFFERS + 0x2003], 0);
    assert_int_equal(e->f.marked[DRIVER_BUFFERS + 0x3009], 0);
    assert_false(driver_used(&e->q, &used, &len));
}

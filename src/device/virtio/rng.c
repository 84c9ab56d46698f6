/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtio entropy device (virtio 1.2, 5.4): fills the driver's buffers from the host's getrandom. One queue,
 * no configuration, no state. Runs in the loop's thread with the device's lock held.
 */
#include "base/bytes.h"
#include "base/error.h"
#include "device/virtio/virtio.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#define RNG_CLASS      0x00ff00 /* PCI: unclassified */
#define RNG_QUEUE_SIZE 64

/* A buffer may be as large as RAM, and the driver must be content with less than it asked for (5.4.6): this
 * much keeps the loop responsive. */
#define RNG_MAX_BYTES 4096u

struct virtio_rng {
    struct virtio_device vdev;
};

/* The bytes written: at least one unless the host has no entropy, which only an early boot could bring. */
static uint32_t fill(const struct virtqueue_element *elem)
{
    uint32_t done = 0;
    for (unsigned i = 0; i < elem->n_in && done < RNG_MAX_BYTES; i++) {
        const struct iovec *v = &virtqueue_in(elem)[i];
        size_t want = v->iov_len < RNG_MAX_BYTES - done ? v->iov_len : RNG_MAX_BYTES - done;
        ssize_t got = getrandom(v->iov_base, want, GRND_NONBLOCK);
        if (got < 0)
            break;
        done += (uint32_t)got;
        if ((size_t)got < want)
            break;
    }
    return done;
}

static void rng_queue_notify(struct virtio_device *vdev, struct virtqueue *queue)
{
    struct virtqueue_element elem;
    unsigned n = 0;
    while (n < queue->size && virtqueue_pop(queue, &elem)) {
        virtqueue_push(queue, &elem, fill(&elem));
        n++;
    }
    virtqueue_notify(queue);
    if (n == queue->size)
        virtqueue_kick(queue);
}

static const uint16_t rng_queues[] = {RNG_QUEUE_SIZE};

static const struct virtio_device_class rng_type = {
    .type = VIRTIO_TYPE_RNG,
    .pci_class = RNG_CLASS,
    .n_queues = ARRAY_SIZE(rng_queues),
    .queue_max = rng_queues,
    .queue_notify = rng_queue_notify,
};

static void rng_destroy(struct device *device)
{
    struct virtio_rng *rng = container_of(device, struct virtio_rng, vdev.device);
    virtio_device_fini(&rng->vdev);
    free(rng);
}

extern const struct device_class virtio_rng_class;

static int rng_create(struct device **out, const struct device_env *env, const void *config,
                      struct error **err)
{
    struct virtio_rng *rng = calloc(1, sizeof(*rng));
    if (!rng)
        return error_set_errno(err, ENOMEM, "virtio-rng");
    int rc = virtio_device_init(&rng->vdev, &virtio_rng_class, &rng_type, env, NULL, err);
    if (rc < 0) {
        free(rng);
        return rc;
    }
    rc = virtio_device_plug(&rng->vdev, err);
    if (rc < 0) {
        rng_destroy(&rng->vdev.device);
        return rc;
    }
    *out = &rng->vdev.device;
    return 0;
}

const struct device_class virtio_rng_class = {
    .name = "virtio-rng",
    .summary = "virtio entropy device fed by the host's random numbers",
    .create = rng_create,
    .reset = virtio_device_power_on,
    .destroy = rng_destroy,
};

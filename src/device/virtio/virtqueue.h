/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtqueues, split (virtio 1.2, 2.7) and packed (2.8), behind one interface for device authors.
 *
 * The lock of the device that owns the queue must be held for every call but virtqueue_kick. Everything in
 * rings and descriptors is the guest's and may change at any time, so each field is read once, then checked.
 */
#ifndef TABIQUE_DEVICE_VIRTIO_VIRTQUEUE_H
#define TABIQUE_DEVICE_VIRTIO_VIRTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Bounds on a queue's size and on the pieces of one buffer; small enough for an element on the stack. */
#define VIRTQUEUE_MAX_SIZE     256u
#define VIRTQUEUE_MAX_SEGMENTS 256u

struct loop_watch;
struct virtio_device;
struct virtqueue_ops;

/* One buffer: first the pieces that the device reads, then those that it writes. Host pointers, checked to be
 * RAM. No piece is empty. */
struct virtqueue_element {
    uint32_t generation; /* of the queue, which a reset changes */
    uint16_t id;
    uint16_t slots; /* how much of a packed ring it takes */
    unsigned n_out, n_in;
    uint32_t out_len, in_len; /* bytes */
    struct iovec iov[VIRTQUEUE_MAX_SEGMENTS];
};

static inline const struct iovec *virtqueue_out(const struct virtqueue_element *elem)
{
    return elem->iov;
}
static inline const struct iovec *virtqueue_in(const struct virtqueue_element *elem)
{
    return elem->iov + elem->n_out;
}

struct virtqueue {
    struct virtio_device *vdev;
    unsigned index;

    /* As the driver has set it up. */
    uint16_t max_size, size;
    uint16_t msix_vector;
    bool enabled;
    uint64_t desc_gpa, driver_gpa, device_gpa;

    /* Valid while enabled. */
    const struct virtqueue_ops *ops;
    uint8_t *desc, *driver, *device;
    bool event_idx;
    bool kicks_off; /* we have asked the driver not to notify */
    bool avail_wrap, used_wrap;
    uint16_t avail_idx, used_idx;
    unsigned in_flight; /* popped and not yet pushed: buffers (split) or ring slots (packed) */
    unsigned pushed;    /* entries used since the last decision about an interrupt */
    uint32_t generation;

    int kick_fd;
    struct loop_watch *kick_watch;
};

/*
 * Takes the next buffer. False when there is none (notifications by the driver are then on), or when the
 * device may not use its queue: not set up, needs reset, bus mastering off.
 */
bool virtqueue_pop(struct virtqueue *queue, struct virtqueue_element *elem);

/* Gives a buffer back, of which `written` bytes from the start of its writable pieces have been written. One
 * that was popped before a reset is dropped. Pushing in another order than popping is fine. */
void virtqueue_push(struct virtqueue *queue, const struct virtqueue_element *elem, uint32_t written);

/* As virtqueue_push for each of `n` buffers of one generation in turn, but the driver finds either none of
 * them used or all: for a frame in several buffers (5.1.6.4). */
void virtqueue_push_all(struct virtqueue *queue, const struct virtqueue_element *elems,
                        const uint32_t *written, unsigned n);

/* Interrupts the driver if it wants that for what was pushed since the last call. */
void virtqueue_notify(struct virtqueue *queue);

/* Has queue_notify called soon in the loop's thread, as if the driver had notified. Any thread. */
void virtqueue_kick(struct virtqueue *queue);

/* Copy `len` bytes from the readable (to the writable) pieces at byte `offset`, whatever their framing
 * (2.6.4.1). The number of bytes there were to copy, up to len. */
size_t virtqueue_read(const struct virtqueue_element *elem, size_t offset, void *buf, size_t len);
size_t virtqueue_write(const struct virtqueue_element *elem, size_t offset, const void *buf, size_t len);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What both ring formats share: set-up, the pieces of a buffer, and when to tell the other side. Called by
 * devices (virtqueue.h) and the transport; the device's lock is held.
 */
#include "device/virtio/virtqueue.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "device/virtio/virtio_priv.h"
#include "host/loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#define NO_VECTOR 0xffff

/* The driver has notified, or virtqueue_kick was called. Runs in the loop's thread. */
static void kicked(void *opaque, uint32_t events)
{
    struct virtqueue *queue = opaque;
    eventfd_t count;
    /* Before the queue is looked at, so that a kick from now on is not lost. */
    eventfd_read(queue->kick_fd, &count);
    LOCK_SCOPE(&queue->vdev->lock);
    if (queue->enabled && virtio_device_running(queue->vdev))
        queue->vdev->class->queue_notify(queue->vdev, queue);
}

int virtqueue_init(struct virtqueue *queue, struct virtio_device *vdev, unsigned index)
{
    *queue = (struct virtqueue){.vdev = vdev, .index = index, .max_size = vdev->class->queue_max[index]};
    virtqueue_reset(queue);
    queue->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (queue->kick_fd < 0)
        return -errno;
    int rc = loop_watch_add(vdev->loop, queue->kick_fd, EPOLLIN, kicked, queue, &queue->kick_watch);
    if (rc < 0) {
        close(queue->kick_fd);
        queue->kick_fd = -1;
    }
    return rc;
}

void virtqueue_fini(struct virtqueue *queue)
{
    loop_watch_remove(queue->kick_watch);
    queue->kick_watch = NULL;
    if (queue->kick_fd >= 0)
        close(queue->kick_fd);
    queue->kick_fd = -1;
}

void virtqueue_reset(struct virtqueue *queue)
{
    queue->size = queue->max_size;
    queue->msix_vector = NO_VECTOR;
    queue->enabled = false;
    queue->desc_gpa = queue->driver_gpa = queue->device_gpa = 0;
    queue->ops = NULL;
    queue->desc = queue->driver = queue->device = NULL;
    queue->kicks_off = false;
    queue->avail_wrap = queue->used_wrap = true;
    queue->avail_idx = queue->used_idx = 0;
    queue->in_flight = queue->pushed = 0;
    queue->generation++;
}

void virtqueue_enable(struct virtqueue *queue)
{
    struct virtio_device *vdev = queue->vdev;
    if (queue->enabled)
        return;
    const struct virtqueue_ops *ops =
        virtio_has_feature(vdev, VIRTIO_F_RING_PACKED) ? &virtqueue_packed_ops : &virtqueue_split_ops;
    const uint64_t gpa[3] = {queue->desc_gpa, queue->driver_gpa, queue->device_gpa};
    uint64_t size[3], align[3];
    uint8_t *host[3];
    if (!ops->layout(queue->size, size, align)) {
        virtio_device_broken(vdev, "queue size does not suit the ring format");
        return;
    }
    for (unsigned i = 0; i < 3; i++) {
        host[i] = gpa[i] % align[i] ? NULL : guest_memory_ram_at(vdev->device.env->memory, gpa[i], size[i]);
        if (!host[i]) {
            virtio_device_broken(vdev, "queue area is not aligned RAM");
            return;
        }
    }
    queue->ops = ops;
    queue->desc = host[0];
    queue->driver = host[1];
    queue->device = host[2];
    queue->event_idx = virtio_has_feature(vdev, VIRTIO_F_EVENT_IDX);
    queue->enabled = true;
    virtqueue_kick(queue);
}

static bool usable(const struct virtqueue *queue)
{
    return queue->enabled && virtio_device_running(queue->vdev);
}

bool virtqueue_pop(struct virtqueue *queue, struct virtqueue_element *elem)
{
    if (!usable(queue))
        return false;
    enum virtqueue_got got = queue->ops->pop(queue, elem);
    if (got == VIRTQUEUE_EMPTY) {
        /* The driver may have added one after we looked and before it could know that we want to hear of it:
         * look again once it can. */
        queue->ops->set_kicks(queue, true);
        queue->kicks_off = false;
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        got = queue->ops->pop(queue, elem);
    }
    if (got != VIRTQUEUE_GOT)
        return false;
    if (!queue->event_idx && !queue->kicks_off) {
        /* With event indexes, the one that has passed keeps the driver silent already. */
        queue->ops->set_kicks(queue, false);
        queue->kicks_off = true;
    }
    elem->generation = queue->generation;
    return true;
}

/* Tells of the first `written` bytes of an element. */
static void mark_element(struct virtqueue *queue, const struct virtqueue_element *elem, size_t written)
{
    for (unsigned i = 0; i < elem->n_in && written; i++) {
        const struct iovec *v = &virtqueue_in(elem)[i];
        size_t n = v->iov_len < written ? v->iov_len : written;
        virtqueue_mark_written(queue, v->iov_base, (unsigned)n);
        written -= n;
    }
}

void virtqueue_push_all(struct virtqueue *queue, const struct virtqueue_element *elems,
                        const uint32_t *written, unsigned n)
{
    unsigned slots = 0;
    for (unsigned i = 0; i < n; i++)
        slots += elems[i].slots;
    if (!n || !usable(queue) || elems[0].generation != queue->generation || queue->in_flight < slots)
        return;
    for (unsigned i = 0; i < n; i++)
        mark_element(queue, &elems[i], written[i]);
    queue->ops->push(queue, elems, written, n);
}

void virtqueue_push(struct virtqueue *queue, const struct virtqueue_element *elem, uint32_t written)
{
    if (written > elem->in_len)
        written = elem->in_len;
    virtqueue_push_all(queue, elem, &written, 1);
}

void virtqueue_notify(struct virtqueue *queue)
{
    if (!queue->pushed || !usable(queue))
        return;
    /* The used entries must be visible before we look whether the driver waits for them (2.7.7.2). */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    bool wanted = queue->ops->interrupt_wanted(queue);
    queue->pushed = 0;
    if (wanted)
        queue->vdev->transport->queue_interrupt(queue->vdev, queue);
}

void virtqueue_kick(struct virtqueue *queue)
{
    /* Fails only when the counter is about to overflow: then the kick is pending already. */
    eventfd_write(queue->kick_fd, 1);
}

bool virtqueue_add_segment(struct virtqueue *queue, struct virtqueue_element *elem, uint64_t gpa,
                           uint32_t len, bool writable)
{
    if (!writable && elem->n_in) {
        virtqueue_broken(queue, "readable descriptor after a writable one");
        return false;
    }
    if (!len)
        return true;
    uint32_t *total = writable ? &elem->in_len : &elem->out_len;
    if (len > UINT32_MAX - elem->in_len - elem->out_len) {
        virtqueue_broken(queue, "buffer of 4 GiB or more");
        return false;
    }
    const struct guest_memory *memory = queue->vdev->device.env->memory;
    void *host = writable ? guest_memory_ram_at(memory, gpa, len) : guest_memory_at(memory, gpa, len);
    if (!host) {
        virtqueue_broken(queue, "buffer is not RAM");
        return false;
    }
    unsigned n = elem->n_out + elem->n_in;
    if (n == VIRTQUEUE_MAX_SEGMENTS) {
        virtqueue_broken(queue, "buffer of too many pieces");
        return false;
    }
    elem->iov[n] = (struct iovec){.iov_base = host, .iov_len = len};
    *total += len;
    if (writable)
        elem->n_in++;
    else
        elem->n_out++;
    return true;
}

const uint8_t *virtqueue_indirect_table(struct virtqueue *queue, uint64_t gpa, uint32_t len, unsigned *n)
{
    const uint8_t *table = NULL;
    if (!virtio_has_feature(queue->vdev, VIRTIO_F_INDIRECT_DESC))
        virtqueue_broken(queue, "indirect descriptor without the feature");
    else if (!len || len % DESC_SIZE || len / DESC_SIZE > VIRTQUEUE_MAX_SEGMENTS)
        virtqueue_broken(queue, "indirect table of a wrong size");
    else if (!(table = guest_memory_at(queue->vdev->device.env->memory, gpa, len)))
        virtqueue_broken(queue, "indirect table is not RAM");
    *n = len / DESC_SIZE;
    return table;
}

enum virtqueue_got virtqueue_broken(struct virtqueue *queue, const char *why)
{
    virtio_device_broken(queue->vdev, why);
    return VIRTQUEUE_BROKEN;
}

/* RAM is one mapping, so the guest-physical address follows from the host's. */
void virtqueue_mark_written(const struct virtqueue *queue, const uint8_t *at, unsigned len)
{
    const struct guest_memory *mem = queue->vdev->device.env->memory;
    for (unsigned i = 0; i < mem->n_blocks; i++) {
        const struct guest_memory_block *b = &mem->blocks[i];
        if (at >= b->host && (uint64_t)(at - b->host) < b->size) {
            guest_memory_mark_written(mem, b->gpa + (uint64_t)(at - b->host), len);
            return;
        }
    }
}

/* Walks `n` pieces; `store` copies from buf to them. */
static size_t copy(const struct iovec *iov, unsigned n, size_t offset, uint8_t *buf, size_t len, bool store)
{
    size_t done = 0;
    for (unsigned i = 0; i < n && done < len; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        size_t part = iov[i].iov_len - offset;
        if (part > len - done)
            part = len - done;
        uint8_t *guest = (uint8_t *)iov[i].iov_base + offset;
        if (store)
            memcpy(guest, buf + done, part);
        else
            memcpy(buf + done, guest, part);
        done += part;
        offset = 0;
    }
    return done;
}

size_t virtqueue_read(const struct virtqueue_element *elem, size_t offset, void *buf, size_t len)
{
    return copy(virtqueue_out(elem), elem->n_out, offset, buf, len, false);
}

size_t virtqueue_write(const struct virtqueue_element *elem, size_t offset, const void *buf, size_t len)
{
    return copy(virtqueue_in(elem), elem->n_in, offset, (uint8_t *)(uintptr_t)buf, len, true);
}

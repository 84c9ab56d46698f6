/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The split ring (virtio 1.2, 2.7). Three areas:
 *   descriptors  size x { le64 address; le32 length; le16 flags; le16 next }
 *   driver       le16 flags; le16 idx; le16 ring[size]; le16 used_event       "available ring"
 *   device       le16 flags; le16 idx; { le32 id; le32 length }[size]; le16 avail_event     "used ring"
 * Both idx run freely modulo 65536. Called by virtqueue.c with the device's lock held.
 */
#include "base/bytes.h"
#include "device/virtio/virtio_priv.h"

#define RING_FLAGS      0u
#define RING_IDX        2u
#define RING_ENTRIES    4u
#define AVAIL_ENTRY     2u
#define USED_ENTRY      8u
#define NO_INTERRUPT    0x1u /* in the driver's flags */
#define NO_NOTIFICATION 0x1u /* in ours */

static bool split_layout(unsigned size, uint64_t area_size[3], uint64_t area_align[3])
{
    if (!size || size & (size - 1))
        return false;
    area_size[0] = (uint64_t)DESC_SIZE * size;
    area_size[1] = RING_ENTRIES + AVAIL_ENTRY * size + 2;
    area_size[2] = RING_ENTRIES + USED_ENTRY * size + 2;
    area_align[0] = 16;
    area_align[1] = 2;
    area_align[2] = 4;
    return true;
}

/*
 * Follows a chain from descriptor `i` of the ring; it may end in an indirect table, whose own chain starts at
 * its first entry (2.7.5.3). A chain longer than its table goes round in circles.
 */
static enum virtqueue_got walk_chain(struct virtqueue *queue, struct virtqueue_element *elem, unsigned i)
{
    const uint8_t *table = queue->desc;
    unsigned n = queue->size;
    bool indirect = false;
    for (unsigned seen = 0;; seen++) {
        if (seen == n)
            return virtqueue_broken(queue, "descriptor chain without end");
        uint64_t gpa = guest_load64(table + (size_t)i * DESC_SIZE);
        uint64_t rest = guest_load64(table + (size_t)i * DESC_SIZE + 8);
        uint32_t len = (uint32_t)rest;
        uint16_t flags = (uint16_t)(rest >> 32), next = (uint16_t)(rest >> 48);
        if (flags & DESC_INDIRECT) {
            if (indirect || flags & DESC_NEXT)
                return virtqueue_broken(queue, "indirect descriptor where none may be");
            table = virtqueue_indirect_table(queue, gpa, len, &n);
            if (!table)
                return VIRTQUEUE_BROKEN;
            indirect = true;
            i = 0;
            seen = UINT32_MAX; /* counts anew from 0 */
            continue;
        }
        if (!virtqueue_add_segment(queue, elem, gpa, len, flags & DESC_WRITE))
            return VIRTQUEUE_BROKEN;
        if (!(flags & DESC_NEXT))
            return VIRTQUEUE_GOT;
        if (next >= n)
            return virtqueue_broken(queue, "next descriptor beyond its table");
        i = next;
    }
}

static enum virtqueue_got split_pop(struct virtqueue *queue, struct virtqueue_element *elem)
{
    /* Acquire: what idx announces is read after it. */
    uint16_t idx = ring_load16(queue->driver + RING_IDX, __ATOMIC_ACQUIRE);
    uint16_t waiting = (uint16_t)(idx - queue->avail_idx);
    if (!waiting)
        return VIRTQUEUE_EMPTY;
    if (waiting > queue->size || queue->in_flight >= queue->size)
        return virtqueue_broken(queue, "more buffers available than the queue holds");
    unsigned slot = queue->avail_idx & (queue->size - 1u);
    uint16_t head = ring_load16(queue->driver + RING_ENTRIES + AVAIL_ENTRY * slot, __ATOMIC_RELAXED);
    if (head >= queue->size)
        return virtqueue_broken(queue, "available descriptor beyond the queue");
    elem->id = head;
    elem->slots = 1;
    elem->n_out = elem->n_in = 0;
    elem->out_len = elem->in_len = 0;
    enum virtqueue_got got = walk_chain(queue, elem, head);
    if (got != VIRTQUEUE_GOT)
        return got;
    queue->avail_idx++;
    queue->in_flight++;
    return VIRTQUEUE_GOT;
}

static void split_push(struct virtqueue *queue, const struct virtqueue_element *elems,
                       const uint32_t *written, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint8_t *entry = queue->device + RING_ENTRIES + USED_ENTRY * (queue->used_idx & (queue->size - 1u));
        ring_store32(entry, elems[i].id);
        ring_store32(entry + 4, written[i]);
        virtqueue_mark_written(queue, entry, USED_ENTRY);
        queue->used_idx++;
    }
    queue->in_flight -= n;
    queue->pushed += n;
    ring_store16(queue->device + RING_IDX, queue->used_idx, __ATOMIC_RELEASE);
    virtqueue_mark_written(queue, queue->device, RING_ENTRIES);
}

static bool split_interrupt_wanted(const struct virtqueue *queue)
{
    if (!queue->event_idx)
        return !(ring_load16(queue->driver + RING_FLAGS, __ATOMIC_RELAXED) & NO_INTERRUPT);
    /* Wanted when the entry with index used_event is among the pushed ones (2.7.7.2). */
    uint16_t event = ring_load16(queue->driver + RING_ENTRIES + AVAIL_ENTRY * queue->size, __ATOMIC_RELAXED);
    return (uint16_t)(queue->used_idx - event - 1) < queue->pushed;
}

static void split_set_kicks(struct virtqueue *queue, bool on)
{
    uint8_t *field = queue->device + RING_FLAGS;
    uint16_t value = on ? 0 : NO_NOTIFICATION;
    if (queue->event_idx) {
        field = queue->device + RING_ENTRIES + USED_ENTRY * queue->size;
        value = queue->avail_idx;
    }
    ring_store16(field, value, __ATOMIC_RELAXED);
    virtqueue_mark_written(queue, field, 2);
}

const struct virtqueue_ops virtqueue_split_ops = {
    .layout = split_layout,
    .pop = split_pop,
    .push = split_push,
    .interrupt_wanted = split_interrupt_wanted,
    .set_kicks = split_set_kicks,
};

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The packed ring (virtio 1.2, 2.8). One ring of descriptors that both sides write, and two event
 * suppression structures:
 *   descriptors  size x { le64 address; le32 length; le16 id; le16 flags }
 *   driver       { le16 desc (offset 0-14, wrap counter 15); le16 flags }   whether it wants interrupts
 *   device       the same                                                   whether we want notifications
 * A descriptor is available when its AVAIL flag equals the driver's wrap counter and USED does not, and used
 * when both equal the device's. Called by virtqueue.c with the device's lock held.
 */
#include "base/bytes.h"
#include "device/virtio/virtio_priv.h"

#define DESC_LENGTH 8u
#define DESC_ID     12u
#define DESC_FLAGS  14u

#define EVENT_OFFSET  0u
#define EVENT_FLAGS   2u
#define EVENT_ENABLE  0u
#define EVENT_DISABLE 1u
#define EVENT_DESC    2u
#define EVENT_WRAP    0x8000u

static bool packed_layout(unsigned size, uint64_t area_size[3], uint64_t area_align[3])
{
    if (!size)
        return false;
    area_size[0] = (uint64_t)DESC_SIZE * size;
    area_size[1] = area_size[2] = 4;
    area_align[0] = 16;
    area_align[1] = area_align[2] = 4;
    return true;
}

/* In an indirect table the descriptors simply follow each other; of their flags only WRITE counts (2.8.7). */
static enum virtqueue_got take_indirect(struct virtqueue *queue, struct virtqueue_element *elem, uint64_t gpa,
                                        uint32_t len)
{
    unsigned n;
    const uint8_t *table = virtqueue_indirect_table(queue, gpa, len, &n);
    if (!table)
        return VIRTQUEUE_BROKEN;
    for (unsigned i = 0; i < n; i++) {
        uint64_t rest = guest_load64(table + i * DESC_SIZE + DESC_LENGTH);
        uint16_t flags = (uint16_t)(rest >> 48);
        if (flags & DESC_INDIRECT)
            return virtqueue_broken(queue, "indirect descriptor where none may be");
        if (!virtqueue_add_segment(queue, elem, guest_load64(table + i * DESC_SIZE), (uint32_t)rest,
                                   flags & DESC_WRITE))
            return VIRTQUEUE_BROKEN;
    }
    return VIRTQUEUE_GOT;
}

static bool available(const struct virtqueue *queue)
{
    /* Acquire: the rest of the chain, which the driver has written before, is read after these flags. */
    uint16_t flags = ring_load16(queue->desc + queue->avail_idx * DESC_SIZE + DESC_FLAGS, __ATOMIC_ACQUIRE);
    return !!(flags & DESC_AVAIL) == queue->avail_wrap && !!(flags & DESC_USED) != queue->avail_wrap;
}

static enum virtqueue_got packed_pop(struct virtqueue *queue, struct virtqueue_element *elem)
{
    if (!available(queue))
        return VIRTQUEUE_EMPTY;
    elem->n_out = elem->n_in = 0;
    elem->out_len = elem->in_len = 0;
    unsigned at = queue->avail_idx;
    bool wrap = queue->avail_wrap;
    for (unsigned slots = 1;; slots++) {
        if (slots > queue->size - queue->in_flight)
            return virtqueue_broken(queue, "more descriptors available than the queue holds");
        const uint8_t *desc = queue->desc + at * DESC_SIZE;
        uint64_t gpa = guest_load64(desc), rest = guest_load64(desc + DESC_LENGTH);
        uint32_t len = (uint32_t)rest;
        uint16_t flags = (uint16_t)(rest >> 48);
        if (++at == queue->size) {
            at = 0;
            wrap = !wrap;
        }
        if (flags & DESC_INDIRECT) {
            if (slots > 1 || flags & DESC_NEXT)
                return virtqueue_broken(queue, "indirect descriptor where none may be");
            if (take_indirect(queue, elem, gpa, len) != VIRTQUEUE_GOT)
                return VIRTQUEUE_BROKEN;
        } else if (!virtqueue_add_segment(queue, elem, gpa, len, flags & DESC_WRITE)) {
            return VIRTQUEUE_BROKEN;
        }
        if (!(flags & DESC_NEXT)) {
            /* The chain's last descriptor has its id (2.8.6). */
            elem->id = (uint16_t)(rest >> 32);
            elem->slots = (uint16_t)slots;
            queue->avail_idx = (uint16_t)at;
            queue->avail_wrap = wrap;
            queue->in_flight += slots;
            return VIRTQUEUE_GOT;
        }
    }
}

/* Writes the used descriptor of one buffer but for its flags, which it returns, and *at where they belong. */
static uint16_t fill_used(struct virtqueue *queue, const struct virtqueue_element *elem, uint32_t written,
                          uint8_t **at)
{
    uint8_t *desc = queue->desc + queue->used_idx * DESC_SIZE;
    uint16_t flags = queue->used_wrap ? DESC_AVAIL | DESC_USED : 0;
    if (written)
        flags |= DESC_WRITE;
    ring_store32(desc + DESC_LENGTH, written);
    ring_store16(desc + DESC_ID, elem->id, __ATOMIC_RELAXED);
    /* One descriptor stands for the whole buffer; the driver skips as many as the buffer had. */
    queue->used_idx = (uint16_t)(queue->used_idx + elem->slots);
    if (queue->used_idx >= queue->size) {
        queue->used_idx = (uint16_t)(queue->used_idx - queue->size);
        queue->used_wrap = !queue->used_wrap;
    }
    queue->in_flight -= elem->slots;
    queue->pushed += elem->slots;
    *at = desc + DESC_FLAGS;
    return flags;
}

static void packed_push(struct virtqueue *queue, const struct virtqueue_element *elems,
                        const uint32_t *written, unsigned n)
{
    uint8_t *first, *at;
    uint16_t first_flags = fill_used(queue, &elems[0], written[0], &first);
    for (unsigned i = 1; i < n; i++) {
        uint16_t flags = fill_used(queue, &elems[i], written[i], &at);
        ring_store16(at, flags, __ATOMIC_RELAXED);
        virtqueue_mark_written(queue, at - DESC_FLAGS, DESC_SIZE);
    }
    /* The driver goes through them in order: the first one's flags give it all of them. */
    ring_store16(first, first_flags, __ATOMIC_RELEASE);
    virtqueue_mark_written(queue, first - DESC_FLAGS, DESC_SIZE);
}

/* A place in the ring together with its wrap counter, as a number modulo twice the size. */
static unsigned position(const struct virtqueue *queue, unsigned offset, bool wrap)
{
    return offset + (wrap ? 0 : queue->size);
}

static bool packed_interrupt_wanted(const struct virtqueue *queue)
{
    uint16_t flags = ring_load16(queue->driver + EVENT_FLAGS, __ATOMIC_ACQUIRE) & 3;
    if (flags != EVENT_DESC || !queue->event_idx)
        return flags != EVENT_DISABLE;
    uint16_t event = ring_load16(queue->driver + EVENT_OFFSET, __ATOMIC_RELAXED);
    unsigned offset = event & ~EVENT_WRAP;
    if (offset >= queue->size)
        return true;
    /* Wanted when the slot that it names is among the pushed ones: not further back than those. */
    unsigned now = position(queue, queue->used_idx, queue->used_wrap);
    unsigned then = position(queue, offset, event & EVENT_WRAP);
    unsigned back = (now + 2u * queue->size - then) % (2u * queue->size);
    return back && back <= queue->pushed;
}

static void packed_set_kicks(struct virtqueue *queue, bool on)
{
    uint16_t flags = on ? EVENT_ENABLE : EVENT_DISABLE;
    if (queue->event_idx) {
        ring_store16(queue->device + EVENT_OFFSET,
                     (uint16_t)(queue->avail_idx | (queue->avail_wrap ? EVENT_WRAP : 0)), __ATOMIC_RELAXED);
        flags = EVENT_DESC;
    }
    ring_store16(queue->device + EVENT_FLAGS, flags, __ATOMIC_RELEASE);
    virtqueue_mark_written(queue, queue->device, 4);
}

const struct virtqueue_ops virtqueue_packed_ops = {
    .layout = packed_layout,
    .pop = packed_pop,
    .push = packed_push,
    .interrupt_wanted = packed_interrupt_wanted,
    .set_kicks = packed_set_kicks,
};

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The virtio driver of driver.h. The device may be served by another thread: the fields that hand buffers
 * over are accessed atomically and in order. */
#include "driver.h"

#include "base/bytes.h"
#include "device/msix.h"

#include <stdlib.h>

#define SPLIT_AVAIL_RING 4u
#define SPLIT_USED_RING  4u

static uint64_t structure(struct driver *d, uint8_t type, unsigned *capability)
{
    for (unsigned n = 0;; n++) {
        unsigned at = fixture_capability(d->f, d->devfn, PCI_CAP_ID_VENDOR, n);
        if (!at)
            return 0;
        if (fixture_config_read(d->f, d->devfn, at + 3, 1) != type)
            continue;
        *capability = at;
        unsigned bar = (unsigned)fixture_config_read(d->f, d->devfn, at + 4, 1);
        return fixture_bar(d->f, d->devfn, bar) + fixture_config_read(d->f, d->devfn, at + 8, 4);
    }
}

bool driver_find(struct driver *d, struct fixture *f, unsigned type)
{
    *d = (struct driver){.f = f};
    int devfn = fixture_find(f, 0x1af4, (uint16_t)(0x1040 + type));
    if (devfn < 0)
        return false;
    d->devfn = (unsigned)devfn;
    unsigned at = 0;
    d->common = structure(d, 1, &at);
    d->notify = structure(d, 2, &at);
    d->notify_multiplier = (uint32_t)fixture_config_read(f, d->devfn, at + 16, 4);
    d->isr = structure(d, 3, &at);
    d->config = structure(d, 4, &at);
    return d->common && d->notify && d->isr;
}

uint64_t driver_read(struct driver *d, unsigned offset, unsigned size)
{
    return io_space_read(d->f->env.mmio, d->common + offset, size);
}

void driver_write(struct driver *d, unsigned offset, unsigned size, uint64_t value)
{
    io_space_write(d->f->env.mmio, d->common + offset, size, value);
}

uint8_t driver_status(struct driver *d)
{
    return (uint8_t)driver_read(d, C_STATUS, 1);
}

uint64_t driver_offered(struct driver *d)
{
    driver_write(d, C_DEVICE_FEATURE_SELECT, 4, 1);
    uint64_t high = driver_read(d, C_DEVICE_FEATURE, 4);
    driver_write(d, C_DEVICE_FEATURE_SELECT, 4, 0);
    return high << 32 | driver_read(d, C_DEVICE_FEATURE, 4);
}

bool driver_negotiate(struct driver *d, uint64_t features)
{
    uint8_t status = VIRTIO_STATUS_ACKNOWLEDGE;
    driver_write(d, C_STATUS, 1, 0);
    driver_write(d, C_STATUS, 1, status);
    driver_write(d, C_STATUS, 1, status |= VIRTIO_STATUS_DRIVER);
    driver_write(d, C_DRIVER_FEATURE_SELECT, 4, 0);
    driver_write(d, C_DRIVER_FEATURE, 4, (uint32_t)features);
    driver_write(d, C_DRIVER_FEATURE_SELECT, 4, 1);
    driver_write(d, C_DRIVER_FEATURE, 4, features >> 32);
    driver_write(d, C_STATUS, 1, status | VIRTIO_STATUS_FEATURES_OK);
    d->features = features;
    return driver_status(d) & VIRTIO_STATUS_FEATURES_OK;
}

void driver_ready(struct driver *d)
{
    driver_write(d, C_STATUS, 1, driver_status(d) | VIRTIO_STATUS_DRIVER_OK);
}

uint8_t *driver_ram(struct fixture *f, uint64_t gpa, uint64_t len)
{
    uint8_t *p = guest_memory_at(f->env.memory, gpa, len);
    if (!p)
        abort();
    return p;
}

static uint16_t get16(const struct driver_queue *q, uint64_t gpa)
{
    return __atomic_load_n((uint16_t *)(void *)driver_ram(q->d->f, gpa, 2), __ATOMIC_SEQ_CST);
}

static void set16(const struct driver_queue *q, uint64_t gpa, uint16_t v)
{
    __atomic_store_n((uint16_t *)(void *)driver_ram(q->d->f, gpa, 2), v, __ATOMIC_SEQ_CST);
}

void driver_queue_init(struct driver_queue *q, struct driver *d, unsigned index, unsigned size)
{
    uint64_t base = DRIVER_RINGS + index * DRIVER_RING;
    *q = (struct driver_queue){
        .d = d,
        .index = index,
        .size = size,
        .packed = d->features >> VIRTIO_F_RING_PACKED & 1,
        .event_idx = d->features >> VIRTIO_F_EVENT_IDX & 1,
        .desc = base,
        .driver = base + 0x4000,
        .device = base + 0x6000,
        .indirect = base + 0x8000,
        .avail_wrap = true,
        .used_wrap = true,
    };
    memset(driver_ram(d->f, base, 0x8000), 0, 0x8000);
    driver_write(d, C_QUEUE_SELECT, 2, index);
    driver_write(d, C_QUEUE_SIZE, 2, size);
    driver_write(d, C_QUEUE_VECTOR, 2, index + 1);
    /* By halves and as a whole: both are allowed. */
    driver_write(d, C_QUEUE_DESC, 8, q->desc);
    driver_write(d, C_QUEUE_DRIVER, 4, (uint32_t)q->driver);
    driver_write(d, C_QUEUE_DRIVER + 4, 4, q->driver >> 32);
    driver_write(d, C_QUEUE_DEVICE, 8, q->device);
    driver_write(d, C_QUEUE_ENABLE, 2, 1);
    q->doorbell = d->notify + driver_read(d, C_QUEUE_NOTIFY_OFF, 2) * d->notify_multiplier;
}

bool driver_start(struct driver *d, uint64_t features, struct driver_queue *queues, unsigned n, unsigned size)
{
    if (!driver_negotiate(d, features))
        return false;
    for (unsigned i = 0; i < n; i++)
        driver_queue_init(&queues[i], d, i, size);
    driver_ready(d);
    fixture_run_loop(d->f);
    return driver_status(d) == (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK |
                                VIRTIO_STATUS_DRIVER_OK);
}

void driver_descriptor(struct fixture *f, uint64_t table, unsigned i, uint64_t gpa, uint32_t len,
                       uint16_t at12, uint16_t at14)
{
    uint8_t *p = driver_ram(f, table + 16ull * i, 16);
    put_le64(p, gpa);
    put_le32(p + 8, len);
    put_le16(p + 12, at12);
    put_le16(p + 14, at14);
}

/* An indirect table of its own for each descriptor, up to 8 entries. */
static uint64_t indirect_table(struct driver_queue *q, uint16_t i, const struct piece *pieces, unsigned n)
{
    uint64_t table = q->indirect + i % 64 * 128ull;
    if (n > 8)
        abort();
    for (unsigned k = 0; k < n; k++) {
        uint16_t flags = pieces[k].writable ? D_WRITE : 0;
        if (q->packed)
            driver_descriptor(q->d->f, table, k, pieces[k].gpa, pieces[k].len, 0, flags);
        else
            driver_descriptor(q->d->f, table, k, pieces[k].gpa, pieces[k].len,
                              (uint16_t)(flags | (k + 1 < n ? D_NEXT : 0)), (uint16_t)(k + 1));
    }
    return table;
}

static uint16_t add_split(struct driver_queue *q, const struct piece *pieces, unsigned n)
{
    uint16_t head = q->next;
    for (unsigned k = 0; k < n; k++) {
        uint16_t i = q->next;
        q->next = (uint16_t)((q->next + 1) % q->size);
        uint16_t flags = (uint16_t)((pieces[k].writable ? D_WRITE : 0) | (k + 1 < n ? D_NEXT : 0));
        driver_descriptor(q->d->f, q->desc, i, pieces[k].gpa, pieces[k].len, flags, q->next);
    }
    set16(q, q->driver + SPLIT_AVAIL_RING + 2 * (q->avail_idx % q->size), head);
    set16(q, q->driver + 2, ++q->avail_idx);
    return head;
}

static uint16_t add_packed(struct driver_queue *q, const struct piece *pieces, unsigned n, uint16_t extra)
{
    uint16_t id = q->avail_idx, first_flags = 0;
    uint64_t first = q->desc + 16ull * q->avail_idx;
    for (unsigned k = 0; k < n; k++) {
        uint16_t flags = (uint16_t)((pieces[k].writable ? D_WRITE : 0) | (k + 1 < n ? D_NEXT : 0) |
                                    (q->avail_wrap ? 0x80 : 0x8000) | extra);
        /* The first one's flags come last: they make the whole buffer available. */
        uint64_t desc = q->desc + 16ull * q->avail_idx;
        put_le64(driver_ram(q->d->f, desc, 8), pieces[k].gpa);
        put_le32(driver_ram(q->d->f, desc + 8, 4), pieces[k].len);
        put_le16(driver_ram(q->d->f, desc + 12, 2), id);
        if (k)
            set16(q, desc + 14, flags);
        else
            first_flags = flags;
        if (++q->avail_idx == q->size) {
            q->avail_idx = 0;
            q->avail_wrap = !q->avail_wrap;
        }
    }
    q->slots[id] = (uint16_t)n;
    set16(q, first + 14, first_flags);
    return id;
}

uint16_t driver_add(struct driver_queue *q, const struct piece *pieces, unsigned n, bool indirect)
{
    if (!indirect)
        return q->packed ? add_packed(q, pieces, n, 0) : add_split(q, pieces, n);
    uint16_t i = q->packed ? q->avail_idx : q->next;
    struct piece one = {indirect_table(q, i, pieces, n), 16 * n, false};
    if (q->packed)
        return add_packed(q, &one, 1, D_INDIRECT);
    /* Made available with its final flags: the device looks only after the kick. */
    uint16_t head = add_split(q, &one, 1);
    set16(q, q->desc + 16ull * head + 12, D_INDIRECT);
    return head;
}

bool driver_kick_wanted(const struct driver_queue *q, unsigned added)
{
    if (!q->packed) {
        if (!q->event_idx)
            return !(get16(q, q->device) & 1);
        uint16_t event = get16(q, q->device + SPLIT_USED_RING + 8 * q->size);
        return (uint16_t)(q->avail_idx - event - 1) < added;
    }
    uint16_t flags = get16(q, q->device + 2), event = get16(q, q->device);
    if (flags != 2)
        return flags == 0;
    /* Count back from the position of the next buffer to the one that the device waits for. */
    unsigned ring = 2 * q->size;
    unsigned now = q->avail_idx + (q->avail_wrap ? 0 : q->size);
    unsigned then = (event & 0x7fffu) + (event & 0x8000 ? 0 : q->size);
    unsigned back = (now + ring - then) % ring;
    return back > 0 && back <= added;
}

void driver_kick(struct driver_queue *q)
{
    io_space_write(q->d->f->env.mmio, q->doorbell, 2, q->index);
    fixture_run_loop(q->d->f);
}

bool driver_used(struct driver_queue *q, uint32_t *id, uint32_t *len)
{
    struct fixture *f = q->d->f;
    if (!q->packed) {
        if (get16(q, q->device + 2) == q->used_idx)
            return false;
        const uint8_t *e = driver_ram(f, q->device + SPLIT_USED_RING + 8ull * (q->used_idx % q->size), 8);
        *id = get_le32(e);
        *len = get_le32(e + 4);
        q->used_idx++;
        return true;
    }
    const uint8_t *e = driver_ram(f, q->desc + 16ull * q->used_idx, 16);
    uint16_t flags = get16(q, q->desc + 16ull * q->used_idx + 14);
    if (!!(flags & 0x80) != q->used_wrap || !!(flags & 0x8000) != q->used_wrap)
        return false;
    *id = get_le16(e + 12);
    *len = get_le32(e + 8);
    if (*id >= q->size)
        abort();
    q->used_idx = (uint16_t)(q->used_idx + q->slots[*id]);
    if (q->used_idx >= q->size) {
        q->used_idx = (uint16_t)(q->used_idx - q->size);
        q->used_wrap = !q->used_wrap;
    }
    return true;
}

void driver_want_interrupt(struct driver_queue *q, unsigned ahead)
{
    if (!q->packed) {
        set16(q, q->driver, !q->event_idx && ahead);
        set16(q, q->driver + SPLIT_AVAIL_RING + 2ull * q->size, (uint16_t)(q->used_idx + ahead));
        return;
    }
    if (!q->event_idx) {
        set16(q, q->driver + 2, ahead ? 1 : 0);
        return;
    }
    unsigned at = q->used_idx + ahead;
    bool wrap = at >= q->size ? !q->used_wrap : q->used_wrap;
    set16(q, q->driver, (uint16_t)(at % q->size | (wrap ? 0x8000u : 0)));
    set16(q, q->driver + 2, 2);
}

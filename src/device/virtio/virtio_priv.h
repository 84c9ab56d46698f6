/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of virtio/ share: the device core's face to transports, and the queue's to its two ring
 * formats. The device's lock is held for all calls but those said otherwise. */
#ifndef TABIQUE_DEVICE_VIRTIO_VIRTIO_PRIV_H
#define TABIQUE_DEVICE_VIRTIO_VIRTIO_PRIV_H

#include "device/virtio/virtio.h"

#include <endian.h>

/* The driver has written these registers (2.1, 2.2, 4.1.4.3). */
void virtio_device_set_status(struct virtio_device *vdev, uint8_t value);
void virtio_device_set_features(struct virtio_device *vdev, unsigned word, uint32_t value);
/* Status, features and queues as after power-on; the transport is told. */
void virtio_device_clear(struct virtio_device *vdev);
/* Reads device configuration at any offset; zeros beyond it. */
uint64_t virtio_config_read(struct virtio_device *vdev, uint64_t offset, unsigned size);
void virtio_config_write(struct virtio_device *vdev, uint64_t offset, unsigned size, uint64_t value);
/* Whether queues may be used now. */
bool virtio_device_running(const struct virtio_device *vdev);

/* Makes the plumbing of a queue: 0 or -errno. No lock. */
int virtqueue_init(struct virtqueue *queue, struct virtio_device *vdev, unsigned index);
void virtqueue_fini(struct virtqueue *queue);
/* Starts the queue where the driver has put it; the device needs reset if that can't be. */
void virtqueue_enable(struct virtqueue *queue);
/* Back to defaults, not enabled. */
void virtqueue_reset(struct virtqueue *queue);

/* The PCI transport. No lock. */
int virtio_pci_plug(struct virtio_device *vdev, struct error **err);
void virtio_pci_reset(struct virtio_device *vdev);
void virtio_pci_unplug(struct virtio_device *vdev);

enum virtqueue_got { VIRTQUEUE_EMPTY, VIRTQUEUE_GOT, VIRTQUEUE_BROKEN };

/* A ring format. */
struct virtqueue_ops {
    /* Whether the size suits the format, and how big and how aligned its three areas are. */
    bool (*layout)(unsigned size, uint64_t area_size[3], uint64_t area_align[3]);
    enum virtqueue_got (*pop)(struct virtqueue *queue, struct virtqueue_element *elem);
    /* `n` from 1; the driver sees all of them or none. written[i]: at most the element's in_len. */
    void (*push)(struct virtqueue *queue, const struct virtqueue_element *elems, const uint32_t *written,
                 unsigned n);
    /* Whether the driver wants an interrupt for the last `pushed` entries. */
    bool (*interrupt_wanted)(const struct virtqueue *queue);
    /* Ask for notifications from the current position on, or (without event indexes only) for none. */
    void (*set_kicks)(struct virtqueue *queue, bool on);
};
extern const struct virtqueue_ops virtqueue_split_ops, virtqueue_packed_ops;

/* Descriptor flags; the first three in both formats (2.7.5, 2.8.1). */
#define DESC_NEXT     0x0001u
#define DESC_WRITE    0x0002u
#define DESC_INDIRECT 0x0004u
#define DESC_AVAIL    0x0080u
#define DESC_USED     0x8000u
#define DESC_SIZE     16u

/* Appends a piece to `elem`. False, and the device needs reset, where that breaks a rule. */
bool virtqueue_add_segment(struct virtqueue *queue, struct virtqueue_element *elem, uint64_t gpa,
                           uint32_t len, bool writable);
/* The descriptors of an indirect table and how many; NULL, and the device needs reset, if it is not valid. */
const uint8_t *virtqueue_indirect_table(struct virtqueue *queue, uint64_t gpa, uint32_t len, unsigned *n);
/* Always VIRTQUEUE_BROKEN. */
enum virtqueue_got virtqueue_broken(struct virtqueue *queue, const char *why);
/* The device has written `len` bytes of RAM at host address `at`. */
void virtqueue_mark_written(const struct virtqueue *queue, const uint8_t *at, unsigned len);

/*
 * Access to memory that the guest writes at the same time: each value is read exactly once. Ring fields are
 * aligned, because the areas are; the descriptors of indirect tables may not be.
 */
static inline uint16_t ring_load16(const uint8_t *p, int order)
{
    return le16toh(__atomic_load_n((const uint16_t *)(const void *)p, order));
}
static inline void ring_store16(uint8_t *p, uint16_t v, int order)
{
    __atomic_store_n((uint16_t *)(void *)p, htole16(v), order);
}
static inline void ring_store32(uint8_t *p, uint32_t v)
{
    __atomic_store_n((uint32_t *)(void *)p, htole32(v), __ATOMIC_RELAXED);
}
static inline uint64_t guest_load64(const uint8_t *p)
{
    struct unaligned {
        uint64_t v;
    } __attribute__((packed, may_alias));
    return le64toh(((const volatile struct unaligned *)p)->v);
}

#endif

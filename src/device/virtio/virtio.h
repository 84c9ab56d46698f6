/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtio 1.2 devices, as their authors see them. A device is a struct that embeds a struct virtio_device, a
 * const struct virtio_device_class that says what it is, and a row in devices.def; negotiation, queues,
 * interrupts and reset are done here, the registers by the transport (virtio_pci.c). rng.c is the smallest
 * example.
 *
 * A guest that breaks the rules of queues or registers makes its device need a reset (2.1.2): the device
 * touches no queue and no memory any more until the driver resets it.
 *
 * Locks: `lock` covers the whole device with its queues. All class operations are called with it held; a
 * device's own callbacks (timers, backends) take it before they touch the device or its queues. It may be
 * taken under the PCI config lock, so nothing under it may access PCI configuration space. Operations run
 * in the thread of the loop that the device was made with, but reset, queue_reset and the config ones, which
 * run in vCPU threads.
 */
#ifndef TABIQUE_DEVICE_VIRTIO_VIRTIO_H
#define TABIQUE_DEVICE_VIRTIO_VIRTIO_H

#include "device/device.h"
#include "device/virtio/virtqueue.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Device types (5). */
#define VIRTIO_TYPE_NET     1
#define VIRTIO_TYPE_BLOCK   2
#define VIRTIO_TYPE_CONSOLE 3
#define VIRTIO_TYPE_RNG     4
#define VIRTIO_TYPE_BALLOON 5
#define VIRTIO_TYPE_VSOCK   19

/* Device status bits (2.1). */
#define VIRTIO_STATUS_ACKNOWLEDGE 0x01
#define VIRTIO_STATUS_DRIVER      0x02
#define VIRTIO_STATUS_DRIVER_OK   0x04
#define VIRTIO_STATUS_FEATURES_OK 0x08
#define VIRTIO_STATUS_NEEDS_RESET 0x40
#define VIRTIO_STATUS_FAILED      0x80

/* Features that are the same for every device (6). */
#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX     29
#define VIRTIO_F_VERSION_1     32
#define VIRTIO_F_RING_PACKED   34
#define VIRTIO_F_RING_RESET    40
#define VIRTIO_FEATURE(bit)    (1ull << (bit))

#define VIRTIO_MAX_QUEUES 64u
#define VIRTIO_MAX_CONFIG 256u

struct virtio_device;

struct virtio_device_class {
    uint16_t type;             /* VIRTIO_TYPE_... */
    uint32_t pci_class;        /* 24 bits, for the PCI transport */
    uint64_t features;         /* the type's own bits; those of VIRTIO_F_... are added */
    unsigned config_size;      /* bytes of device configuration, up to VIRTIO_MAX_CONFIG; may be 0 */
    unsigned n_queues;         /* 1..VIRTIO_MAX_QUEUES */
    const uint16_t *queue_max; /* the largest size of each queue: a power of two up to VIRTQUEUE_MAX_SIZE */

    /*
     * There may be buffers in `queue`: pop, handle, push, then notify once. May also be called when there is
     * nothing new. Take at most the queue's size of buffers, then virtqueue_kick: the loop has others to
     * serve.
     */
    void (*queue_notify)(struct virtio_device *vdev, struct virtqueue *queue);
    /* Drop every buffer held and all of the type's own state. Optional. */
    void (*reset)(struct virtio_device *vdev);
    /* Drop the buffers of one queue (2.6.1). Optional for devices that hold none. */
    void (*queue_reset)(struct virtio_device *vdev, struct virtqueue *queue);
    /* Fill in config_size bytes (zeroed before). */
    void (*config_read)(struct virtio_device *vdev, uint8_t *config);
    /* A write within config_size, of 1, 2, 4 or 8 bytes. Optional: configuration is read-only. */
    void (*config_write)(struct virtio_device *vdev, unsigned offset, unsigned size, uint64_t value);
};

/* What connects a device to its guest. Called with the device's lock held. */
struct virtio_transport {
    void (*queue_interrupt)(struct virtio_device *vdev, struct virtqueue *queue);
    void (*config_interrupt)(struct virtio_device *vdev);
    /* The driver has reset the device, or it is about to be. */
    void (*reset)(struct virtio_device *vdev);
    /* Whether the device may access memory now. */
    bool (*dma_allowed)(const struct virtio_device *vdev);
};

struct virtio_pci;

/* The device's author uses `device`, `lock` and `driver_features`; the rest is the transport's. */
struct virtio_device {
    struct device device;
    const struct virtio_device_class *class;
    pthread_mutex_t lock;
    struct loop *loop;

    uint64_t device_features; /* offered */
    uint64_t driver_features; /* accepted; final once FEATURES_OK is in `status` */
    uint8_t status;
    uint8_t config_generation;
    const char *fault; /* why it needs a reset, for a person's eyes; NULL if it does not */

    struct virtqueue *queues;
    const struct virtio_transport *transport;
    struct virtio_pci *pci;
};

/*
 * Starts a device of `class`, with its queues served by `loop` (NULL: env->loop); no guest sees it yet. A
 * device with a thread of its own gives that thread's loop. 0 or -errno with *err; virtio_device_fini is due
 * after success only.
 */
int virtio_device_init(struct virtio_device *vdev, const struct device_class *device_class,
                       const struct virtio_device_class *class, const struct device_env *env,
                       struct loop *loop, struct error **err);
/* Puts it on env->pci. 0 or -errno with *err. */
int virtio_device_plug(struct virtio_device *vdev, struct error **err);
/* Takes it off its bus and frees what init and plug made. In the loop's thread or when that has ended. */
void virtio_device_fini(struct virtio_device *vdev);

/* The `reset` of any virtio device's device_class: device and transport as after power-on. */
void virtio_device_power_on(struct device *device);

/* The PCI slot of a virtio device that is on a bus. */
unsigned virtio_device_slot(const struct device *device);

static inline bool virtio_has_feature(const struct virtio_device *vdev, unsigned bit)
{
    return vdev->driver_features >> bit & 1;
}

/* The guest has broken a rule: needs reset. `why` is of static storage. Lock held. */
void virtio_device_broken(struct virtio_device *vdev, const char *why);

/* The device configuration has changed by the device's own doing: tell the driver. Lock held. */
void virtio_config_changed(struct virtio_device *vdev);

#endif

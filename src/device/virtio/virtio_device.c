/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The virtio device core: status, feature negotiation, configuration, reset. Called by the transport for the
 * driver and by devices; the device's lock is held but in the functions that build and take apart.
 */
#include "device/virtio/virtio.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/virtio/virtio_priv.h"

#include <errno.h>
#include <stdlib.h>

#define COMMON_FEATURES                                                                                      \
    (VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC) | VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) |                           \
     VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(VIRTIO_F_RING_PACKED) |                             \
     VIRTIO_FEATURE(VIRTIO_F_RING_RESET))

/* What the driver may set. */
#define DRIVER_STATUS                                                                                        \
    (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_DRIVER_OK |                            \
     VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_FAILED)

/* Buffers here and in the transport are sized by these bounds. */
static bool class_is_sound(const struct virtio_device_class *class)
{
    if (!class->n_queues || class->n_queues > VIRTIO_MAX_QUEUES || class->config_size > VIRTIO_MAX_CONFIG ||
        (class->config_size && !class->config_read))
        return false;
    for (unsigned i = 0; i < class->n_queues; i++) {
        unsigned size = class->queue_max[i];
        if (!size || size > VIRTQUEUE_MAX_SIZE || size & (size - 1))
            return false;
    }
    return true;
}

int virtio_device_init(struct virtio_device *vdev, const struct device_class *device_class,
                       const struct virtio_device_class *class, const struct device_env *env,
                       struct loop *loop, struct error **err)
{
    if (!class_is_sound(class))
        return error_set(err, EINVAL, "%s: its class breaks the bounds of virtio.h", device_class->name);
    vdev->device = (struct device){.class = device_class, .env = env};
    vdev->class = class;
    vdev->loop = loop ? loop : env->loop;
    vdev->device_features = class->features | COMMON_FEATURES;
    vdev->driver_features = 0;
    vdev->status = 0;
    vdev->config_generation = 0;
    vdev->fault = NULL;
    vdev->transport = NULL;
    vdev->pci = NULL;
    vdev->queues = calloc(class->n_queues, sizeof(*vdev->queues));
    if (!vdev->queues)
        return error_set_errno(err, ENOMEM, "%s", device_class->name);
    pthread_mutex_init(&vdev->lock, NULL);
    for (unsigned i = 0; i < class->n_queues; i++) {
        int rc = virtqueue_init(&vdev->queues[i], vdev, i);
        if (rc < 0) {
            while (i--)
                virtqueue_fini(&vdev->queues[i]);
            free(vdev->queues);
            pthread_mutex_destroy(&vdev->lock);
            return error_set_errno(err, -rc, "%s: queue", device_class->name);
        }
    }
    return 0;
}

int virtio_device_plug(struct virtio_device *vdev, struct error **err)
{
    int rc = -ENODEV;
    if (vdev->device.env->pci)
        rc = virtio_pci_plug(vdev, err);
    else
        error_set(err, ENODEV, "this machine has no PCI bus");
    if (rc < 0)
        error_wrap(err, "%s", vdev->device.class->name);
    return rc;
}

void virtio_device_fini(struct virtio_device *vdev)
{
    virtio_pci_unplug(vdev);
    for (unsigned i = 0; i < vdev->class->n_queues; i++)
        virtqueue_fini(&vdev->queues[i]);
    free(vdev->queues);
    pthread_mutex_destroy(&vdev->lock);
}

bool virtio_device_running(const struct virtio_device *vdev)
{
    return (vdev->status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET)) ==
               VIRTIO_STATUS_DRIVER_OK &&
           vdev->transport->dma_allowed(vdev);
}

void virtio_device_clear(struct virtio_device *vdev)
{
    if (vdev->class->reset)
        vdev->class->reset(vdev);
    vdev->transport->reset(vdev);
    for (unsigned i = 0; i < vdev->class->n_queues; i++)
        virtqueue_reset(&vdev->queues[i]);
    vdev->driver_features = 0;
    vdev->status = 0;
    vdev->fault = NULL;
}

void virtio_device_power_on(struct device *device)
{
    struct virtio_device *vdev = container_of(device, struct virtio_device, device);
    pthread_mutex_lock(&vdev->lock);
    virtio_device_clear(vdev);
    vdev->config_generation = 0;
    pthread_mutex_unlock(&vdev->lock);
    /* Outside the lock, for it comes after PCI's. */
    virtio_pci_reset(vdev);
}

void virtio_device_broken(struct virtio_device *vdev, const char *why)
{
    if (vdev->status & VIRTIO_STATUS_NEEDS_RESET)
        return;
    vdev->status |= VIRTIO_STATUS_NEEDS_RESET;
    vdev->fault = why;
    /* 2.1.2: a driver that runs is told. */
    if (vdev->status & VIRTIO_STATUS_DRIVER_OK)
        vdev->transport->config_interrupt(vdev);
}

void virtio_config_changed(struct virtio_device *vdev)
{
    vdev->config_generation++;
    if (vdev->status & VIRTIO_STATUS_DRIVER_OK)
        vdev->transport->config_interrupt(vdev);
}

static bool features_acceptable(const struct virtio_device *vdev)
{
    return !(vdev->driver_features & ~vdev->device_features) && virtio_has_feature(vdev, VIRTIO_F_VERSION_1);
}

void virtio_device_set_status(struct virtio_device *vdev, uint8_t value)
{
    if (!value) {
        virtio_device_clear(vdev);
        return;
    }
    /* The driver may not take bits back but by reset (2.1.1). */
    uint8_t fresh = value & DRIVER_STATUS & ~vdev->status;
    if (fresh & VIRTIO_STATUS_FEATURES_OK && !features_acceptable(vdev))
        fresh &= (uint8_t)~VIRTIO_STATUS_FEATURES_OK; /* the driver reads back and sees (3.1.1) */
    if (fresh & VIRTIO_STATUS_DRIVER_OK && !((vdev->status | fresh) & VIRTIO_STATUS_FEATURES_OK)) {
        fresh &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
        virtio_device_broken(vdev, "DRIVER_OK without FEATURES_OK");
    }
    vdev->status |= fresh;
    /* Some drivers fill queues, and even notify, before they are ready. */
    if (fresh & VIRTIO_STATUS_DRIVER_OK)
        for (unsigned i = 0; i < vdev->class->n_queues; i++)
            if (vdev->queues[i].enabled)
                virtqueue_kick(&vdev->queues[i]);
}

void virtio_device_set_features(struct virtio_device *vdev, unsigned word, uint32_t value)
{
    if (word > 1 || vdev->status & VIRTIO_STATUS_FEATURES_OK)
        return;
    unsigned shift = 32 * word;
    vdev->driver_features = (vdev->driver_features & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

uint64_t virtio_config_read(struct virtio_device *vdev, uint64_t offset, unsigned size)
{
    uint8_t config[VIRTIO_MAX_CONFIG + 8] = {0};
    if (offset >= vdev->class->config_size)
        return 0;
    vdev->class->config_read(vdev, config);
    return get_le64(config + offset) & (UINT64_MAX >> (64 - 8 * size));
}

void virtio_config_write(struct virtio_device *vdev, uint64_t offset, unsigned size, uint64_t value)
{
    unsigned end = vdev->class->config_size;
    if (vdev->class->config_write && offset < end && size <= end - offset)
        vdev->class->config_write(vdev, (unsigned)offset, size, value);
}

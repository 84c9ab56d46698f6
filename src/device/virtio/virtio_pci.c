/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtio over PCI (virtio 1.2, 4.1), without the legacy interface. BAR 0 has the register structures, a page
 * each, and BAR 2 the MSI-X table: vector numbers are the driver's choice.
 *
 * Register accesses come from vCPU threads and take the device's lock; notifications only signal the queue's
 * eventfd, which the engine may do without coming here. The access window in configuration space is used
 * under the PCI config lock, so nothing here accesses configuration space with the device's lock held.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/msix.h"
#include "device/virtio/virtio_priv.h"

#include <errno.h>
#include <stdlib.h>

#define VIRTIO_VENDOR      0x1af4
#define VIRTIO_DEVICE_BASE 0x1040 /* + type */
#define SUBSYSTEM_BASE     0x1100 /* + type; 0x40 and above is not transitional */
#define VIRTIO_REVISION    1

#define REGISTER_BAR  0
#define MSIX_BAR      2
#define PAGE          0x1000u
#define COMMON_AT     0x0000u
#define ISR_AT        0x1000u
#define DEVICE_AT     0x2000u
#define NOTIFY_AT     0x3000u
#define REGISTER_SIZE 0x4000u
#define NOTIFY_STRIDE 4u /* notify_off_multiplier */

/* Structure types of the capabilities (4.1.4). */
enum { CFG_COMMON = 1, CFG_NOTIFY = 2, CFG_ISR = 3, CFG_DEVICE = 4, CFG_PCI = 5 };

/* The access window's fields, from the start of its capability (4.1.4.9). */
#define WINDOW_BAR    4u
#define WINDOW_OFFSET 8u
#define WINDOW_LENGTH 12u
#define WINDOW_DATA   16u

/* Common configuration (4.1.4.3). */
enum {
    DEVICE_FEATURE_SELECT = 0x00,
    DEVICE_FEATURE = 0x04,
    DRIVER_FEATURE_SELECT = 0x08,
    DRIVER_FEATURE = 0x0c,
    CONFIG_VECTOR = 0x10,
    NUM_QUEUES = 0x12,
    DEVICE_STATUS = 0x14,
    CONFIG_GENERATION = 0x15,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_VECTOR = 0x1a,
    QUEUE_ENABLE = 0x1c,
    QUEUE_NOTIFY_OFF = 0x1e,
    QUEUE_DESC = 0x20,
    QUEUE_DRIVER = 0x28,
    QUEUE_DEVICE = 0x30,
    QUEUE_NOTIFY_DATA = 0x38,
    QUEUE_RESET = 0x3a,
    COMMON_SIZE = 0x3c
};

#define ISR_QUEUE  0x1u
#define ISR_CONFIG 0x2u
#define NO_VECTOR  0xffff

struct virtio_pci {
    struct pci_function function;
    struct virtio_device *vdev;
    unsigned window; /* offset of the access window's capability */
    /* Under the device's lock: */
    uint32_t device_feature_select, driver_feature_select;
    uint16_t queue_select;
    uint16_t config_vector;
    uint8_t isr;
};

static struct virtqueue *selected_queue(const struct virtio_pci *pci)
{
    const struct virtio_device *vdev = pci->vdev;
    return pci->queue_select < vdev->class->n_queues ? &vdev->queues[pci->queue_select] : NULL;
}

/* The whole structure as it reads now. Queues that do not exist have size 0. */
static void common_snapshot(const struct virtio_pci *pci, uint8_t *c)
{
    const struct virtio_device *vdev = pci->vdev;
    put_le32(c + DEVICE_FEATURE_SELECT, pci->device_feature_select);
    if (pci->device_feature_select <= 1)
        put_le32(c + DEVICE_FEATURE, (uint32_t)(vdev->device_features >> 32 * pci->device_feature_select));
    put_le32(c + DRIVER_FEATURE_SELECT, pci->driver_feature_select);
    if (pci->driver_feature_select <= 1)
        put_le32(c + DRIVER_FEATURE, (uint32_t)(vdev->driver_features >> 32 * pci->driver_feature_select));
    put_le16(c + CONFIG_VECTOR, pci->config_vector);
    put_le16(c + NUM_QUEUES, (uint16_t)vdev->class->n_queues);
    c[DEVICE_STATUS] = vdev->status;
    c[CONFIG_GENERATION] = vdev->config_generation;
    put_le16(c + QUEUE_SELECT, pci->queue_select);
    const struct virtqueue *queue = selected_queue(pci);
    if (!queue) {
        put_le16(c + QUEUE_VECTOR, NO_VECTOR);
        return;
    }
    put_le16(c + QUEUE_SIZE, queue->size);
    put_le16(c + QUEUE_VECTOR, queue->msix_vector);
    put_le16(c + QUEUE_ENABLE, queue->enabled);
    put_le16(c + QUEUE_NOTIFY_OFF, (uint16_t)queue->index);
    put_le64(c + QUEUE_DESC, queue->desc_gpa);
    put_le64(c + QUEUE_DRIVER, queue->driver_gpa);
    put_le64(c + QUEUE_DEVICE, queue->device_gpa);
    put_le16(c + QUEUE_NOTIFY_DATA, (uint16_t)queue->index);
    /* QUEUE_RESET reads 0: a reset is complete when its write is. */
}

/* A vector that does not exist reads back as none, which tells the driver (4.1.5.1.2.1). */
static uint16_t checked_vector(const struct virtio_pci *pci, uint64_t value)
{
    return value <= pci->vdev->class->n_queues ? (uint16_t)value : NO_VECTOR;
}

static void set_half(uint64_t *field, bool high, uint32_t value)
{
    *field = high ? (*field & 0xffffffffu) | (uint64_t)value << 32 : (*field & ~0xffffffffull) | value;
}

static void queue_reset(struct virtqueue *queue)
{
    struct virtio_device *vdev = queue->vdev;
    if (!queue->enabled || !virtio_has_feature(vdev, VIRTIO_F_RING_RESET))
        return;
    if (vdev->class->queue_reset)
        vdev->class->queue_reset(vdev, queue);
    virtqueue_reset(queue);
}

static void queue_write_16(struct virtio_pci *pci, struct virtqueue *queue, unsigned offset, uint16_t value)
{
    switch (offset) {
    case QUEUE_SIZE:
        /* Whether it suits the ring format is seen when the queue is enabled. */
        if (queue->enabled || !value || value > queue->max_size)
            virtio_device_broken(pci->vdev, "queue size that is out of range or too late");
        else
            queue->size = value;
        break;
    case QUEUE_VECTOR:
        queue->msix_vector = checked_vector(pci, value);
        break;
    case QUEUE_ENABLE:
        if (value == 1 && pci->vdev->status & VIRTIO_STATUS_FEATURES_OK)
            virtqueue_enable(queue);
        else
            virtio_device_broken(pci->vdev, "queue enabled before FEATURES_OK, or disabled");
        break;
    case QUEUE_RESET:
        if (value == 1)
            queue_reset(queue);
        break;
    }
}

static void queue_write_32(struct virtqueue *queue, unsigned offset, uint32_t value)
{
    uint64_t *const fields[] = {&queue->desc_gpa, &queue->driver_gpa, &queue->device_gpa};
    if (queue->enabled)
        virtio_device_broken(queue->vdev, "queue address changed while it is enabled");
    else
        set_half(fields[(offset - QUEUE_DESC) / 8], offset & 4, value);
}

/* Fields are written at their own width, those of 64 bits by halves (4.1.3.1); anything else does nothing. */
static void common_write(struct virtio_pci *pci, unsigned offset, unsigned size, uint64_t value)
{
    struct virtio_device *vdev = pci->vdev;
    struct virtqueue *queue = selected_queue(pci);
    bool address = offset >= QUEUE_DESC && offset < QUEUE_NOTIFY_DATA;
    if (address && offset % size == 0 && size >= 4 && queue) {
        for (unsigned i = 0; i < size; i += 4)
            queue_write_32(queue, offset + i, (uint32_t)(value >> 8 * i));
    } else if (size == 4) {
        if (offset == DEVICE_FEATURE_SELECT)
            pci->device_feature_select = (uint32_t)value;
        else if (offset == DRIVER_FEATURE_SELECT)
            pci->driver_feature_select = (uint32_t)value;
        else if (offset == DRIVER_FEATURE)
            virtio_device_set_features(vdev, pci->driver_feature_select, (uint32_t)value);
    } else if (size == 2) {
        if (offset == CONFIG_VECTOR)
            pci->config_vector = checked_vector(pci, (uint16_t)value);
        else if (offset == QUEUE_SELECT)
            pci->queue_select = (uint16_t)value;
        else if (queue)
            queue_write_16(pci, queue, offset, (uint16_t)value);
    } else if (size == 1 && offset == DEVICE_STATUS) {
        virtio_device_set_status(vdev, (uint8_t)value);
    }
}

static uint64_t register_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_pci *pci = opaque;
    uint64_t value = 0, page = offset & ~(uint64_t)(PAGE - 1), at = offset % PAGE;
    LOCK_SCOPE(&pci->vdev->lock);
    if (page == COMMON_AT && at < COMMON_SIZE) {
        uint8_t common[COMMON_SIZE + 8] = {0};
        common_snapshot(pci, common);
        value = get_le64(common + at) & (UINT64_MAX >> (64 - 8 * size));
    } else if (page == ISR_AT && at == 0) {
        /* Reading acknowledges (4.1.4.5). */
        value = pci->isr;
        pci->isr = 0;
        pci_set_intx(&pci->function, false);
    } else if (page == DEVICE_AT) {
        value = virtio_config_read(pci->vdev, at, size);
    }
    return value;
}

static void register_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci *pci = opaque;
    uint64_t page = offset & ~(uint64_t)(PAGE - 1), at = offset % PAGE;
    if (page == NOTIFY_AT) {
        /* Each queue has its place; the value, its number, says nothing new. */
        if (at / NOTIFY_STRIDE < pci->vdev->class->n_queues)
            virtqueue_kick(&pci->vdev->queues[at / NOTIFY_STRIDE]);
        return;
    }
    LOCK_SCOPE(&pci->vdev->lock);
    if (page == COMMON_AT)
        common_write(pci, (unsigned)at, size, value);
    else if (page == DEVICE_AT)
        virtio_config_write(pci->vdev, at, size, value);
}

/* Interrupts, with the device's lock held. */
static void interrupt(struct virtio_pci *pci, uint8_t cause, uint16_t vector)
{
    if (msix_enabled(&pci->function)) {
        if (vector != NO_VECTOR)
            msix_send(&pci->function, vector);
        return;
    }
    pci->isr |= cause;
    pci_set_intx(&pci->function, true);
}

static void queue_interrupt(struct virtio_device *vdev, struct virtqueue *queue)
{
    interrupt(vdev->pci, ISR_QUEUE, queue->msix_vector);
}

static void config_interrupt(struct virtio_device *vdev)
{
    interrupt(vdev->pci, ISR_CONFIG, vdev->pci->config_vector);
}

static void transport_reset(struct virtio_device *vdev)
{
    struct virtio_pci *pci = vdev->pci;
    pci->device_feature_select = pci->driver_feature_select = 0;
    pci->queue_select = 0;
    pci->config_vector = NO_VECTOR;
    pci->isr = 0;
    pci_set_intx(&pci->function, false);
}

static bool dma_allowed(const struct virtio_device *vdev)
{
    return vdev->pci->function.master;
}

static const struct virtio_transport pci_transport = {
    .queue_interrupt = queue_interrupt,
    .config_interrupt = config_interrupt,
    .reset = transport_reset,
    .dma_allowed = dma_allowed,
};

/* Whether the access window points at registers that can be accessed so; where, and how wide. */
static bool window_target(struct virtio_pci *pci, uint32_t *offset, uint32_t *length)
{
    const uint8_t *cap = pci_config_bytes(&pci->function, pci->window);
    *offset = get_le32(cap + WINDOW_OFFSET);
    *length = get_le32(cap + WINDOW_LENGTH);
    return cap[WINDOW_BAR] == REGISTER_BAR && (*length == 1 || *length == 2 || *length == 4) &&
           *offset % *length == 0 && *offset < REGISTER_SIZE;
}

static bool touches_window_data(const struct virtio_pci *pci, unsigned offset, unsigned size)
{
    return offset < pci->window + WINDOW_DATA + 4 && pci->window + WINDOW_DATA < offset + size;
}

static void config_read(struct pci_function *fn, unsigned offset, unsigned size)
{
    struct virtio_pci *pci = container_of(fn, struct virtio_pci, function);
    uint32_t at, length;
    if (touches_window_data(pci, offset, size) && window_target(pci, &at, &length))
        put_le32(pci_config_bytes(fn, pci->window + WINDOW_DATA), (uint32_t)register_read(pci, at, length));
}

static void config_written(struct pci_function *fn, unsigned offset, unsigned size)
{
    struct virtio_pci *pci = container_of(fn, struct virtio_pci, function);
    uint32_t at, length;
    if (touches_window_data(pci, offset, size) && window_target(pci, &at, &length))
        register_write(pci, at, length,
                       get_le32(pci_config_bytes(fn, pci->window + WINDOW_DATA)) &
                           (UINT32_MAX >> (32 - 8 * length)));
}

static void master_enabled(struct pci_function *fn)
{
    struct virtio_device *vdev = container_of(fn, struct virtio_pci, function)->vdev;
    for (unsigned i = 0; i < vdev->class->n_queues; i++)
        virtqueue_kick(&vdev->queues[i]);
}

static const struct pci_function_ops function_ops = {
    .config_read = config_read,
    .config_written = config_written,
    .master_enabled = master_enabled,
};

/* struct virtio_pci_cap (4.1.4) without its first two bytes; `extra` follows it for two of the types. */
static int add_structure(struct virtio_pci *pci, uint8_t type, uint32_t offset, uint32_t length, bool extra,
                         uint32_t extra_value)
{
    uint8_t body[18] = {0};
    unsigned size = extra ? 20 : 16;
    body[0] = (uint8_t)size;
    body[1] = type;
    body[2] = REGISTER_BAR;
    put_le32(body + 6, offset);
    put_le32(body + 10, length);
    put_le32(body + 14, extra_value);
    return pci_add_capability(&pci->function, PCI_CAP_ID_VENDOR, body, size);
}

static int describe(struct virtio_pci *pci)
{
    struct virtio_device *vdev = pci->vdev;
    const struct virtio_device_class *class = vdev->class;
    struct pci_function *fn = &pci->function;
    const struct io_region registers = {.name = vdev->device.class->name,
                                        .size = REGISTER_SIZE,
                                        .read = register_read,
                                        .write = register_write,
                                        .opaque = pci};
    int rc = pci_add_bar(fn, REGISTER_BAR, PCI_BAR_MEM64, &registers);
    for (unsigned i = 0; i < class->n_queues && rc >= 0; i++)
        rc = pci_add_doorbell(fn, REGISTER_BAR, NOTIFY_AT + i * NOTIFY_STRIDE, 0, vdev->queues[i].kick_fd);
    if (rc >= 0)
        rc = pci_add_pcie(fn);
    if (rc >= 0)
        rc = pci_add_msix(fn, MSIX_BAR, class->n_queues + 1);
    if (rc >= 0)
        rc = add_structure(pci, CFG_COMMON, COMMON_AT, COMMON_SIZE, false, 0);
    if (rc >= 0)
        rc = add_structure(pci, CFG_NOTIFY, NOTIFY_AT, class->n_queues * NOTIFY_STRIDE, true, NOTIFY_STRIDE);
    if (rc >= 0)
        rc = add_structure(pci, CFG_ISR, ISR_AT, 1, false, 0);
    if (rc >= 0 && class->config_size)
        rc = add_structure(pci, CFG_DEVICE, DEVICE_AT, class->config_size, false, 0);
    if (rc >= 0)
        rc = add_structure(pci, CFG_PCI, 0, 0, true, 0);
    if (rc < 0)
        return rc;
    pci->window = (unsigned)rc;
    pci_config_writable(fn, pci->window + WINDOW_BAR, 1);
    pci_config_writable(fn, pci->window + WINDOW_OFFSET, 12);
    return 0;
}

int virtio_pci_plug(struct virtio_device *vdev, struct error **err)
{
    const struct virtio_device_class *class = vdev->class;
    struct virtio_pci *pci = calloc(1, sizeof(*pci));
    if (!pci)
        return error_set_errno(err, ENOMEM, "PCI function");
    const struct pci_function_config config = {
        .vendor = VIRTIO_VENDOR,
        .device = (uint16_t)(VIRTIO_DEVICE_BASE + class->type),
        .subsystem_vendor = VIRTIO_VENDOR,
        .subsystem = (uint16_t)(SUBSYSTEM_BASE + class->type),
        .class_code = class->pci_class,
        .revision = VIRTIO_REVISION,
        .intx = true,
        .devfn = PCI_ANY_SLOT,
    };
    pci_function_init(&pci->function, vdev->device.env->pci, &config, &function_ops);
    pci->vdev = vdev;
    pci->config_vector = NO_VECTOR;
    int rc = describe(pci);
    if (rc < 0) {
        error_set_errno(err, -rc, "PCI function");
        goto fail;
    }
    vdev->pci = pci;
    vdev->transport = &pci_transport;
    rc = pci_function_plug(&pci->function, err);
    if (rc < 0)
        goto fail;
    return 0;
fail:
    vdev->pci = NULL;
    pci_function_unplug(&pci->function);
    free(pci);
    return rc;
}

unsigned virtio_device_slot(const struct device *device)
{
    return container_of(device, struct virtio_device, device)->pci->function.devfn / PCI_SLOT_FUNCS;
}

void virtio_pci_reset(struct virtio_device *vdev)
{
    pci_function_reset(&vdev->pci->function);
}

void virtio_pci_unplug(struct virtio_device *vdev)
{
    if (!vdev->pci)
        return;
    pci_function_unplug(&vdev->pci->function);
    free(vdev->pci);
    vdev->pci = NULL;
}

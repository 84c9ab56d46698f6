/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A virtio driver as a guest would have it, for the tests of virtio devices: finds the device by its PCI
 * capabilities, negotiates, and drives split and packed queues through registers and RAM alone.
 */
#ifndef TABIQUE_TESTS_DEVICE_VIRTIO_DRIVER_H
#define TABIQUE_TESTS_DEVICE_VIRTIO_DRIVER_H

#include "../pci_fixture.h"
#include "device/virtio/virtio.h"

/* Offsets in the common configuration (virtio 1.2, 4.1.4.3). */
enum {
    C_DEVICE_FEATURE_SELECT = 0x00,
    C_DEVICE_FEATURE = 0x04,
    C_DRIVER_FEATURE_SELECT = 0x08,
    C_DRIVER_FEATURE = 0x0c,
    C_CONFIG_VECTOR = 0x10,
    C_NUM_QUEUES = 0x12,
    C_STATUS = 0x14,
    C_GENERATION = 0x15,
    C_QUEUE_SELECT = 0x16,
    C_QUEUE_SIZE = 0x18,
    C_QUEUE_VECTOR = 0x1a,
    C_QUEUE_ENABLE = 0x1c,
    C_QUEUE_NOTIFY_OFF = 0x1e,
    C_QUEUE_DESC = 0x20,
    C_QUEUE_DRIVER = 0x28,
    C_QUEUE_DEVICE = 0x30,
    C_QUEUE_NOTIFY_DATA = 0x38,
    C_QUEUE_RESET = 0x3a
};

#define D_NEXT     1u
#define D_WRITE    2u
#define D_INDIRECT 4u

/* The features that decide about queues, as a driver may choose them. */
#define RINGS_SPLIT  VIRTIO_FEATURE(VIRTIO_F_VERSION_1)
#define RINGS_PACKED (RINGS_SPLIT | VIRTIO_FEATURE(VIRTIO_F_RING_PACKED))
#define RINGS_ALL                                                                                            \
    (VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC) | VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) |                           \
     VIRTIO_FEATURE(VIRTIO_F_RING_RESET))

/* Guest-physical layout: rings in the second MiB, 64 KiB a queue; buffers in the third. */
#define DRIVER_RINGS   0x100000ull
#define DRIVER_RING    0x10000ull
#define DRIVER_BUFFERS 0x200000ull

struct driver {
    struct fixture *f;
    unsigned devfn;
    uint64_t common, notify, isr, config; /* guest-physical; config 0 if there is none */
    uint32_t notify_multiplier;
    uint64_t features;
};

struct driver_queue {
    struct driver *d;
    unsigned index;
    unsigned size;
    bool packed, event_idx;
    uint64_t desc, driver, device, indirect;
    uint64_t doorbell;
    uint16_t next; /* next free descriptor */
    uint16_t avail_idx, used_idx;
    bool avail_wrap, used_wrap;
    uint16_t slots[256]; /* packed: descriptors of the buffer with this id */
};

/* A piece of a buffer. */
struct piece {
    uint64_t gpa;
    uint32_t len;
    bool writable;
};

/* Finds the first device of `type` and maps its structures. False if that fails. */
bool driver_find(struct driver *d, struct fixture *f, unsigned type);

uint64_t driver_read(struct driver *d, unsigned offset, unsigned size); /* common configuration */
void driver_write(struct driver *d, unsigned offset, unsigned size, uint64_t value);
uint8_t driver_status(struct driver *d);
uint64_t driver_offered(struct driver *d);

/* Reset, ACKNOWLEDGE, DRIVER, features, FEATURES_OK. Whether the device has accepted them. */
bool driver_negotiate(struct driver *d, uint64_t features);
/* Sets DRIVER_OK. */
void driver_ready(struct driver *d);

/* Places queue `index` with `size` entries in RAM and enables it; MSI-X vector index + 1. Writes no fields
 * but the rings'. */
void driver_queue_init(struct driver_queue *q, struct driver *d, unsigned index, unsigned size);
/* All at once for a device with its queues: negotiate, enable `n` queues of `size`, ready. */
bool driver_start(struct driver *d, uint64_t features, struct driver_queue *queues, unsigned n,
                  unsigned size);

/* Makes a buffer available; its id. `indirect` puts the pieces into a table. */
uint16_t driver_add(struct driver_queue *q, const struct piece *pieces, unsigned n, bool indirect);
/* Whether the device wants to be notified of the last `added` buffers. */
bool driver_kick_wanted(const struct driver_queue *q, unsigned added);
/* Writes the doorbell and lets the device work. */
void driver_kick(struct driver_queue *q);
/* Takes a used buffer: false if there is none. */
bool driver_used(struct driver_queue *q, uint32_t *id, uint32_t *len);
/* With event indexes: interrupt when the buffer `ahead` from now is used (0: the next). Otherwise: whenever
 * (ahead 0) or never. */
void driver_want_interrupt(struct driver_queue *q, unsigned ahead);

/* RAM. */
uint8_t *driver_ram(struct fixture *f, uint64_t gpa, uint64_t len);
void driver_descriptor(struct fixture *f, uint64_t table, unsigned i, uint64_t gpa, uint32_t len,
                       uint16_t at12, uint16_t at14);

#endif

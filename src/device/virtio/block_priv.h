/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What block.c (the device), block_request.c (its queue's requests) and block_exchange.c (its disk gets
 * another file or size, or is copied) share. */
#ifndef TABIQUE_DEVICE_VIRTIO_BLOCK_PRIV_H
#define TABIQUE_DEVICE_VIRTIO_BLOCK_PRIV_H

#include "base/bytes.h"
#include "device/virtio/block.h"
#include "device/virtio/virtio.h"
#include "disk/copy.h"
#include "disk/disk.h"

#define BLOCK_QUEUE_SIZE 256u

#define BLOCK_F_FLUSH 9

/* Header and status of a request take two descriptors; the rest may be data. */
#define BLOCK_SEG_MAX (VIRTQUEUE_MAX_SEGMENTS - 2)

/* A range to discard or to fill with zeros: le64 sector, le32 number of sectors, le32 flags. */
#define BLOCK_RANGE_SIZE          16u
#define BLOCK_RANGES_MAX          16u
#define BLOCK_DISCARD_SECTORS_MAX (1u << 22)
/* Where the host can't do it for us, zeros are written: not for too long. */
#define BLOCK_ZEROES_SECTORS_MAX (1u << 17)

struct block_request {
    struct virtio_block *block;
    struct virtqueue *queue;
    uint32_t type;
    uint8_t *status; /* in the guest's memory */
    bool flushing;   /* the write is done, and now made to stay */
    unsigned n_ranges, range;
    uint8_t ranges[BLOCK_RANGES_MAX * BLOCK_RANGE_SIZE];
    struct disk_request disk;
    struct virtqueue_element elem;
};

/* A file to be put before the disk's others, or the first of them to be taken away; or another size; or a
 * copy that begins; or the end of one, in which the disk goes on. */
struct block_exchange {
    int fd; /* -1: taken away */
    const char *name;
    const char *format;         /* of a file that stands for all others; NULL: it is none */
    bool keep;                  /* that one stays */
    struct virtio_block *block; /* of what follows */
    struct disk_copy_rest rest; /* to be written to it */
    size_t n_written;
    bool flushing;
    struct disk_request request;
    struct iovec piece;
    uint64_t size;                   /* 0: as it is */
    const struct disk_copying *copy; /* NULL: none. To `fd` */
    bool done;
    int result;
};

struct virtio_block {
    struct virtio_device vdev;
    struct disk_files *files;
    struct disk *disk; /* NULL after an exchange that failed: the device is broken then */
    struct loop *loop;
    pthread_t thread;
    bool thread_made, copy_on_read;
    char serial[VIRTIO_BLOCK_SERIAL_MAX];

    /* Under the device's lock: */
    bool cache_chosen, writeback; /* the driver has written CONFIG_WRITEBACK, and what */
    bool copying;                 /* the disk is what it is until that has ended */
    unsigned draining;            /* threads that wait for in_flight to become 0: no new requests */
    bool starved;                 /* requests wait for others to end */
    struct disk_throttle throttle;
    struct block_request
        *held; /* waits, and all behind it, for what the limits allow; it counts as in flight */
    uint64_t held_sector;
    struct loop_timer *held_timer;
    bool used_any;                   /* something to tell the driver at the end of the batch */
    int thread_state;                /* 0 at first, THREAD_SERVES, or -errno */
    struct block_exchange *exchange; /* to be done by the thread */
    pthread_cond_t changed;          /* thread_state, exchange->done, copying, or in_flight has become 0 */
    unsigned in_flight;
    unsigned n_free;
    struct block_request *free[BLOCK_QUEUE_SIZE];
    struct block_request *requests; /* BLOCK_QUEUE_SIZE of them */
};

static inline struct virtio_block *block_of(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_block, vdev);
}

/* ---- block.c ---- */

/* Waits until nothing is under way; while block->draining is more than 0, nothing is begun. The lock is held,
 * and released meanwhile. */
void block_drain(struct virtio_block *block);

/* ---- block_request.c ---- */

void block_queue_notify(struct virtio_device *vdev, struct virtqueue *queue);
/* Whether a write is to stay before its request is done (5.2.6.2). */
bool block_writes_through(const struct virtio_block *block);
/* block->held_timer's callback, and what is to be called at the end of a batch of the disk's. */
void block_take_held(void *opaque);
void block_end_batch(void *opaque);

#endif

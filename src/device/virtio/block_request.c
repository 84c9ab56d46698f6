/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The requests of a virtio block device (block.c), from the queue to the disk and back. In the disk's thread,
 * but for what a reset waits for; the device's lock is held wherever the queue or a request is touched.
 */
#include "base/cleanup.h"
#include "device/virtio/block_priv.h"
#include "host/loop.h"

/* A request (5.2.6): a header, data in one direction or the other, and the device's answer in one byte. */
#define HEADER_SIZE 16u
enum { HEADER_TYPE = 0, HEADER_SECTOR = 8 };
enum {
    TYPE_IN = 0,
    TYPE_OUT = 1,
    TYPE_FLUSH = 4,
    TYPE_GET_ID = 8,
    TYPE_DISCARD = 11,
    TYPE_WRITE_ZEROES = 13
};
enum { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPP = 2 };

#define RANGE_UNMAP 1u

static void request_done(struct disk_request *disk_request, int result);

static void release(struct block_request *request)
{
    struct virtio_block *block = request->block;

    block->free[block->n_free++] = request;
    if (--block->in_flight == 0)
        pthread_cond_broadcast(&block->changed);
}

/* Answers. Lock held. */
static void finish(struct block_request *request, uint8_t status)
{
    struct virtio_block *block = request->block;

    *request->status = status;
    /* Also after a failure: part of the data may have come. */
    virtqueue_push(request->queue, &request->elem, request->elem.in_len);
    block->used_any = true;
    release(request);
}

static void submit(struct block_request *request)
{
    request->disk.done = request_done;
    disk_submit(request->block->disk, &request->disk);
}

bool block_writes_through(const struct virtio_block *block)
{
    if (block->cache_chosen)
        return !block->writeback;
    return !virtio_has_feature(&block->vdev, BLOCK_F_FLUSH);
}

static void submit_flush(struct block_request *request)
{
    request->flushing = true;
    request->disk = (struct disk_request){.kind = DISK_FLUSH};
    submit(request);
}

/* ---- discard and write zeroes ---- */

static const uint8_t *range_at(const struct block_request *request, unsigned i)
{
    return request->ranges + (size_t)i * BLOCK_RANGE_SIZE;
}

static void submit_range(struct block_request *request)
{
    const uint8_t *range = range_at(request, request->range);
    bool discard = request->type == TYPE_DISCARD;

    request->disk = (struct disk_request){
        .kind = discard ? DISK_DISCARD : DISK_WRITE_ZEROES,
        .unmap = !discard && get_le32(range + 12) & RANGE_UNMAP,
        .offset = get_le64(range) * DISK_SECTOR,
        .length = (uint64_t)get_le32(range + 8) * DISK_SECTOR,
    };
    submit(request);
}

/* Takes a copy of the ranges and checks them all before the first one is done. What is wrong, or STATUS_OK.
 */
static uint8_t read_ranges(struct block_request *request)
{
    uint64_t sectors = disk_size(request->block->disk) / DISK_SECTOR;
    bool discard = request->type == TYPE_DISCARD;
    uint32_t bytes = request->elem.out_len - HEADER_SIZE;
    uint32_t most = discard ? BLOCK_DISCARD_SECTORS_MAX : BLOCK_ZEROES_SECTORS_MAX;

    if (!bytes || bytes % BLOCK_RANGE_SIZE || bytes > sizeof(request->ranges))
        return STATUS_IOERR;
    virtqueue_read(&request->elem, HEADER_SIZE, request->ranges, bytes);
    request->n_ranges = bytes / BLOCK_RANGE_SIZE;
    request->range = 0;
    for (unsigned i = 0; i < request->n_ranges; i++) {
        uint64_t sector = get_le64(range_at(request, i));
        uint32_t n = get_le32(range_at(request, i) + 8), flags = get_le32(range_at(request, i) + 12);

        if (flags & ~(discard ? 0 : RANGE_UNMAP))
            return STATUS_UNSUPP;
        if (n > most || sector > sectors || n > sectors - sector)
            return STATUS_IOERR;
    }
    return STATUS_OK;
}

/* ---- requests ---- */

/* In the loop; not from within disk_submit, so the lock is free. */
static void request_done(struct disk_request *disk_request, int result)
{
    struct block_request *request = container_of(disk_request, struct block_request, disk);
    struct virtio_block *block = request->block;
    LOCK_SCOPE(&block->vdev.lock);

    /* The status byte that was left out of the data goes with the rest of the piece again. */
    if (request->type == TYPE_IN)
        request->elem.iov[request->elem.n_out + request->elem.n_in - 1].iov_len++;
    if (result == 0 && ++request->range < request->n_ranges && !request->flushing)
        submit_range(request);
    else if (result == 0 && request->type != TYPE_IN && request->type != TYPE_FLUSH && !request->flushing &&
             block_writes_through(block))
        submit_flush(request);
    else
        finish(request, result == 0 ? STATUS_OK : STATUS_IOERR);
}

/* The data of a request, without header and status: in the element's own pieces, of which the first of a
 * write and the last of a read are made shorter. */
static bool set_data(struct block_request *request, uint64_t sector)
{
    struct virtqueue_element *elem = &request->elem;
    bool in = request->type == TYPE_IN;
    uint64_t length = in ? elem->in_len - 1 : elem->out_len - HEADER_SIZE;
    uint64_t sectors = disk_size(request->block->disk) / DISK_SECTOR;

    if (!length || length % DISK_SECTOR || sector > sectors || length / DISK_SECTOR > sectors - sector)
        return false;
    struct iovec *iov = in ? elem->iov + elem->n_out : elem->iov;
    unsigned n = in ? elem->n_in : elem->n_out;
    if (in) {
        if (--iov[n - 1].iov_len == 0)
            n--;
    } else {
        size_t skip = HEADER_SIZE;
        for (; skip >= iov->iov_len; n--)
            skip -= iov++->iov_len;
        iov->iov_base = (uint8_t *)iov->iov_base + skip;
        iov->iov_len -= skip;
    }
    request->disk = (struct disk_request){.kind = in ? DISK_READ : DISK_WRITE,
                                          .offset = sector * DISK_SECTOR,
                                          .length = length,
                                          .iov = iov,
                                          .n_iov = n};
    return true;
}

static void get_id(struct block_request *request)
{
    const struct virtio_block *block = request->block;
    size_t room = request->elem.in_len - 1;

    virtqueue_write(&request->elem, 0, block->serial,
                    room < sizeof(block->serial) ? room : sizeof(block->serial));
    finish(request, STATUS_OK);
}

static void begin(struct block_request *request, uint64_t sector)
{
    struct virtio_block *block = request->block;
    uint8_t status;

    switch (request->type) {
    case TYPE_OUT:
        if (disk_is_read_only(block->disk)) {
            finish(request, STATUS_IOERR);
            return;
        }
        /* fall through */
    case TYPE_IN:
        if (set_data(request, sector))
            submit(request);
        else
            finish(request, STATUS_IOERR);
        return;
    case TYPE_FLUSH:
        request->disk = (struct disk_request){.kind = DISK_FLUSH};
        submit(request);
        return;
    case TYPE_GET_ID:
        get_id(request);
        return;
    case TYPE_DISCARD:
    case TYPE_WRITE_ZEROES:
        status = disk_is_read_only(block->disk) ? STATUS_IOERR : read_ranges(request);
        if (status == STATUS_OK)
            submit_range(request);
        else
            finish(request, status);
        return;
    default:
        finish(request, STATUS_UNSUPP);
    }
}

/* Whether it has to wait. A flush is what makes waiting bearable: it has no limit. */
static bool hold(struct virtio_block *block, struct block_request *request, uint64_t sector)
{
    bool read = request->type == TYPE_IN;
    uint64_t bytes = read                        ? request->elem.in_len - 1
                     : request->type == TYPE_OUT ? request->elem.out_len - HEADER_SIZE
                                                 : 0;

    if (request->type == TYPE_FLUSH || request->type == TYPE_GET_ID)
        return false;
    uint64_t now = loop_now(), wait = disk_throttle_take(&block->throttle, !read, bytes, now);
    if (!wait)
        return false;
    block->held = request;
    block->held_sector = sector;
    loop_timer_arm(block->held_timer, now + wait);
    return true;
}

/* The one that waits may begin; when everything has to come to an end it may in any case. */
void block_take_held(void *opaque)
{
    struct virtio_block *block = opaque;
    LOCK_SCOPE(&block->vdev.lock);
    struct block_request *request = steal_ptr(block->held);

    if (!request || (!block->draining && hold(block, request, block->held_sector)))
        return;
    begin(request, block->held_sector);
    disk_start(block->disk);
    if (block->used_any)
        virtqueue_notify(&block->vdev.queues[0]);
    block->used_any = false;
    virtqueue_kick(&block->vdev.queues[0]);
}

/* Takes one request of the queue. False when there is none or no room for it. */
static bool take(struct virtio_block *block, struct virtqueue *queue)
{
    uint8_t header[HEADER_SIZE];

    block->starved = !block->n_free;
    if (block->starved || block->held)
        return false;
    struct block_request *request = block->free[block->n_free - 1];
    if (!virtqueue_pop(queue, &request->elem))
        return false;
    if (request->elem.out_len < HEADER_SIZE || !request->elem.in_len) {
        virtio_device_broken(&block->vdev, "block request without header or status");
        return false;
    }
    block->n_free--;
    block->in_flight++;
    virtqueue_read(&request->elem, 0, header, sizeof(header));
    const struct iovec *last = &request->elem.iov[request->elem.n_out + request->elem.n_in - 1];
    request->block = block;
    request->queue = queue;
    request->type = get_le32(header + HEADER_TYPE);
    request->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    request->flushing = false;
    request->n_ranges = request->range = 0;
    if (hold(block, request, get_le64(header + HEADER_SECTOR)))
        return false;
    begin(request, get_le64(header + HEADER_SECTOR));
    return true;
}

void block_queue_notify(struct virtio_device *vdev, struct virtqueue *queue)
{
    struct virtio_block *block = block_of(vdev);
    unsigned n = 0;

    if (block->draining || !block->disk)
        return;
    while (n < queue->size && take(block, queue))
        n++;
    disk_start(block->disk);
    if (block->used_any)
        virtqueue_notify(queue);
    block->used_any = false;
    if (n == queue->size)
        virtqueue_kick(queue);
}

/* The disk has completed some requests. */
void block_end_batch(void *opaque)
{
    struct virtio_block *block = opaque;
    LOCK_SCOPE(&block->vdev.lock);

    if (block->used_any)
        virtqueue_notify(&block->vdev.queues[0]);
    block->used_any = false;
    if (block->starved)
        virtqueue_kick(&block->vdev.queues[0]);
}

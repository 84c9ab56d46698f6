/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtio block device (virtio 1.2, 5.2): one queue of requests on a disk image. Data go straight between the
 * image and the guest's memory.
 *
 * Each device has a thread with a loop, in which its queue is served and the image is read and written: no
 * other device waits for a disk. Reset and removal, which come in other threads, wait for what is under way,
 * for the guest may use that memory for something else afterwards.
 */
#include "device/virtio/block.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/virtio/virtio.h"
#include "disk/copy.h"
#include "disk/disk.h"
#include "disk/fill.h"
#include "disk/maintain.h"
#include "host/confine.h"
#include "host/loop.h"
#include "host/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#define BLOCK_CLASS      0x018000 /* PCI: mass storage, other */
#define BLOCK_QUEUE_SIZE 256u

/* Feature bits (5.2.3). */
#define BLOCK_F_SEG_MAX      2
#define BLOCK_F_RO           5
#define BLOCK_F_BLK_SIZE     6
#define BLOCK_F_FLUSH        9
#define BLOCK_F_TOPOLOGY     10
#define BLOCK_F_CONFIG_WCE   11
#define BLOCK_F_DISCARD      13
#define BLOCK_F_WRITE_ZEROES 14

/* Device configuration (5.2.4). */
enum {
    CONFIG_CAPACITY = 0,
    CONFIG_SEG_MAX = 12,
    CONFIG_BLK_SIZE = 20,
    CONFIG_PHYSICAL_BLOCK_EXP = 24,
    CONFIG_MIN_IO_SIZE = 26,
    CONFIG_OPT_IO_SIZE = 28,
    CONFIG_WRITEBACK = 32,
    CONFIG_MAX_DISCARD_SECTORS = 36,
    CONFIG_MAX_DISCARD_SEG = 40,
    CONFIG_DISCARD_SECTOR_ALIGNMENT = 44,
    CONFIG_MAX_WRITE_ZEROES_SECTORS = 48,
    CONFIG_MAX_WRITE_ZEROES_SEG = 52,
    CONFIG_WRITE_ZEROES_MAY_UNMAP = 56,
    CONFIG_SIZE = 60
};

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

/* A range to discard or to fill with zeros: le64 sector, le32 number of sectors, le32 flags. */
#define RANGE_SIZE  16u
#define RANGES_MAX  16u
#define RANGE_UNMAP 1u

/* Header and status take two descriptors; the rest may be data. */
#define SEG_MAX (VIRTQUEUE_MAX_SEGMENTS - 2)

#define PAGE_EXP            3 /* 2^3 sectors: the host's page */
#define DISCARD_SECTORS_MAX (1u << 22)
/* Where the host can't do it for us, zeros are written: not for too long. */
#define ZEROES_SECTORS_MAX (1u << 17)

#define THREAD_SERVES 1

struct block_request {
    struct virtio_block *block;
    struct virtqueue *queue;
    uint32_t type;
    uint8_t *status; /* in the guest's memory */
    bool flushing;   /* the write is done, and now made to stay */
    unsigned n_ranges, range;
    uint8_t ranges[RANGES_MAX * RANGE_SIZE];
    struct disk_request disk;
    struct virtqueue_element elem;
};

/* A file to be put before the disk's others, or the first of them to be taken away; or another size; or a
 * copy that begins. */
struct exchange {
    int fd; /* -1: taken away */
    const char *name;
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
    bool used_any;             /* something to tell the driver at the end of the batch */
    int thread_state;          /* 0 at first, THREAD_SERVES, or -errno */
    struct exchange *exchange; /* to be done by the thread */
    pthread_cond_t changed;    /* thread_state, exchange->done, copying, or in_flight has become 0 */
    unsigned in_flight;
    unsigned n_free;
    struct block_request *free[BLOCK_QUEUE_SIZE];
    struct block_request *requests; /* BLOCK_QUEUE_SIZE of them */
};

static struct virtio_block *block_of(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_block, vdev);
}

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

/* Whether a write is to stay before its request is done (5.2.6.2). */
static bool write_through(const struct virtio_block *block)
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
    return request->ranges + (size_t)i * RANGE_SIZE;
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
    uint32_t most = discard ? DISCARD_SECTORS_MAX : ZEROES_SECTORS_MAX;

    if (!bytes || bytes % RANGE_SIZE || bytes > sizeof(request->ranges))
        return STATUS_IOERR;
    virtqueue_read(&request->elem, HEADER_SIZE, request->ranges, bytes);
    request->n_ranges = bytes / RANGE_SIZE;
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
             write_through(block))
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
static void on_held_timer(void *opaque)
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

static void block_queue_notify(struct virtio_device *vdev, struct virtqueue *queue)
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
static void batch_end(void *opaque)
{
    struct virtio_block *block = opaque;
    LOCK_SCOPE(&block->vdev.lock);

    if (block->used_any)
        virtqueue_notify(&block->vdev.queues[0]);
    block->used_any = false;
    if (block->starved)
        virtqueue_kick(&block->vdev.queues[0]);
}

/* Waits until nothing is under way. The lock is held, and released meanwhile. */
static void drain(struct virtio_block *block)
{
    block->draining++;
    if (block->held)
        loop_timer_arm(block->held_timer, 0);
    while (block->in_flight)
        pthread_cond_wait(&block->changed, &block->vdev.lock);
    block->draining--;
}

/* ---- another file ---- */

static int open_again(struct virtio_block *block)
{
    int rc = disk_open(&block->disk, block->files, block->loop, NULL);

    if (rc == 0)
        disk_on_batch_end(block->disk, batch_end, block);
    return rc || !block->copy_on_read ? rc : disk_fill_on_read(block->disk);
}

static void on_copy_ended(void *opaque)
{
    struct virtio_block *block = opaque;
    LOCK_SCOPE(&block->vdev.lock);

    block->copying = false;
    pthread_cond_broadcast(&block->changed);
}

static int begin_copy(struct virtio_block *block, const struct exchange *e)
{
    struct disk_copying what = *e->copy;

    what.ended = on_copy_ended;
    what.opaque = block;
    int rc = disk_copy_begin(block->disk, e->fd, &what, NULL);
    block->copying = rc == 0;
    return rc;
}

/* In the disk's thread, with nothing under way. */
static int exchange(struct virtio_block *block, const struct exchange *e)
{
    if (e->copy)
        return begin_copy(block, e);
    if (e->size) {
        int resized = disk_resize(block->disk, e->size, NULL);
        if (resized == 0)
            virtio_config_changed(&block->vdev);
        return resized;
    }
    /* What changes is recorded in the file that is written. */
    struct disk_kept_bitmaps *bitmaps = e->fd >= 0 ? disk_bitmaps_keep(block->disk) : NULL;
    int rc = disk_close(steal_ptr(block->disk));

    if (rc == 0 && e->fd >= 0)
        rc = disk_files_push(block->files, e->fd, e->name);
    else if (e->fd >= 0)
        close(e->fd);
    else
        disk_files_pop(block->files);
    int opened = open_again(block);
    if (opened && rc == 0 && e->fd >= 0) {
        disk_files_pop(block->files);
        rc = opened;
        opened = open_again(block);
    }
    if (rc == 0 && !opened)
        disk_bitmaps_put(block->disk, bitmaps);
    disk_kept_bitmaps_free(bitmaps);
    if (opened)
        virtio_device_broken(&block->vdev, "block device whose image could not be opened again");
    return rc ? rc : opened;
}

static void on_exchange(void *opaque)
{
    struct virtio_block *block = opaque;
    LOCK_SCOPE(&block->vdev.lock);
    struct exchange *e = block->exchange;

    /* A flush of the format's own. */
    if (!disk_is_idle(block->disk) && loop_post(block->loop, on_exchange, block) == 0)
        return;
    e->result = exchange(block, e);
    e->done = true;
    pthread_cond_broadcast(&block->changed);
}

static int do_exchange(struct virtio_block *block, struct exchange *e)
{
    LOCK_SCOPE(&block->vdev.lock);

    if (!block->disk || block->copying || (!e->copy && disk_is_read_only(block->disk))) {
        if (e->copy)
            disk_copy_refuse(e->fd, EBUSY, "the disk is being copied already");
        cleanup_close_fn(&e->fd);
        return block->copying ? -EBUSY : -EROFS;
    }
    block->draining++;
    if (block->held)
        loop_timer_arm(block->held_timer, 0);
    while (block->in_flight)
        pthread_cond_wait(&block->changed, &block->vdev.lock);
    block->exchange = e;
    int rc = loop_post(block->loop, on_exchange, block);
    if (rc)
        cleanup_close_fn(&e->fd);
    while (rc == 0 && !e->done)
        pthread_cond_wait(&block->changed, &block->vdev.lock);
    block->exchange = NULL;
    block->draining--;
    /* What came meanwhile. */
    virtqueue_kick(&block->vdev.queues[0]);
    return rc ? rc : e->result;
}

int virtio_block_push(struct device *device, int fd, const char *name)
{
    struct exchange e = {.fd = fd, .name = name};

    return do_exchange(container_of(device, struct virtio_block, vdev.device), &e);
}

int virtio_block_pop(struct device *device)
{
    struct exchange e = {.fd = -1};

    return do_exchange(container_of(device, struct virtio_block, vdev.device), &e);
}

int virtio_block_copy(struct device *device, int fd, const struct disk_copying *what)
{
    struct exchange e = {.fd = fd, .copy = what};

    return do_exchange(container_of(device, struct virtio_block, vdev.device), &e);
}

int virtio_block_resize(struct device *device, uint64_t size)
{
    struct exchange e = {.fd = -1, .size = size};

    return do_exchange(container_of(device, struct virtio_block, vdev.device), &e);
}

void virtio_block_limit(struct device *device, const struct disk_limits *limits)
{
    struct virtio_block *block = container_of(device, struct virtio_block, vdev.device);
    LOCK_SCOPE(&block->vdev.lock);

    disk_throttle_set(&block->throttle, limits, loop_now());
    if (block->held)
        loop_timer_arm(block->held_timer, 0);
}

static void block_reset(struct virtio_device *vdev)
{
    struct virtio_block *block = block_of(vdev);

    drain(block);
    block->used_any = block->starved = false;
    block->cache_chosen = false;
}

static void block_queue_reset(struct virtio_device *vdev, struct virtqueue *queue)
{
    drain(block_of(vdev));
}

static void block_config_read(struct virtio_device *vdev, uint8_t *config)
{
    const struct virtio_block *block = block_of(vdev);
    if (!block->disk)
        return;
    uint32_t granularity = disk_granularity(block->disk) / DISK_SECTOR;

    put_le64(config + CONFIG_CAPACITY, disk_size(block->disk) / DISK_SECTOR);
    put_le32(config + CONFIG_SEG_MAX, SEG_MAX);
    put_le32(config + CONFIG_BLK_SIZE, DISK_SECTOR);
    config[CONFIG_PHYSICAL_BLOCK_EXP] = PAGE_EXP;
    put_le16(config + CONFIG_MIN_IO_SIZE, 1u << PAGE_EXP);
    put_le32(config + CONFIG_OPT_IO_SIZE, granularity);
    config[CONFIG_WRITEBACK] = !write_through(block);
    put_le32(config + CONFIG_MAX_DISCARD_SECTORS, DISCARD_SECTORS_MAX);
    put_le32(config + CONFIG_MAX_DISCARD_SEG, RANGES_MAX);
    put_le32(config + CONFIG_DISCARD_SECTOR_ALIGNMENT, granularity);
    put_le32(config + CONFIG_MAX_WRITE_ZEROES_SECTORS, ZEROES_SECTORS_MAX);
    put_le32(config + CONFIG_MAX_WRITE_ZEROES_SEG, RANGES_MAX);
    config[CONFIG_WRITE_ZEROES_MAY_UNMAP] = 1;
}

static void block_config_write(struct virtio_device *vdev, unsigned offset, unsigned size, uint64_t value)
{
    struct virtio_block *block = block_of(vdev);

    if (offset != CONFIG_WRITEBACK || size != 1 || !virtio_has_feature(vdev, BLOCK_F_CONFIG_WCE))
        return;
    block->cache_chosen = true;
    block->writeback = value & 1;
}

static const uint16_t block_queues[] = {BLOCK_QUEUE_SIZE};

static const struct virtio_device_class block_type = {
    .type = VIRTIO_TYPE_BLOCK,
    .pci_class = BLOCK_CLASS,
    .features = VIRTIO_FEATURE(BLOCK_F_SEG_MAX) | VIRTIO_FEATURE(BLOCK_F_BLK_SIZE) |
                VIRTIO_FEATURE(BLOCK_F_FLUSH) | VIRTIO_FEATURE(BLOCK_F_TOPOLOGY) |
                VIRTIO_FEATURE(BLOCK_F_CONFIG_WCE),
    .config_size = CONFIG_SIZE,
    .n_queues = ARRAY_SIZE(block_queues),
    .queue_max = block_queues,
    .queue_notify = block_queue_notify,
    .reset = block_reset,
    .queue_reset = block_queue_reset,
    .config_read = block_config_read,
    .config_write = block_config_write,
};

static void *serve(void *opaque)
{
    struct virtio_block *block = opaque;

    prctl(PR_SET_NAME, "disk");
    int rc = confine_thread(CONFINE_DISK);
    pthread_mutex_lock(&block->vdev.lock);
    block->thread_state = rc ? rc : THREAD_SERVES;
    pthread_cond_broadcast(&block->changed);
    pthread_mutex_unlock(&block->vdev.lock);
    if (rc == 0)
        loop_run(block->loop);
    return NULL;
}

/* With all signals blocked: they are for the main thread. */
static int start_thread(struct virtio_block *block)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = thread_start(&block->thread, serve, block);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc)
        return rc;
    block->thread_made = true;
    LOCK_SCOPE(&block->vdev.lock);
    while (!block->thread_state)
        pthread_cond_wait(&block->changed, &block->vdev.lock);
    return block->thread_state < 0 ? block->thread_state : 0;
}

static void free_block(struct virtio_block *block)
{
    disk_close(block->disk);
    loop_timer_free(block->held_timer);
    loop_free(block->loop);
    pthread_cond_destroy(&block->changed);
    free(block->requests);
    free(block);
}

/* It has to end before the thread does. */
static void on_copy_cancelled(void *opaque)
{
    struct virtio_block *block = opaque;

    if (block->disk)
        disk_copy_cancel(block->disk);
}

static void block_destroy(struct device *device)
{
    struct virtio_block *block = container_of(device, struct virtio_block, vdev.device);

    if (block->thread_made) {
        bool asked = loop_post(block->loop, on_copy_cancelled, block) == 0;
        pthread_mutex_lock(&block->vdev.lock);
        drain(block);
        while (asked && block->copying)
            pthread_cond_wait(&block->changed, &block->vdev.lock);
        block->draining++;
        pthread_mutex_unlock(&block->vdev.lock);
        loop_stop(block->loop, 0);
        pthread_join(block->thread, NULL);
    }
    virtio_device_fini(&block->vdev);
    free_block(block);
}

static int prepare(struct virtio_block *block, const struct virtio_block_config *config, struct error **err)
{
    pthread_cond_init(&block->changed, NULL);
    block->requests = calloc(BLOCK_QUEUE_SIZE, sizeof(*block->requests));
    if (!block->requests)
        return error_set_errno(err, ENOMEM, "virtio-block");
    /* Those at the end are taken first, and none is touched before: memory is used as far as requests pile
     * up. */
    for (unsigned i = 0; i < BLOCK_QUEUE_SIZE; i++)
        block->free[i] = &block->requests[BLOCK_QUEUE_SIZE - 1 - i];
    block->n_free = BLOCK_QUEUE_SIZE;
    if (config->serial)
        memcpy(block->serial, config->serial, strnlen(config->serial, sizeof(block->serial)));
    block->files = config->files;
    int rc = loop_create(&block->loop, err);
    if (rc)
        return rc;
    disk_throttle_set(&block->throttle, &config->limits, loop_now());
    block->held_timer = loop_timer_new(block->loop, on_held_timer, block);
    if (!block->held_timer)
        return error_set_errno(err, ENOMEM, "virtio-block");
    block->copy_on_read = config->copy_on_read;
    rc = disk_open(&block->disk, config->files, block->loop, err);
    return rc || !block->copy_on_read ? rc : disk_fill_on_read(block->disk);
}

static int block_create(struct device **out, const struct device_env *env, const void *opaque,
                        struct error **err)
{
    const struct virtio_block_config *config = opaque;

    if (!config || !config->files)
        return error_set(err, EINVAL, "virtio-block: no disk given");
    struct virtio_block *block = calloc(1, sizeof(*block));
    if (!block)
        return error_set_errno(err, ENOMEM, "virtio-block");
    int rc = prepare(block, config, err);
    if (rc == 0)
        rc = virtio_device_init(&block->vdev, &virtio_block_class, &block_type, env, block->loop, err);
    if (rc < 0) {
        free_block(block);
        return rc;
    }
    block->vdev.device_features |= disk_is_read_only(block->disk) ? VIRTIO_FEATURE(BLOCK_F_RO)
                                                                  : VIRTIO_FEATURE(BLOCK_F_DISCARD) |
                                                                        VIRTIO_FEATURE(BLOCK_F_WRITE_ZEROES);
    disk_on_batch_end(block->disk, batch_end, block);
    rc = virtio_device_plug(&block->vdev, err);
    if (rc == 0) {
        rc = start_thread(block);
        if (rc)
            error_set_errno(err, -rc, "virtio-block: thread");
    }
    if (rc < 0) {
        block_destroy(&block->vdev.device);
        return rc;
    }
    *out = &block->vdev.device;
    return 0;
}

const struct device_class virtio_block_class = {
    .name = "virtio-block",
    .summary = "virtio block device on a disk image",
    .create = block_create,
    .reset = virtio_device_power_on,
    .destroy = block_destroy,
};

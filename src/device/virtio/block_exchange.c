/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disk of a virtio block device (block.c) gets another file or another size, or is copied from this
 * moment on: by the disk's thread, while nothing is under way. Called in any other thread, which waits for
 * it.
 */
#include "base/cleanup.h"
#include "device/virtio/block_priv.h"
#include "disk/copy.h"
#include "disk/fill.h"
#include "disk/maintain.h"
#include "host/loop.h"

#include <errno.h>
#include <unistd.h>

static int open_again(struct virtio_block *block)
{
    int rc = disk_open(&block->disk, block->files, block->loop, NULL);

    if (rc == 0)
        disk_on_batch_end(block->disk, block_end_batch, block);
    return rc || !block->copy_on_read ? rc : disk_fill_on_read(block->disk);
}

static void go_back(struct virtio_block *block)
{
    if (open_again(block))
        virtio_device_broken(&block->vdev, "block device whose image could not be opened again");
}

static void on_copy_ended(void *opaque)
{
    struct virtio_block *block = opaque;
    LOCK_SCOPE(&block->vdev.lock);

    block->copying = false;
    pthread_cond_broadcast(&block->changed);
}

static int begin_copy(struct virtio_block *block, const struct block_exchange *e)
{
    struct disk_copying what = *e->copy;

    what.ended = on_copy_ended;
    what.opaque = block;
    int rc = disk_copy_begin(block->disk, e->fd, &what, NULL);
    block->copying = rc == 0;
    return rc;
}

/* In the disk's thread, with nothing under way. */
static int exchange(struct virtio_block *block, const struct block_exchange *e)
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

/* ---- going on in a mirror ---- */

static int open_replaced(struct virtio_block *block, const struct block_exchange *e, uint64_t size)
{
    int rc = disk_files_replace(block->files, e->fd, e->name, e->format);

    if (rc)
        return rc;
    rc = open_again(block);
    if (rc == 0 && disk_size(block->disk) < size) {
        disk_close(steal_ptr(block->disk));
        rc = -ENOSPC;
    }
    if (rc)
        disk_files_pop(block->files);
    return rc;
}

/* In the disk's thread, with nothing under way: the mirror is open then, and its rest still to be written. */
static int replace(struct virtio_block *block, struct block_exchange *e)
{
    int rc = disk_copy_take_rest(block->disk, &e->rest);

    if (rc) {
        close(e->fd);
        return rc;
    }
    uint64_t size = disk_size(block->disk);
    struct disk_kept_bitmaps *bitmaps = disk_bitmaps_keep(block->disk);
    rc = disk_close(steal_ptr(block->disk));
    block->copying = false;
    if (rc)
        close(e->fd);
    else
        rc = open_replaced(block, e, size);
    if (rc == 0)
        disk_bitmaps_put(block->disk, bitmaps);
    else
        go_back(block);
    disk_kept_bitmaps_free(bitmaps);
    return rc;
}

static void finish(struct virtio_block *block, struct block_exchange *e)
{
    disk_copy_rest_free(&e->rest);
    e->done = true;
    pthread_cond_broadcast(&block->changed);
}

static void on_undo(void *opaque)
{
    struct virtio_block *block = opaque;
    LOCK_SCOPE(&block->vdev.lock);

    if (!disk_is_idle(block->disk) && loop_post(block->loop, on_undo, block) == 0)
        return;
    disk_close(steal_ptr(block->disk));
    disk_files_pop(block->files);
    go_back(block);
    finish(block, block->exchange);
}

static void on_rest(struct disk_request *request, int result);

/* One piece after the other, and then a flush. */
static void write_rest(struct virtio_block *block, struct block_exchange *e)
{
    if (e->flushing) {
        finish(block, e);
        return;
    }
    e->flushing = e->n_written == e->rest.n;
    if (e->flushing) {
        e->request = (struct disk_request){.kind = DISK_FLUSH, .done = on_rest};
    } else {
        struct disk_copy_piece *p = &e->rest.list[e->n_written++];
        e->piece = (struct iovec){.iov_base = p->data, .iov_len = p->length};
        e->request = (struct disk_request){.kind = DISK_WRITE,
                                           .offset = p->offset,
                                           .length = p->length,
                                           .iov = &e->piece,
                                           .n_iov = 1,
                                           .done = on_rest};
    }
    disk_submit(block->disk, &e->request);
    disk_start(block->disk);
}

static void on_rest(struct disk_request *request, int result)
{
    struct block_exchange *e = container_of(request, struct block_exchange, request);
    struct virtio_block *block = e->block;
    LOCK_SCOPE(&block->vdev.lock);

    e->result = result;
    if (result == 0) {
        write_rest(block, e);
    } else if (loop_post(block->loop, on_undo, block)) {
        virtio_device_broken(&block->vdev, "block device that could not be given its image again");
        finish(block, e);
    }
}

/* ---- in the disk's thread ---- */

static void on_exchange(void *opaque)
{
    struct virtio_block *block = opaque;
    LOCK_SCOPE(&block->vdev.lock);
    struct block_exchange *e = block->exchange;

    /* A flush of the format's own. */
    if (!disk_is_idle(block->disk) && loop_post(block->loop, on_exchange, block) == 0)
        return;
    if (e->keep)
        disk_files_keep_first(block->files);
    else
        e->result = e->format ? replace(block, e) : exchange(block, e);
    if (e->format && e->result == 0)
        write_rest(block, e);
    else
        finish(block, e);
}

/* Whether the disk may not be given anything else now: -errno. */
static int refusal(const struct virtio_block *block, const struct block_exchange *e)
{
    if (!block->disk)
        return -EROFS;
    if (e->copy)
        return block->copying ? -EBUSY : 0;
    if (disk_is_read_only(block->disk))
        return -EROFS;
    return block->copying && !e->format && !e->keep ? -EBUSY : 0;
}

static int do_exchange(struct device *device, struct block_exchange *e)
{
    struct virtio_block *block = container_of(device, struct virtio_block, vdev.device);
    LOCK_SCOPE(&block->vdev.lock);
    int rc = refusal(block, e);

    if (rc) {
        if (e->copy)
            disk_copy_refuse(e->fd, EBUSY, "the disk is being copied already");
        cleanup_close_fn(&e->fd);
        return rc;
    }
    e->block = block;
    block->draining++;
    block_drain(block);
    block->exchange = e;
    rc = loop_post(block->loop, on_exchange, block);
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
    struct block_exchange e = {.fd = fd, .name = name};

    return do_exchange(device, &e);
}

int virtio_block_pop(struct device *device)
{
    struct block_exchange e = {.fd = -1};

    return do_exchange(device, &e);
}

int virtio_block_copy(struct device *device, int fd, const struct disk_copying *what)
{
    struct block_exchange e = {.fd = fd, .copy = what};

    return do_exchange(device, &e);
}

int virtio_block_resize(struct device *device, uint64_t size)
{
    struct block_exchange e = {.fd = -1, .size = size};

    return do_exchange(device, &e);
}

int virtio_block_replace(struct device *device, int fd, const char *name, const char *format)
{
    struct block_exchange e = {.fd = fd, .name = name, .format = format};

    return do_exchange(device, &e);
}

int virtio_block_keep(struct device *device)
{
    struct block_exchange e = {.fd = -1, .keep = true};

    return do_exchange(device, &e);
}

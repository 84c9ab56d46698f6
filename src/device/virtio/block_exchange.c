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

static void on_exchange(void *opaque)
{
    struct virtio_block *block = opaque;
    LOCK_SCOPE(&block->vdev.lock);
    struct block_exchange *e = block->exchange;

    /* A flush of the format's own. */
    if (!disk_is_idle(block->disk) && loop_post(block->loop, on_exchange, block) == 0)
        return;
    e->result = exchange(block, e);
    e->done = true;
    pthread_cond_broadcast(&block->changed);
}

static int do_exchange(struct virtio_block *block, struct block_exchange *e)
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
    struct block_exchange e = {.fd = fd, .name = name};

    return do_exchange(container_of(device, struct virtio_block, vdev.device), &e);
}

int virtio_block_pop(struct device *device)
{
    struct block_exchange e = {.fd = -1};

    return do_exchange(container_of(device, struct virtio_block, vdev.device), &e);
}

int virtio_block_copy(struct device *device, int fd, const struct disk_copying *what)
{
    struct block_exchange e = {.fd = fd, .copy = what};

    return do_exchange(container_of(device, struct virtio_block, vdev.device), &e);
}

int virtio_block_resize(struct device *device, uint64_t size)
{
    struct block_exchange e = {.fd = -1, .size = size};

    return do_exchange(container_of(device, struct virtio_block, vdev.device), &e);
}

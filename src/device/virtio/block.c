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

#include "base/cleanup.h"
#include "base/error.h"
#include "device/virtio/block_priv.h"
#include "disk/copy.h"
#include "disk/fill.h"
#include "host/confine.h"
#include "host/loop.h"
#include "host/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#define BLOCK_CLASS 0x018000 /* PCI: mass storage, other */

/* Feature bits (5.2.3). */
#define BLOCK_F_SEG_MAX      2
#define BLOCK_F_RO           5
#define BLOCK_F_BLK_SIZE     6
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

#define PAGE_EXP 3 /* 2^3 sectors: the host's page */

#define THREAD_SERVES 1

void block_drain(struct virtio_block *block)
{
    block->draining++;
    if (block->held)
        loop_timer_arm(block->held_timer, 0);
    while (block->in_flight)
        pthread_cond_wait(&block->changed, &block->vdev.lock);
    block->draining--;
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

    block_drain(block);
    block->used_any = block->starved = false;
    block->cache_chosen = false;
}

static void block_queue_reset(struct virtio_device *vdev, struct virtqueue *queue)
{
    block_drain(block_of(vdev));
}

static void block_config_read(struct virtio_device *vdev, uint8_t *config)
{
    const struct virtio_block *block = block_of(vdev);
    if (!block->disk)
        return;
    uint32_t granularity = disk_granularity(block->disk) / DISK_SECTOR;

    put_le64(config + CONFIG_CAPACITY, disk_size(block->disk) / DISK_SECTOR);
    put_le32(config + CONFIG_SEG_MAX, BLOCK_SEG_MAX);
    put_le32(config + CONFIG_BLK_SIZE, DISK_SECTOR);
    config[CONFIG_PHYSICAL_BLOCK_EXP] = PAGE_EXP;
    put_le16(config + CONFIG_MIN_IO_SIZE, 1u << PAGE_EXP);
    put_le32(config + CONFIG_OPT_IO_SIZE, granularity);
    config[CONFIG_WRITEBACK] = !block_writes_through(block);
    put_le32(config + CONFIG_MAX_DISCARD_SECTORS, BLOCK_DISCARD_SECTORS_MAX);
    put_le32(config + CONFIG_MAX_DISCARD_SEG, BLOCK_RANGES_MAX);
    put_le32(config + CONFIG_DISCARD_SECTOR_ALIGNMENT, granularity);
    put_le32(config + CONFIG_MAX_WRITE_ZEROES_SECTORS, BLOCK_ZEROES_SECTORS_MAX);
    put_le32(config + CONFIG_MAX_WRITE_ZEROES_SEG, BLOCK_RANGES_MAX);
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
        block_drain(block);
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
    block->held_timer = loop_timer_new(block->loop, block_take_held, block);
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
    disk_on_batch_end(block->disk, block_end_batch, block);
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

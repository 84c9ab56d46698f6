/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtio memory balloon (virtio 1.2, 5.5): pages that the guest does not use go back to the host. They come
 * in two ways: numbers of pages that the driver puts into its balloon because the monitor wants them, and
 * free pages that it reports on its own and may use again at any time. Either way a page given back is a hole
 * in the file behind RAM; the mapping stays, and the guest's next access finds a page of zeros. So nothing
 * has to be done when the balloon shrinks, and the guest need not say so in advance.
 *
 * A third queue brings the guest's statistics: the device holds its one buffer and gives it back as the
 * question.
 *
 * Where the queue of reports is: the specification numbers the queues as if all features were there (reports
 * are 4), while Linux before 6.11 counts those that there are (3, for we do not ask for hints about free
 * pages). Both are served. Runs in the loop's thread with the device's lock held; the monitor's calls come
 * from any.
 */
#include "device/virtio/balloon.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/virtio/virtio.h"

#include <errno.h>
#include <stdlib.h>

#define BALLOON_CLASS      0x00ff00 /* PCI: unclassified */
#define BALLOON_QUEUE_SIZE 128u

#define BALLOON_F_STATS_VQ       1
#define BALLOON_F_DEFLATE_ON_OOM 2
#define BALLOON_F_PAGE_POISON    4
#define BALLOON_F_REPORTING      5

enum { INFLATE, DEFLATE, STATISTICS, REPORTS_COUNTED, REPORTS };

/* Device configuration (5.5.4). */
enum { CONFIG_TARGET = 0, CONFIG_ACTUAL = 4, CONFIG_POISON = 12, CONFIG_SIZE = 16 };

/* Page numbers in one buffer: Linux sends 256, Windows 1024. More would keep the loop's others waiting. */
#define MAX_NUMBERS 16384u
/* Page numbers, or pieces of reports, to be handled before others get their turn of the loop: each may cost a
 * system call. */
#define BUDGET 4096u
/* Numbers that are sorted together, so that neighbours go back in one call. */
#define CHUNK 256u

#define STAT_SIZE 10u /* tag, 16 bits; value, 64 bits */
#define MAX_STATS 64u

struct virtio_balloon {
    struct virtio_device vdev;
    uint32_t target, actual; /* pages */
    uint32_t poison;         /* what fills the guest's free pages */
    uint64_t reported;
    uint64_t serial;
    uint32_t valid;
    uint64_t stats[BALLOON_STATS];
    bool asked;   /* for statistics, before there was a buffer to ask with */
    bool holding; /* `held` is the statistics' buffer */
    struct virtqueue_element held;
};

static struct virtio_balloon *balloon_of(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_balloon, vdev);
}

static int compare_numbers(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* Gives back `n` pages, which are put in order. False, and the device needs reset, if one is none of RAM's.
 */
static bool discard_pages(struct virtio_balloon *balloon, uint32_t *numbers, unsigned n)
{
    const struct guest_memory *memory = balloon->vdev.device.env->memory;

    qsort(numbers, n, sizeof(*numbers), compare_numbers);
    for (unsigned i = 0, run; i < n; i += run) {
        for (run = 1; i + run < n && numbers[i + run] - numbers[i] == run; run++)
            ;
        /* Numbers that follow each other from one block of RAM into nothing, or the same one twice: piece by
         * piece. */
        uint64_t gpa = numbers[i] * GUEST_PAGE_SIZE;
        if (guest_memory_discard(memory, gpa, run * GUEST_PAGE_SIZE) != -EFAULT)
            continue;
        run = 1;
        if (guest_memory_discard(memory, gpa, GUEST_PAGE_SIZE) == -EFAULT) {
            virtio_device_broken(&balloon->vdev, "a page in the balloon that is not RAM");
            return false;
        }
    }
    return true;
}

static bool inflate_buffer(struct virtio_balloon *balloon, const struct virtqueue_element *elem)
{
    uint32_t numbers[CHUNK];

    if (elem->out_len % sizeof(uint32_t) || elem->out_len / sizeof(uint32_t) > MAX_NUMBERS) {
        virtio_device_broken(&balloon->vdev, "a list of pages of a wrong length");
        return false;
    }
    for (size_t at = 0; at < elem->out_len; at += sizeof(numbers)) {
        unsigned n = (unsigned)(virtqueue_read(elem, at, numbers, sizeof(numbers)) / sizeof(numbers[0]));

        for (unsigned i = 0; i < n; i++)
            numbers[i] = get_le32(&numbers[i]);
        if (!discard_pages(balloon, numbers, n))
            return false;
    }
    return true;
}

/* The guest-physical address of a piece of a buffer. */
static uint64_t address_of(const struct guest_memory *memory, const struct iovec *piece)
{
    const uint8_t *host = piece->iov_base;

    for (unsigned i = 0; i < memory->n_blocks; i++) {
        const struct guest_memory_block *b = &memory->blocks[i];

        if (host >= b->host && (uint64_t)(host - b->host) < b->size)
            return b->gpa + (uint64_t)(host - b->host);
    }
    return UINT64_MAX;
}

/* The pieces of the buffer are the free pages themselves. Whole pages in them go back. */
static void take_report(struct virtio_balloon *balloon, const struct virtqueue_element *elem)
{
    const struct guest_memory *memory = balloon->vdev.device.env->memory;

    /* A guest that fills free pages with something wants to find it there again (5.5.6.6). */
    if (virtio_has_feature(&balloon->vdev, BALLOON_F_PAGE_POISON) && balloon->poison)
        return;
    for (unsigned i = 0; i < elem->n_in; i++) {
        const struct iovec *piece = &virtqueue_in(elem)[i];
        uint64_t gpa = address_of(memory, piece);
        uint64_t first = ALIGN_UP(gpa, GUEST_PAGE_SIZE),
                 end = ALIGN_DOWN(gpa + piece->iov_len, GUEST_PAGE_SIZE);

        if (first < end && guest_memory_discard(memory, first, end - first) == 0)
            balloon->reported += end - first;
    }
}

static void take_statistics(struct virtio_balloon *balloon, const struct virtqueue_element *elem)
{
    uint8_t entry[STAT_SIZE];

    balloon->valid = 0;
    for (size_t i = 0; i < MAX_STATS; i++) {
        if (virtqueue_read(elem, i * STAT_SIZE, entry, STAT_SIZE) < STAT_SIZE)
            break;
        uint16_t tag = get_le16(entry);
        if (tag >= BALLOON_STATS)
            continue; /* of a newer specification */
        balloon->stats[tag] = get_le64(entry + 2);
        balloon->valid |= 1u << tag;
    }
    balloon->serial++;
}

/* Gives the held buffer back, which asks the driver to fill it anew. */
static void ask_locked(struct virtio_balloon *balloon)
{
    struct virtqueue *queue = &balloon->vdev.queues[STATISTICS];

    balloon->asked = !balloon->holding;
    if (!balloon->holding)
        return;
    balloon->holding = false;
    virtqueue_push(queue, &balloon->held, 0);
    virtqueue_notify(queue);
}

/* The driver has one buffer in this queue. One with more gets the older one back. */
static void statistics_notify(struct virtio_balloon *balloon, struct virtqueue *queue)
{
    struct virtqueue_element elem;
    unsigned n = 0;

    for (; n < queue->size && virtqueue_pop(queue, &elem); n++) {
        if (balloon->holding)
            virtqueue_push(queue, &balloon->held, 0);
        balloon->held = elem;
        balloon->holding = true;
        take_statistics(balloon, &elem);
    }
    virtqueue_notify(queue);
    if (balloon->asked)
        ask_locked(balloon);
    if (n == queue->size)
        virtqueue_kick(queue);
}

static void balloon_queue_notify(struct virtio_device *vdev, struct virtqueue *queue)
{
    struct virtio_balloon *balloon = balloon_of(vdev);
    struct virtqueue_element elem;
    unsigned n = 0, budget = BUDGET;

    /* The first two are there in any case; without statistics, older drivers have their reports here. */
    if (queue->index == STATISTICS && virtio_has_feature(vdev, BALLOON_F_STATS_VQ)) {
        statistics_notify(balloon, queue);
        return;
    }
    while (n < queue->size && budget && virtqueue_pop(queue, &elem)) {
        unsigned cost = 1;

        if (queue->index == INFLATE) {
            if (!inflate_buffer(balloon, &elem))
                return;
            cost += elem.out_len / (unsigned)sizeof(uint32_t);
        } else if (queue->index != DEFLATE && virtio_has_feature(vdev, BALLOON_F_REPORTING)) {
            take_report(balloon, &elem);
            cost += elem.n_in;
        }
        budget -= cost < budget ? cost : budget;
        virtqueue_push(queue, &elem, 0);
        n++;
    }
    virtqueue_notify(queue);
    if (n == queue->size || !budget)
        virtqueue_kick(queue);
}

static void balloon_queue_reset(struct virtio_device *vdev, struct virtqueue *queue)
{
    if (queue->index == STATISTICS)
        balloon_of(vdev)->holding = false;
}

/* What is wanted stays so; a driver that comes back begins with an empty balloon. */
static void balloon_reset(struct virtio_device *vdev)
{
    struct virtio_balloon *balloon = balloon_of(vdev);

    balloon->holding = balloon->asked = false;
    balloon->actual = balloon->poison = 0;
    balloon->valid = 0;
    balloon->serial = balloon->reported = 0;
}

static void balloon_config_read(struct virtio_device *vdev, uint8_t *config)
{
    const struct virtio_balloon *balloon = balloon_of(vdev);

    put_le32(config + CONFIG_TARGET, balloon->target);
    put_le32(config + CONFIG_ACTUAL, balloon->actual);
    put_le32(config + CONFIG_POISON, balloon->poison);
}

static void balloon_config_write(struct virtio_device *vdev, unsigned offset, unsigned size, uint64_t value)
{
    struct virtio_balloon *balloon = balloon_of(vdev);

    if (offset == CONFIG_ACTUAL && size == 4)
        balloon->actual = (uint32_t)value;
    else if (offset == CONFIG_POISON && size == 4 && virtio_has_feature(vdev, BALLOON_F_PAGE_POISON))
        balloon->poison = (uint32_t)value;
}

static const uint16_t balloon_queues[] = {BALLOON_QUEUE_SIZE, BALLOON_QUEUE_SIZE, BALLOON_QUEUE_SIZE,
                                          BALLOON_QUEUE_SIZE, BALLOON_QUEUE_SIZE};

static const struct virtio_device_class balloon_type = {
    .type = VIRTIO_TYPE_BALLOON,
    .pci_class = BALLOON_CLASS,
    .features = VIRTIO_FEATURE(BALLOON_F_STATS_VQ) | VIRTIO_FEATURE(BALLOON_F_DEFLATE_ON_OOM) |
                VIRTIO_FEATURE(BALLOON_F_PAGE_POISON) | VIRTIO_FEATURE(BALLOON_F_REPORTING),
    .config_size = CONFIG_SIZE,
    .n_queues = ARRAY_SIZE(balloon_queues),
    .queue_max = balloon_queues,
    .queue_notify = balloon_queue_notify,
    .reset = balloon_reset,
    .queue_reset = balloon_queue_reset,
    .config_read = balloon_config_read,
    .config_write = balloon_config_write,
};

/* Page numbers have 32 bits: 16 TiB, more than RAM can have. */
static uint32_t target_pages(const struct device_env *env, uint64_t bytes)
{
    return (uint32_t)((bytes < env->memory->size ? bytes : env->memory->size) / GUEST_PAGE_SIZE);
}

void virtio_balloon_set_target(struct device *device, uint64_t bytes)
{
    struct virtio_balloon *balloon = container_of(device, struct virtio_balloon, vdev.device);
    uint32_t target = target_pages(device->env, bytes);
    LOCK_SCOPE(&balloon->vdev.lock);

    if (balloon->target == target)
        return;
    balloon->target = target;
    virtio_config_changed(&balloon->vdev);
}

void virtio_balloon_report(struct device *device, struct virtio_balloon_report *out)
{
    struct virtio_balloon *balloon = container_of(device, struct virtio_balloon, vdev.device);
    LOCK_SCOPE(&balloon->vdev.lock);

    *out = (struct virtio_balloon_report){
        .driver = balloon->vdev.status & VIRTIO_STATUS_DRIVER_OK,
        .target = balloon->target * GUEST_PAGE_SIZE,
        .actual = balloon->actual * GUEST_PAGE_SIZE,
        .reported = balloon->reported,
        .serial = balloon->serial,
        .valid = balloon->valid,
    };
    memcpy(out->stats, balloon->stats, sizeof(out->stats));
}

void virtio_balloon_ask(struct device *device)
{
    struct virtio_balloon *balloon = container_of(device, struct virtio_balloon, vdev.device);
    LOCK_SCOPE(&balloon->vdev.lock);

    if (virtio_has_feature(&balloon->vdev, BALLOON_F_STATS_VQ))
        ask_locked(balloon);
}

static void balloon_destroy(struct device *device)
{
    struct virtio_balloon *balloon = container_of(device, struct virtio_balloon, vdev.device);

    virtio_device_fini(&balloon->vdev);
    free(balloon);
}

static int balloon_create(struct device **out, const struct device_env *env, const void *config,
                          struct error **err)
{
    const struct virtio_balloon_config *how = config;
    struct virtio_balloon *balloon = calloc(1, sizeof(*balloon));

    if (!balloon)
        return error_set_errno(err, ENOMEM, "virtio-balloon");
    balloon->target = how ? target_pages(env, how->target) : 0;
    int rc = virtio_device_init(&balloon->vdev, &virtio_balloon_class, &balloon_type, env, NULL, err);
    if (rc < 0) {
        free(balloon);
        return rc;
    }
    rc = virtio_device_plug(&balloon->vdev, err);
    if (rc < 0) {
        balloon_destroy(&balloon->vdev.device);
        return rc;
    }
    *out = &balloon->vdev.device;
    return 0;
}

const struct device_class virtio_balloon_class = {
    .name = "virtio-balloon",
    .summary = "virtio memory balloon: what the guest does not use goes back to the host",
    .create = balloon_create,
    .reset = virtio_device_power_on,
    .destroy = balloon_destroy,
};

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory balloon as the machine and its monitor use it: how much the guest is to give back, how much it
 * has given, and what its kernel tells of its memory.
 */
#ifndef TABIQUE_DEVICE_VIRTIO_BALLOON_H
#define TABIQUE_DEVICE_VIRTIO_BALLOON_H

#include "device/device.h"

#include <stdbool.h>
#include <stdint.h>

/* The configuration that virtio_balloon_class.create takes; NULL: nothing wanted at first. */
struct virtio_balloon_config {
    uint64_t target; /* as for virtio_balloon_set_target */
};

/* What a guest may tell (virtio 1.2, 5.5.6.3), by the specification's numbers. */
enum virtio_balloon_stat {
    BALLOON_SWAP_IN,
    BALLOON_SWAP_OUT, /* bytes, as all but faults and huge pages */
    BALLOON_MAJOR_FAULTS,
    BALLOON_MINOR_FAULTS,
    BALLOON_FREE,
    BALLOON_TOTAL,
    BALLOON_AVAILABLE, /* what programs could have without swapping */
    BALLOON_CACHES,
    BALLOON_HUGE_PAGES,
    BALLOON_HUGE_FAILURES,
    BALLOON_STATS
};

struct virtio_balloon_report {
    bool driver;     /* one in the guest has the balloon in use */
    uint64_t target; /* bytes wanted */
    uint64_t actual; /* bytes in the balloon, as the driver says */
    uint64_t
        reported; /* bytes that free-page reporting has given back since the driver's start, all together */
    uint64_t serial; /* how often the guest has told its statistics since the driver's start; 0: never */
    uint32_t valid;  /* bit n: stats[n] is known */
    uint64_t stats[BALLOON_STATS]; /* the last ones */
};

extern const struct device_class virtio_balloon_class;

/* How many bytes the guest is to give back by its balloon, rounded down to pages and cut to the size of RAM.
 * The driver gets there in its own time, or not at all. Any thread. */
void virtio_balloon_set_target(struct device *device, uint64_t bytes);

/* What is known now. Any thread. */
void virtio_balloon_report(struct device *device, struct virtio_balloon_report *out);

/* Asks the guest for new statistics; a report with another serial has them. Any thread. */
void virtio_balloon_ask(struct device *device);

#endif

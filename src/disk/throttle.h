/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Limits of what a disk is asked for, by token buckets: bytes and requests a second, of all, of reads, of
 * writes. Any thread that has the device's lock; no state but the structure.
 */
#ifndef TABIQUE_DISK_THROTTLE_H
#define TABIQUE_DISK_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

enum disk_limit {
    DISK_LIMIT_BPS, /* bytes a second, of all requests; 0: no limit */
    DISK_LIMIT_BPS_READ,
    DISK_LIMIT_BPS_WRITE,
    DISK_LIMIT_IOPS, /* requests a second */
    DISK_LIMIT_IOPS_READ,
    DISK_LIMIT_IOPS_WRITE,
    DISK_LIMIT_BPS_BURST, /* bytes that may come at once after a while without any; 0: those of 0.1 s */
    DISK_LIMIT_IOPS_BURST,
    DISK_LIMITS
};

/* "bps", "bps-read", ...: as options and in JSON. NULL after the last. */
const char *disk_limit_name(unsigned i);

struct disk_limits {
    uint64_t values[DISK_LIMITS];
};

struct disk_throttle {
    struct disk_limits limits;
    double levels[DISK_LIMIT_BPS_BURST]; /* of each bucket; below 0 what was taken on credit */
    uint64_t then;                       /* ns, when they were filled last */
};

/* New limits, with full buckets. */
void disk_throttle_set(struct disk_throttle *t, const struct disk_limits *limits, uint64_t now);
/* A request that would begin at `now` (ns): 0, and it is counted; or how long it has to wait. It may begin
 * when no bucket is empty, and takes more than there is on credit, so one of any size goes through. */
uint64_t disk_throttle_take(struct disk_throttle *t, bool write, uint64_t bytes, uint64_t now);

#endif

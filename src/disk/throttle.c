/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Token buckets: throttle.h. */
#include "disk/throttle.h"

#include "base/bytes.h"

#include <stddef.h>

#define SECOND 1e9
/* Without a burst of its own a bucket holds what comes in so long. */
#define BURST_SECONDS 0.1

const char *disk_limit_name(unsigned i)
{
    static const char *const names[DISK_LIMITS] = {"bps",       "bps-read",   "bps-write", "iops",
                                                   "iops-read", "iops-write", "bps-burst", "iops-burst"};

    return i < DISK_LIMITS ? names[i] : NULL;
}

static double capacity(const struct disk_throttle *t, unsigned bucket)
{
    uint64_t burst =
        t->limits.values[bucket < DISK_LIMIT_IOPS ? DISK_LIMIT_BPS_BURST : DISK_LIMIT_IOPS_BURST];
    double own = burst ? (double)burst : (double)t->limits.values[bucket] * BURST_SECONDS;

    return own < 1 ? 1 : own;
}

void disk_throttle_set(struct disk_throttle *t, const struct disk_limits *limits, uint64_t now)
{
    t->limits = *limits;
    t->then = now;
    for (unsigned i = 0; i < DISK_LIMIT_BPS_BURST; i++)
        t->levels[i] = capacity(t, i);
}

static void fill(struct disk_throttle *t, uint64_t now)
{
    double seconds = now > t->then ? (double)(now - t->then) / SECOND : 0;

    for (unsigned i = 0; i < DISK_LIMIT_BPS_BURST; i++) {
        double full = capacity(t, i);

        t->levels[i] += seconds * (double)t->limits.values[i];
        if (t->levels[i] > full)
            t->levels[i] = full;
    }
    t->then = now;
}

/* What a request takes of a bucket. */
static double cost(unsigned bucket, bool write, uint64_t bytes)
{
    bool of_bytes = bucket < DISK_LIMIT_IOPS;
    unsigned kind = bucket % DISK_LIMIT_IOPS; /* 0: all; 1: reads; 2: writes */

    if (kind && write != (kind == 2))
        return 0;
    return of_bytes ? (double)bytes : 1;
}

uint64_t disk_throttle_take(struct disk_throttle *t, bool write, uint64_t bytes, uint64_t now)
{
    uint64_t wait = 0;

    fill(t, now);
    for (unsigned i = 0; i < DISK_LIMIT_BPS_BURST; i++) {
        double rate = (double)t->limits.values[i];

        if (!rate || !cost(i, write, bytes) || t->levels[i] > 0)
            continue;
        /* Until there is a little. */
        double ns = (1 - t->levels[i]) / rate * SECOND + 1;
        if (ns > wait)
            wait = ns < 3600 * SECOND ? (uint64_t)ns : (uint64_t)(3600 * SECOND);
    }
    for (unsigned i = 0; !wait && i < DISK_LIMIT_BPS_BURST; i++)
        if (t->limits.values[i])
            t->levels[i] -= cost(i, write, bytes);
    return wait;
}

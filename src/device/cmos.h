/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the machine needs to know of the clock with its battery-backed memory: what it is made from. */
#ifndef TABIQUE_DEVICE_CMOS_H
#define TABIQUE_DEVICE_CMOS_H

#include "device/device.h"

#include <stdint.h>

/* The index (FADT's CENTURY) of the register with the century, in the clock's own number format. */
#define CMOS_CENTURY 0x32

/* The configuration that cmos_class.create takes; NULL: all from the host and the machine. */
struct cmos_config {
    uint64_t memory; /* bytes of RAM to tell; 0: what the machine has */
    unsigned cpus;   /* processors to tell; 0: one */
    /* ns since the epoch, UTC; NULL: the host's CLOCK_REALTIME. Any thread. */
    uint64_t (*realtime)(void *opaque);
    void *opaque;
};

extern const struct device_class cmos_class;

#endif

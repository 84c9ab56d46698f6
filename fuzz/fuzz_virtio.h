/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the fuzz targets of virtio devices share: a guest whose driver does whatever the input says. */
#ifndef TABIQUE_FUZZ_FUZZ_VIRTIO_H
#define TABIQUE_FUZZ_FUZZ_VIRTIO_H

#include "device/char.h"
#include "driver.h"
#include "fuzz_input.h"

#define FUZZ_QUEUES 6u

struct fuzz_guest {
    struct fixture f;
    struct device *device;
    struct driver d;
    unsigned type; /* VIRTIO_TYPE_... */
    unsigned n_queues;
    uint64_t features; /* of the type's own, which the driver may accept; none of them is needed */
    struct driver_queue queues[FUZZ_QUEUES];
    /* What the device under test adds to the actions of all: takes its arguments from `in`. */
    void (*special)(struct fuzz_guest *g, struct fuzz_input *in);
};

/* Does what the input says until it is used up. */
void fuzz_virtio_actions(struct fuzz_guest *g, struct fuzz_input *in);

/* Resets the machine and starts the driver as it should be: ends the program if the device does not come back
 * from whatever was done to it. */
void fuzz_virtio_restart(struct fuzz_guest *g, uint64_t features);

/* Of a device that moves bytes: each direction works, by the queues with these numbers. `last`: where the
 * backend keeps the last two bytes that have come from the guest. */
void fuzz_virtio_exchange(struct fuzz_guest *g, struct char_backend *backend, unsigned in, unsigned out,
                          const void *last);

/* Ends the program, which is how a fuzz target tells of a broken promise, unless `ok`. */
void fuzz_expect(bool ok, const char *what);

#endif

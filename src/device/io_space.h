/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An address space of device registers: one for ports (64 KiB), one for memory-mapped I/O. Devices put
 * regions in it, engines look addresses up. Any thread.
 *
 * An access that no region claims reads all ones and its write is dropped, as on a PC. The space splits or
 * pads nothing: a region's callbacks get the offset and a size of 1, 2, 4 or 8 exactly as the guest used
 * them, and must take any of these sizes at any offset in range. An access that runs past a region's end
 * counts as unclaimed.
 */
#ifndef TABIQUE_DEVICE_IO_SPACE_H
#define TABIQUE_DEVICE_IO_SPACE_H

#include <stdbool.h>
#include <stdint.h>

struct io_space;

struct io_region {
    const char *name; /* of static storage, for messages */
    uint64_t base;
    uint64_t size;
    uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
    void (*write)(void *opaque, uint64_t offset, unsigned size, uint64_t value);
    void *opaque;
};

/*
 * A doorbell: a write to `addr` (of any size if size is 0; with any value unless `match`) signals the eventfd
 * instead of calling the region below it. The kvm engine hands it to the kernel (ioeventfd).
 */
struct io_doorbell {
    uint64_t addr;
    unsigned size;
    bool match;
    uint64_t value;
    int fd;
};

/* What the engine is told, so that it can keep the kernel's ioeventfds in step. */
struct io_space_listener {
    void (*doorbell_added)(void *opaque, struct io_space *space, const struct io_doorbell *bell);
    void (*doorbell_removed)(void *opaque, struct io_space *space, const struct io_doorbell *bell);
    void *opaque;
};

/* NULL if there is no memory. io_space_free(NULL) is fine. */
struct io_space *io_space_new(const char *name);
void io_space_free(struct io_space *space);

/* Registers `region`, which the caller owns and keeps (unchanged) until it is removed. -EBUSY if it overlaps
 * another one, -EINVAL if empty or wrapping, -ENOMEM. A region may be removed and added again at another base
 * (a PCI BAR that moves). Removing waits for nobody: a vCPU that found the region just before may still be in
 * its callback. So what the callbacks use is freed only while the vCPUs are paused. */
int io_space_add(struct io_space *space, struct io_region *region);
void io_space_remove(struct io_space *space, struct io_region *region);

/* Copies *bell. -EEXIST for an equal one, -ENOMEM. Removal needs the same fields; after it the eventfd is not
 * signalled any more and may be closed. */
int io_space_add_doorbell(struct io_space *space, const struct io_doorbell *bell);
void io_space_remove_doorbell(struct io_space *space, const struct io_doorbell *bell);

/* One listener; those that exist are reported at once. NULL takes it away. It is called with the space's
 * writer lock held: it may not change the space. */
void io_space_set_listener(struct io_space *space, const struct io_space_listener *listener);

/* size: 1, 2, 4 or 8. Callbacks run with no lock of the space held. */
uint64_t io_space_read(struct io_space *space, uint64_t addr, unsigned size);
void io_space_write(struct io_space *space, uint64_t addr, unsigned size, uint64_t value);

#endif

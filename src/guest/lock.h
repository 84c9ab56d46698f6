/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest's lock: a file in its directory that its supervisor, and each of its processes, hold as long as
 * they live. The kernel lets go of it however they end, so it is what tells whether a guest runs. Asking
 * takes nothing: nobody who asks can get into the way of one who takes it.
 */
#ifndef TABIQUE_GUEST_LOCK_H
#define TABIQUE_GUEST_LOCK_H

#include <stdbool.h>

enum lock_holder {
    LOCK_FREE,
    LOCK_SUPERVISED, /* a supervisor lives, or somebody is making, starting or removing the guest */
    LOCK_ORPHANED,   /* only its other processes are left, and about to end */
};

/*
 * Takes the lock of the guest whose directory is `directory`. The descriptor, to be closed, also by those who
 * inherited it; -EBUSY if it is held, -ENOENT if there is no such guest (any more), or -errno.
 */
int lock_take(const char *directory);
/* As lock_take, and waits up to `ms` for who holds it. */
int lock_wait(const char *directory, unsigned ms);
/* For a process that the holder is about to start: a descriptor that keeps the lock from being taken by
 * others after the holder's end. Or -errno. */
int lock_share(const char *directory);

/* Who holds it; LOCK_FREE too where there is no guest. */
enum lock_holder lock_holder(const char *directory);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A container's root file system as those outside see it (inside.c), for inside_copy.c. */
#ifndef TABIQUE_GUEST_INSIDE_PRIV_H
#define TABIQUE_GUEST_INSIDE_PRIV_H

#include "guest/guest.h"

/* One that is open. INSIDE_NONE is fine to be closed. */
struct inside {
    int root;           /* a descriptor of its root directory */
    struct guest guest; /* held, where it does not run */
};

#define INSIDE_NONE ((struct inside){.root = -1, .guest = GUEST_NONE})

/* Where it does not run, its root is mounted in a namespace that this process is in from then on. 0 or -errno
 * with *err. */
int inside_open(struct inside *out, const struct home *home, const char *name, struct error **err);
void inside_close(struct inside *inside);

#endif

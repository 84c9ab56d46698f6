/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What guest.c and remove.c share. `_locked`: in a write transaction of the registry. */
#ifndef TABIQUE_GUEST_GUEST_PRIV_H
#define TABIQUE_GUEST_GUEST_PRIV_H

#include "guest/guest.h"

/* Whether the row says that somebody holds the guest, and nobody does. */
bool guest_is_dead(const struct home *home, const struct guest_row *row);

/* Records a guest that is dead as crashed, or takes it away if it was not to stay. In a write transaction. 0
 * or -errno with *err. */
int guest_bury(const struct home *home, struct registry *registry, const char *name, struct error **err);

/* Opens the registry and begins a transaction. 0 or -errno with *err; *out is to be closed in any case. */
int guest_begin_write(const struct home *home, struct registry **out, struct error **err);

/* Takes the row away, and the directory out of the way: its space is freed by guest_empty_trash. */
int guest_erase_locked(const struct home *home, struct registry *registry, const char *name,
                       struct error **err);

/* Puts the directories of guests that there are not out of the way: what killed commands left. 0 or -errno
 * with *err. */
int guest_sweep_locked(const struct home *home, struct registry *registry, struct error **err);
/* Frees the space of what is out of the way. At any time, best in no transaction: it may take a while. */
void guest_empty_trash(const struct home *home);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of guests, whatever their kind: made, started, supervised, stopped, removed; and the truth about
 * them. A guest is a row of the registry, a directory for what it keeps, and a lock that is held while
 * anything of it runs. Called by the command line; the calling process has one thread.
 */
#ifndef TABIQUE_GUEST_GUEST_H
#define TABIQUE_GUEST_GUEST_H

#include "guest/registry.h"
#include "host/home.h"

#include <stdbool.h>

struct error;

/* ---- asking ---- */

/* All guests as they really are, by name. Where there is no state yet, none. 0 or -errno with *err. */
int guest_list(const struct home *home, struct guest_row **rows, size_t *n, struct error **err);
void guest_list_free(struct guest_row *rows, size_t n);
/* One of them. 0; or -errno with *err (-ENOENT: none of that name; it says which name is near). */
int guest_find(const struct home *home, const char *name, struct guest_row *row, struct error **err);

/* "<state>/guests/NAME", or "<state>/guests/NAME/<file>"; to be freed; NULL if there is no memory. */
char *guest_path(const struct home *home, const char *name, const char *file);
/* The same below the runtime directory. */
char *guest_run_path(const struct home *home, const char *name, const char *file);

/* ---- a guest that this process holds ---- */

struct guest {
    const struct home *home;
    char *directory; /* for what it keeps */
    int lock_fd;     /* held until guest_release in this process and in all who inherited it */
    struct guest_row row;
};

#define GUEST_NONE ((struct guest){.lock_fd = -1})

struct guest_spec {
    const char *name;   /* NULL: one is made up */
    const char *config; /* JSON: guest/config.h */
    bool transient;     /* to be removed at its end */
};

/*
 * Makes a guest, in state `starting`: its row and its directory are there together or not at all. 0 or -errno
 * with *err (-EEXIST: the name is taken).
 */
int guest_create(struct guest *out, const struct home *home, const struct guest_spec *spec,
                 struct error **err);
/* Makes what its configuration asks for in its directory: a disk over its image, the volume for cloud-init.
 * After guest_create. 0; or -errno with *err, and the guest is gone. */
int guest_prepare(struct guest *guest, struct error **err);
/* Takes hold of one that does not run, to start it (its state becomes `starting`) or to remove it. 0 or
 * -errno with *err (-EBUSY: it runs, or somebody else has it in hand). */
int guest_take_to_start(struct guest *out, const struct home *home, const char *name, struct error **err);
int guest_take(struct guest *out, const struct home *home, const char *name, struct error **err);
/* Lets go; the guest stays. GUEST_NONE is fine. */
void guest_release(struct guest *guest);
/* Removes it with all that it has, and lets go. 0 or -errno with *err; then it is still held. */
int guest_remove(struct guest *guest, struct error **err);

/* Writes the row as it is in *guest, and the event if `type` is not NULL (details: a JSON object, or NULL). 0
 * or -errno with *err. */
int guest_record(struct guest *guest, const char *type, const char *details, struct error **err);

/* Writes down that a person ended a guest whose supervisor could not do so any more. 0 or -errno with *err.
 */
int guest_ended_by_hand(const struct home *home, const char *name, struct error **err);
/* Whether it is to be started with the host: by its restart policy, and by who ended it last. */
bool guest_starts_with_host(const struct guest_row *row);

/* ---- running ---- */

/* What guest_run gives besides the VM_EXIT_* values: the person left with Ctrl-], or a signal ended it. */
#define GUEST_EXIT_LEFT   130
#define GUEST_EXIT_SIGNAL 128 /* + the signal's number: 143 for SIGTERM, 137 for one that was killed */

/*
 * Runs a guest, which is in state `starting`, in the foreground to its end, with its console on standard
 * input and output. Lets go of it; one that never ran (`fresh`) is removed when it can't be started. 0 with
 * *status; -errno with *err when it could not be built or its engine failed, with *status set to what the
 * process should return.
 */
int guest_run(struct guest *guest, bool fresh, int *status, struct error **err);
/* The same in a process of its own. Returns when the guest runs. 0 or -errno with *err. */
int guest_run_detached(struct guest *guest, bool fresh, struct error **err);

#endif

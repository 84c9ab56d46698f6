/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What building uses: other programs in a sandbox, the initial RAM disk, signals that end it. */
#ifndef TABIQUE_IMAGE_BUILD_PRIV_H
#define TABIQUE_IMAGE_BUILD_PRIV_H

#include <stdbool.h>
#include <stddef.h>

struct error;

/* ---- interrupt.c ---- */

/* From begin to end, SIGINT, SIGTERM and SIGHUP only set the flag that `interrupted` tells. Calls may nest.
 */
void interrupt_begin(void);
void interrupt_end(void);
/* 0, or the signal. */
int interrupted(void);
/* -EINTR with a text. */
int interrupt_error(struct error **err);

/* ---- sandbox.c ---- */

struct sandbox {
    const char *const *argv; /* found by PATH */
    /* Instead of a program: what is called in the process, with `opaque`, for its exit status. It has what
     * this one has open. */
    int (*call)(void *opaque);
    const char *purpose; /* for people: what takes the rights that it asks for; NULL: "building an image" */
    const char *const *environment; /* "NAME=VALUE", NULL at the end, added to this process's own */
    bool stubborn;                  /* goes on after a signal that interrupts */
    int inherited;                  /* a descriptor that all its processes hold, or -1 */
    void (*line)(void *opaque, const char *line); /* of its output and error output, without newline */
    void *opaque;
};

/*
 * Runs a program as root, or as something that is like root to itself: a person gets a user namespace with
 * the ids that /etc/subuid and /etc/subgid give. It gets mount and process namespaces of its own where the
 * host allows, so that with it (or with this process, however that ends) all goes that it started and
 * mounted. *status is as of waitpid. -EINTR when interrupted, and then it is gone; other errors where it
 * could not be started; the text says what to do.
 */
int sandbox_run(const struct sandbox *job, int *status, struct error **err);

/* Deletes a tree that sandbox_run's program made, with files of other users. Says nothing. */
void sandbox_delete_tree(const char *path);

/* ---- initrd.c ---- */

/* Writes an initial RAM disk to `path`: this program's init, and the modules in `directory` by its file
 * `order`, decompressed. */
int initrd_write(const char *path, const char *directory, struct error **err);

#endif

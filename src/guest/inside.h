/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Into a container from outside: a program more in it, files in and out, other limits. Called by the command
 * line. */
#ifndef TABIQUE_GUEST_INSIDE_H
#define TABIQUE_GUEST_INSIDE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct error;
struct home;

struct guest_exec {
    const char *name;        /* of the guest, which runs */
    const char *const *args; /* NULL behind the last */
    const char *user;        /* as `run --user`; NULL: the container's own */
    const char *workdir;     /* NULL: the container's own */
    const char *const *env;  /* NULL behind the last, or NULL */
    bool terminal;           /* standard input and output are one, and the program gets one too */
};

/* Runs a program in it to its end, with standard input and output of this process. 0 with *status, the
 * program's; or -errno with *err, with *status where it could not be executed. */
int guest_exec(const struct home *home, const struct guest_exec *request, int *status, struct error **err);

/*
 * Copies files between the host and a container: one of the paths is "NAME:PATH", whose links lead nowhere
 * else than in the container. Directories with all that is in them. One that does not run is held meanwhile.
 * 0 or -errno with *err.
 */
int guest_copy(const struct home *home, const char *from, const char *to, struct error **err);

/* Changes limits: `limits` has "memory", "cpus", "pids", "io-weight", of which those that are there are
 * changed, now and for later starts. 0 or -errno with *err. */
int guest_update(const struct home *home, const char *name, const json_t *limits, struct error **err);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ending guests that run, and joining their consoles: what commands ask of a supervisor. */
#ifndef TABIQUE_GUEST_END_H
#define TABIQUE_GUEST_END_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct control_request;
struct error;
struct home;

enum guest_end_how {
    GUEST_END_STOP,
    GUEST_END_SHUTDOWN, /* a stop because the host goes down: not one by hand, for restart policies */
    GUEST_END_KILL,
};

/* A guest that was asked to end: guest_end_begin asks, guest_end_finish waits, so that several end at once.
 */
struct guest_end {
    const char *name; /* the caller's */
    enum guest_end_how how;
    uint64_t timeout_ms;
    int fd;         /* to its supervisor; -1: nothing to wait for */
    int supervisor; /* a descriptor of that process; -1: not known */
};

/*
 * Asks a guest to switch itself off, after `timeout_ms` to be killed (or to be killed at once). 0 or -errno
 * with *err: -ENOENT, none of that name; -ESRCH, it does not run.
 */
int guest_end_begin(struct guest_end *end, const struct home *home, const char *name, enum guest_end_how how,
                    uint64_t timeout_ms, struct error **err);
/* Waits until nothing of it runs any more. A supervisor that does not answer is killed, where that was asked
 * for. 0 or -errno with *err. */
int guest_end_finish(struct guest_end *end, const struct home *home, struct error **err);

/* How guest_attach ended. */
enum guest_attach_end {
    GUEST_ATTACH_LEFT,   /* Ctrl-] */
    GUEST_ATTACH_ENDED,  /* the guest has */
    GUEST_ATTACH_SIGNAL, /* *signal */
};

/* Joins standard input and output to the console of a guest that runs. 0 with *how, or -errno with *err. */
int guest_attach(const struct home *home, const char *name, enum guest_attach_end *how, int *signal,
                 struct error **err);

/* Asks a supervisor for anything that is answered at once. 0 with *answer (to be released with json_decref),
 * or -errno with *err, which names the guest. */
int guest_ask(const struct home *home, const char *name, const struct control_request *request,
              json_t **answer, struct error **err);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The supervisor of one guest. Called by launch.c, in the process that is to be it. */
#ifndef TABIQUE_GUEST_SUPERVISOR_H
#define TABIQUE_GUEST_SUPERVISOR_H

#include <stdbool.h>

struct error;
struct guest;

struct supervision {
    bool foreground; /* the console is on this process's terminal */
    bool fresh;      /* the guest is new: if it can't be started it goes again */
    int ready_fd;    /* a byte is written here when the guest runs; -1: nobody waits */
};

/*
 * Runs the guest, which this process holds, to its end, with the restarts that its policy asks for; records
 * what happens to it; lets go of it. As guest_run.
 */
int supervise(struct guest *guest, const struct supervision *how, int *status, struct error **err);

#endif

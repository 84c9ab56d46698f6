/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of guests, whatever their kind: started, supervised, stopped. Called by the command line; the
 * calling process has one thread.
 */
#ifndef TABIQUE_GUEST_GUEST_H
#define TABIQUE_GUEST_GUEST_H

#include "machine/vm.h"

struct error;

/* What guest_run gives besides the VM_EXIT_* values: the person left with Ctrl-], or a signal ended it. */
#define GUEST_EXIT_LEFT   130
#define GUEST_EXIT_SIGNAL 128 /* + the signal's number: 143 for SIGTERM */

/*
 * Runs a guest from power-on to its end, with its console on standard input and output. 0 with *status;
 * -errno with *err when it could not be built or its engine failed, with *status set to what the process
 * should return.
 */
int guest_run(const struct vm_config *config, int *status, struct error **err);

#endif

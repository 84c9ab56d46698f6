/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Running from a sealed copy of the program, in memory. Whoever may look into a process of the runtime finds
 * the copy as its /proc/PID/exe, and not the file on the host's disk, which he could overwrite when the
 * process is gone.
 */
#ifndef TABIQUE_CONTAINER_SEALED_H
#define TABIQUE_CONTAINER_SEALED_H

struct error;

/*
 * Executes this process anew, with its arguments and environment, from such a copy; returns 0 in the process
 * that runs from one. Descriptors that are not to be closed stay. -errno with *err where that is not
 * possible.
 */
int sealed_ensure(struct error **err);

#endif

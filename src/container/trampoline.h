/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Executing the container's program without leaving the runtime's own file in its reach (trampoline.S). Else
 * a program, interpreter or library named /proc/self/exe in the image would be the runtime's file, and a
 * process in the container could overwrite it on the host.
 */
#ifndef TABIQUE_CONTAINER_TRAMPOLINE_H
#define TABIQUE_CONTAINER_TRAMPOLINE_H

#include <linux/filter.h>

struct error;

struct trampoline {
    const char *program; /* its path in the container */
    const char *const *argv, *const *envp;
    int error_fd; /* gets 8 bytes, an errno, should the last step fail; closed by success */
    int label_fd; /* a file of /proc/self/attr, or -1 */
    const char *label;
    const struct sock_fprog *filter; /* to be entered last, or NULL */
    unsigned long filter_flags;
};

/* A sealed memory file with the code and all that it needs. A descriptor, close on exec, or -errno. */
int trampoline_make(const struct trampoline *t);

/* Executes it; comes back only where that fails: -errno. */
int trampoline_execute(int fd, const struct trampoline *t);

#endif

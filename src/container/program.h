/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The last steps of a process in a container, the same for its first (init.c) and for those of exec (exec.c).
 */
#ifndef TABIQUE_CONTAINER_PROGRAM_H
#define TABIQUE_CONTAINER_PROGRAM_H

#include "container/config.h"

#include <limits.h>
#include <linux/filter.h>

struct error;

struct program {
    const struct container_process *process;
    const struct sock_fprog *filter; /* or NULL */
    unsigned long filter_flags;
    unsigned preserve_fds;
    bool limited; /* its limits are set already */
    int label_fd; /* -1: no label */
    const char *label;
    char path[PATH_MAX]; /* what is executed, from program_find on */
    int trampoline;      /* from program_prepare on */
    char **environment;
};

/*
 * Whether the container's processes may look into one of the runtime's that comes among them, though it is
 * not dumpable: that takes CAP_SYS_PTRACE, and no user namespace around it. Then the runtime's file is to be
 * out of reach (sealed.h).
 */
bool program_is_in_danger(const struct container_config *config);

/* Opens where the security module's label is written, while /proc is the host's. *fd is -1 where none is
 * asked for. */
int program_open_label(const struct container_process *process, int *fd, const char **label,
                       struct error **err);

/* As the program's user, in its directory: finds it in $PATH. *status is 127 or 126 where that fails. */
int program_find(struct program *program, int *status, struct error **err);

/* Makes all that the last step takes. `error_fd` gets the errno should it fail. */
int program_prepare(struct program *program, int error_fd, struct error **err);

/* Executes it. Comes back only on failure: -errno. */
int program_execute(struct program *program, int error_fd);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* criu, the program that writes processes into files and makes them again: one run of it for one request. */
#ifndef TABIQUE_CONTAINER_CRIU_PRIV_H
#define TABIQUE_CONTAINER_CRIU_PRIV_H

#include "container/container.h"
#include "container/criu_message.h"

struct error;

struct criu_run {
    const struct container_runtime *runtime; /* tells which program */
    enum criu_kind kind;
    const struct buffer *options;
    const char *work_path; /* for the errors: where the log is */
    const char *log;       /* its name there */
    int work_dir;          /* the same, open */
    /* In the new process before it becomes criu; it ends there with what this returns. May be NULL. */
    int (*prepare)(void *opaque, struct error **err);
    /* The process is there and has not begun; its number. May be NULL. */
    int (*begun)(void *opaque, pid_t pid, struct error **err);
    /* What criu tells in between; `fd` comes with it or is -1, and is closed afterwards. Failure ends it all.
     */
    int (*told)(void *opaque, const struct criu_answer *answer, int fd, struct error **err);
    void *opaque;
    bool dies_with_caller; /* is killed if this process is */
};

/* Returns when it is done and criu has ended. *pid: of what was restored. 0 or -errno with *err. */
int criu_run(const struct criu_run *run, pid_t *pid, struct error **err);

#endif

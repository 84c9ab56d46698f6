/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a process uses, as the kernel counts it. */
#ifndef TABIQUE_GUEST_PROC_STATS_H
#define TABIQUE_GUEST_PROC_STATS_H

#include <stdint.h>
#include <sys/types.h>

struct proc_stats {
    uint64_t cpu_ns;   /* user and system time of all its threads, also of those that have ended, and of its
                          children */
    uint64_t resident; /* bytes of memory that it has touched */
    uint64_t shared;   /* of these in memory files: a VM process's guest RAM */
    uint64_t threads;
};

/* 0 or -errno. */
int proc_stats_read(pid_t pid, struct proc_stats *out);

#endif

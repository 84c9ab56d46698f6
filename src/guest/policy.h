/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Restart policies: whether, and after how long, a guest that has ended is started again. */
#ifndef TABIQUE_GUEST_POLICY_H
#define TABIQUE_GUEST_POLICY_H

#include <stdbool.h>
#include <stdint.h>

struct error;

enum policy_kind {
    POLICY_NO,
    POLICY_ON_FAILURE,     /* when its exit status is not 0 */
    POLICY_ALWAYS,         /* whatever the end, unless a person stopped it; and with the host in any case */
    POLICY_UNLESS_STOPPED, /* the same; and with the host, unless a person stopped it */
};

struct policy {
    enum policy_kind kind;
    uint64_t most; /* restarts in a row, 0: no limit */
};

/* "no", "on-failure", "on-failure:N", "always", "unless-stopped". 0, or -EINVAL with *err. */
int policy_parse(struct policy *out, const char *text, struct error **err);

/* How a guest ended that its policy is asked about. */
struct policy_end {
    int exit_status;
    uint64_t ran_ns;   /* how long it had been running */
    uint64_t in_a_row; /* restarts of runs that all were short */
};

/* Whether it is to be started again, and then after how many ns: longer each time in a row. */
bool policy_restarts(const struct policy *policy, const struct policy_end *end, uint64_t *delay_ns);

/* How much may be told of what a guest, or who has taken over its VM process, can make happen without end.
 * Begins as {0}. */
struct policy_telling {
    uint64_t told; /* CLOCK_MONOTONIC, ns: when what was told so far is paid off */
    uint64_t left_out;
};

/* Whether one more may be told at `now`: some at once, then one a second. If not, it is counted in left_out.
 */
bool policy_may_tell(struct policy_telling *telling, uint64_t now);

/* A run of this length or more ends a row. */
#define POLICY_LONG_RUN_NS 10000000000ull

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Has the agent in a guest (qemu-guest-agent, by the port AGENT_PORT) freeze the guest's file systems and
 * thaw them again. What it says is the guest's, so it may be anything, or nothing: there is a limit for each
 * answer. Called by vm.c, in the loop's thread; no locks.
 */
#ifndef TABIQUE_MACHINE_AGENT_H
#define TABIQUE_MACHINE_AGENT_H

#include "device/char.h"
#include "machine/agent_answer.h"

#include <stdbool.h>
#include <stdint.h>

struct error;
struct loop;
struct loop_timer;

#define AGENT_PORT "org.qemu.guest_agent.0"

/* How long an agent may take. Freezing writes all that the guest has cached. */
#define AGENT_SYNC_NS   (2 * 1000000000ull)
#define AGENT_FREEZE_NS (15 * 1000000000ull)
#define AGENT_THAW_NS   (5 * 1000000000ull)

enum agent_state { AGENT_IDLE, AGENT_SYNCING, AGENT_FREEZING, AGENT_THAWING, AGENT_ASKING };

struct agent {
    struct char_backend port; /* to be given to the device */
    struct loop_timer *timer;
    enum agent_state state;
    uint64_t until;
    int64_t id; /* of the last synchronization */
    bool marked;
    struct agent_line line;
    bool answered;
    struct agent_answer answer;
    char out[256]; /* what the port has not taken yet */
    size_t out_len;
    /* `why`: NULL, or why it was not done. `n`: the file systems that were. Not from within agent_freeze and
     * agent_thaw. */
    void (*done)(void *opaque, bool thaw, uint64_t n, const char *why);
    void *opaque;
};

/* 0 or -errno with *err; agent_close is due in both cases, after the device has gone. */
int agent_open(struct agent *agent, struct loop *loop,
               void (*done)(void *opaque, bool thaw, uint64_t n, const char *why), void *opaque,
               struct error **err);
void agent_close(struct agent *agent);

/* Whether a program in the guest has the port open. */
bool agent_is_there(const struct agent *agent);
/* Begins; `done` tells how it went. What is not frozen for certain when it fails is thawed. One at a time. */
void agent_freeze(struct agent *agent);
void agent_thaw(struct agent *agent);

#endif

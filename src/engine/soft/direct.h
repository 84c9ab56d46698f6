/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Direct execution: user code that computes runs on the host's processor itself, in a stub process that
 * mirrors the guest's address space (direct_space.h), until it calls its kernel, faults, or an interrupt
 * comes. The translator then executes the one instruction that stopped it, as it would have without us, so
 * nothing of the architecture's is decided here.
 *
 * Going there and back costs some microseconds: only code that stays in user mode for longer between two
 * entries of its kernel is sent. Where the host does not permit stubs, everything is translated.
 *
 * All functions but soft_direct_probe and soft_direct_kick are for the vCPU's thread.
 */
#ifndef TABIQUE_ENGINE_SOFT_DIRECT_H
#define TABIQUE_ENGINE_SOFT_DIRECT_H

#include "engine/soft/vcpu.h"

struct error;

/* Whether this host permits stubs: makes one and ends it. 0, or -errno with *err. Any thread that may fork.
 */
int soft_direct_probe(struct error **err);

/* Makes the vCPU's stubs; c->direct stays NULL where the host does not permit it. Before the thread's list of
 * system calls is narrowed. 0, or -errno with *err telling why everything will be translated. */
int soft_direct_start(struct soft_vcpu *c, struct error **err);
void soft_direct_end(struct soft_vcpu *c);

/* The vCPU has gone from user to kernel mode, or back. `interrupted`: by something that its code has not
 * caused. */
void soft_direct_mode_changed(struct soft_vcpu *c, bool interrupted);
static inline void soft_direct_note(struct soft_vcpu *c, bool interrupted)
{
    if (c->direct && (c->cpl == 3) != c->direct_user)
        soft_direct_mode_changed(c, interrupted);
}

/* Whether soft_direct_due is to be asked before user code goes on. */
bool soft_direct_asks(const struct soft_vcpu *c);
/* Whether the code at RIP is to run in a stub now. */
bool soft_direct_due(struct soft_vcpu *c);
/* Whether the translator is to execute one instruction first, the one that has stopped it there. Asked once.
 */
bool soft_direct_left_one(struct soft_vcpu *c);
/* Runs it; RIP is then where the translator goes on. SOFT_JUMP, or SOFT_FAULT with c->fault. */
int soft_direct_run(struct soft_vcpu *c);

/* Now and then while others than stubs run: gives back what serves these alone. */
void soft_direct_rest(struct soft_vcpu *c);

/* Any thread, after `pending` has been set: out of the stub. */
void soft_direct_kick(struct soft_vcpu *c);

#endif

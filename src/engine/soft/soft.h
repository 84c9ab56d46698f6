/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The soft engine's face beside its row in engine_classes: a bare processor for tests, without threads,
 * devices and interrupt controllers.
 */
#ifndef TABIQUE_ENGINE_SOFT_SOFT_H
#define TABIQUE_ENGINE_SOFT_SOFT_H

#include "engine/engine.h"
#include "engine/soft/vcpu.h"

extern const struct engine_class soft_engine_class;

/* What to do without on the host's processor, for the test that compares both ways. */
#define SOFT_WITHOUT_PEXT 1u

/*
 * One vCPU over `mem` (borrowed), run by the calling thread, which must be the only one to use it:
 * soft_test_create sets that thread's gs base. 0 or -errno with *err.
 */
int soft_test_create(struct soft **out, struct guest_memory *mem, struct error **err);
int soft_test_create_without(struct soft **out, struct guest_memory *mem, unsigned without,
                             struct error **err);
void soft_test_destroy(struct soft *s);

struct soft_vcpu *soft_vcpu(struct soft *s, unsigned n);

/*
 * Execute exactly one instruction at c->rip through translation: SOFT_JUMP when done (c->rip is the next
 * one), SOFT_FAULT with c->fault, not delivered. A REP string instruction may need several calls, with c->rip
 * unchanged in between.
 */
int soft_step(struct soft_vcpu *c);
/* The same for whatever is translated as one block, and those it is linked to. */
int soft_run_block(struct soft_vcpu *c);
/* Drop translations of guest-physical memory that was changed from outside. */
void soft_invalidate_code(struct soft *s, uint64_t gpa, uint64_t len);

#endif

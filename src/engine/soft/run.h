/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The dispatcher's face to the engine: one loop a vCPU. */
#ifndef TABIQUE_ENGINE_SOFT_RUN_H
#define TABIQUE_ENGINE_SOFT_RUN_H

struct soft;
struct soft_vcpu;

/* Runs the vCPU until soft->quit; to be called in its thread after soft_signals_thread_start. */
void soft_vcpu_loop(struct soft_vcpu *c);
/* The same for a vCPU that can't run: it answers pause and the end. */
void soft_vcpu_park(struct soft_vcpu *c);

/* ---- soft.c: what the dispatcher asks of the engine ---- */
/* The vector of the 8259's interrupt, acknowledged; -1 for none. */
int soft_extint(struct soft *s);

#endif

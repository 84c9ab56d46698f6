/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making and ending a struct soft: soft.c, for soft_engine.c. */
#ifndef TABIQUE_ENGINE_SOFT_SOFT_CORE_H
#define TABIQUE_ENGINE_SOFT_SOFT_CORE_H

#include "engine/soft/soft_priv.h"

/* Fills in a zeroed *s with `cpus` vCPUs in reset state. `without`: SOFT_WITHOUT_ bits. On failure too
 * soft_core_fini. */
int soft_core_init(struct soft *s, struct guest_memory *memory, unsigned cpus, uint64_t tsc_hz,
                   unsigned without, struct error **err);
void soft_core_fini(struct soft *s);

/* The MSRs that struct cpu_state does not hold, as after RESET (INIT leaves them). The vCPU does not run. */
void soft_reset_msrs(struct soft_vcpu *c);

#endif

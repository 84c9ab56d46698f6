/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Looks at the vCPUs now and then, for as long as somebody asks. The machine's thread asks each vCPU, which
 * tells where it is at its next poll: at a backward or an indirect branch, or when it leaves code that runs
 * directly.
 */
#ifndef TABIQUE_ENGINE_SOFT_PROFILE_H
#define TABIQUE_ENGINE_SOFT_PROFILE_H

#include "engine/profile.h"
#include "engine/soft/vcpu.h"

struct soft_exit;

/* ---- the machine's thread ---- */

/* 0 with s->profile, or -ENOMEM. */
int soft_profile_create(struct soft *s);
void soft_profile_free(struct soft *s);
/* Gives what there is, and goes on looking `hz` times a second, for some seconds. */
void soft_profile_read(struct soft *s, unsigned hz, struct engine_profile *out);

/* ---- the vCPU's thread ---- */

/* It has left translated code by the indirect branch `exit` with a look outstanding: the place to tell is the
 * branch, not where it leads. */
void soft_profile_branched(struct soft_vcpu *c, const struct soft_exit *exit);
/* Serves REQUEST_SAMPLE. */
void soft_profile_take(struct soft_vcpu *c);

#endif

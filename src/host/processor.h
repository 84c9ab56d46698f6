/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the host's processor says of itself, as the engines see it: one place, which tests put another in. */
#ifndef TABIQUE_HOST_PROCESSOR_H
#define TABIQUE_HOST_PROCESSOR_H

#include <stdint.h>

/* CPUID: EAX, EBX, ECX and EDX; zeros for a leaf that it has not. */
void processor_leaf(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

/* The state components that the host's kernel has enabled; 0 without XSAVE. */
uint64_t processor_xcr0(void);

#endif

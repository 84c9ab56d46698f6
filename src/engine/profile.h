/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a guest's processors are found when they are looked at now and then. Filled in by an engine's
 * `profile`, carried to the supervisor in a message, and written down by the verb `profile`.
 */
#ifndef TABIQUE_ENGINE_PROFILE_H
#define TABIQUE_ENGINE_PROFILE_H

#include <stdbool.h>
#include <stdint.h>

#define ENGINE_PROFILE_HZ_MAX 1000u
#define ENGINE_STACK_MAX      24u
#define ENGINE_SAMPLES_MAX    24u /* in one answer */

struct engine_sample {
    uint64_t time; /* CLOCK_MONOTONIC, ns */
    uint64_t cr3;
    uint32_t weight;  /* so many looks that found the same */
    uint8_t cpu;      /* below ENGINE_MAX_CPUS */
    uint8_t activity; /* enum engine_activity, as the look found it */
    uint8_t cpl;
    uint8_t depth; /* of `stack`; 0: the processor was idle */
    /* Linear addresses: of the instruction, then, as far as they are known, to where calls will return. */
    uint64_t stack[ENGINE_STACK_MAX];
};

struct engine_profile {
    uint32_t hz; /* how often it looks; 0: this engine does not */
    uint32_t n;
    bool more;              /* there are more samples already */
    uint64_t lost;          /* looks, since the last answer, for whose samples there was no room */
    uint64_t syscall_entry; /* IA32_LSTAR of the first processor: tells where a kernel has put itself */
    struct engine_sample samples[ENGINE_SAMPLES_MAX];
};

#endif

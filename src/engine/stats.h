/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an engine that executes instructions itself tells of its work. Filled in by its `stats`, carried to
 * the supervisor in a message, and shown by the verb `stats`.
 */
#ifndef TABIQUE_ENGINE_STATS_H
#define TABIQUE_ENGINE_STATS_H

#include <stdint.h>

#define ENGINE_MAX_CPUS 8

/* What a vCPU's thread is at. */
enum engine_activity {
    ENGINE_IDLE,        /* the guest has halted it, or is paused */
    ENGINE_TRANSLATED,  /* in translated code */
    ENGINE_DIRECT,      /* in the guest's own code, executed directly */
    ENGINE_TRANSLATING, /* making translated code */
    ENGINE_HELPING,     /* in other C: accesses and instructions without code, interrupts, finding code */
    ENGINE_ACTIVITIES,
};

/* What translated code was left for. */
enum engine_exit {
    ENGINE_EXIT_LINK,    /* a jump to code that it was not linked to */
    ENGINE_EXIT_LOOKUP,  /* an indirect jump's target was not in the jump cache, or something pends */
    ENGINE_EXIT_MODE,    /* after an instruction that may have changed the mode */
    ENGINE_EXIT_HANDLER, /* an instruction in C that does not go on behind itself */
    ENGINE_EXIT_FAULT,   /* an exception */
    ENGINE_EXITS,
};

/* What directly executed code stopped for. */
enum engine_stop {
    ENGINE_STOP_CALL,      /* a system call */
    ENGINE_STOP_MAP,       /* memory that it may have, and now has */
    ENGINE_STOP_FAULT,     /* an exception, or memory that only translated code reaches */
    ENGINE_STOP_PAGE,      /* code that must be translated, in between */
    ENGINE_STOP_INTERRUPT, /* something else came first */
    ENGINE_STOPS,
};

/* All since the engine was made, but for what the cache holds now. */
struct engine_stats {
    uint32_t cpus; /* 0: this engine tells nothing */
    struct engine_cpu_stats {
        /* How often it was found at what, 1000 times a second while somebody asks, but for the times that it
         * waited for a processor of the host; so ratios are times. */
        uint64_t samples[ENGINE_ACTIVITIES];
        uint64_t exits[ENGINE_EXITS];
        uint64_t stops[ENGINE_STOPS];
        uint64_t handlers;      /* instructions done in C */
        uint64_t slow_accesses; /* accesses to memory that were neither in the TLB nor plain RAM */
        uint64_t interrupts;    /* taken */
        uint64_t blocks;        /* translated */
    } cpu[ENGINE_MAX_CPUS];
    uint64_t cache_bytes, cache_used; /* room for code, and what of it is in use */
    uint64_t cache_blocks;            /* in it */
    uint64_t cache_flushes;           /* it was full, or the guest started anew: all was thrown away */
    char no_direct[160];              /* why no user code is executed directly; empty: it is */
};

#endif

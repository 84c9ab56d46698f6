/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mirror of one guest address space in a stub: pages are mapped when the guest's code first touches them,
 * with the rights of the guest's page tables, and what was mapped is remembered, so that after the guest has
 * flushed its TLB it can be compared with the tables as they are now. It is a TLB, then: larger than a
 * processor's, and the same rules hold for it.
 *
 * All functions are for the vCPU's thread.
 */
#ifndef TABIQUE_ENGINE_SOFT_DIRECT_SPACE_H
#define TABIQUE_ENGINE_SOFT_DIRECT_SPACE_H

#include "engine/soft/direct_stub.h"

#include <stdbool.h>
#include <stdint.h>

struct soft_vcpu;
struct direct_chunk;

#define DIRECT_BUCKETS 128u

/* A page of code that is mapped as a copy. */
struct direct_copy {
    struct direct_chunk *chunk;
    unsigned index;
    unsigned number; /* of those that the stub has room for */
    uint8_t *source; /* what it was made from, as it was then */
};

struct direct_space {
    struct direct_stub stub;
    uint64_t cr3;                /* page of the top table; UINT64_MAX: none yet */
    int cpu;                     /* of the host, where the stub is bound to; -1: not yet */
    uint64_t used;               /* when it was last entered, in TSC ticks */
    uint64_t refused;            /* address that its kernel has been asked for since; 0: none */
    uint64_t flush;              /* soft_vcpu.flushes when it was last compared */
    unsigned n_flushed;          /* and its n_flushed */
    uint64_t code;               /* soft.direct_code_pages, likewise */
    struct direct_chunk *chunks; /* room for all that there may be */
    struct direct_copy copies[STUB_COPIES];
    unsigned n_copies;
    unsigned n_chunks, n_areas;
    bool huge; /* some chunks are of pages of 1 GiB */
    struct direct_chunk *buckets[DIRECT_BUCKETS];
};

enum direct_resolve {
    DIRECT_MAPPED,  /* try again */
    DIRECT_REFUSED, /* the guest's tables do not permit it, or it is no plain memory */
    DIRECT_NO_CODE, /* the page holds instructions that must not be executed by the host */
    DIRECT_BROKEN,  /* the stub can't be used any more */
};

/* With a stub, for the calling thread; a failed one needs no direct_space_free. 0 or -errno with *err. */
int direct_space_create(struct direct_space *space, int memory_fd, struct error **err);
void direct_space_free(struct direct_space *space);
/* Give the stub to another address space. 0 or -errno (the stub is of no more use). */
int direct_space_assign(struct direct_space *space, uint64_t cr3);
/* Take back what the guest's page tables or code pages no longer permit, and map what the code has waited
 * for. Before every entry. 0 or -errno. */
int direct_space_validate(struct direct_space *space, struct soft_vcpu *c);
/* The code at `rip` could not go on for the sake of `address`: map its page. */
enum direct_resolve direct_space_resolve(struct direct_space *space, struct soft_vcpu *c, uint64_t rip,
                                         uint64_t address);

#endif

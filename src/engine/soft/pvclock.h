/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The KVM paravirtual clock (Linux Documentation/virt/kvm/x86/msr.rst) of the soft engine: per vCPU a record
 * in guest memory from which the guest computes the time since the machine's start out of its TSC.
 *
 * All vCPUs always have the same line from host TSC to nanoseconds. It follows the host's CLOCK_MONOTONIC by
 * small changes of its slope and is continuous, so the guest's time never steps back, on no vCPU.
 *
 * One leaf lock; the guest memory's `written` callback runs with it held. Any thread.
 */
#ifndef TABIQUE_ENGINE_SOFT_PVCLOCK_H
#define TABIQUE_ENGINE_SOFT_PVCLOCK_H

#include <stdbool.h>
#include <stdint.h>

struct guest_memory;
struct pvclock;

#define PVCLOCK_MAX_CPUS 8

#define PVCLOCK_MSR_WALL_CLOCK_OLD  0x11u
#define PVCLOCK_MSR_SYSTEM_TIME_OLD 0x12u
#define PVCLOCK_MSR_WALL_CLOCK      0x4b564d00u
#define PVCLOCK_MSR_SYSTEM_TIME     0x4b564d01u

/* Where time comes from. Tests have their own; NULL members mean the host's clocks. */
struct pvclock_source {
    /* The host's TSC and CLOCK_MONOTONIC (ns) at one moment. */
    void (*sample)(void *opaque, uint64_t *tsc, uint64_t *monotonic);
    /* ns since the epoch, UTC */
    uint64_t (*realtime)(void *opaque);
    void *opaque;
};

struct pvclock_config {
    unsigned cpus; /* 1..PVCLOCK_MAX_CPUS */
    struct guest_memory *memory;
    uint64_t tsc_hz; /* what is known at the start: tsc_frequency() */
    bool stable;     /* the host's TSC is the same everywhere: tsc_is_invariant() */
    /* Guest TSC less host TSC of a vCPU. Any thread. */
    uint64_t (*tsc_offset)(void *opaque, unsigned cpu);
    void *opaque;
    struct pvclock_source source;
};

/* 0, -EINVAL or -ENOMEM. The guest's time starts at 0. */
int pvclock_create(struct pvclock **out, const struct pvclock_config *config);
/* NULL is fine. */
void pvclock_free(struct pvclock *p);

/* After power-on: nothing is written any more, and time starts at 0 again. */
void pvclock_reset(struct pvclock *p);

/* RDMSR and WRMSR of the four registers above by vCPU `cpu`. 0, or -EINVAL (#GP) for any other. An address
 * that is not RAM, or not a multiple of 4, switches the clock off. */
int pvclock_msr_read(struct pvclock *p, unsigned cpu, uint32_t msr, uint64_t *value);
int pvclock_msr_write(struct pvclock *p, unsigned cpu, uint32_t msr, uint64_t value);

/* Follows CLOCK_MONOTONIC: to be called about once a second, from any thread. */
void pvclock_refresh(struct pvclock *p);

/* The TSC offset of a vCPU has changed. */
void pvclock_tsc_changed(struct pvclock *p);

/* ns since the start, as a guest computes them now. */
uint64_t pvclock_now(struct pvclock *p);

#endif

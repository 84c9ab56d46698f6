/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host's time stamp counter against its CLOCK_MONOTONIC: pairs of readings, and the counter's frequency,
 * which guests are told and never measure. Used by the soft engine. Any thread.
 */
#ifndef TABIQUE_HOST_TSC_H
#define TABIQUE_HOST_TSC_H

#include <stdbool.h>
#include <stdint.h>

/* One moment on both clocks. */
struct tsc_sample {
    uint64_t tsc;
    uint64_t monotonic; /* ns of CLOCK_MONOTONIC */
};

/* Reads both clocks together, to some ten nanoseconds even if the thread is interrupted. */
void tsc_sample_take(struct tsc_sample *sample);

/* Ticks a second (of CLOCK_MONOTONIC) between two samples, rounded; 0 if `b` is not after `a`. */
uint64_t tsc_frequency_between(const struct tsc_sample *a, const struct tsc_sample *b);

/*
 * The frequency in Hz, as exactly as it can be had soon: what the processor or the hypervisor says (if a
 * measurement of 1 ms agrees), else measured for 5 ms, to some parts in a million. The first call takes that
 * long, less what has passed since tsc_frequency_prepare; later calls give the same number at once. Whoever
 * needs more follows it with samples, as the paravirtual clock does.
 */
uint64_t tsc_frequency(void);

/* Starts the measurement, so that other work at program start overlaps with it. Optional. */
void tsc_frequency_prepare(void);

/* Whether the counter runs at one rate on all processors, whatever their power states (CPUID 0x80000007). */
bool tsc_is_invariant(void);

#endif

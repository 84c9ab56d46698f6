/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The time stamp counter's frequency (SDM vol. 3B 18.7.3). `lock` guards the first sample and the result. */
#include "host/tsc.h"

#include "base/cleanup.h"

#include <cpuid.h>
#include <pthread.h>
#include <time.h>
#include <x86intrin.h>

#define NS_PER_SECOND 1000000000ull

#define MEASURE_NS 5000000ull /* without a number from the processor: right to some parts in a million */
#define VERIFY_NS  1000000ull /* to check one */

/* A number from the processor counts if it is this close to the measured one: the measurement's own error,
 * and what NTP may add to CLOCK_MONOTONIC (500 parts in a million). */
#define TRUST_PPM 700

#define SAMPLE_TRIES 7

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct tsc_sample first;
static uint64_t frequency;

/* The reading that took the fewest ticks was not interrupted. */
void tsc_sample_take(struct tsc_sample *sample)
{
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < SAMPLE_TRIES; i++) {
        struct timespec ts;
        uint64_t before = __rdtsc();
        clock_gettime(CLOCK_MONOTONIC, &ts);
        unsigned aux;
        uint64_t after = __rdtscp(&aux);
        if (after - before >= best)
            continue;
        best = after - before;
        sample->tsc = before + best / 2;
        sample->monotonic = (uint64_t)ts.tv_sec * NS_PER_SECOND + (uint64_t)ts.tv_nsec;
    }
}

uint64_t tsc_frequency_between(const struct tsc_sample *a, const struct tsc_sample *b)
{
    if (b->monotonic <= a->monotonic || b->tsc <= a->tsc)
        return 0;
    uint64_t ns = b->monotonic - a->monotonic;
    unsigned __int128 ticks = (unsigned __int128)(b->tsc - a->tsc) * NS_PER_SECOND;
    return (uint64_t)((ticks + ns / 2) / ns);
}

/* What CPUID says, or 0: the hypervisor's leaf (kHz in EAX), or crystal and ratio. */
static uint64_t announced(void)
{
    unsigned a, b, c, d;

    __cpuid(1, a, b, c, d);
    if (c & (1u << 31)) {
        __cpuid(0x40000000, a, b, c, d);
        if (a >= 0x40000010 && a < 0x40010000) {
            __cpuid(0x40000010, a, b, c, d);
            if (a)
                return (uint64_t)a * 1000;
        }
    }
    if (__get_cpuid_count(0x15, 0, &a, &b, &c, &d) && a && b && c)
        return (uint64_t)c * b / a;
    return 0;
}

static uint64_t measure_locked(uint64_t ns)
{
    struct tsc_sample now;

    tsc_sample_take(&now);
    uint64_t passed = now.monotonic - first.monotonic;
    if (passed < ns) {
        struct timespec ts = {.tv_nsec = (long)(ns - passed)};
        while (clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, &ts) != 0)
            ;
        tsc_sample_take(&now);
    }
    return tsc_frequency_between(&first, &now);
}

static bool close_enough(uint64_t a, uint64_t b)
{
    uint64_t apart = a > b ? a - b : b - a;
    return apart < b / 1000000 * TRUST_PPM;
}

static void prepare_locked(void)
{
    if (!first.tsc)
        tsc_sample_take(&first);
}

void tsc_frequency_prepare(void)
{
    LOCK_SCOPE(&lock);
    prepare_locked();
}

uint64_t tsc_frequency(void)
{
    LOCK_SCOPE(&lock);
    if (frequency)
        return frequency;
    prepare_locked();
    uint64_t said = announced();
    if (said && close_enough(measure_locked(VERIFY_NS), said))
        frequency = said;
    else
        frequency = measure_locked(MEASURE_NS);
    return frequency;
}

bool tsc_is_invariant(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & (1u << 8));
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The KVM paravirtual clock. Called by vCPUs (registers) and by a timer of the engine (refresh); `lock`
 * guards everything.
 *
 * A guest may read the record of another vCPU at any time (Linux's vDSO reads vCPU 0's everywhere), and
 * compares times of different vCPUs. So a change makes all records unreadable (odd version) before it writes
 * the first and readable only after it has written the last: no two vCPUs ever use different lines.
 */
#include "engine/soft/pvclock.h"

#include "base/cleanup.h"
#include "device/guest_memory.h"
#include "host/tsc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NS_PER_SECOND 1000000000ull

/* Record of MSR_KVM_SYSTEM_TIME_NEW; time = system_time + ((ticks << shift) * mul >> 32), the shift to the
 * right where it is negative. */
struct vcpu_time {
    uint32_t version; /* odd: being written */
    uint32_t pad0;
    uint64_t tsc_timestamp;
    uint64_t system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags;
    uint8_t pad[2];
} __attribute__((packed, aligned(4))); /* guests need align it no better */
_Static_assert(sizeof(struct vcpu_time) == 32, "layout of pvclock_vcpu_time_info");
#define FLAG_TSC_STABLE 1u

/* Record of MSR_KVM_WALL_CLOCK_NEW: the time of day when the guest's time was 0. */
struct wall_clock {
    uint32_t version;
    uint32_t sec;
    uint32_t nsec;
};

#define MSR_ENABLE 1ull

/* The slope changes by at most this much to catch up, and by more if it is far off. */
#define SLEW_SMALL   500e-6
#define SLEW_LARGE   5000e-6
#define FAR_OFF_NS   5e6
#define STEP_NS      100e6 /* behind by this much (the host slept): step forward */
#define HORIZON_NS   2e9   /* an error should be gone after this time */
#define IGNORE_NS    1000.0
#define IGNORE_SLOPE 0.2e-6

/* The TSC's rate is measured over at least the first, at most the second. */
#define WINDOW_MIN_NS 500000000ull
#define WINDOW_MAX_NS 16000000000ull
#define RATE_JUMP     1000e-6
#define RATE_AGREE    100e-6

/* Guest time as a function of the host's TSC. */
struct line {
    uint64_t tsc;
    uint64_t ns;
    uint32_t mul;
    int8_t shift;
};

struct pvclock {
    struct pvclock_config config;
    pthread_mutex_t lock;
    uint64_t start; /* CLOCK_MONOTONIC when the guest's time was 0 */
    struct line line;
    double ns_per_tick; /* of the TSC, as measured */
    double rejected;    /* the last rate that was not believed, or 0 */
    struct tsc_sample window;
    uint64_t wall_msr;
    uint64_t time_msr[PVCLOCK_MAX_CPUS];
    struct vcpu_time *record[PVCLOCK_MAX_CPUS]; /* in guest memory; NULL: off */
};

/* ---- time ---- */

static struct tsc_sample sample(const struct pvclock *p)
{
    struct tsc_sample s;
    if (p->config.source.sample)
        p->config.source.sample(p->config.source.opaque, &s.tsc, &s.monotonic);
    else
        tsc_sample_take(&s);
    return s;
}

static uint64_t realtime(const struct pvclock *p)
{
    if (p->config.source.realtime)
        return p->config.source.realtime(p->config.source.opaque);
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_SECOND + (uint64_t)ts.tv_nsec;
}

/* Exactly as a guest computes it; but a TSC that went back (the host was moved, or slept) stops here. */
static uint64_t line_at(const struct line *l, uint64_t tsc)
{
    uint64_t ticks = tsc < l->tsc ? 0 : tsc - l->tsc;
    ticks = l->shift < 0 ? ticks >> -l->shift : ticks << l->shift;
    return l->ns + (uint64_t)(((unsigned __int128)ticks * l->mul) >> 32);
}

/* The multiplier gets all its 32 bits: slope = mul * 2^(shift-32), mul at least 2^31. */
static void line_set_slope(struct line *l, double ns_per_tick)
{
    int shift = 0;
    while (ns_per_tick >= 1.0 && shift < 31) {
        ns_per_tick /= 2;
        shift++;
    }
    while (ns_per_tick < 0.5 && shift > -31) {
        ns_per_tick *= 2;
        shift--;
    }
    double mul = ns_per_tick * 4294967296.0 + 0.5;
    l->mul = mul >= 4294967295.0 ? UINT32_MAX : (uint32_t)mul;
    l->shift = (int8_t)shift;
}

static double line_slope(const struct line *l)
{
    double slope = l->mul / 4294967296.0;
    for (int i = 0; i < l->shift; i++)
        slope *= 2;
    for (int i = 0; i > l->shift; i--)
        slope /= 2;
    return slope;
}

static void start_locked(struct pvclock *p)
{
    struct tsc_sample now = sample(p);

    p->start = now.monotonic;
    p->window = now;
    p->line = (struct line){.tsc = now.tsc};
    line_set_slope(&p->line, p->ns_per_tick);
}

/* ---- records in guest memory ---- */

static void version_store(uint32_t *version, uint32_t value)
{
    __atomic_store_n(version, value, __ATOMIC_SEQ_CST);
}

static void record_close(struct vcpu_time *r)
{
    version_store(&r->version, __atomic_load_n(&r->version, __ATOMIC_RELAXED) | 1);
}

static void record_open(struct vcpu_time *r)
{
    version_store(&r->version, (__atomic_load_n(&r->version, __ATOMIC_RELAXED) | 1) + 1);
}

/* With one offset for all vCPUs their TSCs are one clock, and guests need not compare. */
static uint8_t flags_locked(const struct pvclock *p)
{
    if (!p->config.stable)
        return 0;
    uint64_t offset = p->config.tsc_offset(p->config.opaque, 0);
    for (unsigned cpu = 1; cpu < p->config.cpus; cpu++) {
        if (p->config.tsc_offset(p->config.opaque, cpu) != offset)
            return 0;
    }
    return FLAG_TSC_STABLE;
}

static void publish_locked(struct pvclock *p)
{
    uint8_t flags = flags_locked(p);

    for (unsigned cpu = 0; cpu < p->config.cpus; cpu++) {
        if (p->record[cpu])
            record_close(p->record[cpu]);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (unsigned cpu = 0; cpu < p->config.cpus; cpu++) {
        struct vcpu_time *r = p->record[cpu];
        if (!r)
            continue;
        struct vcpu_time new = {
            .tsc_timestamp = p->line.tsc + p->config.tsc_offset(p->config.opaque, cpu),
            .system_time = p->line.ns,
            .tsc_to_system_mul = p->line.mul,
            .tsc_shift = p->line.shift,
            .flags = flags,
        };
        memcpy((uint8_t *)r + 4, (uint8_t *)&new + 4, sizeof(new) - 4);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (unsigned cpu = 0; cpu < p->config.cpus; cpu++) {
        if (!p->record[cpu])
            continue;
        record_open(p->record[cpu]);
        guest_memory_mark_written(p->config.memory, p->time_msr[cpu] & ~MSR_ENABLE, sizeof(struct vcpu_time));
    }
}

static void write_wall_clock_locked(struct pvclock *p, uint64_t gpa)
{
    struct wall_clock *w = gpa & 3 ? NULL : guest_memory_at(p->config.memory, gpa, sizeof(*w));
    if (!w)
        return;
    struct tsc_sample now = sample(p);
    uint64_t at_start = realtime(p) - line_at(&p->line, now.tsc);
    uint32_t version = __atomic_load_n(&w->version, __ATOMIC_RELAXED) | 1;

    version_store(&w->version, version);
    __atomic_store_n(&w->sec, (uint32_t)(at_start / NS_PER_SECOND), __ATOMIC_RELAXED);
    __atomic_store_n(&w->nsec, (uint32_t)(at_start % NS_PER_SECOND), __ATOMIC_RELAXED);
    version_store(&w->version, version + 1);
    guest_memory_mark_written(p->config.memory, gpa, sizeof(*w));
}

/* ---- following CLOCK_MONOTONIC ---- */

static bool close_to(double a, double b, double tolerance)
{
    double ratio = a / b - 1;
    return ratio < tolerance && ratio > -tolerance;
}

/*
 * Measures the TSC's rate since the window's start, which moves on now and then. A jump of either clock would
 * look like another rate: one that differs much is believed when a second window says the same.
 */
static void measure_locked(struct pvclock *p, const struct tsc_sample *now)
{
    if (now->tsc <= p->window.tsc || now->monotonic <= p->window.monotonic) {
        p->window = *now;
        return;
    }
    uint64_t ns = now->monotonic - p->window.monotonic;
    if (ns < WINDOW_MIN_NS)
        return;
    double rate = (double)ns / (double)(now->tsc - p->window.tsc);
    bool plausible = close_to(rate, p->ns_per_tick, RATE_JUMP);
    if (plausible || (p->rejected > 0 && close_to(rate, p->rejected, RATE_AGREE))) {
        p->ns_per_tick = rate;
        p->rejected = 0;
    } else {
        p->rejected = rate;
    }
    if (!plausible || ns > WINDOW_MAX_NS)
        p->window = *now;
}

void pvclock_refresh(struct pvclock *p)
{
    LOCK_SCOPE(&p->lock);
    struct tsc_sample now = sample(p);
    double old_slope = line_slope(&p->line);
    struct line next = {.tsc = now.tsc, .ns = line_at(&p->line, now.tsc)};
    uint64_t target = now.monotonic - p->start;
    double error = (double)(int64_t)(target - next.ns);
    bool back = now.tsc < p->line.tsc;
    bool step = error > STEP_NS || back;

    measure_locked(p, &now);
    /* After a TSC that started anew nobody knows what the guest read last: at most what was tolerated. */
    if (step) {
        uint64_t ahead = target + (back ? (uint64_t)IGNORE_NS : 0);
        next.ns = ahead > next.ns ? ahead : next.ns;
        error = 0;
    }
    double limit = error > FAR_OFF_NS || error < -FAR_OFF_NS ? SLEW_LARGE : SLEW_SMALL;
    double slew = error / HORIZON_NS;
    slew = slew > limit ? limit : slew < -limit ? -limit : slew;
    double slope = p->ns_per_tick * (1 + slew);

    if (close_to(slope, old_slope, IGNORE_SLOPE) && error < IGNORE_NS && error > -IGNORE_NS && !step)
        return;
    line_set_slope(&next, slope);
    p->line = next;
    publish_locked(p);
}

void pvclock_tsc_changed(struct pvclock *p)
{
    LOCK_SCOPE(&p->lock);
    publish_locked(p);
}

uint64_t pvclock_now(struct pvclock *p)
{
    LOCK_SCOPE(&p->lock);
    struct tsc_sample now = sample(p);
    return line_at(&p->line, now.tsc);
}

/* ---- registers ---- */

int pvclock_msr_read(struct pvclock *p, unsigned cpu, uint32_t msr, uint64_t *value)
{
    LOCK_SCOPE(&p->lock);
    switch (msr) {
    case PVCLOCK_MSR_WALL_CLOCK:
    case PVCLOCK_MSR_WALL_CLOCK_OLD:
        *value = p->wall_msr;
        return 0;
    case PVCLOCK_MSR_SYSTEM_TIME:
    case PVCLOCK_MSR_SYSTEM_TIME_OLD:
        if (cpu >= p->config.cpus)
            return -EINVAL;
        *value = p->time_msr[cpu];
        return 0;
    default:
        return -EINVAL;
    }
}

static void set_record_locked(struct pvclock *p, unsigned cpu, uint64_t value)
{
    uint64_t gpa = value & ~MSR_ENABLE;

    p->time_msr[cpu] = value;
    p->record[cpu] = NULL;
    if (!(value & MSR_ENABLE) || (gpa & 3))
        return;
    p->record[cpu] = guest_memory_at(p->config.memory, gpa, sizeof(struct vcpu_time));
    if (p->record[cpu])
        publish_locked(p);
}

int pvclock_msr_write(struct pvclock *p, unsigned cpu, uint32_t msr, uint64_t value)
{
    LOCK_SCOPE(&p->lock);
    switch (msr) {
    case PVCLOCK_MSR_WALL_CLOCK:
    case PVCLOCK_MSR_WALL_CLOCK_OLD:
        p->wall_msr = value;
        write_wall_clock_locked(p, value);
        return 0;
    case PVCLOCK_MSR_SYSTEM_TIME:
    case PVCLOCK_MSR_SYSTEM_TIME_OLD:
        if (cpu >= p->config.cpus)
            return -EINVAL;
        set_record_locked(p, cpu, value);
        return 0;
    default:
        return -EINVAL;
    }
}

/* ---- making it ---- */

int pvclock_create(struct pvclock **out, const struct pvclock_config *config)
{
    if (!config->cpus || config->cpus > PVCLOCK_MAX_CPUS || !config->tsc_hz)
        return -EINVAL;
    struct pvclock *p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->config = *config;
    p->ns_per_tick = (double)NS_PER_SECOND / (double)config->tsc_hz;
    pthread_mutex_init(&p->lock, NULL);
    start_locked(p);
    *out = p;
    return 0;
}

void pvclock_free(struct pvclock *p)
{
    if (!p)
        return;
    pthread_mutex_destroy(&p->lock);
    free(p);
}

void pvclock_reset(struct pvclock *p)
{
    LOCK_SCOPE(&p->lock);
    p->wall_msr = 0;
    memset(p->time_msr, 0, sizeof(p->time_msr));
    memset(p->record, 0, sizeof(p->record));
    p->rejected = 0;
    start_locked(p);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The soft engine's row in the table of engines: threads, interrupt controllers and clock around the
 * processors of soft.c. Called by the machine's thread, but for irq_set and msi_send, which any thread calls.
 */
#include "engine/soft/soft.h"

#include "base/error.h"
#include "engine/soft/direct.h"
#include "engine/soft/irqchip.h"
#include "engine/soft/lapic.h"
#include "engine/soft/profile.h"
#include "engine/soft/pvclock.h"
#include "engine/soft/run.h"
#include "engine/soft/soft_core.h"
#include "host/confine.h"
#include "host/loop.h"
#include "host/thread.h"
#include "host/tsc.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static struct soft *soft_of(struct engine *engine)
{
    return (struct soft *)engine;
}

static int probe(struct error **err)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return error_set_errno(err, errno,
                               "this host does not allow memory that is writable and executable, which "
                               "translated code needs (SELinux: allow execmem)");
    munmap(p, 4096);
    return 0;
}

/* ---- interrupts ---- */

static void wake(void *opaque, unsigned cpu)
{
    struct soft *s = opaque;

    if (cpu < s->n_vcpus)
        soft_request(s->vcpu[cpu], REQUEST_INTERRUPT);
}

static uint64_t read_tsc(void *opaque, unsigned cpu)
{
    struct soft *s = opaque;

    return soft_read_tsc(s->vcpu[cpu]);
}

static void irq_set(struct engine *engine, unsigned gsi, bool level)
{
    irqchip_set(soft_of(engine)->irqchip, gsi, level);
}

static void msi_send(struct engine *engine, uint64_t address, uint32_t data)
{
    irqchip_msi(soft_of(engine)->irqchip, address, data);
}

int soft_extint(struct soft *s)
{
    return irqchip_acknowledge(s->irqchip);
}

/* ---- what the vCPUs are at ---- */

#define SAMPLE_PERIOD_NS 1000000ull
/* Whoever asks again within it sees no gap. */
#define SAMPLE_SPAN_NS 3000000000ull

static void sample_tick(void *opaque)
{
    struct soft *s = opaque;
    uint64_t now = loop_now();

    for (unsigned n = 0; n < s->n_threads; n++) {
        uint64_t activity = __atomic_load_n(&s->vcpu[n]->activity, __ATOMIC_RELAXED);
        struct timespec used = {0};

        /* On a busy host it may wait for a processor, at whatever it was: that is no time of the guest's. */
        clock_gettime(s->thread_clocks[n], &used);
        bool ran = used.tv_sec != s->thread_used[n].tv_sec || used.tv_nsec != s->thread_used[n].tv_nsec;
        s->thread_used[n] = used;
        if (ran || activity == ENGINE_IDLE || activity == ENGINE_DIRECT) /* a stub has its own time */
            s->vcpu[n]->stats.samples[activity]++;
    }
    if (now < s->sample_until)
        loop_timer_arm(s->sample_timer, now + SAMPLE_PERIOD_NS);
}

static void stats(struct engine *engine, struct engine_stats *out)
{
    struct soft *s = soft_of(engine);
    uint64_t now = loop_now();

    *out = (struct engine_stats){.cpus = s->n_vcpus,
                                 .cache_bytes = s->code_end - s->code_start + s->cold_end - s->cold_start};
    for (unsigned n = 0; n < s->n_vcpus; n++)
        out->cpu[n] = s->vcpu[n]->stats;
    snprintf(out->no_direct, sizeof(out->no_direct), "%s", s->no_direct);
    pthread_mutex_lock(&s->lock);
    out->cache_used = s->code_used - s->code_start + s->cold_used - s->cold_start;
    out->cache_blocks = s->n_blocks;
    out->cache_flushes = s->flushes;
    pthread_mutex_unlock(&s->lock);
    if (now >= s->sample_until)
        loop_timer_arm(s->sample_timer, now + SAMPLE_PERIOD_NS);
    s->sample_until = now + SAMPLE_SPAN_NS;
}

static void profile(struct engine *engine, unsigned hz, struct engine_profile *out)
{
    soft_profile_read(soft_of(engine), hz, out);
}

/* ---- time ---- */

/* Once a second, so that the guest's clock follows the host's. */
#define CLOCK_PERIOD_NS 1000000000ull

static void clock_tick(void *opaque)
{
    struct soft *s = opaque;

    pvclock_refresh(s->pvclock);
    loop_timer_arm(s->clock_timer, loop_now() + CLOCK_PERIOD_NS);
}

static uint64_t tsc_offset(void *opaque, unsigned cpu)
{
    struct soft *s = opaque;

    return s->vcpu[cpu]->tsc_offset;
}

static int make_clock(struct soft *s, struct error **err)
{
    struct pvclock_config clock = {.cpus = s->n_vcpus,
                                   .memory = s->memory,
                                   .tsc_hz = s->tsc_hz,
                                   .stable = tsc_is_invariant(),
                                   .tsc_offset = tsc_offset,
                                   .opaque = s};
    int rc = pvclock_create(&s->pvclock, &clock);

    if (rc < 0)
        return error_set_errno(err, -rc, "paravirtual clock");
    s->clock_timer = loop_timer_new(s->config.loop, clock_tick, s);
    s->sample_timer = loop_timer_new(s->config.loop, sample_tick, s);
    if (!s->clock_timer || !s->sample_timer || soft_profile_create(s) < 0)
        return error_set_errno(err, ENOMEM, "timers");
    loop_timer_arm(s->clock_timer, loop_now() + CLOCK_PERIOD_NS);
    return 0;
}

/* ---- memory that devices write ---- */

static void written(void *opaque, uint64_t gpa, uint64_t len)
{
    soft_cache_written(opaque, gpa, len);
}

/* ---- life ---- */

static void destroy(struct engine *engine)
{
    struct soft *s = soft_of(engine);

    if (!s)
        return;
    pthread_mutex_lock(&s->run_lock);
    s->quit = true;
    s->stopping = false;
    pthread_cond_broadcast(&s->run_cond);
    pthread_mutex_unlock(&s->run_lock);
    for (unsigned n = 0; n < s->n_threads; n++) {
        soft_request(s->vcpu[n], REQUEST_STOP);
        pthread_join(s->threads[n], NULL);
    }
    if (s->memory)
        s->memory->written = NULL;
    loop_timer_free(s->clock_timer);
    loop_timer_free(s->sample_timer);
    soft_profile_free(s);
    pvclock_free(s->pvclock);
    irqchip_free(s->irqchip);
    soft_core_fini(s);
    free(s);
}

static int make_chips(struct soft *s, struct error **err)
{
    const struct engine_config *config = &s->config;
    struct lapic_callbacks callbacks = {.wake = wake, .read_tsc = read_tsc, .tsc_hz = s->tsc_hz, .opaque = s};
    int rc =
        irqchip_create(&s->irqchip, config->cpus, config->pio, config->mmio, config->loop, &callbacks, err);

    if (rc < 0)
        return rc;
    for (unsigned n = 0; n < s->n_vcpus; n++)
        s->vcpu[n]->lapic = irqchip_lapic(s->irqchip, n);
    return make_clock(s, err);
}

static void *vcpu_thread(void *opaque)
{
    struct soft_vcpu *c = opaque;
    cleanup_error struct error *err = NULL, *why = NULL;
    char name[16];

    snprintf(name, sizeof(name), "vcpu%u", c->index);
    pthread_setname_np(pthread_self(), name);
    int rc = soft_signals_thread_start(c, &err);
    if (rc == 0 && soft_direct_start(c, &why) < 0) /* slower, but everything works */
        snprintf(c->soft->no_direct, sizeof(c->soft->no_direct), "%s", error_message(why));
    if (rc == 0) {
        rc = confine_thread(CONFINE_VCPU_SOFT);
        if (rc < 0)
            error_set_errno(&err, -rc, "vCPU %u: list of system calls", c->index);
    }
    if (rc < 0) {
        snprintf(c->soft->failure, sizeof(c->soft->failure), "%s", error_message(err));
        c->soft->config.event(c->soft->config.opaque, MACHINE_ENGINE_FAILED, 0);
        soft_vcpu_park(c);
        return NULL;
    }
    soft_vcpu_loop(c);
    soft_direct_end(c);
    soft_signals_thread_end(c);
    return NULL;
}

/* They stop before their first instruction. A confined process makes no threads later. */
static int start_threads(struct soft *s, struct error **err)
{
    sigset_t all, old;

    /* Signals to the process are the main thread's; those of translated code can't be blocked anyway. */
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = 0;
    while (rc == 0 && s->n_threads < s->n_vcpus) {
        soft_request(s->vcpu[s->n_threads], REQUEST_STOP);
        rc = thread_start(&s->threads[s->n_threads], vcpu_thread, s->vcpu[s->n_threads]);
        if (rc == 0) {
            unsigned n = s->n_threads++;
            rc = -pthread_getcpuclockid(s->threads[n], &s->thread_clocks[n]);
        }
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_mutex_lock(&s->run_lock);
    while (s->n_stopped < s->n_threads)
        pthread_cond_wait(&s->run_cond, &s->run_lock);
    pthread_mutex_unlock(&s->run_lock);
    return rc ? error_set_errno(err, -rc, "vCPU %u: thread", s->n_threads) : 0;
}

static int create(struct engine **out, const struct engine_config *config, struct error **err)
{
    if (config->cpus < 1 || config->cpus > ENGINE_MAX_CPUS)
        return error_set(err, EINVAL, "%u vCPUs: choose from 1 to %u", config->cpus, ENGINE_MAX_CPUS);
    struct soft *s = calloc(1, sizeof(*s));
    if (!s)
        return error_set_errno(err, ENOMEM, "soft engine");
    s->engine.class = &soft_engine_class;
    s->config = *config;
    s->stopping = true;
    int rc = soft_core_init(s, config->memory, config->cpus, tsc_frequency(), 0, err);
    if (rc == 0)
        rc = make_chips(s, err);
    if (rc == 0)
        rc = start_threads(s, err);
    if (rc < 0) {
        destroy(&s->engine);
        return error_wrap(err, "engine 'soft'");
    }
    config->memory->written = written;
    config->memory->written_opaque = s;
    *out = &s->engine;
    return 0;
}

static int resume(struct engine *engine, struct error **err)
{
    struct soft *s = soft_of(engine);

    pthread_mutex_lock(&s->run_lock);
    s->stopping = false;
    pthread_cond_broadcast(&s->run_cond);
    pthread_mutex_unlock(&s->run_lock);
    return 0;
}

static void pause_all(struct engine *engine)
{
    struct soft *s = soft_of(engine);

    pthread_mutex_lock(&s->run_lock);
    s->stopping = true;
    for (unsigned n = 0; n < s->n_threads; n++)
        soft_request(s->vcpu[n], REQUEST_STOP);
    while (s->n_stopped < s->n_threads)
        pthread_cond_wait(&s->run_cond, &s->run_lock);
    pthread_mutex_unlock(&s->run_lock);
}

static int reset(struct engine *engine, struct error **err)
{
    struct soft *s = soft_of(engine);

    irqchip_reset(s->irqchip);
    pvclock_reset(s->pvclock);
    for (unsigned n = 0; n < s->n_vcpus; n++) {
        struct cpu_state state;
        cpu_state_reset(&state, n == 0);
        soft_reset_msrs(s->vcpu[n]);
        soft_set_state(s->vcpu[n], &state);
        s->vcpu[n]->nmi_pending = false;
        atomic_fetch_and(&s->vcpu[n]->requests, ~(uint32_t)REQUEST_INTERRUPT);
    }
    /* What was translated goes too: the machine loads the guest anew. */
    pthread_mutex_lock(&s->lock);
    soft_cache_flush_locked(s);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static int set_state(struct engine *engine, unsigned cpu, const struct cpu_state *state, struct error **err)
{
    struct soft *s = soft_of(engine);

    if (cpu >= s->n_vcpus)
        return error_set(err, EINVAL, "no vCPU %u", cpu);
    soft_set_state(s->vcpu[cpu], state);
    return 0;
}

static int get_state(struct engine *engine, unsigned cpu, struct cpu_state *state, struct error **err)
{
    struct soft *s = soft_of(engine);

    if (cpu >= s->n_vcpus)
        return error_set(err, EINVAL, "no vCPU %u", cpu);
    soft_get_state(s->vcpu[cpu], state);
    return 0;
}

static const char *failure(struct engine *engine)
{
    const struct soft *s = soft_of(engine);

    return s->failure[0] ? s->failure : NULL;
}

const struct engine_class soft_engine_class = {
    .name = "soft",
    .summary = "binary translation: needs no hardware virtualization",
    .probe = probe,
    .probe_direct = soft_direct_probe,
    .create = create,
    .destroy = destroy,
    .resume = resume,
    .pause = pause_all,
    .reset = reset,
    .set_state = set_state,
    .get_state = get_state,
    .irq_set = irq_set,
    .msi_send = msi_send,
    .failure = failure,
    .stats = stats,
    .profile = profile,
};

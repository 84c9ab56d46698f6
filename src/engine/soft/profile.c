/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Samples of what the guest executes: profile.h. The ring and what is beside it are under its lock; the timer
 * is the machine's thread's.
 */
#include "engine/soft/profile.h"

#include "engine/soft/paging.h"
#include "engine/soft/soft_priv.h"
#include "host/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Whoever asks again within it misses nothing. */
#define SPAN_NS 3000000000ull
/* Samples of one vCPU between two answers. */
#define ROOM 256u

/* How far from the stack pointer a frame may be: what Linux gives a stack, with room for others. */
#define KERNEL_STACK (64u << 10)
#define USER_STACK   (8u << 20)

struct soft_profile {
    struct loop_timer *timer;
    uint64_t period, until;
    struct timespec used[ENGINE_MAX_CPUS]; /* by the thread, at the last look */

    pthread_mutex_t lock;
    struct engine_sample *ring; /* made when somebody asks first */
    size_t room, first, n;
    uint64_t lost;
    struct engine_sample idle[ENGINE_MAX_CPUS]; /* looks that found it so, not in the ring yet */
};

/* ---- the ring ---- */

static void put_locked(struct soft_profile *p, const struct engine_sample *sample)
{
    if (p->n < p->room)
        p->ring[(p->first + p->n++) % p->room] = *sample;
    else
        p->lost += sample->weight;
}

static void put_idle_locked(struct soft_profile *p, unsigned cpu)
{
    if (p->idle[cpu].weight)
        put_locked(p, &p->idle[cpu]);
    p->idle[cpu].weight = 0;
}

static void put(struct soft_profile *p, const struct engine_sample *sample)
{
    pthread_mutex_lock(&p->lock);
    put_idle_locked(p, sample->cpu);
    put_locked(p, sample);
    pthread_mutex_unlock(&p->lock);
}

static void note_idle(struct soft_profile *p, unsigned cpu, uint64_t now, uint32_t looks)
{
    pthread_mutex_lock(&p->lock);
    if (!p->idle[cpu].weight)
        p->idle[cpu] = (struct engine_sample){.time = now, .cpu = (uint8_t)cpu, .activity = ENGINE_IDLE};
    p->idle[cpu].weight += looks;
    pthread_mutex_unlock(&p->lock);
}

/* ---- the machine's thread ---- */

static void look_at(struct soft *s, unsigned n, uint64_t now)
{
    struct soft_vcpu *c = s->vcpu[n];
    struct soft_look *look = &c->look;
    uint64_t activity = __atomic_load_n(&c->activity, __ATOMIC_RELAXED);
    struct timespec used = {0}, *before = &s->profile->used[n];

    /* As for the statistics: a thread that waits for a processor of the host spends no time of the guest's.
     */
    clock_gettime(s->thread_clocks[n], &used);
    bool ran = used.tv_sec != before->tv_sec || used.tv_nsec != before->tv_nsec;
    *before = used;
    if (activity == ENGINE_IDLE) {
        /* It has fallen asleep before it could serve the last one. */
        uint32_t late = atomic_fetch_and(&c->requests, ~REQUEST_SAMPLE) & REQUEST_SAMPLE
                            ? atomic_exchange(&look->looks, 0)
                            : 0;
        note_idle(s->profile, n, now, late + 1);
        return;
    }
    if (!ran && activity != ENGINE_DIRECT)
        return;
    if (!(atomic_load(&c->requests) & REQUEST_SAMPLE)) {
        look->time = now;
        look->activity = (uint8_t)activity;
    }
    atomic_fetch_add(&look->looks, 1);
    soft_request(c, REQUEST_SAMPLE);
}

static void tick(void *opaque)
{
    struct soft *s = opaque;
    uint64_t now = loop_now();

    for (unsigned n = 0; n < s->n_threads; n++)
        look_at(s, n, now);
    if (now < s->profile->until)
        loop_timer_arm(s->profile->timer, now + s->profile->period);
}

/* What nobody has fetched of an earlier time is nobody's. */
static void begin_locked(struct soft *s, struct soft_profile *p)
{
    if (!p->ring) {
        p->room = ROOM * s->n_vcpus;
        p->ring = calloc(p->room, sizeof(*p->ring));
        p->room = p->ring ? p->room : 0;
    }
    p->first = p->n = p->lost = 0;
    memset(p->idle, 0, sizeof(p->idle));
}

void soft_profile_read(struct soft *s, unsigned hz, struct engine_profile *out)
{
    struct soft_profile *p = s->profile;
    uint64_t now = loop_now();

    p->period = 1000000000ull / hz;
    pthread_mutex_lock(&p->lock);
    if (now >= p->until) {
        begin_locked(s, p);
        loop_timer_arm(p->timer, now + p->period);
    }
    p->until = now + SPAN_NS;
    for (unsigned n = 0; n < s->n_vcpus; n++)
        put_idle_locked(p, n);
    *out = (struct engine_profile){.hz = hz, .lost = p->lost, .syscall_entry = s->vcpu[0]->lstar};
    for (; p->n && out->n < ENGINE_SAMPLES_MAX; p->n--) {
        out->samples[out->n++] = p->ring[p->first];
        p->first = (p->first + 1) % p->room;
    }
    out->more = p->n != 0;
    p->lost = 0;
    pthread_mutex_unlock(&p->lock);
}

int soft_profile_create(struct soft *s)
{
    struct soft_profile *p = calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    pthread_mutex_init(&p->lock, NULL);
    p->timer = loop_timer_new(s->config.loop, tick, s);
    s->profile = p;
    return p->timer ? 0 : -ENOMEM;
}

void soft_profile_free(struct soft *s)
{
    if (!s->profile)
        return;
    loop_timer_free(s->profile->timer);
    free(s->profile->ring);
    free(s->profile);
    s->profile = NULL;
}

/* ---- the vCPU's thread ---- */

void soft_profile_branched(struct soft_vcpu *c, const struct soft_exit *exit)
{
    c->look.to = c->rip;
    c->look.from = exit && exit->kind == EXIT_KIND_INDIRECT ? c->page_rip + exit->target : c->rip;
}

/* Reads what the guest could, and changes nothing but accessed bits, as a processor may at any time. */
static bool peek(struct soft_vcpu *c, uint64_t linear, void *to, uint64_t len)
{
    struct soft_fault keep = c->fault;
    uint8_t *bytes = to;

    while (len) {
        uint64_t piece = 4096 - (linear & 4095);
        struct soft_walk w;

        piece = piece < len ? piece : len;
        int rc =
            soft_canonical(linear) ? soft_walk(c, linear, ACCESS_READ, soft_key_mmu(c->key), &w) : SOFT_FAULT;
        c->fault = keep;
        const uint8_t *page = rc == SOFT_NEXT ? soft_ram_page(c->soft, w.gpa) : NULL;
        if (!page)
            return false;
        memcpy(bytes, page + (w.gpa & 4095), piece);
        bytes += piece;
        linear += piece;
        len -= piece;
    }
    return true;
}

/* Whether what lies before it is a call: code without frame pointers has anything in RBP. */
static bool is_return_address(struct soft_vcpu *c, uint64_t address)
{
    static const uint8_t indirect[] = {2, 3, 4, 6, 7}; /* lengths of FF /2 */
    uint8_t before[7];

    if ((address ^ c->rip) >> 63 || !peek(c, address - sizeof(before), before, sizeof(before)))
        return false;
    const uint8_t *end = before + sizeof(before);
    if (end[-5] == 0xe8)
        return true;
    for (unsigned i = 0; i < sizeof(indirect); i++)
        if (end[-indirect[i]] == 0xff && (end[1 - indirect[i]] >> 3 & 7) == 2)
            return true;
    return false;
}

/* Whether the instruction before `address` is a direct call of what is executed next. */
static bool has_called(struct soft_vcpu *c, uint64_t address)
{
    uint8_t before[5];
    int32_t distance;

    if (!peek(c, address - sizeof(before), before, sizeof(before)) || before[0] != 0xe8)
        return false;
    memcpy(&distance, before + 1, sizeof(distance));
    return address + (uint64_t)(int64_t)distance == c->rip;
}

static void walk_frames(struct soft_vcpu *c, struct engine_sample *s)
{
    uint64_t frame = c->gpr[CPU_RBP], low = c->gpr[CPU_RSP],
             high = low + (c->cpl == 3 ? USER_STACK : KERNEL_STACK);

    while (s->depth < ENGINE_STACK_MAX && !(frame & 7) && frame >= low && frame < high) {
        uint64_t words[2];

        if (!peek(c, frame, words, sizeof(words)) || !is_return_address(c, words[1]))
            return;
        s->stack[s->depth++] = words[1];
        low = frame + sizeof(words);
        frame = words[0];
    }
}

static void take_stack(struct soft_vcpu *c, struct engine_sample *s)
{
    uint64_t word;

    if (!soft_is64(c)) {
        s->stack[s->depth++] = (uint32_t)(c->rip + c->seg[CPU_CS].base);
        return;
    }
    /* It may have been interrupted after the branch. */
    bool returned = c->look.to == c->rip && c->look.from != c->rip;
    s->stack[s->depth++] = returned ? c->look.from : c->rip;
    if (returned && is_return_address(c, c->rip))
        s->stack[s->depth++] = c->rip;
    /* At a function's beginning, before it has a frame of its own. */
    if (!returned && peek(c, c->gpr[CPU_RSP], &word, sizeof(word)) && has_called(c, word))
        s->stack[s->depth++] = word;
    walk_frames(c, s);
}

void soft_profile_take(struct soft_vcpu *c)
{
    struct engine_sample s = {.time = c->look.time,
                              .cr3 = c->cr3 & PTE_ADDRESS,
                              .weight = atomic_exchange(&c->look.looks, 0),
                              .cpu = (uint8_t)c->index,
                              .activity = c->look.activity,
                              .cpl = c->cpl};

    if (!s.weight)
        return;
    take_stack(c, &s);
    c->look.from = c->look.to = 0;
    put(c->soft->profile, &s);
}

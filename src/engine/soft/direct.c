/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The way to user code that runs directly, and back. direct_policy.c decides whether it is worth it. */
#include "engine/soft/direct.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "engine/soft/direct_policy.h"
#include "engine/soft/direct_space.h"
#include "engine/soft/handlers.h"
#include "engine/soft/soft_priv.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <x86intrin.h>

/* Address spaces of one vCPU that have a mirror at a time. */
#define STUBS 4u

/* For so long the thread stays on one processor, or looks for another. */
#define SLICE_US 10000u
/* In a page that has to be translated: polls until we give up waiting for it to be left. */
#define PATIENCE 64u

/* The selectors that Linux has for user code: the stub's are the host's, and programs can read them. */
#define USER_CS   0x33u
#define USER_CS32 0x23u
#define USER_DS   0x2bu

struct soft_direct {
    struct direct_space spaces[STUBS];
    struct direct_policy policy;
    uint64_t trip;    /* ticks that the way there and back takes */
    uint64_t stub_ns; /* of these the stub's part */
    uint64_t slice;   /* SLICE_US in ticks */
    bool due;
    unsigned patience;
    bool left_one;       /* the translator has one instruction to execute */
    uint64_t stopped_at; /* tick at which the stretch has ended if this does not enter the kernel; 0: none */
    uint64_t skip_page;  /* code there is left to the translator while `patience` lasts */
    _Atomic int running; /* pidfd of the stub that runs, or is about to; -1 */

    /* In this slice, ticks that runs of stubs took, and that they should have. */
    uint64_t took, needed;
    uint64_t last; /* tick of the last run */
    bool pinned;
    bool looks;     /* for another processor */
    cpu_set_t free; /* where the thread may run when it is not pinned */
};

/* ---- when ---- */

void soft_direct_mode_changed(struct soft_vcpu *c, bool interrupted)
{
    struct soft_direct *d = c->direct;
    uint64_t now = __rdtsc();

    c->direct_user = c->cpl == 3;
    if (c->direct_user) {
        direct_policy_enter(&d->policy, c, now);
        d->patience = 0;
        d->due = direct_policy_wants(&d->policy);
        return;
    }
    d->due = false;
    d->stopped_at = 0;
    soft_direct_rest(c);
    direct_policy_leave(&d->policy, now, interrupted);
}

/* A state that the host's processor can have in user mode as it is. */
static bool possible(const struct soft_vcpu *c)
{
    const uint32_t mask =
        KEY_CPL | KEY_CODE64 | KEY_EM | KEY_NO_SSE | KEY_TS | KEY_STEP | KEY_DEBUG | KEY_ONE;
    const struct cpu_segment_state *s = c->seg;

    return (c->key & mask) == (3 | KEY_CODE64) && !((c->key & KEY_NO_AVX) && c->soft->have_avx) && c->iflag &&
           !(c->sysflags & (FLAG_IOPL | FLAG_AC | FLAG_VM)) && s[CPU_CS].selector == USER_CS &&
           s[CPU_SS].selector == USER_DS && (!s[CPU_DS].selector || s[CPU_DS].selector == USER_DS) &&
           (!s[CPU_ES].selector || s[CPU_ES].selector == USER_DS) && !s[CPU_FS].selector &&
           !s[CPU_GS].selector && s[CPU_FS].base < DIRECT_USER_END && s[CPU_GS].base < DIRECT_USER_END &&
           c->rip < DIRECT_USER_END && !c->wants_alone;
}

bool soft_direct_asks(const struct soft_vcpu *c)
{
    const struct soft_direct *d = c->direct;

    return d->due || d->patience || d->stopped_at || d->left_one;
}

bool soft_direct_due(struct soft_vcpu *c)
{
    struct soft_direct *d = c->direct;

    if (d->stopped_at) { /* not again and again for nothing */
        direct_policy_cut(&d->policy, d->stopped_at);
        d->stopped_at = 0;
        d->due = direct_policy_wants(&d->policy);
    }
    if (!d->due && d->patience && c->direct_user) {
        d->patience--;
        d->due = c->rip >> 12 != d->skip_page;
        if (!d->due && d->patience) /* leave translated code at its next poll, and look again */
            __atomic_store_n(&c->pending, 1, __ATOMIC_SEQ_CST);
    }
    return d->due && possible(c);
}

bool soft_direct_left_one(struct soft_vcpu *c)
{
    bool left = c->direct->left_one && c->direct_user;

    c->direct->left_one = false;
    return left;
}

/* ---- registers ---- */

_Static_assert(CPU_RAX == 0 && CPU_RSP == 4 && CPU_R15 == 15, "registers in another order");

static void give_registers(const struct soft_vcpu *c, struct direct_registers *r)
{
    *r = (struct direct_registers){
        .rip = c->rip,
        .rflags = soft_rflags(c),
        .cs = USER_CS,
        .ds = c->seg[CPU_DS].selector,
        .es = c->seg[CPU_ES].selector,
        .fs_base = c->seg[CPU_FS].base,
        .gs_base = c->seg[CPU_GS].base,
    };
    memcpy(r->gpr, c->gpr, sizeof(r->gpr));
}

/* Loading a segment register with what the host's kernel has in its table too is done by the processor. */
static void take_data_segment(struct soft_vcpu *c, unsigned seg, uint64_t selector, uint64_t base)
{
    c->seg[seg].base = base;
    if (c->seg[seg].selector != selector) {
        c->seg[seg].selector = (uint16_t)selector;
        c->seg[seg].attr = selector ? c->seg[CPU_SS].attr : 0;
        c->seg[seg].limit = selector ? UINT32_MAX : 0;
    }
}

static void take_registers(struct soft_vcpu *c, const struct direct_registers *r)
{
    const uint64_t flags = FLAGS_HOST | FLAG_TF | FLAG_NT | FLAG_AC | FLAG_ID;

    memcpy(c->gpr, r->gpr, sizeof(r->gpr));
    c->rip = r->rip;
    soft_set_rflags(c, r->rflags, flags);
    take_data_segment(c, CPU_DS, r->ds, 0);
    take_data_segment(c, CPU_ES, r->es, 0);
    take_data_segment(c, CPU_FS, r->fs, r->fs_base);
    take_data_segment(c, CPU_GS, r->gs, r->gs_base);
    if (r->cs == USER_CS32) { /* a far jump into compatibility mode */
        c->seg[CPU_CS].selector = USER_CS32;
        c->seg[CPU_CS].attr = (uint16_t)((c->seg[CPU_CS].attr & ~CPU_ATTR_L) | CPU_ATTR_DB);
    }
    soft_update_key(c);
}

/* ---- the way there and back ---- */

static struct direct_space *space_for(struct soft_direct *d, struct soft_vcpu *c)
{
    uint64_t cr3 = c->cr3 & ~4095ull;
    struct direct_space *oldest = NULL;

    for (unsigned n = 0; n < STUBS; n++) {
        struct direct_space *s = &d->spaces[n];
        if (s->stub.dead)
            continue;
        if (s->cr3 == cr3)
            return s;
        if (!oldest || s->used < oldest->used)
            oldest = s;
    }
    if (oldest && direct_space_assign(oldest, cr3) < 0)
        oldest->stub.dead = true;
    return oldest && !oldest->stub.dead ? oldest : NULL;
}

/*
 * Thread and stub take turns, and waking each other across processors takes many times as long. The scheduler
 * would wake the one on whatever processor the other leaves idle: so the thread is pinned while it runs
 * stubs, and released for a while where it does not get enough of that processor.
 */
static void pin(struct soft_direct *d)
{
    int cpu = sched_getcpu();
    cpu_set_t one;

    if (cpu < 0 || cpu >= CPU_SETSIZE)
        return;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    d->pinned = sched_getaffinity(0, sizeof(d->free), &d->free) == 0 && CPU_COUNT(&d->free) > 1 &&
                sched_setaffinity(0, sizeof(one), &one) == 0;
}

static void release(struct soft_direct *d)
{
    cpu_set_t now;

    /* Not if somebody else has decided where it is to run. */
    if (d->pinned && sched_getaffinity(0, sizeof(now), &now) == 0 && CPU_COUNT(&now) == 1)
        sched_setaffinity(0, sizeof(d->free), &d->free);
    d->pinned = false;
}

static void choose_processor(struct soft_direct *d)
{
    if (d->pinned || d->looks) {
        if (d->took < d->slice)
            return;
        d->looks = d->pinned && d->took > 2 * d->needed;
        d->took = d->needed = 0;
        if (d->looks)
            release(d);
        if (d->pinned || d->looks)
            return;
    }
    pin(d);
}

void soft_direct_rest(struct soft_vcpu *c)
{
    struct soft_direct *d = c->direct;

    if (d && d->pinned && __rdtsc() - d->last > d->slice)
        release(d);
}

/* To where this thread is. */
static int follow(struct direct_space *s)
{
    int cpu = sched_getcpu();
    int rc = 0;

    if (cpu >= 0 && cpu != s->cpu) {
        rc = direct_stub_move(&s->stub, (unsigned)cpu);
        s->cpu = cpu;
    }
    return rc ? rc : direct_stub_apply(&s->stub);
}

static void give_vectors(struct soft_vcpu *c, struct direct_space *s)
{
    soft_xstate_modify(c, soft_xstate_components(c->soft));
    direct_stub_set_xstate(&s->stub, c->xsave, sizeof(c->xsave));
}

static void take_vectors(struct soft_vcpu *c, const struct direct_space *s)
{
    direct_stub_get_xstate(&s->stub, c->xsave, sizeof(c->xsave));
    memset(c->xsave + XSAVE_UNUSED, 0, XSAVE_BV - XSAVE_UNUSED); /* the host's kernel's own */
    /* Only what the guest knows of. */
    c->xsave[XSAVE_BV] &= soft_xstate_components(c->soft);
    memset(c->xsave + XSAVE_BV + 1, 0, 63);
}

/* The stub has vanished with the registers of the guest's code. */
static void lose(struct soft_vcpu *c)
{
    struct soft *s = c->soft;

    snprintf(
        s->failure, sizeof(s->failure),
        "vCPU %u: the process that executed the guest's user code was killed (was the host out of memory?)",
        c->index);
    c->halted = c->wait_for_sipi = true;
    s->config.event(s->config.opaque, MACHINE_ENGINE_FAILED, 0);
}

enum outcome {
    GO_ON,
    LEAVE,         /* for one instruction, which may raise an exception */
    LEAVE_BRIEFLY, /* until its code is in another page */
    LEAVE_STEPPED, /* an instruction has been stepped */
    LEAVE_CALLING, /* its kernel */
    COME_BACK,     /* something else comes first */
    NOT_BEGUN,     /* the stub had ended before it could run */
    LOST,
    OUTCOMES
};

static const uint8_t stop_of[OUTCOMES] = {
    [GO_ON] = ENGINE_STOP_MAP,          [LEAVE] = ENGINE_STOP_FAULT,
    [LEAVE_BRIEFLY] = ENGINE_STOP_PAGE, [LEAVE_STEPPED] = ENGINE_STOP_FAULT,
    [LEAVE_CALLING] = ENGINE_STOP_CALL, [COME_BACK] = ENGINE_STOP_INTERRUPT,
    [NOT_BEGUN] = ENGINE_STOP_FAULT,    [LOST] = ENGINE_STOP_FAULT,
};

/* Why it has stopped, and whether that was ours to mend. */
static enum outcome handle_signal(struct soft_vcpu *c, struct direct_space *s, struct direct_registers *r)
{
    uint64_t address;
    uint8_t byte;
    int code, signal = direct_stub_signal(&s->stub, &code, &address);

    switch (signal) {
    case SIGSEGV:
        if (code != SEGV_MAPERR && code != SEGV_ACCERR)
            return LEAVE; /* RDTSC, or a general protection exception */
        switch (direct_space_resolve(s, c, r->rip, address)) {
        case DIRECT_MAPPED:
            return GO_ON;
        case DIRECT_NO_CODE:
            return LEAVE_BRIEFLY;
        case DIRECT_REFUSED:
            return LEAVE;
        case DIRECT_BROKEN:
            s->stub.dead = true; /* its registers are known: the translator goes on */
            return LEAVE;
        }
        return LEAVE;
    case SIGTRAP:
        if (code == TRAP_TRACE)
            return LEAVE_STEPPED; /* its POPF had set TF */
        /* INT3; or INT1, which some hypervisors let end before it has begun. */
        if (code == SI_KERNEL ||
            (soft_read(c, r->rip - 1, &byte, 1, ACCESS_READ) == SOFT_NEXT && byte == 0xf1))
            r->rip -= 1;
        return LEAVE;
    case SIGSYS: /* the host's kernel has begun to emulate a vsyscall: undo its return */
        r->gpr[CPU_RSP] -= 8;
        r->rip = address;
        return LEAVE;
    default: /* SIGILL, too, where the copy of a page has no instruction */
        return LEAVE;
    }
}

/* `ran` gets what the code itself took of the processor, more or less, `waited` how long others had it. */
static enum outcome one_run(struct soft_vcpu *c, struct direct_space *s, struct direct_registers *r,
                            uint64_t *ran, uint64_t *waited)
{
    struct soft_direct *d = c->direct;
    enum direct_stop stop = DIRECT_STOP_KICK;

    atomic_store(&d->running, s->stub.pidfd);
    if (!__atomic_load_n(&c->pending, __ATOMIC_SEQ_CST)) {
        __atomic_store_n(&c->activity, ENGINE_DIRECT, __ATOMIC_RELAXED);
        uint64_t start = __rdtsc();
        stop = direct_stub_run(&s->stub, r);
        d->last = __rdtsc();
        uint64_t used = s->stub.ran > d->stub_ns ? s->stub.ran - d->stub_ns : 0;
        used = used * (c->soft->tsc_hz / 1000000) / 1000;
        *ran += used;
        uint64_t took = d->last - start, needed = used + d->trip;
        *waited += took > needed ? took - needed : 0;
        d->took += took;
        d->needed += needed;
        __atomic_store_n(&c->activity, ENGINE_HELPING, __ATOMIC_RELAXED);
    }
    atomic_store(&d->running, -1);
    switch (stop) {
    case DIRECT_STOP_SYSCALL:
        r->rip -= 2;
        return LEAVE_CALLING;
    case DIRECT_STOP_KICK:
        return __atomic_load_n(&c->pending, __ATOMIC_SEQ_CST) ? COME_BACK : GO_ON;
    case DIRECT_STOP_SIGNAL:
        return handle_signal(c, s, r);
    case DIRECT_STOP_GONE:
        return NOT_BEGUN;
    case DIRECT_STOP_DEAD:
        break;
    }
    return LOST;
}

int soft_direct_run(struct soft_vcpu *c)
{
    struct soft_direct *d = c->direct;
    struct direct_space *s = space_for(d, c);
    struct direct_registers regs;
    enum outcome outcome;

    d->due = false;
    d->patience = 0;
    if (!s)
        return SOFT_JUMP;
    choose_processor(d);
    uint64_t ran = 0, waited = 0, begin = __rdtsc();
    if (direct_space_validate(s, c) < 0 || follow(s) < 0) {
        s->stub.dead = true;
        return SOFT_JUMP;
    }
    bool begun = false;
    direct_stub_hide_tsc(&s->stub, c->tsc_offset || (c->cr4 & CR4_TSD));
    give_vectors(c, s);
    give_registers(c, &regs);
    do {
        s->used = __rdtsc();
        outcome = one_run(c, s, &regs, &ran, &waited);
        c->stats.stops[stop_of[outcome]]++;
        if (outcome == NOT_BEGUN && !begun) /* it was killed while it waited: all that it was given is here */
            return SOFT_JUMP;
        begun = true;
    } while (outcome == GO_ON);
    if (outcome == LOST || outcome == NOT_BEGUN) {
        lose(c);
        return SOFT_JUMP;
    }
    take_vectors(c, s);
    take_registers(c, &regs);
    uint64_t now = __rdtsc();
    direct_policy_account(&d->policy, begin, now, ran, waited);
    c->exit_link = 0;
    c->sysflags &= ~(uint64_t)FLAG_RF;
    if (outcome == COME_BACK)
        d->due = direct_policy_wants(&d->policy);
    if (outcome == LEAVE) { /* if that enters the kernel, the stretch ends there */
        d->stopped_at = now;
        d->left_one = d->due = true;
    }
    if (outcome == LEAVE_BRIEFLY) {
        direct_policy_cut(&d->policy, now);
        d->patience = direct_policy_wants(&d->policy) ? PATIENCE : 0; /* not again and again for nothing */
        d->skip_page = c->rip >> 12;
    }
    if (outcome != LEAVE_STEPPED)
        return SOFT_JUMP;
    c->fault = (struct soft_fault){.vector = VEC_DB, .dr6 = 1u << 14};
    return SOFT_FAULT;
}

void soft_direct_kick(struct soft_vcpu *c)
{
    if (!c->direct)
        return;
    int pidfd = atomic_load(&c->direct->running);
    if (pidfd >= 0)
        direct_stub_kick(pidfd);
}

/* ---- life ---- */

/* What it takes to enter a stub and to come back: the shortest of some, since others may have run in between.
 */
static int time_trip(struct soft_direct *d, struct direct_space *space)
{
    int rc = follow(space);

    d->trip = d->stub_ns = UINT64_MAX;
    for (unsigned n = 0; n < 16 && rc == 0; n++) {
        struct direct_registers regs = {.rip = 0, .cs = USER_CS, .rflags = FLAG_IF | 2};
        uint64_t start = __rdtsc();
        if (direct_stub_run(&space->stub, &regs) != DIRECT_STOP_SIGNAL) /* nothing is mapped there */
            rc = -EIO;
        uint64_t took = __rdtsc() - start;
        d->trip = took < d->trip ? took : d->trip;
        d->stub_ns = space->stub.ran < d->stub_ns ? space->stub.ran : d->stub_ns;
    }
    return rc;
}

int soft_direct_probe(struct error **err)
{
    cleanup_close int memory = memfd_create("probe", MFD_CLOEXEC);
    struct direct_stub stub;

    if (memory < 0)
        return error_set_errno(err, errno, "direct execution: memory");
    int rc = direct_stub_create(&stub, memory, err);
    direct_stub_destroy(&stub);
    return rc;
}

int soft_direct_start(struct soft_vcpu *c, struct error **err)
{
    const struct sigaction ended = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP};
    uint64_t per_us = c->soft->tsc_hz / 1000000;

    if (!c->soft->have_xsave)
        return error_set(err, ENOTSUP, "direct execution: this processor has no XSAVE");
    struct soft_direct *d = calloc(1, sizeof(*d));
    if (!d)
        return error_set_errno(err, ENOMEM, "direct execution");
    d->slice = SLICE_US * per_us;
    d->running = -1;
    sigaction(SIGCHLD, &ended, NULL); /* not for each stop */
    for (unsigned n = 0; n < STUBS; n++) {
        int rc = direct_space_create(&d->spaces[n], c->soft->memory->fd, err);
        if (rc < 0) {
            for (unsigned m = 0; m < n; m++)
                direct_space_free(&d->spaces[m]);
            free(d);
            return rc;
        }
    }
    pin(d);
    int rc = time_trip(d, &d->spaces[0]);
    release(d);
    direct_policy_init(&d->policy, d->trip);
    c->direct = d;
    if (rc < 0) {
        soft_direct_end(c);
        return error_set_errno(err, -rc, "direct execution: running code in a process");
    }
    return 0;
}

void soft_direct_end(struct soft_vcpu *c)
{
    struct soft_direct *d = c->direct;

    if (!d)
        return;
    c->direct = NULL;
    release(d);
    for (unsigned n = 0; n < STUBS; n++)
        direct_space_free(&d->spaces[n]);
    free(d);
}

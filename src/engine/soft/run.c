/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The dispatcher of one vCPU: finds or makes the block at RIP, lets it run, and deals with what it was left
 * for: exceptions, interrupts, requests from other threads, sleep. Runs in the vCPU's thread.
 */
#include "engine/soft/soft_priv.h"

#include "engine/soft/direct.h"
#include "engine/soft/lapic.h"
#include "engine/soft/profile.h"
#include "engine/soft/run.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KEY_SPECIAL (KEY_STEP | KEY_ONE | KEY_DEBUG)

/* ---- requests and sleep ---- */

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void soft_request(struct soft_vcpu *c, uint32_t request)
{
    uint32_t before = atomic_fetch_or(&c->requests, request);

    __atomic_store_n(&c->pending, 1, __ATOMIC_SEQ_CST);
    if (!(before & request) && atomic_load(&c->asleep))
        futex_wake(&c->requests);
    soft_direct_kick(c);
}

/* Says what this thread is at, for whoever samples it; what it was at before. */
static uint64_t set_activity(struct soft_vcpu *c, uint64_t activity)
{
    uint64_t before = c->activity;

    __atomic_store_n(&c->activity, activity, __ATOMIC_RELAXED);
    return before;
}

/* Sleep until a request that is worth it. Flushing can wait until the vCPU has something to do. */
static void sleep_for_request(struct soft_vcpu *c)
{
    uint64_t activity = set_activity(c, ENGINE_IDLE);

    atomic_store(&c->asleep, 1);
    for (;;) {
        uint32_t r = atomic_load(&c->requests);
        if (r & (REQUEST_STOP | REQUEST_INTERRUPT))
            break;
        futex_wait(&c->requests, r);
    }
    atomic_store(&c->asleep, 0);
    set_activity(c, activity);
}

static void enter_code(struct soft_vcpu *c)
{
    for (;;) {
        atomic_store(&c->in_code, 1);
        if (!atomic_load(&c->soft->exclusive) || c->alone)
            return;
        atomic_store(&c->in_code, 0);
        futex_wake(&c->in_code);
        futex_wait(&c->soft->exclusive, 1);
    }
}

static void leave_code(struct soft_vcpu *c)
{
    atomic_store(&c->in_code, 0);
    if (atomic_load(&c->soft->exclusive))
        futex_wake(&c->in_code);
}

/* Everyone else out of translated code, and not in again before end_alone. Not from within. */
static void begin_alone(struct soft_vcpu *c)
{
    struct soft *s = c->soft;

    pthread_mutex_lock(&s->exclusive_lock);
    atomic_store(&s->exclusive, 1);
    for (unsigned n = 0; n < s->n_vcpus; n++) {
        struct soft_vcpu *o = s->vcpu[n];

        if (o == c)
            continue;
        __atomic_store_n(&o->pending, 1, __ATOMIC_SEQ_CST);
        soft_direct_kick(o);
        while (atomic_load(&o->in_code))
            futex_wait(&o->in_code, 1);
    }
    c->alone = true;
}

static void end_alone(struct soft_vcpu *c)
{
    struct soft *s = c->soft;

    c->alone = false;
    atomic_store(&s->exclusive, 0);
    futex_wake(&s->exclusive);
    pthread_mutex_unlock(&s->exclusive_lock);
}

bool soft_must_be_alone(struct soft_vcpu *c)
{
    c->wants_alone = !c->alone && c->soft->n_vcpus > 1;
    return c->wants_alone;
}

static void flush_cache(struct soft_vcpu *c)
{
    struct soft *s = c->soft;
    bool was_alone = c->alone;

    leave_code(c);
    if (!was_alone)
        begin_alone(c);
    pthread_mutex_lock(&s->lock);
    if (!soft_cache_has_room_locked(s)) /* somebody else may have done it while we waited */
        soft_cache_flush_locked(s);
    pthread_mutex_unlock(&s->lock);
    if (!was_alone)
        end_alone(c);
    enter_code(c);
}

/* ---- finding code ---- */

/* An indirect branch went to an address that can't be: the fault belongs to the branch (SDM vol. 2 JMP, CALL,
 * RET). */
static int non_canonical(struct soft_vcpu *c)
{
    const struct soft_exit *x = (const struct soft_exit *)(uintptr_t)c->exit_link;

    if (x && x->kind == EXIT_KIND_INDIRECT) {
        c->gpr[CPU_RSP] += (uint64_t)(int64_t)x->undo_rsp;
        c->rip = c->page_rip + x->target;
    }
    return soft_raise_error(c, VEC_GP, 0);
}

static int code_address(struct soft_vcpu *c, struct soft_walk *w, uint64_t *gpa2)
{
    uint64_t linear = c->rip;

    if (soft_is64(c)) {
        if (!soft_canonical(linear))
            return non_canonical(c);
    } else {
        if (c->rip > c->seg[CPU_CS].limit)
            return soft_raise_error(c, VEC_GP, 0);
        linear = (uint32_t)(linear + c->seg[CPU_CS].base);
    }
    int rc = soft_walk(c, linear, ACCESS_EXEC, soft_key_mmu(c->key), w);
    if (rc != SOFT_NEXT)
        return rc;
    *gpa2 = NO_PAGE - 1;
    if ((linear & 4095) > 4096 - 15) {
        struct soft_fault keep = c->fault;
        struct soft_walk second;
        uint64_t next = (linear | 4095) + 1;
        if (soft_walk(c, soft_is64(c) ? next : (uint32_t)next, ACCESS_EXEC, soft_key_mmu(c->key), &second) ==
            SOFT_NEXT)
            *gpa2 = second.gpa & ~4095ull;
        c->fault = keep;
    }
    return SOFT_NEXT;
}

/* The block at RIP, translated if need be, with `link` (unless NULL) leading to it from now on. */
static struct soft_block *link_or_make(struct soft_vcpu *c, const struct soft_walk *w, uint64_t gpa2,
                                       uint32_t cs_base, uint32_t key, struct soft_link *link, int *rc)
{
    struct soft *s = c->soft;

    for (;;) {
        pthread_mutex_lock(&s->lock);
        struct soft_block *b = soft_cache_find(s, c->rip - c->page_rip, cs_base, w->gpa, gpa2, key);
        if (!b && !soft_cache_has_room_locked(s)) {
            pthread_mutex_unlock(&s->lock);
            flush_cache(c);
            link = NULL;
            continue;
        }
        if (!b) {
            set_activity(c, ENGINE_TRANSLATING);
            b = soft_translate_block_locked(c, w->gpa, key, rc);
            set_activity(c, ENGINE_HELPING);
            c->stats.blocks += b != NULL;
        }
        /* A link is followed without a look at the page tables: it stands for the page that it is in, as long
         * as that is this one, and not for a second one. */
        if (b && link && !((s->blocks[link->from].gpa ^ b->gpa) >> 12) && !(c->key & KEY_SPECIAL)) {
            if (b->gpa2 == NO_PAGE)
                soft_cache_link_locked(s, link, b);
            else
                soft_cache_look_up_locked(s, link);
        }
        pthread_mutex_unlock(&s->lock);
        return b;
    }
}

/* The way out that was taken last, if it is one that can be linked. */
static struct soft_link *left_link(const struct soft_vcpu *c)
{
    struct soft_exit *x = (struct soft_exit *)(uintptr_t)c->exit_link;

    return x && (x->kind == EXIT_KIND_DIRECT || x->kind == EXIT_KIND_PLAIN) ? (struct soft_link *)x : NULL;
}

/* The code for RIP, if the jump cache has it; NULL if not. */
static const void *cached_code(const struct soft_vcpu *c)
{
    const struct soft_jump_cache *j = &c->jump[soft_key_mmu(c->key)];
    uint32_t i = soft_jump_index(c->rip);

    if (__atomic_load_n(&j->at[i].tag, __ATOMIC_ACQUIRE) + c->rip != 0)
        return NULL;
    return (const void *)(uintptr_t)j->at[i].code;
}

/* The code for RIP, in the jump cache from now on. */
static int find_code(struct soft_vcpu *c, const void **code)
{
    struct soft *s = c->soft;
    enum soft_mmu mmu = soft_key_mmu(c->key);
    struct soft_link *link = left_link(c);
    /* Not if something else came in between: an interrupt, say. */
    bool linkable = link && c->page_rip + link->exit.target == c->rip &&
                    (s->blocks[link->from].key & ~KEY_PLAIN) == c->key;
    uint32_t key = c->key | (linkable && link->exit.kind == EXIT_KIND_PLAIN ? KEY_PLAIN : 0);
    struct soft_walk w;
    uint64_t gpa2 = 0, page_rip = soft_page_rip(c->key, c->rip);

    soft_jump_settle(c);
    if (!linkable && !(c->key & KEY_SPECIAL) && (*code = cached_code(c))) {
        c->page_rip = page_rip;
        return SOFT_NEXT;
    }
    int rc = code_address(c, &w, &gpa2);
    c->exit_link = 0;
    if (rc != SOFT_NEXT)
        return rc;
    c->page_rip = page_rip;
    uint32_t cs_base = soft_is64(c) ? 0 : (uint32_t)c->seg[CPU_CS].base;
    struct soft_block *b = linkable ? NULL : soft_cache_find(s, c->rip - page_rip, cs_base, w.gpa, gpa2, key);
    if (!b)
        b = link_or_make(c, &w, gpa2, cs_base, key, linkable ? link : NULL, &rc);
    if (!b)
        return rc;
    *code = s->cache + b->code;
    if (!(key & (KEY_SPECIAL | KEY_PLAIN)))
        soft_note_jump(c, mmu, b, w.global);
    return SOFT_NEXT;
}

/* ---- one stay in translated code ---- */

static int execute(struct soft_vcpu *c)
{
    const void *code = NULL;

    enter_code(c);
    int rc = find_code(c, &code);
    if (rc != SOFT_NEXT) {
        leave_code(c);
        return rc;
    }
    c->exit_link = 0;
    enum soft_left left = (enum soft_left)c->soft->stubs.enter(c, code);
    if (left == LEFT_LINK) /* an exit lives as long as the cache, which is safe until leave_code */
        c->rip = c->page_rip + ((struct soft_exit *)(uintptr_t)c->exit_link)->target;
    if (atomic_load(&c->requests) & REQUEST_SAMPLE)
        soft_profile_branched(c, left == LEFT_LOOKUP ? (struct soft_exit *)(uintptr_t)c->exit_link : NULL);
    leave_code(c);
    c->stats.exits[left - LEFT_LINK]++;
    switch (left) {
    case LEFT_LINK:
    case LEFT_LOOKUP:
        return SOFT_JUMP;
    case LEFT_NEXT:
        soft_update_key(c);
        return SOFT_JUMP;
    case LEFT_HANDLER:
        soft_update_key(c);
        return (int)c->result;
    case LEFT_FAULT:
        break;
    }
    return SOFT_FAULT;
}

/*
 * The x87 unit has kept where its last instruction was: in our code, on its operand in our memory. Guests see
 * their own address of the instruction, and no operand's (as processors with FDP_EXCPTN_ONLY mostly do),
 * never ours.
 */
static void hide_host_pointers(struct soft_vcpu *c)
{
    uint64_t fip, rip;

    memcpy(&fip, c->xsave + 8, 8);
    if (fip - (uint64_t)(uintptr_t)c->soft->cache >= CODE_SIZE)
        return;
    rip = soft_cache_guest_rip(c->soft, (const uint8_t *)(uintptr_t)fip, c->x87_page);
    memcpy(c->xsave + 8, &rip, 8);
    memset(c->xsave + 16, 0, 8);
}

/* A handler has jumped, to the kernel or out of it as a rule: straight on in the code there, if it is known
 * and the dispatcher has nothing to do before. */
static bool jumps_on(struct soft_vcpu *c)
{
    soft_update_key(c);
    soft_direct_note(c, false);
    if (__atomic_load_n(&c->pending, __ATOMIC_SEQ_CST) || c->halted || c->wait_for_sipi || c->shadow ||
        c->wants_alone || (c->key & KEY_SPECIAL) || atomic_load(&c->jump_stale) ||
        (c->direct && soft_direct_asks(c)))
        return false;
    const void *code = cached_code(c);
    if (!code)
        return false;
    c->sysflags &= ~(uint64_t)FLAG_RF;
    c->exit_link = 0;
    c->page_rip = soft_page_rip(c->key, c->rip);
    c->resume = (uint64_t)(uintptr_t)code;
    return true;
}

/* Called by translated code for instructions with a handler. */
uint64_t soft_call_handler(struct soft_vcpu *c, const struct soft_call *call)
{
    uint64_t before = atomic_load(&c->soft->invalidations);
    bool special = c->key & KEY_SPECIAL;

    c->stats.handlers++;
    c->rip = c->page_rip + call->rip;
    hide_host_pointers(c);
    int rc = call->handler(c, &call->insn);
    if (rc == SOFT_NEXT && atomic_load(&c->soft->invalidations) != before) {
        /* It may have overwritten the rest of its own block. */
        c->rip += call->insn.length;
        if (!soft_is64(c))
            c->rip = (uint32_t)c->rip;
        rc = SOFT_JUMP;
    }
    if (rc == SOFT_NEXT) {
        c->resume = (uint64_t)(uintptr_t)call->resume;
        return 0;
    }
    if (rc == SOFT_JUMP && !special && jumps_on(c))
        return 0;
    c->result = (uint64_t)rc;
    return LEFT_HANDLER;
}

/* Traps that a finished instruction leaves behind: single step and data breakpoints. */
static int after_instruction(struct soft_vcpu *c, uint32_t key)
{
    uint64_t dr6 = c->debug_hits;

    c->debug_hits = 0;
    /* TF as it was before the instruction counts: POPF that clears it is stepped. */
    if ((key & KEY_STEP) && !c->entered)
        dr6 |= 1u << 14;
    if (c->shadow == SHADOW_SS) {
        c->held_hits = dr6;
        dr6 = 0;
    }
    if (!dr6)
        return SOFT_JUMP;
    c->fault = (struct soft_fault){.vector = VEC_DB, .dr6 = dr6};
    return SOFT_FAULT;
}

static int run_special(struct soft_vcpu *c, unsigned shadow)
{
    uint32_t key = c->key;
    uint64_t rip = c->rip, rsp = c->gpr[CPU_RSP], resume = c->sysflags & FLAG_RF, held = c->held_hits;

    c->debug_hits = c->held_hits;
    c->held_hits = 0;
    c->entered = false;
    if ((key & KEY_DEBUG) && !(c->sysflags & FLAG_RF) && shadow != SHADOW_SS) {
        uint64_t linear = c->rip + (soft_is64(c) ? 0 : c->seg[CPU_CS].base);
        uint64_t hit = soft_debug_match(c, linear, 1, DEBUG_EXEC);
        if (hit) {
            c->fault = (struct soft_fault){.vector = VEC_DB, .dr6 = hit};
            return SOFT_FAULT;
        }
    }
    c->sysflags &= ~(uint64_t)FLAG_RF;
    int rc = execute(c);
    c->key &= ~KEY_ONE;
    if (c->wants_alone && rc == SOFT_JUMP && c->rip == rip) { /* it has not happened yet */
        c->sysflags |= resume;
        c->held_hits = held;
        c->shadow = shadow;
        return rc;
    }
    /* A branch to nowhere faults itself: no trap follows it. */
    if (rc == SOFT_JUMP && soft_is64(c) && !soft_canonical(c->rip)) {
        c->rip = rip;
        c->gpr[CPU_RSP] = rsp;
        rc = soft_raise_error(c, VEC_GP, 0);
    }
    return rc == SOFT_FAULT ? rc : after_instruction(c, key);
}

/* One instruction, while the other vCPUs wait. */
static int run_alone(struct soft_vcpu *c, unsigned shadow)
{
    begin_alone(c);
    c->wants_alone = false;
    c->key |= KEY_ONE;
    int rc = run_special(c, shadow);
    end_alone(c);
    return rc;
}

static int run_directly(struct soft_vcpu *c)
{
    enter_code(c);
    int rc = soft_direct_run(c);
    leave_code(c);
    return rc;
}

int soft_run_once(struct soft_vcpu *c, unsigned shadow)
{
    if (c->wants_alone)
        return run_alone(c, shadow);
    bool one = shadow || (c->direct && soft_direct_left_one(c));
    if (one || (c->key & KEY_SPECIAL)) {
        c->key |= one ? KEY_ONE : 0;
        int rc = run_special(c, shadow);
        c->key &= ~KEY_ONE;
        return rc;
    }
    if (c->direct && soft_direct_due(c))
        return run_directly(c);
    c->sysflags &= ~(uint64_t)FLAG_RF;
    return execute(c);
}

/* ---- the vCPU's life ---- */

static void start_at_sipi(struct soft_vcpu *c, unsigned vector)
{
    c->seg[CPU_CS].selector = (uint16_t)(vector << 8);
    c->seg[CPU_CS].base = (uint64_t)vector << 12;
    c->rip = 0;
    c->wait_for_sipi = false;
    soft_update_key(c);
}

/* INIT (SDM vol. 3A table 10-1): as RESET, but for what tells time and the vector state. */
static void init_reset(struct soft_vcpu *c)
{
    struct cpu_state s, old;

    soft_get_state(c, &old);
    cpu_state_reset(&s, false);
    s.xcr0 = old.xcr0;
    memcpy(s.xsave, old.xsave, sizeof(s.xsave));
    s.cr0 |= old.cr0 & (CR0_CD | CR0_NW);
    s.pat = old.pat;
    s.tsc_aux = old.tsc_aux;
    lapic_reset(c->lapic, true);
    soft_set_state(c, &s);
}

/* What the local APIC has beside vectors. */
static unsigned take_events(struct soft_vcpu *c)
{
    unsigned events = lapic_take_events(c->lapic);

    if (events & LAPIC_EVENT_INIT)
        init_reset(c);
    if ((events & LAPIC_EVENT_SIPI) && c->wait_for_sipi)
        start_at_sipi(c, lapic_sipi_vector(c->lapic));
    if (events & LAPIC_EVENT_NMI)
        c->nmi_pending = true;
    return events;
}

/* Deliver the most urgent thing that can be. SOFT_NEXT if there is none. */
static int interrupt(struct soft_vcpu *c)
{
    unsigned events = take_events(c);

    c->held_back = 1;
    if (c->wait_for_sipi)
        return SOFT_NEXT;
    if (c->nmi_pending && !c->nmi_blocked && !c->shadow) {
        c->nmi_pending = false;
        c->nmi_blocked = true;
        c->halted = false;
        return soft_deliver_interrupt(c, VEC_NMI);
    }
    if (!c->iflag || c->shadow)
        return SOFT_NEXT;
    int vector = lapic_interrupt(c->lapic);
    if (vector >= 0) {
        lapic_accept(c->lapic, vector);
    } else {
        vector = events & LAPIC_EVENT_EXTINT ? soft_extint(c->soft) : -1;
        if (vector < 0) {
            c->held_back = 0;
            return SOFT_NEXT;
        }
    }
    c->halted = false;
    c->stats.interrupts++;
    return soft_deliver_interrupt(c, (uint8_t)vector);
}

static void stop_here(struct soft_vcpu *c)
{
    struct soft *s = c->soft;
    uint64_t activity = set_activity(c, ENGINE_IDLE);

    pthread_mutex_lock(&s->run_lock);
    s->n_stopped++;
    pthread_cond_broadcast(&s->run_cond);
    while (s->stopping && !s->quit)
        pthread_cond_wait(&s->run_cond, &s->run_lock);
    s->n_stopped--;
    atomic_fetch_and(&c->requests, ~REQUEST_STOP);
    /* A pause that begins now must find us again. */
    if (s->stopping)
        atomic_fetch_or(&c->requests, REQUEST_STOP);
    pthread_mutex_unlock(&s->run_lock);
    set_activity(c, activity);
}

/* What other threads ask for. */
static void serve_requests(struct soft_vcpu *c)
{
    __atomic_store_n(&c->pending, 0, __ATOMIC_SEQ_CST);
    uint32_t r = atomic_load(&c->requests);

    if (r & REQUEST_STOP)
        stop_here(c);
    r = atomic_fetch_and(&c->requests, REQUEST_STOP);
    if (r & REQUEST_FLUSH_WRITE)
        soft_cache_revalidate(c->soft, c);
    if (r & REQUEST_SAMPLE)
        soft_profile_take(c);
}

/* Sleep until asked to stop. */
static void wait_for_stop(struct soft_vcpu *c)
{
    uint64_t activity = set_activity(c, ENGINE_IDLE);

    atomic_store(&c->asleep, 1);
    for (uint32_t r; !((r = atomic_load(&c->requests)) & REQUEST_STOP);)
        futex_wait(&c->requests, r);
    atomic_store(&c->asleep, 0);
    set_activity(c, activity);
}

/* Shutdown, as after a triple fault: the machine decides; until then nothing runs. */
static void shut_down(struct soft_vcpu *c)
{
    c->halted = c->wait_for_sipi = true;
    c->soft->config.event(c->soft->config.opaque, MACHINE_RESET, 0);
    wait_for_stop(c);
}

void soft_vcpu_park(struct soft_vcpu *c)
{
    while (!c->soft->quit) {
        wait_for_stop(c);
        serve_requests(c);
    }
}

static void idle(struct soft_vcpu *c)
{
    if (atomic_load(&c->requests) & (REQUEST_STOP | REQUEST_INTERRUPT))
        return;
    if (c->direct)
        soft_direct_rest(c);
    sleep_for_request(c);
}

void soft_vcpu_loop(struct soft_vcpu *c)
{
    while (!c->soft->quit) {
        int rc = SOFT_NEXT;

        if (__atomic_load_n(&c->pending, __ATOMIC_SEQ_CST)) {
            serve_requests(c);
            if (c->soft->quit)
                break;
            rc = interrupt(c);
            soft_direct_note(c, true);
        }
        if (rc == SOFT_NEXT && (c->halted || c->wait_for_sipi)) {
            idle(c);
            continue;
        }
        if (rc == SOFT_NEXT) {
            unsigned shadow = (unsigned)c->shadow;
            c->shadow = 0;
            rc = soft_run_once(c, shadow);
            if (shadow)
                __atomic_store_n(&c->pending, 1, __ATOMIC_SEQ_CST); /* look again, now that it is over */
        }
        if (rc == SOFT_FAULT)
            rc = soft_deliver_fault(c);
        if (rc == SOFT_FAULT)
            shut_down(c);
        soft_direct_note(c, false);
    }
}

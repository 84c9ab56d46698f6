/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Exceptions that the host's processor raises while it executes a copied guest instruction: they are the
 * guest's. The handler finds the guest instruction by the host address, completes the guest's registers, and
 * lets the interrupted code go on at the exit stub. Anything else is a fault of our own and takes its
 * ordinary course.
 */
#include "engine/soft/soft_priv.h"

#include "base/error.h"

#include <asm/prctl.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ALT_STACK_SIZE (64u << 10)

static __thread struct soft_vcpu *current;
static __thread void *alt_stack;

static const int signals[] = {SIGSEGV, SIGFPE, SIGILL, SIGBUS};
static struct sigaction previous[NSIG];

/* Where the kernel keeps each general register in a ucontext. */
static const uint8_t greg_of[CPU_GPRS] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                          REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                          REG_R12, REG_R13, REG_R14, REG_R15};

static const struct soft_record *find_record(const struct soft *s, const struct soft_block *b,
                                             const uint8_t *pc)
{
    uint32_t offset = (uint32_t)(pc - s->cache);

    for (uint32_t n = 0; n < b->n_records; n++) {
        if (b->records[n].host == offset)
            return &b->records[n];
    }
    return NULL;
}

/* The guest's exception for the host's, by the processor's own vector number. False: not one that a guest can
 * cause. */
static bool guest_fault(const struct soft_vcpu *c, uint64_t trap, struct soft_fault *f)
{
    *f = (struct soft_fault){.vector = (uint8_t)trap};
    switch (trap) {
    case VEC_DE:
    case VEC_UD:
    case VEC_MF:
        return true;
    case VEC_XM:
        if (!(c->cr4 & CR4_OSXMMEXCPT))
            f->vector = VEC_UD;
        return true;
    case VEC_GP:
    case VEC_SS:
        f->vector = VEC_GP;
        f->has_error = true;
        return true;
    default:
        return false;
    }
}

static bool handle(ucontext_t *uc)
{
    struct soft_vcpu *c = current;
    greg_t *g = uc->uc_mcontext.gregs;
    const uint8_t *pc = (const uint8_t *)g[REG_RIP];

    if (!c)
        return false;
    struct soft_block *b = soft_cache_block_at(c->soft, pc);
    const struct soft_record *r = b ? find_record(c->soft, b, pc) : NULL;
    struct soft_fault f;
    if (!r || !guest_fault(c, (uint64_t)g[REG_TRAPNO], &f))
        return false;
    for (unsigned n = 0; n < CPU_GPRS; n++) {
        if (r->slots & (1u << n))
            g[greg_of[n]] = (greg_t)c->gpr[n];
    }
    c->fault = f;
    c->rip = c->page_rip + b->rip + r->insn;
    g[REG_RIP] = (greg_t)c->soft->stubs.exit_fault;
    return true;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
    int saved = errno;

    if (!handle(context))
        sigaction(sig, &previous[sig], NULL); /* it happens again at once, and is treated as without us */
    errno = saved;
}

int soft_signals_install(struct error **err)
{
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
    static bool installed;
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    int rc = 0;

    pthread_mutex_lock(&once);
    sigfillset(&action.sa_mask);
    for (unsigned n = 0; !installed && rc == 0 && n < sizeof(signals) / sizeof(signals[0]); n++) {
        if (sigaction(signals[n], &action, &previous[signals[n]]) < 0)
            rc = error_set_errno(err, errno, "signal handlers");
    }
    installed = rc == 0;
    pthread_mutex_unlock(&once);
    return rc;
}

int soft_signals_thread_start(struct soft_vcpu *c, struct error **err)
{
    alt_stack = malloc(ALT_STACK_SIZE);
    if (!alt_stack)
        return error_set_errno(err, ENOMEM, "vCPU %u", c->index);
    stack_t stack = {.ss_sp = alt_stack, .ss_size = ALT_STACK_SIZE};
    if (sigaltstack(&stack, NULL) < 0 || syscall(SYS_arch_prctl, ARCH_SET_GS, c) < 0) {
        int e = errno;
        soft_signals_thread_end(c);
        return error_set_errno(err, e, "vCPU %u: thread state", c->index);
    }
    current = c;
    return 0;
}

void soft_signals_thread_end(struct soft_vcpu *c)
{
    stack_t stack = {.ss_flags = SS_DISABLE};

    current = NULL;
    sigaltstack(&stack, NULL);
    free(alt_stack);
    alt_stack = NULL;
}

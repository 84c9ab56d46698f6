/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a process becomes a stub (direct_stub.h), from inside: it is forked from the vCPU's thread while that
 * may still fork, so it has what confinement the VM process has; it makes the mapper, which shares its
 * memory, and then both give up the rest: descriptors, and all system calls but those of direct_stub_code.S.
 *
 * Only calls that the kernel executes: locks of the C library may have been taken by other threads.
 */
#include "base/bytes.h"
#include "engine/soft/direct_stub_priv.h"

#include <asm/prctl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAPPER_STACK 16384u
#define LOW(v)       ((uint32_t)(v))
#define HIGH(v)      ((uint32_t)((v) >> 32))

#define LOAD(field)        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOAD_HIGH(field)   BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field) + 4)
#define IF(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
#define RETURN(action)     BPF_STMT(BPF_RET | BPF_K, action)

/* As the kernel takes it. */
struct action {
    uint64_t handler, flags, restorer, mask;
};
#define RESTORER 0x04000000ull

#define NO_ARGUMENT 6u
#define MAX_FILTER  64u

struct plan {
    int own, memory_fd;
    uint64_t at;
};

static uint64_t place_of(const struct plan *plan, const uint8_t *label)
{
    return plan->at + (uint64_t)(label - direct_stub_code);
}

/* It executes nothing of the guest's. */
static int filter_mapper(void)
{
    struct sock_filter code[] = {
        LOAD(arch),
        IF(AUDIT_ARCH_X86_64, 0, 6),
        LOAD(nr),
        IF(SYS_mmap, 5, 0),
        IF(SYS_munmap, 4, 0),
        IF(SYS_futex, 3, 0),
        IF(SYS_sched_setaffinity, 2, 0),
        IF(SYS_exit_group, 1, 0),
        RETURN(SECCOMP_RET_KILL_PROCESS),
        RETURN(SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

/*
 * Each of its own calls from its one place; anything else is the guest's, and stops it by a signal. The
 * guest's code may jump to these places: then it waits, sets its own registers, has the TSC or not, chooses
 * among the host's processors, or ends.
 */
static void make_runners_filter(const struct plan *plan, struct sock_fprog *program)
{
    const struct {
        const uint8_t *after;
        uint32_t call, argument, value; /* that the call must have: which, and its lower half */
    } own[] = {{direct_stub_after_return, SYS_rt_sigreturn, NO_ARGUMENT, 0},
               {direct_stub_after_wake, SYS_futex, 1, FUTEX_WAKE},
               {direct_stub_after_wait, SYS_futex, 1, FUTEX_WAIT},
               {direct_stub_after_set_fs, SYS_arch_prctl, 0, ARCH_SET_FS},
               {direct_stub_after_set_gs, SYS_arch_prctl, 0, ARCH_SET_GS},
               {direct_stub_after_move, SYS_sched_setaffinity, 0, 0},
               {direct_stub_after_tsc, SYS_prctl, 0, PR_SET_TSC},
               {direct_stub_after_end, SYS_exit_group, 0, 0}};
    const struct sock_filter begin[] = {
        LOAD(arch),
        IF(AUDIT_ARCH_X86_64, 1, 0),
        RETURN(SECCOMP_RET_TRAP),
        LOAD_HIGH(instruction_pointer),
        IF(HIGH(plan->at), 1, 0),
        RETURN(SECCOMP_RET_TRAP),
    };
    struct sock_filter *code = program->filter;
    size_t n = ARRAY_SIZE(begin);

    memcpy(code, begin, sizeof(begin));
    for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
        bool any = own[i].argument == NO_ARGUMENT;
        const struct sock_filter allow[] = {
            LOAD(instruction_pointer),
            IF(LOW(place_of(plan, own[i].after)), 0, 5),
            LOAD(nr),
            IF(own[i].call, 0, 3),
            LOAD(args[any ? 0 : own[i].argument]),
            IF(own[i].value, 0, any ? 0 : 1),
            RETURN(SECCOMP_RET_ALLOW),
        };
        memcpy(&code[n], allow, sizeof(allow));
        n += ARRAY_SIZE(allow);
    }
    code[n++] = (struct sock_filter)RETURN(SECCOMP_RET_TRAP);
    program->len = (unsigned short)n;
}

static void close_but(int one, int other)
{
    int low = one < other ? one : other, high = one < other ? other : one;

    if (low > 0)
        syscall(SYS_close_range, 0, low - 1, 0);
    if (high > low + 1)
        syscall(SYS_close_range, low + 1, high - 1, 0);
    syscall(SYS_close_range, high + 1, ~0u, 0);
}

static _Noreturn void go_to(uint64_t place, const struct sock_fprog *filter)
{
    __asm__ volatile("jmp *%0" : : "r"(place), "d"(filter) : "memory");
    __builtin_unreachable();
}

static int be_mapper(void *opaque)
{
    const struct plan plan = *(const struct plan *)opaque;

    close_but(plan.own, plan.memory_fd);
    if (syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || filter_mapper() < 0)
        return 1;
    go_to(place_of(&plan, direct_stub_mapper), NULL);
}

/*
 * The guest's system calls, of which any may be one that an outer filter ends the process for: whoever has
 * begun the VM process may have set one, and the VM process has its own. The kernel (from 5.11 on) looks here
 * first.
 */
static void dispatch_calls(const struct plan *plan)
{
    syscall(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, plan->at, STUB_COMMANDS_AT, NULL);
}

/* Every signal stops the guest's code that is its own doing, and the kick; others wait for ever. */
static int take_signals(const struct plan *plan)
{
    static const int stops[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, STUB_KICK};
    const struct action action = {.handler = place_of(plan, direct_stub_handler),
                                  .flags = SA_SIGINFO | SA_ONSTACK | RESTORER,
                                  .restorer = place_of(plan, direct_stub_after_return),
                                  .mask = ~0ull};
    const stack_t stack = {
        .ss_sp = (void *)(plan->at + STUB_STACK_AT), /* NOLINT(performance-no-int-to-ptr) */
        .ss_size = STUB_STACK_SIZE,
        .ss_flags = (int)(1u << 31)}; /* SS_AUTODISARM: wherever the code's stack pointer is */
    uint64_t blocked = ~0ull;

    for (size_t n = 0; n < ARRAY_SIZE(stops); n++) {
        blocked &= ~(1ull << (stops[n] - 1));
        if (syscall(SYS_rt_sigaction, stops[n], &action, NULL, 8) < 0)
            return -1;
    }
    if (syscall(SYS_sigaltstack, &stack, NULL) < 0)
        return -1;
    return (int)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, NULL, 8);
}

static int map_own(const struct plan *plan)
{
    static const struct {
        uint64_t at, size;
        int prot;
    } parts[] = {{0, STUB_COMMANDS_AT, PROT_READ | PROT_EXEC},
                 {STUB_COMMANDS_AT, STUB_EXCHANGE_AT - STUB_COMMANDS_AT, PROT_READ},
                 {STUB_EXCHANGE_AT, STUB_SIZE - STUB_EXCHANGE_AT, PROT_READ | PROT_WRITE}};

    for (size_t n = 0; n < ARRAY_SIZE(parts); n++) {
        if (syscall(SYS_mmap, plan->at + parts[n].at, parts[n].size, parts[n].prot,
                    MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, plan->own, parts[n].at) < 0)
            return -1;
    }
    return 0;
}

/* The C library's registration points into memory that is about to go. */
static void forget_rseq(void)
{
    if (__rseq_size)
        syscall(SYS_rseq, (uint8_t *)__builtin_thread_pointer() + __rseq_offset, 32, RSEQ_FLAG_UNREGISTER,
                RSEQ_SIG);
}

_Noreturn void direct_stub_child(int own, uint64_t at, int memory_fd)
{
    uint8_t stack[MAPPER_STACK] __attribute__((aligned(16)));
    struct plan plan = {.own = own, .memory_fd = memory_fd, .at = at};
    struct stub_exchange *x =
        (struct stub_exchange *)(at + STUB_EXCHANGE_AT); /* NOLINT(performance-no-int-to-ptr) */
    struct sock_filter code[MAX_FILTER];
    struct sock_fprog filter = {.filter = code};
    const uint64_t all = ~0ull;

    forget_rseq();
    if (syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ||
        syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8) < 0 || map_own(&plan) < 0)
        syscall(SYS_exit_group, 1);
    syscall(SYS_prctl, PR_SET_NAME, "tabique-stub", 0, 0, 0);
    int mapper = clone(be_mapper, stack + sizeof(stack), CLONE_VM | CLONE_PARENT | SIGCHLD, &plan);
    atomic_store(&x->mapper, mapper);
    syscall(SYS_close_range, 0, ~0u, 0);
    if (mapper < 0 || take_signals(&plan) < 0)
        syscall(SYS_exit_group, 1);
    make_runners_filter(&plan, &filter);
    dispatch_calls(&plan);
    go_to(place_of(&plan, direct_stub_begin), &filter);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A stub's leader: how it is made, led and ended. direct_stub_child.c is the other side. */
#include "engine/soft/direct_stub.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "engine/soft/direct_stub_priv.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE         4096u
#define OWN_SIZE     (STUB_COPIES_AT + STUB_COPIES * PAGE)
#define MAX_COMMANDS ((STUB_EXCHANGE_AT - STUB_COMMANDS_AT - STUB_FIRST) / sizeof(struct stub_command) - 1)
#define LAST_COMMAND INT64_MIN

/* The stub's pages lie where programs have neither their heap nor their libraries. */
#define PLACE_FIRST 0x100000000000ull
#define PLACE_SPAN  0x400000000000ull

/* Who sleeps looks now and then whether the other is alive. */
#define LOOK_NS 100000000

/* The selectors of user code that the host's kernel has. */
#define USER_CS 0x33u
#define USER_SS 0x2bu

#define HWCAP2_BASES (1u << 1) /* user code may read the bases of FS and GS */

/* The frame of a signal, as the kernel lays it out: a ucontext, and then a siginfo. */
struct context {
    uint64_t flags, link, stack[3];
    uint64_t regs[16]; /* in the order of `place_in_frame` */
    uint64_t rip, rflags;
    uint16_t cs, gs, fs, ss;
    uint64_t error, vector, old_mask, cr2;
    uint64_t xsave; /* where the vector state is */
    uint64_t reserved[8];
    uint64_t mask;
    struct {
        int32_t number, error, code, unused;
        uint64_t address;
    } info;
};
_Static_assert(offsetof(struct context, info) == 304, "not the kernel's frame");

static const uint8_t place_in_frame[16] = {13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7};

/* In XSAVE's area. From XSAVE_OWN to the header the kernel keeps what it has to know of it. */
#define XSAVE_MXCSR      24u
#define XSAVE_MXCSR_MASK 28u
#define XSAVE_OWN        464u
#define XSAVE_OWN_SIZE   480u
#define XSAVE_HEADER     512u

static struct stub_exchange *exchange_of(const struct direct_stub *stub)
{
    return (struct stub_exchange *)(void *)(stub->shared + STUB_EXCHANGE_AT);
}

static struct context *context_of(const struct direct_stub *stub)
{
    return (struct context *)(void *)(stub->shared + stub->context);
}

/* ---- taking turns ---- */

static long futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
    return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

static bool has_ended(pid_t *pid)
{
    if (*pid > 0 && waitpid(*pid, NULL, WNOHANG | __WALL) == *pid)
        *pid = -1;
    return *pid < 0;
}

/* Until *word is no longer `value`. False: one of the stub's processes has ended. */
static bool sleep_while(struct direct_stub *stub, _Atomic uint32_t *word, uint32_t value)
{
    const struct timespec timeout = {.tv_nsec = LOOK_NS};

    while (atomic_load(word) == value) {
        if (futex(word, FUTEX_WAIT, value, &timeout) < 0 && errno == ETIMEDOUT &&
            (has_ended(&stub->runner) || has_ended(&stub->mapper)) && atomic_load(word) == value) {
            stub->dead = true;
            return false;
        }
    }
    return true;
}

static bool wait_for_stop(struct direct_stub *stub)
{
    return sleep_while(stub, &exchange_of(stub)->turn, STUB_RUNS);
}

static void let_run(struct direct_stub *stub)
{
    struct stub_exchange *x = exchange_of(stub);

    atomic_store(&x->begun, 0);
    atomic_store(&x->turn, STUB_RUNS);
    futex(&x->turn, FUTEX_WAKE, 1, NULL);
}

/* ---- commands ---- */

static struct stub_command *command_at(const struct direct_stub *stub, unsigned n)
{
    return (struct stub_command *)(void *)(stub->shared + STUB_COMMANDS_AT + STUB_FIRST) + n;
}

static void publish(struct direct_stub *stub)
{
    _Atomic uint32_t *sequence =
        (_Atomic uint32_t *)(void *)(stub->shared + STUB_COMMANDS_AT + STUB_SEQUENCE);

    command_at(stub, stub->queued)->call = LAST_COMMAND;
    stub->queued = 0;
    atomic_store(sequence, ++stub->sequence);
    futex(sequence, FUTEX_WAKE, 1, NULL);
}

int direct_stub_apply(struct direct_stub *stub)
{
    struct stub_exchange *x = exchange_of(stub);
    uint32_t before = stub->sequence;

    if (!stub->queued)
        return 0;
    publish(stub);
    if (!sleep_while(stub, &x->done, before))
        return -ESRCH;
    int64_t result = x->result;
    return result < 0 && result > -4096 ? (int)result : 0;
}

static int queue(struct direct_stub *stub, const struct stub_command *command)
{
    *command_at(stub, stub->queued++) = *command;
    return stub->queued == MAX_COMMANDS ? direct_stub_apply(stub) : 0;
}

static int queue_map(struct direct_stub *stub, uint64_t address, uint64_t length, int prot, int fd,
                     uint64_t offset)
{
    const struct stub_command c = {
        SYS_mmap,
        {address, length, (uint64_t)prot, MAP_SHARED | MAP_FIXED | MAP_POPULATE, (uint64_t)fd, offset}};
    return queue(stub, &c);
}

int direct_stub_map(struct direct_stub *stub, uint64_t address, uint64_t length, int prot, uint64_t offset)
{
    return queue_map(stub, address, length, prot, stub->memory_fd, offset);
}

int direct_stub_map_copy(struct direct_stub *stub, uint64_t address, int prot, unsigned number)
{
    return queue_map(stub, address, PAGE, prot, stub->own_fd, STUB_COPIES_AT + (uint64_t)number * PAGE);
}

uint8_t *direct_stub_copy(const struct direct_stub *stub, unsigned number)
{
    return stub->shared + STUB_COPIES_AT + (size_t)number * PAGE;
}

int direct_stub_unmap(struct direct_stub *stub, uint64_t address, uint64_t length)
{
    const struct stub_command c = {SYS_munmap, {address, length}};
    return queue(stub, &c);
}

int direct_stub_move(struct direct_stub *stub, unsigned cpu)
{
    const struct stub_command c = {SYS_sched_setaffinity,
                                   {0, sizeof(cpu_set_t), stub->at + STUB_COMMANDS_AT + STUB_PROCESSORS}};
    cpu_set_t one;

    _Static_assert(sizeof(one) == STUB_FIRST - STUB_PROCESSORS, "a set of processors has another size");
    if (cpu >= CPU_SETSIZE)
        return 0;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    memcpy(stub->shared + STUB_COMMANDS_AT + STUB_PROCESSORS, &one, sizeof(one));
    stub->set |= STUB_SET_PROCESSORS;
    return queue(stub, &c);
}

void direct_stub_hide_tsc(struct direct_stub *stub, bool hide)
{
    if (stub->tsc_hidden == hide)
        return;
    stub->tsc_hidden = hide;
    exchange_of(stub)->tsc = hide ? PR_TSC_SIGSEGV : PR_TSC_ENABLE;
    stub->set |= STUB_SET_TSC;
}

bool direct_stub_occupies(const struct direct_stub *stub, uint64_t address, uint64_t length)
{
    return address < stub->at + STUB_SIZE && stub->at < address + length;
}

int direct_stub_unmap_all(struct direct_stub *stub)
{
    uint64_t after = stub->at + STUB_SIZE;
    int rc = direct_stub_unmap(stub, 0, stub->at);

    if (rc == 0)
        rc = direct_stub_unmap(stub, after, DIRECT_USER_END - after);
    return rc;
}

/* ---- running ---- */

/* What the runner has in its segment registers is in the exchange, from when it stopped. */
static void give_segments(struct direct_stub *stub, const struct direct_registers *regs)
{
    struct stub_exchange *x = exchange_of(stub);

    if (x->ds != regs->ds || x->es != regs->es)
        stub->set |= STUB_SET_SEGMENTS;
    if (x->fs || x->fs_base != regs->fs_base)
        stub->set |= STUB_SET_FS_BASE;
    if (x->gs || x->gs_base != regs->gs_base)
        stub->set |= STUB_SET_GS_BASE;
    x->ds = regs->ds;
    x->es = regs->es;
    x->fs_base = regs->fs_base;
    x->gs_base = regs->gs_base;
    x->set = stub->set;
    stub->set = 0;
}

static void give_registers(struct direct_stub *stub, const struct direct_registers *regs)
{
    struct context *context = context_of(stub);

    for (unsigned n = 0; n < ARRAY_SIZE(place_in_frame); n++)
        context->regs[place_in_frame[n]] = regs->gpr[n];
    context->rip = regs->rip;
    context->rflags = regs->rflags;
    context->cs = regs->cs;
    context->ss = USER_SS;
    give_segments(stub, regs);
}

static void take_registers(const struct direct_stub *stub, struct direct_registers *regs)
{
    const struct context *context = context_of(stub);
    const struct stub_exchange *x = exchange_of(stub);

    for (unsigned n = 0; n < ARRAY_SIZE(place_in_frame); n++)
        regs->gpr[n] = context->regs[place_in_frame[n]];
    regs->rip = context->rip;
    regs->rflags = context->rflags;
    regs->cs = context->cs;
    regs->ds = x->ds;
    regs->es = x->es;
    regs->fs = x->fs;
    regs->gs = x->gs;
    /* Without instructions for that it can only have loaded a selector, whose base is zero. */
    regs->fs_base = x->has_bases || !x->fs ? x->fs_base : 0;
    regs->gs_base = x->has_bases || !x->gs ? x->gs_base : 0;
}

/* All that it has used since its last stop was for the code, but for what that took to begin and to stop. */
static void read_clock(struct direct_stub *stub)
{
    struct timespec t;

    if (clock_gettime(stub->clock, &t) < 0) /* it has ended */
        return;
    uint64_t now = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
    stub->ran = now - stub->used;
    stub->used = now;
}

enum direct_stop direct_stub_run(struct direct_stub *stub, struct direct_registers *regs)
{
    const struct context *context = context_of(stub);
    const struct stub_exchange *x = exchange_of(stub);

    give_registers(stub, regs);
    let_run(stub);
    if (!wait_for_stop(stub))
        return atomic_load(&x->begun) ? DIRECT_STOP_DEAD : DIRECT_STOP_GONE;
    read_clock(stub);
    if (x->context != stub->at + stub->context) { /* nobody but the code itself can have done that */
        stub->dead = true;
        return DIRECT_STOP_DEAD;
    }
    take_registers(stub, regs);
    switch (x->signal) {
    case SIGSYS: /* otherwise the host's kernel has begun to emulate a vsyscall */
        return context->info.address == context->rip ? DIRECT_STOP_SYSCALL : DIRECT_STOP_SIGNAL;
    case STUB_KICK:
        return DIRECT_STOP_KICK;
    default:
        return DIRECT_STOP_SIGNAL;
    }
}

int direct_stub_signal(const struct direct_stub *stub, int *code, uint64_t *address)
{
    const struct context *context = context_of(stub);

    *code = context->info.code;
    *address = context->info.address;
    return (int)exchange_of(stub)->signal;
}

void direct_stub_get_xstate(const struct direct_stub *stub, uint8_t *xsave, size_t size)
{
    memcpy(xsave, stub->shared + stub->xsave, size);
    /* What a processor would refuse to load, nobody but the code itself can have put there. */
    put_le32(xsave + XSAVE_MXCSR, get_le32(xsave + XSAVE_MXCSR) & stub->mxcsr_mask);
}

void direct_stub_set_xstate(struct direct_stub *stub, const uint8_t *xsave, size_t size)
{
    uint8_t *to = stub->shared + stub->xsave;

    memcpy(to, xsave, XSAVE_OWN);
    memcpy(to + XSAVE_HEADER, xsave + XSAVE_HEADER, size - XSAVE_HEADER);
}

void direct_stub_kick(int pidfd)
{
    syscall(SYS_pidfd_send_signal, pidfd, STUB_KICK, NULL, 0);
}

/* ---- making ---- */

static int choose_place(uint64_t *at)
{
    uint64_t random;

    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return -errno;
    *at = (PLACE_FIRST + random % PLACE_SPAN) & ~(uint64_t)(PAGE - 1);
    return 0;
}

/* Of its first stop, at which nothing of the guest's has run: what the kernel says there can be believed. */
static int find_frame(struct direct_stub *stub)
{
    const struct stub_exchange *x = exchange_of(stub);
    uint64_t at = x->context - stub->at;

    if (x->signal != SIGTRAP || at < STUB_STACK_AT || at > STUB_SIZE - sizeof(struct context))
        return -EIO;
    stub->context = (uint32_t)at;
    at = context_of(stub)->xsave - stub->at;
    if (at < STUB_STACK_AT || at > STUB_SIZE - XSAVE_HEADER)
        return -EIO;
    stub->xsave = (uint32_t)at;
    if (get_le32(stub->shared + at + XSAVE_OWN_SIZE) > STUB_SIZE - at)
        return -EIO;
    uint32_t mask = get_le32(stub->shared + at + XSAVE_MXCSR_MASK);
    stub->mxcsr_mask = mask ? mask : 0xffbf; /* SDM vol. 1 11.6.6 */
    return 0;
}

/* That it stops when it is told to: some hosts' lists of system calls do not have this one. */
static int try_kick(struct direct_stub *stub, struct error **err)
{
    struct direct_registers regs = {.cs = USER_CS, .rflags = 0x202};

    if (syscall(SYS_pidfd_send_signal, stub->pidfd, STUB_KICK, NULL, 0) < 0)
        return error_set_errno(err, errno, "direct execution: pidfd_send_signal");
    if (direct_stub_run(stub, &regs) != DIRECT_STOP_KICK)
        return error_set(err, EIO, "direct execution: a signal does not stop a process of its own");
    return 0;
}

/* Stopped, and with nothing left of ours. */
static int tame(struct direct_stub *stub, struct error **err)
{
    bool stopped = wait_for_stop(stub);

    stub->mapper = atomic_load(&exchange_of(stub)->mapper);
    if (!stopped)
        return error_set(
            err, EPERM,
            "direct execution: this host does not let a process share its memory with another and give up "
            "its other rights");
    int rc = clock_getcpuclockid(stub->runner, &stub->clock);
    rc = rc ? -rc : find_frame(stub);
    if (rc == 0)
        rc = direct_stub_unmap_all(stub);
    if (rc == 0)
        rc = direct_stub_apply(stub);
    if (rc)
        return error_set_errno(err, -rc, "direct execution: leading a process of its own");
    return try_kick(stub, err);
}

int direct_stub_create(struct direct_stub *stub, int memory_fd, struct error **err)
{
    *stub = (struct direct_stub){.pidfd = -1, .memory_fd = memory_fd};
    cleanup_close int own = memfd_create("stub", MFD_CLOEXEC);
    void *shared = MAP_FAILED;
    if (own >= 0 && ftruncate(own, OWN_SIZE) == 0)
        shared = mmap(NULL, OWN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, own, 0);
    if (shared == MAP_FAILED)
        return error_set_errno(err, errno, "direct execution: memory");
    stub->shared = shared;
    stub->own_fd = own;
    memcpy(stub->shared, direct_stub_code, (size_t)(direct_stub_code_end - direct_stub_code));
    exchange_of(stub)->has_bases = getauxval(AT_HWCAP2) & HWCAP2_BASES ? 1 : 0;
    int rc = choose_place(&stub->at);
    if (rc < 0)
        return error_set_errno(err, -rc, "direct execution: random number");
    long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &stub->pidfd, NULL, NULL);
    if (pid == 0)
        direct_stub_child(own, stub->at, memory_fd);
    if (pid < 0)
        return error_set_errno(err, errno, "direct execution: a process");
    stub->runner = (pid_t)pid;
    return tame(stub, err);
}

void direct_stub_destroy(struct direct_stub *stub)
{
    if (stub->mapper > 0) {
        const struct stub_command end = {SYS_exit_group, {0}};
        stub->queued = 0;
        *command_at(stub, stub->queued++) = end;
        publish(stub);
        waitpid(stub->mapper, NULL, __WALL);
    }
    if (stub->runner > 0) {
        if (syscall(SYS_pidfd_send_signal, stub->pidfd, SIGKILL, NULL, 0) <
            0) { /* not permitted: it waits for us */
            exchange_of(stub)->set = STUB_SET_END;
            let_run(stub);
        }
        waitpid(stub->runner, NULL, __WALL);
    }
    if (stub->pidfd >= 0)
        close(stub->pidfd);
    if (stub->shared)
        munmap(stub->shared, OWN_SIZE);
    *stub = (struct direct_stub){.pidfd = -1};
}

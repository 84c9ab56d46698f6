/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stub's process: how it comes into being, what it may do, and how it is led.
 *
 * It is forked from the vCPU's thread while that may still fork, so that it has what confinement the VM
 * process has, and then gives up the rest: every descriptor but the guest's memory and its own, every system
 * call but those that its loop makes, and its memory. PTRACE_SYSEMU keeps the guest's system calls from the
 * host's kernel; the list of three calls stands behind it.
 */
#include "engine/soft/direct_stub.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <elf.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE        4096u
#define KICK        SIGUSR1
#define LOOP_OFFSET 16
#define XSTATE_MAX  (16u << 10)
#define COPIES_AT   (2 * PAGE)
#define OWN_SIZE    (COPIES_AT + STUB_COPIES * PAGE)

/* The stub's pages lie where programs have neither their heap nor their libraries. */
#define PLACE_FIRST 0x100000000000ull
#define PLACE_SPAN  0x400000000000ull

/* What the loop reads: a system call and its arguments, until a negative number. */
struct command {
    int64_t call;
    uint64_t args[6];
};
/* At the end of that page. */
struct processors {
    unsigned long mask[16];
};
#define PROCESSORS_AT (PAGE - sizeof(struct processors))
#define MAX_COMMANDS  (PROCESSORS_AT / sizeof(struct command) - 1)
#define LAST_COMMAND  INT64_MIN

/*
 *  0   int3
 *  16  next: mov rax, [rbx]; test rax, rax; js end; (arguments from rbx); syscall
 *            cmp rax, -4095; jae end; add rbx, 56; jmp next
 *      end:  int3
 */
static const uint8_t loop_code[] = {
    0x48, 0x8b, 0x03,                   /* mov rax, [rbx] */
    0x48, 0x85, 0xc0,                   /* test rax, rax */
    0x78, 0x28,                         /* js end */
    0x48, 0x8b, 0x7b, 0x08,             /* mov rdi, [rbx + 8] */
    0x48, 0x8b, 0x73, 0x10,             /* mov rsi, [rbx + 16] */
    0x48, 0x8b, 0x53, 0x18,             /* mov rdx, [rbx + 24] */
    0x4c, 0x8b, 0x53, 0x20,             /* mov r10, [rbx + 32] */
    0x4c, 0x8b, 0x43, 0x28,             /* mov r8, [rbx + 40] */
    0x4c, 0x8b, 0x4b, 0x30,             /* mov r9, [rbx + 48] */
    0x0f, 0x05,                         /* syscall */
    0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, /* cmp rax, -4095 */
    0x73, 0x06,                         /* jae end */
    0x48, 0x83, 0xc3, 0x38,             /* add rbx, 56 */
    0xeb, 0xd0,                         /* jmp next */
    0xcc,                               /* end: int3 */
};

/* ---- the child ---- */

/* Anything else is a signal, which stops the stub: the kernel's emulation of old vsyscalls comes by here. */
static int keep_three_calls(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munmap, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_setaffinity, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};

    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

/* The C library's registration points into memory that is about to go. */
static void forget_rseq(void)
{
    if (__rseq_size)
        syscall(SYS_rseq, (uint8_t *)__builtin_thread_pointer() + __rseq_offset, 32, RSEQ_FLAG_UNREGISTER,
                RSEQ_SIG);
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

/* `own`: the file of the stub's two pages and of copies. Only calls that the kernel executes: locks of the C
 * library may have been taken by other threads. */
static _Noreturn void child(int own, uint64_t at, int memory_fd)
{
    sigset_t none;

    sigemptyset(&none);
    forget_rseq();
    if (syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ||
        syscall(SYS_prctl, PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) < 0 ||
        syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8) < 0 ||
        syscall(SYS_mmap, at, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, own, 0) < 0 ||
        syscall(SYS_mmap, at + PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, own, PAGE) < 0)
        syscall(SYS_exit_group, 1);
    syscall(SYS_prctl, PR_SET_NAME, "tabique-stub", 0, 0, 0);
    close_but(own, memory_fd);
    if (syscall(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0) < 0 || keep_three_calls() < 0)
        syscall(SYS_exit_group, 1);
    __asm__ volatile("jmp *%0" : : "r"(at));
    __builtin_unreachable();
}

/* ---- its tracer ---- */

/* The next stop, in stub->wait_status. False: the process is gone. */
static bool wait_for_stop(struct direct_stub *stub)
{
    pid_t got;

    do {
        got = wait4(stub->pid, &stub->wait_status, __WALL, NULL);
    } while (got < 0 && errno == EINTR);
    if (got != stub->pid || !WIFSTOPPED(stub->wait_status)) {
        stub->dead = true;
        return false;
    }
    return true;
}

uint64_t direct_stub_used(struct direct_stub *stub)
{
    struct timespec t;

    if (clock_gettime(stub->clock, &t) < 0) /* it has ended */
        return 0;
    uint64_t now = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec, used = now - stub->used;
    stub->used = now;
    return used;
}

static struct command *command_at(struct direct_stub *stub, unsigned n)
{
    return (struct command *)(void *)(stub->shared + PAGE) + n;
}

int direct_stub_apply(struct direct_stub *stub)
{
    struct user_regs_struct regs = {.rip = stub->at + LOOP_OFFSET,
                                    .rbx = stub->at + PAGE,
                                    .orig_rax = UINT64_MAX,
                                    .eflags = 0x202,
                                    .cs = 0x33,
                                    .ss = 0x2b};

    if (!stub->queued)
        return 0;
    command_at(stub, stub->queued)->call = LAST_COMMAND;
    stub->queued = 0;
    if (ptrace(PTRACE_SETREGS, stub->pid, 0, &regs) < 0)
        return -errno;
    do { /* a kick that came late waits for the next run */
        if (ptrace(PTRACE_CONT, stub->pid, 0, 0) < 0)
            return -errno;
        if (!wait_for_stop(stub))
            return -ESRCH;
    } while (WSTOPSIG(stub->wait_status) == KICK);
    direct_stub_used(stub); /* commands are not the guest's code */
    if (ptrace(PTRACE_GETREGS, stub->pid, 0, &regs) < 0)
        return -errno;
    if (WSTOPSIG(stub->wait_status) != SIGTRAP || regs.rip != stub->at + LOOP_OFFSET + sizeof(loop_code))
        return -EIO;
    return regs.rax > -4096ull ? (int)regs.rax : 0;
}

static int queue(struct direct_stub *stub, const struct command *command)
{
    *command_at(stub, stub->queued++) = *command;
    return stub->queued == MAX_COMMANDS ? direct_stub_apply(stub) : 0;
}

static int queue_map(struct direct_stub *stub, uint64_t address, uint64_t length, int prot, int fd,
                     uint64_t offset)
{
    const struct command c = {
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
    return queue_map(stub, address, PAGE, prot, stub->own_fd, COPIES_AT + (uint64_t)number * PAGE);
}

uint8_t *direct_stub_copy(const struct direct_stub *stub, unsigned number)
{
    return stub->shared + COPIES_AT + (size_t)number * PAGE;
}

int direct_stub_unmap(struct direct_stub *stub, uint64_t address, uint64_t length)
{
    const struct command c = {SYS_munmap, {address, length}};
    return queue(stub, &c);
}

int direct_stub_move(struct direct_stub *stub, unsigned cpu)
{
    struct processors *on = (struct processors *)(void *)(stub->shared + PAGE + PROCESSORS_AT);
    const unsigned bits = 8 * sizeof(on->mask[0]);
    const struct command c = {SYS_sched_setaffinity, {0, sizeof(*on), stub->at + PAGE + PROCESSORS_AT}};

    if (cpu >= bits * ARRAY_SIZE(on->mask))
        return 0;
    memset(on, 0, sizeof(*on));
    on->mask[cpu / bits] = 1ul << cpu % bits;
    return queue(stub, &c);
}

bool direct_stub_occupies(const struct direct_stub *stub, uint64_t address, uint64_t length)
{
    return address < stub->at + 2 * PAGE && stub->at < address + length;
}

int direct_stub_unmap_all(struct direct_stub *stub)
{
    uint64_t after = stub->at + 2 * PAGE;
    int rc = direct_stub_unmap(stub, 0, stub->at);

    if (rc == 0)
        rc = direct_stub_unmap(stub, after, DIRECT_USER_END - after);
    return rc;
}

enum direct_stop direct_stub_run(struct direct_stub *stub, struct user_regs_struct *regs)
{
    if (ptrace(PTRACE_SETREGS, stub->pid, 0, regs) < 0 || ptrace(PTRACE_SYSEMU, stub->pid, 0, 0) < 0) {
        stub->dead = true;
        return DIRECT_STOP_GONE;
    }
    if (!wait_for_stop(stub) || ptrace(PTRACE_GETREGS, stub->pid, 0, regs) < 0) {
        stub->dead = true;
        return DIRECT_STOP_DEAD;
    }
    switch (WSTOPSIG(stub->wait_status)) {
    case SIGTRAP | 0x80:
        return DIRECT_STOP_SYSCALL;
    case KICK:
        return DIRECT_STOP_KICK;
    default:
        return DIRECT_STOP_SIGNAL;
    }
}

int direct_stub_signal(struct direct_stub *stub, int *code, uint64_t *address)
{
    siginfo_t info = {0};

    if (ptrace(PTRACE_GETSIGINFO, stub->pid, 0, &info) < 0)
        stub->dead = true;
    *code = info.si_code;
    *address = (uint64_t)(uintptr_t)info.si_addr;
    return WSTOPSIG(stub->wait_status);
}

int direct_stub_get_xstate(struct direct_stub *stub, uint8_t *xsave, size_t size)
{
    struct iovec part = {xsave, size};

    return ptrace(PTRACE_GETREGSET, stub->pid, NT_X86_XSTATE, &part) < 0 ? -errno : 0;
}

int direct_stub_set_xstate(struct direct_stub *stub, const uint8_t *xsave, size_t size)
{
    uint8_t whole[XSTATE_MAX] __attribute__((aligned(64)));
    struct iovec part = {whole, stub->xstate_size};

    memcpy(whole, xsave, size);
    memset(whole + size, 0, stub->xstate_size - size);
    return ptrace(PTRACE_SETREGSET, stub->pid, NT_X86_XSTATE, &part) < 0 ? -errno : 0;
}

void direct_stub_kick(int pidfd)
{
    syscall(SYS_pidfd_send_signal, pidfd, KICK, NULL, 0);
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

/* Traced, stopped and with nothing left of ours. */
static int tame(struct direct_stub *stub)
{
    uint8_t whole[XSTATE_MAX];
    struct iovec part = {whole, sizeof(whole)};

    if (!wait_for_stop(stub) || WSTOPSIG(stub->wait_status) != SIGTRAP)
        return -EPERM;
    if (ptrace(PTRACE_SETOPTIONS, stub->pid, 0, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD) < 0 ||
        ptrace(PTRACE_GETREGSET, stub->pid, NT_X86_XSTATE, &part) < 0)
        return -errno;
    stub->xstate_size = part.iov_len;
    int rc = direct_stub_unmap_all(stub);
    return rc ? rc : direct_stub_apply(stub);
}

int direct_stub_create(struct direct_stub *stub, int memory_fd, struct error **err)
{
    *stub = (struct direct_stub){.pid = -1, .pidfd = -1, .memory_fd = memory_fd};
    cleanup_close int own = memfd_create("stub", MFD_CLOEXEC);
    void *shared = MAP_FAILED;
    if (own >= 0 && ftruncate(own, OWN_SIZE) == 0)
        shared = mmap(NULL, OWN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, own, 0);
    if (shared == MAP_FAILED)
        return error_set_errno(err, errno, "direct execution: memory");
    stub->shared = shared;
    stub->own_fd = own;
    stub->shared[0] = 0xcc;
    memcpy(stub->shared + LOOP_OFFSET, loop_code, sizeof(loop_code));
    int rc = choose_place(&stub->at);
    if (rc < 0)
        return error_set_errno(err, -rc, "direct execution: random number");
    long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &stub->pidfd, NULL, NULL);
    if (pid == 0)
        child(own, stub->at, memory_fd);
    if (pid < 0)
        return error_set_errno(err, errno, "direct execution: a process");
    stub->pid = (pid_t)pid;
    rc = clock_getcpuclockid(stub->pid, &stub->clock);
    rc = rc ? -rc : tame(stub);
    if (rc < 0)
        return error_set_errno(err, -rc,
                               "direct execution: this host does not let a process trace its child");
    return 0;
}

void direct_stub_destroy(struct direct_stub *stub)
{
    if (stub->pid > 0) {
        syscall(SYS_pidfd_send_signal, stub->pidfd, SIGKILL, NULL, 0);
        while (waitpid(stub->pid, &stub->wait_status, __WALL) == stub->pid && WIFSTOPPED(stub->wait_status))
            ;
    }
    if (stub->pidfd >= 0)
        close(stub->pidfd);
    if (stub->shared)
        munmap(stub->shared, OWN_SIZE);
    *stub = (struct direct_stub){.pid = -1, .pidfd = -1};
}

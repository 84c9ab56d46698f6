/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The native side: runs code on the host's own processor in this process and reports the state in which it
 * was stopped. Called by the test's one working thread; a watchdog thread stops what does not end.
 */
#include "diff.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* Of native_entry.S. */
void *diff_native_enter(void *frame, const struct diff_state *in);
void diff_native_signal(int signo, siginfo_t *info, void *context);
void diff_native_restorer(void);
extern uint8_t diff_native_bad_frame[];
extern uint64_t diff_native_bases[2];
extern uint16_t diff_native_segs[4];
extern volatile uint32_t diff_native_active;
extern int diff_native_signo;
extern void (*diff_native_chain[65])(int, siginfo_t *, void *);
void (*diff_native_chain[65])(int, siginfo_t *, void *);

_Static_assert(offsetof(struct diff_state, fs_base) == 144, "native_entry.S");
_Static_assert(offsetof(struct diff_state, gs_base) == 152, "native_entry.S");
_Static_assert(offsetof(struct diff_state, seg) == 160, "native_entry.S");

/* struct sigaction as rt_sigaction(2) takes it. */
struct kernel_sigaction {
    void *handler;
    unsigned long flags;
    void *restorer;
    uint64_t mask;
};
#define KERNEL_SA_RESTORER 0x04000000ul
/* The kernel's ucontext ends after 8 bytes of signal mask; glibc's has more. */
#define KERNEL_UCONTEXT (offsetof(ucontext_t, uc_sigmask) + 8)
/* Linux describes the rest in the legacy area's last bytes: struct _fpx_sw_bytes of its sigcontext.h. */
#define SW_RESERVED 464
#define SW_SIZE     468  /* of the whole, with the closing magic number */
#define FRAME_FPU   8192 /* every known component, with room */

static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGALRM};
static ucontext_t frame;
static uint8_t frame_fpu[FRAME_FPU] __attribute__((aligned(64)));
static uint32_t fpu_size;
static uint64_t runs;
static struct diff_memory *memory;

static const uint8_t order[CPU_GPRS] = {
    [CPU_RAX] = REG_RAX, [CPU_RCX] = REG_RCX, [CPU_RDX] = REG_RDX, [CPU_RBX] = REG_RBX,
    [CPU_RSP] = REG_RSP, [CPU_RBP] = REG_RBP, [CPU_RSI] = REG_RSI, [CPU_RDI] = REG_RDI,
    [CPU_R8] = REG_R8,   [CPU_R9] = REG_R9,   [CPU_R10] = REG_R10, [CPU_R11] = REG_R11,
    [CPU_R12] = REG_R12, [CPU_R13] = REG_R13, [CPU_R14] = REG_R14, [CPU_R15] = REG_R15,
};

static void unexpected_signal(int signo, siginfo_t *info, void *context)
{
    const ucontext_t *u = context;
    char text[128];
    int n = snprintf(text, sizeof(text), "diff: signal %d at 0x%llx, address %p\n", signo,
                     (unsigned long long)u->uc_mcontext.gregs[REG_RIP], info->si_addr);

    if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0)
        _exit(98);
    _exit(99);
}

/* In the thread's own time: a busy host lets it wait for long. */
static void *watchdog(void *thread)
{
    uint64_t seen = 0, since = 0;
    clockid_t clock;

    if (pthread_getcpuclockid(*(pthread_t *)thread, &clock))
        return NULL;
    for (;;) {
        struct timespec t;

        usleep(200000);
        uint64_t now = __atomic_load_n(&runs, __ATOMIC_RELAXED);
        clock_gettime(clock, &t);
        uint64_t used = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
        if (now != seen) {
            seen = now;
            since = used;
        } else if (used - since >= 400 && diff_native_active) {
            pthread_kill(*(pthread_t *)thread, SIGALRM);
            since = used;
        }
    }
    return NULL;
}

static int install_signals(void)
{
    static uint8_t stack[65536] __attribute__((aligned(64)));
    stack_t alt = {.ss_sp = stack, .ss_size = sizeof(stack)};

    if (sigaltstack(&alt, NULL) < 0)
        return -errno;
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        struct kernel_sigaction old, act = {
                                         .handler = (void *)diff_native_signal,
                                         .flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | KERNEL_SA_RESTORER,
                                         .restorer = (void *)diff_native_restorer,
                                     };

        if (syscall(SYS_rt_sigaction, signals[i], NULL, &old, 8) < 0)
            return -errno;
        bool handled = old.handler != (void *)SIG_DFL && old.handler != (void *)SIG_IGN;
        memcpy(&diff_native_chain[signals[i]], handled ? &old.handler : &(void *){(void *)unexpected_signal},
               sizeof(void *));
        if (syscall(SYS_rt_sigaction, signals[i], &act, NULL, 8) < 0)
            return -errno;
    }
    return 0;
}

/* Every signal frame after this one is made from what the kernel writes into the first. */
static int learn_frame(void)
{
    const ucontext_t *u = diff_native_enter(NULL, NULL);

    memcpy(&frame, u, KERNEL_UCONTEXT);
    memcpy(&fpu_size, (const uint8_t *)u->uc_mcontext.fpregs + SW_SIZE, 4);
    if (fpu_size < 832 || fpu_size > FRAME_FPU) {
        fprintf(stderr, "diff: the host's signal frame has %u bytes of FPU state\n", fpu_size);
        return -EINVAL;
    }
    memcpy(frame_fpu, u->uc_mcontext.fpregs, fpu_size);
    memset(frame_fpu + 512, 0, 64);
    frame.uc_mcontext.fpregs = (void *)frame_fpu;
    return 0;
}

static int map_window(uint64_t base, int data_fd)
{
    /* Populated: what a page fault's error code says depends on whether the page is there. */
    const int flags = MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE;

    for (uint64_t page = 0; page < 8; page++) {
        int n = diff_data_page(page);
        int prot = n < DIFF_RW_PAGES ? PROT_READ | PROT_WRITE : PROT_READ;

        if (n >= 0 && mmap((void *)(base + page * DIFF_PAGE), DIFF_PAGE, prot, flags, data_fd,
                           n * (off_t)DIFF_PAGE) == MAP_FAILED)
            return -errno;
    }
    for (unsigned g = 0; g < DIFF_GROUPS; g++)
        if (mmap((void *)(base + DIFF_CODE + g * DIFF_GROUP), DIFF_GROUP_CODE, PROT_READ | PROT_EXEC, flags,
                 memory->ram->fd, (off_t)(memory->code_gpa + g * DIFF_GROUP_CODE)) == MAP_FAILED)
            return -errno;
    return 0;
}

static int native_open(struct diff_memory *mem)
{
    static pthread_t self;
    pthread_t dog;
    cpu_set_t one;
    int fd = memfd_create("diff-data", MFD_CLOEXEC);

    memory = mem;
    if (fd < 0 || ftruncate(fd, DIFF_DATA_SIZE) < 0)
        return -errno;
    mem->native_data = mmap(NULL, DIFF_DATA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (mem->native_data == MAP_FAILED)
        return -errno;
    int rc = map_window(DIFF_LOW, fd);
    if (!rc)
        rc = map_window(DIFF_HIGH, fd);
    if (rc)
        return rc;
    /* LSL of Linux's per-CPU descriptor tells the CPU: stay on one. */
    CPU_ZERO(&one);
    CPU_SET((unsigned)sched_getcpu(), &one);
    sched_setaffinity(0, sizeof(one), &one);
    rc = install_signals();
    if (!rc)
        rc = learn_frame();
    self = pthread_self();
    if (!rc)
        rc = -pthread_create(&dog, NULL, watchdog, &self);
    return rc;
}

static void native_run(const struct diff_state *in, bool step, struct diff_result *out)
{
    greg_t *g = frame.uc_mcontext.gregs;

    for (unsigned i = 0; i < CPU_GPRS; i++)
        g[order[i]] = (greg_t)in->gpr[i];
    g[REG_RIP] = (greg_t)in->rip;
    g[REG_EFL] = (greg_t)(in->rflags | (step ? 0x100 : 0));
    g[REG_CSGSFS] = (greg_t)(in->seg[CPU_CS] | (uint64_t)in->seg[CPU_SS] << 48);
    memcpy(frame_fpu, in->xsave, SW_RESERVED);
    memcpy(frame_fpu + 512, in->xsave + 512, 8);
    memcpy(frame_fpu + 576, in->xsave + 576, 256);

    __atomic_store_n(&runs, runs + 1, __ATOMIC_RELAXED);
    const ucontext_t *u = diff_native_enter(&frame, in);

    const greg_t *e = u->uc_mcontext.gregs;
    const uint8_t *fpu = (const void *)u->uc_mcontext.fpregs;
    for (unsigned i = 0; i < CPU_GPRS; i++)
        out->state.gpr[i] = (uint64_t)e[order[i]];
    out->state.rip = (uint64_t)e[REG_RIP];
    out->state.rflags = (uint64_t)e[REG_EFL];
    out->state.seg[CPU_CS] = (uint16_t)e[REG_CSGSFS];
    out->state.seg[CPU_SS] = (uint16_t)((uint64_t)e[REG_CSGSFS] >> 48);
    out->state.seg[CPU_ES] = diff_native_segs[0];
    out->state.seg[CPU_DS] = diff_native_segs[1];
    out->state.seg[CPU_FS] = diff_native_segs[2];
    out->state.seg[CPU_GS] = diff_native_segs[3];
    out->state.fs_base = diff_native_bases[0];
    out->state.gs_base = diff_native_bases[1];
    memcpy(out->state.xsave, fpu, 832);
    out->vector = (uint8_t)e[REG_TRAPNO];
    out->error = (uint32_t)e[REG_ERR];
    out->cr2 = out->vector == 14 ? (uint64_t)e[REG_CR2] : 0;
    if (step && out->vector == 1) {
        out->vector = DIFF_STEPPED;
        out->state.rflags &= ~0x100ull;
    }
    if (out->state.rip == (uint64_t)diff_native_bad_frame) {
        fprintf(stderr, "diff: the kernel did not take the signal frame\n");
        exit(1);
    }
    if (diff_native_signo == SIGALRM)
        out->vector = DIFF_HUNG;
}

static void native_code_changed(uint64_t offset, uint64_t len)
{
    (void)offset;
    (void)len;
}

const struct diff_side diff_native = {"native", native_open, native_run, native_code_changed};

/* The test of the test: the native side once more, on the other side's memory. */
static int again_open(struct diff_memory *mem)
{
    memory = mem;
    return 0;
}

static void again_run(const struct diff_state *in, bool step, struct diff_result *out)
{
    static uint8_t saved[DIFF_DATA_SIZE];

    memcpy(saved, memory->native_data, DIFF_DATA_SIZE);
    memcpy(memory->native_data, memory->soft_data, DIFF_DATA_SIZE);
    native_run(in, step, out);
    memcpy(memory->soft_data, memory->native_data, DIFF_DATA_SIZE);
    memcpy(memory->native_data, saved, DIFF_DATA_SIZE);
}

const struct diff_side diff_native_again = {"native, again", again_open, again_run, native_code_changed};

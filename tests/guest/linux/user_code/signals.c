/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Signals that come at any moment, and those that an instruction raises. */
#include "user_code.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <xmmintrin.h>

static void on_signal(int signal, void (*handler)(int, siginfo_t *, void *), int flags)
{
    const struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};

    sigaction(signal, &action, NULL);
}

/* ---- at any moment ---- */

static uint8_t other_stack[64 << 10];
static volatile unsigned alarms, virtual_alarms, off_stack;

/* Leaves nothing in the registers as it was. */
static void on_alarm(int signal, siginfo_t *info, void *context)
{
    static struct registers noise, after;
    uint8_t here;

    if (&here < other_stack || &here >= other_stack + sizeof(other_stack))
        off_stack++;
    fill_registers(&noise, alarms);
    spin(&noise, &after, 1);
    if (signal == SIGALRM)
        alarms++;
    else
        virtual_alarms++;
}

void check_signals(void)
{
    const stack_t stack = {.ss_sp = other_stack, .ss_size = sizeof(other_stack)};
    const struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    struct registers in, out;

    get_hot();
    sigaltstack(&stack, NULL);
    const struct sigaction action = {.sa_sigaction = on_alarm,
                                     .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    struct sigaction masked = action;
    sigaddset(&masked.sa_mask, SIGALRM);
    sigaddset(&masked.sa_mask, SIGVTALRM);
    sigaction(SIGALRM, &masked, NULL);
    sigaction(SIGVTALRM, &masked, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    setitimer(ITIMER_VIRTUAL, &often, NULL);
    for (unsigned n = 0; n < 20000 && (alarms < 300 || virtual_alarms < 30); n++) {
        sigset_t set, old;
        /* The random numbers are the handler's, too. */
        sigfillset(&set);
        sigprocmask(SIG_SETMASK, &set, &old);
        fill_registers(&in, n);
        out.avx = in.avx;
        sigprocmask(SIG_SETMASK, &old, NULL);
        spin(&in, &out, 3000000);
        CHECK(same_registers(&in, &out), "round %u, after %u alarms", n, alarms);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    setitimer(ITIMER_VIRTUAL, &never, NULL);
    CHECK(alarms >= 300 && virtual_alarms >= 30, "%u and %u", alarms, virtual_alarms);
    CHECK(off_stack == 0, "%u", off_stack);
}

/* ---- raised by an instruction ---- */

static volatile unsigned faults, steps;
static volatile uintptr_t expected;
static volatile int expected_code;

static void open_page(int signal, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1);

    faults++;
    CHECK((uintptr_t)info->si_addr == expected && info->si_code == expected_code, "%p code %d, not %#lx",
          info->si_addr, info->si_code, (unsigned long)expected);
    CHECK(uc->uc_mcontext.gregs[REG_TRAPNO] == 14 && (uc->uc_mcontext.gregs[REG_ERR] & 6) == 6,
          "error code %#llx", uc->uc_mcontext.gregs[REG_ERR]);
    if (info->si_code == SEGV_ACCERR) {
        if (mprotect((void *)page, PAGE, PROT_READ | PROT_WRITE) < 0)
            give_up("mprotect");
    } else if (mmap((void *)page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                    0) == MAP_FAILED) {
        give_up("mmap");
    }
}

static void handlers_that_mend(void)
{
    uint8_t *p = mmap(NULL, 128 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    on_signal(SIGSEGV, open_page, 0);
    munmap(p + 64 * PAGE, 64 * PAGE);
    for (unsigned n = 0; n < 128; n++) {
        volatile uint64_t *at = (void *)(p + n * PAGE + random_number() % 500 * 8);
        expected = (uintptr_t)at;
        expected_code = n < 64 ? SEGV_ACCERR : SEGV_MAPERR;
        *at = n + 1;
        CHECK(*at == n + 1 && faults == n + 1, "page %u", n);
        burn(100);
    }
    munmap(p, 128 * PAGE);
}

static void skip_division(int signal, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;

    faults++;
    CHECK(signal == SIGFPE && info->si_code == FPE_INTDIV &&
              (uintptr_t)info->si_addr == (uintptr_t)uc->uc_mcontext.gregs[REG_RIP],
          "signal %d, code %d", signal, info->si_code);
    CHECK(uc->uc_mcontext.gregs[REG_R10] == 0x1234567, "r10 %llx", uc->uc_mcontext.gregs[REG_R10]);
    uc->uc_mcontext.gregs[REG_RIP] += 2;
}

static void mask_sse(int signal, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;

    faults++;
    CHECK(info->si_code == FPE_FLTDIV, "code %d", info->si_code);
    uc->uc_mcontext.fpregs->mxcsr |= 0x1f80;
}

static void mask_x87(int signal, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;

    faults++;
    CHECK(info->si_code == FPE_FLTDIV, "code %d", info->si_code);
    uc->uc_mcontext.fpregs->cwd |= 0x3f;
    uc->uc_mcontext.fpregs->swd &= (uint16_t)~0x80ff;
}

static void floating_point(void)
{
    uint16_t unmasked = 0x37b;

    for (unsigned n = 0; n < 30; n++) {
        burn(150);
        faults = 0;
        on_signal(SIGFPE, skip_division, 0);
        __asm__ volatile("mov $0x1234567, %%r10; xor %%ecx, %%ecx; xor %%edx, %%edx; mov $5, %%eax; div %%ecx"
                         :
                         :
                         : "rax", "rcx", "rdx", "r10", "cc");
        CHECK(faults == 1, "%u", faults);
        on_signal(SIGFPE, mask_sse, 0);
        double one = 1, zero = 0;
        _mm_setcsr(0x1f80 & ~0x200u);
        __asm__ volatile("divsd %1, %0" : "+x"(one) : "x"(zero));
        CHECK(faults == 2 && one > 1e308, "%u, %g", faults, one);
        _mm_setcsr(0x1f80);
        on_signal(SIGFPE, mask_x87, 0);
        __asm__ volatile("fninit; fldcw %0; fldz; fld1; fdivp; fwait; fninit" : : "m"(unmasked) : "memory");
        CHECK(faults == 3, "%u", faults);
    }
}

static void count_step(int signal, siginfo_t *info, void *context)
{
    steps++;
    CHECK(info->si_code == TRAP_TRACE || info->si_code == TRAP_BRKPT, "code %d", info->si_code);
}

static void traps(void)
{
    for (unsigned n = 0; n < 30; n++) {
        uintptr_t rip;
        burn(150);
        catch_attempts();
        CHECK(ATTEMPT(__asm__ volatile("ud2")) == SIGILL && caught.code == ILL_ILLOPN, "code %d",
              caught.code);
        burn(100);
        CHECK(ATTEMPT(__asm__ volatile("lea 1f(%%rip), %0; int3; 1:"
                                       : "=r"(rip))) == SIGTRAP &&
                  caught.code == SI_KERNEL,
              "code %d", caught.code);
        /* No canonical address; by way of the stack it is another exception. */
        CHECK(ATTEMPT(__asm__ volatile("mov (%0), %%rax"
                                       :
                                       : "r"(0x8000000000000000u)
                                       : "rax")) == SIGSEGV &&
                  caught.code == SI_KERNEL && !caught.address,
              "code %d", caught.code);
        CHECK(ATTEMPT(__asm__ volatile("mov %%rsp, %%rdx; mov %0, %%rsp; mov (%%rsp), %%rax; mov %%rdx, %%rsp"
                                       :
                                       : "r"((uintptr_t)&rip)
                                       : "rax", "rdx")) == 0,
              "signal %d", caught.signal);
        burn(100);
        /* TF by POPF: a trap after each instruction but the one that sets it. */
        on_signal(SIGTRAP, count_step, 0);
        steps = 0;
        __asm__ volatile("lea -256(%%rsp), %%rsp\n"
                         "pushfq; orl $0x100, (%%rsp); popfq\n"
                         "nop; nop; mov $20, %%ecx; 1: dec %%ecx; jnz 1b\n"
                         "pushfq; andl $~0x100, (%%rsp); popfq\n"
                         "lea 256(%%rsp), %%rsp"
                         :
                         :
                         : "rcx", "cc", "memory");
        CHECK(steps == 3 + 40 + 3, "%u steps", steps);
    }
}

static void beyond_a_file(void)
{
    int fd = memfd_create("empty", 0);

    catch_attempts();
    for (unsigned n = 0; n < 20; n++) {
        uint8_t *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        burn(150);
        CHECK(ATTEMPT(*(volatile uint8_t *)(p + n)) == SIGBUS && caught.code == BUS_ADRERR &&
                  caught.address == (uintptr_t)p + n,
              "signal %d, code %d", caught.signal, caught.code);
        munmap(p, PAGE);
    }
    close(fd);
}

void check_exceptions(void)
{
    get_hot();
    handlers_that_mend();
    floating_point();
    traps();
    beyond_a_file();
}

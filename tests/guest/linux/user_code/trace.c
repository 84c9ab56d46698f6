/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a debugger does to a process that computes: breakpoints, single steps, watchpoints, registers. */
#include "user_code.h"

#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS 20u
#define LOOPS 500u

static volatile uint32_t watched[4];
static volatile uint64_t total;

static __attribute__((noinline)) void visited(unsigned n)
{
    total += n;
    __asm__ volatile("" : : : "memory");
}

extern const uint8_t stepped_start[], stepped_end[];

static __attribute__((noinline)) void stepped(void)
{
    __asm__ volatile(".globl stepped_start, stepped_end\n"
                     "stepped_start: mov %0, %%ecx\n"
                     "1: add %%ecx, %%eax; dec %%ecx; jnz 1b\n"
                     "stepped_end: nop"
                     :
                     : "i"(LOOPS)
                     : "rax", "rcx", "cc");
}

static void debuggee(void)
{
    struct registers in, out;

    ptrace(PTRACE_TRACEME, 0, 0, 0);
    get_hot();
    raise(SIGSTOP); /* breakpoints are set */
    for (unsigned n = 0; n < CALLS; n++) {
        burn(200);
        visited(n);
    }
    raise(SIGSTOP); /* they are taken away; steps */
    burn(200);
    stepped();
    raise(SIGSTOP); /* watchpoint */
    for (unsigned n = 0; n < CALLS; n++) {
        burn(30);
        watched[0] = watched[3] = n;
        watched[2] = n;
    }
    raise(SIGSTOP); /* a breakpoint in a debug register */
    for (unsigned n = 0; n < CALLS; n++) {
        burn(30);
        visited(n);
    }
    raise(SIGSTOP);
    fill_registers(&in, 1);
    out.avx = in.avx;
    spin(&in, &out, 2000000000);
    /* The tracer has changed these two. */
    in.gpr[10] = 0x5555;
    in.ymm[5][3] ^= 0xff;
    CHECK(same_registers(&in, &out), "what the tracer wrote");
    _exit(failures ? 1 : 0);
}

static pid_t child;

static int go_on(int request)
{
    int status;

    if (ptrace(request, child, 0, 0) < 0 || waitpid(child, &status, 0) != child)
        give_up("ptrace");
    return status;
}

static void expect_stop(int status, int signal)
{
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == signal, "status %#x, not signal %d", status, signal);
}

static struct user_regs_struct registers_of(void)
{
    struct user_regs_struct r;

    if (ptrace(PTRACE_GETREGS, child, 0, &r) < 0)
        give_up("PTRACE_GETREGS");
    return r;
}

static void set_debug_register(unsigned n, uintptr_t value)
{
    if (ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg[n]), value) < 0)
        give_up("debug register");
}

static void breakpoints(void)
{
    uintptr_t at = (uintptr_t)visited;
    long word = ptrace(PTRACE_PEEKTEXT, child, at, 0);

    for (unsigned n = 0; n < CALLS; n++) {
        ptrace(PTRACE_POKETEXT, child, at, (word & ~0xffl) | 0xcc);
        expect_stop(go_on(PTRACE_CONT), SIGTRAP);
        struct user_regs_struct r = registers_of();
        CHECK(r.rip == at + 1 && r.rdi == n, "rip %#llx, rdi %llu, not %u", r.rip, r.rdi, n);
        r.rip = at;
        ptrace(PTRACE_SETREGS, child, 0, &r);
        ptrace(PTRACE_POKETEXT, child, at, word);
        expect_stop(go_on(PTRACE_SINGLESTEP), SIGTRAP);
        CHECK(registers_of().rip > at && registers_of().rip < at + 16, "after a step");
    }
    expect_stop(go_on(PTRACE_CONT), SIGSTOP);
}

static void steps(void)
{
    unsigned inside = 0, all = 0;
    bool been = false;

    set_debug_register(0, (uintptr_t)stepped);
    set_debug_register(7, 1);
    expect_stop(go_on(PTRACE_CONT), SIGTRAP);
    set_debug_register(7, 0);
    while (all++ < 10000) {
        uintptr_t rip = registers_of().rip;
        if (rip >= (uintptr_t)stepped_start && rip < (uintptr_t)stepped_end) {
            inside++;
            been = true;
        } else if (been) {
            break;
        }
        expect_stop(go_on(PTRACE_SINGLESTEP), SIGTRAP);
        if (failures)
            break;
    }
    CHECK(inside == 1 + 3 * LOOPS, "%u steps", inside);
    expect_stop(go_on(PTRACE_CONT), SIGSTOP);
}

static void watchpoints(void)
{
    set_debug_register(0, (uintptr_t)&watched[3]);
    set_debug_register(1, (uintptr_t)&watched[0]);
    set_debug_register(7, 0x1 | 0xd0000 | 0x4 | 0xf00000); /* writes of 4 bytes; reads and writes */
    for (unsigned n = 0; n < 2 * CALLS; n++) {
        expect_stop(go_on(PTRACE_CONT), SIGTRAP);
        long hit = ptrace(PTRACE_PEEKUSER, child, offsetof(struct user, u_debugreg[6]), 0) & 3;
        CHECK(hit == 1 || hit == 2, "hit %ld", hit);
        uint32_t value = (uint32_t)ptrace(PTRACE_PEEKDATA, child, hit == 1 ? &watched[3] : &watched[0], 0);
        CHECK(value == n / 2, "value %u in round %u", value, n);
        set_debug_register(6, 0);
    }
    set_debug_register(7, 0);
    expect_stop(go_on(PTRACE_CONT), SIGSTOP);
    set_debug_register(0, (uintptr_t)visited);
    set_debug_register(7, 1);
    for (unsigned n = 0; n < CALLS; n++) {
        expect_stop(go_on(PTRACE_CONT), SIGTRAP);
        CHECK(registers_of().rip == (uintptr_t)visited && registers_of().rdi == n, "round %u", n);
    }
    set_debug_register(7, 0);
    expect_stop(go_on(PTRACE_CONT), SIGSTOP);
}

/* In the middle of its computing. */
static void registers(void)
{
    static uint8_t state[16384];
    struct iovec part = {state, sizeof(state)};
    struct registers in;
    int status;

    fill_registers(&in, 1);
    ptrace(PTRACE_CONT, child, 0, 0);
    usleep(100000);
    kill(child, SIGSTOP);
    waitpid(child, &status, 0);
    expect_stop(status, SIGSTOP);
    struct user_regs_struct r = registers_of();
    /* The first part of both is the same; a processor without XSAVE has only the second. */
    int vectors = in.avx ? NT_X86_XSTATE : NT_PRFPREG;
    if (ptrace(PTRACE_GETREGSET, child, vectors, &part) < 0)
        give_up("PTRACE_GETREGSET");
    CHECK(r.r12 == in.gpr[10] && r.rbx == in.gpr[1], "r12 %#llx", r.r12);
    for (unsigned n = 0; n < 16; n++) {
        CHECK(memcmp(state + 160 + 16 * n, in.ymm[n], 16) == 0, "xmm%u", n);
        CHECK(!in.avx || memcmp(state + 576 + 16 * n, in.ymm[n] + 16, 16) == 0, "ymm%u", n);
    }
    r.r12 = 0x5555;
    r.rcx = 1000;
    state[160 + 16 * 5 + 3] ^= 0xff;
    if (ptrace(PTRACE_SETREGS, child, 0, &r) < 0 || ptrace(PTRACE_SETREGSET, child, vectors, &part) < 0)
        give_up("setting registers");
    status = go_on(PTRACE_CONT);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", status);
}

void check_trace(void)
{
    int status;

    child = fork();
    if (child == 0)
        debuggee();
    waitpid(child, &status, 0);
    expect_stop(status, SIGSTOP);
    breakpoints();
    steps();
    watchpoints();
    registers();
}

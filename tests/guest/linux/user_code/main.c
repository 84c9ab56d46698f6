/* SPDX-License-Identifier: GPL-2.0-or-later */
/* user_code COMMAND: prints "ok COMMAND", or what was wrong. What the commands share is here, too. */
#include "user_code.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* For a busy host that runs everything translated. */
#define PATIENCE 240 /* seconds */

unsigned failures;
__thread sigjmp_buf attempt_buffer;
__thread struct caught caught;

void give_up(const char *what)
{
    printf("FAIL %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- computing ---- */

static uint64_t rounds_per_us = 300;
static volatile uint64_t sink;

void burn(unsigned microseconds)
{
    sink = compute(sink, microseconds * rounds_per_us);
}

static uint64_t used_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* For longer than a busy host's clock ticks are apart, between which the guest's clock may stand still. */
static void measure_rounds(void)
{
    uint64_t start = used_ns(), rounds = 0;

    do {
        sink = compute(sink, 1000000);
        rounds += 1000000;
    } while (used_ns() - start < 40000000);
    rounds_per_us = rounds * 1000 / (used_ns() - start) + 1;
}

void get_hot(void)
{
    uint64_t start = used_ns();

    do {
        burn(1000);
    } while (used_ns() - start < 30000000);
}

void wait_for(pid_t pid)
{
    int status;

    if (waitpid(pid, &status, 0) != pid)
        give_up("waitpid");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child ended with %#x", status);
}

static uint64_t random_state = 88172645463325252u;

uint64_t random_number(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

unsigned cpu_count(void)
{
    return (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
}

void run_on(unsigned cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        give_up("sched_setaffinity");
}

/* ---- registers ---- */

void fill_registers(struct registers *r, uint64_t seed)
{
    random_state ^= seed << 32 ^ seed;
    for (size_t n = 0; n < sizeof(*r) / 8; n++)
        ((uint64_t *)(void *)r)[n] = random_number();
    r->flags &= 1;
    r->avx = __builtin_cpu_supports("avx") != 0;
}

bool same_registers(const struct registers *a, const struct registers *b)
{
    for (unsigned n = 0; n < 16; n++) {
        if (memcmp(a->ymm[n], b->ymm[n], a->avx ? 32 : 16) != 0)
            return false;
    }
    return memcmp(a->gpr, b->gpr, sizeof(a->gpr)) == 0 && a->flags == b->flags;
}

/* ---- signals ---- */

static void escape(int signal, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;

    caught.signal = signal;
    caught.code = info->si_code;
    caught.address = (uintptr_t)info->si_addr;
    caught.rip = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
    caught.error = (uint64_t)uc->uc_mcontext.gregs[REG_ERR];
    siglongjmp(attempt_buffer, 1);
}

void catch_attempts(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS};
    const struct sigaction action = {.sa_sigaction = escape, .sa_flags = SA_SIGINFO};

    for (size_t n = 0; n < sizeof(signals) / sizeof(signals[0]); n++)
        sigaction(signals[n], &action, NULL);
}

/* ---- commands ---- */

void check_loop(void)
{
    for (;;)
        burn(1000000);
}

static const struct {
    const char *name;
    void (*check)(void);
} commands[] = {
    {"code", check_code},
    {"signals", check_signals},
    {"exceptions", check_exceptions},
    {"trace", check_trace},
    {"clock", check_clock},
    {"processor", check_processor},
    {"contexts", check_contexts},
    {"compatibility", check_compatibility},
    {"seccomp", check_seccomp},
    {"attack", check_attack},
    {"calls", check_calls},
    {"processes", check_processes},
    {"scattered", check_scattered},
    {"mappings", check_mappings},
    {"copies", check_copies},
    {"pressure", check_pressure},
    {"watch", check_watch},
    {"loop", check_loop},
};

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t n = 0; argc == 2 && n < sizeof(commands) / sizeof(commands[0]); n++) {
        if (strcmp(argv[1], commands[n].name) != 0)
            continue;
        measure_rounds();
        if (commands[n].check != check_loop)
            alarm(PATIENCE);
        commands[n].check();
        if (!failures)
            printf("ok %s\n", argv[1]);
        return failures ? 1 : 0;
    }
    fputs("usage: user_code COMMAND\n", stderr);
    return 2;
}

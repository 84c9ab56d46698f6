/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Clocks, what tells of the processor, and whose registers are whose. */
#include "user_code.h"

#include <elf.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

/* ---- time ---- */

static uint64_t ns(const struct timespec *t)
{
    return (uint64_t)t->tv_sec * 1000000000 + (uint64_t)t->tv_nsec;
}

static void vdso_clock(void)
{
    struct timespec now, before, after;
    uint64_t last = 0;

    for (unsigned n = 0; n < 20000; n++) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        CHECK(ns(&now) >= last, "%llu after %llu", (unsigned long long)ns(&now), (unsigned long long)last);
        last = ns(&now);
        if (n % 50)
            continue;
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &before);
        clock_gettime(CLOCK_MONOTONIC, &now);
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &after);
        CHECK(ns(&before) <= ns(&now) && ns(&now) <= ns(&after), "%llu, %llu, %llu",
              (unsigned long long)ns(&before), (unsigned long long)ns(&now), (unsigned long long)ns(&after));
        burn(100);
    }
}

static void time_stamps(void)
{
    uint64_t last = 0;
    unsigned cpu;

    for (unsigned n = 0; n < 3000; n++) {
        uint64_t one = __rdtsc(), two = __rdtscp(&cpu);
        CHECK(one >= last && two >= one, "round %u", n);
        last = two;
        if (n % 10 == 0)
            burn(50);
    }
}

/* The page of old programs' system calls (vsyscall=emulate). */
static void vsyscalls(void)
{
    long (*old_gettimeofday)(struct timeval *, void *) = NULL;
    long (*old_time)(time_t *) = NULL;
    long (*old_getcpu)(unsigned *, unsigned *, void *) = NULL;
    const uintptr_t page = 0xffffffffff600000, second = page + 1024, third = page + 2048;
    struct timeval a, b, c;

    memcpy(&old_gettimeofday, &page, 8);
    memcpy(&old_time, &second, 8);
    memcpy(&old_getcpu, &third, 8);
    catch_attempts();
    if (ATTEMPT(old_time(NULL))) {
        CHECK(false, "no vsyscalls: signal %d", caught.signal);
        return;
    }
    for (unsigned n = 0; n < 200; n++) {
        unsigned cpu = 99, node;
        burn(100);
        syscall(SYS_gettimeofday, &a, NULL);
        CHECK(old_gettimeofday(&b, NULL) == 0, "gettimeofday");
        syscall(SYS_gettimeofday, &c, NULL);
        CHECK(!timercmp(&a, &b, >) && !timercmp(&b, &c, >), "round %u", n);
        /* Seconds as of the last tick: in the first milliseconds of a second they are behind. */
        CHECK((uint64_t)(old_time(NULL) + 1 - a.tv_sec) < 10, "round %u", n);
        CHECK(old_getcpu(&cpu, &node, NULL) == 0 && cpu < cpu_count(), "cpu %u", cpu);
    }
    /* Into the middle of the page, and without a place to return to. */
    void (*nowhere)(void) = NULL;
    const uintptr_t middle = page + 3;
    memcpy(&nowhere, &middle, 8);
    CHECK(ATTEMPT(nowhere()) == SIGSEGV, "signal %d", caught.signal);
}

void check_clock(void)
{
    get_hot();
    vdso_clock();
    time_stamps();
    vsyscalls();
}

/* Nothing but the clock, for about a second: what that costs is told from outside. */
void check_watch(void)
{
    struct timespec begin, now;

    clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (ns(&now) - ns(&begin) < 1000000000);
}

/* ---- what it tells of itself ---- */

static uint64_t mix(uint64_t sum, uint64_t value)
{
    return (sum ^ value) * 0x9e3779b97f4a7c15u;
}

static uint64_t cpuid_sum(void)
{
    uint64_t sum = 0;
    uint32_t r[4];

    for (uint64_t base = 0; base <= 0x80000000; base += 0x40000000) {
        ask_cpuid((uint32_t)base, 0, r);
        uint64_t last = r[0] - base < 64 ? r[0] : base;
        for (uint64_t leaf = base; leaf <= last; leaf++) {
            for (uint32_t n = 0; n < 4; n++) {
                ask_cpuid((uint32_t)leaf, n, r);
                sum = mix(mix(sum, r[0] | (uint64_t)r[1] << 32), r[2] | (uint64_t)r[3] << 32);
            }
        }
    }
    return sum;
}

static bool has_xsave(void)
{
    uint32_t r[4];

    ask_cpuid(1, 0, r);
    return r[2] & 1u << 27;
}

/* In a page without anything else that might be left to a translator. */
static uint64_t in_a_page_of_its_own(const uint8_t *code, size_t length)
{
    static uint8_t *page;
    uint64_t area[2] = {0, 0};
    uint64_t (*function)(uint64_t *);

    if (!page)
        page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(page, PAGE, PROT_READ | PROT_WRITE);
    memset(page, 0xcc, PAGE);
    memcpy(page + 512, code, length);
    page[512 + length] = 0xc3;
    mprotect(page, PAGE, PROT_READ | PROT_EXEC);
    uint8_t *at = page + 512;
    memcpy(&function, &at, 8);
    if (ATTEMPT(area[0] += function(area)))
        return (uint64_t)caught.signal << 56;
    return mix(area[0], area[1]);
}

/* Not LSL, whose answer in a stub is the host's (docs/soft-engine.md). */
static uint64_t tables(void)
{
    static const uint8_t codes[][8] = {
        {0x31, 0xc0, 0x0f, 0x01, 0x07},          /* sgdt [rdi] */
        {0x31, 0xc0, 0x0f, 0x01, 0x0f},          /* sidt [rdi] */
        {0x31, 0xc0, 0x0f, 0x00, 0xc0},          /* sldt eax */
        {0x31, 0xc0, 0x0f, 0x00, 0xc8},          /* str eax */
        {0x31, 0xc0, 0x0f, 0x01, 0xe0},          /* smsw eax */
        {0xb8, 0x33, 0, 0, 0, 0x0f, 0x02, 0xc0}, /* mov eax, 0x33; lar eax, eax */
    };
    static const uint8_t lengths[] = {5, 5, 5, 5, 5, 8};
    uint64_t sum = 0;

    for (unsigned n = 0; n < sizeof(lengths); n++) {
        burn(150);
        sum = mix(sum, in_a_page_of_its_own(codes[n], lengths[n]));
    }
    return sum;
}

/* No store goes beyond what CPUID says that it takes. */
static void areas(void)
{
    static uint8_t area[32768] __attribute__((aligned(64)));
    uint32_t sizes[4], features[4];

    ask_cpuid(0xd, 0, sizes);
    ask_cpuid(0xd, 1, features);
    if (sizes[1] + PAGE > sizeof(area)) {
        CHECK(false, "size %u", sizes[1]);
        return;
    }
    for (enum save how = XSAVE; how <= XSAVEC; how++) {
        if (how != XSAVE && !(features[0] & (how == XSAVEOPT ? 1 : 2)))
            continue;
        memset(area, 0xa5, sizeof(area));
        memset(area, 0, sizes[1]);
        burn(200);
        save_state(area, how);
        for (unsigned n = sizes[1]; n < sizeof(area); n++)
            CHECK(area[n] == 0xa5, "instruction %u, byte %u of %u", how, n, sizes[1]);
        CHECK((*(uint64_t *)(void *)(area + 512) & ~read_xcr0()) == 0, "state that nobody has enabled");
        restore_state(area);
    }
}

static void numbers(void)
{
    uint32_t features[4];

    ask_cpuid(7, 0, features);
    bool rdpid = features[2] & 1u << 22;
    for (unsigned round = 0; round < 20; round++) {
        unsigned cpu = round % cpu_count(), now, node, aux;
        uint64_t id = cpu;
        run_on(cpu);
        burn(2000);
        syscall(SYS_getcpu, &now, &node, NULL);
        CHECK(now == cpu, "system call: %u, not %u", now, cpu);
        CHECK(sched_getcpu() == (int)cpu, "not %u", cpu);
        burn(200);
        __rdtscp(&aux);
        CHECK((aux & 0xfff) == cpu, "RDTSCP: %#x, not %u", aux, cpu);
        if (rdpid)
            id = read_pid();
        CHECK((id & 0xfff) == cpu, "RDPID: %#llx, not %u", (unsigned long long)id, cpu);
    }
}

void check_processor(void)
{
    run_on(0);
    catch_attempts();
    uint64_t before = cpuid_sum(), enabled = has_xsave() ? read_xcr0() : 0;
    uint64_t told = tables();
    get_hot();
    for (unsigned n = 0; n < 10; n++) {
        burn(200);
        CHECK(cpuid_sum() == before, "CPUID, round %u", n);
        burn(200);
        CHECK(!enabled || read_xcr0() == enabled, "XGETBV, round %u", n);
        CHECK(tables() == told, "descriptor tables, round %u", n);
    }
    if (enabled)
        areas();
    numbers();
}

/* ---- whose registers ---- */

static _Noreturn void computes(unsigned seed)
{
    struct registers in, out;

    get_hot();
    for (unsigned n = 0; n < 12; n++) {
        fill_registers(&in, seed * 1000 + n);
        out.avx = in.avx;
        spin(&in, &out, 30000000);
        CHECK(same_registers(&in, &out), "process %u, round %u", seed, n);
        if (n % 3 == 0)
            sched_yield();
    }
    _exit(failures ? 1 : 0);
}

void check_contexts(void)
{
    pid_t children[7];

    for (unsigned n = 0; n < 7; n++) {
        children[n] = fork();
        if (children[n] == 0)
            computes(n);
    }
    for (unsigned n = 0; n < 7; n++)
        wait_for(children[n]);
}

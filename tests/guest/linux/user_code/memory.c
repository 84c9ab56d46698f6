/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Many processes, many pages, mappings that change all the time, and memory that runs short. */
#include "user_code.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES 2000u
#define SCATTERED 100000u
#define STRIDE    0x10000ull

static void *reserve(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        give_up("mmap");
    return p;
}

/* All are there before the first computes. */
void check_processes(void)
{
    static volatile uint32_t own;
    static pid_t pids[PROCESSES];
    int gate[2];
    char byte;

    get_hot();
    if (pipe(gate) < 0)
        give_up("pipe");
    for (unsigned n = 0; n < PROCESSES; n++) {
        pids[n] = fork();
        if (pids[n] < 0)
            give_up("fork");
        if (pids[n] == 0) {
            close(gate[1]);
            own = n;
            if (read(gate[0], &byte, 1) != 0)
                _exit(2);
            burn(4500);
            CHECK(own == n, "%u", own);
            own += 1000000;
            burn(500);
            CHECK(own == n + 1000000, "%u", own);
            _exit(failures ? 1 : 0);
        }
    }
    close(gate[1]);
    for (unsigned n = 0; n < PROCESSES; n++)
        wait_for(pids[n]);
}

void check_scattered(void)
{
    get_hot();
    uint8_t *p = reserve(SCATTERED * STRIDE);

    madvise(p, SCATTERED * STRIDE, MADV_NOHUGEPAGE);
    for (unsigned n = 0; n < SCATTERED; n++)
        *(uint64_t *)(void *)(p + n * STRIDE) = n * 7919u + 1;
    uint64_t wrong = 0;
    for (unsigned n = 0; n < SCATTERED; n += 3) {
        unsigned at = n * 37 % SCATTERED; /* far apart */
        wrong += *(uint64_t *)(void *)(p + at * STRIDE) != at * 7919u + 1;
    }
    CHECK(wrong == 0, "%llu pages", (unsigned long long)wrong);
    munmap(p, SCATTERED * STRIDE);
}

/* ---- mappings ---- */

#define PAGES  96u
#define ROUNDS 3000u

struct model {
    uint64_t value; /* in the page's first word */
    int prot;       /* -1: not mapped */
};

static __thread uint64_t thread_random;

static unsigned choose(unsigned below)
{
    thread_random = thread_random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(thread_random >> 33) % below;
}

static void check_page(uint8_t *at, const struct model *m)
{
    volatile uint64_t *p = (void *)at;
    volatile uint64_t value = 0;
    int signal = ATTEMPT(value = *p);

    CHECK(signal == (m->prot > 0 ? 0 : SIGSEGV), "reading, with protection %d: %d", m->prot, signal);
    CHECK(signal || value == m->value, "%#llx, not %#llx", (unsigned long long)value,
          (unsigned long long)m->value);
}

static void write_page(uint8_t *at, struct model *m, uint64_t value)
{
    int signal = ATTEMPT(*(volatile uint64_t *)(void *)at = value);
    bool may = m->prot > 0 && (m->prot & PROT_WRITE);

    CHECK(signal == (may ? 0 : SIGSEGV), "writing, with protection %d: %d", m->prot, signal);
    if (!signal)
        m->value = value;
}

static void change(uint8_t *p, struct model *m, uint64_t stamp)
{
    static const int protections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
    unsigned first = choose(PAGES), count = 1 + choose(8), prot = choose(3);
    count = count < PAGES - first ? count : PAGES - first;

    switch (choose(5)) {
    case 0:
        munmap(p + first * PAGE, count * PAGE);
        for (unsigned n = 0; n < count; n++)
            m[first + n] = (struct model){0, -1};
        break;
    case 1:
        if (mmap(p + first * PAGE, count * PAGE, protections[prot], MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                 -1, 0) == MAP_FAILED)
            give_up("mmap");
        for (unsigned n = 0; n < count; n++)
            m[first + n] = (struct model){0, protections[prot]};
        break;
    case 2:
        for (unsigned n = 0; n < count; n++) {
            if (m[first + n].prot < 0)
                continue;
            if (mprotect(p + (first + n) * PAGE, PAGE, protections[prot]) < 0)
                give_up("mprotect");
            m[first + n].prot = protections[prot];
        }
        break;
    case 3: { /* one page takes another's place */
        unsigned to = choose(PAGES);
        if (to == first || m[first].prot < 0)
            break;
        if (mremap(p + first * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + to * PAGE) == MAP_FAILED)
            give_up("mremap");
        m[to] = m[first];
        m[first] = (struct model){0, -1};
        break;
    }
    default:
        for (unsigned n = 0; n < count; n++)
            write_page(p + (first + n) * PAGE, &m[first + n], stamp + n);
    }
}

/* Each has its own pages, between pages that nobody touches; what it unmaps nobody else gets. */
static uint8_t *storm_pages[2];

static void *storm(void *which)
{
    static __thread struct model m[PAGES];
    uintptr_t seed = 1 + (uintptr_t)which;
    uint8_t *p = storm_pages[(uintptr_t)which];

    thread_random = seed;
    for (unsigned n = 0; n < PAGES; n++)
        m[n] = (struct model){0, PROT_READ | PROT_WRITE};
    for (unsigned round = 0; round < ROUNDS && !failures; round++) {
        change(p, m, seed << 32 | round << 8);
        for (unsigned n = 0; n < 4; n++) {
            unsigned page = choose(PAGES);
            check_page(p + page * PAGE, &m[page]);
        }
        burn(100);
    }
    return NULL;
}

void check_mappings(void)
{
    pthread_t other;

    catch_attempts();
    get_hot();
    for (unsigned n = 0; n < 2; n++)
        storm_pages[n] = reserve((PAGES + 2) * PAGE) + PAGE;
    pthread_create(&other, NULL, storm, (void *)1);
    storm((void *)0);
    pthread_join(other, NULL);
}

/* ---- copies ---- */

#define COPIED 64u

static void write_copies(uint64_t *p, unsigned first, unsigned step, uint64_t value)
{
    for (unsigned n = first; n < COPIED; n += step) {
        p[n * PAGE / 8] = value + n;
        burn(20);
    }
}

static bool holds(const uint64_t *p, unsigned first, unsigned step, uint64_t value)
{
    for (unsigned n = first; n < COPIED; n += step) {
        if (p[n * PAGE / 8] != value + n)
            return false;
    }
    return true;
}

void check_copies(void)
{
    uint64_t *p = reserve(COPIED * PAGE);

    get_hot();
    for (unsigned round = 1; round <= 12; round++) {
        pid_t pids[3];
        write_copies(p, 0, 1, round * 1000);
        for (unsigned n = 0; n < 3; n++) {
            pids[n] = fork();
            if (pids[n] == 0) {
                CHECK(holds(p, 0, 1, round * 1000), "child %u: what was before the fork", n);
                write_copies(p, n % 2, 2, 5000000 + n);
                burn(4000);
                CHECK(holds(p, n % 2, 2, 5000000 + n) && holds(p, !(n % 2), 2, round * 1000), "child %u", n);
                _exit(failures ? 1 : 0);
            }
        }
        write_copies(p, 1, 2, 7000000);
        burn(2000);
        CHECK(holds(p, 1, 2, 7000000) && holds(p, 0, 2, round * 1000), "parent, round %u", round);
        for (unsigned n = 0; n < 3; n++)
            wait_for(pids[n]);
        CHECK(holds(p, 1, 2, 7000000) && holds(p, 0, 2, round * 1000), "parent, round %u", round);
    }
}

/* ---- shortage ---- */

/* One takes memory until the kernel ends it; the others compute on theirs. */
void check_pressure(void)
{
    pid_t pids[3];
    int status;

    for (unsigned n = 0; n < 3; n++) {
        pids[n] = fork();
        if (pids[n] == 0) {
            uint64_t *p = reserve(COPIED * PAGE);
            get_hot();
            for (unsigned round = 1; round <= 150; round++) {
                write_copies(p, 0, 1, round * (n + 1) * 1000);
                CHECK(holds(p, 0, 1, round * (n + 1) * 1000), "process %u, round %u", n, round);
            }
            _exit(failures ? 1 : 0);
        }
    }
    pid_t greedy = fork();
    if (greedy == 0) {
        FILE *file = fopen("/proc/self/oom_score_adj", "w");
        if (!file || fputs("1000", file) < 0 || fclose(file) < 0)
            give_up("oom_score_adj");
        get_hot();
        for (;;) {
            uint8_t *p = reserve(16 << 20);
            for (unsigned at = 0; at < 16 << 20; at += PAGE)
                p[at] = 1;
        }
    }
    waitpid(greedy, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %#x", status);
    for (unsigned n = 0; n < 3; n++)
        wait_for(pids[n]);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Code that changes: by itself, by a compiler in the process, through another mapping, by another thread. */
#include "user_code.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SUM (1000u * 1001 / 2)

static void *map(int prot, int flags, int fd, size_t size)
{
    void *p = mmap(NULL, size, prot, flags, fd, 0);

    if (p == MAP_FAILED)
        give_up("mmap");
    return p;
}

/* mov eax, IMM; mov ecx, 1000; next: add eax, ecx; dec ecx; jnz next; ret */
static void emit(uint8_t *at, uint32_t value)
{
    static const uint8_t code[] = {0xb8, 0,    0,    0,    0,    0xb9, 0xe8, 0x03, 0,
                                   0,    0x01, 0xc8, 0xff, 0xc9, 0x75, 0xfa, 0xc3};

    memcpy(at, code, sizeof(code));
    memcpy(at + 1, &value, 4);
}

static uint32_t call(const void *at)
{
    uint32_t (*function)(void);

    memcpy(&function, &at, sizeof(at));
    return function();
}

/* Between a store by one address and a fetch by another, or on another processor. */
static void serialize(void)
{
    uint32_t unused[4];

    ask_cpuid(0, 0, unused);
}

static void writable_and_executable(void)
{
    uint8_t *p = map(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 4 * PAGE);

    for (uint32_t n = 0; n < 3000; n++) {
        uint8_t *at = p + n * 37 % (4 * PAGE - 32); /* over page borders as well */
        emit(at, n);
        CHECK(call(at) == n + SUM, "round %u", n);
        if (n % 100 == 0)
            burn(300);
    }
    munmap(p, 4 * PAGE);
}

/* Patches the instruction behind the store, 1,000 times in one call. */
static void code_that_patches_itself(void)
{
    /* xor eax, eax; mov ecx, 1000; next: mov [rip + 2], ecx; add eax, 0; dec ecx; jnz next; ret */
    static const uint8_t code[] = {0x31, 0xc0, 0xb9, 0xe8, 0x03, 0, 0,    0x89, 0x0d, 0x01, 0,   0,
                                   0,    0x05, 0,    0,    0,    0, 0xff, 0xc9, 0x75, 0xf1, 0xc3};
    uint8_t *p = map(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 2 * PAGE);

    for (unsigned n = 0; n < 20; n++) {
        uint8_t *at = p + PAGE - n; /* the patched bytes lie on either side of the border */
        memcpy(at, code, sizeof(code));
        uint32_t got = call(at);
        CHECK(got == SUM, "%u", got);
        burn(200);
    }
    munmap(p, 2 * PAGE);
}

static void writable_or_executable(void)
{
    uint8_t *p = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, PAGE);

    for (uint32_t n = 0; n < 400; n++) {
        emit(p + n, n);
        mprotect(p, PAGE, PROT_READ | PROT_EXEC);
        CHECK(call(p + n) == n + SUM, "round %u", n);
        burn(50);
        CHECK(ATTEMPT(*(volatile uint8_t *)p = 0) == SIGSEGV, "round %u", n);
        mprotect(p, PAGE, PROT_READ | PROT_WRITE);
        CHECK(n % 10 || ATTEMPT(call(p + n)) == SIGSEGV, "round %u", n);
    }
    munmap(p, PAGE);
}

static void mapped_twice(void)
{
    int fd = memfd_create("code", 0);

    if (fd < 0 || ftruncate(fd, PAGE) < 0)
        give_up("memfd");
    uint8_t *w = map(PROT_READ | PROT_WRITE, MAP_SHARED, fd, PAGE),
            *x = map(PROT_READ | PROT_EXEC, MAP_SHARED, fd, PAGE);
    for (uint32_t n = 0; n < 2000; n++) {
        emit(w + n % 1000, n);
        serialize();
        CHECK(call(x + n % 1000) == n + SUM, "round %u", n);
        if (n % 50 == 0)
            burn(200);
    }
    munmap(w, PAGE);
    munmap(x, PAGE);
    close(fd);
}

static uint8_t *shared_code;
static _Atomic uint32_t written, executed;

static void *write_code(void *unused)
{
    for (uint32_t n = 1; n <= 1000; n++) {
        emit(shared_code + (n % 3) * 2000, n);
        atomic_store(&written, n);
        if (n % 20 == 0)
            burn(200);
        while (atomic_load(&executed) != n)
            sched_yield();
    }
    return NULL;
}

static void written_by_another_thread(void)
{
    pthread_t thread;

    shared_code = map(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 2 * PAGE);
    pthread_create(&thread, NULL, write_code, NULL);
    for (uint32_t n = 1; n <= 1000; n++) {
        while (atomic_load(&written) != n)
            sched_yield();
        serialize();
        CHECK(call(shared_code + (n % 3) * 2000) == n + SUM, "round %u", n);
        if (n % 30 == 0)
            burn(200);
        atomic_store(&executed, n);
    }
    pthread_join(thread, NULL);
}

void check_code(void)
{
    catch_attempts();
    get_hot();
    writable_and_executable();
    code_that_patches_itself();
    writable_or_executable();
    mapped_twice();
    written_by_another_thread();
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compiled for 32 bits: what compilers and C libraries do there, printed. */
#define _FILE_OFFSET_BITS 64
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static __thread unsigned own;
static sigjmp_buf back;
static volatile sig_atomic_t caught;

static void *count(void *start)
{
    for (unsigned n = 0; n < 1000000; n++)
        own = own * 1664525u + 1013904223u + (unsigned)(uintptr_t)start;
    return (void *)(uintptr_t)own;
}

static void on_fault(int signal)
{
    caught = signal;
    siglongjmp(back, 1);
}

static uint64_t divide(void)
{
    uint64_t sum = 0, value = 0x123456789abcdef0ull;

    for (unsigned n = 1; n < 200000; n++) {
        value = value * 6364136223846793005ull + n;
        sum += value / (n * 77777ull) + value % (uint64_t)n + (uint64_t)((int64_t)value >> 13);
    }
    return sum;
}

static double compute(void)
{
    long double sum = 0;
    float narrow = 1;

    for (unsigned n = 1; n < 200000; n++) {
        sum += sinl(n) / n + sqrtl(n);
        narrow = narrow * 0.999f + (float)n;
    }
    return (double)sum + (double)narrow;
}

int main(void)
{
    pthread_t threads[3];
    void *result;

    printf("pointer %zu, long %zu\n", sizeof(void *), sizeof(long));
    printf("divide %llu\n", (unsigned long long)divide());
    printf("compute %.12g\n", compute());
    for (uintptr_t n = 0; n < 3; n++)
        pthread_create(&threads[n], NULL, count, (void *)n);
    for (unsigned n = 0; n < 3; n++) {
        pthread_join(threads[n], &result);
        printf("thread %u: %08x\n", n, (unsigned)(uintptr_t)result);
    }
    signal(SIGSEGV, on_fault);
    signal(SIGFPE, on_fault);
    char *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!sigsetjmp(back, 1))
        *(volatile char *)page = 1;
    printf("fault %d\n", (int)caught);
    volatile int zero = 0;
    if (!sigsetjmp(back, 1))
        zero = 77 / zero;
    printf("fault %d\n", (int)caught);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        char *words[] = {"sh", "-c", "exit 7", NULL};
        execv("/bin/sh", words);
        _exit(1);
    }
    int status;
    waitpid(child, &status, 0);
    printf("child %d\n", WEXITSTATUS(status));
    return own == 0 && WEXITSTATUS(status) == 7 ? 0 : 1;
}

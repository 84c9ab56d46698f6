/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is timed inside a container and outside, for bench/containers: static, so that both execute the same
 * bytes.
 *
 * usage: container_work idle | true | syscalls | read FILE | compute
 *
 * The last three do the same small piece of work many times and print the seconds that one took: the median,
 * which tells the same on a host where others are at work too.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PIECES 601

/* Of one piece: about a millisecond of each. */
#define CALLS  4000
#define READS  64
#define ROUNDS 300000u

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void syscalls(void)
{
    for (int i = 0; i < CALLS; i++)
        syscall(SYS_getppid);
}

/* From the page cache: the first pieces have read the file. */
static int read_file(int fd)
{
    static char block[65536];

    for (int i = 0; i < READS; i++) {
        ssize_t got = read(fd, block, sizeof(block));
        if (got < 0 || (got == 0 && lseek(fd, 0, SEEK_SET) < 0))
            return -1;
    }
    return 0;
}

static uint64_t compute(void)
{
    static uint64_t x = 88172645463325252u;

    for (unsigned i = 0; i < ROUNDS; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    volatile uint64_t kept = 0;

    if (strcmp(what, "true") == 0)
        return 0;
    if (strcmp(what, "idle") == 0)
        for (;;)
            pause();
    int fd = strcmp(what, "read") == 0 && argc == 3 ? open(argv[2], O_RDONLY) : -1;
    static double took[PIECES];
    for (unsigned i = 0; i < PIECES; i++) {
        double started = now();
        if (strcmp(what, "syscalls") == 0)
            syscalls();
        else if (strcmp(what, "compute") == 0)
            kept = compute();
        else if (fd < 0 || read_file(fd) < 0)
            return 2;
        took[i] = now() - started;
    }
    qsort(took, PIECES, sizeof(took[0]), compare);
    printf("%.9f\n", took[PIECES / 2]);
    return kept == 1;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is timed inside a container and outside, for bench/containers: static, so that both execute the same
 * bytes.
 *
 * usage: container_work idle | true | syscalls | read FILE | compute     The last three print their seconds.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CALLS  2000000
#define PASSES 8
#define ROUNDS 60000000u

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

/* From the page cache: the file has been read before. */
static int read_file(const char *path)
{
    static char block[65536];

    for (int pass = 0; pass < PASSES; pass++) {
        int fd = open(path, O_RDONLY);
        if (fd < 0)
            return -1;
        while (read(fd, block, sizeof(block)) > 0)
            ;
        close(fd);
    }
    return 0;
}

static uint64_t compute(void)
{
    uint64_t x = 88172645463325252u;

    for (unsigned i = 0; i < ROUNDS; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
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
    double started = now();
    if (strcmp(what, "syscalls") == 0)
        syscalls();
    else if (strcmp(what, "compute") == 0)
        kept = compute();
    else if (strcmp(what, "read") != 0 || argc != 3 || read_file(argv[2]) < 0)
        return 2;
    printf("%.6f\n", now() - started);
    return kept == 1;
}

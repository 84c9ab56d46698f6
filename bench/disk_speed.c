/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What bench/disk runs in the guest: reads or writes a disk past the guest's page cache, and prints bytes a
 * second by the guest's clock. usage: disk-speed DEVICE write|read|random BYTES
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LARGE (1u << 20)
#define SMALL 4096u

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    uint64_t bytes = argc == 4 ? strtoull(argv[3], NULL, 10) : 0, done = 0, place = 88172645463325252u;
    int writing = argc == 4 && strcmp(argv[2], "write") == 0,
        at_random = argc == 4 && strcmp(argv[2], "random") == 0;
    int fd = bytes ? open(argv[1], (writing ? O_WRONLY : O_RDONLY) | O_DIRECT) : -1;
    size_t block = at_random ? SMALL : LARGE;
    uint8_t *buffer = aligned_alloc(SMALL, LARGE);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);

    if (size < LARGE || !buffer) {
        perror("disk-speed");
        return 1;
    }
    /* Not zeros, which some image formats need not write. */
    for (size_t i = 0; i < LARGE; i++)
        buffer[i] = (uint8_t)(i * 2654435761u >> 13);
    double start = now();
    for (; done < bytes; done += block) {
        off_t at = (off_t)(done % (uint64_t)size);
        if (at_random) {
            place ^= place << 13;
            place ^= place >> 7;
            place ^= place << 17;
            at = (off_t)(place % ((uint64_t)size / SMALL) * SMALL);
        }
        ssize_t n = writing ? pwrite(fd, buffer, block, at) : pread(fd, buffer, block, at);
        if (n != (ssize_t)block) {
            perror("disk-speed");
            return 1;
        }
    }
    if (writing && fsync(fd) < 0)
        return 1;
    printf("rate %.0f\n", (double)bytes / (now() - start));
    return 0;
}

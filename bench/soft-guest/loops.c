/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a kernel does most, over and over, for bench/soft. Linked statically, so that starting it is mostly
 * the kernel's work.
 *
 *     loops getpid N      system calls
 *     loops pipe N        a byte to another process and back
 *     loops mmap N        1 MiB mapped, each of its pages touched, unmapped
 *     loops spawn N       fork, exec of this program, wait
 *     loops nothing
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAPPED (1u << 20)
#define PAGE   4096u

static int loop_getpid(long n)
{
    long sum = 0, self = getpid();

    for (long i = 0; i < n; i++)
        sum += syscall(SYS_getpid);
    return sum != n * self;
}

static int loop_pipe(long n)
{
    int to[2], from[2], status;
    char byte = 0;

    if (pipe(to) < 0 || pipe(from) < 0)
        return 1;
    pid_t child = fork();
    if (child < 0)
        return 1;
    if (child == 0) {
        close(to[1]);
        while (read(to[0], &byte, 1) == 1)
            if (write(from[1], &byte, 1) != 1)
                break;
        _exit(0);
    }
    for (long i = 0; i < n; i++) {
        char sent = (char)i;
        if (write(to[1], &sent, 1) != 1 || read(from[0], &byte, 1) != 1 || byte != sent)
            return 1;
    }
    close(to[1]);
    return waitpid(child, &status, 0) != child || status != 0;
}

static int loop_mmap(long n)
{
    for (long i = 0; i < n; i++) {
        volatile char *p = mmap(NULL, MAPPED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED || madvise((void *)p, MAPPED, MADV_NOHUGEPAGE) < 0)
            return 1;
        for (unsigned at = 0; at < MAPPED; at += PAGE)
            p[at]++;
        if (p[MAPPED - PAGE] != 1 || munmap((void *)p, MAPPED) < 0)
            return 1;
    }
    return 0;
}

static int loop_spawn(long n, char *self)
{
    for (long i = 0; i < n; i++) {
        int status;
        pid_t child = fork();

        if (child < 0)
            return 1;
        if (child == 0) {
            execl(self, self, "nothing", NULL);
            _exit(127);
        }
        if (waitpid(child, &status, 0) != child || status != 0)
            return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    long n = argc == 3 ? atol(argv[2]) : 0;
    int failed = 2;

    if (argc == 2 && strcmp(argv[1], "nothing") == 0)
        return 0;
    if (n > 0 && strcmp(argv[1], "getpid") == 0)
        failed = loop_getpid(n);
    else if (n > 0 && strcmp(argv[1], "pipe") == 0)
        failed = loop_pipe(n);
    else if (n > 0 && strcmp(argv[1], "mmap") == 0)
        failed = loop_mmap(n);
    else if (n > 0 && strcmp(argv[1], "spawn") == 0)
        failed = loop_spawn(n, argv[0]);
    puts(failed ? "failed" : "right");
    return failed;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a debugger and a tracer are tried on: little happens, and always the same. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int counter, other;
static struct {
    char pad[4];
    short narrow;
} record;

__attribute__((noinline)) static int step(int n)
{
    other += n + (record.narrow & 1);
    if (n % 2)
        counter += n;
    record.narrow = (short)(n * 3);
    return counter;
}

int main(void)
{
    int sum = 0, status = 0;

    for (int n = 0; n < 40; n++)
        sum += step(n);
    printf("sum %d, other %d\n", sum, other);
    fflush(stdout);
    int fd = open("/nonexistent/file", O_RDONLY);
    pid_t child = fork();
    if (child == 0) {
        if (write(1, "from the child\n", 15) != 15)
            _exit(1);
        _exit(fd < 0 ? 3 : 4);
    }
    waitpid(child, &status, 0);
    printf("child %d\n", WEXITSTATUS(status));
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What bench/soft talks to, in a guest and natively alike. usage: driver FILE. Each line on standard input is
 * a name, a space and a command for the shell; its output goes to the file, and this prints
 *
 *     @begin NAME
 *     @end NAME STATUS NANOSECONDS       by CLOCK_MONOTONIC, from just before the command to its end
 *     ...                                the end of what the command said
 *     @done NAME
 *
 * The reader stamps @begin and @end with a clock of its own, in case this one lies. Runs until its input
 * ends.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OUTPUT_MAX 2048 /* of it is told */

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* As a shell's $?: the status, or 128 and the signal's number. -1 if there is no process. */
static int run(const char *command, const char *output)
{
    int status;
    pid_t child = fork();

    if (child < 0)
        return -1;
    if (child == 0) {
        int in = open("/dev/null", O_RDONLY), out = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0644);

        if (in < 0 || out < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
            _exit(126);
        close(in);
        close(out);
        execl("/bin/sh", "sh", "-c", command, NULL);
        _exit(127);
    }
    if (waitpid(child, &status, 0) != child)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void show_output(const char *output)
{
    char text[OUTPUT_MAX];
    int fd = open(output, O_RDONLY);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    ssize_t n = size < 0 ? 0 : pread(fd, text, sizeof(text), size > OUTPUT_MAX ? size - OUTPUT_MAX : 0);

    if (n > 0) {
        fwrite(text, 1, (size_t)n, stdout);
        if (text[n - 1] != '\n')
            putchar('\n');
    }
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    char line[4000];

    if (argc != 2)
        return 2;
    setvbuf(stdout, NULL, _IOFBF, 4 * OUTPUT_MAX);
    printf("@ready\n");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        char *command = strchr(line, ' ');

        if (!command)
            continue;
        *command++ = 0;
        printf("@begin %s\n", line);
        fflush(stdout);
        int64_t start = now();
        int status = run(command, argv[1]);
        int64_t end = now();
        printf("@end %s %d %lld\n", line, status, (long long)(end - start));
        fflush(stdout);
        show_output(argv[1]);
        printf("@done %s\n", line);
        fflush(stdout);
    }
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Process 1 of a container with --init: starts the program as its child, passes signals on, and takes the
 * exit statuses of processes that have lost their parents, which many programs do not expect to be theirs to
 * take. Ends as the program does. A program of its own, linked statically, carried by `tabique`
 * (bundle_mounts.c) and shown as /dev/init.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void run(char **argv, const sigset_t *before)
{
    /* A group of its own, in the foreground where there is a terminal: Ctrl-C is for it. Signals are blocked
     * still, so asking for that from the background stops nobody. */
    setpgid(0, 0);
    tcsetpgrp(STDIN_FILENO, getpid());
    sigprocmask(SIG_SETMASK, before, NULL);
    execvp(argv[0], argv);
    fprintf(stderr, "init: %s: %s\n", argv[0], strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
}

/* Whether it was the program's; its status then. */
static int take_statuses(pid_t program, int *status)
{
    int ended = 0, any;

    for (pid_t pid; (pid = waitpid(-1, &any, WNOHANG)) > 0;)
        if (pid == program) {
            *status = any;
            ended = 1;
        }
    return ended;
}

int main(int argc, char **argv)
{
    sigset_t all, before;
    int status = 0;

    if (argc < 2)
        return 127;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid_t program = fork();
    if (program == 0)
        run(argv + 1, &before);
    if (program < 0)
        return 126;
    for (;;) {
        int number = 0;

        sigwait(&all, &number);
        if (number != SIGCHLD) {
            kill(program, number);
            continue;
        }
        if (take_statuses(program, &status))
            return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
}

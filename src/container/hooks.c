/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A hook is a child with a pipe: it reads the state, and its end within the time limit is waited for. Called
 * by the commands, and by the container's process for those that run inside. */
#include "container/hooks.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#define OUTPUT_MAX 1024

static __attribute__((noreturn)) void execute(const struct container_hook *hook, int input, int output)
{
    static const char *const nothing[] = {NULL};
    const char *const self[] = {hook->path, NULL};
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    dup2(input, 0);
    dup2(output, 1);
    dup2(output, 2);
    close_range(3, ~0u, 0);
    execve(hook->path, (char *const *)(hook->args && hook->args[0] ? hook->args : (const char **)self),
           (char *const *)(hook->env ? hook->env : (const char **)nothing));
    dprintf(2, "%s", strerror(errno));
    _exit(127);
}

/* The state as a file: a hook that does not read it can't make us wait. */
static int state_file(const char *text)
{
    int fd = memfd_create("state", MFD_CLOEXEC);

    if (fd >= 0 && (write(fd, text, strlen(text)) < 0 || lseek(fd, 0, SEEK_SET) < 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

static int wait_for(pid_t child, int64_t timeout, int *status)
{
    cleanup_close int pidfd = timeout ? pidfd_open(child, 0) : -1;

    if (timeout) {
        struct pollfd p = {.fd = pidfd, .events = POLLIN};
        int rc = poll(&p, 1, timeout > INT32_MAX / 1000 ? -1 : (int)timeout * 1000);

        if (rc == 0) {
            kill(child, SIGKILL);
            waitpid(child, status, 0);
            return -ETIMEDOUT;
        }
    }
    while (waitpid(child, status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

static int run_one(const struct container_hook *hook, const char *state_json, struct error **err)
{
    char text[OUTPUT_MAX] = "";
    int status = 0;
    cleanup_close int input = state_file(state_json);
    cleanup_close int output = memfd_create("output", MFD_CLOEXEC);

    if (input < 0 || output < 0)
        return error_set_errno(err, errno, "%s", hook->path);
    pid_t child = fork();
    if (child == 0)
        execute(hook, input, output);
    if (child < 0)
        return error_set_errno(err, errno, "%s", hook->path);
    int rc = wait_for(child, hook->timeout, &status);
    ssize_t n = pread(output, text, sizeof(text) - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    if (rc == -ETIMEDOUT)
        return error_set(err, ETIMEDOUT, "%s: hook ran past specified timeout of %llds", hook->path,
                         (long long)hook->timeout);
    if (rc < 0)
        return error_set_errno(err, -rc, "%s", hook->path);
    if (WIFSIGNALED(status))
        return error_set(err, EIO, "%s: ended by signal %d", hook->path, WTERMSIG(status));
    if (status)
        return error_set(err, EIO, "%s: exit status %d%s%s", hook->path, WEXITSTATUS(status),
                         text[0] ? ": " : "", text);
    return 0;
}

int hooks_run(const struct container_hooks *hooks, enum container_hook_kind kind, const char *state_json,
              struct error **err)
{
    for (size_t i = 0; i < hooks->n[kind]; i++) {
        int rc = run_one(&hooks->list[kind][i], state_json, err);

        if (rc)
            return error_wrap(err, "error running %s hook #%zu", container_hook_names[kind], i);
    }
    return 0;
}

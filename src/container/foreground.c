/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One loop over signals, the terminal of this process and that of the container's. Called by run.c and
 * exec.c. */
#include "container/foreground.h"

#include "base/cleanup.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>

int foreground_begin(void)
{
    sigset_t set;

    sigfillset(&set);
    /* What this process does wrong itself is its own. */
    for (const int *p = (const int[]){SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGPIPE, SIGURG, 0}; *p; p++)
        sigdelset(&set, *p);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

static void copy_size(int master)
{
    struct winsize size;

    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0)
        ioctl(master, TIOCSWINSZ, &size);
}

/* True when `pid` has ended, with *status. */
static bool take_signals(int signals, pid_t pid, int master, int *status)
{
    struct signalfd_siginfo info;
    bool ended = false;

    while (read(signals, &info, sizeof(info)) == sizeof(info)) {
        int word;
        pid_t child;

        if (info.ssi_signo == SIGWINCH && master >= 0) {
            copy_size(master);
        } else if (info.ssi_signo != SIGCHLD) {
            kill(pid, (int)info.ssi_signo);
        } else {
            while ((child = waitpid(-1, &word, WNOHANG)) > 0)
                if (child == pid) {
                    *status = WIFEXITED(word) ? WEXITSTATUS(word) : 128 + WTERMSIG(word);
                    ended = true;
                }
        }
    }
    return ended;
}

/* False at the end of `from`. */
static bool pass(int from, int to)
{
    char buf[4096];
    ssize_t n = read(from, buf, sizeof(buf));

    if (n <= 0)
        return n < 0 && (errno == EINTR || errno == EAGAIN);
    for (ssize_t done = 0; done < n;) {
        ssize_t k = write(to, buf + done, (size_t)(n - done));

        if (k < 0 && errno != EINTR && errno != EAGAIN)
            return true; /* nobody reads; the container may go on */
        done += k > 0 ? k : 0;
    }
    return true;
}

static int follow(int signals, pid_t pid, int master)
{
    struct pollfd fds[3] = {{.fd = signals, .events = POLLIN},
                            {.fd = master, .events = POLLIN},
                            {.fd = master >= 0 ? STDIN_FILENO : -1, .events = POLLIN}};
    int status = 0;

    for (;;) {
        if (poll(fds, 3, -1) < 0 && errno != EINTR)
            return -errno;
        if (fds[1].revents && !pass(master, STDOUT_FILENO))
            fds[1].fd = -1;
        if (fds[2].revents && !pass(STDIN_FILENO, master))
            fds[2].fd = -1;
        if (fds[0].revents && take_signals(signals, pid, master, &status)) {
            struct pollfd rest = {.fd = fds[1].fd, .events = POLLIN};

            /* What it printed last. */
            while (rest.fd >= 0 && poll(&rest, 1, 0) > 0 && pass(master, STDOUT_FILENO))
                ;
            return status;
        }
    }
}

int foreground_follow(int signals, pid_t pid, int master)
{
    struct termios before, raw;
    bool terminal = master >= 0 && tcgetattr(STDIN_FILENO, &before) == 0;

    if (terminal) {
        raw = before;
        cfmakeraw(&raw);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
        copy_size(master);
    }
    int status = follow(signals, pid, master);
    if (terminal)
        tcsetattr(STDIN_FILENO, TCSANOW, &before);
    return status;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a process has in its hands: descriptors, limits, signal handlers, environment. Called by confine.c
 * from the only thread there is; statm_fd is used once more when the machine is built.
 */
#include "host/confine_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "host/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#define DESCRIPTORS 1024
/* More than vCPUs, disks and queues have threads together, with the kernel's own workers for rings and KVM.
 */
#define THREADS 128
/* When memory is short the VM goes before its supervisor; raising it needs no right. */
#define OOM_SCORE "300"

static int statm_fd = -1;
static uint64_t headroom;

/* ---- descriptors ---- */

static bool is_kept(const int *keep, size_t n, int fd)
{
    if (fd == STDERR_FILENO && (CONFINE_SANITIZED || confine_seccomp_logs()))
        return true;
    for (size_t i = 0; i < n; i++) {
        if (keep[i] == fd)
            return true;
    }
    return false;
}

static int null_standard(const int *keep, size_t n, struct error **err)
{
    cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0)
        return error_set_errno(err, errno, "/dev/null");
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        if (!is_kept(keep, n, fd) && dup3(null, fd, O_CLOEXEC) < 0 && null != fd)
            return error_set_errno(err, errno, "descriptor %d", fd);
    }
    if (null <= STDERR_FILENO)
        steal_fd(null);
    return 0;
}

int confine_descriptors(const int *keep, size_t n_keep, struct error **err)
{
    int rc = descriptors_close_but(STDERR_FILENO + 1, keep, n_keep);

    return rc < 0 ? error_set_errno(err, -rc, "closing descriptors") : null_standard(keep, n_keep, err);
}

/* ---- limits ---- */

static int limit(int resource, rlim_t value)
{
    struct rlimit now, wanted;

    if (getrlimit(resource, &now) < 0)
        return -errno;
    wanted.rlim_max = now.rlim_max < value ? now.rlim_max : value;
    wanted.rlim_cur = wanted.rlim_max;
    return setrlimit(resource, &wanted) < 0 ? -errno : 0;
}

int confine_limits(const struct confine_config *config, struct error **err)
{
    static const int nothing[] = {RLIMIT_CORE, RLIMIT_MSGQUEUE, RLIMIT_NICE, RLIMIT_RTPRIO};
    int rc = limit(RLIMIT_NOFILE, config->descriptors ? config->descriptors : DESCRIPTORS);

    headroom = config->headroom;
    for (size_t i = 0; i < ARRAY_SIZE(nothing) && rc == 0; i++)
        rc = limit(nothing[i], 0);
    return rc ? error_set_errno(err, -rc, "limits") : 0;
}

void confine_watch_size(void)
{
    statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
}

/* Bytes of address space in use, or 0. */
static uint64_t address_space(void)
{
    char text[64];
    ssize_t n = statm_fd < 0 ? -1 : pread(statm_fd, text, sizeof(text) - 1, 0);

    if (n <= 0)
        return 0;
    text[n] = '\0';
    return strtoull(text, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

int confine_limits_final(bool own_count)
{
    uint64_t used = address_space();
    int rc = limit(RLIMIT_MEMLOCK, 0);

    if (rc == 0 && own_count)
        rc = limit(RLIMIT_NPROC, THREADS);
    if (rc == 0 && used && headroom && !CONFINE_SANITIZED)
        rc = limit(RLIMIT_AS, used + headroom);
    cleanup_close_fn(&statm_fd);
    statm_fd = -1;
    return rc;
}

void confine_prefer_as_victim(void)
{
    cleanup_close int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    /* Refused where an administrator has set more already: fine as well. */
    if (fd >= 0 && write(fd, OOM_SCORE, strlen(OOM_SCORE)) < 0)
        errno = 0;
}

/* ---- signals ---- */

static bool is_fault(int sig)
{
    return sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL || sig == SIGABRT;
}

void confine_signals(void)
{
    struct sigaction standard = {.sa_handler = SIG_DFL}, ignore = {.sa_handler = SIG_IGN};
    sigset_t none;

    for (int sig = 1; sig < NSIG; sig++) {
        /* A sanitizer reports from these. */
        if (!(CONFINE_SANITIZED && is_fault(sig)) && !(sig == SIGSYS && confine_seccomp_logs()))
            sigaction(sig, &standard, NULL);
    }
    /* A peer that is gone and a file that has reached its limit are told by the calls themselves. */
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL);
    /* Whoever ends a whole group of processes (a service, a session) so ends the supervisor, which lets the
     * guest put its disks in order first. */
    sigaction(SIGTERM, &ignore, NULL);
    sigaction(SIGINT, &ignore, NULL);
    sigaction(SIGHUP, &ignore, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* ---- what it could tell ---- */

#define STAT_ARGUMENTS 48 /* the field arg_start of proc(5); arg_end, env_start and env_end follow */

static bool find_strings(char *strings[4])
{
    char text[2048];
    cleanup_fclose FILE *f = fopen("/proc/self/stat", "re");
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

    text[n] = '\0';
    /* The name, field 2, may hold anything. */
    char *at = strrchr(text, ')');
    for (unsigned field = 2; at && field < STAT_ARGUMENTS; field++) {
        at = strchr(at, ' ');
        at = at ? at + 1 : NULL;
    }
    for (unsigned i = 0; at && i < 4; i++) {
        strings[i] = (char *)(uintptr_t)strtoull(at, &at, 10);
        if (!strings[i])
            return false;
    }
    return at != NULL;
}

void confine_wipe(const char *title)
{
    char *strings[4];

    clearenv();
    if (!find_strings(strings))
        return;
    /* A title may run on into the environment's place, if it lies behind: the kernel then looks on for its
     * end. */
    size_t room = (size_t)((strings[1] == strings[2] ? strings[3] : strings[1]) - strings[0]);
    cleanup_free char *copy = strndup(title, room ? room - 1 : 0);
    explicit_bzero(strings[0], (size_t)(strings[1] - strings[0]));
    explicit_bzero(strings[2], (size_t)(strings[3] - strings[2]));
    if (copy && room)
        memcpy(strings[0], copy, strlen(copy));
}

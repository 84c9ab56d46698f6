/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The order of the steps, and what is said of them. State is static since a process is confined once, and
 * threads look it up; it is written by the only thread there is then.
 */
#include "host/confine.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "host/confine_priv.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

/* Heaps of the C library that threads share. */
#define ARENAS 4

static bool confined;
static bool counted_alone; /* its threads are counted apart from those of the user's other processes */
static pid_t bound_to;     /* 0: nobody */

static const char *const step_names[CONFINE_STEPS] = {
    [CONFINE_USER] = "user",         [CONFINE_MOUNT] = "mount",
    [CONFINE_NETWORK] = "net",       [CONFINE_IPC] = "ipc",
    [CONFINE_UTS] = "uts",           [CONFINE_CGROUP] = "cgroup",
    [CONFINE_ROOT] = "empty root",   [CONFINE_IDENTITY] = "own user id",
    [CONFINE_LANDLOCK] = "Landlock", [CONFINE_SESSION] = "own keyring",
};

void confine_mark(struct confine_status *status, enum confine_step step, int rc)
{
    status->state[step] = rc ? CONFINE_REFUSED : CONFINE_DONE;
    status->error[step] = (uint16_t)-rc;
}

/*
 * Limits, privileges and lists are per thread or would be passed by: all threads must come after. One that
 * has been joined may be on its way out still.
 */
static int check_single_thread(struct error **err)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    struct stat st;

    for (unsigned tries = 0; stat("/proc/self/task", &st) == 0 && st.st_nlink != 3; tries++) {
        if (CONFINE_SANITIZED) /* some have a thread of their own */
            return 0;
        if (tries == 2000)
            return error_set(err, EBUSY, "the process to be confined has %lu threads instead of one",
                             (unsigned long)st.st_nlink - 2);
        nanosleep(&pause, NULL);
    }
    return 0;
}

static int bind_to_parent(struct error **err)
{
    if (!bound_to)
        return 0;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return error_set_errno(err, errno, "dying with the supervisor");
    /* It may have died before that. */
    if (getppid() != bound_to)
        return error_set(err, ESRCH, "the supervisor has ended");
    return 0;
}

int confine_begin(pid_t parent, const char *name, const int *keep, size_t n_keep, struct error **err)
{
    bound_to = parent;
    int rc = bind_to_parent(err);
    if (rc)
        return rc;
    prctl(PR_SET_NAME, name);
    /* What is typed at the supervisor's terminal must not signal this process, which has no business there.
     * Fails for the leader of a group, which a fresh child is not. */
    setsid();
    confine_signals();
    return confine_descriptors(keep, n_keep, err);
}

static int drop_rights(const struct confine_config *config, struct confine_status *status, struct error **err)
{
    int rc = confine_limits(config, err);

    if (rc == 0)
        rc = config->kind == CONFINE_UNPACK ? confine_privileges_unpack(status, err)
                                            : confine_privileges(status, err);
    if (rc)
        return rc;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_set_errno(err, errno, "no new privileges");
    if (prctl(PR_SET_DUMPABLE, 0) < 0)
        return error_set_errno(err, errno, "no core dumps and no tracing");
    /* The kernel has forgotten it: user ids or capabilities have changed. */
    rc = bind_to_parent(err);
    if (rc)
        return rc;
    confine_landlock(config, status);
    /* What has one thread and builds no machine has all that it needs. */
    rc = config->kind == CONFINE_UNPACK || config->kind == CONFINE_SERVE ? confine_limits_final(false) : 0;
    if (rc == 0)
        rc = confine_seccomp_enter(config->kind);
    return rc ? error_set_errno(err, -rc,
                                "list of system calls (a kernel with CONFIG_SECCOMP_FILTER is needed)")
              : 0;
}

int confine_process(const struct confine_config *config, struct confine_status *out, struct error **err)
{
    struct confine_status status = {0};

    if (confined || (config->kind != CONFINE_START && config->kind != CONFINE_NAT &&
                     config->kind != CONFINE_SERVE && config->kind != CONFINE_UNPACK))
        return error_set(err, EINVAL, "confinement: wrong use");
    int rc = check_single_thread(err);
    if (rc == 0)
        rc = confine_seccomp_prepare(err);
    if (rc) {
        error_wrap(err, "confinement");
        return rc;
    }
    umask(077);
    /* Before the C library gives a thread's memory back for the first time, it reads a file of /proc. */
    mallopt(M_TRIM_THRESHOLD, INT_MAX);
    /* To decide on an arena for its tenth thread, it would count the host's processors, again in a file. */
    mallopt(M_ARENA_MAX, ARENAS);
    tzset(); /* the C library's first look at a clock reads the time zone's file, and no later one does */
    confine_session(&status);
    confine_prefer_as_victim();
    if (config->title)
        confine_wipe(config->title);
    if (config->headroom)
        confine_watch_size();
    confine_namespaces(config, &status);
    if (config->kind == CONFINE_UNPACK)
        confine_directory(config->directory, &status);
    else
        confine_root(config->file, &status);
    rc = drop_rights(config, &status, err);
    if (rc) {
        error_wrap(err, "confinement");
        return rc;
    }
    /* The lists took memory to make, and the process has what its parent had freed. */
    malloc_trim(0);
    confined = true;
    counted_alone =
        status.state[CONFINE_IDENTITY] == CONFINE_DONE || status.state[CONFINE_USER] == CONFINE_DONE;
    *out = status;
    return 0;
}

#ifdef TABIQUE_SANITIZED
static bool is_command;

/* Asked by the search for leaks at the end, which would have to trace the process. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return is_command;
}
#endif

static int confine_command(enum confine_kind kind, struct error **err)
{
    const struct confine_config config = {.kind = kind};
    struct confine_status status = {0};
    int rc = confined ? 0 : confine_seccomp_prepare_one(kind, err);

    if (confined || rc)
        return rc;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_set_errno(err, errno, "no new privileges");
    confine_landlock(&config, &status);
    rc = confine_seccomp_enter(kind);
    confined = rc == 0;
#ifdef TABIQUE_SANITIZED
    is_command = confined;
#endif
    return rc ? error_set_errno(err, -rc,
                                "list of system calls (a kernel with CONFIG_SECCOMP_FILTER is needed)")
              : 0;
}

int confine_reader(struct error **err)
{
    return confine_command(CONFINE_READ, err);
}

int confine_writer(struct error **err)
{
    return confine_command(CONFINE_WRITE, err);
}

int confine_thread(enum confine_kind kind)
{
    if (!confined)
        return 0;
    int rc = kind == CONFINE_MAIN ? confine_limits_final(counted_alone) : 0;
    return rc ? rc : confine_seccomp_enter(kind);
}

/* ---- what is said of it ---- */

static bool is_missing(const struct confine_status *status, unsigned step)
{
    return status->state[step] == CONFINE_REFUSED || status->state[step] == CONFINE_WEAKER;
}

/* Landlock is a second wall where the first stands: without it nothing is open that would be closed. */
static bool makes_a_difference(const struct confine_status *status, unsigned step)
{
    if (step == CONFINE_LANDLOCK)
        return status->state[CONFINE_ROOT] != CONFINE_DONE ||
               status->state[CONFINE_NETWORK] == CONFINE_REFUSED;
    return step != CONFINE_SESSION;
}

bool confine_complete(const struct confine_status *status)
{
    for (unsigned i = 0; i < CONFINE_STEPS; i++) {
        if (is_missing(status, i) && makes_a_difference(status, i))
            return false;
    }
    return true;
}

const char *confine_step_name(enum confine_step step)
{
    return (unsigned)step < CONFINE_STEPS ? step_names[step] : NULL;
}

struct text {
    char *buf;
    size_t len, used;
};

static void __attribute__((format(printf, 2, 3))) append(struct text *t, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int n = vsnprintf(t->buf + t->used, t->len - t->used, format, args);
    va_end(args);
    if (n > 0)
        t->used = t->used + (size_t)n < t->len ? t->used + (size_t)n : t->len - 1;
}

static bool is_namespace(unsigned step)
{
    return step <= CONFINE_CGROUP;
}

static bool is_shown(const struct confine_status *status, unsigned step, bool missing)
{
    return missing ? is_missing(status, step) : status->state[step] == CONFINE_DONE;
}

static void append_step(struct text *t, const struct confine_status *status, unsigned step)
{
    append(t, "%s", step_names[step]);
    if (is_missing(status, step) && status->error[step] != EPERM)
        append(t, ": %s", strerror(status->error[step]));
    if (status->state[step] == CONFINE_WEAKER)
        append(t, " (done by a lesser means)");
}

/* Those that are missing, or those that were done, after `separator`; namespaces, which come first, in a
 * list. */
static void append_steps(struct text *t, const struct confine_status *status, bool missing,
                         const char *separator)
{
    bool in_list = false;

    for (unsigned i = 0; i < CONFINE_STEPS; i++) {
        if (!is_shown(status, i, missing))
            continue;
        if (in_list && !is_namespace(i))
            append(t, ")");
        append(t, "%s%s", separator, is_namespace(i) && !in_list ? "namespaces (" : "");
        append_step(t, status, i);
        in_list = is_namespace(i);
        separator = ", ";
    }
    if (in_list)
        append(t, ")");
}

void confine_describe(const struct confine_status *status, char *buf, size_t len)
{
    struct text t = {.buf = buf, .len = len};

    if (!len)
        return;
    buf[0] = '\0';
    append(&t, "%s: system call lists, no capabilities", confine_complete(status) ? "complete" : "partial");
    append_steps(&t, status, false, ", ");
    append_steps(&t, status, true, "; not permitted here: ");
}

const char *confine_violation(int wait_status)
{
    if (!WIFSIGNALED(wait_status) || WTERMSIG(wait_status) != SIGSYS)
        return NULL;
    return "it made a system call that is not on its list, and was ended; TABIQUE_SECCOMP=log tells which";
}

/* ---- a trial ---- */

static _Noreturn void try_in_child(int out, pid_t parent)
{
    const struct confine_config config = {.kind = CONFINE_START};
    struct {
        struct confine_status status;
        int rc;
    } result = {0};

    result.rc = confine_begin(parent, "tabique-try", &out, 1, NULL);
    if (result.rc == 0)
        result.rc = confine_process(&config, &result.status, NULL);
    if (result.rc == 0)
        result.rc = confine_thread(CONFINE_MAIN);
    if (write(out, &result, sizeof(result)) < 0)
        _exit(1);
    _exit(0);
}

int confine_try(struct confine_status *status, struct error **err)
{
    struct {
        struct confine_status status;
        int rc;
    } result;
    int ends[2], wait_status = 0;

    if (pipe2(ends, 0) < 0)
        return error_set_errno(err, errno, "confinement");
    cleanup_close int in = ends[0];
    pid_t self = getpid(), pid = fork();
    if (pid < 0) {
        close(ends[1]);
        return error_set_errno(err, errno, "confinement");
    }
    if (pid == 0)
        try_in_child(ends[1], self);
    close(ends[1]);
    ssize_t n = read(in, &result, sizeof(result));
    while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR)
        continue;
    if (n != sizeof(result))
        return error_set(err, EIO, "confinement: a trial %s",
                         confine_violation(wait_status) ? "left its list of system calls" : "did not end");
    if (result.rc)
        return error_set_errno(err, -result.rc, "confinement: a trial failed");
    *status = result.status;
    return 0;
}

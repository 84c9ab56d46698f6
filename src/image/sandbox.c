/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs the programs that build images, kept together. Three processes:
 *
 *     this one      reads the output, waits; gives the second its user ids (newuidmap is setuid and must come
 *                   from outside)
 *     the keeper    in the new namespaces but for the process namespace; waits for the third
 *     the program   process 1 of the process namespace: when it ends, the kernel ends all others in there
 *
 * The second and the third die with their parent, so that a SIGKILL of the first leaves nothing running.
 */
#include "image/build_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

extern char **environ;

#define LINE_MAX_BYTES 4096
#define IDS_NEEDED     65534 /* up to nobody's */

/* How the program becomes root. */
enum way {
    WAY_ROOT,      /* it is; with namespaces */
    WAY_CONTAINER, /* it is, but may not make namespaces: then nothing can be mounted either */
    WAY_USER,      /* a user namespace */
};

struct id_range {
    unsigned long first, count;
};

static bool has_sys_admin(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    return syscall(SYS_capget, &header, data) == 0 && data[0].effective & (1u << CAP_SYS_ADMIN);
}

static int reap(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return status;
}

/* ---- ids ---- */

/* The largest range of /etc/subuid or /etc/subgid (subuid(5): NAME-OR-UID:FIRST:COUNT) for the person. */
static struct id_range find_range(const char *path, const char *person)
{
    cleanup_fclose FILE *f = fopen(path, "re");
    struct id_range best = {0};
    char line[256], uid[24];

    snprintf(uid, sizeof(uid), "%u", (unsigned)getuid());
    while (f && fgets(line, sizeof(line), f)) {
        struct id_range range;
        char *colon = strchr(line, ':');

        if (!colon)
            continue;
        *colon = '\0';
        if ((strcmp(line, uid) == 0 || (person && strcmp(line, person) == 0)) &&
            sscanf(colon + 1, "%lu:%lu", &range.first, &range.count) == 2 && range.count > best.count)
            best = range;
    }
    return best;
}

static const char *purpose_of(const struct sandbox *job)
{
    return job->purpose ? job->purpose : "building an image";
}

/* The person becomes 0, the ranges what follows. */
static int map_ids(const struct sandbox *job, pid_t keeper, struct error **err)
{
    const struct passwd *entry = getpwuid(getuid());
    const char *person = entry ? entry->pw_name : NULL;
    static const char *const tools[] = {"newuidmap", "newgidmap"}, *const files[] = {"/etc/subuid",
                                                                                     "/etc/subgid"};
    const unsigned ids[] = {getuid(), getgid()};

    for (int i = 0; i < 2; i++) {
        struct id_range range = find_range(files[i], person);
        char pid[24], own[24], first[24], count[24];

        if (range.count < IDS_NEEDED)
            return error_set(err, EPERM,
                             "%s as a person takes %d user ids to give away, and %s gives %s %s: as "
                             "root, usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s",
                             purpose_of(job), IDS_NEEDED, files[i], person ? person : "you",
                             range.count ? "less" : "none", person ? person : "NAME");
        snprintf(pid, sizeof(pid), "%d", (int)keeper);
        snprintf(own, sizeof(own), "%u", ids[i]);
        snprintf(first, sizeof(first), "%lu", range.first);
        snprintf(count, sizeof(count), "%lu", range.count);
        pid_t child = fork();
        if (child == 0) {
            execlp(tools[i], tools[i], pid, "0", own, "1", "1", first, count, NULL);
            _exit(127);
        }
        int status = child < 0 ? -1 : reap(child);
        if (status < 0)
            return error_set_errno(err, errno, "%s", tools[i]);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
            return error_set(err, ENOENT, "%s as a person takes the program %s: apt-get install uidmap",
                             purpose_of(job), tools[i]);
        if (status)
            return error_set(err, EPERM, "%s could not map the ids that %s gives", tools[i], files[i]);
    }
    return 0;
}

/* ---- the keeper and the program ---- */

/*
 * Nothing that is made in here is worth its place on the disk before all of it is there, and then whoever
 * asked for it syncs the result: so the calls that wait for the disk, of which package managers make
 * thousands, succeed at once. A filter that can't be had only costs time.
 */
static void do_without_sync(void)
{
    static const int calls[] = {SCMP_SYS(fsync),  SCMP_SYS(fdatasync),       SCMP_SYS(sync),
                                SCMP_SYS(syncfs), SCMP_SYS(sync_file_range), SCMP_SYS(msync)};
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int rc = filter ? 0 : -ENOMEM;

    for (size_t i = 0; rc == 0 && i < sizeof(calls) / sizeof(calls[0]); i++)
        rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(0), calls[i], 0);
    if (rc == 0)
        seccomp_load(filter);
    seccomp_release(filter);
}

static __attribute__((noreturn)) void run_program(const struct sandbox *job, int output)
{
    int null = open("/dev/null", O_RDONLY);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(null, 0);
    dup2(output, 1);
    dup2(output, 2);
    if (job->inherited >= 0)
        fcntl(job->inherited, F_SETFD, 0);
    for (size_t i = 0; job->environment && job->environment[i]; i++)
        putenv((char *)job->environment[i]);
    do_without_sync();
    if (job->call)
        _exit(job->call(job->opaque));
    execvp(job->argv[0], (char *const *)job->argv);
    dprintf(2, "@error %s: %s\n", job->argv[0], strerror(errno));
    _exit(127);
}

/* Both ways of the pipes are one byte: "I have my namespaces", "go on". */
static __attribute__((noreturn)) void run_keeper(const struct sandbox *job, enum way way, int output,
                                                 int ready, int go)
{
    int flags = (way == WAY_CONTAINER ? 0 : CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC) |
                (way == WAY_USER ? CLONE_NEWUSER : 0);
    char byte = 0;

    /* Not in the terminal's foreground group: a Ctrl-C is ours to handle. */
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    if (flags && unshare(flags) < 0)
        byte = (char)errno;
    if (write(ready, &byte, 1) != 1 || byte || read(go, &byte, 1) != 1)
        _exit(127);
    if (way == WAY_USER && (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0))
        _exit(127);
    /* Changing ids forgets it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Mounts made here stay here. In a chroot / may be no mount point; there they are private or nothing. */
    if (flags)
        mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL);
    pid_t pid = fork();
    if (pid == 0)
        run_program(job, output);
    int status = pid < 0 ? 127 << 8 : reap(pid);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* ---- this side ---- */

static void take_output(const struct sandbox *job, char *buf, size_t *used, bool last)
{
    char *line = buf, *end;

    while ((end = memchr(line, '\n', *used - (size_t)(line - buf)))) {
        *end = '\0';
        job->line(job->opaque, line);
        line = end + 1;
    }
    *used -= (size_t)(line - buf);
    memmove(buf, line, *used);
    if (*used && (last || *used == LINE_MAX_BYTES)) {
        buf[*used] = '\0';
        job->line(job->opaque, buf);
        *used = 0;
    }
}

/* To the end of the output, which comes when all have closed it. */
static int read_output(const struct sandbox *job, int fd, struct error **err)
{
    char buf[LINE_MAX_BYTES + 1];
    size_t used = 0;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};

        /* The time limit is for a signal that comes between the question and the wait. */
        if (poll(&p, 1, 500) < 0 && errno != EINTR)
            return error_set_errno(err, errno, "poll");
        if (interrupted() && !job->stubborn)
            return interrupt_error(err);
        if (!p.revents)
            continue;
        ssize_t n = read(fd, buf + used, LINE_MAX_BYTES - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n > 0)
            used += (size_t)n;
        take_output(job, buf, &used, n <= 0);
        if (n <= 0)
            return 0;
    }
}

static int namespaces_refused(const struct sandbox *job, enum way way, int errnum, struct error **err)
{
    return error_set(
        err, errnum, "no %s namespaces (%s): %s%s", way == WAY_USER ? "user" : "mount", strerror(errnum),
        way == WAY_USER ? purpose_of(job) : "'tabique check' tells more",
        way == WAY_USER
            ? " as a person takes them (sysctl user.max_user_namespaces, "
              "kernel.unprivileged_userns_clone, or a security module's profile forbids them); root "
              "needs none"
            : "");
}

static int supervise(const struct sandbox *job, enum way way, pid_t keeper, const int fds[3], int *status,
                     struct error **err)
{
    char byte = 0;
    int rc = 0;

    if (read(fds[1], &byte, 1) != 1)
        rc = error_set(err, EIO, "a process ended unexpectedly");
    else if (byte)
        rc = namespaces_refused(job, way, byte, err);
    if (rc == 0 && way == WAY_USER)
        rc = map_ids(job, keeper, err);
    if (rc == 0 && write(fds[2], "", 1) != 1)
        rc = error_set(err, EIO, "a process ended unexpectedly");
    if (rc == 0)
        rc = read_output(job, fds[0], err);
    if (rc)
        kill(-keeper, SIGKILL);
    *status = reap(keeper);
    return rc;
}

static int run(const struct sandbox *job, enum way way, int *status, struct error **err)
{
    int output[2], ready[2], go[2];

    if (pipe2(output, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "pipe");
    if (pipe2(ready, O_CLOEXEC) < 0) {
        int rc = error_set_errno(err, errno, "pipe");
        close(output[0]);
        close(output[1]);
        return rc;
    }
    if (pipe2(go, O_CLOEXEC) < 0) {
        int rc = error_set_errno(err, errno, "pipe");
        close(output[0]);
        close(output[1]);
        close(ready[0]);
        close(ready[1]);
        return rc;
    }
    fflush(NULL);
    pid_t keeper = fork();
    if (keeper == 0)
        run_keeper(job, way, output[1], ready[1], go[0]);
    int rc = keeper < 0 ? error_set_errno(err, errno, "fork") : 0;
    close(output[1]);
    close(ready[1]);
    close(go[0]);
    if (rc == 0) {
        setpgid(keeper, keeper); /* whoever of the two is first */
        rc = supervise(job, way, keeper, (int[]){output[0], ready[0], go[1]}, status, err);
    }
    close(output[0]);
    close(ready[0]);
    close(go[1]);
    return rc;
}

int sandbox_run(const struct sandbox *job, int *status, struct error **err)
{
    enum way way = geteuid() != 0 ? WAY_USER : has_sys_admin() ? WAY_ROOT : WAY_CONTAINER;

    return run(job, way, status, err);
}

static void ignore_line(void *opaque, const char *line)
{
}

void sandbox_delete_tree(const char *path)
{
    const char *const argv[] = {"rm", "-rf", "--one-file-system", "--", path, NULL};
    const struct sandbox job = {.argv = argv, .stubborn = true, .inherited = -1, .line = ignore_line};
    int status;

    if (geteuid() != 0)
        run(&job, WAY_USER, &status, NULL);
}

int image_map_ids(pid_t pid, struct error **err)
{
    const struct sandbox job = {.purpose = "running a container"};

    return map_ids(&job, pid, err);
}

void image_delete_tree(const char *path)
{
    sandbox_delete_tree(path);
}

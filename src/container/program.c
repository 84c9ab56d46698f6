/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Finding and executing a container's program. Called in the container, by the process that becomes the
 * program. */
#include "container/program.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/container.h"
#include "container/identity.h"
#include "container/trampoline.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/magic.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

bool program_is_in_danger(const struct container_config *config)
{
    const struct container_process *p = &config->process;

    return !config->has_namespace[CONTAINER_NS_USER] &&
           (!p->has_capabilities || p->capabilities.bounding >> CAP_SYS_PTRACE & 1);
}

int program_open_label(const struct container_process *process, int *fd, const char **label,
                       struct error **err)
{
    bool apparmor = process->apparmor_profile && *process->apparmor_profile;
    bool selinux = process->selinux_label && *process->selinux_label;

    *fd = -1;
    if (apparmor && access("/sys/kernel/security/apparmor", F_OK) < 0 &&
        access("/sys/module/apparmor/parameters/enabled", F_OK) < 0)
        return error_set(err, ENOTSUP,
                         "process.apparmorProfile: apparmor failed to apply profile: this host's kernel "
                         "has no AppArmor");
    if (selinux && access("/sys/fs/selinux/enforce", F_OK) < 0)
        return error_set(err, ENOTSUP,
                         "process.selinuxLabel: selinux label is specified in config, but selinux is "
                         "disabled or not supported");
    if (!apparmor && !selinux)
        return 0;
    *fd = open(apparmor ? "/proc/thread-self/attr/apparmor/exec" : "/proc/thread-self/attr/exec",
               O_WRONLY | O_CLOEXEC);
    if (*fd < 0 && apparmor)
        *fd = open("/proc/thread-self/attr/exec", O_WRONLY | O_CLOEXEC);
    if (*fd < 0)
        return error_set_errno(err, errno, "process label");
    /* Where the container's own /proc is the only one in sight, something else could be there. */
    struct statfs fs;
    if (fstatfs(*fd, &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC)
        return error_set(err, ENODEV, "process label: /proc is not the kernel's");
    *label = apparmor ? process->apparmor_profile : process->selinux_label;
    return 0;
}

/* ---- the file ---- */

/* 0, or the errno that executing it would give. */
static int check_file(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return errno;
    if (S_ISDIR(st.st_mode))
        return EISDIR;
    if (!S_ISREG(st.st_mode))
        return EACCES;
    return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0 ? errno : 0;
}

static const char *variable(const struct container_process *process, const char *name)
{
    size_t n = strlen(name);

    /* The last of several holds. */
    for (size_t i = process->n_env; i > 0; i--)
        if (strncmp(process->env[i - 1], name, n) == 0 && process->env[i - 1][n] == '=')
            return process->env[i - 1] + n + 1;
    return NULL;
}

static int fail_find(const char *name, int errnum, bool in_path, int *status, struct error **err)
{
    *status =
        errnum == ENOENT || errnum == ENOTDIR ? CONTAINER_STATUS_NOT_FOUND : CONTAINER_STATUS_NOT_EXECUTABLE;
    if (in_path && errnum == ENOENT)
        return error_set(err, errnum, "exec: \"%s\": executable file not found in $PATH", name);
    const char *text = errnum == ENOENT   ? "no such file or directory"
                       : errnum == EACCES ? "permission denied"
                       : errnum == EISDIR ? "is a directory"
                                          : strerror(errnum);
    return error_set(err, errnum, "exec: \"%s\": stat %s: %s", name, name, text);
}

int program_find(struct program *program, int *status, struct error **err)
{
    const char *name = program->process->args[0];
    const char *search = variable(program->process, "PATH");
    int worst = ENOENT;

    if (!*name)
        return fail_find(name, ENOENT, true, status, err);
    if (strchr(name, '/')) {
        int errnum = check_file(name);

        if (errnum)
            return fail_find(name, errnum, false, status, err);
        if ((size_t)snprintf(program->path, sizeof(program->path), "%s", name) >= sizeof(program->path))
            return fail_find(name, ENAMETOOLONG, false, status, err);
        return 0;
    }
    if (!search)
        search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    for (const char *p = search;; p++) {
        size_t n = strcspn(p, ":");
        int size = snprintf(program->path, sizeof(program->path), "%.*s%s%s", (int)n, p, n ? "/" : "", name);
        int errnum = size < 0 || (size_t)size >= sizeof(program->path) ? ENOENT : check_file(program->path);

        if (errnum == 0)
            return 0;
        if (errnum == EACCES)
            worst = errnum;
        p += n;
        if (!*p)
            break;
    }
    return fail_find(name, worst, true, status, err);
}

/* ---- the environment ---- */

/* The home of a user by /etc/passwd of the container: NAME:PASSWORD:UID:GID:GECOS:HOME:SHELL. */
static void find_home(uint32_t uid, char *out, size_t size)
{
    int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    char line[1024];

    snprintf(out, size, "HOME=/");
    if (fd < 0)
        return;
    cleanup_fclose FILE *f = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? fdopen(fd, "r") : NULL;
    if (!f) {
        close(fd);
        return;
    }
    while (fgets(line, sizeof(line), f)) {
        unsigned number;
        char home[512];

        if (sscanf(line, "%*[^:]:%*[^:]:%u:%*[^:]:%*[^:]:%511[^:\n]", &number, home) == 2 ||
            sscanf(line, "%*[^:]:%*[^:]:%u:%*[^:]::%511[^:\n]", &number, home) == 2) {
            if (number == uid) {
                snprintf(out, size, "HOME=%s", home);
                return;
            }
        }
    }
}

/* What is configured, and HOME where it is not; of descriptors that are passed on, what systemd's way tells
 * of them. */
static char **make_environment(const struct program *program)
{
    const struct container_process *p = program->process;
    const char *passed[] = {"LISTEN_FDS", "LISTEN_FDNAMES"};
    char **env = calloc(p->n_env + 5, sizeof(*env));
    size_t n = 0;
    char home[600];

    for (size_t i = 0; env && i < p->n_env; i++)
        env[n++] = (char *)p->env[i];
    if (env && !variable(p, "HOME")) {
        find_home(p->uid, home, sizeof(home));
        env[n++] = strdup(home);
    }
    for (size_t i = 0; env && program->preserve_fds && i < 2; i++) {
        const char *value = getenv(passed[i]);
        char *text = NULL;

        if (value && asprintf(&text, "%s=%s", passed[i], value) > 0)
            env[n++] = text;
    }
    if (env && program->preserve_fds && getenv("LISTEN_FDS"))
        env[n++] = (char *)"LISTEN_PID=1";
    return env;
}

/* ---- the last step ---- */

static struct trampoline describe(const struct program *program, int error_fd)
{
    bool late = program->process->no_new_privileges;

    return (struct trampoline){
        .program = program->path,
        .argv = program->process->args,
        .envp = (const char *const *)program->environment,
        .error_fd = error_fd,
        .label_fd = program->label_fd,
        .label = program->label_fd >= 0 ? program->label : NULL,
        .filter = late ? program->filter : NULL,
        .filter_flags = program->filter_flags,
    };
}

int program_prepare(struct program *program, int error_fd, struct error **err)
{
    program->environment = make_environment(program);
    if (!program->environment)
        return error_set_errno(err, ENOMEM, "environment");
    const struct trampoline t = describe(program, error_fd);
    program->trampoline = trampoline_make(&t);
    return program->trampoline < 0 ? error_set_errno(err, -program->trampoline, "trampoline") : 0;
}

int program_execute(struct program *program, int error_fd)
{
    const struct trampoline t = describe(program, error_fd);
    sigset_t none;

    for (int number = 1; number < NSIG; number++)
        if (number != SIGKILL && number != SIGSTOP)
            signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* All of ours; what is to be passed on lies below. */
    if (close_range(3 + program->preserve_fds, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
        return -errno;
    /* What is left takes no descriptor and no memory. */
    int rc = program->limited ? 0 : identity_set_limits(program->process);
    if (rc < 0)
        return rc;
    /* These two come with it to the trampoline, which closes them. */
    if (fcntl(error_fd, F_SETFD, 0) < 0 ||
        (program->label_fd >= 0 && fcntl(program->label_fd, F_SETFD, 0) < 0))
        return -errno;
    return trampoline_execute(program->trampoline, &t);
}

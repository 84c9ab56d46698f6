/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Linux's side of the host report: control groups, namespaces, seccomp, confinement. No locks. */
#include "guest/check_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "host/confine.h"

#include <errno.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#define CGROUP_ROOT "/sys/fs/cgroup"

static bool is_filesystem(const char *path, long magic)
{
    struct statfs s;

    return statfs(path, &s) == 0 && (long)s.f_type == magic;
}

/* The first line of a file without its newline; empty if there is none. */
static void read_line(const char *path, char *buf, size_t len)
{
    cleanup_fclose FILE *f = fopen(path, "re");

    buf[0] = '\0';
    if (f && fgets(buf, (int)len, f))
        buf[strcspn(buf, "\n")] = '\0';
}

/* Whether this process may make groups below its own (version 2). */
static bool own_cgroup_writable(void)
{
    char line[512], path[600];

    read_line("/proc/self/cgroup", line, sizeof(line));
    if (strncmp(line, "0::", 3) != 0)
        return false;
    snprintf(path, sizeof(path), CGROUP_ROOT "%s", line + 3);
    return access(path, W_OK) == 0;
}

void check_cgroups(struct check_report *report)
{
    char controllers[256];

    if (is_filesystem(CGROUP_ROOT, CGROUP2_SUPER_MAGIC)) {
        read_line(CGROUP_ROOT "/cgroup.controllers", controllers, sizeof(controllers));
        bool writable = own_cgroup_writable();
        check_add(
            report, "cgroups", writable,
            "limits on containers need it: run as root, or as a user in a session of systemd (Delegate=yes)",
            "version 2, controllers: %s; %s", controllers[0] ? controllers : "none",
            writable ? "may be used" : "no permission to make groups");
    } else if (is_filesystem(CGROUP_ROOT, TMPFS_MAGIC)) {
        bool hybrid = is_filesystem(CGROUP_ROOT "/unified", CGROUP2_SUPER_MAGIC);
        bool writable = access(CGROUP_ROOT "/memory", W_OK) == 0;
        check_add(report, "cgroups", writable, "limits on containers need it: run as root", "%s; %s",
                  hybrid ? "version 1, with version 2 beside it for names only (hybrid)" : "version 1",
                  writable ? "may be used" : "no permission to make groups");
    } else {
        check_add(report, "cgroups", false, "mount -t cgroup2 none " CGROUP_ROOT,
                  "not mounted at " CGROUP_ROOT);
    }
}

/* Tries one kind in a child, so that nothing stays. 0 or -errno. */
static int try_namespace(int flags)
{
    int status;
    pid_t pid = fork();

    if (pid < 0)
        return -errno;
    if (pid == 0)
        _exit(unshare(flags) == 0 ? 0 : errno);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

void check_namespaces(struct check_report *report)
{
    static const struct {
        const char *name;
        int flag;
    } kinds[] = {
        {"mount", CLONE_NEWNS}, {"pid", CLONE_NEWPID}, {"net", CLONE_NEWNET},       {"uts", CLONE_NEWUTS},
        {"ipc", CLONE_NEWIPC},  {"time", 0x80},        {"cgroup", CLONE_NEWCGROUP},
    };
    bool user = try_namespace(CLONE_NEWUSER) == 0;
    char usable[128] = "", missing[128] = "";

    if (user)
        strcpy(usable, " user");
    else
        strcpy(missing, " user");
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        /* Without privileges the others come with a user namespace or not at all. */
        bool ok =
            try_namespace(kinds[i].flag) == 0 || (user && try_namespace(CLONE_NEWUSER | kinds[i].flag) == 0);
        char *list = ok ? usable : missing;
        size_t used = strlen(list);
        snprintf(list + used, sizeof(usable) - used, " %s", kinds[i].name);
    }
    check_add(report, "namespaces", !missing[0],
              "containers need them: sysctl user.max_user_namespaces and kernel.unprivileged_userns_clone, a "
              "security module's profile, or an outer container's limits forbid them",
              "usable:%s%s%s", usable[0] ? usable : " none", missing[0] ? "; not usable:" : "", missing);
}

static bool action_available(uint32_t action)
{
    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

void check_seccomp(struct check_report *report)
{
    bool filters = action_available(SECCOMP_RET_ERRNO);
    bool notify = action_available(SECCOMP_RET_USER_NOTIF);

    check_add(report, "seccomp", filters, "a kernel with CONFIG_SECCOMP_FILTER is needed for containers",
              "%s%s", filters ? "system call filters" : "no system call filters",
              notify ? ", notification to user space" : "");
}

void check_confinement(struct check_report *report)
{
    static const char advice[] = "VM processes run with less isolation than is possible: run as root, or "
                                 "permit user namespaces (sysctl "
                                 "user.max_user_namespaces, kernel.unprivileged_userns_clone, "
                                 "kernel.apparmor_restrict_unprivileged_userns)";
    cleanup_error struct error *err = NULL;
    struct confine_status status;
    char text[512];

    if (confine_try(&status, &err) < 0) {
        check_add(report, "confinement", false, "VM processes refuse to start without it", "%s",
                  error_message(err));
        return;
    }
    confine_describe(&status, text, sizeof(text));
    check_add(report, "confinement", confine_complete(&status), advice, "%s", text);
}

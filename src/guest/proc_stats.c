/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads proc(5)'s stat and status. Called by the supervisor. No state. */
#include "guest/proc_stats.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static FILE *open_file(pid_t pid, const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    return fopen(path, "re");
}

/* Fields 14 and 15, in ticks; the second one, a name in parentheses, may hold anything. */
static int read_times(pid_t pid, struct proc_stats *out)
{
    cleanup_fclose FILE *f = open_file(pid, "stat");
    char line[1024];
    uint64_t user, system;

    if (!f)
        return -errno;
    if (!fgets(line, sizeof(line), f))
        return -ESRCH;
    const char *rest = strrchr(line, ')');
    if (!rest || sscanf(rest, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64, &user,
                        &system) != 2)
        return -EPROTO;
    out->cpu_ns = (user + system) * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
    return 0;
}

/* What the children of one of its threads have used: the stubs in which the soft engine's vCPUs let user code
 * run. Their memory is the guest's RAM, which counts already. */
static void add_children(pid_t pid, const char *task, struct proc_stats *out)
{
    char name[64];
    int child;

    snprintf(name, sizeof(name), "task/%.20s/children", task);
    cleanup_fclose FILE *f = open_file(pid, name);
    while (f && fscanf(f, "%d", &child) == 1) {
        struct proc_stats its = {0};

        if (read_times(child, &its) == 0)
            out->cpu_ns += its.cpu_ns;
    }
}

static void add_stubs(pid_t pid, struct proc_stats *out)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    if (!tasks)
        return;
    for (const struct dirent *task; (task = readdir(tasks));) {
        if (task->d_name[0] != '.')
            add_children(pid, task->d_name, out);
    }
    closedir(tasks);
}

int proc_stats_read(pid_t pid, struct proc_stats *out)
{
    struct proc_stats stats = {0};
    int rc = read_times(pid, &stats);
    cleanup_fclose FILE *f = rc ? NULL : open_file(pid, "status");
    char line[256];

    if (rc)
        return rc;
    if (!f)
        return -errno;
    while (fgets(line, sizeof(line), f)) {
        uint64_t value;

        if (sscanf(line, "VmRSS: %" SCNu64, &value) == 1)
            stats.resident = value * 1024;
        else if (sscanf(line, "RssShmem: %" SCNu64, &value) == 1)
            stats.shared = value * 1024;
        else if (sscanf(line, "Threads: %" SCNu64, &value) == 1)
            stats.threads = value;
    }
    add_stubs(pid, &stats);
    *out = stats;
    return 0;
}

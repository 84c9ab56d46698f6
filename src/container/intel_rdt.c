/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files of resctrl (resctrl.rst of the kernel's documentation). Called by the command that makes a container
 * and by the one that deletes it. */
#include "container/intel_rdt.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <string.h>
#include <sys/stat.h>

static int find_resctrl(char *out, size_t size)
{
    FILE *f = setmntent("/proc/self/mounts", "re");
    struct mntent *entry;
    int rc = -ENOENT;

    while (f && (entry = getmntent(f)))
        if (strcmp(entry->mnt_type, "resctrl") == 0) {
            snprintf(out, size, "%s", entry->mnt_dir);
            rc = 0;
            break;
        }
    if (f)
        endmntent(f);
    return rc;
}

static int write_text(int dir, const char *name, const char *text)
{
    cleanup_close int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

/* A line for each resource; of the cache's schema, lines that would say the bandwidth twice are left out. */
static int write_schema(int dir, const struct container_intel_rdt *rdt)
{
    char text[4096];
    size_t used = 0;

    for (const char *p = rdt->l3_cache ? rdt->l3_cache : ""; *p;) {
        size_t n = strcspn(p, "\n");

        if (!(rdt->memory_bandwidth && strncmp(p, "MB:", 3) == 0) && used + n + 2 < sizeof(text))
            used += (size_t)snprintf(text + used, sizeof(text) - used, "%.*s\n", (int)n, p);
        p += n + (p[n] == '\n');
    }
    if (rdt->memory_bandwidth && used + strlen(rdt->memory_bandwidth) + 2 < sizeof(text))
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s\n", rdt->memory_bandwidth);
    int rc = used ? write_text(dir, "schemata", text) : 0;
    return rc == 0 && rdt->schemata ? write_text(dir, "schemata", rdt->schemata) : rc;
}

int intel_rdt_enter(const struct container_intel_rdt *rdt, const char *id, pid_t pid, struct error **err)
{
    bool has_schema = rdt->l3_cache || rdt->memory_bandwidth || rdt->schemata;
    char top[PATH_MAX], path[PATH_MAX], number[16];

    if (find_resctrl(top, sizeof(top)) < 0)
        return error_set(err, ENOENT,
                         "linux.intelRdt: no resctrl file system is mounted: this needs a processor with "
                         "RDT, and mount -t resctrl resctrl /sys/fs/resctrl");
    int n = snprintf(path, sizeof(path), "%s/%s", top, rdt->clos_id ? rdt->clos_id : id);
    if (n < 0 || (size_t)n >= sizeof(path))
        return error_set_errno(err, ENAMETOOLONG, "linux.intelRdt");
    if (rdt->clos_id && !has_schema && access(path, F_OK) < 0)
        return error_set(err, ENOENT,
                         "linux.intelRdt.closID: %s does not exist, and no schema to make it with is given",
                         path);
    if ((!rdt->clos_id || has_schema) && mkdir(path, 0755) < 0 && errno != EEXIST)
        return error_set_errno(err, errno, "linux.intelRdt: %s", path);
    cleanup_close int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    snprintf(number, sizeof(number), "%d", (int)pid);
    int rc = dir < 0 ? -errno : write_schema(dir, rdt);
    if (rc == 0)
        rc = write_text(dir, "tasks", number);
    return rc < 0 ? error_set_errno(err, -rc, "linux.intelRdt: %s", path) : 0;
}

json_t *intel_rdt_save(const struct container_intel_rdt *rdt, const char *id)
{
    char top[PATH_MAX];

    if (rdt->clos_id || find_resctrl(top, sizeof(top)) < 0)
        return json_null();
    return json_sprintf("%s/%s", top, id);
}

void intel_rdt_remove(json_t *saved)
{
    if (json_is_string(saved))
        rmdir(json_string_value(saved));
}

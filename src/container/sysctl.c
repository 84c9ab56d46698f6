/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kernel parameters of the container's namespaces. They are written through a proc file system that is made
 * for it and attached nowhere, so that nothing in the container's files can lead the writing elsewhere.
 * Called by the process that becomes the container.
 */
#include "container/setup_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/path.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>

/* "net.ipv4.conf.eth0/100.rp_filter" is the file sys/net/ipv4/conf/eth0.100/rp_filter. */
static int write_one(int proc, const char *name, const char *value)
{
    char path[300] = "sys/";
    size_t n = 4;

    for (; *name && n < sizeof(path) - 1; name++)
        path[n++] = *name == '.' ? '/' : *name == '/' ? '.' : *name;
    path[n] = '\0';
    cleanup_close int fd = path_open(proc, path, O_WRONLY);
    if (fd < 0)
        return fd;
    ssize_t written = write(fd, value, strlen(value));
    return written < 0 ? -errno : (size_t)written == strlen(value) ? 0 : -EIO;
}

int sysctl_write(const struct container_config *config, struct error **err)
{
    if (!config->sysctl || !config->sysctl[0])
        return 0;
    cleanup_close int proc = mount_new("proc", "proc", NULL, 0, 0, NULL);
    /* Without the right to a new one the host's that is still in place does: it is not the container's
     * either. */
    if (proc < 0)
        proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (proc < 0)
        return error_set_errno(err, errno, "proc file system");
    for (const char **p = config->sysctl; *p; p += 2) {
        int rc = write_one(proc, p[0], p[1]);

        if (rc < 0)
            return error_set_errno(err, -rc, "sysctl %s=%s", p[0], p[1]);
    }
    return 0;
}

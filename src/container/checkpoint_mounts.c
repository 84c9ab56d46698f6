/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mounts that show what is the host's: bind mounts, control groups, masked files, devices in a user
 * namespace. criu is told of each by a name when it writes, and by the name where to find it when it reads.
 * The name is the place that config.json gives it; of a masked file it is /dev/null, which all of them show.
 * Called by checkpoint.c and restore.c.
 */
#include "container/checkpoint_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/cgroup.h"
#include "container/path.h"
#include "container/setup_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#define NULL_DEVICE "/dev/null"

/* ---- of a container that lives ---- */

/* Where it is in the container, links resolved; false unless something is mounted there. */
static bool find_mount(int root, const char *path, char out[static PATH_MAX])
{
    cleanup_close int fd = path_open(root, path, O_PATH);
    char link[64];
    struct statx st;

    if (fd < 0 || statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &st) < 0 ||
        !(st.stx_attributes & STATX_ATTR_MOUNT_ROOT))
        return false;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, PATH_MAX - 1);
    if (n <= 0)
        return false;
    out[n] = '\0';
    return true;
}

static void put_mount(struct buffer *m, int root, const char *path, const char *name)
{
    char place[PATH_MAX];

    if (find_mount(root, path, place))
        criu_put_pair(m, CRIU_EXT_MOUNT, place, name);
}

/* All of v1's trees are mounted below it; v2's, where it is alone, is what is mounted there. */
static void put_cgroups(struct buffer *m, int root, const char *destination)
{
    int fd = path_open(root, destination, O_RDONLY | O_DIRECTORY);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    bool any = false;

    if (fd >= 0 && !dir)
        close(fd);
    while (dir && (entry = readdir(dir))) {
        char path[PATH_MAX], place[PATH_MAX];

        if (entry->d_type != DT_DIR || entry->d_name[0] == '.' ||
            (size_t)snprintf(path, sizeof(path), "%s/%s", destination, entry->d_name) >= sizeof(path) ||
            !find_mount(root, path, place))
            continue;
        criu_put_pair(m, CRIU_EXT_MOUNT, place, path);
        any = true;
    }
    if (dir)
        closedir(dir);
    if (!any)
        put_mount(m, root, destination, destination);
}

int checkpoint_put_mounts(struct buffer *m, const struct container_config *config, pid_t pid,
                          struct error **err)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
    cleanup_close int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return error_set_errno(err, errno, "the container's root directory");
    for (size_t i = 0; i < config->n_mounts; i++) {
        const struct container_mount *mount = &config->mounts[i];

        if (mount->remount)
            continue;
        if (mount->bind)
            put_mount(m, root, mount->destination, mount->destination);
        else if (mount->type && strcmp(mount->type, "cgroup") == 0)
            put_cgroups(m, root, mount->destination);
    }
    for (size_t i = 0; config->masked_paths && config->masked_paths[i]; i++) {
        cleanup_close int fd = path_open(root, config->masked_paths[i], O_PATH);
        struct stat st;

        if (fd >= 0 && fstat(fd, &st) == 0 && S_ISCHR(st.st_mode))
            put_mount(m, root, config->masked_paths[i], NULL_DEVICE);
    }
    const char *device;
    for (size_t i = 0; (device = devices_path(config, i)); i++)
        put_mount(m, root, device, device);
    return 0;
}

/* ---- of one that is to be ---- */

static const char *last_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static void put_cgroup_sources(struct buffer *m, const char *destination, const struct cgroup *cgroup)
{
    size_t n;
    const struct cgroup_hierarchy *trees = cgroup_hierarchies(cgroup, &n);

    if (cgroup_layout(cgroup) == CGROUP_UNIFIED && n)
        criu_put_pair(m, CRIU_EXT_MOUNT, destination, trees[n - 1].directory);
    for (size_t i = 0; i < n && cgroup_layout(cgroup) != CGROUP_UNIFIED; i++) {
        char name[PATH_MAX];

        if ((size_t)snprintf(name, sizeof(name), "%s/%s", destination, last_name(trees[i].mount)) <
            sizeof(name))
            criu_put_pair(m, CRIU_EXT_MOUNT, name, trees[i].directory);
    }
}

static bool source_path(const struct container_mount *mount, const char *bundle, char out[static PATH_MAX])
{
    bool absolute = mount->source && mount->source[0] == '/';

    return mount->source && (size_t)snprintf(out, PATH_MAX, "%s%s%s", absolute ? "" : bundle,
                                             absolute ? "" : "/", mount->source) < PATH_MAX;
}

void checkpoint_put_mount_sources(struct buffer *m, const struct container_config *config, const char *bundle,
                                  const struct cgroup *cgroup)
{
    const char *device;
    char source[PATH_MAX];

    for (size_t i = 0; i < config->n_mounts; i++) {
        const struct container_mount *mount = &config->mounts[i];

        if (mount->remount)
            continue;
        if (mount->bind && source_path(mount, bundle, source))
            criu_put_pair(m, CRIU_EXT_MOUNT, mount->destination, source);
        else if (!mount->bind && cgroup && mount->type && strcmp(mount->type, "cgroup") == 0)
            put_cgroup_sources(m, mount->destination, cgroup);
    }
    criu_put_pair(m, CRIU_EXT_MOUNT, NULL_DEVICE, NULL_DEVICE);
    for (size_t i = 0; (device = devices_path(config, i)); i++)
        if (strcmp(device, NULL_DEVICE) != 0)
            criu_put_pair(m, CRIU_EXT_MOUNT, device, device);
}

/* Whether it lies below what an earlier mount shows: criu makes that first, with what was in it. */
static bool is_below(const struct container_config *config, size_t which)
{
    const char *path = config->mounts[which].destination;

    for (size_t i = 0; i < which; i++) {
        const char *above = config->mounts[i].destination;
        size_t n = strlen(above);

        while (n > 1 && above[n - 1] == '/')
            n--;
        if (strncmp(path, above, n) == 0 && (path[n] == '/' || (n == 1 && above[0] == '/')))
            return true;
    }
    return false;
}

int checkpoint_make_mount_points(const struct container_config *config, const char *bundle, int root,
                                 struct error **err)
{
    char source[PATH_MAX];

    for (size_t i = 0; i < config->n_mounts; i++) {
        const struct container_mount *mount = &config->mounts[i];
        bool file = false;
        struct stat st;

        if (mount->remount || is_below(config, i))
            continue;
        if (mount->bind && source_path(mount, bundle, source)) {
            if (stat(source, &st) < 0)
                return error_set_errno(err, errno, "mount %s: %s", mount->destination, source);
            file = !S_ISDIR(st.st_mode);
        }
        cleanup_close int fd = file ? path_make_file(root, mount->destination)
                                    : path_make_directory(root, mount->destination, 0755);
        /* A root file system that can't be written to must have them. */
        if (fd < 0 && fd != -EROFS)
            return error_set_errno(err, -fd, "mount point %s", mount->destination);
    }
    return 0;
}

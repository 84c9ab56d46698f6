/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Device files: the six that each container has (config-linux.md, "Default Devices"), those of the
 * configuration, and the links that programs expect. Where none can be made, as in a user namespace, the
 * host's are shown by bind mounts. Called by rootfs.c before the container's root becomes the root.
 */
#include "container/setup_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "container/path.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static const struct container_device standard[] = {
    {"/dev/null", 'c', 1, 3, 0666, 0, 0},    {"/dev/zero", 'c', 1, 5, 0666, 0, 0},
    {"/dev/full", 'c', 1, 7, 0666, 0, 0},    {"/dev/random", 'c', 1, 8, 0666, 0, 0},
    {"/dev/urandom", 'c', 1, 9, 0666, 0, 0}, {"/dev/tty", 'c', 5, 0, 0666, 0, 0},
};

static mode_t type_of(const struct container_device *d)
{
    return d->type == 'b' ? S_IFBLK : d->type == 'p' ? S_IFIFO : S_IFCHR;
}

static bool matches(const struct container_device *d, const struct stat *st)
{
    return (st->st_mode & S_IFMT) == type_of(d) &&
           (d->type == 'p' || st->st_rdev == makedev(d->major, d->minor));
}

/* The host's own file of that name, over an empty one. */
static int bind_device(const struct container_device *d, int parent, const char *name)
{
    struct stat st;
    cleanup_close int tree = open_tree(AT_FDCWD, d->path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (tree < 0 || fstat(tree, &st) < 0)
        return -errno;
    if (!matches(d, &st))
        return -ENODEV;
    int fd = openat(parent, name, O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0444);
    if (fd < 0)
        return -errno;
    close(fd);
    cleanup_close int target = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    return target < 0 ? -errno : mount_attach(tree, target);
}

static int make_device(const struct container_setup *setup, const struct container_device *d,
                       struct error **err)
{
    const char *name;
    struct stat st;
    cleanup_close int parent = path_open_parent(setup->root, d->path, &name);

    if (parent < 0)
        return error_set_errno(err, -parent, "device %s", d->path);
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        if (matches(d, &st))
            return 0;
        if (!S_ISREG(st.st_mode) || st.st_size || !setup->mapped)
            return error_set(err, EEXIST, "device %s: another file is there in the root file system",
                             d->path);
    }
    if (!setup->mapped && mknodat(parent, name, type_of(d) | d->mode, makedev(d->major, d->minor)) == 0) {
        if (fchownat(parent, name, d->uid, d->gid, AT_SYMLINK_NOFOLLOW) < 0)
            return error_set_errno(err, errno, "device %s: its owner", d->path);
        /* umask is 0 while the container is set up, but the mode may have bits that mknod does not take. */
        return 0;
    }
    if (!setup->mapped && errno != EPERM)
        return error_set_errno(err, errno, "device %s", d->path);
    int rc = bind_device(d, parent, name);
    return rc < 0 ? error_set_errno(err, -rc, "device %s: showing the host's", d->path) : 0;
}

static int make_links(const struct container_setup *setup, struct error **err)
{
    static const struct {
        const char *target, *path;
    } links[] = {{"/proc/self/fd", "/dev/fd"},       {"/proc/self/fd/0", "/dev/stdin"},
                 {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"},
                 {"/proc/kcore", "/dev/core"},       {"pts/ptmx", "/dev/ptmx"}};

    for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
        const char *name;
        struct stat st;
        cleanup_close int parent = path_open_parent(setup->root, links[i].path, &name);

        if (parent < 0)
            return error_set_errno(err, -parent, "%s", links[i].path);
        if (i == 4 && access("/proc/kcore", F_OK) < 0)
            continue;
        if (i == 5) {
            cleanup_close int pts = path_open(setup->root, "/dev/pts/ptmx", O_PATH);
            if (pts < 0)
                continue;
            /* The image's own would be the host's. */
            if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode) &&
                unlinkat(parent, name, 0) < 0)
                return error_set_errno(err, errno, "%s", links[i].path);
        }
        if (symlinkat(links[i].target, parent, name) < 0 && errno != EEXIST)
            return error_set_errno(err, errno, "%s", links[i].path);
    }
    return 0;
}

/* Who mounts a /dev of his own choice at that place gets it as it is. */
static bool has_own_dev(const struct container_config *config)
{
    for (size_t i = 0; i < config->n_mounts; i++) {
        const char *d = config->mounts[i].destination;
        size_t n = strlen(d);

        while (n > 1 && d[n - 1] == '/')
            n--;
        if (config->mounts[i].bind &&
            ((n == 4 && strncmp(d, "/dev", 4) == 0) || (n == 3 && strncmp(d, "dev", 3) == 0)))
            return true;
    }
    return false;
}

const char *devices_path(const struct container_config *config, size_t i)
{
    if (i < ARRAY_SIZE(standard))
        return standard[i].path;
    i -= ARRAY_SIZE(standard);
    return i < config->n_devices ? config->devices[i].path : NULL;
}

int devices_make(const struct container_setup *setup, struct error **err)
{
    int rc = 0;

    if (has_own_dev(setup->config))
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(standard) && rc == 0; i++)
        rc = make_device(setup, &standard[i], err);
    for (size_t i = 0; i < setup->config->n_devices && rc == 0; i++)
        rc = make_device(setup, &setup->config->devices[i], err);
    return rc ? rc : make_links(setup, err);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The container's root file system, in two steps around the hooks that want to see it from outside: all is
 * mounted (rootfs_prepare), then it becomes "/" and what must not be read or written is covered
 * (rootfs_enter). Called by the process that becomes the container, in its own mount namespace.
 */
#include "container/setup_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/path.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define LEVELS_MAX 1024

/* What is mounted in here must not show up outside: the mount that the root lies on lets nothing through.
 * Found by going up until a directory is the root of its mount. */
static int make_parent_private(int root)
{
    cleanup_close int at = fcntl(root, F_DUPFD_CLOEXEC, 0);

    for (int level = 0; at >= 0 && level < LEVELS_MAX; level++) {
        struct statx st;

        if (statx(at, "", AT_EMPTY_PATH, STATX_TYPE, &st) < 0)
            return -errno;
        if (st.stx_attributes & STATX_ATTR_MOUNT_ROOT)
            return mount_set(at, 0, 0, MS_PRIVATE, false);
        int up = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        close(at);
        at = up;
    }
    return at < 0 ? -errno : -ELOOP;
}

static int mount_root(struct container_setup *setup, struct error **err)
{
    unsigned long propagation = setup->config->root_propagation;
    /* Without being told, the host's later mounts arrive here, and none goes out. */
    unsigned long whole =
        propagation ? (propagation & ~(unsigned long)MS_UNBINDABLE) | MS_REC : MS_SLAVE | MS_REC;

    if (propagation & MS_UNBINDABLE)
        whole = MS_PRIVATE | MS_REC;
    if (mount(NULL, "/", NULL, whole, NULL) < 0)
        return error_set_errno(err, errno, "propagation of the mounts");
    cleanup_close int place = open(setup->root_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    /* In a user namespace the way there may be closed; the root itself is open (root_tree). */
    if (place < 0 && setup->root_tree >= 0 && errno == EACCES)
        place = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (place < 0)
        return error_set_errno(err, errno, "root file system %s", setup->root_path);
    int rc = make_parent_private(place);
    if (rc < 0)
        return error_set_errno(err, -rc, "propagation of the root file system's mount");
    setup->root =
        setup->root_tree >= 0
            ? setup->root_tree
            : open_tree(place, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (setup->root < 0)
        return error_set_errno(err, errno, "root file system %s", setup->root_path);
    rc = mount_set(setup->root, 0, 0, propagation & MS_SHARED ? MS_PRIVATE : MS_SLAVE, false);
    if (rc == 0)
        rc = mount_attach(setup->root, place);
    return rc < 0 ? error_set_errno(err, -rc, "mounting the root file system") : 0;
}

int rootfs_prepare(struct container_setup *setup, struct error **err)
{
    int rc = mount_root(setup, err);

    for (size_t i = 0; i < setup->config->n_mounts && rc == 0; i++)
        rc = mount_one(setup, i, err);
    return rc ? rc : devices_make(setup, err);
}

/* ---- the second step ---- */

static int pivot(const struct container_setup *setup, struct error **err)
{
    cleanup_close int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (old < 0 || fchdir(setup->root) < 0)
        return error_set_errno(err, errno, "root directory");
    /* The new root is put over the old one in one place, and the old one is taken away from under it: nothing
     * has to be made in either (pivot_root(2), "pivot_root(".", ".")"). */
    if (syscall(SYS_pivot_root, ".", ".") < 0)
        return error_set_errno(err, errno, "pivot_root");
    if (fchdir(old) < 0 || mount(NULL, ".", NULL, MS_SLAVE | MS_REC, NULL) < 0 ||
        umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return error_set_errno(err, errno, "leaving the old root");
    return 0;
}

/* Where the host's root is the initial RAM disk, which pivot_root does not take (--no-pivot). */
static int move_root(const struct container_setup *setup, struct error **err)
{
    if (fchdir(setup->root) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
        chdir("/") < 0)
        return error_set_errno(err, errno, "moving the root");
    return 0;
}

/* A copy of an empty read-only directory, of one file system for all of the container's masked directories.
 */
static int mask_directory(int *empty, int target, struct error **err)
{
    static const char *const data[] = {"size=0", "nr_inodes=2", "mode=755"};

    if (*empty < 0)
        *empty = mount_new("tmpfs", "tmpfs", data, 3,
                           MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, err);
    if (*empty < 0)
        return *empty;
    cleanup_close int tree = open_tree(*empty, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    int rc = tree < 0 ? -errno : mount_attach(tree, target);
    if (rc == -EINVAL || rc == -EPERM) {
        /* Before Linux 6.15 what is detached can't be copied: then each has its own. */
        cleanup_close int own =
            mount_new("tmpfs", "tmpfs", data, 3,
                      MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, err);
        if (own < 0)
            return own;
        rc = mount_attach(own, target);
    }
    return rc < 0 ? error_set_errno(err, -rc, "empty directory") : 0;
}

static int mask_paths(const struct container_setup *setup, struct error **err)
{
    cleanup_close int empty = -1;
    const char **paths = setup->config->masked_paths;

    for (size_t i = 0; paths && paths[i]; i++) {
        cleanup_close int target = path_open(setup->root, paths[i], O_PATH);
        struct stat st;
        int rc;

        if (target < 0 && (target == -ENOENT || target == -ENOTDIR))
            continue;
        if (target < 0 || fstat(target, &st) < 0)
            return error_set_errno(err, target < 0 ? -target : errno, "can't mask path \"%s\"", paths[i]);
        if (S_ISDIR(st.st_mode)) {
            rc = mask_directory(&empty, target, err);
            if (rc)
                return error_wrap(err, "can't mask path \"%s\"", paths[i]);
            continue;
        }
        cleanup_close int tree =
            open_tree(setup->null_fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        rc = tree < 0 ? -errno : mount_attach(tree, target);
        if (rc < 0)
            return error_set_errno(err, -rc, "can't mask path \"%s\"", paths[i]);
    }
    return 0;
}

static int protect_paths(const struct container_setup *setup, struct error **err)
{
    const char **paths = setup->config->readonly_paths;

    for (size_t i = 0; paths && paths[i]; i++) {
        cleanup_close int target = path_open(setup->root, paths[i], O_PATH);

        if (target == -ENOENT || target == -ENOTDIR)
            continue;
        cleanup_close int tree =
            target < 0
                ? -1
                : open_tree(target, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
        int rc = target < 0 ? target : tree < 0 ? -errno : mount_set(tree, MOUNT_ATTR_RDONLY, 0, 0, false);
        if (rc == 0)
            rc = mount_attach(tree, target);
        if (rc < 0)
            return error_set_errno(err, -rc, "can't make \"%s\" read-only", paths[i]);
    }
    return 0;
}

int rootfs_enter(struct container_setup *setup, struct error **err)
{
    const struct container_config *config = setup->config;
    /* While the host's /proc is still in reach for who can't see another: fs of the masks needs no path. */
    int rc = mask_paths(setup, err);

    if (rc == 0)
        rc = protect_paths(setup, err);
    if (rc)
        return rc;
    if (config->root_readonly) {
        rc = mount_set(setup->root, MOUNT_ATTR_RDONLY, 0, 0, false);
        if (rc < 0)
            return error_set_errno(err, -rc, "making the root file system read-only");
    }
    rc = setup->no_pivot ? move_root(setup, err) : pivot(setup, err);
    if (rc)
        return rc;
    if (config->root_propagation) {
        unsigned long propagation = config->root_propagation;

        rc = mount_set(setup->root, 0, 0, propagation & ~(unsigned long)MS_REC, propagation & MS_REC);
        if (rc < 0)
            return error_set_errno(err, -rc, "propagation of the root file system");
    }
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One mount of config.json. Everything is made detached (open_tree, fsmount), given its attributes while
 * nobody can see it, and attached to a descriptor that was resolved below the container's root: no path is
 * looked up twice. Called by the process that becomes the container.
 */
#include "container/setup_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/copy_up.h"
#include "container/path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define VALUE_MAX 255 /* of one key of fsconfig(2) */

int mount_attach(int tree, int target)
{
    return move_mount(tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0 ? -errno
                                                                                                   : 0;
}

int mount_set(int fd, uint64_t set, uint64_t clear, unsigned long propagation, bool recursive)
{
    struct mount_attr attr = {.attr_set = set, .attr_clr = clear, .propagation = propagation};

    if (!set && !clear && !propagation)
        return 0;
    return mount_setattr(fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr, sizeof(attr)) < 0
               ? -errno
               : 0;
}

/* ---- new file systems ---- */

/* What the kernel says of a file system that it did not make: lines such as "e tmpfs: Bad value for 'size'".
 */
static int fail_new(int fd, const char *type, struct error **err)
{
    int errnum = errno;
    char line[256];
    ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);

    if (n <= 2)
        return error_set_errno(err, errnum, "file system %s", type);
    line[n] = '\0';
    line[strcspn(line, "\n")] = '\0';
    return error_set(err, errnum, "file system %s: %s (%s)", type, line + 2, strerror(errnum));
}

static int give_data(int fd, const char *text)
{
    const char *equals = strchr(text, '=');
    char key[64];

    if (!equals)
        return fsconfig(fd, FSCONFIG_SET_FLAG, text, NULL, 0);
    size_t n = (size_t)(equals - text);
    if (n >= sizeof(key)) {
        errno = EINVAL;
        return -1;
    }
    memcpy(key, text, n);
    key[n] = '\0';
    return fsconfig(fd, FSCONFIG_SET_STRING, key, equals + 1, 0);
}

/* Options may come together in one text, as mount(8) writes them. */
static int give_list(int fd, const char *list)
{
    char text[PATH_MAX];

    for (const char *p = list; *p;) {
        size_t n = strcspn(p, ",");

        if (n >= sizeof(text)) {
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(text, p, n);
        text[n] = '\0';
        if (n && give_data(fd, text) < 0)
            return -1;
        p += n + (p[n] == ',');
    }
    return 0;
}

int mount_new(const char *type, const char *source, const char *const *data, size_t n_data,
              uint64_t attributes, struct error **err)
{
    cleanup_close int fd = fsopen(type, FSOPEN_CLOEXEC);

    if (fd < 0)
        return fail_new(-1, type, err);
    if (source && *source && fsconfig(fd, FSCONFIG_SET_STRING, "source", source, 0) < 0)
        return fail_new(fd, type, err);
    for (size_t i = 0; i < n_data; i++)
        if (give_list(fd, data[i]) < 0)
            return fail_new(fd, type, err);
    /* A disk that is mounted read-only is not to be written by its file system either. */
    if (source && source[0] == '/' && attributes & MOUNT_ATTR_RDONLY &&
        fsconfig(fd, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0)
        return fail_new(fd, type, err);
    if (fsconfig(fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return fail_new(fd, type, err);
    int tree = fsmount(fd, FSMOUNT_CLOEXEC, (unsigned)attributes);
    return tree < 0 ? fail_new(fd, type, err) : tree;
}

/* fsconfig takes short values only; overlay's lists of directories are longer. */
static bool is_long(const struct container_mount *m)
{
    for (size_t i = 0; i < m->n_data; i++)
        if (strlen(m->data[i]) > VALUE_MAX)
            return true;
    return m->source && strlen(m->source) > VALUE_MAX;
}

static int mount_long(const struct container_mount *m, int target, struct error **err)
{
    char path[64], data[4096] = "";
    size_t used = 0;

    for (size_t i = 0; i < m->n_data; i++) {
        int n = snprintf(data + used, sizeof(data) - used, "%s%s", used ? "," : "", m->data[i]);

        if (n < 0 || (size_t)n >= sizeof(data) - used)
            return error_set(err, E2BIG, "its options are longer than the kernel takes");
        used += (size_t)n;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", target);
    if (mount(m->source, path, m->type, m->set & MOUNT_ATTR_RDONLY ? MS_RDONLY : 0, data) < 0)
        return error_set_errno(err, errno, "file system %s", m->type);
    return 0;
}

/* ---- bind mounts ---- */

int mount_open_source(const struct container_mount *m, const char *bundle, struct error **err)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s%s%s", m->source[0] == '/' ? "" : bundle,
                     m->source[0] == '/' ? "" : "/", m->source);

    if (n < 0 || (size_t)n >= sizeof(path))
        return error_set_errno(err, ENAMETOOLONG, "mount source");
    int fd = open_tree(AT_FDCWD, path,
                       OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (m->recursive ? AT_RECURSIVE : 0) |
                           (m->source_is_link ? AT_SYMLINK_NOFOLLOW : 0));
    return fd < 0 ? error_set_errno(err, errno, "mount source %s", path) : fd;
}

static bool is_directory(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

static int bind_one(const struct container_setup *setup, size_t i, struct error **err)
{
    const struct container_mount *m = &setup->config->mounts[i];
    cleanup_close int tree = setup->mount_trees[i];

    if (tree < 0)
        tree = mount_open_source(m, setup->bundle, err);
    if (tree < 0)
        return tree;
    cleanup_close int target = is_directory(tree) ? path_make_directory(setup->root, m->destination, 0755)
                                                  : path_make_file(setup->root, m->destination);
    if (target < 0)
        return error_set_errno(err, -target, "mount point");
    if (is_directory(tree) != is_directory(target))
        return error_set(err, ENOTDIR, "the source is %s directory and the destination is %s",
                         is_directory(tree) ? "a" : "no", is_directory(target) ? "one" : "none");
    int rc = mount_set(tree, m->set, m->clear, 0, false);
    if (rc == 0)
        rc = mount_set(tree, m->recursive_set, m->recursive_clear, 0, true);
    if (rc < 0)
        return error_set_errno(err, -rc, "attributes of the mount");
    rc = mount_attach(tree, target);
    if (rc < 0)
        return error_set_errno(err, -rc, "attaching the mount");
    for (size_t k = 0; k < m->n_propagation; k++) {
        rc = mount_set(tree, 0, 0, m->propagation[k] & ~(unsigned long)MS_REC, m->propagation[k] & MS_REC);
        if (rc < 0)
            return error_set_errno(err, -rc, "propagation of the mount");
    }
    return 0;
}

/* ---- the rest ---- */

static bool has_key(const struct container_mount *m, const char *key)
{
    for (size_t i = 0; i < m->n_data; i++)
        if (strncmp(m->data[i], key, strlen(key)) == 0)
            return true;
    return false;
}

/* Where proc and sysfs are, the runtime and the container's programs trust what they read: no link leads
 * elsewhere. */
static int open_target(const struct container_setup *setup, const struct container_mount *m, bool *existed,
                       struct error **err)
{
    bool plain = strcmp(m->type, "proc") == 0 || strcmp(m->type, "sysfs") == 0;
    int fd = path_open(setup->root, m->destination, O_PATH | O_DIRECTORY);

    *existed = fd >= 0;
    if (fd >= 0 && plain) {
        close(fd);
        fd = path_open_plain(setup->root, m->destination, O_PATH | O_DIRECTORY);
        if (fd == -ELOOP)
            return error_set(err, ELOOP, "filesystem \"%s\" must be mounted on ordinary directory", m->type);
    }
    if (fd == -ENOENT)
        fd = path_make_directory(setup->root, m->destination, 0755);
    return fd < 0 ? error_set_errno(err, -fd, "mount point") : fd;
}

static int finish_mount(const struct container_mount *m, int fd, struct error **err)
{
    int rc = mount_set(fd, m->recursive_set, m->recursive_clear, 0, true);

    for (size_t k = 0; rc == 0 && k < m->n_propagation; k++)
        rc = mount_set(fd, 0, 0, m->propagation[k] & ~(unsigned long)MS_REC, m->propagation[k] & MS_REC);
    return rc < 0 ? error_set_errno(err, -rc, "attributes of the mount") : 0;
}

static int mount_by_name(const struct container_setup *setup, const struct container_mount *m, int target,
                         struct error **err)
{
    int rc = mount_long(m, target, err);

    if (rc)
        return rc;
    cleanup_close int fd = path_open(setup->root, m->destination, O_PATH | O_DIRECTORY);
    if (fd < 0)
        return error_set_errno(err, -fd, "mount point");
    rc = mount_set(fd, m->set, m->clear, 0, false);
    return rc < 0 ? error_set_errno(err, -rc, "attributes of the mount") : finish_mount(m, fd, err);
}

static int mount_file_system(const struct container_setup *setup, const struct container_mount *m,
                             struct error **err)
{
    const char *data[64];
    bool existed;
    char mode[32], label[512];
    struct stat st;
    cleanup_close int target = open_target(setup, m, &existed, err);

    if (target < 0)
        return target;
    if (is_long(m))
        return mount_by_name(setup, m, target, err);
    if (m->n_data + 2 > sizeof(data) / sizeof(data[0]))
        return error_set(err, E2BIG, "more than 62 options");
    size_t n = m->n_data;
    memcpy(data, m->data, n * sizeof(*data));
    if (strcmp(m->type, "tmpfs") == 0 && existed && !has_key(m, "mode=") && fstat(target, &st) == 0) {
        snprintf(mode, sizeof(mode), "mode=%o", st.st_mode & 07777);
        data[n++] = mode;
    }
    if (setup->config->mount_label && *setup->config->mount_label && !has_key(m, "context=") &&
        access("/sys/fs/selinux/enforce", F_OK) == 0 && strcmp(m->type, "proc") != 0 &&
        strcmp(m->type, "sysfs") != 0 && strcmp(m->type, "mqueue") != 0) {
        snprintf(label, sizeof(label), "context=%s", setup->config->mount_label);
        data[n++] = label;
    }
    /* Its contents are copied to it while it can still be written to. */
    uint64_t later = m->copy_up ? m->set & MOUNT_ATTR_RDONLY : 0;
    cleanup_close int tree = mount_new(m->type, m->source, data, n, m->set & ~later, err);
    if (tree < 0)
        return tree;
    if (m->copy_up && existed) {
        int rc = copy_up(target, tree, err);
        if (rc)
            return rc;
    }
    int rc = mount_set(tree, later, 0, 0, false);
    if (rc == 0)
        rc = mount_attach(tree, target);
    if (rc < 0)
        return error_set_errno(err, -rc, "attaching the mount");
    return finish_mount(m, tree, err);
}

static int remount(const struct container_setup *setup, const struct container_mount *m, struct error **err)
{
    cleanup_close int fd = path_open(setup->root, m->destination, O_PATH);

    if (fd < 0)
        return error_set_errno(err, -fd, "mount point");
    int rc = mount_set(fd, m->set, m->clear, 0, false);
    return rc < 0 ? error_set_errno(err, -rc, "remount") : finish_mount(m, fd, err);
}

int mount_one(const struct container_setup *setup, size_t i, struct error **err)
{
    const struct container_mount *m = &setup->config->mounts[i];
    int rc;

    if (m->remount)
        rc = remount(setup, m, err);
    else if (m->bind)
        rc = bind_one(setup, i, err);
    else if (strcmp(m->type, "cgroup") == 0 || strcmp(m->type, "cgroup2") == 0)
        rc = mount_cgroups(setup, m, err);
    else
        rc = mount_file_system(setup, m, err);
    if (rc)
        return error_wrap(err, "error mounting \"%s\" to rootfs at \"%s\"",
                          m->source ? m->source
                          : m->type ? m->type
                                    : "",
                          m->destination);
    return 0;
}

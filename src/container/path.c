/* SPDX-License-Identifier: GPL-2.0-or-later */
/* openat2(2) with RESOLVE_IN_ROOT, and making what is missing on the way. Called by the processes that set up
 * a container's files. No state. */
#include "container/path.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define LINKS_MAX 40 /* as the kernel's own */

static int open_resolved(int root, const char *path, int flags, uint64_t resolve)
{
    /* The mode is for files that are made; the kernel wants 0 elsewhere. */
    const struct open_how how = {
        .flags = (uint64_t)(unsigned)flags | O_CLOEXEC,
        .mode = flags & O_CREAT ? 0644 : 0,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve,
    };
    long fd;

    /* EAGAIN: something was renamed somewhere while ".." was resolved. */
    for (int tries = 0; tries < 64; tries++) {
        fd = syscall(SYS_openat2, root, path, &how, sizeof(how));
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
            break;
    }
    return fd < 0 ? -errno : (int)fd;
}

int path_open(int root, const char *path, int flags)
{
    return open_resolved(root, path, flags, 0);
}

int path_open_plain(int root, const char *path, int flags)
{
    return open_resolved(root, path, flags, RESOLVE_NO_SYMLINKS);
}

static int make_missing(int root, const char *path, bool directory, mode_t mode, int links);

/* `parent`/`name` is a symbolic link to nothing: what it names is made, and what follows it in the path. */
static int make_behind_link(int root, int parent, const char *path, size_t before, size_t length,
                            bool directory, mode_t mode, int links)
{
    char name[NAME_MAX + 1], target[PATH_MAX], whole[2 * PATH_MAX];

    if (links == 0)
        return -ELOOP;
    if (length > NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(name, path + before, length);
    name[length] = '\0';
    ssize_t n = readlinkat(parent, name, target, sizeof(target) - 1);
    if (n < 0)
        return -errno;
    target[n] = '\0';
    int size = snprintf(whole, sizeof(whole), "%.*s/%s%s", target[0] == '/' ? 0 : (int)before, path, target,
                        path + before + length);
    if (size < 0 || (size_t)size >= PATH_MAX)
        return -ENAMETOOLONG;
    return make_missing(root, whole, directory, mode, links - 1);
}

static int make_entry(int parent, const char *name, bool directory, mode_t mode)
{
    if (directory)
        return mkdirat(parent, name, mode) < 0 ? -errno : 0;
    int fd = openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

/* Goes down component by component. Each step is taken from the root again, so that links count as the kernel
 * sees them; only the making itself is relative to a descriptor. */
static int make_missing(int root, const char *path, bool directory, mode_t mode, int links)
{
    cleanup_close int parent = fcntl(root, F_DUPFD_CLOEXEC, 0);
    char prefix[PATH_MAX];
    size_t at = 0, length = strlen(path);

    if (parent < 0)
        return -errno;
    if (length >= sizeof(prefix))
        return -ENAMETOOLONG;
    for (;;) {
        at += strspn(path + at, "/");
        size_t n = strcspn(path + at, "/");
        bool last = !path[at + n + strspn(path + at + n, "/")];

        if (!n)
            return steal_fd(parent);
        memcpy(prefix, path, at + n);
        prefix[at + n] = '\0';
        int fd = open_resolved(root, prefix, O_PATH, 0);
        if (fd == -ENOENT) {
            int rc = make_entry(parent, prefix + at, !last || directory, last ? mode : 0755);

            if (rc == -EEXIST && (fd = open_resolved(root, prefix, O_PATH, 0)) == -ENOENT)
                return make_behind_link(root, parent, path, at, n, directory, mode, links);
            if (rc < 0 && rc != -EEXIST)
                return rc;
            if (fd < 0)
                fd = open_resolved(root, prefix, O_PATH, 0);
        }
        if (fd < 0)
            return fd;
        close(parent);
        parent = fd;
        at += n;
    }
}

int path_make_directory(int root, const char *path, mode_t mode)
{
    int fd = open_resolved(root, path, O_PATH | O_DIRECTORY, 0);

    return fd == -ENOENT ? make_missing(root, path, true, mode, LINKS_MAX) : fd;
}

int path_make_file(int root, const char *path)
{
    int fd = open_resolved(root, path, O_PATH, 0);

    return fd == -ENOENT ? make_missing(root, path, false, 0644, LINKS_MAX) : fd;
}

int path_open_parent(int root, const char *path, const char **name)
{
    const char *slash = strrchr(path, '/');
    const char *last = slash ? slash + 1 : path;
    char parent[PATH_MAX];

    if (!*last || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
        return -EINVAL;
    if ((size_t)(last - path) >= sizeof(parent))
        return -ENAMETOOLONG;
    memcpy(parent, path, (size_t)(last - path));
    parent[last - path] = '\0';
    *name = last;
    return path_make_directory(root, last == path ? "." : parent, 0755);
}

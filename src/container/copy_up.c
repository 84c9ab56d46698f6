/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tmpcopyup: a tmpfs begins with what the directory under it holds. By descriptors all the way down; nothing
 * is followed. Called by mount.c. */
#include "container/copy_up.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define DEPTH_MAX 128

static int copy_directory(int from, int to, int depth);

static void cleanup_closedir(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

static int copy_data(int from, const char *name, int to, const struct stat *st)
{
    cleanup_close int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    cleanup_close int out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (in < 0 || out < 0)
        return -errno;
    ssize_t n;
    while ((n = sendfile(out, in, NULL, 1 << 20)) > 0)
        ;
    if (n < 0 || fchown(out, st->st_uid, st->st_gid) < 0 || fchmod(out, st->st_mode & 07777) < 0)
        return -errno;
    const struct timespec times[2] = {st->st_atim, st->st_mtim};
    return futimens(out, times) < 0 ? -errno : 0;
}

static int copy_link(int from, const char *name, int to, const struct stat *st)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(from, name, target, sizeof(target) - 1);

    if (n < 0)
        return -errno;
    target[n] = '\0';
    if (symlinkat(target, to, name) < 0 ||
        fchownat(to, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    return 0;
}

static int copy_entry(int from, const char *name, int to, int depth)
{
    struct stat st;

    if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (S_ISREG(st.st_mode))
        return copy_data(from, name, to, &st);
    if (S_ISLNK(st.st_mode))
        return copy_link(from, name, to, &st);
    if (!S_ISDIR(st.st_mode)) {
        /* Devices and sockets: as far as the process may make such. */
        if (mknodat(to, name, st.st_mode, st.st_rdev) == 0 &&
            fchownat(to, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0)
            return -errno;
        return 0;
    }
    if (mkdirat(to, name, 0700) < 0)
        return -errno;
    cleanup_close int in = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    cleanup_close int out = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (in < 0 || out < 0)
        return -errno;
    int rc = copy_directory(in, out, depth + 1);
    if (rc == 0 && (fchown(out, st.st_uid, st.st_gid) < 0 || fchmod(out, st.st_mode & 07777) < 0))
        rc = -errno;
    return rc;
}

static int copy_directory(int from, int to, int depth)
{
    struct dirent *entry;

    if (depth > DEPTH_MAX)
        return -ELOOP;
    int fd = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    __attribute__((cleanup(cleanup_closedir))) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return -errno;
    while ((entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int rc = copy_entry(from, entry->d_name, to, depth);
        if (rc)
            return rc;
    }
    return 0;
}

int copy_up(int from, int to, struct error **err)
{
    int rc = copy_directory(from, to, 0);

    return rc ? error_set_errno(err, -rc, "copying what the image has there") : 0;
}

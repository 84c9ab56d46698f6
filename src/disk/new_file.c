/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A file that gets its name when it is whole. Where the file system can, it has none before, so that nothing
 * is left of it however its maker ends. What has the name already is locked all the while: it must not be the
 * disk of a guest that runs. No state, no locks of ours.
 */
#include "disk/new_file.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "disk/disk_priv.h"
#include "disk/namer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return !slash ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/* A name beside the path for mkostemp. */
static char *name_beside(const char *path)
{
    const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path;
    char *name;

    return asprintf(&name, "%.*s.%.200s.XXXXXX", (int)(last - path), path, last) < 0 ? NULL : name;
}

static int look_at_old(struct disk_new_file *file, struct stat *st, struct error **err)
{
    cleanup_close int fd = open(file->path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 || fstat(fd, st) < 0)
        return error_set_errno(err, errno, "disk '%s'", file->path);
    if (!S_ISREG(st->st_mode))
        return error_set(err, EINVAL, "disk '%s' is no file: only files can be made", file->path);
    int rc = disk_lock_file(fd, file->path, false, err);
    if (rc < 0)
        return rc;
    file->lock_fd = rc;
    file->old_fd = steal_fd(fd);
    return 0;
}

static int make(struct disk_new_file *file, struct error **err)
{
    cleanup_free char *directory = directory_of(file->path);

    if (!directory)
        return error_set_errno(err, ENOMEM, "disk '%s'", file->path);
    file->fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        file->temporary = name_beside(file->path);
        file->fd = file->temporary ? mkostemp(file->temporary, O_CLOEXEC) : -1;
        if (file->fd < 0) {
            free(file->temporary);
            file->temporary = NULL;
        }
    }
    return file->fd < 0 ? error_set_errno(err, errno, "disk '%s'", file->path) : 0;
}

static void release(struct disk_new_file *file)
{
    cleanup_close_fn(&file->fd);
    cleanup_close_fn(&file->old_fd);
    cleanup_close_fn(&file->lock_fd);
    free(file->temporary);
    free(file->path);
}

int disk_new_file_open(struct disk_new_file *file, const char *path, struct error **err)
{
    struct stat st;

    *file = (struct disk_new_file){.fd = -1, .old_fd = -1, .lock_fd = -1};
    /* Through symbolic links, so that these stay. */
    file->path = realpath(path, NULL);
    if (!file->path)
        file->path = strdup(path);
    if (!file->path)
        return error_set_errno(err, ENOMEM, "disk '%s'", path);
    int rc = look_at_old(file, &st, err);
    if (rc == 0)
        rc = make(file, err);
    /* Whose it is, and who may read it, stay as they were where we may say so. */
    if (rc == 0 && file->old_fd >= 0 &&
        (fchown(file->fd, st.st_uid, st.st_gid) < 0 || fchmod(file->fd, st.st_mode & 07777) < 0))
        rc = error_set_errno(err, errno, "disk '%s': keeping its owner and mode", path);
    if (rc) {
        if (file->temporary)
            unlink(file->temporary);
        release(file);
    }
    return rc;
}

int disk_new_file_open_beside(struct disk_new_file *file, const char *path, struct error **err)
{
    int rc = disk_new_file_open(file, path, err);

    if (rc || file->old_fd < 0)
        return rc;
    disk_new_file_end(file, false, false, NULL);
    /* Two files can't be replaced in one step, so what was there before would be lost by an end between. */
    return error_set(err, EEXIST, "'%s' is there already: remove it, or give the image another name", path);
}

/* Gives a file without name one: the path's own if nothing is there, else a temporary one. */
static int give_name(struct disk_new_file *file)
{
    char from[32];

    snprintf(from, sizeof(from), "/proc/self/fd/%d", file->fd);
    if (file->old_fd < 0)
        return linkat(AT_FDCWD, from, AT_FDCWD, file->path, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
    for (unsigned tries = 0; tries < 100; tries++) {
        cleanup_free char *name = name_beside(file->path);
        if (!name)
            return -ENOMEM;
        snprintf(name + strlen(name) - 6, 7, "%06u", (unsigned)(getpid() + (int)tries) % 1000000u);
        if (linkat(AT_FDCWD, from, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0) {
            file->temporary = steal_ptr(name);
            return 0;
        }
        if (errno != EEXIST)
            return -errno;
    }
    return -EEXIST;
}

static int sync_directory(const struct disk_new_file *file)
{
    cleanup_free char *directory = directory_of(file->path);
    cleanup_close int fd = directory ? open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int disk_new_file_end(struct disk_new_file *file, bool ok, bool sync, struct error **err)
{
    int rc = 0;

    if (file->namer) {
        rc = disk_namer_finish(file->namer, file->index, ok, sync, err);
        release(file);
        return rc;
    }
    if (ok && sync && fsync(file->fd) < 0)
        rc = -errno;
    if (ok && rc == 0 && !file->temporary)
        rc = give_name(file);
    if (ok && rc == 0 && file->temporary)
        rc = rename(file->temporary, file->path) < 0 ? -errno : 0;
    if ((!ok || rc) && file->temporary)
        unlink(file->temporary);
    if (ok && rc == 0 && sync)
        rc = sync_directory(file);
    if (rc)
        error_set_errno(err, -rc, "disk '%s'", file->path);
    release(file);
    return rc;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks of open file descriptions (fcntl(2), F_OFD_SETLK), since these can be asked after without being
 * taken, and a fork keeps them. Byte 0 is the supervisor's, exclusive; byte 1 is shared by the processes that
 * it started, which may outlive it for a moment. No state.
 */
#include "guest/lock.h"

#include "base/cleanup.h"
#include "host/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#define BYTE_SUPERVISOR 0
#define BYTE_OTHERS     1
#define RETRY_NS        2000000

static int set(int fd, short type, off_t start, off_t len)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

static bool is_held(int fd, off_t byte)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static char *path_of(const char *directory)
{
    char *path;

    return asprintf(&path, "%s/lock", directory) < 0 ? NULL : path;
}

/* Whether `fd` is still what the path names: the guest may have been removed, and made anew, since. */
static bool is_current(int fd, const char *path)
{
    struct stat ours, theirs;

    return fstat(fd, &ours) == 0 && stat(path, &theirs) == 0 && ours.st_ino == theirs.st_ino &&
           ours.st_dev == theirs.st_dev;
}

int lock_take(const char *directory)
{
    cleanup_free char *path = path_of(directory);

    if (!path)
        return -ENOMEM;
    for (;;) {
        /* The directory is made by who creates the guest; the file by whoever is first. */
        cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

        if (fd < 0)
            return -errno;
        int rc = set(fd, F_WRLCK, BYTE_SUPERVISOR, 2);
        if (rc)
            return rc;
        /* The processes to come share the second byte among themselves. */
        rc = set(fd, F_UNLCK, BYTE_OTHERS, 1);
        if (rc)
            return rc;
        if (is_current(fd, path))
            return steal_fd(fd);
    }
}

int lock_wait(const char *directory, unsigned ms)
{
    uint64_t until = loop_now() + ms * 1000000ull;
    int rc;

    while ((rc = lock_take(directory)) == -EBUSY && loop_now() < until)
        nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
    return rc;
}

int lock_share(const char *directory)
{
    cleanup_free char *path = path_of(directory);
    cleanup_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    if (fd < 0)
        return path ? -errno : -ENOMEM;
    int rc = set(fd, F_RDLCK, BYTE_OTHERS, 1);
    return rc ? rc : steal_fd(fd);
}

enum lock_holder lock_holder(const char *directory)
{
    cleanup_free char *path = path_of(directory);
    cleanup_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    if (fd < 0)
        return LOCK_FREE;
    return is_held(fd, BYTE_SUPERVISOR) ? LOCK_SUPERVISED
           : is_held(fd, BYTE_OTHERS)   ? LOCK_ORPHANED
                                        : LOCK_FREE;
}

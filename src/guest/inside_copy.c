/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files between host and container. The container's side is hostile: its paths are found by the kernel with
 * its root as the end of the world (openat2, RESOLVE_IN_ROOT), and below that every name is opened without
 * following links, so whatever its programs change meanwhile, nothing of the host is read or written that was
 * not named. No state.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/text.h"
#include "guest/inside.h"
#include "guest/inside_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define BLOCK     (128u << 10)
#define DEPTH_MAX 256 /* of directories in each other: each level holds two descriptors */

struct side {
    struct inside inside; /* root -1: the host */
    const char *path;
};

/* "NAME:PATH", but not "./a:b" or "/a:b". */
static int open_side(struct side *side, const struct home *home, const char *text, struct error **err)
{
    const char *colon = strchr(text, ':'), *slash = strchr(text, '/');
    cleanup_free char *name = NULL;

    *side = (struct side){.inside = INSIDE_NONE, .path = text};
    if (!colon || (slash && slash < colon))
        return 0;
    name = strndup(text, (size_t)(colon - text));
    side->path = colon + 1;
    if (!name)
        return error_set_errno(err, ENOMEM, "cp");
    if (!*side->path)
        return error_set(err, EINVAL, "'%s' names no file in the container: %s:/PATH does", text, name);
    return inside_open(&side->inside, home, name, err);
}

static int open_path(const struct side *side, const char *path, int flags)
{
    const struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC),
                                 .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    long fd;

    if (side->inside.root < 0) {
        fd = open(path, flags | O_CLOEXEC);
        return fd < 0 ? -errno : (int)fd;
    }
    do
        fd = syscall(SYS_openat2, side->inside.root, path, &how, sizeof(how));
    while (fd < 0 && errno == EAGAIN);
    return fd < 0 ? -errno : (int)fd;
}

/* ---- what is below two directories ---- */

struct copy {
    uint8_t *buf;
};

static int fail_at(const char *name, int errnum, struct error **err)
{
    char shown[256];

    text_make_printable(shown, sizeof(shown), name);
    return error_set_errno(err, errnum, "'%s'", shown);
}

static int copy_entry(const struct copy *c, int from, const char *from_name, int to, const char *to_name,
                      int depth, struct error **err);

/* Files that come in are root's, those that come out the person's. */
static int dress(int fd, const struct stat *st)
{
    const struct timespec times[2] = {st->st_atim, st->st_mtim};

    if (fchmod(fd, st->st_mode & 0777) < 0)
        return -errno;
    futimens(fd, times);
    return 0;
}

static int copy_data(const struct copy *c, int in, int out)
{
    for (;;) {
        ssize_t n = read(in, c->buf, BLOCK), done = 0;

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : 0;
        while (done < n) {
            ssize_t m = write(out, c->buf + done, (size_t)(n - done));
            if (m < 0 && errno != EINTR)
                return -errno;
            done += m > 0 ? m : 0;
        }
    }
}

static int copy_file(const struct copy *c, int from, const char *from_name, int to, const char *to_name,
                     struct error **err)
{
    struct stat st;
    cleanup_close int in = openat(from, from_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (in < 0 || fstat(in, &st) < 0)
        return fail_at(from_name, errno, err);
    if (!S_ISREG(st.st_mode))
        return fail_at(from_name, EINVAL, err);
    if (unlinkat(to, to_name, 0) < 0 && errno != ENOENT)
        return fail_at(to_name, errno, err);
    cleanup_close int out = openat(to, to_name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (out < 0)
        return fail_at(to_name, errno, err);
    int rc = copy_data(c, in, out);
    if (rc == 0)
        rc = dress(out, &st);
    if (rc)
        unlinkat(to, to_name, 0);
    return rc ? fail_at(to_name, -rc, err) : 0;
}

static int copy_link(int from, const char *from_name, int to, const char *to_name, struct error **err)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(from, from_name, target, sizeof(target) - 1);

    if (n < 0)
        return fail_at(from_name, errno, err);
    target[n] = '\0';
    if ((unlinkat(to, to_name, 0) < 0 && errno != ENOENT) || symlinkat(target, to, to_name) < 0)
        return fail_at(to_name, errno, err);
    return 0;
}

static int copy_directory(const struct copy *c, int from, const char *from_name, int to, const char *to_name,
                          int depth, struct error **err)
{
    struct stat st;
    cleanup_close int in = openat(from, from_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (depth == DEPTH_MAX)
        return fail_at(from_name, ELOOP, err);
    if (in < 0 || fstat(in, &st) < 0)
        return fail_at(from_name, errno, err);
    if (mkdirat(to, to_name, 0700) < 0 && errno != EEXIST)
        return fail_at(to_name, errno, err);
    cleanup_close int out = openat(to, to_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int again = out < 0 ? -1 : fcntl(in, F_DUPFD_CLOEXEC, 3);
    DIR *dir = again < 0 ? NULL : fdopendir(again);
    if (!dir)
        return fail_at(to_name, errno, err);
    int rc = 0;
    for (struct dirent *e; rc == 0 && (e = readdir(dir));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rc = copy_entry(c, in, e->d_name, out, e->d_name, depth + 1, err);
    closedir(dir);
    if (rc == 0)
        dress(out, &st);
    return rc;
}

static int copy_entry(const struct copy *c, int from, const char *from_name, int to, const char *to_name,
                      int depth, struct error **err)
{
    struct stat st;

    if (fstatat(from, from_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return fail_at(from_name, errno, err);
    switch (st.st_mode & S_IFMT) {
    case S_IFDIR:
        return copy_directory(c, from, from_name, to, to_name, depth, err);
    case S_IFREG:
        return copy_file(c, from, from_name, to, to_name, err);
    case S_IFLNK:
        return copy_link(from, from_name, to, to_name, err);
    default:
        return 0; /* devices, sockets and FIFOs have no content */
    }
}

/* ---- the two ends ---- */

/* The directory that a path is in, and its last name; "/" and the like are "." in themselves. */
static int open_parent(const struct side *side, char *path, const char **name)
{
    for (size_t len = strlen(path); len > 1 && path[len - 1] == '/';)
        path[--len] = '\0';
    char *slash = strrchr(path, '/');
    const char *last = slash ? slash + 1 : path;
    if (!*last || strcmp(last, ".") == 0 || strcmp(last, "..") == 0) {
        *name = ".";
        return open_path(side, path, O_RDONLY | O_DIRECTORY);
    }
    *name = last;
    if (!slash)
        return open_path(side, side->inside.root < 0 ? "." : "/", O_RDONLY | O_DIRECTORY);
    if (slash == path)
        return open_path(side, "/", O_RDONLY | O_DIRECTORY);
    *slash = '\0';
    return open_path(side, path, O_RDONLY | O_DIRECTORY);
}

static int copy_between(const struct copy *c, const struct side *from, const struct side *to,
                        struct error **err)
{
    cleanup_free char *source = strdup(from->path), *target = strdup(to->path);
    const char *from_name, *to_name;

    if (!source || !target)
        return error_set_errno(err, ENOMEM, "cp");
    bool into = target[strlen(target) - 1] == '/';
    cleanup_close int in = open_parent(from, source, &from_name);
    if (in < 0)
        return error_set_errno(err, -in, "'%s'", from->path);
    /* What is there as a directory gets it under its own name. */
    cleanup_close int directory = open_path(to, target, O_RDONLY | O_DIRECTORY);
    if (directory >= 0) {
        if (strcmp(from_name, ".") == 0)
            return copy_directory(c, in, ".", directory, ".", 0, err);
        return copy_entry(c, in, from_name, directory, from_name, 0, err);
    }
    if (into)
        return error_set_errno(err, -directory, "'%s'", to->path);
    cleanup_close int out = open_parent(to, target, &to_name);
    if (out < 0)
        return error_set_errno(err, -out, "'%s'", to->path);
    return copy_entry(c, in, from_name, out, to_name, 0, err);
}

int guest_copy(const struct home *home, const char *from, const char *to, struct error **err)
{
    struct side source = {.inside = INSIDE_NONE}, target = {.inside = INSIDE_NONE};
    cleanup_free uint8_t *buf = malloc(BLOCK);
    int rc = buf ? open_side(&source, home, from, err) : error_set_errno(err, ENOMEM, "cp");

    if (rc == 0)
        rc = open_side(&target, home, to, err);
    if (rc == 0 && (source.inside.root < 0) == (target.inside.root < 0))
        rc = error_set(err, EINVAL,
                       "one of the two has to be in a container, as in 'tabique cp a.txt web:/tmp/'");
    const struct copy copy = {.buf = buf};
    if (rc == 0)
        rc = copy_between(&copy, &source, &target, err);
    inside_close(&source.inside);
    inside_close(&target.inside);
    return rc;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sockets for processes without paths (dial.h). No state, no locks. */
#include "host/dial.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "host/pass.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 128

struct request {
    uint32_t id, port;
};

struct answer {
    uint32_t id;
    int32_t error; /* 0: a descriptor comes with it */
};

/*
 * The address of `name` in the directory `dir`. Addresses have room for a hundred bytes or so; a longer path
 * is told by way of the open directory.
 */
static int address_of(const char *path, int dir, struct sockaddr_un *address)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    int n;

    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    n = snprintf(address->sun_path, sizeof(address->sun_path), "%s", path);
    if (n > 0 && (size_t)n < sizeof(address->sun_path))
        return 0;
    n = snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d/%s", dir, name);
    return n > 0 && (size_t)n < sizeof(address->sun_path) ? 0 : -ENAMETOOLONG;
}

/* The directory that `path` is in. */
static int open_directory(const char *path)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;

    if (n >= sizeof(dir))
        return -ENAMETOOLONG;
    memcpy(dir, path, n);
    dir[n] = 0;
    int fd = open(n ? dir : slash ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int connect_to(const char *path, int dir)
{
    struct sockaddr_un address;
    int rc = address_of(path, dir, &address);

    if (rc)
        return rc;
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Without waiting: -EAGAIN of a listener whose queue is full is for whoever asked. */
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    return steal_fd(fd);
}

/* Takes what a dead process has left out of the way; -EADDRINUSE if it is alive or no socket. The directory
 * is locked. */
static int clear_stale(const char *path, int dir)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    cleanup_close int fd = connect_to(path, dir);
    if (fd >= 0 || fd != -ECONNREFUSED)
        return -EADDRINUSE;
    return unlink(path) < 0 ? -errno : 0;
}

static int listen_at(const char *path, int dir)
{
    struct sockaddr_un address;
    int rc = address_of(path, dir, &address);

    if (rc == 0)
        rc = clear_stale(path, dir);
    if (rc)
        return rc;
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    if (listen(fd, BACKLOG) < 0) {
        rc = -errno;
        unlink(path);
        return rc;
    }
    return steal_fd(fd);
}

int dial_listen(const char *path, struct error **err)
{
    int dir = open_directory(path), fd = dir;

    if (dir >= 0) {
        /* Two that start at once must not both find the same remains. */
        flock(dir, LOCK_EX);
        fd = listen_at(path, dir);
        close(dir);
    }
    if (fd == -EADDRINUSE)
        return error_set(err, EADDRINUSE, "socket '%s': somebody listens there: choose another path", path);
    if (fd == -EEXIST)
        return error_set(err, EEXIST, "socket '%s': there is a file of another kind: choose another path",
                         path);
    return fd < 0 ? error_set_errno(err, -fd, "socket '%s'", path) : fd;
}

int dial_channel(int pair[2], struct error **err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return error_set_errno(err, errno, "channel for connections");
    return 0;
}

static int send_all(int channel, const void *bytes, size_t len)
{
    ssize_t n;

    do {
        n = send(channel, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

int dial_ask(int channel, uint32_t id, uint32_t port)
{
    const struct request request = {.id = id, .port = port};

    return send_all(channel, &request, sizeof(request));
}

/* One message of exactly `len` bytes, with at most one descriptor: 0 or -errno. */
static int receive(int channel, void *bytes, size_t len, int *fd)
{
    ssize_t n = pass_receive(channel, bytes, len, fd, MSG_DONTWAIT | MSG_TRUNC);

    if (n == (ssize_t)len)
        return 0;
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    return n < 0 ? (int)n : n == 0 ? -ECONNRESET : -EPROTO;
}

int dial_take(int channel, uint32_t *id, int *fd)
{
    struct answer answer;
    int got, rc = receive(channel, &answer, sizeof(answer), &got);

    if (rc)
        return rc;
    *id = answer.id;
    *fd = got >= 0 ? got : answer.error < 0 ? answer.error : -EIO;
    return 0;
}

int dial_answer(int channel, const char *path)
{
    struct request request;
    char name[PATH_MAX];
    int extra, rc = receive(channel, &request, sizeof(request), &extra);

    if (rc)
        return rc;
    cleanup_close_fn(&extra); /* nothing of the confined side's is wanted here */
    int n = snprintf(name, sizeof(name), "%s_%u", path, request.port);
    cleanup_close int dir = open_directory(path);
    cleanup_close int fd = n < 0 || (size_t)n >= sizeof(name) ? -ENAMETOOLONG
                           : dir < 0                          ? dir
                                                              : connect_to(name, dir);
    const struct answer answer = {.id = request.id, .error = fd < 0 ? fd : 0};
    /* Who asks and does not read the answers does not get them; the descriptor goes. */
    ssize_t sent = pass_send(channel, &answer, sizeof(answer), fd, MSG_DONTWAIT);
    return sent >= 0 || sent == -EAGAIN ? 0 : sent == -EPIPE ? -ECONNRESET : (int)sent;
}

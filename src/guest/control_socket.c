/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A Unix socket's address has room for 107 bytes, a path may be longer: then the directory is opened and
 * named by its descriptor. Called by the supervisor and the client. No state.
 */
#include "guest/control_socket.h"

#include "base/cleanup.h"
#include "guest/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define BACKLOG 64

/* *directory_fd is open as long as the address is to be used. 0 or -errno. */
static int make_address(const char *directory, struct sockaddr_un *address, int *directory_fd)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    *directory_fd = -1;
    size_t size = sizeof(address->sun_path);
    if ((size_t)snprintf(address->sun_path, size, "%s/" CONTROL_SOCKET, directory) < size)
        return 0;
    *directory_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*directory_fd < 0)
        return -errno;
    snprintf(address->sun_path, size, "/proc/self/fd/%d/" CONTROL_SOCKET, *directory_fd);
    return 0;
}

int control_socket_listen(const char *directory)
{
    struct sockaddr_un address;
    cleanup_close int directory_fd = -1;
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = fd < 0 ? -errno : make_address(directory, &address, &directory_fd);

    if (rc)
        return rc;
    if (unlink(address.sun_path) < 0 && errno != ENOENT)
        return -errno;
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, BACKLOG) < 0)
        return -errno;
    return steal_fd(fd);
}

int control_socket_connect(const char *directory)
{
    struct sockaddr_un address;
    cleanup_close int directory_fd = -1;
    /* One whose queue is full (who listens hangs) is not waited for: -EAGAIN. */
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = fd < 0 ? -errno : make_address(directory, &address, &directory_fd);

    if (rc)
        return rc;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || fcntl(fd, F_SETFL, 0) < 0)
        return -errno;
    return steal_fd(fd);
}

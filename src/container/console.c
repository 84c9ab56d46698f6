/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Terminals by descriptors alone: no name of one is looked up in the container's files. Called by the
 * container's process, and by who has its master. */
#include "container/console.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/path.h"
#include "container/setup_priv.h"
#include "host/pass.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <termios.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

int console_open(int root, const struct container_process *process, int *master, int *slave,
                 struct error **err)
{
    struct stat st;
    int unlock = 0;
    cleanup_close int fd = path_open(root, "/dev/pts/ptmx", O_RDWR | O_NOCTTY);

    if (fd < 0)
        fd = path_open(root, "/dev/ptmx", O_RDWR | O_NOCTTY);
    if (fd < 0)
        return error_set_errno(err, -fd,
                               "opening a terminal in the container: does it mount devpts at /dev/pts?");
    /* 5:2 is what makes terminals; an image could have anything here. */
    if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(5, 2))
        return error_set(err, ENODEV, "/dev/pts/ptmx in the container makes no terminals");
    if (ioctl(fd, TIOCSPTLCK, &unlock) < 0)
        return error_set_errno(err, errno, "unlocking the terminal");
    cleanup_close int peer = ioctl(fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (peer < 0)
        return error_set_errno(err, errno, "the terminal's other side");
    if (process->rows && process->columns) {
        const struct winsize size = {.ws_row = process->rows, .ws_col = process->columns};
        ioctl(fd, TIOCSWINSZ, &size);
    }
    /* Its user must be able to open it again, by /dev/tty or its name. */
    if (fchown(peer, process->uid, (gid_t)-1) < 0 && errno != EPERM && errno != EINVAL)
        return error_set_errno(err, errno, "the terminal's owner");
    *master = steal_fd(fd);
    *slave = steal_fd(peer);
    return 0;
}

int console_send(int socket, int master, struct error **err)
{
    static const char name[] = "/dev/ptmx";
    ssize_t n = pass_send(socket, name, sizeof(name) - 1, master, 0);

    return n < 0 ? error_set_errno(err, (int)-n, "console socket") : 0;
}

int console_receive(int socket)
{
    char text[256];
    int fd;
    ssize_t n = pass_receive(socket, text, sizeof(text), &fd, 0);

    return n < 0 ? (int)n : fd < 0 ? -EPROTO : fd;
}

int console_connect(const char *path, struct error **err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return error_set_errno(err, errno, "console socket");
    if (strlen(path) >= sizeof(address.sun_path)) {
        /* Sockets' names are short; what is behind a descriptor has a short one. */
        cleanup_close int place = open(path, O_PATH | O_CLOEXEC);
        if (place < 0)
            return error_set_errno(err, errno, "console socket %s", path);
        snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", place);
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
            return error_set_errno(err, errno, "console socket %s", path);
        return steal_fd(fd);
    }
    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return error_set_errno(err, errno, "console socket %s", path);
    return steal_fd(fd);
}

int console_take(int slave)
{
    if (ioctl(slave, TIOCSCTTY, 0) < 0)
        return -errno;
    for (int fd = 0; fd <= 2; fd++)
        if (dup2(slave, fd) < 0)
            return -errno;
    if (slave > 2)
        close(slave);
    return 0;
}

int console_show(int root, int slave, struct error **err)
{
    cleanup_close int target = path_make_file(root, "/dev/console");
    cleanup_close int tree =
        target < 0 ? -1 : open_tree(slave, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    int rc = target < 0 ? target : tree < 0 ? -errno : mount_attach(tree, target);

    return rc < 0 ? error_set_errno(err, -rc, "/dev/console") : 0;
}

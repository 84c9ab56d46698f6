/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages of one size at most over a SOCK_SEQPACKET socket. Called by both sides. No state. */
#include "container/message_priv.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int message_send(int socket, enum message_kind kind, int32_t number, const char *text, int fd)
{
    struct message m = {.kind = kind, .number = number};
    char control[CMSG_SPACE(sizeof(int))] = {0};

    snprintf(m.text, sizeof(m.text), "%s", text ? text : "");
    struct iovec iov = {.iov_base = &m, .iov_len = offsetof(struct message, text) + strlen(m.text) + 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof(control);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    }
    ssize_t n;
    do
        n = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

int message_receive(int socket, struct message *out, int *fd)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {.iov_base = out, .iov_len = sizeof(*out)};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    ssize_t n;

    if (fd)
        *fd = -1;
    /* The other side has ended without reading what was sent to it: told once, before what it had to say. */
    do
        n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && (errno == EINTR || errno == ECONNRESET));
    if (n < 0)
        return -errno;
    if (n == 0)
        return -EPIPE;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof(int))) {
        int received;

        memcpy(&received, CMSG_DATA(header), sizeof(received));
        if (fd)
            *fd = received;
        else
            close(received);
    }
    if ((size_t)n < offsetof(struct message, text) + 1)
        return -EPROTO;
    out->text[n - (ssize_t)offsetof(struct message, text) - 1] = '\0';
    return 0;
}

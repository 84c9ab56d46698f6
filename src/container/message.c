/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages of one size at most over a SOCK_SEQPACKET socket. Called by both sides. No state. */
#include "container/message_priv.h"

#include "host/pass.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int message_send(int socket, enum message_kind kind, int32_t number, const char *text, int fd)
{
    struct message m = {.kind = kind, .number = number};

    snprintf(m.text, sizeof(m.text), "%s", text ? text : "");
    ssize_t n = pass_send(socket, &m, offsetof(struct message, text) + strlen(m.text) + 1, fd, 0);
    return n < 0 ? (int)n : 0;
}

int message_receive(int socket, struct message *out, int *fd)
{
    int received;
    ssize_t n;

    /* The other side has ended without reading what was sent to it: told once, before what it had to say. */
    do
        n = pass_receive(socket, out, sizeof(*out), &received, 0);
    while (n == -ECONNRESET);
    if (fd)
        *fd = received;
    else if (received >= 0)
        close(received);
    if (n <= 0)
        return n < 0 ? (int)n : -EPIPE;
    if ((size_t)n < offsetof(struct message, text) + 1)
        return -EPROTO;
    out->text[n - (ssize_t)offsetof(struct message, text) - 1] = '\0';
    return 0;
}

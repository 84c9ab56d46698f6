/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a command and the process that it made say to each other, over a socket that keeps messages whole. */
#ifndef TABIQUE_CONTAINER_MESSAGE_PRIV_H
#define TABIQUE_CONTAINER_MESSAGE_PRIV_H

#include <stdint.h>
#include <sys/types.h>

struct error;

enum message_kind {
    MESSAGE_GO = 1,   /* command: ids are mapped, groups entered; or: hooks have run */
    MESSAGE_PID,      /* process: this is the one, I was but on the way */
    MESSAGE_HOOKS,    /* process: all is mounted; now is the time of the runtime's hooks */
    MESSAGE_LISTENER, /* process: the descriptor of the seccomp filter's notices comes along */
    MESSAGE_READY,    /* process: nothing is left but to execute the program */
    MESSAGE_FAILED,   /* process: why it can't be */
};

struct message {
    int32_t kind;
    int32_t number; /* PID: the process; FAILED: the errno, and the exit status << 16 */
    char text[1016];
};

/* Sends; `fd` comes along, if it is not -1. -errno. */
int message_send(int socket, enum message_kind kind, int32_t number, const char *text, int fd);
/* Receives; *fd, if not NULL, becomes what came along, or -1. -EPIPE at the end. */
int message_receive(int socket, struct message *out, int *fd);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bytes over a Unix socket, and a descriptor that comes along with them (unix(7), SCM_RIGHTS). No state. */
#ifndef TABIQUE_HOST_PASS_H
#define TABIQUE_HOST_PASS_H

#include <stddef.h>
#include <sys/types.h>

/* Sends, with `fd` if it is not negative. `flags` are sendmsg's, beside MSG_NOSIGNAL. How much went, as by
 * sendmsg, or -errno. */
ssize_t pass_send(int socket, const void *bytes, size_t size, int fd, int flags);

/*
 * Receives. *fd becomes the caller's descriptor (close-on-exec), or -1 where none came or it failed; of more
 * than one the others are closed. `flags` are recvmsg's: with MSG_TRUNC a message that is longer than `size`
 * is told by its own length. How much came, 0 at the end, or -errno.
 */
ssize_t pass_receive(int socket, void *bytes, size_t size, int *fd, int flags);

#endif

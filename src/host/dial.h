/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unix sockets for a process that can open none. A confined process has no paths: the socket that it listens
 * on is made for it before (dial_listen), and when it wants to connect it asks a trusted process over a
 * channel (a SOCK_SEQPACKET pair made by dial_channel) with nothing but a number. The trusted side appends
 * the number to a path of its own choice, connects, and passes the descriptor back. So whoever takes the
 * confined process over reaches the sockets under that name and nothing else.
 *
 * The trusted side keeps no state between requests and never waits: whoever has an event loop can serve it.
 */
#ifndef TABIQUE_HOST_DIAL_H
#define TABIQUE_HOST_DIAL_H

#include <stdint.h>

struct error;

/*
 * Makes a socket that listens at `path`. What a process that is gone has left there is replaced; what
 * somebody listens on, or is no socket, is an error. The descriptor (close-on-exec, non-blocking), or -errno
 * with *err. The path is the caller's to unlink.
 */
int dial_listen(const char *path, struct error **err);

/* Both ends: [0] for the trusted side, [1] for the other. 0 or -errno with *err. */
int dial_channel(int pair[2], struct error **err);

/* ---- the confined side ---- */

/* Asks for a connection to `port`; the answer comes with this `id`. 0 or -errno: -EAGAIN if too many are
 * asked for. */
int dial_ask(int channel, uint32_t id, uint32_t port);
/* Takes an answer: 0 with *id and *fd, which is the caller's, or a negative error in *fd: -EAGAIN there if
 * the listener's queue is full, so that it is to be asked for again later. -EAGAIN if there is no answer yet,
 * -ECONNRESET if there is nobody to answer. */
int dial_take(int channel, uint32_t *id, int *fd);

/* ---- the trusted side ---- */

/* Answers one request with a connection to the socket `path`_PORT. 0; -EAGAIN if there was none, -ECONNRESET
 * if the other side is gone, -EPROTO if it talks nonsense: then the channel is of no use any more. */
int dial_answer(int channel, const char *path);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A process that makes a connection anew for one that may make none any more: it knows one address, and
 * passes a socket that is connected there to whoever holds the other end. It ends with that one. Called by
 * nbd_uri.c while there is one thread, and by nbd_again.c.
 */
#ifndef TABIQUE_DISK_NBD_DIALER_H
#define TABIQUE_DISK_NBD_DIALER_H

struct error;
struct nbd_dialer;

/* `dial` connects: a socket or -errno. It is called in the new process. 0 or -errno with *err. */
int nbd_dialer_start(struct nbd_dialer **out, int (*dial)(const void *opaque), const void *opaque,
                     struct error **err);
/* NULL is fine. */
void nbd_dialer_free(struct nbd_dialer *dialer);
/* What can be read when there is an answer. */
int nbd_dialer_fd(const struct nbd_dialer *dialer);
/* Asks for a connection, which is tried for at most `ms`. 0 or -errno. */
int nbd_dialer_ask(struct nbd_dialer *dialer, unsigned ms);
/* The answer: a socket; -EAGAIN if there is none after `ms`; or -errno. */
int nbd_dialer_take(struct nbd_dialer *dialer, int ms);

#endif

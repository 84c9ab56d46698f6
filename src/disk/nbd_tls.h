/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS under the NBD protocol, for both sides, on sockets that don't block. Who one is, and whom one believes,
 * is an identity, which is read from files before the process is confined; it may have several sessions. One
 * thread; no locks.
 */
#ifndef TABIQUE_DISK_NBD_TLS_H
#define TABIQUE_DISK_NBD_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct error;
struct nbd_tls;
struct nbd_tls_identity;

/* One of the two. */
struct nbd_tls_files {
    /* A directory with ca-cert.pem and server-cert.pem, server-key.pem or client-cert.pem, client-key.pem.
     * Of a server ca-cert.pem may be missing: then clients need no certificate. Of a client its own two may
     * be missing: then it has none. */
    const char *certificates;
    /* A file of lines NAME:KEY, the key in hexadecimal, as psktool makes it. A client uses the line of
     * `user`; NULL: the first. */
    const char *psk, *user;
};

/* 0 or -errno with *err. */
int nbd_tls_identity_new(struct nbd_tls_identity **out, const struct nbd_tls_files *files, bool server,
                         struct error **err);
/* NULL is fine. */
void nbd_tls_identity_free(struct nbd_tls_identity *identity);

/* On a connected socket, which stays the caller's. `host`: whose certificate a client wants to see. 0 or
 * -errno. */
int nbd_tls_new(struct nbd_tls **out, const struct nbd_tls_identity *identity, int fd, const char *host);
/* Says good-bye. NULL is fine. */
void nbd_tls_free(struct nbd_tls *tls);

/* Goes on with the handshake: 1 when it is done, 0 if it must wait, -EPROTO with the reason in `why` if there
 * is no way. */
int nbd_tls_shake(struct nbd_tls *tls, char *why, size_t len);
/* Whether it waits for the socket to take bytes, rather than to bring some. */
bool nbd_tls_wants_to_send(const struct nbd_tls *tls);

/* As recv and send: a number of bytes, 0 at the end, -EAGAIN if it must wait, -EPROTO. After -EAGAIN a send
 * is to be repeated with the same bytes. */
ssize_t nbd_tls_receive(struct nbd_tls *tls, void *buf, size_t len);
ssize_t nbd_tls_send(struct nbd_tls *tls, const void *buf, size_t len);
/* Whether there are bytes to receive that the socket does not tell of. */
bool nbd_tls_has_more(const struct nbd_tls *tls);

#endif

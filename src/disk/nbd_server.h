/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A server of the NBD protocol for disks that are open, in one loop: any number of exports, several clients
 * at once, many requests of each under way. All in the loop's thread; no locks.
 *
 * Clients may be hostile. Each is bounded: in what it has under way (NBD_SERVER_CLIENT_BYTES and a buffer),
 * and in the time that it takes over its first words, over half a request, and over not reading answers.
 */
#ifndef TABIQUE_DISK_NBD_SERVER_H
#define TABIQUE_DISK_NBD_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct disk;
struct error;
struct loop;
struct nbd_server;
struct nbd_tls_identity;

/* Bytes of requests of one client that are in memory at once; a single one may have twice as many for a
 * moment, if its ends lie within sectors. */
#define NBD_SERVER_CLIENT_BYTES (32u << 20)
#define NBD_SERVER_CLIENTS_MAX  256u

struct nbd_server_config {
    struct loop *loop;
    unsigned clients;                   /* at once; others wait until one has gone */
    const struct nbd_tls_identity *tls; /* clients must use TLS then; NULL: none can */
    /* The last client has gone. May be NULL. */
    void (*idle)(void *opaque);
    void *opaque;
};

/* 0 or -errno with *err. */
int nbd_server_new(struct nbd_server **out, const struct nbd_server_config *config, struct error **err);
/* Drops all clients and ends what they have under way, which needs the loop to run once more where there is
 * any: nbd_server_stop does that. NULL is fine. */
void nbd_server_free(struct nbd_server *server);

/* Offers an open disk, which stays the caller's, under a name; the first is the one that clients get who ask
 * for none. The strings are copied. 0 or -errno. */
int nbd_server_add_export(struct nbd_server *server, const char *name, const char *description,
                          struct disk *disk);
/* Offers of the disk's bitmap of that name what it says now, as "qemu:dirty-bitmap:NAME", with the export
 * that was added last. 0 or -errno with *err. */
int nbd_server_add_bitmap(struct nbd_server *server, const char *bitmap, struct error **err);
/* Accepts connections on a listening socket, which stays the caller's. 0 or -errno. */
int nbd_server_listen(struct nbd_server *server, int fd);
/* Serves one connection, whose descriptor is the server's from then on, also if this fails. 0 or -errno. */
int nbd_server_take(struct nbd_server *server, int fd);
/* Takes no client and no request any more; `stopped` is called, from the loop, when none is under way. */
void nbd_server_stop(struct nbd_server *server, void (*stopped)(void *opaque), void *opaque);

#endif

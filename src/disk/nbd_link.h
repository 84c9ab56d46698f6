/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client's side of a connection to an NBD server. nbd_uri.c makes the connection, while that may be done;
 * nbd_hello.c agrees on an export, nbd_link.c has requests on their way, many at a time, nbd_again.c begins
 * anew where a connection was lost, and nbd_disk.c makes a disk of it. Servers may be hostile: what they say
 * is checked, and takes a bounded amount of memory.
 */
#ifndef TABIQUE_DISK_NBD_LINK_H
#define TABIQUE_DISK_NBD_LINK_H

#include "disk/disk_priv.h"
#include "disk/nbd.h"

#include <pthread.h>

struct nbd_dialer;
struct nbd_tls;
struct nbd_tls_identity;
struct nbd_written;

/* What a URI says. */
struct nbd_remote {
    char *export;
    char *host; /* whose certificate is wanted; NULL: nobody's */
    struct nbd_tls_identity *tls;
    struct nbd_dialer *dialer; /* connects again; NULL: nobody does */
    unsigned patience;         /* seconds in which it has to succeed */
};

/* ---- nbd_uri.c ---- */

/* Whether a disk's name is one: nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH, and nbds... with
 * TLS: ?tls-certificates=DIR, ?tls-psk-file=FILE, ?tls-hostname=NAME, nbds://USER@... for keys; and
 * ?reconnect=SECONDS. */
bool nbd_is_uri(const char *name);
/* Connects: the socket, or -errno with *err. */
int nbd_connect(const char *uri, struct nbd_remote **out, struct error **err);
void nbd_remote_free(struct nbd_remote *remote);

/* ---- nbd_link.c ---- */

struct nbd_call {
    uint16_t command, flags;
    uint64_t offset;
    uint32_t length;
    const struct iovec *iov; /* of reads and writes: `length` bytes */
    unsigned n_iov;
    /* Called when it is done; NULL: somebody waits in nbd_link_wait. */
    void (*ended)(struct nbd_call *call);

    /* The link's own. */
    struct nbd_call *next;
    uint64_t cookie, told;
    uint64_t mark; /* of a flush: what had been written when it was sent */
    int result;
    bool done;
};

#define NBD_LINK_IN       65536u
#define NBD_LINK_CALLS    128u
#define NBD_EXTENTS_MAX   4096u
#define NBD_WAIT_MS       60000 /* for the server to say anything at all, when it owes an answer */
#define NBD_STATUS_NUMBER 1u

struct nbd_link {
    int fd;
    struct nbd_tls *tls;
    uint64_t size;
    uint16_t flags;
    uint32_t smallest, largest; /* bytes of a request */
    bool structured, has_status;
    uint32_t context;
    int wait_ms; /* for each step of the handshake */

    /* Making the connection anew (nbd_again.c). */
    struct nbd_dialer *dialer; /* NULL: it is not */
    const struct nbd_remote *remote;
    void (*on_lost)(struct nbd_link *link); /* `fd` is about to go; may be NULL */
    unsigned patience;                      /* seconds */
    uint32_t agreed_largest;
    bool own_fd, lost, asked; /* asked: the dialer owes an answer */
    uint64_t give_up;         /* as loop_now */

    pthread_mutex_t lock; /* of all below; without a loop several threads make calls */
    pthread_cond_t changed;
    bool pumping;
    int failure;
    uint64_t serial;
    struct nbd_call *calls[NBD_LINK_CALLS]; /* at the server, by the cookie's lowest bits */
    struct nbd_call *out, **out_tail;       /* to be sent */
    uint64_t out_at;                        /* bytes of the first that are sent */
    uint8_t head[NBD_REQUEST_SIZE];

    /* Changes that the server has told of and not flushed, each with a number. */
    struct nbd_written *kept, **kept_tail;
    size_t kept_bytes;
    uint64_t written, not_kept; /* numbers: the last, and the last that there was no room for; 0: none */
    bool doubt;                 /* such a one may be lost: a flush has to say so */
    bool syncing;
    struct nbd_call sync, again;
    const struct nbd_written *replaying; /* by `again`; all other calls are held meanwhile */
    struct nbd_call *held, **held_tail;

    uint8_t in[NBD_LINK_IN];
    size_t in_at, in_end;
    struct nbd_call *filling; /* data of a read that come */
    uint64_t fill_at, fill_left;
    bool fill_ends; /* the answer ends with them */

    /* The last answer about where data are. */
    uint64_t status_from;
    unsigned n_status;
    struct {
        uint32_t length, state;
    } status[NBD_EXTENTS_MAX];
};

void nbd_link_init(struct nbd_link *link, int fd);
void nbd_link_clear(struct nbd_link *link);
/* Takes a call, and begins to send it. */
void nbd_link_submit(struct nbd_link *link, struct nbd_call *call);
/* Ends all calls with this error, and all later ones. */
void nbd_link_fail(struct nbd_link *link, int rc);
/* Sends of what is to be sent as much as goes. */
void nbd_link_send(struct nbd_link *link);
/* Does what can be done without waiting; calls that are done are told of. */
void nbd_link_pump(struct nbd_link *link);
/* The events that are waited for. */
uint32_t nbd_link_events(const struct nbd_link *link);
/* Submits a call and waits for it: 0 or -errno. Any thread. */
int nbd_link_do(struct nbd_link *link, struct nbd_call *call);

/* Bytes at once, for the handshake: 0 or -errno. */
int nbd_link_read(struct nbd_link *link, void *buf, size_t len);
int nbd_link_write(struct nbd_link *link, const void *buf, size_t len);

/* ---- nbd_again.c ---- */

/* A call has ended well. */
void nbd_again_note(struct nbd_link *link, const struct nbd_call *call);
/* The connection is of no use any more; the link has a dialer. */
void nbd_again_lose(struct nbd_link *link);
/* Of a link that has lost its connection: gives it another, if there is one by now, or with `wait`, when
 * there is. It fails where that takes too long, or another disk is there. */
void nbd_again_revive(struct nbd_link *link, bool wait);
/* From now on it waits no longer than that for a connection. */
void nbd_again_hurry(struct nbd_link *link, unsigned seconds);
/* All that waits for the end of what is written again is to be sent as ever. */
void nbd_again_stop(struct nbd_link *link);
void nbd_again_clear(struct nbd_link *link);

/* ---- nbd_hello.c ---- */

/* Agrees on the export. 0 or -errno with *err. */
int nbd_hello(struct nbd_link *link, const struct nbd_remote *remote, struct error **err);

/* ---- nbd_disk.c ---- */

/* What the server says of the disk that is files->files[0]. 0 or -errno with *err. */
int nbd_describe(struct disk_files *files, struct disk_info *info, struct error **err);

#endif

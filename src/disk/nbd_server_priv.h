/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inside of the NBD server. nbd_server.c has connections and bytes, nbd_options.c what is said before an
 * export is chosen, nbd_requests.c what is asked of it then, nbd_answers.c what is told of it.
 */
#ifndef TABIQUE_DISK_NBD_SERVER_PRIV_H
#define TABIQUE_DISK_NBD_SERVER_PRIV_H

#include "disk/nbd_server.h"

#include "disk/disk.h"
#include "disk/maintain.h"
#include "disk/nbd.h"

struct nbd_client;
struct nbd_op;
struct nbd_tls;

struct nbd_export {
    struct nbd_server *server;
    struct nbd_export *next;
    char *name, *description;
    struct disk *disk;
    char *bitmap; /* the name of the context that tells of `dirty`; NULL: none */
    struct disk_dirty dirty;
    unsigned in_flight; /* requests that the disk has */
    bool exclusive;     /* the one that it has begins or ends within a sector: no other may begin */
    bool beginning;     /* those that wait are being begun */
    struct nbd_op *waiting, **waiting_tail;
};

/* Buffers of 64 KiB to 4 MiB are kept for the next request, for to have new ones from the kernel and to touch
 * each of their pages takes longer than to copy what goes in. So many bytes of them, of the whole server. */
#define NBD_SPARE_SIZES 7u
#define NBD_SPARE_MAX   (64u << 20)
struct nbd_spare {
    struct nbd_spare *next;
};

struct nbd_server {
    struct nbd_server_config config;
    struct nbd_export *exports, **exports_tail;
    struct nbd_client *clients;
    unsigned n_clients, n_listeners;
    struct nbd_listener {
        struct nbd_server *server;
        int fd;
        struct loop_watch *watch;
    } listeners[8];
    bool stopping, posted;
    struct nbd_spare *spare[NBD_SPARE_SIZES]; /* buffers, by size */
    size_t spare_bytes;
    void (*stopped)(void *opaque);
    void *stopped_opaque;
};

/* Bytes to be sent, in pieces. They are part of a request's answer, or of what is said before. */
struct nbd_out {
    struct nbd_out *next;
    struct nbd_op *op; /* ends when they are sent; NULL: they are freed themselves */
    struct iovec *iov;
    unsigned n, at; /* pieces; the first that is not sent whole */
    struct iovec few[2];
};

/* Enough for a chunk of every kind without its data. */
#define NBD_HEAD 48u

/* A request. It is the client's until its answer is sent. */
struct nbd_op {
    struct nbd_client *client;
    struct nbd_export *export;
    struct nbd_op *next; /* of those that wait for the disk */
    uint64_t cookie, offset;
    uint32_t length;
    uint16_t command, flags;
    bool at_disk; /* counts as in flight */
    /* The whole sectors that have it, and where it is in them. */
    uint64_t start, span;
    uint32_t skip;
    unsigned step; /* of what takes more than one request to the disk */
    uint64_t at;   /* how far it is */
    uint8_t *buf;
    size_t buf_size;
    size_t room; /* counted as the client's; 0: none */
    struct disk_request request;
    struct iovec iov;
    struct nbd_out out;
    uint8_t head[NBD_HEAD];
    uint8_t *more; /* heads of more chunks, or what is told of the disk */
    struct iovec *pieces;
};

enum nbd_state { NBD_GREETED, NBD_HAGGLING, NBD_SERVING };
enum { NBD_CONTEXT_ALLOCATION = 1, NBD_CONTEXT_DEPTH = 2, NBD_CONTEXT_BITMAP = 3, NBD_CONTEXTS = 3 };

struct nbd_client {
    struct nbd_server *server;
    struct nbd_client *next, *prev;
    int fd;
    struct loop_watch *watch;
    struct loop_timer *timer;
    struct nbd_tls *tls;
    bool tls_shaking; /* its handshake is under way */

    enum nbd_state state;
    bool fixed, no_zeroes, structured;
    bool contexts[NBD_CONTEXTS + 1];    /* by number */
    struct nbd_export *contexts_export; /* of which they were chosen */
    struct nbd_export *export;

    uint8_t *in; /* NBD_IN bytes */
    size_t in_at, in_end;
    uint64_t skip;            /* bytes to come that nobody wants */
    struct nbd_op *receiving; /* a write whose bytes come */
    size_t received;

    unsigned ops;
    size_t bytes; /* that they have in memory */
    struct nbd_out *out, **out_tail;

    bool blocked; /* reads no more until something is sent */
    bool ending;  /* reads no more at all: goes when all is answered and sent */
    bool broken;  /* nothing can be sent any more */
    bool busy;    /* on the stack: is not freed */
    bool again;   /* has more to be read than the socket tells of */
    bool timing;  /* the timer runs for half a request or unread answers */
};

#define NBD_IN      65536u
#define NBD_OPS_MAX 128u

/* ---- nbd_server.c ---- */

/* Bytes that have come and are not used yet. */
static inline size_t nbd_available(const struct nbd_client *client)
{
    return client->in_end - client->in_at;
}

/* NULL if there is no memory. What is in it is any bytes of any client: it is filled before it is sent. */
uint8_t *nbd_take_buffer(struct nbd_server *server, size_t size);
void nbd_give_buffer(struct nbd_server *server, uint8_t *buffer, size_t size);

void nbd_send(struct nbd_client *client, struct nbd_out *out);
/* Answers no more: what has been said makes no sense. */
void nbd_break(struct nbd_client *client);
/* Sends what there is to be sent, and goes on with reading if that was kept up by it. The client may be gone
 * then, unless it is busy. */
void nbd_push(struct nbd_client *client);

/* ---- nbd_options.c ---- */

/* The first words to a client. 0 or -errno. */
int nbd_greet(struct nbd_client *client);
/* Uses some of the bytes that have come. False if more are needed, or this client must wait. */
bool nbd_haggle(struct nbd_client *client);

/* ---- nbd_requests.c ---- */

bool nbd_take_request(struct nbd_client *client);
/* All bytes of client->receiving are there. */
void nbd_received(struct nbd_client *client);
void nbd_op_end(struct nbd_op *op);
/* Nobody waits for it: one that has not begun. */
void nbd_drop_waiting(struct nbd_client *client);
/* What the export can do, for clients. */
uint16_t nbd_export_flags(const struct nbd_export *export);

/* ---- nbd_answers.c ---- */

/* Sends the answer: `result` is 0 or -errno. */
void nbd_answer(struct nbd_op *op, int result);
/* Of BLOCK_STATUS. */
void nbd_answer_status(struct nbd_op *op);

#endif

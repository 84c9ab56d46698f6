/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What copy.c (which parts are read when, and what waits for that) and copy_send.c (the socket) share. */
#ifndef TABIQUE_DISK_COPY_PRIV_H
#define TABIQUE_DISK_COPY_PRIV_H

#include "disk/copy.h"
#include "disk/copy_record.h"
#include "disk/disk_priv.h"
#include "disk/throttle.h"

#define COPY_SLOTS (DISK_COPY_MEMORY / COPY_PIECE)

/* A record on its way: read, and then sent. */
struct copy_slot {
    struct disk_copy *copy;
    struct copy_slot *next;
    bool used, reading;
    uint64_t first, n; /* the units it has */
    struct copy_record record;
    uint8_t header[COPY_HEADER_SIZE];
    uint8_t *data;
    struct disk_request request;
    struct iovec iov;
};

/* The queue of records that are to be sent, the first of them perhaps in part. */
struct copy_output {
    int fd;
    struct loop_watch *watch;
    struct copy_slot *first, **last;
    uint64_t sent; /* of the first, with its header */
    bool wants_room;
};

struct disk_copy {
    struct disk *disk;
    struct disk_copying what;
    char *since, *bitmap;
    struct copy_slot slots[COPY_SLOTS];
    struct copy_slot control; /* for END, DONE and FAILED */
    uint8_t *buffers;
    struct copy_output output;

    unsigned unit_bits;
    uint64_t n_units, left, cursor;
    uint8_t *todo;  /* a bit for each unit that has not been read, nor is being */
    uint64_t bytes; /* to be copied in all, about */
    bool has_bitmap;

    struct disk_request *held, **held_tail; /* writes that wait, each since `at` */
    struct loop_timer *patience, *pace, *end;
    struct disk_throttle throttle;
    bool paced; /* waits for the rate */

    /* A mirror: writes under way; how often it has been through; all writes wait; it is what it is to be. */
    unsigned passing, passes;
    bool holding, fixed;

    bool sent_end, kept; /* the receiver has it */
    bool told;           /* and knows that the disk may go on in it */
    bool ending;         /* nothing new is begun */
    int failure;         /* why it ends; 0: it is done, or was cancelled */
    char text[COPY_TEXT_MAX];
};

/* ---- copy.c ---- */

/* A request on a disk that is being copied. */
void disk_copy_submit(struct disk_copy *copy, struct disk_request *request);
/* Begins to read what it may, and to send it; then lets go on what waits for no more of it. */
void disk_copy_go_on(struct disk_copy *copy);
/* Ends it. `text` NULL: nobody is to be told. */
void disk_copy_fail(struct disk_copy *copy, int error, const char *text);
/* The disk is about to be closed, and no request is pending: forgets the copy without `ended`. */
void disk_copy_forget(struct disk_copy *copy);

/* ---- copy_send.c ---- */

/* 0 or -errno. `fd` becomes its own in either case. */
int disk_copy_output_open(struct disk_copy *copy, int fd);
void disk_copy_output_close(struct copy_output *output);
/* Puts a record behind the others. */
void disk_copy_send(struct disk_copy *copy, struct copy_slot *slot);
/* Sends as much as the socket takes now. */
void disk_copy_flush(struct disk_copy *copy);
/* Tells the other end that all is done. */
void disk_copy_tell_done(int fd);

#endif

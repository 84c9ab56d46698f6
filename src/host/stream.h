/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bytes in both directions between a loop and two descriptors, whatever they are (a terminal, pipes, files, a
 * socket). Neither side blocks or drops: bytes that are not taken yet stay here and then in the descriptor,
 * output that the reader does not take yet is refused until there is room. Used by the person's terminal, by
 * the guest's console, and by those who are attached to one.
 */
#ifndef TABIQUE_HOST_STREAM_H
#define TABIQUE_HOST_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct loop;
struct stream;

/* All are called in the loop's thread with no lock held; each but `input` may be NULL. */
struct stream_events {
    /* Takes bytes that came. Returns how many, 0..len; after fewer than len call stream_input_ready once more
     * can be taken. */
    size_t (*input)(void *opaque, const uint8_t *bytes, size_t len);
    /* stream_write refused bytes before; there is room again. */
    void (*output_ready)(void *opaque);
    /* Looks at bytes as soon as they are read, which may be long before `input` gets them. Returns how many
     * of them to keep; the rest is forgotten. */
    size_t (*examine)(void *opaque, const uint8_t *bytes, size_t len);
    /* No input comes any more (end of file, or an error). */
    void (*input_ended)(void *opaque);
    /* Nobody reads the output any more (told once); what is written from now on is dropped. */
    void (*output_broke)(void *opaque);
};

struct stream_config {
    struct loop *loop;
    int in_fd, out_fd;     /* stay the caller's, used until stream_close; may be the same */
    bool always_read;      /* read even while the input is not taken: the latest bytes replace each other */
    uint64_t out_delay_ns; /* what is written within it goes out in one piece */
    const struct stream_events *events;
    void *opaque;
};

/* Begins to read. 0 or -errno with *err. */
int stream_open(struct stream **out, const struct stream_config *config, struct error **err);
/* Writes what is still to be written, up to `wait_ms` for a slow reader. In the loop's thread, or when the
 * loop has ended; not from one of the stream's own callbacks. NULL is fine. */
void stream_close(struct stream *stream, unsigned wait_ms);

/* Takes output. Returns how many bytes, 0..len; after fewer, output_ready comes. Any thread; does not block.
 */
size_t stream_write(struct stream *stream, const void *bytes, size_t len);
/* No more output: once what there is has been written to a socket, its reader is told that this was the end.
 */
void stream_end_output(struct stream *stream);
/* See input. Any thread. */
void stream_input_ready(struct stream *stream);
/* How many bytes stream_write would take. With 0, output_ready comes. Any thread. */
size_t stream_room(struct stream *stream);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The person's side of a guest's console: this process's standard input and output, whatever they are (a
 * terminal, pipes, files, /dev/null). While it is open a terminal is in raw mode; its settings come back on
 * every way out: terminal_close, exit, a crash, a signal.
 *
 * Neither side blocks or drops: bytes that the guest does not take yet stay here (on a terminal up to
 * 64 KiB), output that the reader does not take yet is refused until there is room.
 */
#ifndef TABIQUE_HOST_TERMINAL_H
#define TABIQUE_HOST_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct loop;
struct terminal;

/* All are called in the loop's thread with no lock held. */
struct terminal_events {
    /* Gives bytes to the guest. Returns how many it took, 0..len; after fewer than len call
     * terminal_input_ready once it can take more. */
    size_t (*input)(void *opaque, const uint8_t *bytes, size_t len);
    /* terminal_write refused bytes before; there is room again. */
    void (*output_ready)(void *opaque);
    /* Ctrl-] was pressed (terminals only; in a pipe that byte is data). */
    void (*leave)(void *opaque);
    /* SIGINT, SIGTERM or SIGHUP came, or SIGPIPE's cause: nobody reads the output any more (told once). A
     * second signal before terminal_close ends the process at once. */
    void (*ended)(void *opaque, int signal);
    /* No more input comes, and it was no terminal's: a file or a pipe is at its end. May be NULL. */
    void (*input_ended)(void *opaque);
    /* The terminal has another size. NULL if nobody minds; otherwise SIGWINCH is blocked in this thread, so
     * open the terminal before others are made. */
    void (*resized)(void *opaque, uint16_t columns, uint16_t rows);
};

/*
 * Takes over input and output and the signals named above; there can be one at a time (-EBUSY). The
 * descriptors stay the caller's and are used until terminal_close. Open it as late as can be: before that an
 * interrupt simply ends the process.
 */
int terminal_open(struct terminal **out, struct loop *loop, int in_fd, int out_fd,
                  const struct terminal_events *events, void *opaque, struct error **err);

/* Writes what is still to be written (waits up to a second for a slow reader), restores the terminal's
 * settings and the signals' actions. When the loop has ended for good. NULL is fine. */
void terminal_close(struct terminal *terminal);

/* Takes output. Returns how many bytes, 0..len; after fewer, output_ready comes. Any thread; does not block.
 */
size_t terminal_write(struct terminal *terminal, const void *bytes, size_t len);

/* How many bytes terminal_write would take. With 0, output_ready comes. Any thread. */
size_t terminal_room(struct terminal *terminal);

/* See input. Any thread. */
void terminal_input_ready(struct terminal *terminal);

/* The size of the terminal `fd` in characters; 0 for both if it is none. */
void terminal_size(int fd, uint16_t *columns, uint16_t *rows);

/* Whether input is a terminal, and so in raw mode with Ctrl-] to leave. */
bool terminal_is_interactive(const struct terminal *terminal);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which of a guest's two consoles gets what is typed. Both come out on one terminal, and nothing in either
 * device tells whether somebody reads there; so it is taken from what they write:
 *
 *  - A prompt is a line that is left open. Whoever has one, while the other has none, is asked. A message of
 * the kernel or of an init ends its line and asks for nothing.
 *  - An Enter to which nothing was said for a while, while the other had something to say, was typed in the
 * wrong place: such as at the prompt of a shell that is no more, when a rescue shell has opened on the other
 * line.
 *
 * Not thread-safe: console.c has the lock. Times are ns of loop_now.
 */
#ifndef TABIQUE_MACHINE_CONSOLE_FOCUS_H
#define TABIQUE_MACHINE_CONSOLE_FOCUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum console_port { CONSOLE_SERIAL, CONSOLE_VIRTIO, CONSOLE_PORTS };

/* Where in a terminal's escape sequences (ECMA-48) an output stands. */
enum console_escape { ESCAPE_NONE, ESCAPE_BEGUN, ESCAPE_CONTROL, ESCAPE_STRING, ESCAPE_STRING_END };

/* All 0: the serial line has the focus, nobody has said anything. */
struct console_focus {
    enum console_port port; /* the one that gets input */
    struct console_line {
        enum console_escape escape;
        bool open;         /* something visible is in the line of the cursor */
        bool asks;         /* it is open, and nothing was typed elsewhere since */
        uint64_t wrote_at; /* 0: never */
    } lines[CONSOLE_PORTS];
    uint64_t unanswered_since; /* an Enter to `port`; 0: it has said something since */
};

/* The guest has written to `port`. */
void console_focus_output(struct console_focus *focus, enum console_port port, const uint8_t *bytes,
                          size_t len, uint64_t now);
/* Something is typed: returns who gets it. */
enum console_port console_focus_input(struct console_focus *focus, const uint8_t *bytes, size_t len,
                                      uint64_t now);

#endif

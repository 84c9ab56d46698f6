/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The rules of console_focus.h. */
#include "machine/console_focus.h"

#include <string.h>

/* A line of the kernel on its way through the serial line is open for some ms: a prompt stays open. */
#define SERIAL_PROMPT_NS 100000000ull
/* A busy guest may take its time to answer; a person takes as long to press Enter again. */
#define SILENCE_NS 2000000000ull

/* True for what a terminal shows; control characters and escape sequences it only obeys. */
static bool is_visible(struct console_line *line, uint8_t byte)
{
    switch (line->escape) {
    case ESCAPE_NONE:
        if (byte == 0x1b)
            line->escape = ESCAPE_BEGUN;
        return byte > ' ' && byte != 0x7f;
    case ESCAPE_BEGUN:
        line->escape = byte == '['                  ? ESCAPE_CONTROL
                       : byte == ']' || byte == 'P' ? ESCAPE_STRING
                                                    : ESCAPE_NONE;
        return false;
    case ESCAPE_CONTROL:
        if (byte >= 0x40 && byte <= 0x7e)
            line->escape = ESCAPE_NONE;
        return false;
    case ESCAPE_STRING:
        if (byte == 0x07 || byte == '\n')
            line->escape = ESCAPE_NONE;
        else if (byte == 0x1b)
            line->escape = ESCAPE_STRING_END;
        return false;
    case ESCAPE_STRING_END:
        line->escape = ESCAPE_NONE;
        return false;
    }
    return false;
}

void console_focus_output(struct console_focus *f, enum console_port port, const uint8_t *bytes, size_t len,
                          uint64_t now)
{
    struct console_line *line = &f->lines[port];

    if (len == 0)
        return;
    for (size_t i = 0; i < len; i++) {
        if (is_visible(line, bytes[i]))
            line->open = line->asks = true;
        else if (bytes[i] == '\n' || bytes[i] == '\r')
            line->open = line->asks = false;
    }
    line->wrote_at = now;
    if (port == f->port)
        f->unanswered_since = 0;
}

/* A line on its way is no prompt yet. */
static bool has_prompt(const struct console_focus *f, enum console_port port, uint64_t now)
{
    const struct console_line *line = &f->lines[port];

    return line->open && (port == CONSOLE_VIRTIO || now - line->wrote_at >= SERIAL_PROMPT_NS);
}

enum console_port console_focus_input(struct console_focus *f, const uint8_t *bytes, size_t len, uint64_t now)
{
    enum console_port other = !f->port;
    bool asked_elsewhere = f->lines[other].asks && has_prompt(f, other, now) && !has_prompt(f, f->port, now);
    bool in_vain = f->unanswered_since && now - f->unanswered_since >= SILENCE_NS &&
                   f->lines[other].wrote_at > f->lines[f->port].wrote_at;

    if (asked_elsewhere || in_vain) {
        f->port = other;
        f->unanswered_since = 0;
    }
    f->lines[!f->port].asks = false; /* not any more */
    if (!f->unanswered_since && (memchr(bytes, '\r', len) || memchr(bytes, '\n', len)))
        f->unanswered_since = now;
    return f->port;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bytes that become more while they are written. All zero is empty; free `data`. */
#ifndef TABIQUE_BASE_BUFFER_H
#define TABIQUE_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
    uint8_t *data;
    size_t size, room;
    bool failed; /* there was no memory: it is not whole */
};

/* Appends `n` bytes, or sets `failed`: asked for once, at the end. */
void buffer_put(struct buffer *b, const void *bytes, size_t n);

#endif

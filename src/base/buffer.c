/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bytes that become more: buffer.h. */
#include "base/buffer.h"

#include <stdlib.h>
#include <string.h>

void buffer_put(struct buffer *b, const void *bytes, size_t n)
{
    if (n > b->room - b->size) {
        size_t room = b->room * 2 > b->size + n ? b->room * 2 : b->size + n + 256;
        uint8_t *data = realloc(b->data, room);

        if (!data) {
            b->failed = true;
            return;
        }
        b->data = data;
        b->room = room;
    }
    if (n)
        memcpy(b->data + b->size, bytes, n);
    b->size += n;
}

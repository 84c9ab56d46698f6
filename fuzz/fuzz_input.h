/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bytes of a fuzz input, taken one after the other; zeros once they are used up. */
#ifndef TABIQUE_FUZZ_FUZZ_INPUT_H
#define TABIQUE_FUZZ_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct fuzz_input {
    const uint8_t *bytes;
    size_t left;
};

/* The next `size` bytes (1..8) as a little-endian number. */
static inline uint64_t fuzz_take(struct fuzz_input *in, unsigned size)
{
    uint64_t value = 0;
    size_t n = size < in->left ? size : in->left;
    memcpy(&value, in->bytes, n);
    in->bytes += n;
    in->left -= n;
    return value;
}

#endif

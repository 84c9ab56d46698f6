/* SPDX-License-Identifier: GPL-2.0-or-later */
/* UTF-16, which file formats of Windows have names in. See utf16.c. */
#ifndef TABIQUE_BASE_UTF16_H
#define TABIQUE_BASE_UTF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The text in `len` bytes, up to their end or a character 0, as UTF-8; what is no character becomes U+FFFD.
 * To be freed; NULL if there is no memory. */
char *utf16_decode(const uint8_t *bytes, size_t len, bool big_endian);
/* The other way round, into at most `room` bytes, without a 0 at the end: how many that takes. SIZE_MAX:
 * more, or `text` is no UTF-8. */
size_t utf16_encode(const char *text, uint8_t *out, size_t room, bool big_endian);

#endif

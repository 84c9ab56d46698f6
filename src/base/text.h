/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text from processes that are not trusted, for a person's terminal and for JSON. */
#ifndef TABIQUE_BASE_TEXT_H
#define TABIQUE_BASE_TEXT_H

#include <stddef.h>

/*
 * Copies the string `from` into `to` of `size` bytes (1 or more; the two may be the same): what is no
 * printable UTF-8 becomes '?', byte by byte, and what is too long is cut between characters. The rest of `to`
 * becomes 0.
 */
void text_make_printable(char *to, size_t size, const char *from);

#endif

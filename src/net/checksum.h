/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The Internet checksum (RFC 1071). No state. */
#ifndef TABIQUE_NET_CHECKSUM_H
#define TABIQUE_NET_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* The ones' complement sum of `len` bytes as big-endian 16-bit words, the last one filled up with zero; not
 * complemented. */
uint16_t checksum_sum(const void *bytes, size_t len);

#endif

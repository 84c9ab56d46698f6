/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The checksum CRC-32C. See crc32c.c. */
#ifndef TABIQUE_DISK_CRC32C_H
#define TABIQUE_DISK_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Of bytes that follow on those whose checksum is `before`; 0: they are the first. */
uint32_t crc32c(uint32_t before, const void *bytes, size_t len);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What goes over the socket of a copy. A record is a header, numbers in little-endian, and where that says so
 * `length` bytes behind it:
 *
 *     0   u32  COPY_MAGIC
 *     4   u32  type
 *     8   u64  offset
 *     16  u64  length
 *     24  u64  value
 *
 *     BEGUN   first: the disk has `offset` bytes, of which about `length` will come;
 *             value: COPY_HAS_BITMAP, COPY_REPEATS
 *     DATA    `length` bytes of the disk at `offset`, which follow
 *     ZEROS   `length` bytes at `offset` are zeros
 *     PASSED  of an image that is filled (fill.h): `length` bytes at `offset` need nothing more
 *     END     all has come. The receiver answers one byte, COPY_KEPT, when it has it for good
 *     DONE    ... and the bitmaps are as they are to be
 *     FAILED  instead of all that would follow; value: an errno; `length` bytes of text follow
 *
 * Who sends may have been taken over by a guest: the receiver believes nothing that copy_record_parse has not
 * judged.
 */
#ifndef TABIQUE_DISK_COPY_RECORD_H
#define TABIQUE_DISK_COPY_RECORD_H

#include <stdint.h>

#define COPY_MAGIC       0x79706f43u
#define COPY_HEADER_SIZE 32u
#define COPY_PIECE       (1u << 20) /* bytes that follow a header at most */
#define COPY_TEXT_MAX    400u
#define COPY_KEPT        'K'
#define COPY_HAS_BITMAP  1u
#define COPY_REPEATS     2u /* a part may come again, and then counts instead of what it was before */

enum copy_type {
    COPY_BEGUN = 1,
    COPY_DATA,
    COPY_ZEROS,
    COPY_END,
    COPY_DONE,
    COPY_FAILED,
    COPY_PASSED,
    COPY_TYPES
};

struct copy_record {
    enum copy_type type;
    uint64_t offset, length, value;
};

void copy_record_pack(uint8_t out[COPY_HEADER_SIZE], const struct copy_record *record);
/* `size`: of the disk, as BEGUN told; 0: it has not come. 0; or -EPROTO: it is none that could follow. */
int copy_record_parse(const uint8_t in[COPY_HEADER_SIZE], uint64_t size, struct copy_record *out);

#endif

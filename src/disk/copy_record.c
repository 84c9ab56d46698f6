/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The headers of what goes over a copy's socket: copy_record.h. No state. */
#include "disk/copy_record.h"

#include "base/bytes.h"
#include "disk/disk.h"

#include <errno.h>
#include <stdbool.h>

enum { AT_MAGIC = 0, AT_TYPE = 4, AT_OFFSET = 8, AT_LENGTH = 16, AT_VALUE = 24 };

void copy_record_pack(uint8_t out[COPY_HEADER_SIZE], const struct copy_record *record)
{
    put_le32(out + AT_MAGIC, COPY_MAGIC);
    put_le32(out + AT_TYPE, record->type);
    put_le64(out + AT_OFFSET, record->offset);
    put_le64(out + AT_LENGTH, record->length);
    put_le64(out + AT_VALUE, record->value);
}

static bool is_within(const struct copy_record *r, uint64_t size)
{
    return r->length && (r->offset | r->length) % DISK_SECTOR == 0 && r->offset < size &&
           r->length <= size - r->offset;
}

static bool is_sound(const struct copy_record *r, uint64_t size)
{
    switch (r->type) {
    case COPY_BEGUN:
        return !size && r->offset && r->offset % DISK_SECTOR == 0 && r->offset <= INT64_MAX &&
               r->length <= r->offset && r->value <= (COPY_HAS_BITMAP | COPY_REPEATS);
    case COPY_DATA:
        return is_within(r, size) && r->length <= COPY_PIECE;
    case COPY_ZEROS:
    case COPY_PASSED:
        return is_within(r, size);
    case COPY_END:
    case COPY_DONE:
        return size && !r->offset && !r->length && !r->value;
    case COPY_FAILED:
        return r->length <= COPY_TEXT_MAX && r->value && r->value < 4096;
    case COPY_TYPES:
        break;
    }
    return false;
}

int copy_record_parse(const uint8_t in[COPY_HEADER_SIZE], uint64_t size, struct copy_record *out)
{
    uint32_t type = get_le32(in + AT_TYPE);
    const struct copy_record r = {.type = (enum copy_type)type,
                                  .offset = get_le64(in + AT_OFFSET),
                                  .length = get_le64(in + AT_LENGTH),
                                  .value = get_le64(in + AT_VALUE)};

    if (get_le32(in + AT_MAGIC) != COPY_MAGIC || type < COPY_BEGUN || type >= COPY_TYPES ||
        !is_sound(&r, size))
        return -EPROTO;
    *out = r;
    return 0;
}

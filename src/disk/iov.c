/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parts of scattered memory. No state, no locks. */
#include "disk/disk_priv.h"

#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

#define PAGE ((size_t)4096)

void *disk_buffer_new(size_t size)
{
    return aligned_alloc(PAGE, ALIGN_UP(size, PAGE));
}

unsigned disk_iov_slice(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len, struct iovec *out)
{
    unsigned taken = 0;

    for (unsigned i = 0; i < n && len; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t part = iov[i].iov_len - skip;
        if (part > len)
            part = len;
        out[taken++] = (struct iovec){.iov_base = (char *)iov[i].iov_base + skip, .iov_len = part};
        len -= part;
        skip = 0;
    }
    return taken;
}

void disk_iov_fill(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len, const uint8_t *from)
{
    for (unsigned i = 0; i < n && len; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t part = iov[i].iov_len - skip;
        if (part > len)
            part = len;
        if (from) {
            memcpy((char *)iov[i].iov_base + skip, from, part);
            from += part;
        } else {
            memset((char *)iov[i].iov_base + skip, 0, part);
        }
        len -= part;
        skip = 0;
    }
}

void disk_iov_gather(const struct iovec *iov, unsigned n, uint64_t skip, void *to, size_t len)
{
    uint8_t *out = to;

    for (unsigned i = 0; i < n && len; i++) {
        size_t piece = iov[i].iov_len;
        if (skip >= piece) {
            skip -= piece;
            continue;
        }
        piece = piece - skip < len ? piece - skip : len;
        memcpy(out, (const uint8_t *)iov[i].iov_base + skip, piece);
        out += piece;
        len -= piece;
        skip = 0;
    }
}

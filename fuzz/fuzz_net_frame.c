/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the process of the user network reads of a frame that its guest sends: 12 bytes of header, then the
 * frame, in a buffer of exactly its size. What it promises of a checksum and of the host's loopback holds. */
#include "base/bytes.h"
#include "net/checksum.h"
#include "net/frame.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "broken promise: %s\n", what);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct net_header header;
    if (size < sizeof(header))
        return 0;
    memcpy(&header, data, sizeof(header));
    size_t len = size - sizeof(header);
    uint8_t *frame = malloc(len ? len : 1);
    if (!frame)
        return 0;
    memcpy(frame, data + sizeof(header), len);
    if (frame_prepare(&header, frame, len)) {
        size_t start = le16toh(header.csum_start), at = start + le16toh(header.csum_offset);
        expect(len >= NET_ETHER_SIZE && len <= NET_FRAME_MAX, "no frame of an impossible size passes");
        if (header.flags & NET_NEEDS_CSUM)
            expect(at + 2 <= len, "the checksum is in the frame");
        if (get_be16(data + sizeof(header) + 12) == 0x0800 && len >= NET_ETHER_SIZE + 20 &&
            !(header.flags & NET_NEEDS_CSUM))
            expect(frame[NET_ETHER_SIZE + 16] != 127, "the host's loopback is out of reach");
        if (header.flags & NET_NEEDS_CSUM) {
            /* What the field held counts; a sum of zero is written as its other form. */
            uint16_t right = (uint16_t)~checksum_sum(data + sizeof(header) + start, len - start);
            expect(get_be16(frame + at) == (right ? right : 0xffff), "the checksum is right");
        }
    }
    free(frame);
    return 0;
}

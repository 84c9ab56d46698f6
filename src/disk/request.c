/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How requests of a disk end, whatever its format: from the loop, once the last of their parts has. The
 * disk's thread; no locks. */
#include "base/bytes.h"
#include "disk/disk_priv.h"

void disk_request_completed(struct disk_io_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);

    r->done(r, result);
}

void disk_request_end(struct disk_request *r, int result)
{
    r->op = (struct disk_io_op){.kind = DISK_IO_NONE, .result = result, .done = disk_request_completed};
    disk_io_submit(r->disk->io, &r->op);
}

void disk_request_put(struct disk_request *r, bool submitting)
{
    if (--r->pending)
        return;
    if (submitting)
        disk_request_end(r, r->result);
    else
        r->done(r, r->result);
}

void disk_request_read(struct disk_request *r, struct disk *disk, uint64_t offset, const struct iovec *piece,
                       void (*done)(struct disk_request *request, int result))
{
    *r = (struct disk_request){.kind = DISK_READ,
                               .offset = offset,
                               .length = piece->iov_len,
                               .iov = piece,
                               .n_iov = 1,
                               .disk = disk,
                               .done = done};
    disk->format->submit(disk, r);
}

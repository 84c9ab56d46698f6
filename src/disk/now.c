/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests that are waited for: for commands, which have a loop of their own. Its thread; no locks. */
#include "base/bytes.h"
#include "disk/disk_priv.h"
#include "host/loop.h"

struct waiting {
    struct disk_request request;
    struct loop *loop;
    int result;
};

static void done(struct disk_request *request, int result)
{
    struct waiting *w = container_of(request, struct waiting, request);

    w->result = result;
    loop_stop(w->loop, 0);
}

int disk_do_now(struct disk *disk, enum disk_request_kind kind, uint64_t offset, void *buf, uint64_t len)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    struct waiting w = {.request = {.kind = kind,
                                    .unmap = true,
                                    .offset = offset,
                                    .length = len,
                                    .iov = buf ? &iov : NULL,
                                    .n_iov = buf != NULL,
                                    .done = done},
                        .loop = disk->loop};

    disk_submit(disk, &w.request);
    disk_start(disk);
    loop_run(disk->loop);
    return w.result;
}

int disk_copy_now(struct disk *disk, uint64_t at, struct disk_extent *extent, uint8_t *buf)
{
    if (extent->kind != DISK_EXTENT_ZEROS) {
        if (extent->length > DISK_COPY_PIECE)
            extent->length = DISK_COPY_PIECE;
        int rc = disk_extent_read(extent, buf, extent->length);
        if (rc)
            return rc;
        if (!disk_is_zero(buf, extent->length))
            return disk_do_now(disk, DISK_WRITE, at, buf, extent->length);
    }
    return disk_do_now(disk, DISK_WRITE_ZEROES, at, NULL, extent->length);
}

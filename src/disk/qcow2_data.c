/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the clusters of a qcow2 disk are: in the image, or in a further file, where each has the place that
 * it has on the disk. That file is open as a raw disk, for who asks where the content is. It has no refcounts
 * and nothing else of ours. With "data_file_raw" it alone shows the disk at any moment: zeros are written
 * there, and entries of clusters that were written once stay as they are. The disk's thread; no locks.
 */
#include "disk/qcow2_priv.h"

#include "base/error.h"

#include <errno.h>

int qcow2_open_data(struct qcow2 *q, const struct qcow2_header *header, struct error **err)
{
    unsigned part = disk_part(&q->disk, 0);
    struct disk common = q->disk;

    if (!qcow2_is_apart(q))
        return part ? error_set(err, EINVAL, "has its data itself, but another file is given for them") : 0;
    q->data_fd = -1;
    /* Both can't be: the further file would lack what is behind. */
    q->data_raw = q->autoclear & QCOW2_DATA_FILE_RAW && !header->backing_offset;
    if (!part)
        return q->disk.files && q->disk.files->alone
                   ? 0
                   : error_set(err, EINVAL, "has its data in another file, which is not given");
    common.file = part;
    common.fd = q->disk.files->files[part].fd;
    common.backing = NULL;
    common.format = &disk_format_raw;
    int rc = disk_format_raw.open(&q->data, &common, err);
    if (rc)
        return error_wrap(err, "the file of its data, '%s',", q->disk.files->files[part].name);
    q->data_file = part;
    q->data_fd = common.fd;
    return 0;
}

void qcow2_close_data(struct qcow2 *q)
{
    if (q->data)
        q->data->format->close(q->data);
    q->data = NULL;
}

int qcow2_read_data(struct qcow2 *q, uint64_t offset, void *buf, size_t len)
{
    return q->data_fd < 0 ? -ENOENT : disk_read_at(q->data_fd, buf, len, offset);
}

int qcow2_write_data(struct qcow2 *q, const struct iovec *iov, unsigned n, uint64_t offset)
{
    return q->data_fd < 0 ? -ENOENT : disk_writev_at(q->data_fd, iov, n, offset);
}

int qcow2_data_extent(struct qcow2 *q, uint64_t offset, uint64_t length, struct disk_extent *out)
{
    if (q->data_fd < 0)
        return -ENOENT;
    if (q->data)
        return q->data->format->extent(q->data, offset, length, out);
    *out = (struct disk_extent){
        .kind = DISK_EXTENT_DATA, .allocated = true, .disk = &q->disk, .length = length, .offset = offset};
    return 0;
}

void qcow2_punch_data(struct qcow2 *q, uint64_t offset)
{
    if (q->data)
        disk_punch_at(q->data_fd, offset, q->cluster_size);
}

int qcow2_resize_data(struct qcow2 *q, uint64_t size)
{
    int rc = 0;

    if (!qcow2_is_apart(q))
        return 0;
    if (!q->data)
        return -ENOENT;
    if (size > q->disk.size)
        rc = q->data->format->resize(q->data, q->disk.size, NULL);
    return rc ? rc : q->data->format->resize(q->data, size, NULL);
}

int qcow2_empty_data(struct qcow2 *q)
{
    static const uint8_t none[DISK_SECTOR];

    if (!qcow2_is_apart(q))
        return 0;
    /* Never without any content: that would be refused after a crash. */
    int rc = q->data ? q->data->format->resize(q->data, DISK_SECTOR, NULL) : -ENOENT;
    if (rc == 0)
        rc = disk_write_at(q->data_fd, none, sizeof(none), 0);
    return rc ? rc : q->data->format->resize(q->data, q->disk.size, NULL);
}

int qcow2_sync(const struct qcow2 *q)
{
    int rc = q->data ? disk_sync_now(q->disk.io, q->data_file) : 0;

    return rc ? rc : disk_sync_now(q->disk.io, q->disk.file);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the clusters of a qcow2 disk are: in the image, or in a further file, where each has the place that
 * it has on the disk. That file is open as a raw disk, for who asks where the content is. It has no refcounts
 * and nothing else of ours. With "data_file_raw" it alone shows the disk at any moment: zeros are written
 * there, and entries of clusters that were written once stay as they are.
 *
 * Clusters may be encrypted as LUKS has it, by the number of their sectors in the file that they are in; the
 * header of LUKS lies in the image. Compressed ones are not. The disk's thread; no locks.
 */
#include "disk/qcow2_priv.h"

#include "base/error.h"
#include "disk/luks.h"

#include <errno.h>
#include <stdlib.h>

/* Who looks at the image alone needs no key, and may have none. */
static int open_crypt(struct qcow2 *q, const struct qcow2_header *header, struct error **err)
{
    const struct disk_secret *secret = q->disk.files->secret;

    q->encrypted = header->crypt;
    if (!q->encrypted || (!secret && q->disk.files->alone))
        return 0;
    q->crypt = calloc(1, sizeof(*q->crypt));
    q->sealed = disk_buffer_new(QCOW2_CRYPT_PIECE);
    if (!q->crypt || !q->sealed)
        return error_set_errno(err, ENOMEM, "opening it");
    return luks_open(q->crypt, q->disk.fd, header->crypt_offset, secret, err);
}

static int open_file(struct qcow2 *q, const struct qcow2_header *header, struct error **err)
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

int qcow2_open_data(struct qcow2 *q, const struct qcow2_header *header, struct error **err)
{
    int rc = open_file(q, header, err);

    return rc ? rc : open_crypt(q, header, err);
}

void qcow2_close_data(struct qcow2 *q)
{
    if (q->data)
        q->data->format->close(q->data);
    if (q->crypt)
        luks_close(q->crypt);
    free(q->crypt);
    free(q->sealed);
    q->data = NULL;
}

int qcow2_check_data(const struct qcow2 *q)
{
    return q->data_fd < 0 ? -ENOENT : q->encrypted && !q->crypt ? -EACCES : 0;
}

int qcow2_read_data(struct qcow2 *q, uint64_t offset, void *buf, size_t len)
{
    int rc = qcow2_check_data(q);

    if (rc)
        return rc;
    return q->crypt ? luks_read(&q->crypt->cipher, q->data_fd, 0, offset, buf, len)
                    : disk_read_at(q->data_fd, buf, len, offset);
}

/* Piece by piece, for what is to be written must stay as it is. */
static int write_sealed(struct qcow2 *q, const struct iovec *iov, unsigned n, uint64_t offset)
{
    uint64_t len = 0;
    int rc = 0;

    for (unsigned i = 0; i < n; i++)
        len += iov[i].iov_len;
    for (uint64_t done = 0, piece; rc == 0 && done < len; done += piece) {
        piece = len - done < QCOW2_CRYPT_PIECE ? len - done : QCOW2_CRYPT_PIECE;
        disk_iov_gather(iov, n, done, q->sealed, piece);
        rc = luks_cipher_run(&q->crypt->cipher, true, (offset + done) / LUKS_SECTOR, q->sealed, piece);
        if (rc == 0)
            rc = disk_write_at(q->data_fd, q->sealed, piece, offset + done);
    }
    return rc;
}

int qcow2_write_data(struct qcow2 *q, const struct iovec *iov, unsigned n, uint64_t offset)
{
    int rc = qcow2_check_data(q);

    if (rc)
        return rc;
    return q->crypt ? write_sealed(q, iov, n, offset) : disk_writev_at(q->data_fd, iov, n, offset);
}

int qcow2_data_extent(struct qcow2 *q, uint64_t offset, uint64_t length, struct disk_extent *out)
{
    int rc = qcow2_check_data(q);

    if (rc)
        return rc;
    if (q->crypt) {
        *out = (struct disk_extent){.kind = DISK_EXTENT_PACKED,
                                    .allocated = true,
                                    .encrypted = true,
                                    .disk = &q->disk,
                                    .length = length,
                                    .entry = offset};
        return 0;
    }
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

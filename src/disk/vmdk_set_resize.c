/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Another size for a VMDK in several files: its last one takes the difference. The descriptor says no more
 * than that one has, whatever moment this ends at: a larger one grows first, a smaller one is cut last. What
 * an end between has left behind the disk's end is cut off before that becomes part of the disk. One thread;
 * no locks.
 */
#include "disk/vmdk_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Whether the last file can have all that the other ones have not. */
static int check(const struct vmdk_set *s, uint64_t size, const char *text, struct error **err)
{
    const struct vmdk_piece *last = &s->pieces[s->n - 1];
    const char *name = s->disk.files->files[last->disk->file].name;
    cleanup_free char *type = vmdk_text_value(text, "createType");
    uint64_t room = last->length < VMDK_SPLIT ? VMDK_SPLIT - last->length : 0;

    if (s->disk.backing)
        return error_set(err, ENOTSUP,
                         "is based on another image, and can't have another size than that: 'tabique disk "
                         "convert' makes one that can");
    if (size <= last->start)
        return error_set(err, ENOTSUP,
                         "begins its last file, '%s', at byte %" PRIu64
                         ", and can't become smaller than that: 'tabique disk convert' it",
                         name, last->start);
    if (type && strncmp(type, "twoGb", 5) == 0 && size > s->disk.size && size - last->start > VMDK_SPLIT)
        return error_set(err, ENOTSUP,
                         "is in files of 2,047 MiB, and there are %" PRIu64
                         " bytes of room in the last one, '%s': 'tabique disk convert' makes a larger one",
                         room, name);
    return 0;
}

static int resize_file(const struct vmdk_piece *p, uint64_t length, struct error **err)
{
    struct disk *disk = p->disk;

    return disk->size == p->skip + length ? 0 : disk->format->resize(disk, p->skip + length, err);
}

static int write_text(struct vmdk_set *s, const char *text, uint64_t length, struct error **err)
{
    cleanup_free char *now = vmdk_text_with_size(text, length / DISK_SECTOR);
    int rc = now ? disk_write_at(s->disk.fd, now, strlen(now), 0) : -ENOMEM;

    if (rc == 0)
        rc = disk_sync_now(s->disk.io, s->disk.file);
    return rc ? error_set_errno(err, -rc, "changing its size") : 0;
}

int vmdk_set_resize(struct disk *disk, uint64_t size, struct error **err)
{
    struct vmdk_set *s = vmdk_set_of(disk);
    struct vmdk_piece *last = &s->pieces[s->n - 1];
    cleanup_free char *text = NULL;
    int rc = vmdk_set_touch(s);

    if (rc)
        return error_set_errno(err, -rc, "changing its size");
    rc = vmdk_text_read(disk->fd, &text, err);
    if (rc == 0)
        rc = check(s, size, text, err);
    if (rc)
        return rc;
    uint64_t length = size - last->start;
    rc = resize_file(last, last->length, err);
    if (rc == 0 && length > last->length)
        rc = resize_file(last, length, err);
    if (rc == 0)
        rc = write_text(s, text, length, err);
    if (rc)
        return rc;
    last->length = length;
    disk->size = size;
    return resize_file(last, length, err);
}

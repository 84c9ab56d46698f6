/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Other sizes for open disks, and none of their own content, whatever their format. The disk's thread; no
 * locks. */
#include "disk/maintain.h"

#include "base/error.h"
#include "disk/disk_priv.h"

#include <errno.h>
#include <inttypes.h>

int disk_resize(struct disk *disk, uint64_t size, struct error **err)
{
    int rc = 0;

    if (disk->read_only)
        rc = error_set(err, EROFS, "is only read");
    else if (!disk->format->resize)
        rc = error_set(err, ENOTSUP, "can't change its size: that is not supported for %s",
                       disk->format->name);
    else if (!size || size % DISK_SECTOR || size > INT64_MAX)
        rc =
            error_set(err, EINVAL, "a size of %" PRIu64 " bytes: choose a multiple of %u", size, DISK_SECTOR);
    else if (size != disk->size)
        rc = disk->format->resize(disk, size, err);
    return disk_named(disk, rc, err);
}

int disk_empty(struct disk *disk, struct error **err)
{
    const char *name = disk->files->files[disk->file].name;

    if (disk->read_only)
        return error_set(err, EROFS, "disk '%s' is only read", name);
    if (!disk->format->empty)
        return error_set(err, ENOTSUP, "disk '%s': an image of the format %s can't be emptied", name,
                         disk->format->name);
    int rc = disk->format->empty(disk);
    return rc ? error_set_errno(err, -rc, "disk '%s': emptying it", name) : 0;
}

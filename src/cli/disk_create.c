/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `disk create`. */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/disks.h"

#include <errno.h>
#include <inttypes.h>

int cli_disk_create(const struct cli_values *values, int *status, struct error **err)
{
    struct disk_create what = {.format = cli_string(values, "format"),
                               .size = cli_uint(values, "SIZE"),
                               .backing = cli_string(values, "backing"),
                               .backing_format = cli_string(values, "backing-format")};
    const char *path = cli_string(values, "FILE");
    cleanup_free char *kept = NULL;
    uint64_t behind = 0;
    char size[16];

    *status = CLI_STATUS_USAGE;
    int rc = cli_disk_options(values, &what, &kept, err);
    if (rc)
        return rc;
    if (what.backing && !what.backing_format)
        return error_set(err, EINVAL,
                         "--backing-format FORMAT is missing: a guest could have written into a raw "
                         "image what looks like another format");
    if (!what.backing && !what.size)
        return error_set(err, EINVAL, "SIZE is missing");
    *status = CLI_STATUS_FAILED;
    if (what.backing) {
        rc = disk_backing_size(path, &what, &behind, err);
        if (rc)
            return error_wrap(err, "what disk '%s' is to be based on", path);
    }
    if (!what.size)
        what.size = behind;
    rc = disk_create(path, &what, err);
    if (rc)
        return rc;
    printf("disk %s: %s, %s (%" PRIu64 " bytes)\n", path, what.format, cli_human_size(what.size, size),
           what.size);
    *status = 0;
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `disk resize`. */
#include "base/error.h"
#include "cli/disks.h"
#include "disk/maintain.h"
#include "host/confine.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* "20G", or "+5G", "-5G" beside what it has. */
static int new_size(const char *text, uint64_t before, uint64_t *out, struct error **err)
{
    bool more = *text == '+', less = *text == '-';
    uint64_t n;
    int rc = cli_parse_size(text + (more || less), &n);

    if (rc || n % DISK_SECTOR || n > INT64_MAX)
        return error_set(err, EINVAL, "'%s' is no size: give a multiple of %u bytes, such as 20G or +5G",
                         text, DISK_SECTOR);
    if (less && n >= before)
        return error_set(err, EINVAL, "'%s': the disk has no more than %" PRIu64 " bytes", text, before);
    *out = more ? before + n : less ? before - n : n;
    if (!*out || *out > INT64_MAX)
        return error_set(err, EINVAL, "'%s' leads to a size that can't be", text);
    return 0;
}

static int resize(const struct cli_values *values, struct disk *disk, struct error **err)
{
    const char *path = cli_string(values, "FILE");
    uint64_t size = 0;
    char human[16];
    int rc = new_size(cli_string(values, "SIZE"), disk_size(disk), &size, err);

    if (rc)
        return rc;
    if (size < disk_size(disk) && !cli_bool(values, "shrink"))
        return error_set(err, EINVAL,
                         "disk '%s' has %" PRIu64 " bytes: what is beyond %" PRIu64
                         " would be lost. Let the guest give it up first, and say --shrink",
                         path, disk_size(disk), size);
    rc = disk_resize(disk, size, err);
    if (rc == 0)
        printf("disk %s: %s (%" PRIu64 " bytes)\n", path, cli_human_size(size, human), size);
    return rc;
}

int cli_disk_resize(const struct cli_values *values, int *status, struct error **err)
{
    struct disk_files *files = NULL;
    struct disk *disk = NULL;
    const char *secret = cli_string(values, "secret-file");
    int rc = disk_files_open_to_write(&files, cli_string(values, "FILE"), cli_string(values, "format"),
                                      cli_bool(values, "follow"), err);

    if (rc == 0 && secret)
        rc = disk_files_read_secret(files, secret, err);
    if (rc == 0)
        rc = confine_writer(err);
    if (rc == 0)
        rc = disk_open(&disk, files, NULL, err);
    if (rc == 0)
        rc = resize(values, disk, err);
    int end = disk_close(disk);
    if (rc == 0 && end)
        rc = error_set_errno(err, -end, "disk '%s': writing it", cli_string(values, "FILE"));
    disk_files_close(files);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}

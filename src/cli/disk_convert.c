/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `disk convert`. */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/disks.h"
#include "host/confine.h"

#include <errno.h>

int cli_disk_convert(const struct cli_values *values, int *status, struct error **err)
{
    struct disk_convert what = {
        .target = {.format = cli_string(values, "output-format"), .compress = cli_bool(values, "compress")},
        .no_sync = cli_bool(values, "no-sync"),
        .opened = confine_writer};
    cleanup_free char *kept = NULL;
    struct disk_files *source = NULL;
    struct cli_disk_job j;

    *status = CLI_STATUS_USAGE;
    int rc = cli_disk_options(values, &what.target, &kept, err);
    if (rc)
        return rc;
    if (what.target.backing || what.target.backing_format)
        return error_set(err, EINVAL,
                         "--option: the new image has all of the disk's content and is based on nothing");
    *status = CLI_STATUS_FAILED;
    rc = cli_disk_open(values, cli_string(values, "SOURCE"), cli_string(values, "format"), &source, err);
    if (rc)
        return rc;
    cli_disk_job_begin(&j, "converting");
    rc = disk_convert(source, cli_string(values, "TARGET"), &what, &j.job, err);
    cli_disk_job_end(&j);
    disk_files_close(source);
    *status = rc == 0 ? 0 : rc == -EINTR ? CLI_STATUS_INTERRUPTED : CLI_STATUS_FAILED;
    return rc;
}

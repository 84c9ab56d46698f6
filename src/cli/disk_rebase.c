/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verbs `disk rebase` and `disk commit`. */
#include "base/error.h"
#include "cli/disks.h"
#include "disk/maintain.h"
#include "host/confine.h"

#include <errno.h>

static int status_of(int rc)
{
    return rc == 0 ? 0 : rc == -EINTR ? CLI_STATUS_INTERRUPTED : CLI_STATUS_FAILED;
}

int cli_disk_rebase(const struct cli_values *values, int *status, struct error **err)
{
    const char *base = cli_string(values, "backing");
    struct disk_rebase what = {.base = *base ? base : NULL,
                               .base_format = cli_string(values, "backing-format"),
                               .secret_file = cli_string(values, "secret-file"),
                               .names_only = cli_bool(values, "unsafe"),
                               .follow = cli_bool(values, "follow"),
                               .opened = confine_writer};
    struct cli_disk_job j;

    *status = CLI_STATUS_USAGE;
    if (what.base && !what.base_format)
        return error_set(err, EINVAL,
                         "--backing-format FORMAT is missing: a guest could have written into a raw "
                         "image what looks like another format");
    cli_disk_job_begin(&j, "copying");
    int rc = disk_rebase(cli_string(values, "FILE"), cli_string(values, "format"), &what, &j.job, err);
    cli_disk_job_end(&j);
    *status = status_of(rc);
    return rc;
}

int cli_disk_commit(const struct cli_values *values, int *status, struct error **err)
{
    struct disk_commit what = {.base = cli_string(values, "base"),
                               .secret_file = cli_string(values, "secret-file"),
                               .keep = cli_bool(values, "keep"),
                               .follow = cli_bool(values, "follow"),
                               .opened = confine_writer};
    struct cli_disk_job j;

    cli_disk_job_begin(&j, "committing");
    int rc = disk_commit(cli_string(values, "FILE"), cli_string(values, "format"), &what, &j.job, err);
    cli_disk_job_end(&j);
    *status = status_of(rc);
    return rc;
}

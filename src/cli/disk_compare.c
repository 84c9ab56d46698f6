/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `disk compare`. */
#include "base/error.h"
#include "cli/disks.h"
#include "host/confine.h"

#include <errno.h>
#include <inttypes.h>

/* As with cmp and qemu-img: 1 says that they differ, so a failure has another status. */
#define STATUS_DIFFER 1
#define STATUS_ERROR  3

static int compare(const struct cli_values *values, struct disk_files *a, struct disk_files *b, int *status,
                   struct error **err)
{
    struct disk_difference d;
    struct cli_disk_job j;

    cli_disk_job_begin(&j, "comparing");
    int rc = disk_compare(a, b, cli_bool(values, "strict"), &j.job, &d, err);
    cli_disk_job_end(&j);
    if (rc)
        return rc;
    *status = d.differ ? STATUS_DIFFER : 0;
    if (d.size_only)
        puts("The disks have different sizes.");
    else if (d.differ)
        printf("The disks differ at byte %" PRIu64 ".\n", d.at);
    else
        printf("The disks are identical%s.\n", d.sizes ? ", but for zeros at the end of the longer one" : "");
    return 0;
}

int cli_disk_compare(const struct cli_values *values, int *status, struct error **err)
{
    struct disk_files *a = NULL, *b = NULL;
    int rc = cli_disk_open(values, cli_string(values, "FILE"), cli_string(values, "format"), &a, err);

    if (rc == 0)
        rc = cli_disk_open(values, cli_string(values, "FILE2"), cli_string(values, "format2"), &b, err);
    if (rc == 0)
        rc = confine_reader(err);
    if (rc == 0)
        rc = compare(values, a, b, status, err);
    disk_files_close(a);
    disk_files_close(b);
    if (rc)
        *status = rc == -EINTR ? CLI_STATUS_INTERRUPTED : STATUS_ERROR;
    return rc;
}

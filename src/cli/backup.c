/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verbs `backup`, `mirror` and `stream`. */
#include "guest/backup.h"

#include "base/error.h"
#include "cli/disks.h"
#include "cli/guests.h"
#include "cli/options.h"
#include "guest/stream.h"

#include <errno.h>
#include <string.h>

int cli_check_disk_name(const char *text, struct error **err)
{
    if (strlen(text) == 3 && strncmp(text, "vd", 2) == 0 && text[2] >= 'a' && text[2] <= 'z')
        return 0;
    return error_set(err, EINVAL, "--disk: '%s': give a disk as the guest calls it: vda, vdb", text);
}

static void on_done(void *opaque, const char *disk, const char *path, uint64_t bytes,
                    enum guest_backup_kind kind)
{
    char size[16];

    printf("%s  %s  %s %s\n", disk, path, cli_human_size(bytes, size),
           kind == GUEST_BACKUP_CHANGED ? "changed" : "in all");
    if (kind == GUEST_BACKUP_ALL_AGAIN)
        printf(
            "%s has no record of what has changed since the earlier backups there, as after 'restore' or a "
            "crash\n",
            disk);
}

static void on_frozen(void *opaque, const char *note)
{
    printf("%s\n", note);
}

int cli_backup(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    struct cli_disk_job j;
    struct guest_backup what = {.guest = cli_string(values, "NAME"),
                                .disk = cli_string(values, "disk"),
                                .target = cli_string(values, "TARGET"),
                                .format = cli_string(values, "output-format"),
                                .rate = cli_uint(values, "rate"),
                                .job = &j.job,
                                .done = on_done,
                                .frozen = on_frozen};
    int rc = home_find(&home, err);

    if (rc)
        return rc;
    what.mirror = strcmp(cli_verb(values), "mirror") == 0;
    what.pivot = what.mirror && cli_bool(values, "pivot");
    what.freeze = what.mirror ? CONTROL_FREEZE_NEVER : cli_freeze(values);
    what.full = !what.mirror && cli_bool(values, "full");
    cli_disk_job_begin(&j, "copying");
    rc = guest_backup(&home, &what, err);
    cli_disk_job_end(&j);
    *status = rc == 0 ? 0 : rc == -EINTR ? CLI_STATUS_INTERRUPTED : CLI_STATUS_FAILED;
    return rc;
}

int cli_stream(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    struct cli_disk_job j;
    int rc = home_find(&home, err);

    if (rc)
        return rc;
    cli_disk_job_begin(&j, "copying");
    rc = guest_stream(&home, cli_string(values, "NAME"), cli_string(values, "disk"), cli_uint(values, "rate"),
                      &j.job, err);
    cli_disk_job_end(&j);
    *status = rc == 0 ? 0 : rc == -EINTR ? CLI_STATUS_INTERRUPTED : CLI_STATUS_FAILED;
    return rc;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the verbs `disk ...` have in common. */
#ifndef TABIQUE_CLI_DISKS_H
#define TABIQUE_CLI_DISKS_H

#include "cli/cli.h"
#include "cli/show.h"
#include "disk/job.h"

/* A job with its bar on the terminal, which SIGINT, SIGTERM and SIGHUP end in an orderly way. */
struct cli_disk_job {
    struct disk_job job;
    struct cli_bar bar;
    const char *what;
};

void cli_disk_job_begin(struct cli_disk_job *j, const char *what);
void cli_disk_job_end(struct cli_disk_job *j);

/* What the flags -o say, "name=value" and commas between. The strings stay in use; *kept is to be freed
 * behind them. 0; or -EINVAL with *err. */
int cli_disk_options(const struct cli_values *values, struct disk_create *what, char **kept,
                     struct error **err);

/* Opens an image to be read, with what the flags --follow and --secret-file say. 0 or -errno with *err. */
int cli_disk_open(const struct cli_values *values, const char *path, const char *format,
                  struct disk_files **out, struct error **err);

/* The i-th format that can be created; NULL after the last. */
const char *cli_disk_created_format(size_t i);

/* What `disk repair` can be told to repair. */
const char *cli_disk_repair_choice(size_t i);
/* What `disk snapshot` can do. */
const char *cli_disk_snapshot_action(size_t i);
/* What `disk bitmap` can do. */
const char *cli_disk_bitmap_action(size_t i);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Values of flags that have an inner form, one file each. The `check` of a row in operations.c, and what the
 * handler then takes. */
#ifndef TABIQUE_CLI_OPTIONS_H
#define TABIQUE_CLI_OPTIONS_H

#include "guest/seed.h"
#include "machine/vm.h"

struct error;

/* disk_option.c: --disk. 0 with *out, whose strings cli_disk_free frees; or -EINVAL with *err. */
int cli_parse_disk(const char *text, struct vm_disk *out, struct error **err);
void cli_disk_free(struct vm_disk *disk);
int cli_check_disk(const char *text, struct error **err);

/* cloud_init_option.c: --cloud-init, in the same way. */
int cli_parse_cloud_init(const char *text, struct seed_config *out, struct error **err);
void cli_cloud_init_free(struct seed_config *seed);
int cli_check_cloud_init(const char *text, struct error **err);

/* disk_option.c, for both. Takes the text up to the next single comma, with double ones made single; *text is
 * then behind that comma, or NULL at the end. To be freed; NULL if there is no memory. */
char *cli_take_word(const char **text);

/* backup.c: --disk vda. */
int cli_check_disk_name(const char *text, struct error **err);

/* guest_option.c */
int cli_check_guest_name(const char *text, struct error **err);
int cli_check_restart(const char *text, struct error **err);
/* "10", "1.5s", "2m", "1h30m": a span of time in milliseconds. 0 with *out, or -EINVAL. */
int cli_parse_duration(const char *text, uint64_t *out_ms);
int cli_check_duration(const char *text, struct error **err);
/* --since: seconds since 1970, a date and time (2026-01-31, 2026-01-31T12:00:00), or a span of time before
 * now. 0 with *out in nanoseconds since 1970, or -EINVAL. */
int cli_parse_time(const char *text, int64_t *out_ns);
int cli_check_time(const char *text, struct error **err);

struct disk_limits;
/* "bps=20M" and the like (disk/throttle.h): 1 if it is one; 0 if not; -EINVAL with *err. */
int cli_take_limit(struct disk_limits *limits, const char *option, struct error **err);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Values of flags that have an inner form, one file each. The `check` of a row in operations.c, and what the
 * handler then takes. */
#ifndef TABIQUE_CLI_OPTIONS_H
#define TABIQUE_CLI_OPTIONS_H

#include "machine/vm.h"

struct error;

/* disk_option.c: --disk. 0 with *out, whose strings cli_disk_free frees; or -EINVAL with *err. */
int cli_parse_disk(const char *text, struct vm_disk *out, struct error **err);
void cli_disk_free(struct vm_disk *disk);
int cli_check_disk(const char *text, struct error **err);

#endif

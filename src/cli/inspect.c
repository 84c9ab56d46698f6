/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `inspect`. */
#include "cli/guests.h"

int cli_inspect(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    struct guest_row row;
    int rc = home_find(&home, err);

    if (rc == 0)
        rc = guest_find(&home, cli_string(values, "NAME"), &row, err);
    if (rc)
        return rc;
    rc = cli_print_json(cli_guest_json(&home, &row, true), JSON_INDENT(2), err);
    guest_row_clear(&row);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}

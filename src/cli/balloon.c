/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `balloon`. */
#include "cli/guests.h"
#include "guest/control.h"
#include "guest/end.h"

int cli_balloon(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    const struct control_request request = {.verb = CONTROL_BALLOON,
                                            .memory_bytes = cli_uint(values, "SIZE")};
    json_t *answer = NULL;
    int rc = home_find(&home, err);

    if (rc == 0)
        rc = guest_ask(&home, cli_string(values, "NAME"), &request, &answer, err);
    json_decref(answer);
    if (rc == 0)
        *status = 0;
    return rc;
}

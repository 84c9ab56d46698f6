/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verbs `pause` and `resume`. */
#include "cli/guests.h"
#include "guest/control.h"
#include "guest/end.h"

static int ask(const struct home *home, const char *name, void *opaque, struct error **err)
{
    json_t *answer = NULL;
    int rc = guest_ask(home, name, opaque, &answer, err);

    json_decref(answer);
    return rc;
}

int cli_pause(const struct cli_values *values, int *status, struct error **err)
{
    struct control_request request = {.verb = CONTROL_PAUSE};

    return cli_each_guest(values, status, err, ask, &request);
}

int cli_resume(const struct cli_values *values, int *status, struct error **err)
{
    struct control_request request = {.verb = CONTROL_RESUME};

    return cli_each_guest(values, status, err, ask, &request);
}

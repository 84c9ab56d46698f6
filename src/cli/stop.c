/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verbs `stop` and `kill`: all guests named are asked first, then waited for. */
#include "base/error.h"
#include "cli/guests.h"
#include "cli/options.h"
#include "guest/end.h"

#include <errno.h>
#include <stdlib.h>

struct stopping {
    struct guest_end *ends;
    size_t n;
    bool kill;
    uint64_t timeout_ms;
};

static int begin(const struct home *home, const char *name, void *opaque, struct error **err)
{
    struct stopping *s = opaque;
    struct guest_end *end = &s->ends[s->n];
    struct error *why = NULL;
    int rc = guest_end_begin(end, home, name, s->kill, s->timeout_ms, &why);

    if (rc == 0) {
        s->n++;
    } else if (rc == -ESRCH && !s->kill) {
        /* It is what it was to be. */
        error_free(why);
        rc = 0;
    } else if (err) {
        *err = why;
    }
    return rc;
}

static int end_guests(const struct cli_values *values, struct stopping *s, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    size_t n;
    int rc = home_find(&home, err);

    if (rc)
        return rc;
    cli_list(values, "NAME", &n);
    s->ends = calloc(n, sizeof(*s->ends));
    if (!s->ends)
        return error_set_errno(err, ENOMEM, "list of guests");
    rc = cli_each_guest(values, status, err, begin, s);
    for (size_t i = 0; rc == 0 && i < s->n; i++) {
        cleanup_error struct error *why = NULL;

        if (guest_end_finish(&s->ends[i], &home, &why)) {
            fprintf(stderr, "tabique %s: %s\n", cli_verb(values), error_message(why));
            *status = CLI_STATUS_FAILED;
        }
    }
    free(s->ends);
    return rc;
}

int cli_stop(const struct cli_values *values, int *status, struct error **err)
{
    struct stopping s = {0};

    cli_parse_duration(cli_string(values, "timeout"), &s.timeout_ms);
    return end_guests(values, &s, status, err);
}

int cli_kill(const struct cli_values *values, int *status, struct error **err)
{
    struct stopping s = {.kill = true};

    return end_guests(values, &s, status, err);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verbs `stop` and `kill`: all guests named are asked first, then waited for. */
#include "base/error.h"
#include "cli/guests.h"
#include "cli/options.h"
#include "guest/control.h"
#include "guest/end.h"

#include <errno.h>
#include <stdlib.h>

struct stopping {
    struct guest_end *ends;
    size_t n;
    enum guest_end_how how;
    bool has_timeout; /* given by the person; else the image may have one */
    uint64_t timeout_ms;
};

static uint64_t timeout_of(const struct stopping *s, const struct home *home, const char *name)
{
    struct guest_row row;

    if (s->has_timeout || guest_find(home, name, &row, NULL))
        return s->timeout_ms;
    json_t *config = json_loads(row.config, 0, NULL);
    const json_t *seconds = json_object_get(config, "stop-timeout");
    uint64_t ms = json_is_integer(seconds) ? (uint64_t)json_integer_value(seconds) * 1000 : s->timeout_ms;
    json_decref(config);
    guest_row_clear(&row);
    return ms < CONTROL_TIMEOUT_MS_MAX ? ms : CONTROL_TIMEOUT_MS_MAX;
}

static int begin(const struct home *home, const char *name, void *opaque, struct error **err)
{
    struct stopping *s = opaque;
    struct guest_end *end = &s->ends[s->n];
    struct error *why = NULL;
    int rc = guest_end_begin(end, home, name, s->how, timeout_of(s, home, name), &why);

    if (rc == 0) {
        s->n++;
    } else if (rc == -ESRCH && s->how != GUEST_END_KILL) {
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
    struct guest_row *rows = NULL;
    size_t n, n_rows = 0, n_running = 0;
    const char **names = cli_list(values, "NAME", &n), **running = NULL;
    int rc = home_find(&home, err);

    if (rc == 0 && !n)
        rc = guest_list(&home, &rows, &n_rows, err);
    if (rc)
        return rc;
    s->ends = calloc(n + n_rows + 1, sizeof(*s->ends));
    running = calloc(n_rows + 1, sizeof(*running));
    for (size_t i = 0; running && i < n_rows; i++)
        if (guest_state_is_live(rows[i].state))
            running[n_running++] = rows[i].name;
    rc = !s->ends || !running ? error_set_errno(err, ENOMEM, "list of guests")
         : n                  ? cli_each_name(&home, values, names, n, status, begin, s)
                              : cli_each_name(&home, values, running, n_running, status, begin, s);
    for (size_t i = 0; rc == 0 && i < s->n; i++) {
        cleanup_error struct error *why = NULL;

        if (guest_end_finish(&s->ends[i], &home, &why)) {
            fprintf(stderr, "tabique %s: %s\n", cli_verb(values), error_message(why));
            *status = CLI_STATUS_FAILED;
        }
    }
    free(s->ends);
    free(running);
    guest_list_free(rows, n_rows);
    return rc;
}

int cli_stop(const struct cli_values *values, int *status, struct error **err)
{
    struct stopping s = {.how = cli_bool(values, "shutdown") ? GUEST_END_SHUTDOWN : GUEST_END_STOP};
    bool all = cli_bool(values, "all");
    size_t n;

    cli_list(values, "NAME", &n);
    if (all == (n > 0)) {
        *status = CLI_STATUS_USAGE;
        return error_set(err, EINVAL, "%s", all ? "--all takes no NAME" : "NAME is missing; or give --all");
    }
    s.has_timeout = cli_given(values, "timeout");
    cli_parse_duration(cli_string(values, "timeout"), &s.timeout_ms);
    return end_guests(values, &s, status, err);
}

int cli_kill(const struct cli_values *values, int *status, struct error **err)
{
    struct stopping s = {.how = GUEST_END_KILL};

    return end_guests(values, &s, status, err);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verbs `start` and `restart`. */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/guests.h"
#include "cli/options.h"
#include "guest/end.h"

#include <errno.h>
#include <unistd.h>

int cli_start_guest(const struct home *home, const char *name, struct error **err)
{
    struct guest guest = GUEST_NONE;
    int rc = guest_take_to_start(&guest, home, name, err);

    if (rc == 0)
        rc = guest_run_detached(&guest, false, err) ? error_wrap(err, "guest '%s'", name) : 0;
    return rc;
}

/* Whether the guest has ended since it was started, with *status as its own. One that was to be removed at
 * its end takes its exit status with it. */
static bool has_ended(const struct home *home, const char *name, int *status)
{
    struct guest_row row;
    bool ended = guest_find(home, name, &row, NULL) == 0 && !guest_state_is_live(row.state);

    if (ended) {
        *status = row.exit_status < 0 ? CLI_STATUS_FAILED : row.exit_status;
        guest_row_clear(&row);
    }
    return ended;
}

/* With its console here, until it ends or the person leaves. */
static int attach(const struct home *home, const char *name, int *status, struct error **err)
{
    enum guest_attach_end how;
    int signal;

    if (isatty(STDIN_FILENO))
        fprintf(stderr, "tabique: the console of the guest; Ctrl-] leaves, and it goes on\n");
    cleanup_error struct error *why = NULL;
    int rc = guest_attach(home, name, &how, &signal, &why);
    if (rc && has_ended(home, name, status)) {
        fprintf(stderr, "tabique: the guest has ended already: 'tabique logs %s' shows its console\n", name);
        return 0;
    }
    if (rc) {
        *err = steal_ptr(why);
        return rc;
    }
    *status = how == GUEST_ATTACH_SIGNAL ? GUEST_EXIT_SIGNAL + signal : 0;
    if (how == GUEST_ATTACH_ENDED)
        has_ended(home, name, status);
    return 0;
}

/* Those that are to run with the host. One that can't be started keeps no other from it. */
static int start_all(const struct home *home, int *status, struct error **err)
{
    struct guest_row *rows;
    size_t n;
    int rc = guest_list(home, &rows, &n, err);

    if (rc)
        return rc;
    *status = 0;
    for (size_t i = 0; i < n; i++) {
        cleanup_error struct error *why = NULL;

        if (guest_state_is_live(rows[i].state) || !guest_starts_with_host(&rows[i]))
            continue;
        rc = cli_start_guest(home, rows[i].name, &why);
        /* Started by somebody else meanwhile: there is nothing left to do. */
        if (rc == 0 || rc == -EBUSY)
            continue;
        fprintf(stderr, "tabique start: %s\n", error_message(why));
        *status = CLI_STATUS_FAILED;
    }
    guest_list_free(rows, n);
    return 0;
}

int cli_start(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    const char *name = cli_string(values, "NAME");
    bool all = cli_bool(values, "all");

    if (all == (name != NULL) || (all && cli_bool(values, "attach"))) {
        *status = CLI_STATUS_USAGE;
        return error_set(err, EINVAL, "%s",
                         all ? "--all takes no NAME and no --attach" : "NAME is missing; or give --all");
    }
    int rc = home_find(&home, err);
    if (rc == 0 && all)
        return start_all(&home, status, err);
    if (rc == 0)
        rc = cli_start_guest(&home, name, err);
    if (rc)
        return rc;
    if (cli_bool(values, "attach"))
        return attach(&home, name, status, err);
    *status = 0;
    return 0;
}

/* The stop alone would remove it, disk and all. */
static int check_stays(const struct home *home, const char *name, struct error **err)
{
    struct guest_row row;
    int rc = guest_find(home, name, &row, err);

    if (rc)
        return rc;
    bool transient = row.transient;
    guest_row_clear(&row);
    return transient
               ? error_set(
                     err, EINVAL,
                     "guest '%s' is removed when it ends (--rm), so it can't be restarted: reboot it from "
                     "inside, or stop it and run another",
                     name)
               : 0;
}

int cli_restart(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    const char *name = cli_string(values, "NAME");
    struct guest_end end;
    struct error *why = NULL;
    uint64_t timeout_ms;
    int rc = home_find(&home, err);

    if (rc)
        return rc;
    cli_parse_duration(cli_string(values, "timeout"), &timeout_ms);
    rc = check_stays(&home, name, err);
    if (rc)
        return rc;
    rc = guest_end_begin(&end, &home, name, GUEST_END_STOP, timeout_ms, &why);
    if (rc && rc != -ESRCH) {
        *err = why;
        return rc;
    }
    error_free(why);
    if (rc == 0)
        rc = guest_end_finish(&end, &home, err);
    else
        rc = 0;
    if (rc == 0)
        rc = cli_start_guest(&home, name, err);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verbs that reach into a container: `exec`, `cp`, `update`. */
#include "guest/inside.h"

#include "base/error.h"
#include "cli/guests.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

int cli_exec(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    size_t n_env, n_args;
    const char **env = cli_list(values, "env", &n_env), **args = cli_list(values, "COMMAND", &n_args);
    const struct guest_exec request = {
        .name = cli_string(values, "NAME"),
        .args = args, /* the parser leaves room behind the last, which is NULL */
        .user = cli_string(values, "user"),
        .workdir = cli_string(values, "workdir"),
        .env = n_env ? env : NULL,
        .terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO),
    };
    int rc = home_find(&home, err);

    return rc ? rc : guest_exec(&home, &request, status, err);
}

int cli_cp(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    int rc = home_find(&home, err);

    if (rc == 0)
        rc = guest_copy(&home, cli_string(values, "FROM"), cli_string(values, "TO"), err);
    if (rc == 0)
        *status = 0;
    return rc;
}

int cli_update(const struct cli_values *values, int *status, struct error **err)
{
    static const char *const keys[] = {"memory", "cpus", "pids", "io-weight"};
    cleanup_home struct home home = {0};
    json_t *limits = json_object();
    int rc = home_find(&home, err);

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (cli_given(values, keys[i]))
            json_object_set_new(limits, keys[i],
                                strcmp(keys[i], "cpus") == 0
                                    ? cli_decimal_json(cli_uint(values, keys[i]))
                                    : json_integer((json_int_t)cli_uint(values, keys[i])));
    if (rc == 0 && !json_object_size(limits)) {
        *status = CLI_STATUS_USAGE;
        rc = error_set(err, EINVAL, "nothing to change: give --memory, --cpus, --pids or --io-weight");
    } else if (rc == 0) {
        rc = guest_update(&home, cli_string(values, "NAME"), limits, err);
        *status = rc ? CLI_STATUS_FAILED : 0;
    }
    json_decref(limits);
    return rc;
}

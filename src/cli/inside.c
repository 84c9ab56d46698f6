/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verbs that reach into a container: `exec`, `cp`, `update`. */
#include "guest/inside.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "cli/guests.h"
#include "cli/options.h"
#include "disk/disk.h"
#include "guest/control.h"
#include "guest/disk_update.h"

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

/* "vda,iops=100,size=20G": what is to change of the first disk. */
static int parse_disk(const char *text, struct control_request *r, struct error **err)
{
    cleanup_free char *which = cli_take_word(&text);
    int rc = 0;

    if (!which || strncmp(which, "vd", 2) || which[2] < 'a' || which[2] > 'z' || which[3] || !text)
        return error_set(
            err, EINVAL,
            "--disk: '%s': give the disk as the guest calls it and what is to change: vda,iops=100 or "
            "vda,size=20G",
            which ? which : "");
    *r =
        (struct control_request){.verb = CONTROL_UPDATE, .of_disk = true, .disk = (uint64_t)(which[2] - 'a')};
    while (text && rc == 0) {
        cleanup_free char *option = cli_take_word(&text);
        struct disk_limits one = {0};

        rc = option ? cli_take_limit(&one, option, err) : -ENOMEM;
        for (unsigned i = 0; i < DISK_LIMITS && rc == 1; i++)
            if (strncmp(option, disk_limit_name(i), strlen(disk_limit_name(i))) == 0 &&
                option[strlen(disk_limit_name(i))] == '=') {
                r->has_limit[i] = true;
                r->limits.values[i] = one.values[i];
            }
        if (rc == 0 && (strncmp(option, "size=", 5) || cli_parse_size(option + 5, &r->disk_bytes) ||
                        !r->disk_bytes || r->disk_bytes % DISK_SECTOR))
            return error_set(err, EINVAL,
                             "--disk: '%s': choose size=SIZE, a multiple of %u, or a limit such as bps=20M",
                             option, DISK_SECTOR);
        rc = rc < 0 ? rc : 0;
    }
    return rc;
}

static int update_disks(const struct home *home, const struct cli_values *values, int *status,
                        struct error **err)
{
    size_t n;
    const char **disks = cli_list(values, "disk", &n);
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0; i++) {
        struct control_request request;

        *status = CLI_STATUS_USAGE;
        rc = parse_disk(disks[i], &request, err);
        if (rc == 0) {
            *status = CLI_STATUS_FAILED;
            rc = guest_update_disk(home, cli_string(values, "NAME"), &request, err);
        }
    }
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
    size_t n_disks;
    cli_list(values, "disk", &n_disks);
    if (rc == 0 && n_disks)
        rc = update_disks(&home, values, status, err);
    if (rc || (n_disks && !json_object_size(limits))) {
        json_decref(limits);
        return rc;
    }
    if (!json_object_size(limits)) {
        *status = CLI_STATUS_USAGE;
        rc =
            error_set(err, EINVAL, "nothing to change: give --memory, --cpus, --pids, --io-weight or --disk");
    } else if (rc == 0) {
        rc = guest_update(&home, cli_string(values, "NAME"), limits, err);
        *status = rc ? CLI_STATUS_FAILED : 0;
    }
    json_decref(limits);
    return rc;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `run`. */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/guests.h"
#include "guest/config.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static int run_detached(struct guest *guest, struct error **err)
{
    cleanup_free char *name = strdup(guest->row.name);
    int rc = guest_run_detached(guest, true, err);

    if (rc == 0)
        puts(name);
    return rc;
}

/* What its flags say together; of each alone the parser has made sure. */
static int check_config(const char *config, int *status, struct error **err)
{
    struct guest_config parsed;
    int rc = guest_config_parse(&parsed, config, "guest", err);

    if (rc == 0)
        guest_config_clear(&parsed);
    else
        *status = CLI_STATUS_USAGE;
    return rc;
}

int cli_run(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    cleanup_free char *config = cli_run_config(values, err);
    bool detach = cli_bool(values, "detach");
    struct guest guest = GUEST_NONE;
    struct guest_spec spec = {.name = cli_string(values, "name"), .config = config};
    int rc = config ? check_config(config, status, err) : -error_errno(*err);

    if (rc == -EINVAL)
        *status = CLI_STATUS_USAGE;

    if (rc == 0)
        rc = home_find(&home, err);

    /* A kernel that is tried in passing leaves nothing behind. */
    spec.transient = cli_bool(values, "rm") || (!detach && !spec.name && !cli_string(values, "IMAGE"));
    if (rc == 0)
        rc = guest_create(&guest, &home, &spec, err);
    if (rc == 0)
        rc = guest_prepare(&guest, err);
    if (rc)
        return rc;
    if (detach) {
        *status = 0;
        rc = run_detached(&guest, err);
        if (rc)
            *status = CLI_STATUS_FAILED;
        return rc;
    }
    size_t words;
    cli_list(values, "COMMAND", &words);
    if (isatty(STDIN_FILENO) && !words)
        fputs("tabique: the console of the guest; Ctrl-] leaves\n", stderr);
    return guest_run(&guest, true, status, err);
}

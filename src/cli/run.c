/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `run`. */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/cli.h"
#include "cli/net_options.h"
#include "cli/options.h"
#include "guest/guest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The values of --disk, with room for one more; *n is how many were taken, also after a failure. */
static int take_disks(const struct cli_values *values, struct vm_disk **out, size_t *n, struct error **err)
{
    size_t given;
    const char **texts = cli_list(values, "disk", &given);
    int rc = 0;

    *n = 0;
    *out = calloc(given + 1, sizeof(**out));
    if (!*out)
        return error_set_errno(err, ENOMEM, "list of disks");
    while (rc == 0 && *n < given) {
        rc = cli_parse_disk(texts[*n], &(*out)[*n], err);
        if (rc == 0)
            ++*n;
    }
    return rc;
}

static int take_nets(const struct cli_values *values, struct cli_net_options *out, unsigned cpus,
                     struct error **err)
{
    size_t n_nets, n_macs, n_ports;
    const char **nets = cli_list(values, "net", &n_nets), **macs = cli_list(values, "mac", &n_macs),
               **ports = cli_list(values, "publish", &n_ports);

    return cli_net_options_parse(out, nets, n_nets, macs, n_macs, ports, n_ports, "guest", cpus, err);
}

/* The volume for cloud-init, as the last disk. *fd is its memory, which the VM process must inherit. */
static int add_seed(const struct cli_values *values, struct vm_config *config, struct vm_disk *disks, int *fd,
                    struct error **err)
{
    const char *text = cli_string(values, "cloud-init");
    struct seed_config seed;
    char *path;

    if (!text)
        return 0;
    int rc = cli_parse_cloud_init(text, &seed, err);
    if (rc)
        return rc;
    *fd = seed_create(&seed, err);
    cli_cloud_init_free(&seed);
    if (*fd < 0)
        return error_wrap(err, "--cloud-init");
    if (asprintf(&path, "/proc/self/fd/%d", *fd) < 0)
        return error_set_errno(err, ENOMEM, "--cloud-init");
    disks[config->n_disks++] = (struct vm_disk){.path = path, .format = strdup("raw"), .read_only = true};
    config->inherited = fd;
    config->n_inherited = 1;
    return 0;
}

int cli_run(const struct cli_values *values, int *status, struct error **err)
{
    struct vm_config config = {
        .firmware = cli_string(values, "firmware"),
        .firmware_log = cli_string(values, "firmware-log"),
        .kernel = cli_string(values, "kernel"),
        .initrd = cli_string(values, "initrd"),
        .append = cli_string(values, "append"),
        .memory = cli_uint(values, "memory"),
        .cpus = (unsigned)cli_uint(values, "cpus"),
        .engine = cli_string(values, "engine"),
        .debug_exit = cli_bool(values, "debug-exit"),
        .balloon = cli_uint(values, "balloon"),
        .watchdog = cli_string(values, "watchdog"),
    };

    struct cli_net_options net;
    int rc = take_nets(values, &net, config.cpus, err);

    if (rc) {
        *status = CLI_STATUS_USAGE;
        return rc;
    }
    config.nets = net.nets;
    config.n_nets = net.n_nets;
    struct vm_disk *disks;
    cleanup_close int seed = -1;

    rc = take_disks(values, &disks, &config.n_disks, err);
    if (rc == 0)
        rc = add_seed(values, &config, disks, &seed, err);
    config.disks = disks;
    config.modules = cli_list(values, "module", &config.n_modules);
    if (rc == 0 && isatty(STDIN_FILENO))
        fputs("tabique: the console of the guest; Ctrl-] leaves\n", stderr);
    if (rc == 0)
        rc = guest_run(&config, status, err);
    while (config.n_disks)
        cli_disk_free(&disks[--config.n_disks]);
    free(disks);
    cli_net_options_free(&net);
    return rc;
}

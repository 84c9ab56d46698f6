/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `disk serve`. */
#include "base/error.h"
#include "cli/cli.h"
#include "disk/serve.h"

#include <errno.h>
#include <stdio.h>

static void print_uri(const char *uri)
{
    puts(uri);
    fflush(stdout);
}

static int check(const struct cli_values *values, const struct disk_serve *what, size_t n_names,
                 struct error **err)
{
    if (!what->socket == !cli_given(values, "port"))
        return error_set(err, EINVAL, "say where to serve: either --socket PATH or --port PORT");
    if (what->socket && cli_given(values, "bind"))
        return error_set(err, EINVAL, "--bind is for --port: a Unix socket has no address");
    if (what->certificates && what->psk)
        return error_set(err, EINVAL, "choose --tls-certificate or --tls-psk");
    if (n_names && n_names != what->n_paths)
        return error_set(err, EINVAL, "--export is given %zu times for %zu images: give it once for each",
                         n_names, what->n_paths);
    return 0;
}

int cli_disk_serve(const struct cli_values *values, int *status, struct error **err)
{
    size_t n_names;
    struct disk_serve what = {
        .format = cli_string(values, "format"),
        .secret = cli_string(values, "secret-file"),
        .read_only = cli_bool(values, "read-only"),
        .bitmap = cli_string(values, "bitmap"),
        .follow = cli_bool(values, "follow"),
        .socket = cli_string(values, "socket"),
        .address = cli_string(values, "bind"),
        .port = (uint16_t)cli_uint(values, "port"),
        .clients = (unsigned)cli_uint(values, "shared"),
        .persistent = cli_bool(values, "persistent"),
        .certificates = cli_string(values, "tls-certificate"),
        .psk = cli_string(values, "tls-psk"),
        .pid_file = cli_string(values, "pid-file"),
        .ready = print_uri,
    };
    const char **names = cli_list(values, "export", &n_names);

    what.paths = cli_list(values, "FILE", &what.n_paths);
    what.names = n_names ? names : NULL;
    *status = CLI_STATUS_USAGE;
    int rc = check(values, &what, n_names, err);
    if (rc)
        return rc;
    *status = CLI_STATUS_FAILED;
    rc = disk_serve(&what, err);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}

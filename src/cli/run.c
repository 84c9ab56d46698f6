/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `run`. */
#include "cli/cli.h"
#include "guest/guest.h"

#include <unistd.h>

int cli_run(const struct cli_values *values, int *status, struct error **err)
{
    struct vm_config config = {
        .kernel = cli_string(values, "kernel"),
        .initrd = cli_string(values, "initrd"),
        .append = cli_string(values, "append"),
        .memory = cli_uint(values, "memory"),
        .cpus = (unsigned)cli_uint(values, "cpus"),
        .engine = cli_string(values, "engine"),
        .debug_exit = cli_bool(values, "debug-exit"),
    };

    config.modules = cli_list(values, "module", &config.n_modules);
    if (isatty(STDIN_FILENO))
        fputs("tabique: the console of the guest; Ctrl-] leaves\n", stderr);
    return guest_run(&config, status, err);
}

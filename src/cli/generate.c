/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `generate`: files that the build installs beside the program. */
#include "cli/cli.h"

#include <string.h>

int cli_generate(const struct cli_values *values, int *status, struct error **err)
{
    if (strcmp(cli_string(values, "WHAT"), "man") == 0)
        cli_print_man(stdout);
    else
        cli_print_bash_completion(stdout);
    *status = 0;
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `console`. */
#include "cli/cli.h"
#include "guest/end.h"
#include "guest/guest.h"

#include <unistd.h>

int cli_console(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    const char *name = cli_string(values, "NAME");
    struct guest_row row;
    enum guest_attach_end how;
    int signal, rc = home_find(&home, err);

    if (rc == 0)
        rc = guest_find(&home, name, &row, err);
    if (rc)
        return rc;
    guest_row_clear(&row);
    if (isatty(STDIN_FILENO))
        fprintf(stderr, "tabique: the console of the guest; Ctrl-] leaves, and it goes on\n");
    rc = guest_attach(&home, name, &how, &signal, err);
    if (rc)
        return rc;
    if (how == GUEST_ATTACH_ENDED && isatty(STDIN_FILENO))
        fprintf(stderr, "\ntabique: guest '%s' has ended\n", name);
    *status = how == GUEST_ATTACH_SIGNAL ? GUEST_EXIT_SIGNAL + signal : 0;
    return 0;
}

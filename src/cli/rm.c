/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `rm`. */
#include "base/error.h"
#include "cli/guests.h"
#include "guest/end.h"

#include <errno.h>

/* 0 also where it does not run, or is gone: it was to be removed at its end. */
static int end_it(const struct home *home, const char *name, bool *gone, struct error **err)
{
    struct guest_end end;
    struct error *why = NULL;
    int rc = guest_end_begin(&end, home, name, GUEST_END_KILL, 0, &why);

    if (rc && rc != -ESRCH) {
        *err = why;
        return rc;
    }
    error_free(why);
    rc = rc ? 0 : guest_end_finish(&end, home, err);
    struct guest_row row;
    *gone = rc == 0 && guest_find(home, name, &row, NULL) == -ENOENT;
    if (rc == 0 && !*gone)
        guest_row_clear(&row);
    return rc;
}

static int remove_guest(const struct home *home, const char *name, void *opaque, struct error **err)
{
    const bool *force = opaque;
    struct guest guest = GUEST_NONE;
    bool gone = false;
    int rc = *force ? end_it(home, name, &gone, err) : 0;

    if (rc || gone)
        return rc;
    rc = guest_take(&guest, home, name, err);
    if (rc == -EBUSY && !*force)
        return error_wrap(err, "not removed (stop it first, or use --force)");
    if (rc == 0)
        rc = guest_remove(&guest, err);
    guest_release(&guest);
    return rc;
}

int cli_rm(const struct cli_values *values, int *status, struct error **err)
{
    bool force = cli_bool(values, "force");

    return cli_each_guest(values, status, err, remove_guest, &force);
}

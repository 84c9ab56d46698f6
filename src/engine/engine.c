/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engines there are, and the choice among them. Called by the machine and by `tabique check`. No state,
 * no locks.
 */
#include "engine/engine.h"

#include "base/error.h"
#include "engine/kvm/kvm.h"
#include "engine/soft/soft.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The preferred first: `auto` takes the first that this host can run. */
const struct engine_class *const engine_classes[] = {
    &engine_kvm,
    &soft_engine_class,
    NULL,
};

static const struct engine_class *find_usable(struct error **err)
{
    char reasons[1024] = "";
    size_t used = 0;

    for (const struct engine_class *const *c = engine_classes; *c; c++) {
        cleanup_error struct error *why = NULL;

        if (!(*c)->probe || (*c)->probe(&why) == 0)
            return *c;
        int n = snprintf(reasons + used, sizeof(reasons) - used, "%s%s: %s", used ? "; " : "", (*c)->name,
                         error_message(why));
        used = n > 0 && (size_t)n < sizeof(reasons) - used ? used + (size_t)n : sizeof(reasons) - 1;
    }
    error_set(err, ENODEV, "no engine can run on this host (%s)", used ? reasons : "none is built in");
    return NULL;
}

const struct engine_class *engine_find(const char *name, struct error **err)
{
    char known[256] = "auto";

    if (!name || strcmp(name, "auto") == 0)
        return find_usable(err);
    for (const struct engine_class *const *c = engine_classes; *c; c++) {
        size_t used = strlen(known);

        if (strcmp((*c)->name, name) == 0)
            return *c;
        snprintf(known + used, sizeof(known) - used, ", %s", (*c)->name);
    }
    error_set(err, EINVAL, "unknown engine '%s': choose one of %s", name, known);
    return NULL;
}

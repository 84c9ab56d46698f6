/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The dynamic linker, asked at run time. */
#include "host/library.h"

#include "base/bytes.h"
#include "base/error.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

typedef void (*any_function)(void);

/* The address of the i-th pointer: all pointers to functions have one size (POSIX, dlsym). */
static char *slot(const struct library *library, size_t i)
{
    return (char *)library->functions + i * sizeof(any_function);
}

static bool is_loaded(const struct library *library)
{
    any_function last;

    /* It is filled last, below. */
    memcpy(&last, slot(library, library->n_names - 1), sizeof(last));
    return last;
}

static int fail(const struct library *library, struct error **err)
{
    const char *reason = dlerror();

    return error_set(err, ENOPKG, "%s can't be used: install the package %s (%s)", library->file,
                     library->package, reason ? reason : "no reason known");
}

int library_load(const struct library *library, struct error **err)
{
    if (is_loaded(library))
        return 0;
    /* All that is to be resolved, now: later, the process may be confined. */
    void *handle = dlopen(library->file, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return fail(library, err);
    for (size_t i = 0; i < library->n_names; i++)
        if (!dlsym(handle, library->names[i])) {
            int rc = fail(library, err);
            dlclose(handle);
            return rc;
        }
    for (size_t i = 0; i < library->n_names; i++) {
        void *address = dlsym(handle, library->names[i]);
        memcpy(slot(library, i), &address, sizeof(address));
    }
    return 0;
}

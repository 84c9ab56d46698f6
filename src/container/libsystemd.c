/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "container/libsystemd.h"

#include "base/bytes.h"

static struct libsystemd functions;
static const char *const names[] = {LIBSYSTEMD(LIBRARY_NAME)};
static const struct library library = {"libsystemd.so.0", "libsystemd0", names, ARRAY_SIZE(names),
                                       &functions};

const struct libsystemd *libsystemd(struct error **err)
{
    return library_load(&library, err) ? NULL : &functions;
}

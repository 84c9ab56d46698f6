/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "disk/libgnutls.h"

#include "base/bytes.h"

static struct libgnutls functions;
static const char *const names[] = {LIBGNUTLS(LIBRARY_NAME)};
static const struct library library = {"libgnutls.so.30", "libgnutls30", names, ARRAY_SIZE(names),
                                       &functions};

const struct libgnutls *libgnutls(struct error **err)
{
    return library_load(&library, err) ? NULL : &functions;
}

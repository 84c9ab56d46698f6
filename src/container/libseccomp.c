/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "container/libseccomp.h"

#include "base/bytes.h"

static struct libseccomp functions;
static const char *const names[] = {LIBSECCOMP(LIBRARY_NAME)};
static const struct library library = {"libseccomp.so.2", "libseccomp2", names, ARRAY_SIZE(names),
                                       &functions};

const struct libseccomp *libseccomp(struct error **err)
{
    return library_load(&library, err) ? NULL : &functions;
}

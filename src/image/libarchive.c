/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/libarchive.h"

#include "base/bytes.h"

static struct libarchive functions;
static const char *const names[] = {LIBARCHIVE(LIBRARY_NAME)};
static const struct library library = {"libarchive.so.13", "libarchive13", names, ARRAY_SIZE(names),
                                       &functions};

const struct libarchive *libarchive(struct error **err)
{
    return library_load(&library, err) ? NULL : &functions;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "net/libslirp.h"

#include "base/bytes.h"

static struct libslirp functions;
static const char *const names[] = {LIBSLIRP(LIBRARY_NAME)};
static const struct library library = {"libslirp.so.0", "libslirp0", names, ARRAY_SIZE(names), &functions};

const struct libslirp *libslirp(struct error **err)
{
    return library_load(&library, err) ? NULL : &functions;
}

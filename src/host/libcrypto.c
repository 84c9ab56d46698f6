/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/libcrypto.h"

#include "base/bytes.h"

static struct libcrypto functions;
static const char *const names[] = {LIBCRYPTO(LIBRARY_NAME)};
static const struct library library = {"libcrypto.so.3", "libssl3", names, ARRAY_SIZE(names), &functions};

const struct libcrypto *libcrypto(struct error **err)
{
    return library_load(&library, err) ? NULL : &functions;
}

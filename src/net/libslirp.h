/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is used of libslirp, which the process of a `user` network loads and no other. */
#ifndef TABIQUE_NET_LIBSLIRP_H
#define TABIQUE_NET_LIBSLIRP_H

#include "host/library.h"

#include <slirp/libslirp.h>

#define LIBSLIRP(F)                                                                                          \
    F(slirp_add_hostfwd)                                                                                     \
    F(slirp_cleanup)                                                                                         \
    F(slirp_input)                                                                                           \
    F(slirp_new)                                                                                             \
    F(slirp_pollfds_fill)                                                                                    \
    F(slirp_pollfds_poll)                                                                                    \
    F(slirp_version_string)

struct libslirp {
    LIBSLIRP(LIBRARY_POINTER)
};

/* Its functions, or NULL with *err. */
const struct libslirp *libslirp(struct error **err);

#endif

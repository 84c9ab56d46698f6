/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is used of libsystemd: its D-Bus client, loaded when a container's groups are systemd's to make. */
#ifndef TABIQUE_CONTAINER_LIBSYSTEMD_H
#define TABIQUE_CONTAINER_LIBSYSTEMD_H

#include "host/library.h"

#include <systemd/sd-bus.h>

#define LIBSYSTEMD(F)                                                                                        \
    F(sd_bus_call_method)                                                                                    \
    F(sd_bus_error_free)                                                                                     \
    F(sd_bus_flush_close_unref)                                                                              \
    F(sd_bus_open_system)                                                                                    \
    F(sd_bus_open_user)

struct libsystemd {
    LIBSYSTEMD(LIBRARY_POINTER)
};

/* Its functions, or NULL with *err. */
const struct libsystemd *libsystemd(struct error **err);

#endif

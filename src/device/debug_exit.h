/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the machine needs to know of the debug-exit port: what it is made from. */
#ifndef TABIQUE_DEVICE_DEBUG_EXIT_H
#define TABIQUE_DEVICE_DEBUG_EXIT_H

#include "device/device.h"

#include <stdint.h>

/* The configuration that debug_exit_class.create takes; NULL: port 0xF4. A machine has the device only when
 * it is asked for, since any guest program with I/O rights can end the machine with it. */
struct debug_exit_config {
    uint16_t port; /* first of four; 0: 0xF4 */
};

extern const struct device_class debug_exit_class;

#endif

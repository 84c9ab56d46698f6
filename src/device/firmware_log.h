/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the machine needs to know of the port that firmware logs to: what it is made from. */
#ifndef TABIQUE_DEVICE_FIRMWARE_LOG_H
#define TABIQUE_DEVICE_FIRMWARE_LOG_H

#include "device/device.h"

/* The configuration that firmware_log_class.create takes. A machine has the device only when it is asked for:
 * firmware says much, byte by byte. */
struct firmware_log_config {
    int fd; /* where the bytes go, never closed here */
};

extern const struct device_class firmware_log_class;

#endif

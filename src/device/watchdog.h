/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The watchdog's registers, for the ACPI table (WDAT) that tells drivers how to use them, and what it is made
 * from.
 *
 *   +0  control: bit 0 runs
 *   +4  how long it waits, in counts
 *   +8  written 1: begins to wait anew
 *   +12 counts left (read-only)
 *   +16 status: bit 0 the machine was restarted by it (written 1: forgotten)
 */
#ifndef TABIQUE_DEVICE_WATCHDOG_H
#define TABIQUE_DEVICE_WATCHDOG_H

#include "device/device.h"

#define WATCHDOG_PORT    0x620
#define WATCHDOG_SIZE    20
#define WATCHDOG_CONTROL (WATCHDOG_PORT + 0)
#define WATCHDOG_COUNT   (WATCHDOG_PORT + 4)
#define WATCHDOG_RELOAD  (WATCHDOG_PORT + 8)
#define WATCHDOG_LEFT    (WATCHDOG_PORT + 12)
#define WATCHDOG_STATUS  (WATCHDOG_PORT + 16)

#define WATCHDOG_RUNS      0x1u
#define WATCHDOG_RESTARTED 0x1u

#define WATCHDOG_COUNT_MS  100u
#define WATCHDOG_COUNT_MAX 0xffffu /* nearly two hours */

/* What the machine does when the guest has not been heard of in time; the code of MACHINE_WATCHDOG. */
enum watchdog_action { WATCHDOG_RESET, WATCHDOG_POWEROFF, WATCHDOG_NONE };

/* The configuration that watchdog_class.create takes; NULL: WATCHDOG_RESET. */
struct watchdog_config {
    enum watchdog_action action;
};

extern const struct device_class watchdog_class;

/* Whether its time stands still: a guest that does not run can't be heard of. Any thread. */
void watchdog_hold(struct device *device, bool hold);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where the panic notifier is, for the table that tells guests. */
#ifndef TABIQUE_DEVICE_PVPANIC_H
#define TABIQUE_DEVICE_PVPANIC_H

#define PVPANIC_PORT 0x505 /* one byte */

/* What the port says that it understands, and what a guest writes to it. */
#define PVPANIC_PANICKED     0x01u /* the guest has panicked and goes no further */
#define PVPANIC_CRASH_LOADED 0x02u /* it has panicked, and a crash kernel takes over */

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of all devices that a machine can be built from; its rows are in devices.def. */
#ifndef TABIQUE_DEVICE_DEVICES_H
#define TABIQUE_DEVICE_DEVICES_H

struct device_class;

/* In the order of devices.def, NULL at the end. */
extern const struct device_class *const device_classes[];

/* The class called `name`, or NULL. */
const struct device_class *device_class_find(const char *name);

#endif

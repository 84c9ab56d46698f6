/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of device classes, made from the rows of devices.def. Constant, so no locks. */
#include "device/devices.h"

#include "device/device.h"

#include <stddef.h>
#include <string.h>

#define DEVICE(class) extern const struct device_class class;
#include "device/devices.def"
#undef DEVICE

const struct device_class *const device_classes[] = {
#define DEVICE(class) &class,
#include "device/devices.def"
#undef DEVICE
    NULL,
};

const struct device_class *device_class_find(const char *name)
{
    for (const struct device_class *const *c = device_classes; *c; c++) {
        if (!strcmp((*c)->name, name))
            return *c;
    }
    return NULL;
}

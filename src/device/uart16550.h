/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the machine needs to know of the serial port: what it is made from. */
#ifndef TABIQUE_DEVICE_UART16550_H
#define TABIQUE_DEVICE_UART16550_H

#include "device/device.h"

#include <stdint.h>

struct char_backend;

/* The configuration that uart16550_class.create takes; NULL: COM1 with nothing connected. */
struct uart16550_config {
    uint16_t port; /* first of eight; 0: that of COM1 */
    uint8_t irq;   /* 0: that of COM1 */
    /* Outlives the device; NULL: output is lost. The device keeps at most 4 KiB of output, for about a
     * millisecond; destroy and reset hand the rest on first. */
    struct char_backend *backend;
};

#define UART16550_COM1_PORT 0x3f8
#define UART16550_COM1_IRQ  4

extern const struct device_class uart16550_class;

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The I/O APIC: 24 inputs, whose edges or levels become messages to local APICs. Part of the soft engine's
 * interrupt chip (the kvm engine has the kernel's), so not a device class.
 */
#ifndef TABIQUE_DEVICE_IOAPIC_H
#define TABIQUE_DEVICE_IOAPIC_H

#include "device/io_space.h"

#include <stdbool.h>
#include <stdint.h>

struct ioapic;

#define IOAPIC_BASE 0xfec00000ull
#define IOAPIC_SIZE 0x1000ull
#define IOAPIC_PINS 24u

/*
 * Makes it at IOAPIC_BASE of `mmio`. `message` gets each interrupt in the format of MSI (SDM vol. 3A 11.11);
 * it runs with the I/O APIC's lock held and must not call back. 0 or -errno.
 */
int ioapic_create(struct ioapic **out, struct io_space *mmio,
                  void (*message)(void *opaque, uint64_t msi_address, uint32_t msi_data), void *opaque);
/* NULL is fine. */
void ioapic_free(struct ioapic *ioapic);

/* After power-on: all inputs masked. */
void ioapic_reset(struct ioapic *ioapic);

/* The logical level of input `pin`, 0-23 (others are ignored): true is asserted, whatever the polarity. Any
 * thread. */
void ioapic_set(struct ioapic *ioapic, unsigned pin, bool level);

/* The end of the level-triggered interrupt `vector`, broadcast by a local APIC: inputs that sent it and are
 * still asserted send it again. Any thread. */
void ioapic_eoi(struct ioapic *ioapic, uint8_t vector);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The interrupt controllers of the soft engine, wired as on a PC: the 8259 pair, the I/O APIC, the local
 * APICs. The engine makes one, gives its lapics to its vCPUs and passes the machine's interrupts on.
 *
 *   GSI 0-15 --+--> 8259 pair --INTR--> LINT0 of every local APIC
 *              +--> I/O APIC (GSI 0 at input 2) --+
 *   GSI 16-23 ----> I/O APIC --------------------+--> local APICs
 *   MSI ------------------------------------------+
 *
 * Locks: a controller's lock may be taken with a device's held; I/O APIC and 8259 call the local APICs, which
 * take no lock for it. `wake` may therefore be called with these locks held and must not call a device.
 */
#ifndef TABIQUE_ENGINE_SOFT_IRQCHIP_H
#define TABIQUE_ENGINE_SOFT_IRQCHIP_H

#include "engine/soft/lapic.h"

#include <stdbool.h>
#include <stdint.h>

struct error;
struct io_space;
struct irqchip;

/* cpus: 1..LAPIC_MAX_CPUS. `callbacks` is copied. The spaces and the loop must outlive the chip. 0 or -errno.
 */
int irqchip_create(struct irqchip **out, unsigned cpus, struct io_space *pio, struct io_space *mmio,
                   struct loop *loop, const struct lapic_callbacks *callbacks, struct error **err);
/* NULL is fine. The vCPU threads have ended. */
void irqchip_free(struct irqchip *chip);

/* All controllers to their state after power-on. The vCPUs are paused. */
void irqchip_reset(struct irqchip *chip);

/* vCPU n's local APIC; the chip owns it. */
struct lapic *irqchip_lapic(struct irqchip *chip, unsigned cpu);

/* As in struct device_env. GSIs above 23 and the cascade (2) are ignored. Any thread. */
void irqchip_set(struct irqchip *chip, unsigned gsi, bool level);
void irqchip_msi(struct irqchip *chip, uint64_t address, uint32_t data);

/* For LAPIC_EVENT_EXTINT: acknowledges the 8259's interrupt. Its vector; or -1 when it is gone (another vCPU
 * took it), and there is nothing to deliver. Any thread. */
int irqchip_acknowledge(struct irqchip *chip);

#endif

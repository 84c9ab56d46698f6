/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The wiring between the soft engine's interrupt controllers. Constant after creation: no locks of its own.
 */
#include "engine/soft/irqchip.h"

#include "base/error.h"
#include "device/ioapic.h"
#include "device/pic.h"

#include <errno.h>
#include <stdlib.h>

struct irqchip {
    struct pic *pic;
    struct ioapic *ioapic;
    struct lapic_bus *bus;
};

static void on_intr(void *opaque, bool level)
{
    struct irqchip *chip = opaque;
    lapic_bus_set_intr(chip->bus, level);
}

static void on_message(void *opaque, uint64_t msi_address, uint32_t msi_data)
{
    struct irqchip *chip = opaque;
    lapic_bus_deliver(chip->bus, msi_address, msi_data);
}

static void on_eoi(void *opaque, uint8_t vector)
{
    struct irqchip *chip = opaque;
    ioapic_eoi(chip->ioapic, vector);
}

int irqchip_create(struct irqchip **out, unsigned cpus, struct io_space *pio, struct io_space *mmio,
                   struct loop *loop, const struct lapic_callbacks *callbacks, struct error **err)
{
    struct irqchip *chip = calloc(1, sizeof(*chip));
    if (!chip)
        return error_set_errno(err, ENOMEM, "interrupt controllers");
    int rc = lapic_bus_create(&chip->bus, cpus, callbacks, loop);
    if (rc == 0)
        rc = pic_create(&chip->pic, pio, on_intr, chip);
    if (rc == 0)
        rc = ioapic_create(&chip->ioapic, mmio, on_message, chip);
    if (rc) {
        irqchip_free(chip);
        return error_set_errno(err, -rc, "interrupt controllers");
    }
    lapic_bus_set_eoi(chip->bus, on_eoi, chip);
    *out = chip;
    return 0;
}

void irqchip_free(struct irqchip *chip)
{
    if (!chip)
        return;
    ioapic_free(chip->ioapic);
    pic_free(chip->pic);
    lapic_bus_free(chip->bus);
    free(chip);
}

void irqchip_reset(struct irqchip *chip)
{
    struct lapic *l;

    pic_reset(chip->pic);
    ioapic_reset(chip->ioapic);
    for (unsigned cpu = 0; (l = lapic_bus_get(chip->bus, cpu)); cpu++)
        lapic_reset(l, false);
}

struct lapic *irqchip_lapic(struct irqchip *chip, unsigned cpu)
{
    return lapic_bus_get(chip->bus, cpu);
}

/* ISA interrupt 0, the timer, is at input 2 of the I/O APIC, which the cascade leaves free: the MADT's
 * override says so. */
void irqchip_set(struct irqchip *chip, unsigned gsi, bool level)
{
    if (gsi < 16)
        pic_set(chip->pic, gsi, level);
    if (gsi != 2)
        ioapic_set(chip->ioapic, gsi ? gsi : 2, level);
}

void irqchip_msi(struct irqchip *chip, uint64_t address, uint32_t data)
{
    lapic_bus_deliver(chip->bus, address, data);
}

int irqchip_acknowledge(struct irqchip *chip)
{
    return pic_acknowledge(chip->pic);
}

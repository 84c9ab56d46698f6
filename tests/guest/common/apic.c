/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interrupt controllers and the delay timer, as a test guest drives them. SDM vol. 3A chapter 11. */
#include "guest_priv.h"

#define MSR_APIC_BASE 0x1b
#define APIC_X2       (1u << 10)
#define XAPIC         0xfee00000ull
#define IOAPIC        0xfec00000ull

static bool x2apic(void)
{
    return rdmsr(MSR_APIC_BASE) & APIC_X2;
}

uint32_t lapic_read(unsigned offset)
{
    if (x2apic())
        return (uint32_t)rdmsr(0x800 + offset / 16);
    return *(volatile uint32_t *)(XAPIC + offset);
}

void lapic_write(unsigned offset, uint32_t value)
{
    if (x2apic())
        wrmsr(0x800 + offset / 16, value);
    else
        *(volatile uint32_t *)(XAPIC + offset) = value;
}

void lapic_enable(void)
{
    lapic_write(LAPIC_SPURIOUS, 0x1ff);
    lapic_write(LAPIC_TPR, 0);
}

void lapic_eoi(void)
{
    lapic_write(LAPIC_EOI, 0);
}

void lapic_ipi(uint32_t destination, uint32_t icr)
{
    if (x2apic()) {
        wrmsr(0x830, (uint64_t)destination << 32 | icr);
        return;
    }
    lapic_write(LAPIC_ICR_HIGH, destination << 24);
    lapic_write(LAPIC_ICR_LOW, icr);
    while (lapic_read(LAPIC_ICR_LOW) & 1 << 12) /* delivery status */
        cpu_relax();
}

static void ioapic_write(unsigned reg, uint32_t value)
{
    *(volatile uint32_t *)IOAPIC = reg;
    *(volatile uint32_t *)(IOAPIC + 0x10) = value;
}

void ioapic_route(unsigned pin, unsigned vector, uint32_t flags)
{
    ioapic_write(0x11 + 2 * pin, 0);
    ioapic_write(0x10 + 2 * pin, vector | flags);
}

void ioapic_mask(unsigned pin)
{
    ioapic_write(0x10 + 2 * pin, 1u << 16);
}

void pic_disable(void)
{
    static const uint8_t sequence[2][4] = {{0x11, 0x20, 4, 1}, {0x11, 0x28, 2, 1}};

    for (unsigned chip = 0; chip < 2; chip++) {
        uint16_t port = chip ? 0xa0 : 0x20;

        outb(port, sequence[chip][0]);
        for (unsigned i = 1; i < 4; i++)
            outb(port + 1, sequence[chip][i]);
        outb(port + 1, 0xff);
    }
}

void delay_us(unsigned us)
{
    uint32_t ticks = us * 1193182ull / 1000000;
    uint8_t gate = inb(0x61) & 0xfc;

    if (ticks < 2)
        ticks = 2;
    /* Mode 0: the output goes high at terminal count; port 0x61 shows it in bit 5. */
    outb(0x61, gate);
    outb(0x43, 0xb0);
    outb(0x42, (uint8_t)ticks);
    outb(0x42, (uint8_t)(ticks >> 8));
    outb(0x61, gate | 1);
    while (!(inb(0x61) & 0x20))
        cpu_relax();
}

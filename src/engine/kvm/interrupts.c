/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The interrupt controllers, which are the kernel's: their making, wiring and reset; and the doorbells that
 * it watches for us. Called by the engine's table and, for lines, messages and doorbells, by any thread; the
 * kernel does the locking.
 */
#include "engine/kvm/kvm_priv.h"

#include "base/error.h"

#include <errno.h>

#define PIC_PINS     8
#define ISA_IRQS     16
#define IOAPIC_PINS  24
#define TIMER_GSI    0
#define TIMER_PIN    2 /* of the I/O APIC, as on every PC; the MADT's override tells the guest */
#define CASCADE_LINE 2 /* of the PIC: its second half sits there */

/* 3 pages and one that Intel's processors before 2010 need for real mode; right below the firmware's place.
 */
#define TSS_ADDRESS          0xfeffd000ul
#define IDENTITY_MAP_ADDRESS 0xfeffc000ull

static const uint32_t chips[KVM_IRQCHIPS] = {KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
                                             KVM_IRQCHIP_IOAPIC};

struct routing {
    struct kvm_irq_routing head;
    struct kvm_irq_routing_entry entry[ISA_IRQS + IOAPIC_PINS];
};

static void route(struct routing *r, unsigned gsi, unsigned chip, unsigned pin)
{
    struct kvm_irq_routing_entry *e = &r->entry[r->head.nr++];

    e->gsi = gsi;
    e->type = KVM_IRQ_ROUTING_IRQCHIP;
    e->u.irqchip.irqchip = chip;
    e->u.irqchip.pin = pin;
}

/* GSIs 0-15 reach PIC and I/O APIC, 16-23 the I/O APIC alone. */
static int set_routes(struct kvm_engine *k, struct error **err)
{
    struct routing r = {0};

    for (unsigned gsi = 0; gsi < IOAPIC_PINS; gsi++) {
        if (gsi < ISA_IRQS && gsi != CASCADE_LINE)
            route(&r, gsi, gsi < PIC_PINS ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % PIC_PINS);
        if (gsi != TIMER_PIN)
            route(&r, gsi, KVM_IRQCHIP_IOAPIC, gsi == TIMER_GSI ? TIMER_PIN : gsi);
    }
    int rc = kvm_ioctl(k->vm_fd, KVM_SET_GSI_ROUTING, &r);
    return rc < 0 ? error_set_errno(err, -rc, "KVM: wiring the interrupt lines") : 0;
}

int kvm_interrupts_create(struct kvm_engine *k, struct error **err)
{
    uint64_t identity_map = IDENTITY_MAP_ADDRESS;
    int rc = kvm_ioctl_value(k->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDRESS);

    if (rc >= 0 && kvm_ioctl_value(k->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0)
        rc = kvm_ioctl(k->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
    if (rc < 0)
        return error_set_errno(err, -rc, "KVM: setting aside its own pages");
    rc = kvm_ioctl_value(k->vm_fd, KVM_CREATE_IRQCHIP, 0);
    if (rc < 0)
        return error_set_errno(err, -rc, "KVM: making the interrupt controllers");
    for (unsigned i = 0; i < KVM_IRQCHIPS; i++) {
        k->first_irqchip[i].chip_id = chips[i];
        rc = kvm_ioctl(k->vm_fd, KVM_GET_IRQCHIP, &k->first_irqchip[i]);
        if (rc < 0)
            return error_set_errno(err, -rc, "KVM: reading interrupt controller %u", i);
    }
    return set_routes(k, err);
}

int kvm_interrupts_reset(struct kvm_engine *k, struct error **err)
{
    for (unsigned i = 0; i < KVM_IRQCHIPS; i++) {
        int rc = kvm_ioctl(k->vm_fd, KVM_SET_IRQCHIP, &k->first_irqchip[i]);

        if (rc < 0)
            return error_set_errno(err, -rc, "KVM: resetting interrupt controller %u", i);
    }
    return 0;
}

void kvm_irq_set(struct engine *engine, unsigned gsi, bool level)
{
    struct kvm_engine *k = (struct kvm_engine *)engine;
    struct kvm_irq_level line = {.irq = gsi, .level = level};

    /* Fails only for a line that no route has, which is then not connected. */
    if (gsi < IOAPIC_PINS)
        kvm_ioctl(k->vm_fd, KVM_IRQ_LINE, &line);
}

void kvm_msi_send(struct engine *engine, uint64_t address, uint32_t data)
{
    struct kvm_engine *k = (struct kvm_engine *)engine;
    struct kvm_msi msi = {
        .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data};

    /* Fails for a destination that no local APIC is: lost, as on a processor's bus. */
    kvm_ioctl(k->vm_fd, KVM_SIGNAL_MSI, &msi);
}

/*
 * Should the kernel refuse one, nothing is lost: the write then comes out as an exit, and the I/O space rings
 * the doorbell itself.
 */
static void set_doorbell(struct kvm_engine *k, struct io_space *space, const struct io_doorbell *bell,
                         bool on)
{
    struct kvm_ioeventfd e = {
        .addr = bell->addr,
        .len = bell->size,
        .fd = bell->fd,
        .datamatch = bell->match ? bell->value : 0,
        .flags = (space == k->config.pio ? KVM_IOEVENTFD_FLAG_PIO : 0) |
                 (bell->match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0) | (on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
    };

    kvm_ioctl(k->vm_fd, KVM_IOEVENTFD, &e);
}

static void doorbell_added(void *opaque, struct io_space *space, const struct io_doorbell *bell)
{
    set_doorbell(opaque, space, bell, true);
}

static void doorbell_removed(void *opaque, struct io_space *space, const struct io_doorbell *bell)
{
    set_doorbell(opaque, space, bell, false);
}

void kvm_interrupts_listen(struct kvm_engine *k, bool on)
{
    const struct io_space_listener listener = {
        .doorbell_added = doorbell_added, .doorbell_removed = doorbell_removed, .opaque = k};

    io_space_set_listener(k->config.pio, on ? &listener : NULL);
    io_space_set_listener(k->config.mmio, on ? &listener : NULL);
}

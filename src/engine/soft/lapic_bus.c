/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bus between the local APICs: which of them a message is for, IPIs, message-signalled interrupts (SDM
 * vol. 3A 11.6, 11.11). Called by vCPUs that write their ICR, by the I/O APIC and by devices. No locks: a
 * target's address and mode are atomic fields.
 */
#include "engine/soft/lapic_priv.h"

#include <errno.h>
#include <stdlib.h>

int lapic_bus_create(struct lapic_bus **out, unsigned cpus, const struct lapic_callbacks *callbacks,
                     struct loop *loop)
{
    if (!cpus || cpus > LAPIC_MAX_CPUS || !callbacks->tsc_hz)
        return -EINVAL;
    struct lapic_bus *bus = calloc(1, sizeof(*bus) + cpus * sizeof(bus->apic[0]));
    if (!bus)
        return -ENOMEM;
    bus->callbacks = *callbacks;
    bus->loop = loop;
    for (unsigned n = 0; n < cpus; n++) {
        struct lapic *l = &bus->apic[n];
        l->bus = bus;
        l->id = n;
        int rc = lapic_timer_init(l);
        if (rc) {
            lapic_bus_free(bus);
            return rc;
        }
        bus->cpus = n + 1;
        lapic_reset(l, false);
    }
    *out = bus;
    return 0;
}

void lapic_bus_free(struct lapic_bus *bus)
{
    if (!bus)
        return;
    for (unsigned n = 0; n < bus->cpus; n++)
        lapic_timer_fini(&bus->apic[n]);
    free(bus);
}

struct lapic *lapic_bus_get(struct lapic_bus *bus, unsigned cpu)
{
    return cpu < bus->cpus ? &bus->apic[cpu] : NULL;
}

void lapic_bus_set_eoi(struct lapic_bus *bus, void (*eoi)(void *opaque, uint8_t vector), void *opaque)
{
    bus->eoi = eoi;
    bus->eoi_opaque = opaque;
}

/* ---- addressing ---- */

/* SDM vol. 3A 11.6.2.1, 11.6.2.2 */
static bool addressed(struct lapic *l, const struct lapic_message *m)
{
    if (!lapic_on(l))
        return false;
    if (m->dest == DEST_ALL)
        return true;
    if (!m->logical)
        return m->dest == l->id;
    if (lapic_x2apic(l)) {
        uint32_t ldr = lapic_x2apic_ldr(l);
        return m->dest >> 16 == ldr >> 16 && (m->dest & ldr & 0xffff);
    }
    uint32_t ldr = atomic_load(&l->ldr) >> 24;
    uint32_t dest = m->dest & 0xff;
    if (m->dest > 0xff)
        return false;
    switch (atomic_load(&l->dfr) >> 28) {
    case 0xf: /* flat: a set of eight */
        return ldr & dest;
    case 0x0: /* cluster: four clusters' bits of a cluster, 15 for all clusters */
        return (dest >> 4 == ldr >> 4 || dest >> 4 == 0xf) && (dest & ldr & 0xf);
    default:
        return false;
    }
}

/* The addressed APIC that is least busy gets the interrupt; equals take turns. */
static void send_lowest(struct lapic_bus *bus, const struct lapic_message *m, const struct lapic *except)
{
    uint32_t start = atomic_fetch_add(&bus->next_lowest, 1);
    uint32_t best_priority = UINT32_MAX;
    struct lapic *best = NULL;

    for (unsigned i = 0; i < bus->cpus; i++) {
        struct lapic *l = &bus->apic[(start + i) % bus->cpus];
        uint32_t priority = atomic_load(&l->ppr);
        if (l != except && lapic_software_enabled(l) && addressed(l, m) && priority < best_priority) {
            best = l;
            best_priority = priority;
        }
    }
    if (best)
        lapic_receive(best, DELIVER_FIXED, m->vector, m->level);
}

static void send_except(struct lapic_bus *bus, const struct lapic_message *m, const struct lapic *except)
{
    if (m->mode == DELIVER_LOWEST) {
        send_lowest(bus, m, except);
        return;
    }
    for (unsigned n = 0; n < bus->cpus; n++) {
        struct lapic *l = &bus->apic[n];
        if (l != except && addressed(l, m))
            lapic_receive(l, m->mode, m->vector, m->level);
    }
}

void lapic_bus_send(struct lapic_bus *bus, const struct lapic_message *m)
{
    send_except(bus, m, NULL);
}

/* ---- messages of devices ---- */

/*
 * address  31-20: FEE   19-12: destination   3: redirection hint   2: logical
 * data     15: level-triggered   14: asserted   10-8: delivery mode   7-0: vector
 */
void lapic_bus_deliver(struct lapic_bus *bus, uint64_t msi_address, uint32_t msi_data)
{
    if (msi_address >> 20 != LAPIC_BASE_PAGE >> 20)
        return;
    uint32_t dest = (msi_address >> 12) & 0xff;
    struct lapic_message m = {
        .dest = dest == 0xff ? DEST_ALL : dest,
        .logical = msi_address & 4,
        .level = msi_data & (1u << 15),
        .mode = (msi_data >> 8) & 7,
        .vector = msi_data & 0xff,
    };

    if (m.level && !(msi_data & (1u << 14)))
        return; /* a de-assertion, which only INTx emulation over a bus needs */
    if (m.mode == DELIVER_FIXED && (msi_address & 8))
        m.mode = DELIVER_LOWEST;
    /* As the bus could send a SIPI only from an ICR (and 3 is reserved). */
    if (m.mode == 3 || m.mode == DELIVER_SIPI)
        return;
    lapic_bus_send(bus, &m);
}

/* ---- IPIs ---- */

enum shorthand { TO_DEST, TO_SELF, TO_ALL, TO_OTHERS };

void lapic_send_ipi(struct lapic *l, uint32_t low, uint32_t dest)
{
    struct lapic_message m = {
        .dest = dest,
        .logical = low & ICR_LOGICAL,
        .mode = (low & LVT_MODE) >> LVT_MODE_SHIFT,
        .vector = low & LVT_VECTOR,
    };
    enum shorthand to = (low >> ICR_SHORTHAND_SHIFT) & 3;

    if (m.mode == 3 || m.mode == DELIVER_EXTINT)
        return;
    /* An INIT level de-assert only synchronised arbitration ids of old processors. */
    if (m.mode == DELIVER_INIT && (low & ICR_LEVEL) && !(low & ICR_ASSERT))
        return;
    if ((m.mode == DELIVER_FIXED || m.mode == DELIVER_LOWEST) && m.vector < 16) {
        lapic_error(l, ESR_SEND_VECTOR);
        return;
    }
    switch (to) {
    case TO_DEST:
        send_except(l->bus, &m, NULL);
        return;
    case TO_SELF: /* fixed only (SDM vol. 3A table 11-4) */
        if (m.mode == DELIVER_FIXED)
            lapic_receive(l, DELIVER_FIXED, m.vector, false);
        return;
    case TO_ALL:
        m.dest = DEST_ALL;
        if (m.mode == DELIVER_FIXED)
            send_except(l->bus, &m, NULL);
        return;
    case TO_OTHERS:
        m.dest = DEST_ALL;
        send_except(l->bus, &m, l);
        return;
    }
}

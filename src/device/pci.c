/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PCI functions: configuration space, capabilities, interrupt line. Called by device authors (pci.h) and, for
 * the guest's accesses, by pci_host.c.
 *
 * What a register bit does is told by two byte arrays beside the space itself: `writable` (bits that the
 * guest may change) and `initial` (what a reset restores). There are no write-one-to-clear bits.
 */
#include "device/pci.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/msix.h"
#include "device/pci_priv.h"

#include <errno.h>
#include <stdlib.h>

/* The capability list begins right after the header. */
#define FIRST_CAPABILITY 0x40u
#define CAPABILITIES_END 0x100u

#define COMMAND_WRITABLE                                                                                     \
    (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR |      \
     PCI_COMMAND_INTX_DISABLE)

void pci_function_init(struct pci_function *fn, struct pci_bus *bus, const struct pci_function_config *config,
                       const struct pci_function_ops *ops)
{
    static const struct pci_function_ops no_ops;
    *fn = (struct pci_function){
        .bus = bus,
        .ops = ops ? ops : &no_ops,
        .devfn = config->devfn == PCI_ANY_SLOT ? UINT32_MAX : (unsigned)config->devfn,
        .has_pin = config->intx,
        .next_capability = FIRST_CAPABILITY,
    };
    uint8_t *c = fn->config;
    put_le16(c + PCI_VENDOR_ID, config->vendor);
    put_le16(c + PCI_DEVICE_ID, config->device);
    put_le16(c + PCI_SUBSYSTEM_VENDOR, config->subsystem_vendor);
    put_le16(c + PCI_SUBSYSTEM, config->subsystem);
    put_le32(c + PCI_REVISION, config->class_code << 8 | config->revision);
    c[PCI_INTERRUPT_PIN] = config->intx;
    put_le16(fn->writable + PCI_COMMAND, COMMAND_WRITABLE);
    pci_config_writable(fn, PCI_CACHE_LINE, 1);
    pci_config_writable(fn, PCI_INTERRUPT_LINE, 1);
}

int pci_add_capability(struct pci_function *fn, uint8_t id, const void *body, unsigned len)
{
    unsigned at = fn->next_capability;
    if (len < 2 || len > CAPABILITIES_END - at)
        return -ENOSPC;
    fn->config[at] = id;
    memcpy(fn->config + at + 2, body, len - 2);
    fn->config[fn->last_capability ? fn->last_capability + 1 : PCI_CAPABILITIES] = (uint8_t)at;
    fn->config[PCI_STATUS] |= PCI_STATUS_CAPABILITIES;
    fn->last_capability = at;
    fn->next_capability = ALIGN_UP(at + len, 4);
    return (int)at;
}

int pci_add_pcie(struct pci_function *fn)
{
    /* PCI Express Base 4.0, 7.5.3. Version 2, type 9: root-complex integrated endpoint, which has no link. */
    uint8_t body[0x3c - 2] = {0};
    put_le16(body, 0x0092);
    /* Device capabilities: role-based error reporting (mandatory), payloads of 128 bytes. */
    put_le32(body + 2, 0x00008000);
    int at = pci_add_capability(fn, PCI_CAP_ID_EXPRESS, body, 2 + sizeof(body));
    if (at < 0)
        return at;
    /* Device control: error reporting enables, relaxed ordering, payload size, no snoop, read request. No
     * function-level reset (bit 15). */
    put_le16(fn->config + at + 8, 0x2810);
    put_le16(fn->writable + at + 8, 0x78ff);
    return 0;
}

void pci_config_writable(struct pci_function *fn, unsigned offset, unsigned len)
{
    memset(fn->writable + offset, 0xff, len);
}

const struct device_env *pci_function_env(const struct pci_function *fn)
{
    return fn->bus->env;
}

/* Where a function that may sit anywhere goes: UINT32_MAX if the bus is full. */
static unsigned free_slot(const struct pci_bus *bus)
{
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        bool used = false;
        for (unsigned f = 0; f < PCI_SLOT_FUNCS; f++)
            used |= bus->functions[PCI_DEVFN(slot, f)] != NULL;
        if (!used)
            return PCI_DEVFN(slot, 0);
    }
    return UINT32_MAX;
}

/* Function 0 tells software whether to look for others in its slot. */
static void update_multifunction(struct pci_bus *bus, unsigned devfn)
{
    unsigned slot = devfn / PCI_SLOT_FUNCS;
    struct pci_function *first = bus->functions[PCI_DEVFN(slot, 0)];
    if (!first)
        return;
    bool others = false;
    for (unsigned f = 1; f < PCI_SLOT_FUNCS; f++)
        others |= bus->functions[PCI_DEVFN(slot, f)] != NULL;
    first->config[PCI_HEADER_TYPE] = others ? PCI_HEADER_MULTIFUNCTION : 0;
    first->initial[PCI_HEADER_TYPE] = first->config[PCI_HEADER_TYPE];
}

/* All that hangs on the control bits, but for the mappings. */
static void apply_control_locked(struct pci_function *fn)
{
    uint16_t command = get_le16(fn->config + PCI_COMMAND);
    bool was_master = fn->master;
    fn->master = command & PCI_COMMAND_MASTER;
    msix_update(fn);
    pthread_mutex_lock(&fn->bus->irq_lock);
    fn->intx_off = command & PCI_COMMAND_INTX_DISABLE || msix_enabled(fn);
    pthread_mutex_unlock(&fn->bus->irq_lock);
    pci_update_intx(fn);
    if (fn->master && !was_master && fn->ops->master_enabled)
        fn->ops->master_enabled(fn);
}

int pci_function_plug(struct pci_function *fn, struct error **err)
{
    struct pci_bus *bus = fn->bus;
    LOCK_SCOPE(&bus->config_lock);
    unsigned devfn = fn->devfn == UINT32_MAX ? free_slot(bus) : fn->devfn;
    if (devfn == UINT32_MAX)
        return error_set(err, ENOSPC, "all %u PCI slots are taken", PCI_SLOTS);
    if (devfn >= ARRAY_SIZE(bus->functions) || bus->functions[devfn])
        return error_set(err, EBUSY, "PCI slot 00:%02x.%x is taken", devfn / PCI_SLOT_FUNCS,
                         devfn % PCI_SLOT_FUNCS);
    int rc = pci_place_bars_locked(fn);
    if (rc < 0)
        return error_set(err, -rc, "no room left in the PCI address window");
    fn->devfn = devfn;
    uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    for (unsigned i = 0; i < PCI_BARS; i++)
        if (fn->bars[i].type == PCI_BAR_IO)
            command |= PCI_COMMAND_IO;
    put_le16(fn->config + PCI_COMMAND, command);
    if (fn->has_pin)
        fn->config[PCI_INTERRUPT_LINE] = (uint8_t)pci_gsi(devfn / PCI_SLOT_FUNCS, 0);
    memcpy(fn->initial, fn->config, sizeof(fn->initial));
    bus->functions[devfn] = fn;
    fn->plugged = true;
    update_multifunction(bus, devfn);
    apply_control_locked(fn);
    pci_update_mappings_locked(bus);
    return 0;
}

void pci_function_unplug(struct pci_function *fn)
{
    if (fn->plugged) {
        struct pci_bus *bus = fn->bus;
        pci_set_intx(fn, false);
        LOCK_SCOPE(&bus->config_lock);
        pci_unmap_function_locked(fn);
        bus->functions[fn->devfn] = NULL;
        fn->plugged = false;
        update_multifunction(bus, fn->devfn);
        pci_update_mappings_locked(bus);
    }
    msix_free(fn->msix);
    fn->msix = NULL;
    free(fn->doorbells);
    fn->doorbells = NULL;
    fn->n_doorbells = 0;
}

void pci_function_reset(struct pci_function *fn)
{
    pci_set_intx(fn, false);
    LOCK_SCOPE(&fn->bus->config_lock);
    msix_reset(fn);
    memcpy(fn->config, fn->initial, sizeof(fn->config));
    apply_control_locked(fn);
    pci_update_mappings_locked(fn->bus);
}

/* Also while no lock but the caller's own is held: the lock makes counting and signalling one step, so that
 * two threads can't leave the line at the older level. */
void pci_update_intx(struct pci_function *fn)
{
    struct pci_bus *bus = fn->bus;
    LOCK_SCOPE(&bus->irq_lock);
    bool drive = fn->intx_level && !fn->intx_off;
    if (drive == fn->intx_driven)
        return;
    fn->intx_driven = drive;
    unsigned gsi = pci_gsi(fn->devfn / PCI_SLOT_FUNCS, 0);
    unsigned *drivers = &bus->drivers[gsi - PCI_GSI_BASE];
    *drivers = drive ? *drivers + 1 : *drivers - 1;
    if (*drivers == (drive ? 1 : 0))
        bus->env->irq_set(bus->env->opaque, gsi, drive);
}

void pci_set_intx(struct pci_function *fn, bool level)
{
    if (!fn->has_pin || !fn->plugged)
        return;
    pthread_mutex_lock(&fn->bus->irq_lock);
    fn->intx_level = level;
    pthread_mutex_unlock(&fn->bus->irq_lock);
    pci_update_intx(fn);
}

static bool overlaps(unsigned offset, unsigned size, unsigned start, unsigned len)
{
    return offset < start + len && start < offset + size;
}

uint64_t pci_function_read_locked(struct pci_function *fn, unsigned offset, unsigned size)
{
    if (fn->ops->config_read)
        fn->ops->config_read(fn, offset, size);
    if (overlaps(offset, size, PCI_STATUS, 1)) {
        pthread_mutex_lock(&fn->bus->irq_lock);
        uint8_t *status = &fn->config[PCI_STATUS];
        *status = (uint8_t)((*status & ~PCI_STATUS_INTERRUPT) | (fn->intx_level ? PCI_STATUS_INTERRUPT : 0));
        pthread_mutex_unlock(&fn->bus->irq_lock);
    }
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)fn->config[offset + i] << (8 * i);
    return value;
}

void pci_function_write_locked(struct pci_function *fn, unsigned offset, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++) {
        uint8_t mask = fn->writable[offset + i];
        uint8_t *byte = &fn->config[offset + i];
        *byte = (uint8_t)((*byte & ~mask) | ((uint8_t)(value >> (8 * i)) & mask));
    }
    if (overlaps(offset, size, PCI_BAR(0), 4 * PCI_BARS) || overlaps(offset, size, PCI_COMMAND, 2))
        pci_update_mappings_locked(fn->bus);
    /* The only other bits with an effect here are those of MSI-X; looking at them always is cheap enough. */
    apply_control_locked(fn);
    if (fn->ops->config_written)
        fn->ops->config_written(fn, offset, size);
}

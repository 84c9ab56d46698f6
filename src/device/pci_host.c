/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The PCI host bridge: the bus, ECAM (PCI Express Base 4.0, 7.2.2), the older configuration ports (PCI Local
 * Bus 3.0, 3.2.2.3.2), the reset control register that lies between these, and function 00:00.0. Guest
 * accesses take the bus's config lock.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/pci_priv.h"

#include <errno.h>
#include <stdlib.h>

#define CONFIG_ADDRESS_ENABLE 0x80000000u
#define CONFIG_DATA           4u /* offset from the address port */

/* Red Hat's generic PCI Express host bridge: no driver binds to it and no quirk knows it. */
#define HOST_VENDOR 0x1b36
#define HOST_DEVICE 0x0008
#define HOST_CLASS  0x060000

static uint64_t all_ones(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (1ull << (8 * size)) - 1;
}

static struct pci_function *function_at(struct pci_bus *bus, unsigned devfn, unsigned offset, unsigned size)
{
    if (devfn >= ARRAY_SIZE(bus->functions) || offset >= PCI_CONFIG_SIZE || size > PCI_CONFIG_SIZE - offset)
        return NULL;
    return bus->functions[devfn];
}

uint64_t pci_config_read(struct pci_bus *bus, unsigned devfn, unsigned offset, unsigned size)
{
    LOCK_SCOPE(&bus->config_lock);
    struct pci_function *fn = function_at(bus, devfn, offset, size);
    return fn ? pci_function_read_locked(fn, offset, size) : all_ones(size);
}

void pci_config_write(struct pci_bus *bus, unsigned devfn, unsigned offset, unsigned size, uint64_t value)
{
    LOCK_SCOPE(&bus->config_lock);
    struct pci_function *fn = function_at(bus, devfn, offset, size);
    if (fn)
        pci_function_write_locked(fn, offset, size, value);
}

/* ECAM address: bus 27:20, slot 19:15, function 14:12, register 11:0. Bus numbers other than 0 give a devfn
 * beyond the last. */
static uint64_t ecam_read(void *opaque, uint64_t offset, unsigned size)
{
    return pci_config_read(opaque, (unsigned)(offset >> 12), offset & 0xfff, size);
}

static void ecam_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    pci_config_write(opaque, (unsigned)(offset >> 12), offset & 0xfff, size, value);
}

/* CONFIG_ADDRESS: enable 31, bus 23:16, devfn 15:8, register 7:2. The data ports' own low bits select bytes.
 * An access beyond the four data ports, or while not enabled, hits nothing. */
static bool selected(struct pci_bus *bus, uint64_t offset, unsigned size, unsigned *devfn, unsigned *reg)
{
    if (offset < CONFIG_DATA || size > 8 - offset)
        return false;
    pthread_mutex_lock(&bus->config_lock);
    uint32_t address = bus->config_address;
    pthread_mutex_unlock(&bus->config_lock);
    if (!(address & CONFIG_ADDRESS_ENABLE))
        return false;
    *devfn = address >> 8 & 0xffff;
    *reg = (address & 0xfc) + (unsigned)(offset - CONFIG_DATA);
    return true;
}

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_bus *bus = opaque;
    unsigned devfn, reg;
    if (selected(bus, offset, size, &devfn, &reg))
        return pci_config_read(bus, devfn, reg, size);
    LOCK_SCOPE(&bus->config_lock);
    if (offset == 0 && size == 4)
        return bus->config_address;
    if (offset == PCI_RESET_PORT - PCI_CONFIG_PORT && size == 1)
        return bus->reset_control;
    return all_ones(size);
}

static void ports_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_bus *bus = opaque;
    unsigned devfn, reg;
    if (selected(bus, offset, size, &devfn, &reg)) {
        pci_config_write(bus, devfn, reg, size, value);
        return;
    }
    bool reset = false;
    pthread_mutex_lock(&bus->config_lock);
    if (offset == 0 && size == 4) {
        bus->config_address = (uint32_t)value & 0x80fffffc;
    } else if (offset == PCI_RESET_PORT - PCI_CONFIG_PORT && size == 1) {
        reset = value & PCI_RESET_TRIGGER && !(bus->reset_control & PCI_RESET_TRIGGER);
        bus->reset_control = (uint8_t)value & (PCI_RESET_SYSTEM | PCI_RESET_TRIGGER);
    }
    pthread_mutex_unlock(&bus->config_lock);
    if (reset)
        bus->env->event(bus->env->opaque, MACHINE_RESET, 0);
}

int pci_bus_create(struct pci_bus **out, const struct device_env *env, struct error **err)
{
    struct pci_bus *bus = calloc(1, sizeof(*bus));
    if (!bus)
        return error_set_errno(err, ENOMEM, "PCI bus");
    bus->env = env;
    pthread_mutex_init(&bus->config_lock, NULL);
    pthread_mutex_init(&bus->irq_lock, NULL);
    bus->ecam = (struct io_region){.name = "pci-ecam",
                                   .base = PCI_ECAM_BASE,
                                   .size = PCI_ECAM_SIZE,
                                   .read = ecam_read,
                                   .write = ecam_write,
                                   .opaque = bus};
    bus->ports = (struct io_region){.name = "pci-config",
                                    .base = PCI_CONFIG_PORT,
                                    .size = 8,
                                    .read = ports_read,
                                    .write = ports_write,
                                    .opaque = bus};
    const struct pci_function_config host = {
        .vendor = HOST_VENDOR,
        .device = HOST_DEVICE,
        .class_code = HOST_CLASS,
        .devfn = PCI_DEVFN(0, 0),
    };
    pci_function_init(&bus->host, bus, &host, NULL);
    int rc = pci_function_plug(&bus->host, err);
    if (rc < 0)
        goto fail;
    rc = io_space_add(env->mmio, &bus->ecam);
    if (rc < 0) {
        error_set_errno(err, -rc, "PCI configuration space at %#llx", PCI_ECAM_BASE);
        goto fail;
    }
    bus->ecam_added = true;
    rc = io_space_add(env->pio, &bus->ports);
    if (rc < 0) {
        error_set_errno(err, -rc, "PCI configuration ports at %#x", PCI_CONFIG_PORT);
        goto fail;
    }
    bus->ports_added = true;
    *out = bus;
    return 0;
fail:
    pci_bus_free(bus);
    return rc;
}

void pci_bus_reset(struct pci_bus *bus)
{
    pthread_mutex_lock(&bus->config_lock);
    bus->config_address = 0;
    bus->reset_control = 0;
    pthread_mutex_unlock(&bus->config_lock);
    pci_function_reset(&bus->host);
}

void pci_bus_free(struct pci_bus *bus)
{
    if (!bus)
        return;
    if (bus->ports_added)
        io_space_remove(bus->env->pio, &bus->ports);
    if (bus->ecam_added)
        io_space_remove(bus->env->mmio, &bus->ecam);
    pci_function_unplug(&bus->host);
    pthread_mutex_destroy(&bus->config_lock);
    pthread_mutex_destroy(&bus->irq_lock);
    free(bus);
}

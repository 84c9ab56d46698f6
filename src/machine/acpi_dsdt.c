/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The DSDT: processors, the PCI host bridge with its windows and interrupt lines, the legacy devices, and how
 * to switch off. Each device here is one function. No locks.
 */
#include "machine/acpi.h"

#include "base/bytes.h"
#include "device/acpi_pm.h"
#include "device/fw_cfg.h"
#include "device/pci.h"
#include "device/pvpanic.h"
#include "machine/acpi_aml.h"

#include <stdio.h>

#define PCI_PINS 4

static void write_processors(struct aml *a, unsigned cpus)
{
    for (unsigned i = 0; i < cpus; i++) {
        char name[5];

        snprintf(name, sizeof(name), "C%03u", i % 1000);
        size_t cpu = aml_device(a, name);
        aml_name(a, "_HID");
        aml_string(a, "ACPI0007");
        aml_name(a, "_UID");
        aml_integer(a, i);
        aml_end(a, cpu);
    }
}

/* Function by function, pin by pin, the global interrupt that it is wired to: no link devices to be
 * programmed. */
static void write_pci_routing(struct aml *a)
{
    aml_name(a, "_PRT");
    size_t table = aml_package(a, PCI_SLOTS * PCI_PINS);
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        for (unsigned pin = 0; pin < PCI_PINS; pin++) {
            size_t entry = aml_package(a, 4);

            aml_integer(a, (uint64_t)slot << 16 | 0xffff); /* all functions of the slot */
            aml_integer(a, pin);
            aml_integer(a, 0); /* no link device */
            aml_integer(a, pci_gsi(slot, pin));
            aml_end(a, entry);
        }
    }
    aml_end(a, table);
}

static void write_pci_windows(struct aml *a)
{
    aml_name(a, "_CRS");
    size_t crs = aml_resources(a);
    aml_window_bus(a, 0, PCI_ECAM_SIZE / (1u << 20) - 1);
    aml_io(a, PCI_CONFIG_PORT, 8);
    aml_window_io(a, 0x0000, 0x0cf7);
    aml_window_io(a, 0x0d00, 0xffff);
    aml_window_memory32(a, PCI_MMIO_BASE, PCI_MMIO_BASE + PCI_MMIO_SIZE - 1);
    /* Firmware that knows nothing of this host bridge fills memory from here downwards. */
    aml_window_memory32(a, PCI_MMIO_HIGH_BASE, PCI_MMIO_HIGH_BASE + PCI_MMIO_HIGH_SIZE - 1);
    aml_resources_end(a, crs);
}

/*
 * _OSC (6.2.11.3): the kernel asks which features of PCI Express it may control. All of them; a request under
 * another UUID is answered with "unrecognized".
 */
static void write_pci_osc(struct aml *a)
{
    static const uint8_t uuid[16] = {0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40,
                                     0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66};
    size_t osc = aml_method(a, "_OSC", 4);
    size_t known = aml_if(a);

    aml_equal(a);
    aml_arg(a, 0);
    aml_buffer(a, uuid, sizeof(uuid));
    aml_return(a);
    aml_arg(a, 3);
    aml_end(a, known);
    aml_create_dword_field(a, 3, 0, "CDW1");
    aml_or_into(a, "CDW1", 1u << 2);
    aml_return(a);
    aml_arg(a, 3);
    aml_end(a, osc);
}

static void write_pci(struct aml *a)
{
    size_t pci = aml_device(a, "PCI0");

    aml_name(a, "_HID");
    aml_eisa_id(a, "PNP0A08");
    aml_name(a, "_CID");
    aml_eisa_id(a, "PNP0A03");
    aml_name(a, "_UID");
    aml_integer(a, 0);
    aml_name(a, "_SEG");
    aml_integer(a, 0);
    aml_name(a, "_BBN");
    aml_integer(a, 0);
    write_pci_windows(a);
    write_pci_routing(a);
    write_pci_osc(a);
    aml_end(a, pci);
}

/* A device on ports: `irq` 0 for none. */
static void write_legacy(struct aml *a, const char *name, const char *id, unsigned uid, uint16_t port,
                         uint8_t length, unsigned irq)
{
    size_t device = aml_device(a, name);

    aml_name(a, "_HID");
    aml_eisa_id(a, id);
    aml_name(a, "_UID");
    aml_integer(a, uid);
    aml_name(a, "_CRS");
    size_t crs = aml_resources(a);
    aml_io(a, port, length);
    if (irq)
        aml_irq(a, irq);
    aml_resources_end(a, crs);
    aml_end(a, device);
}

/* What belongs to no device but must stay free: ECAM, and the ports of power management. */
static void write_motherboard(struct aml *a)
{
    size_t device = aml_device(a, "MBRD");

    aml_name(a, "_HID");
    aml_eisa_id(a, "PNP0C02");
    aml_name(a, "_UID");
    aml_integer(a, 0);
    aml_name(a, "_CRS");
    size_t crs = aml_resources(a);
    aml_memory32(a, PCI_ECAM_BASE, PCI_ECAM_SIZE);
    aml_io(a, ACPI_PM_BASE, ACPI_PM_SIZE);
    aml_resources_end(a, crs);
    aml_end(a, device);
}

static void write_fw_cfg(struct aml *a)
{
    size_t device = aml_device(a, "FWCF");

    aml_name(a, "_HID");
    aml_string(a, "QEMU0002");
    aml_name(a, "_STA");
    aml_integer(a, 0x0b); /* present, enabled, working; not to be shown to people */
    aml_name(a, "_CRS");
    size_t crs = aml_resources(a);
    aml_io(a, FW_CFG_BASE, FW_CFG_SIZE);
    aml_resources_end(a, crs);
    aml_end(a, device);
}

/* The id under which kernels know the panic notifier, whoever makes it. */
static void write_pvpanic(struct aml *a)
{
    size_t device = aml_device(a, "PEVT");

    aml_name(a, "_HID");
    aml_string(a, "QEMU0001");
    aml_name(a, "_UID");
    aml_integer(a, 0);
    aml_name(a, "_CRS");
    size_t crs = aml_resources(a);
    aml_io(a, PVPANIC_PORT, 1);
    aml_resources_end(a, crs);
    aml_name(a, "_STA");
    aml_integer(a, 0xf); /* present, enabled, shown, working */
    aml_end(a, device);
}

/* SLP_TYP for soft off; the second value is for a PM1b that there isn't. */
static void write_soft_off(struct aml *a)
{
    aml_name(a, "_S5_");
    size_t package = aml_package(a, 4);
    aml_integer(a, ACPI_PM_SLEEP_S5);
    for (int i = 0; i < 3; i++)
        aml_integer(a, 0);
    aml_end(a, package);
}

void acpi_write_dsdt(struct aml *a, const struct acpi_config *config)
{
    size_t system_bus = aml_scope(a, "\\_SB_");

    write_processors(a, config->cpus);
    write_pci(a);
    write_motherboard(a);
    write_legacy(a, "COM1", "PNP0501", 1, 0x3f8, 8, 4);
    write_legacy(a, "RTC0", "PNP0B00", 0, 0x70, 2, 8);
    write_fw_cfg(a);
    write_pvpanic(a);
    aml_end(a, system_bus);
    write_soft_off(a);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What pci.c (functions), pci_bar.c (their BARs) and pci_host.c (the bus) share. */
#ifndef TABIQUE_DEVICE_PCI_PRIV_H
#define TABIQUE_DEVICE_PCI_PRIV_H

#include "device/pci.h"

#include <pthread.h>

struct pci_bus {
    const struct device_env *env;
    pthread_mutex_t config_lock; /* functions, configuration spaces, mappings; outermost */
    pthread_mutex_t irq_lock;    /* leaf: interrupt lines */
    struct pci_function *functions[PCI_SLOTS * PCI_SLOT_FUNCS];
    unsigned drivers[PCI_GSI_COUNT]; /* how many functions assert each line */
    uint32_t config_address;         /* port 0xCF8 */
    uint8_t reset_control;           /* port 0xCF9 */
    struct io_region ecam, ports;
    bool ecam_added, ports_added;
    struct pci_function host;
};

/* Brings the I/O spaces in step with what BARs and command registers say. Config lock held. */
void pci_update_mappings_locked(struct pci_bus *bus);
/* Unmaps all BARs of `fn`. Config lock held. */
void pci_unmap_function_locked(struct pci_function *fn);
/* Finds a place for each BAR and stores it as the value after reset. 0 or -ENOSPC. Config lock held. */
int pci_place_bars_locked(struct pci_function *fn);

/* The bodies of pci_config_read and pci_config_write for one function. Config lock held. */
uint64_t pci_function_read_locked(struct pci_function *fn, unsigned offset, unsigned size);
void pci_function_write_locked(struct pci_function *fn, unsigned offset, unsigned size, uint64_t value);

/* The function's line follows what it asks for. */
void pci_update_intx(struct pci_function *fn);

#endif

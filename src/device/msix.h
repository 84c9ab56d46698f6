/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MSI-X (PCI Express Base 4.0, 6.1.4 and 7.7.2): a table of messages and an array of pending bits in a BAR of
 * their own. Used by PCI device authors; the second half is for pci.c.
 *
 * Each function's MSI-X has a leaf lock, so that any thread may send while vCPUs change the table.
 */
#ifndef TABIQUE_DEVICE_MSIX_H
#define TABIQUE_DEVICE_MSIX_H

#include "device/pci.h"

#define MSIX_MAX_VECTORS   2048u
#define MSIX_ENTRY_SIZE    16u
#define MSIX_ENTRY_CONTROL 12u  /* offset in an entry: vector control */
#define MSIX_ENTRY_MASKED  0x1u /* its mask bit */
#define MSIX_CONTROL       2u   /* offset in the capability: message control */
#define MSIX_FUNCTION_MASK 0x4000u
#define MSIX_ENABLE        0x8000u

/* Adds `vectors` (1..MSIX_MAX_VECTORS) messages, with table and pending bits in memory BAR `bar`, which must
 * be free. Before plugging. 0, -EINVAL, -ENOMEM or -ENOSPC. */
int pci_add_msix(struct pci_function *fn, unsigned bar, unsigned vectors);

/* Whether the guest has switched to MSI-X, so that INTx is off. Any thread. */
bool msix_enabled(const struct pci_function *fn);

/*
 * Sends message `vector`, or leaves it pending while the vector, the function or bus mastering is masked.
 * Nothing happens where MSI-X is off or there is no such vector. Any thread.
 */
void msix_send(struct pci_function *fn, unsigned vector);

/* For pci.c. The guest may have changed message control or bus mastering; sends what became possible. */
void msix_update(struct pci_function *fn);
void msix_reset(struct pci_function *fn);
void msix_free(struct msix *msix);

#endif

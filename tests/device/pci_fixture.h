/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A machine without engine: RAM, I/O spaces, a PCI bus, an event loop, and a record of the interrupts,
 * messages and events that devices send. For the tests and fuzz targets of PCI devices.
 */
#ifndef TABIQUE_TESTS_DEVICE_PCI_FIXTURE_H
#define TABIQUE_TESTS_DEVICE_PCI_FIXTURE_H

#include "device/pci.h"

#define FIXTURE_RAM      (4ull << 20)
#define FIXTURE_MESSAGES 64u

struct fixture_message {
    uint64_t address;
    uint32_t data;
};

struct fixture {
    struct device_env env;
    bool line[24];
    unsigned line_changes;
    struct fixture_message messages[FIXTURE_MESSAGES]; /* the last ones, n_messages modulo their number */
    unsigned n_messages;
    unsigned events[MACHINE_ENGINE_FAILED + 1];
    /* A byte for each of RAM: nonzero once guest_memory_mark_written named it. */
    uint8_t *marked;
};

/* Zeroes *f, then makes all its parts. Ends the program where that fails, as the host can't run tests then.
 */
void fixture_init(struct fixture *f);
void fixture_fini(struct fixture *f);

/* Forgets what was marked as written. */
void fixture_clear_marks(struct fixture *f);

/* Serves the loop until nothing that was signalled before is left. */
void fixture_run_loop(struct fixture *f);

/* Configuration accesses by ECAM, at bus 0. */
uint64_t fixture_config_read(struct fixture *f, unsigned devfn, unsigned offset, unsigned size);
void fixture_config_write(struct fixture *f, unsigned devfn, unsigned offset, unsigned size, uint64_t value);

/* The devfn of the first function with this vendor and device, -1 if there is none. */
int fixture_find(struct fixture *f, uint16_t vendor, uint16_t device);
/* The offset of the n-th (from 0) capability with this id, 0 if there is none. */
unsigned fixture_capability(struct fixture *f, unsigned devfn, uint8_t id, unsigned n);
/* Where BAR n is, from its registers. */
uint64_t fixture_bar(struct fixture *f, unsigned devfn, unsigned n);
/* Programs MSI-X vector `v` to send `data` to 0xFEE00000, unmasked. */
void fixture_msix_vector(struct fixture *f, unsigned devfn, unsigned v, uint32_t data);
/* Sets message control. */
void fixture_msix_control(struct fixture *f, unsigned devfn, uint16_t control);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a device is, and all that it may know of the machine around it. A device is one file that ends in a
 * `const struct device_class`, and one row in devices.def.
 */
#ifndef TABIQUE_DEVICE_DEVICE_H
#define TABIQUE_DEVICE_DEVICE_H

#include "device/guest_memory.h"
#include "device/io_space.h"

#include <stdbool.h>
#include <stdint.h>

struct error;
struct loop;
struct pci_bus;
struct device_config;

/* What a guest, a device or an engine can ask of the machine. */
enum machine_event {
    MACHINE_POWEROFF,
    MACHINE_RESET,
    MACHINE_DEBUG_EXIT, /* with the guest's code */
    MACHINE_PANIC,
    MACHINE_CRASH_LOADED,  /* the guest's crash kernel takes over; it runs on */
    MACHINE_WATCHDOG,      /* the guest was not heard of in time; the code is an enum watchdog_action */
    MACHINE_ENGINE_FAILED, /* the engine can't go on; it has said why in its error */
};

/* The machine as its devices see it. Every call may come from any thread. */
struct device_env {
    struct guest_memory *memory;
    struct io_space *pio;
    struct io_space *mmio;
    struct loop *loop;
    struct pci_bus *pci; /* where PCI devices plug in (device/pci.h); NULL on a machine without PCI */

    /* The level of a global system interrupt (0-15 are the ISA IRQs, to PIC and I/O APIC; 16-23 I/O APIC
     * only). */
    void (*irq_set)(void *opaque, unsigned gsi, bool level);
    /* A message-signalled interrupt, as the device's write of `data` to `address` would be (SDM vol.
     * 3A 11.11). */
    void (*msi_send)(void *opaque, uint64_t address, uint32_t data);
    /* Asks for a change of the whole machine's state. Returns at once; it happens soon after. */
    void (*event)(void *opaque, enum machine_event event, int code);
    void *opaque;
};

struct device {
    const struct device_class *class;
    const struct device_env *env;
};

struct device_class {
    const char *name;    /* "virtio-rng" */
    const char *summary; /* one line for people */
    /* Makes the device and maps its registers. `config` is the device's own structure (NULL: defaults). */
    int (*create)(struct device **out, const struct device_env *env, const void *config, struct error **err);
    /* Back to the state after power-on. vCPUs are paused. */
    void (*reset)(struct device *device);
    /* Unmaps and frees. */
    void (*destroy)(struct device *device);
};

#endif

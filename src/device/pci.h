/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PCI Express, as device authors and the machine see it: one host bridge with one root bus (segment 0, bus
 * 0), reached through ECAM and through ports 0xCF8/0xCFC, whose functions are root-complex integrated
 * endpoints (PCI Express Base 4.0, 1.3.2.3).
 *
 * A device embeds a struct pci_function, describes it (pci_function_init, pci_add_bar, pci_add_capability,
 * pci_add_pcie, pci_add_msix, pci_add_doorbell), and plugs it in. From then on vCPU threads may call its
 * callbacks. There is no firmware, so plugging and resetting leave the BARs placed and their decoding on, as
 * firmware would.
 *
 * Locks: the bus's config lock is held over a configuration access and is the outermost one, so a function's
 * ops may take the device's own locks. pci_set_intx and msix_send take only leaf locks and may be called with
 * any lock held. pci_function_init to pci_function_plug, pci_function_unplug and the resets belong to
 * whoever builds the machine: vCPUs are paused or do not exist then.
 *
 * Port 0xCF9, the reset control register, lies within the four bytes of 0xCF8, so the host bridge has it.
 */
#ifndef TABIQUE_DEVICE_PCI_H
#define TABIQUE_DEVICE_PCI_H

#include "device/device.h"
#include "device/io_space.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct msix;
struct pci_bus;

/* The configuration space of bus 0, the only one: what the MCFG tells of more, Linux looks for bus by bus,
 * 8192 times. */
#define PCI_ECAM_BASE 0xE0000000ull
#define PCI_ECAM_SIZE 0x100000ull

/* What memory BARs may use: the _CRS of the host bridge. */
#define PCI_MMIO_BASE 0xC0000000ull
#define PCI_MMIO_SIZE 0x20000000ull

/* The rest of the hole below 4 GiB, up to the I/O APIC: they may be moved here, but none begins here. */
#define PCI_MMIO_HIGH_BASE 0xF0000000ull
#define PCI_MMIO_HIGH_SIZE 0x0EC00000ull

/* What I/O BARs may use. */
#define PCI_PIO_BASE 0xC000u
#define PCI_PIO_SIZE 0x4000u

/* CONFIG_ADDRESS and CONFIG_DATA, eight ports together; the reset control register is among them. */
#define PCI_CONFIG_PORT   0xCF8u
#define PCI_RESET_PORT    0xCF9u
#define PCI_RESET_SYSTEM  0x02u /* with PCI_RESET_TRIGGER: hard reset instead of INIT */
#define PCI_RESET_TRIGGER 0x04u /* its rising edge resets */

#define PCI_SLOTS        32u
#define PCI_SLOT_FUNCS   8u
#define PCI_DEVFN(s, f)  ((s) << 3 | (f))
#define PCI_CONFIG_SIZE  4096u
#define PCI_BARS         6u
#define PCI_GSI_BASE     16u
#define PCI_GSI_COUNT    4u
#define PCI_MAX_BAR_SIZE PCI_MMIO_SIZE

/*
 * The global system interrupt that pin `pin` (0 is INTA#) of slot `slot` on bus 0 drives, active low and
 * level-triggered as on any PC (the levels given to env->irq_set are logical). This is what _PRT tells.
 */
static inline unsigned pci_gsi(unsigned slot, unsigned pin)
{
    return PCI_GSI_BASE + (slot + pin) % PCI_GSI_COUNT;
}

/* Offsets and bits of the configuration header that devices or tests need (PCI Express Base 4.0, 7.5.1). */
#define PCI_VENDOR_ID            0x00
#define PCI_DEVICE_ID            0x02
#define PCI_COMMAND              0x04
#define PCI_COMMAND_IO           0x0001
#define PCI_COMMAND_MEMORY       0x0002
#define PCI_COMMAND_MASTER       0x0004
#define PCI_COMMAND_PARITY       0x0040
#define PCI_COMMAND_SERR         0x0100
#define PCI_COMMAND_INTX_DISABLE 0x0400
#define PCI_STATUS               0x06
#define PCI_STATUS_INTERRUPT     0x0008
#define PCI_STATUS_CAPABILITIES  0x0010
#define PCI_REVISION             0x08
#define PCI_CLASS                0x09
#define PCI_CACHE_LINE           0x0c
#define PCI_HEADER_TYPE          0x0e
#define PCI_HEADER_MULTIFUNCTION 0x80
#define PCI_BAR(n)               (0x10 + 4 * (n))
#define PCI_BAR_IS_IO            0x1
#define PCI_BAR_IS_64            0x4
#define PCI_BAR_IS_PREFETCHABLE  0x8
#define PCI_SUBSYSTEM_VENDOR     0x2c
#define PCI_SUBSYSTEM            0x2e
#define PCI_CAPABILITIES         0x34
#define PCI_INTERRUPT_LINE       0x3c
#define PCI_INTERRUPT_PIN        0x3d
#define PCI_CAP_ID_VENDOR        0x09
#define PCI_CAP_ID_EXPRESS       0x10
#define PCI_CAP_ID_MSIX          0x11

enum pci_bar_type { PCI_BAR_NONE, PCI_BAR_MEM32, PCI_BAR_MEM64, PCI_BAR_IO };

struct pci_bar {
    enum pci_bar_type type;
    uint64_t home; /* where the firmware that we do not have would put it */
    struct io_region region;
    bool mapped;
};

struct pci_doorbell {
    unsigned bar;
    uint32_t offset;
    unsigned size;
    int fd;
};

struct pci_function;

/* What a function may want to know of its configuration space; each is optional. The config lock is held. */
struct pci_function_ops {
    /* A read of `size` (1, 2, 4) bytes at `offset`, before the stored bytes are looked at: the function may
     * refresh them with pci_config_bytes. */
    void (*config_read)(struct pci_function *fn, unsigned offset, unsigned size);
    /* The guest has written there; what was writable has changed. */
    void (*config_written)(struct pci_function *fn, unsigned offset, unsigned size);
    /* Bus mastering has been switched on: what waited for DMA can go on. */
    void (*master_enabled)(struct pci_function *fn);
};

/* All fields are pci.c's own, but that devices may read `master`. */
struct pci_function {
    struct pci_bus *bus;
    const struct pci_function_ops *ops;
    unsigned devfn;
    bool plugged;
    bool has_pin;
    unsigned next_capability; /* where the next one goes; the last one's offset is in last_capability */
    unsigned last_capability;
    struct pci_bar bars[PCI_BARS];
    struct pci_doorbell *doorbells;
    size_t n_doorbells;
    struct msix *msix;
    atomic_bool master; /* bus mastering: the function may read and write memory and send messages */
    bool intx_level;    /* what the device asks for; under the bus's interrupt lock, as the next two */
    bool intx_off;      /* by INTx Disable or by MSI-X */
    bool intx_driven;   /* what the line sees from us */
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t initial[PCI_CONFIG_SIZE];  /* what a reset restores */
    uint8_t writable[PCI_CONFIG_SIZE]; /* bits that the guest may change */
};

struct pci_function_config {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint32_t class_code; /* 24 bits: class, subclass, programming interface */
    uint8_t revision;
    bool intx; /* has INTA# */
    /* PCI_DEVFN(slot, function) to be at a fixed place, or PCI_ANY_SLOT for function 0 of the first free
     * slot. */
    int devfn;
};
#define PCI_ANY_SLOT (-1)

/*
 * The bus with its host bridge 00:00.0; claims ECAM and the ports. `env` is kept; its `pci` is not used here:
 * the caller sets it for the devices to find. 0 or -errno with *err.
 */
int pci_bus_create(struct pci_bus **out, const struct device_env *env, struct error **err);
/* CONFIG_ADDRESS and the host bridge as after power-on; the functions are reset by their devices. */
void pci_bus_reset(struct pci_bus *bus);
/* All functions must be unplugged. NULL is fine. */
void pci_bus_free(struct pci_bus *bus);

/* Starts the description of a function. It owns nothing until something is added to it. */
void pci_function_init(struct pci_function *fn, struct pci_bus *bus, const struct pci_function_config *config,
                       const struct pci_function_ops *ops);

/*
 * Describes BAR `index` (PCI_BAR_MEM64 takes index + 1 too). `region` gives name, size (a power of two:
 * 16 bytes to PCI_MAX_BAR_SIZE, or 4 to 256 for ports), callbacks and opaque; it is copied, base is ignored.
 * 0 or -EINVAL.
 */
int pci_add_bar(struct pci_function *fn, unsigned index, enum pci_bar_type type,
                const struct io_region *region);

/* A write of `size` bytes (0: any) at `offset` in memory BAR `bar` signals eventfd `fd`, which stays the
 * caller's. 0, -EINVAL or -ENOMEM. */
int pci_add_doorbell(struct pci_function *fn, unsigned bar, uint32_t offset, unsigned size, int fd);

/*
 * Appends a capability of `len` bytes (with its two-byte header) that begins as `body` says (from its third
 * byte on; read-only unless pci_config_writable says otherwise). Its offset, or -ENOSPC.
 */
int pci_add_capability(struct pci_function *fn, uint8_t id, const void *body, unsigned len);

/* Appends the PCI Express capability of a root-complex integrated endpoint. 0 or -ENOSPC. */
int pci_add_pcie(struct pci_function *fn);

/* Lets the guest write these bytes. Before plugging. */
void pci_config_writable(struct pci_function *fn, unsigned offset, unsigned len);

/* The stored bytes at `offset`, for a function's ops and for set-up. */
static inline uint8_t *pci_config_bytes(struct pci_function *fn, unsigned offset)
{
    return fn->config + offset;
}

/*
 * Puts the function on its bus: places the BARs, switches decoding and bus mastering on. 0; -EBUSY (place
 * taken), -ENOSPC (no slot or no room for a BAR), with *err; nothing has changed then.
 */
int pci_function_plug(struct pci_function *fn, struct error **err);
/* The inverse, and frees what was added. Fine for one that was never plugged. */
void pci_function_unplug(struct pci_function *fn);
/* Configuration space, BARs and MSI-X as after power-on, with INTx released. */
void pci_function_reset(struct pci_function *fn);

/* The machine around the function. */
const struct device_env *pci_function_env(const struct pci_function *fn);

/* The level of INTA#. Any thread. */
void pci_set_intx(struct pci_function *fn, bool level);

/* A configuration access as ECAM does it. size 1, 2, 4 or 8, any offset; what does not exist reads ones. */
uint64_t pci_config_read(struct pci_bus *bus, unsigned devfn, unsigned offset, unsigned size);
void pci_config_write(struct pci_bus *bus, unsigned devfn, unsigned offset, unsigned size, uint64_t value);

#endif

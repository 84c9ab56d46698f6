/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine without engine of pci_fixture.h. One thread; no locks. */
#include "pci_fixture.h"

#include "base/error.h"
#include "device/msix.h"
#include "host/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void irq_set(void *opaque, unsigned gsi, bool level)
{
    struct fixture *f = opaque;
    if (gsi >= sizeof(f->line) / sizeof(f->line[0]))
        abort();
    f->line_changes += f->line[gsi] != level;
    f->line[gsi] = level;
}

static void msi_send(void *opaque, uint64_t address, uint32_t data)
{
    struct fixture *f = opaque;
    f->messages[f->n_messages++ % FIXTURE_MESSAGES] = (struct fixture_message){address, data};
}

static void event(void *opaque, enum machine_event e, int code)
{
    struct fixture *f = opaque;
    f->events[e]++;
}

static void written(void *opaque, uint64_t gpa, uint64_t len)
{
    struct fixture *f = opaque;
    if (gpa > FIXTURE_RAM || len > FIXTURE_RAM - gpa)
        abort();
    memset(f->marked + gpa, 1, len);
}

static void must(bool ok, const char *what, struct error *err)
{
    if (ok)
        return;
    fprintf(stderr, "fixture: %s: %s\n", what, error_message(err));
    exit(1);
}

void fixture_init(struct fixture *f)
{
    struct error *err = NULL;
    *f = (struct fixture){.env = {.irq_set = irq_set, .msi_send = msi_send, .event = event, .opaque = f}};
    must(guest_memory_create(&f->env.memory, FIXTURE_RAM, &err) == 0, "memory", err);
    must(loop_create(&f->env.loop, &err) == 0, "loop", err);
    f->env.pio = io_space_new("ports");
    f->env.mmio = io_space_new("mmio");
    must(f->env.pio && f->env.mmio, "spaces", NULL);
    /* Mapped, not allocated: costs only what is touched, and is cleared in one go. */
    f->marked = mmap(NULL, FIXTURE_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(f->marked != MAP_FAILED, "marks", NULL);
    f->env.memory->written = written;
    f->env.memory->written_opaque = f;
    must(pci_bus_create(&f->env.pci, &f->env, &err) == 0, "bus", err);
}

void fixture_fini(struct fixture *f)
{
    pci_bus_free(f->env.pci);
    io_space_free(f->env.mmio);
    io_space_free(f->env.pio);
    loop_free(f->env.loop);
    guest_memory_free(f->env.memory);
    munmap(f->marked, FIXTURE_RAM);
}

void fixture_clear_marks(struct fixture *f)
{
    madvise(f->marked, FIXTURE_RAM, MADV_DONTNEED);
}

static void stop(void *opaque)
{
    struct fixture *f = opaque;
    loop_stop(f->env.loop, 0);
}

/* By the second round, everything that was ready in the first has been served. */
static void second_round(void *opaque)
{
    struct fixture *f = opaque;
    must(loop_post(f->env.loop, stop, f) == 0, "post", NULL);
}

void fixture_run_loop(struct fixture *f)
{
    must(loop_post(f->env.loop, second_round, f) == 0, "post", NULL);
    loop_run(f->env.loop);
}

uint64_t fixture_config_read(struct fixture *f, unsigned devfn, unsigned offset, unsigned size)
{
    return io_space_read(f->env.mmio, PCI_ECAM_BASE + (devfn << 12) + offset, size);
}

void fixture_config_write(struct fixture *f, unsigned devfn, unsigned offset, unsigned size, uint64_t value)
{
    io_space_write(f->env.mmio, PCI_ECAM_BASE + (devfn << 12) + offset, size, value);
}

int fixture_find(struct fixture *f, uint16_t vendor, uint16_t device)
{
    for (int devfn = 0; devfn < 256; devfn++)
        if (fixture_config_read(f, (unsigned)devfn, PCI_VENDOR_ID, 4) == ((uint32_t)device << 16 | vendor))
            return devfn;
    return -1;
}

unsigned fixture_capability(struct fixture *f, unsigned devfn, uint8_t id, unsigned n)
{
    unsigned at = (unsigned)fixture_config_read(f, devfn, PCI_CAPABILITIES, 1);
    for (unsigned seen = 0; at && seen < 64; seen++) {
        if (fixture_config_read(f, devfn, at, 1) == id && n-- == 0)
            return at;
        at = (unsigned)fixture_config_read(f, devfn, at + 1, 1);
    }
    return 0;
}

uint64_t fixture_bar(struct fixture *f, unsigned devfn, unsigned n)
{
    uint64_t low = fixture_config_read(f, devfn, PCI_BAR(n), 4);
    if (low & PCI_BAR_IS_IO)
        return low & ~3ull;
    if (low & PCI_BAR_IS_64)
        low |= fixture_config_read(f, devfn, PCI_BAR(n + 1), 4) << 32;
    return low & ~15ull;
}

void fixture_msix_vector(struct fixture *f, unsigned devfn, unsigned v, uint32_t data)
{
    unsigned cap = fixture_capability(f, devfn, PCI_CAP_ID_MSIX, 0);
    uint32_t table = (uint32_t)fixture_config_read(f, devfn, cap + 4, 4);
    uint64_t entry = fixture_bar(f, devfn, table & 7) + (table & ~7u) + v * MSIX_ENTRY_SIZE;
    io_space_write(f->env.mmio, entry, 4, 0xfee00000);
    io_space_write(f->env.mmio, entry + 4, 4, 0);
    io_space_write(f->env.mmio, entry + 8, 4, data);
    io_space_write(f->env.mmio, entry + MSIX_ENTRY_CONTROL, 4, 0);
}

void fixture_msix_control(struct fixture *f, unsigned devfn, uint16_t control)
{
    fixture_config_write(f, devfn, fixture_capability(f, devfn, PCI_CAP_ID_MSIX, 0) + MSIX_CONTROL, 2,
                         control);
}

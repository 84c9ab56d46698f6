/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The PCI bus under a guest that writes anything at any width to configuration spaces, ports and BARs, while
 * devices raise interrupts. BARs move, overlap and vanish; after a reset all are at home again, with the
 * identity they had.
 */
#include "base/bytes.h"
#include "device/msix.h"
#include "fuzz_input.h"
#include "pci_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUNCTIONS 3u
#define VECTORS   5u

struct probe {
    struct pci_function fn;
    int bell;
    unsigned touched;
};

static uint64_t probe_read(void *opaque, uint64_t offset, unsigned size)
{
    struct probe *p = opaque;
    if (offset + size > 0x10000)
        abort();
    return ++p->touched;
}

static void probe_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    probe_read(opaque, offset, size);
}

static void expect(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "broken promise: %s\n", what);
    abort();
}

static void plug(struct fixture *f, struct probe *p, unsigned n)
{
    static const struct {
        unsigned index;
        enum pci_bar_type type;
        uint64_t size;
    } bars[] = {{0, PCI_BAR_MEM32, 0x1000}, {1, PCI_BAR_MEM64, 0x10000}, {3, PCI_BAR_IO, 64}};
    const struct pci_function_config config = {
        .vendor = 0x1234, .device = (uint16_t)n, .intx = true, .devfn = (int)PCI_DEVFN(1 + n / 2, n % 2)};
    pci_function_init(&p->fn, f->env.pci, &config, NULL);
    p->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    bool ok = p->bell >= 0;
    for (unsigned i = 0; i < ARRAY_SIZE(bars); i++) {
        const struct io_region r = {
            .name = "probe", .size = bars[i].size, .read = probe_read, .write = probe_write, .opaque = p};
        ok &= pci_add_bar(&p->fn, bars[i].index, bars[i].type, &r) == 0;
    }
    ok &= pci_add_doorbell(&p->fn, 1, 8 * n, 0, p->bell) == 0;
    ok &= pci_add_pcie(&p->fn) == 0 && pci_add_msix(&p->fn, 4, VECTORS) == 0;
    expect(ok && pci_function_plug(&p->fn, NULL) == 0, "a function can be plugged");
}

/* One of the few places where functions are, or any. */
static unsigned any_devfn(struct fuzz_input *in)
{
    uint8_t v = (uint8_t)fuzz_take(in, 1);
    return v & 0x80 ? v & 0x7f : v % 4 == 3 ? 0 : PCI_DEVFN(1 + v % 4 / 2, v % 4 % 2);
}

static void act(struct fixture *f, struct probe *probes, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    struct probe *p = &probes[what / 16 % FUNCTIONS];
    unsigned size = 1u << (what >> 6);
    switch (what % 16) {
    case 0:
    case 1:
    case 2: {
        unsigned devfn = any_devfn(in), offset = (unsigned)fuzz_take(in, 1);
        fixture_config_write(f, devfn, offset, size, fuzz_take(in, size));
        break;
    }
    case 3:
        fixture_config_read(f, any_devfn(in), (unsigned)fuzz_take(in, 2), size);
        break;
    case 4:
        /* A BAR's register, with an address near the others' more often than not. */
        fixture_config_write(f, p->fn.devfn, PCI_BAR(fuzz_take(in, 1) % PCI_BARS), 4,
                             PCI_MMIO_BASE + (fuzz_take(in, 1) << 12));
        break;
    case 5:
        fixture_config_write(f, p->fn.devfn, PCI_COMMAND, 2, fuzz_take(in, 2));
        break;
    case 6:
        io_space_write(f->env.pio, PCI_CONFIG_PORT + fuzz_take(in, 1) % 8, size > 4 ? 4 : size,
                       fuzz_take(in, 4));
        break;
    case 7:
        io_space_read(f->env.pio, PCI_CONFIG_PORT + fuzz_take(in, 1) % 8, size > 4 ? 4 : size);
        break;
    case 8:
        io_space_write(f->env.mmio, PCI_MMIO_BASE + (fuzz_take(in, 3) & 0x3ffff), size, fuzz_take(in, size));
        break;
    case 9:
        io_space_read(f->env.mmio, PCI_MMIO_BASE + (fuzz_take(in, 3) & 0x3ffff), size);
        break;
    case 10:
        io_space_write(f->env.mmio, fuzz_take(in, 8), size, fuzz_take(in, size));
        break;
    case 11:
        pci_set_intx(&p->fn, size & 1);
        break;
    case 12:
        msix_send(&p->fn, (unsigned)fuzz_take(in, 1) % (VECTORS + 1));
        break;
    case 13:
        fixture_msix_control(f, p->fn.devfn, (uint16_t)(fuzz_take(in, 1) << 8));
        break;
    case 14:
        fixture_msix_vector(f, p->fn.devfn, what >> 4, (uint32_t)fuzz_take(in, 1));
        break;
    case 15:
        pci_function_reset(&p->fn);
        break;
    }
}

static void check_after_reset(struct fixture *f, struct probe *probes)
{
    for (unsigned i = 0; i < FUNCTIONS; i++)
        pci_function_reset(&probes[i].fn);
    pci_bus_reset(f->env.pci);
    for (unsigned gsi = 0; gsi < ARRAY_SIZE(f->line); gsi++)
        expect(!f->line[gsi], "no line stays up after a reset");
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        struct probe *p = &probes[i];
        expect(fixture_config_read(f, p->fn.devfn, PCI_VENDOR_ID, 4) == (0x1234u | i << 16),
               "identity stays");
        for (unsigned bar = 0; bar < PCI_BARS; bar++)
            expect(p->fn.bars[bar].type == PCI_BAR_NONE || p->fn.bars[bar].mapped, "BARs are back");
        unsigned before = p->touched;
        io_space_read(f->env.mmio, fixture_bar(f, p->fn.devfn, 0), 4);
        expect(p->touched == before + 1, "BARs are where their registers say");
        fixture_msix_vector(f, p->fn.devfn, 0, 0x99);
        fixture_msix_control(f, p->fn.devfn, MSIX_ENABLE);
        before = f->n_messages;
        msix_send(&p->fn, 0);
        expect(f->n_messages == before + 1, "messages are sent after a reset");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fixture f;
    static struct probe probes[FUNCTIONS];
    struct fuzz_input in = {data, size};
    fixture_init(&f);
    for (unsigned i = 0; i < FUNCTIONS; i++)
        plug(&f, &probes[i], i);
    while (in.left)
        act(&f, probes, &in);
    check_after_reset(&f, probes);
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        pci_function_unplug(&probes[i].fn);
        close(probes[i].bell);
    }
    fixture_fini(&f);
    return 0;
}

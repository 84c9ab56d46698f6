/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Base address registers: their description, their first placement, and the regions and doorbells that come
 * and go in the I/O spaces as the guest moves them or switches decoding. The config lock is held but during
 * description.
 */
#include "base/bytes.h"
#include "device/msix.h"
#include "device/pci_priv.h"

#include <errno.h>
#include <stdlib.h>

#define MIN_MEMORY_BAR 16u
#define MIN_IO_BAR     4u
#define MAX_IO_BAR     256u

int pci_add_bar(struct pci_function *fn, unsigned index, enum pci_bar_type type,
                const struct io_region *region)
{
    bool io = type == PCI_BAR_IO, wide = type == PCI_BAR_MEM64;
    uint64_t size = region->size;
    if (fn->plugged || type == PCI_BAR_NONE || index + wide >= PCI_BARS || !size || size & (size - 1) ||
        size < (io ? MIN_IO_BAR : MIN_MEMORY_BAR) || size > (io ? MAX_IO_BAR : PCI_MAX_BAR_SIZE))
        return -EINVAL;
    if (fn->bars[index].type != PCI_BAR_NONE || (wide && fn->bars[index + 1].type != PCI_BAR_NONE) ||
        (index && fn->bars[index - 1].type == PCI_BAR_MEM64))
        return -EINVAL;
    struct pci_bar *bar = &fn->bars[index];
    *bar = (struct pci_bar){.type = type, .region = *region};
    fn->config[PCI_BAR(index)] = io ? PCI_BAR_IS_IO : wide ? PCI_BAR_IS_64 : 0;
    uint64_t mask = ~(size - 1);
    put_le32(fn->writable + PCI_BAR(index), (uint32_t)mask);
    if (wide)
        put_le32(fn->writable + PCI_BAR(index + 1), (uint32_t)(mask >> 32));
    return 0;
}

int pci_add_doorbell(struct pci_function *fn, unsigned bar, uint32_t offset, unsigned size, int fd)
{
    if (fn->plugged || bar >= PCI_BARS || size > 8 || size & (size - 1))
        return -EINVAL;
    const struct pci_bar *b = &fn->bars[bar];
    if ((b->type != PCI_BAR_MEM32 && b->type != PCI_BAR_MEM64) || offset + (uint64_t)size > b->region.size)
        return -EINVAL;
    struct pci_doorbell *more = reallocarray(fn->doorbells, fn->n_doorbells + 1, sizeof(*more));
    if (!more)
        return -ENOMEM;
    fn->doorbells = more;
    more[fn->n_doorbells++] = (struct pci_doorbell){.bar = bar, .offset = offset, .size = size, .fd = fd};
    return 0;
}

/* First fit: the lowest aligned address in [base, base + window) that no BAR's home touches. Homes lie in the
 * space of ports or of memory, which do not overlap as numbers. */
static uint64_t find_home(const struct pci_bus *bus, const struct pci_function *self, uint64_t base,
                          uint64_t window, uint64_t size)
{
    uint64_t at = ALIGN_UP(base, size);
    bool moved;
    do {
        moved = false;
        for (unsigned i = 0; i <= ARRAY_SIZE(bus->functions); i++) {
            const struct pci_function *fn = i < ARRAY_SIZE(bus->functions) ? bus->functions[i] : self;
            for (unsigned b = 0; fn && b < PCI_BARS; b++) {
                uint64_t home = fn->bars[b].home, end = home + fn->bars[b].region.size;
                if (home && at < end && home < at + size) {
                    at = ALIGN_UP(end, size);
                    moved = true;
                }
            }
        }
    } while (moved);
    return at + size <= base + window ? at : 0;
}

int pci_place_bars_locked(struct pci_function *fn)
{
    for (unsigned i = 0; i < PCI_BARS; i++)
        fn->bars[i].home = 0;
    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct pci_bar *bar = &fn->bars[i];
        if (bar->type == PCI_BAR_NONE)
            continue;
        bool io = bar->type == PCI_BAR_IO;
        /* Pages are the unit of protection: no two BARs in one. */
        uint64_t size = !io && bar->region.size < GUEST_PAGE_SIZE ? GUEST_PAGE_SIZE : bar->region.size;
        bar->home = find_home(fn->bus, fn, io ? PCI_PIO_BASE : PCI_MMIO_BASE,
                              io ? PCI_PIO_SIZE : PCI_MMIO_SIZE, size);
        if (!bar->home)
            return -ENOSPC;
        uint8_t *reg = fn->config + PCI_BAR(i);
        put_le32(reg, (uint32_t)bar->home | (get_le32(reg) & 0xf));
    }
    return 0;
}

static bool overlaps_ram(const struct guest_memory *mem, uint64_t base, uint64_t size)
{
    for (unsigned i = 0; i < mem->n_blocks; i++)
        if (base < mem->blocks[i].gpa + mem->blocks[i].size && mem->blocks[i].gpa < base + size)
            return true;
    return false;
}

/* Where BAR `index` should answer now; false if nowhere. RAM is never covered, and the ends of the address
 * space, where BARs are while their size is being found out, mean nowhere. */
static bool wanted_base(const struct pci_function *fn, unsigned index, uint64_t *base)
{
    const struct pci_bar *bar = &fn->bars[index];
    uint16_t command = get_le16(fn->config + PCI_COMMAND);
    bool io = bar->type == PCI_BAR_IO;
    if (bar->type == PCI_BAR_NONE || !(command & (io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
        return false;
    uint64_t at = get_le32(fn->config + PCI_BAR(index)) & (io ? ~3u : ~15u);
    if (bar->type == PCI_BAR_MEM64)
        at |= (uint64_t)get_le32(fn->config + PCI_BAR(index + 1)) << 32;
    uint64_t end = io ? 0x10000 : bar->type == PCI_BAR_MEM32 ? 1ull << 32 : UINT64_MAX;
    if (!at || at >= end || bar->region.size >= end - at)
        return false;
    if (!io && overlaps_ram(fn->bus->env->memory, at, bar->region.size))
        return false;
    *base = at;
    return true;
}

static struct io_space *space_of(const struct pci_function *fn, const struct pci_bar *bar)
{
    return bar->type == PCI_BAR_IO ? fn->bus->env->pio : fn->bus->env->mmio;
}

static struct io_doorbell doorbell_at(const struct pci_bar *bar, const struct pci_doorbell *bell)
{
    return (struct io_doorbell){.addr = bar->region.base + bell->offset, .size = bell->size, .fd = bell->fd};
}

static void unmap_bar(struct pci_function *fn, unsigned index)
{
    struct pci_bar *bar = &fn->bars[index];
    for (size_t i = 0; i < fn->n_doorbells; i++)
        if (fn->doorbells[i].bar == index) {
            struct io_doorbell bell = doorbell_at(bar, &fn->doorbells[i]);
            io_space_remove_doorbell(space_of(fn, bar), &bell);
        }
    io_space_remove(space_of(fn, bar), &bar->region);
    bar->mapped = false;
}

/* An address that something else already has stays with that; this BAR gets it when it becomes free, for each
 * change tries again. A doorbell that can't be had costs speed only: the region's callback is called. */
static void map_bar(struct pci_function *fn, unsigned index, uint64_t base)
{
    struct pci_bar *bar = &fn->bars[index];
    bar->region.base = base;
    if (io_space_add(space_of(fn, bar), &bar->region) < 0)
        return;
    bar->mapped = true;
    for (size_t i = 0; i < fn->n_doorbells; i++)
        if (fn->doorbells[i].bar == index) {
            struct io_doorbell bell = doorbell_at(bar, &fn->doorbells[i]);
            io_space_add_doorbell(space_of(fn, bar), &bell);
        }
}

void pci_unmap_function_locked(struct pci_function *fn)
{
    for (unsigned i = 0; i < PCI_BARS; i++)
        if (fn->bars[i].mapped)
            unmap_bar(fn, i);
}

/* First all that leaves, then all that comes, so that two BARs may change places. */
void pci_update_mappings_locked(struct pci_bus *bus)
{
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned f = 0; f < ARRAY_SIZE(bus->functions); f++) {
            struct pci_function *fn = bus->functions[f];
            for (unsigned i = 0; fn && i < PCI_BARS; i++) {
                uint64_t base = 0;
                bool wanted = wanted_base(fn, i, &base);
                if (pass == 0 && fn->bars[i].mapped && (!wanted || base != fn->bars[i].region.base))
                    unmap_bar(fn, i);
                else if (pass == 1 && wanted && !fn->bars[i].mapped)
                    map_bar(fn, i, base);
            }
        }
}

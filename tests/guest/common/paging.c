/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pages of RAM and the page tables of a test guest. Single-threaded: to be used by CPU 0 only. */
#include "guest_priv.h"

#define RAM_LIMIT 0x100000000ull /* what start.S maps one to one */

static uint64_t next_page, end_of_ram;

void page_init(void)
{
    next_page = (uint64_t)guest_image_end;
    /* Boot data and modules above the image must stay: begin behind them. */
    for (unsigned i = 0; i < guest_boot.n_modules; i++)
        if (guest_boot.modules[i].end > next_page)
            next_page = (guest_boot.modules[i].end + 4095) & ~4095ull;
    for (unsigned i = 0; i < guest_boot.n_ranges; i++) {
        const struct guest_range *r = &guest_boot.ranges[i];

        if (r->type == 1 && next_page - r->base < r->size)
            end_of_ram = r->base + r->size;
    }
    if (end_of_ram > RAM_LIMIT)
        end_of_ram = RAM_LIMIT;
}

void *page_alloc(void)
{
    if (next_page + 4096 > end_of_ram) {
        print("not ok: out of memory at 0x%lx\n", next_page);
        guest_exit(GUEST_FAILED);
    }
    void *page = (void *)next_page;
    next_page += 4096;
    return memset(page, 0, 4096);
}

uint64_t *page_entry(uint64_t va, unsigned level)
{
    uint64_t *table = (uint64_t *)(read_cr3() & PAGE_FRAME);

    for (unsigned l = 4; l > level; l--) {
        uint64_t *entry = &table[va >> (12 + 9 * (l - 1)) & 511];

        if (!(*entry & PAGE_PRESENT))
            *entry = (uint64_t)page_alloc() | PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER;
        table = (uint64_t *)(*entry & PAGE_FRAME);
    }
    return &table[va >> (12 + 9 * (level - 1)) & 511];
}

void page_map(uint64_t va, uint64_t pa, uint64_t flags)
{
    *page_entry(va, 1) = (pa & PAGE_FRAME) | flags;
    invlpg((void *)va);
}

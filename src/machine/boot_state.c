/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The processor states that boot protocols ask for, with the tables in memory that they stand on.
 * Descriptors: SDM vol. 3A 3.4.5; page tables: SDM vol. 3A 4.5.
 */
#include "machine/boot_priv.h"

#include "base/bytes.h"

#include <errno.h>

#define BOOT_CS 0x10 /* as Linux's boot protocols name them; PVH and Multiboot leave them open */
#define BOOT_DS 0x18
#define BOOT_TR 0x20

#define CR0_PE    (1ull << 0)
#define CR0_ET    (1ull << 4)
#define CR0_PG    (1ull << 31)
#define CR4_PAE   (1ull << 5)
#define EFER_LME  (1ull << 8)
#define EFER_LMA  (1ull << 10)
#define PTE_P     (1ull << 0)
#define PTE_RW    (1ull << 1)
#define PTE_LARGE (1ull << 7)

#define CODE32 (CPU_ATTR_G | CPU_ATTR_DB | CPU_ATTR_P | CPU_ATTR_S | 0xb)
#define CODE64 (CPU_ATTR_G | CPU_ATTR_L | CPU_ATTR_P | CPU_ATTR_S | 0xb)
#define DATA32 (CPU_ATTR_G | CPU_ATTR_DB | CPU_ATTR_P | CPU_ATTR_S | 0x3)
#define TSS32  (CPU_ATTR_P | 0xb) /* busy */

/*
 * The descriptor of a segment:
 *   63..56     55..52  51..48       47..40        39..16      15..0
 *   base 31-24 G D L A limit 19-16  P DPL S type  base 23-0   limit 15-0
 */
static uint64_t descriptor(const struct cpu_segment_state *s)
{
    uint64_t limit = s->attr & CPU_ATTR_G ? s->limit >> 12 : s->limit;

    return (limit & 0xffff) | (s->base & 0xffffff) << 16 | (uint64_t)(s->attr & 0xf0ff) << 40 |
           (limit >> 16 & 0xf) << 48 | (s->base >> 24 & 0xff) << 56;
}

static int load_flat_segments(struct cpu_state *state, struct boot_area *area, uint16_t code,
                              struct error **err)
{
    uint64_t gpa;
    uint8_t *gdt = boot_area_alloc(area, 5 * 8, 16, &gpa, err);

    if (!gdt)
        return -E2BIG;
    for (int i = 0; i < CPU_SEGMENTS; i++)
        state->seg[i] = (struct cpu_segment_state){.limit = 0xffffffff, .attr = DATA32, .selector = BOOT_DS};
    state->seg[CPU_CS].attr = code;
    state->seg[CPU_CS].selector = BOOT_CS;
    state->tr = (struct cpu_segment_state){.limit = 0x67, .attr = TSS32, .selector = BOOT_TR};
    put_le64(gdt + BOOT_CS, descriptor(&state->seg[CPU_CS]));
    put_le64(gdt + BOOT_DS, descriptor(&state->seg[CPU_DS]));
    put_le64(gdt + BOOT_TR, descriptor(&state->tr));
    state->gdt = (struct cpu_table_state){.base = gpa, .limit = 5 * 8 - 1};
    state->idt = (struct cpu_table_state){0};
    state->rflags = 2;
    state->gpr[CPU_RDX] = 0;
    return 0;
}

int boot_state_protected(struct cpu_state *state, struct boot_area *area, uint64_t entry, struct error **err)
{
    int rc = load_flat_segments(state, area, CODE32, err);

    if (rc)
        return rc;
    state->cr0 = CR0_PE | CR0_ET;
    state->rip = entry;
    return 0;
}

int boot_state_long(struct cpu_state *state, struct boot_area *area, uint64_t entry, struct error **err)
{
    int rc = load_flat_segments(state, area, CODE64, err);
    uint64_t pml4_gpa = 0;

    if (rc)
        return rc;
    /* One PML4, one PDPT, four page directories of 2 MiB pages. */
    uint8_t *tables = boot_area_alloc(area, 6 * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE, &pml4_gpa, err);
    if (!tables)
        return -E2BIG;
    uint8_t *pdpt = tables + GUEST_PAGE_SIZE, *pd = pdpt + GUEST_PAGE_SIZE;
    put_le64(tables, (pml4_gpa + GUEST_PAGE_SIZE) | PTE_P | PTE_RW);
    for (uint64_t i = 0; i < 4; i++)
        put_le64(pdpt + 8 * i, (pml4_gpa + (2 + i) * GUEST_PAGE_SIZE) | PTE_P | PTE_RW);
    for (uint64_t i = 0; i < 4 * 512; i++)
        put_le64(pd + 8 * i, i << 21 | PTE_P | PTE_RW | PTE_LARGE);
    state->cr0 = CR0_PE | CR0_ET | CR0_PG;
    state->cr3 = pml4_gpa;
    state->cr4 = CR4_PAE;
    state->efer = EFER_LME | EFER_LMA;
    state->rip = entry;
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The common case of a miss in the software TLB and in the jump cache: 64-bit paging, a page of RAM that
 * needs no accessed or dirty bit set; for code, a block that there is. Compiled without vector registers, so
 * that the guest's can stay where they are; calls nothing outside this file.
 */
#include "engine/soft/paging.h"
#include "engine/soft/soft_priv.h"

/* The leaf entry for `linear` with the rights of all levels in its W, U and NX bits; 0 for anything out of
 * the ordinary. */
static uint64_t leaf(const struct soft_vcpu *c, uint64_t linear, unsigned *shift)
{
    uint64_t table = c->cr3, rights = PTE_W | PTE_U, no_exec = 0;
    uint64_t reserved = PTE_ADDRESS & ~((1ull << c->soft->phys_bits) - 1);

    if (!(c->efer & EFER_NX))
        reserved |= PTE_NX;
    for (*shift = 39;; *shift -= 9) {
        const uint64_t *at =
            guest_memory_at(c->soft->memory, (table & PTE_ADDRESS) | (((linear >> *shift) & 511) << 3), 8);
        uint64_t e = at ? __atomic_load_n(at, __ATOMIC_ACQUIRE) : 0;

        if ((e & (PTE_P | PTE_A)) != (PTE_P | PTE_A) || (e & reserved))
            return 0;
        rights &= e;
        no_exec |= e & PTE_NX;
        bool large = e & PTE_PS;
        if (*shift == 12 || (large && *shift <= 30)) {
            if (*shift != 12 && (e & PTE_ADDRESS & ((1ull << *shift) - 1) & ~0x1fffull))
                return 0;
            return (e & ~(PTE_W | PTE_U)) | rights | no_exec;
        }
        if (large)
            return 0;
        table = e;
    }
}

static uint64_t physical(uint64_t entry, unsigned shift, uint64_t linear)
{
    uint64_t mask = (1ull << shift) - 1;

    return (entry & PTE_ADDRESS & ~mask) | (linear & mask);
}

void soft_note_jump(struct soft_vcpu *c, enum soft_mmu mmu, const struct soft_block *b, bool global)
{
    struct soft_jump_cache *j = &c->jump[mmu];
    struct soft_fills *fills = &c->jump_fills[mmu];
    uint32_t i = soft_jump_index(c->rip);

    __atomic_store_n(&j->at[i].code, (uint64_t)(uintptr_t)(c->soft->cache + b->code), __ATOMIC_RELAXED);
    __atomic_store_n(&j->at[i].tag, -c->rip, __ATOMIC_SEQ_CST);
    if (!soft_block_valid(b)) /* who made it so may have looked here before */
        __atomic_store_n(&j->at[i].tag, soft_jump_empty(i), __ATOMIC_RELAXED);
    if (fills->n < JUMPS_MAX)
        c->jump_at[mmu][fills->n] = (uint16_t)i;
    fills->n++;
    fills->nonglobal += !global;
    fills->low |= !(c->rip >> 63);
    unsigned page = soft_jump_page(c->rip);
    c->jump_pages[mmu][page / 64] |= 1ull << page % 64;
}

uint64_t soft_fast_find(struct soft_vcpu *c)
{
    const struct soft_exit *x = (const struct soft_exit *)(uintptr_t)c->exit_link;
    enum soft_mmu mmu = soft_key_mmu(c->key);
    uint64_t rip = c->rip;
    unsigned shift;

    if (__atomic_load_n(&c->pending, __ATOMIC_RELAXED) || atomic_load(&c->jump_stale) ||
        x->kind == EXIT_KIND_DIRECT || !(c->key & KEY_CODE64) || (rip & 4095) > 4096 - 15 ||
        !soft_canonical(rip))
        return 0;
    __builtin_prefetch(&c->jump[mmu].at[soft_jump_index(rip)], 1);
    uint64_t e = leaf(c, rip, &shift);
    if (!e || (e & PTE_NX) || (mmu == MMU_USER ? !(e & PTE_U) : (e & PTE_U) && (c->cr4 & CR4_SMEP)))
        return 0;
    uint64_t page_rip = soft_page_rip(c->key, rip);
    const struct soft_block *b =
        soft_cache_find(c->soft, rip - page_rip, 0, physical(e, shift, rip), NO_PAGE - 1, c->key);
    if (!b)
        return 0;
    bool global = (e & PTE_G) && (c->cr4 & CR4_PGE);
    soft_note_page_size(c, rip, shift, global);
    c->page_rip = page_rip;
    c->exit_link = 0;
    soft_note_jump(c, mmu, b, global);
    return (uint64_t)(uintptr_t)(c->soft->cache + b->code);
}

/* The page of `linear`, which is canonical, in the TLB from now on; NULL if more is to be done for it. */
static uint8_t *take_in(struct soft_vcpu *c, uint64_t linear, bool write)
{
    enum soft_mmu mmu = soft_key_mmu(c->key);
    unsigned shift;
    uint64_t e = leaf(c, linear, &shift);

    if (!e || (write && (e & (PTE_W | PTE_D)) != (PTE_W | PTE_D)))
        return NULL;
    if (mmu == MMU_USER ? !(e & PTE_U) : (e & PTE_U) && mmu == MMU_KERNEL)
        return NULL;
    uint64_t gpa = physical(e, shift, linear);
    uint8_t *page = guest_memory_at(c->soft->memory, gpa & ~4095ull, 4096);
    if (!page || (write && soft_is_guarded_page(c->soft, gpa)))
        return NULL;
    bool global = (e & PTE_G) && (c->cr4 & CR4_PGE);
    soft_note_page_size(c, linear, shift, global);
    soft_tlb_fill(c, mmu, linear, write, page, global);
    return page;
}

uint64_t soft_fast_access(struct soft_vcpu *c, const struct soft_site *site)
{
    uint64_t linear = c->slow_address;

    if ((site->flags & SITE_CHECKED) || (c->key & (KEY_CODE64 | KEY_DEBUG | KEY_AC)) != KEY_CODE64 ||
        (linear & 4095) + site->size > 4096 || !soft_canonical(linear) ||
        !soft_offset_allowed(c, site->segment, linear, site->size))
        return 1;
    uint8_t *page = take_in(c, linear, site->flags & SITE_WRITE);
    if (!page)
        return 1;
    c->host_gpr[site->s1] = (uint64_t)(uintptr_t)page + (linear & 4095);
    c->host_gpr[site->s2] = 0;
    c->resume = (uint64_t)(uintptr_t)(c->soft->cache + site->resume);
    return 0;
}

uint64_t soft_fast_string(struct soft_vcpu *c, const struct soft_call *call)
{
    bool moves = (call->insn.opcode & ~1u) == 0xa4, any = false;

    for (unsigned write = !moves; write < 2; write++) {
        uint64_t linear = c->gpr[write ? CPU_RDI : CPU_RSI];
        if (c->tlb[soft_key_mmu(c->key)][write].tag[(linear >> 12) & (TLB_SIZE - 1)] == -(linear & ~4095ull))
            continue;
        if (!soft_canonical(linear) || !take_in(c, linear, write))
            return 1;
        any = true;
    }
    return !any;
}

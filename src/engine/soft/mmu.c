/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Paging (SDM vol. 3A chapter 4): the walk of the guest's page tables, the software TLBs and jump caches that
 * keep its results, and guest-virtual memory for C code. Called in the vCPU's own thread.
 */
#include "engine/soft/paging.h"
#include "engine/soft/soft_priv.h"

#include "base/bytes.h"
#include "engine/soft/lapic.h"

#include <string.h>

#define PF_P    1u
#define PF_W    2u
#define PF_U    4u
#define PF_RSVD 8u
#define PF_I    16u

uint8_t *soft_ram_page(const struct soft *s, uint64_t gpa)
{
    return guest_memory_at(s->memory, gpa & ~4095ull, 4096);
}

/* ---- the walk ---- */

static int page_fault(struct soft_vcpu *c, uint64_t linear, uint32_t error)
{
    c->fault = (struct soft_fault){.vector = VEC_PF, .has_error = true, .error = error, .cr2 = linear};
    return SOFT_FAULT;
}

struct walk {
    struct soft_vcpu *c;
    uint64_t linear;
    unsigned access;
    bool user;      /* a user-mode access */
    bool open;      /* a supervisor access that SMAP lets through */
    uint32_t error; /* the error code's W, U and I bits */
    bool writable, user_page, no_exec;
    void *leaf; /* host pointer of the last entry */
    uint64_t entry;
    unsigned shift; /* of the page */
};

static uint64_t reserved_bits(const struct soft_vcpu *c)
{
    uint64_t r = 0x000fffffffffffffull & ~((1ull << c->soft->phys_bits) - 1);

    return c->efer & EFER_NX ? r : r | PTE_NX;
}

/* Set the accessed (and dirty) bit; the entry may change under us, then the walk starts again (false). */
static bool set_bits(void *at, uint64_t old, uint64_t bits, bool wide)
{
    if ((old & bits) == bits)
        return true;
    if (wide) {
        uint64_t expected = old;
        return __atomic_compare_exchange_n((uint64_t *)at, &expected, old | bits, false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_RELAXED);
    }
    uint32_t expected = (uint32_t)old;
    return __atomic_compare_exchange_n((uint32_t *)at, &expected, (uint32_t)(old | bits), false,
                                       __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

enum level_result { LEVEL_DOWN, LEVEL_LEAF, LEVEL_FAULT, LEVEL_AGAIN };

/* One 8-byte entry at `table`. `shift`: what a page at this level would be. */
static enum level_result level(struct walk *w, uint64_t table, unsigned shift, bool rights)
{
    uint64_t gpa = (table & PTE_ADDRESS) | (((w->linear >> shift) & 511) << 3);
    uint64_t *at = guest_memory_at(w->c->soft->memory, gpa, 8);
    uint64_t entry = at ? __atomic_load_n(at, __ATOMIC_ACQUIRE) : 0;

    if (!(entry & PTE_P))
        return LEVEL_FAULT;
    bool large = shift > 12 && (entry & PTE_PS) && shift <= 30;
    uint64_t reserved = reserved_bits(w->c);
    if (shift == 39)
        reserved |= PTE_PS;
    if (large)
        reserved |= ((1ull << shift) - 1) & ~0x1fffull;
    if (!rights)
        reserved = 0; /* a PDPTE of PAE paging has been checked when CR3 was loaded */
    if (entry & reserved) {
        w->error |= PF_P | PF_RSVD;
        return LEVEL_FAULT;
    }
    if (rights) {
        w->writable &= (entry & PTE_W) != 0;
        w->user_page &= (entry & PTE_U) != 0;
        w->no_exec |= (entry & PTE_NX) != 0;
    }
    w->leaf = at;
    w->entry = entry;
    w->shift = shift;
    if (shift == 12 || large)
        return LEVEL_LEAF;
    return !rights || set_bits(at, entry, PTE_A, true) ? LEVEL_DOWN : LEVEL_AGAIN;
}

static enum level_result walk_64(struct walk *w, unsigned top)
{
    uint64_t table = w->c->cr3;

    if (top == 30)
        table &= 0xffffffe0;
    for (unsigned shift = top;; shift -= 9) {
        enum level_result r;
        if (top == 30 && shift == 30) {
            /* PAE's four pointers stand at any 32-byte boundary. */
            uint64_t *at = guest_memory_at(w->c->soft->memory, table + ((w->linear >> 30) & 3) * 8, 8);
            w->entry = at ? *at : 0;
            if (!(w->entry & PTE_P))
                return LEVEL_FAULT;
            r = LEVEL_DOWN;
        } else {
            r = level(w, table, shift, true);
        }
        if (r != LEVEL_DOWN)
            return r;
        table = w->entry;
    }
}

static enum level_result walk_32(struct walk *w)
{
    uint64_t table = w->c->cr3 & 0xfffff000;

    for (unsigned shift = 22;; shift -= 10) {
        uint32_t *at = guest_memory_at(w->c->soft->memory, table | (((w->linear >> shift) & 1023) << 2), 4);
        uint32_t entry = at ? __atomic_load_n(at, __ATOMIC_ACQUIRE) : 0;

        if (!(entry & PTE_P))
            return LEVEL_FAULT;
        w->writable &= (entry & PTE_W) != 0;
        w->user_page &= (entry & PTE_U) != 0;
        w->leaf = at;
        w->entry = entry;
        w->shift = shift;
        if (shift == 12)
            return LEVEL_LEAF;
        if ((entry & PTE_PS) && (w->c->cr4 & CR4_PSE)) {
            if (entry & (1u << 21)) {
                w->error |= PF_P | PF_RSVD;
                return LEVEL_FAULT;
            }
            return LEVEL_LEAF;
        }
        if (!set_bits(at, entry, PTE_A, false))
            return LEVEL_AGAIN;
        table = entry & 0xfffff000;
    }
}

/* SDM vol. 3A 4.6. */
static bool permitted(const struct walk *w)
{
    const struct soft_vcpu *c = w->c;
    unsigned kind = w->access & ACCESS_KIND;

    if (kind == ACCESS_EXEC && w->no_exec)
        return false;
    if (w->user)
        return w->user_page && (kind != ACCESS_WRITE || w->writable);
    if (w->user_page) {
        if (kind == ACCESS_EXEC && (c->cr4 & CR4_SMEP))
            return false;
        if (kind != ACCESS_EXEC && !w->open)
            return false;
    }
    return kind != ACCESS_WRITE || w->writable || !(c->cr0 & CR0_WP);
}

static uint64_t leaf_address(const struct walk *w, bool wide)
{
    uint64_t mask = (1ull << w->shift) - 1;
    uint64_t base = w->entry & PTE_ADDRESS;

    if (!wide && w->shift == 22) /* PSE-36 */
        base = (w->entry & 0xffc00000) | (w->entry & 0x1fe000) << 19;
    return (base & ~mask) | (w->linear & mask);
}

int soft_walk(struct soft_vcpu *c, uint64_t linear, unsigned access, enum soft_mmu mmu, struct soft_walk *out)
{
    unsigned kind = access & ACCESS_KIND;
    bool wide = c->cr4 & CR4_PAE;

    if (!(c->cr0 & CR0_PG)) {
        *out = (struct soft_walk){.gpa = linear, .global = false};
        return SOFT_NEXT;
    }
    for (;;) {
        struct walk w = {.c = c, .linear = linear, .access = access, .writable = true, .user_page = true};
        w.user = mmu == MMU_USER && !(access & ACCESS_SYSTEM);
        w.open = !(c->cr4 & CR4_SMAP) || (!(access & ACCESS_SYSTEM) && mmu == MMU_KERNEL_AC);
        w.error = (kind == ACCESS_WRITE ? PF_W : 0) | (w.user ? PF_U : 0);
        if (kind == ACCESS_EXEC && ((c->cr4 & CR4_SMEP) || (wide && (c->efer & EFER_NX))))
            w.error |= PF_I;
        enum level_result r = c->efer & EFER_LMA ? walk_64(&w, 39) : wide ? walk_64(&w, 30) : walk_32(&w);
        if (r == LEVEL_AGAIN)
            continue;
        if (r == LEVEL_FAULT)
            return page_fault(c, linear, w.error);
        if (!permitted(&w))
            return page_fault(c, linear, w.error | PF_P);
        if (!set_bits(w.leaf, w.entry, kind == ACCESS_WRITE ? PTE_A | PTE_D : PTE_A, wide))
            continue;
        *out = (struct soft_walk){.gpa = leaf_address(&w, wide),
                                  .global = (w.entry & PTE_G) && (c->cr4 & CR4_PGE)};
        soft_note_page_size(c, linear, w.shift, out->global);
        return SOFT_NEXT;
    }
}

/* ---- the TLBs ---- */

static uint64_t empty_tag(unsigned index)
{
    /* No address of this index, nor one that runs into the next page, hits a page of the other half. */
    return index < TLB_SIZE / 2 ? 0x1000 : (uint64_t) - (5ll << 12);
}

static void clear_tlb(struct soft_tlb *tlb)
{
    for (unsigned i = 0; i < TLB_SIZE / 2; i++)
        tlb->tag[i] = 0x1000;
    for (unsigned i = TLB_SIZE / 2; i < TLB_SIZE; i++)
        tlb->tag[i] = (uint64_t) - (5ll << 12);
}

static void forget_returns(struct soft_vcpu *c, enum soft_mmu mmu)
{
    memset(c->returns[mmu].code, 0, sizeof(c->returns[mmu].code));
}

void soft_jump_flush(struct soft_vcpu *c, enum soft_mmu mmu)
{
    struct soft_fills *fills = &c->jump_fills[mmu];
    bool listed = fills->n <= JUMPS_MAX;

    for (unsigned n = 0; n < (listed ? fills->n : JC_SIZE); n++) {
        unsigned i = listed ? c->jump_at[mmu][n] : n;
        __atomic_store_n(&c->jump[mmu].at[i].tag, soft_jump_empty(i), __ATOMIC_RELAXED);
    }
    /* The code that is being executed may go on without a look-up. */
    *fills = (struct soft_fills){.low = (mmu == MMU_USER) == (c->cpl == 3) && !(c->rip >> 63)};
    memset(c->jump_pages[mmu], 0, sizeof(c->jump_pages[mmu]));
    forget_returns(c, mmu);
}

static void flush_tlb_mode(struct soft_vcpu *c, enum soft_mmu mmu, bool all)
{
    struct soft_fills *fills = &c->tlb_fills[mmu];

    if (!all && fills->nonglobal <= NONGLOBAL_MAX) {
        for (unsigned n = 0; n < fills->nonglobal; n++) {
            unsigned i = c->nonglobal_at[mmu][n] & (TLB_SIZE - 1);
            c->tlb[mmu][(c->nonglobal_at[mmu][n] & NONGLOBAL_WRITE) != 0].tag[i] = empty_tag(i);
        }
        fills->nonglobal = 0;
    } else if (fills->n) {
        clear_tlb(&c->tlb[mmu][0]);
        clear_tlb(&c->tlb[mmu][1]);
        *fills = (struct soft_fills){0};
    }
}

static void flush_jump_mode(struct soft_vcpu *c, enum soft_mmu mmu, bool all)
{
    struct soft_fills *fills = &c->jump_fills[mmu];

    if (all ? !fills->n : !fills->nonglobal)
        return;
    soft_jump_flush(c, mmu);
}

static void note_flush(struct soft_vcpu *c)
{
    c->flushes++;
    c->n_flushed = 0;
}

static void forget_large(struct soft_large *large)
{
    if (large->any)
        *large = (struct soft_large){0};
}

void soft_tlb_flush(struct soft_vcpu *c, bool all)
{
    note_flush(c);
    for (unsigned mmu = 0; mmu < MMU_MODES; mmu++) {
        flush_tlb_mode(c, (enum soft_mmu)mmu, all);
        flush_jump_mode(c, (enum soft_mmu)mmu, all);
        forget_returns(c, (enum soft_mmu)mmu);
    }
    forget_large(&c->large[0]);
    if (all)
        forget_large(&c->large[1]);
}

void soft_tlb_drop_write(struct soft_vcpu *c, const uint8_t *page)
{
    for (unsigned mmu = 0; mmu < MMU_MODES; mmu++) {
        struct soft_tlb *tlb = &c->tlb[mmu][1];
        for (unsigned i = 0; i < TLB_SIZE && c->tlb_fills[mmu].n; i++) {
            if (tlb->addend[i] - tlb->tag[i] == (uint64_t)(uintptr_t)page)
                tlb->tag[i] = empty_tag(i);
        }
    }
}

static void forget_jumps(struct soft_vcpu *c, enum soft_mmu mmu, uint64_t page)
{
    struct soft_jump_cache *j = &c->jump[mmu];
    unsigned bit = soft_jump_page(page);

    if (!(c->jump_pages[mmu][bit / 64] >> bit % 64 & 1))
        return;
    /* The indices of half a page follow each other, four bytes to each. */
    for (uint64_t half = page; half != page + 4096; half += 1u << JUMP_MIX) {
        for (uint32_t n = 0, first = soft_jump_index(half); n <= 1u << JUMP_MIX >> 2; n++) {
            uint32_t at = (first + n) & (JC_SIZE - 1);
            if (-__atomic_load_n(&j->at[at].tag, __ATOMIC_RELAXED) - page < 4096)
                __atomic_store_n(&j->at[at].tag, soft_jump_empty(at), __ATOMIC_RELAXED);
        }
    }
}

/* How many bytes around `linear` may belong to one page, as a power of two. */
static unsigned largest_page(const struct soft_vcpu *c, uint64_t linear)
{
    uint64_t number = linear >> 21;
    unsigned word = number % LARGE_REGIONS / 64;

    if (((c->large[0].gigabytes | c->large[1].gigabytes) >> (number >> 9) % 64) & 1)
        return 30;
    if (((c->large[0].regions[word] | c->large[1].regions[word]) >> number % 64) & 1)
        return c->cr4 & CR4_PAE ? 21 : 22;
    return 12;
}

void soft_tlb_flush_page(struct soft_vcpu *c, uint64_t linear)
{
    unsigned shift = largest_page(c, linear);
    uint64_t size = 1ull << shift, base = linear & -size;
    uint64_t pages = shift < 30 ? size >> 12 : TLB_SIZE;
    bool user = !(linear >> 63);

    if (user && c->n_flushed == FLUSHED_MAX)
        note_flush(c);
    else if (user)
        c->flushed[c->n_flushed++] = linear;
    for (unsigned mmu = 0; mmu < MMU_MODES; mmu++) {
        for (uint64_t n = 0; n < pages; n++) {
            unsigned i = (unsigned)((base >> 12) + n) & (TLB_SIZE - 1);
            for (unsigned write = 0; write < 2; write++) {
                if (-c->tlb[mmu][write].tag[i] - base < size)
                    c->tlb[mmu][write].tag[i] = empty_tag(i);
            }
        }
        if (user && !c->jump_fills[mmu].low) /* a kernel's, as a rule */
            continue;
        if (shift == 30) {
            soft_jump_flush(c, (enum soft_mmu)mmu);
            continue;
        }
        forget_returns(c, (enum soft_mmu)mmu);
        /* Blocks of these pages, and those of the page before that run into them. */
        for (uint64_t page = base - 4096; page != base + size; page += 4096)
            forget_jumps(c, (enum soft_mmu)mmu, page);
    }
}

bool soft_page_watched(const struct soft_vcpu *c, uint64_t linear)
{
    if (!(c->key & KEY_DEBUG))
        return false;
    for (unsigned n = 0; n < 4; n++) {
        if (((c->dr[7] >> (2 * n)) & 3) && !((c->dr[n] ^ linear) >> 12))
            return true;
    }
    return false;
}

/* ---- memory for C code ---- */

uint64_t soft_mmio_read(struct soft_vcpu *c, uint64_t gpa, unsigned size)
{
    uint64_t apic = c->lapic ? gpa - lapic_page(c->lapic) : UINT64_MAX;

    if (apic < 4096)
        return size == 4 && !(apic & 15) ? lapic_read(c->lapic, (unsigned)apic) : 0;
    if (!c->soft->config.mmio)
        return UINT64_MAX;
    return io_space_read(c->soft->config.mmio, gpa, size);
}

void soft_mmio_write(struct soft_vcpu *c, uint64_t gpa, unsigned size, uint64_t value)
{
    uint64_t apic = c->lapic ? gpa - lapic_page(c->lapic) : UINT64_MAX;

    if (apic < 4096) {
        if (!(apic & 3))
            lapic_write(c->lapic, (unsigned)apic, (uint32_t)value);
        return;
    }
    if (c->soft->config.mmio)
        io_space_write(c->soft->config.mmio, gpa, size, value);
}

int soft_translate(struct soft_vcpu *c, uint64_t linear, unsigned access, uint64_t *gpa)
{
    struct soft_walk w;

    if ((c->efer & EFER_LMA) && !soft_canonical(linear))
        return soft_raise_error(c, VEC_GP, 0);
    int rc = soft_walk(c, linear, access, soft_key_mmu(c->key), &w);
    if (rc == SOFT_NEXT)
        *gpa = w.gpa;
    return rc;
}

/* Single copies where size and alignment allow them, so that other vCPUs never see half a value. */
static void copy(void *to, const void *from, unsigned len)
{
    uintptr_t both = (uintptr_t)to | (uintptr_t)from;

    if (len == 8 && !(both & 7))
        __atomic_store_n((uint64_t *)to, __atomic_load_n((const uint64_t *)from, __ATOMIC_RELAXED),
                         __ATOMIC_RELEASE);
    else if (len == 4 && !(both & 3))
        __atomic_store_n((uint32_t *)to, __atomic_load_n((const uint32_t *)from, __ATOMIC_RELAXED),
                         __ATOMIC_RELEASE);
    else if (len == 2 && !(both & 1))
        __atomic_store_n((uint16_t *)to, __atomic_load_n((const uint16_t *)from, __ATOMIC_RELAXED),
                         __ATOMIC_RELEASE);
    else
        memcpy(to, from, len);
}

void soft_physical(struct soft_vcpu *c, uint64_t gpa, uint8_t *buf, unsigned len, bool write)
{
    uint8_t *host = guest_memory_at(c->soft->memory, gpa, len);

    if (host && write && soft_is_rom(c->soft, gpa))
        return;
    if (host) {
        copy(write ? (void *)host : buf, write ? buf : (void *)host, len);
        if (write)
            soft_cache_written(c->soft, gpa, len);
        return;
    }
    while (len) {
        unsigned n = len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
        uint64_t v = 0;
        if (write) {
            memcpy(&v, buf, n);
            soft_mmio_write(c, gpa, n, v);
        } else {
            v = soft_mmio_read(c, gpa, n);
            memcpy(buf, &v, n);
        }
        gpa += n;
        buf += n;
        len -= n;
    }
}

int soft_check_alignment(struct soft_vcpu *c, uint64_t linear, unsigned size)
{
    unsigned align = size == 10 ? 8 : size == 32 ? 16 : size;

    if (!(c->key & KEY_AC) || (align & (align - 1)) || align > 16 || !(linear & (align - 1)))
        return SOFT_NEXT;
    return soft_raise_error(c, VEC_AC, 0);
}

/* Whose TLB an access has: implicit supervisor accesses never reach user pages under SMAP. */
static enum soft_mmu mode_of(const struct soft_vcpu *c, unsigned access)
{
    if (access & ACCESS_SYSTEM)
        return c->cr4 & CR4_SMAP ? MMU_KERNEL : MMU_KERNEL_AC;
    return soft_key_mmu(c->key);
}

int soft_host_pointer(struct soft_vcpu *c, uint64_t linear, unsigned access, uint8_t **host)
{
    bool write = (access & ACCESS_KIND) == ACCESS_WRITE;
    enum soft_mmu mmu = mode_of(c, access);
    unsigned i = (linear >> 12) & (TLB_SIZE - 1);
    struct soft_tlb *tlb = &c->tlb[mmu][write];
    struct soft_walk w;

    if (tlb->tag[i] == -(linear & ~4095ull)) {
        *host = (uint8_t *)(uintptr_t)(linear + tlb->addend[i]);
        return SOFT_NEXT;
    }
    if ((c->efer & EFER_LMA) && !soft_canonical(linear))
        return soft_raise_error(c, VEC_GP, 0);
    int rc = soft_walk(c, linear, access, mmu, &w);
    if (rc != SOFT_NEXT)
        return rc;
    uint8_t *page = soft_ram_page(c->soft, w.gpa);
    if (!page || soft_page_watched(c, linear) || (write && soft_is_guarded_page(c->soft, w.gpa))) {
        *host = NULL;
        return SOFT_NEXT;
    }
    soft_tlb_fill(c, mmu, linear, write, page, w.global);
    *host = page + (linear & 4095);
    return SOFT_NEXT;
}

static int access_memory(struct soft_vcpu *c, uint64_t linear, uint8_t *buf, unsigned len, unsigned access)
{
    bool write = (access & ACCESS_KIND) == ACCESS_WRITE;
    unsigned first = 4096 - (unsigned)(linear & 4095);
    uint64_t gpa, gpa2 = 0;

    if (!len)
        return SOFT_NEXT;
    if (first > len)
        first = len;
    if (!(access & (ACCESS_SYSTEM | ACCESS_ANY_ALIGNMENT)) && len != 10 &&
        soft_check_alignment(c, linear, len))
        return SOFT_FAULT;
    if (first == len && !(c->key & KEY_DEBUG)) {
        uint8_t *host;
        if (soft_host_pointer(c, linear, access, &host) != SOFT_NEXT)
            return SOFT_FAULT;
        if (host) {
            copy(write ? (void *)host : buf, write ? buf : (void *)host, len);
            return SOFT_NEXT;
        }
    }
    int rc = soft_translate(c, linear, access, &gpa);
    if (rc == SOFT_NEXT && first < len) {
        uint64_t second = linear + first;
        if (!(c->efer & EFER_LMA))
            second = (uint32_t)second;
        rc = soft_translate(c, second, access, &gpa2);
    }
    if (rc != SOFT_NEXT)
        return rc;
    if (c->key & KEY_DEBUG)
        c->debug_hits |= soft_debug_match(c, linear, len, write ? DEBUG_WRITE : DEBUG_READ);
    soft_physical(c, gpa, buf, first, write);
    if (first < len)
        soft_physical(c, gpa2, buf + first, len - first, write);
    return SOFT_NEXT;
}

int soft_read(struct soft_vcpu *c, uint64_t linear, void *buf, unsigned len, unsigned access)
{
    return access_memory(c, linear, buf, len, (access & ~ACCESS_KIND) | ACCESS_READ);
}

int soft_write(struct soft_vcpu *c, uint64_t linear, const void *buf, unsigned len, unsigned access)
{
    return access_memory(c, linear, (uint8_t *)buf, len, (access & ~ACCESS_KIND) | ACCESS_WRITE);
}

/* A locked operand: the physical addresses of its one or two pages, and where it can be worked on in place,
 * or NULL. */
static int rmw_locate(struct soft_vcpu *c, uint64_t linear, unsigned size, uint64_t gpa[2], unsigned *first,
                      void **host)
{
    *first = 4096 - (unsigned)(linear & 4095);
    if (*first > size)
        *first = size;
    int rc = soft_translate(c, linear, ACCESS_WRITE, &gpa[0]);
    if (rc == SOFT_NEXT && *first < size)
        rc = soft_translate(c, linear + *first, ACCESS_WRITE, &gpa[1]);
    if (rc != SOFT_NEXT)
        return rc;
    *host = soft_is_rom(c->soft, gpa[0]) ? NULL : guest_memory_at(c->soft->memory, gpa[0], size);
    if (*first < size && gpa[1] != gpa[0] + *first)
        *host = NULL;
    return SOFT_NEXT;
}

int soft_rmw_begin(struct soft_vcpu *c, uint64_t linear, unsigned size, void **host)
{
    uint64_t gpa[2];
    unsigned first;
    int rc = soft_check_alignment(c, linear, size);

    if (rc == SOFT_NEXT)
        rc = rmw_locate(c, linear, size, gpa, &first, host);
    if (rc != SOFT_NEXT || *host)
        return rc;
    if (soft_must_be_alone(c))
        return SOFT_JUMP;
    /* A device, or two pages that are apart: on a copy, which soft_rmw_end puts back. */
    uint8_t *copy_at = c->bounce + (linear & 63);
    soft_physical(c, gpa[0], copy_at, first, false);
    if (first < size)
        soft_physical(c, gpa[1], copy_at + first, size - first, false);
    *host = copy_at;
    return SOFT_NEXT;
}

int soft_rmw_end(struct soft_vcpu *c, uint64_t linear, unsigned size)
{
    uint64_t gpa[2];
    unsigned first;
    void *host;
    int rc = rmw_locate(c, linear, size, gpa, &first, &host);

    if (rc != SOFT_NEXT)
        return rc;
    if (c->key & KEY_DEBUG)
        c->debug_hits |= soft_debug_match(c, linear, size, DEBUG_WRITE);
    if (host) {
        soft_cache_written(c->soft, gpa[0], size);
        return SOFT_NEXT;
    }
    uint8_t *copy_at = c->bounce + (linear & 63);
    soft_physical(c, gpa[0], copy_at, first, true);
    if (first < size)
        soft_physical(c, gpa[1], copy_at + first, size - first, true);
    return SOFT_NEXT;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What translated code does when its look-up in the TLB misses. Called from the stubs in the vCPU's thread,
 * with the host's registers in host_gpr; of the guest's registers those in `slots` are in gpr already, the
 * rest in host_gpr.
 *
 * A page of RAM goes into the TLB, and the access is done in place. What can't be reached by a pointer (a
 * device, an operand over two pages that are apart) is copied to the bounce buffer, at the same alignment;
 * the native instruction works on it, and soft_slow_post stores the result. Stores to pages with translated
 * code are done in place and reported by soft_slow_post, so that no vCPU can translate the old bytes after we
 * have invalidated.
 */
#include "engine/soft/soft_priv.h"

#include "base/bytes.h"

#include <string.h>

static void merge_registers(struct soft_vcpu *c, uint16_t slots)
{
    for (unsigned r = 0; r < CPU_GPRS; r++) {
        if (!(slots & (1u << r)))
            c->gpr[r] = c->host_gpr[r];
    }
}

static void set_rip(struct soft_vcpu *c, const struct soft_site *site, unsigned offset)
{
    c->rip = c->page_rip + c->soft->blocks[site->block].rip + offset;
}

/* What the processor would have raised before it looked at the memory operand. */
static void prior_fault(struct soft_vcpu *c, const struct soft_site *site)
{
    uint16_t fsw = get_le16(c->xsave + 2);

    if ((site->flags & SITE_WAITS) && (c->xsave[512] & 1) && (fsw & 0x80))
        soft_raise(c, VEC_MF);
    else if ((site->flags & SITE_ALIGNED) && (c->slow_address & (site->size - 1u)))
        soft_raise_error(c, VEC_GP, 0);
}

static uint64_t fault(struct soft_vcpu *c, const struct soft_site *site)
{
    if (site->flags & (SITE_ALIGNED | SITE_WAITS))
        prior_fault(c, site);
    merge_registers(c, site->slots);
    set_rip(c, site, site->insn);
    return LEFT_FAULT;
}

static int linear_address(struct soft_vcpu *c, const struct soft_site *site, uint64_t *linear)
{
    if (site->flags & SITE_CHECKED)
        return soft_linear(c, site->segment, c->slow_address, site->size, site->flags & SITE_WRITE, linear);
    *linear = c->slow_address;
    if (!soft_is64(c)) {
        *linear = (uint32_t)*linear;
        return SOFT_NEXT;
    }
    if (soft_canonical(*linear) && soft_canonical(*linear + site->size - 1) &&
        soft_offset_allowed(c, site->segment, *linear, site->size))
        return SOFT_NEXT;
    return soft_raise_error(c, site->segment == CPU_SS ? VEC_SS : VEC_GP, 0);
}

static void go_on(struct soft_vcpu *c, const struct soft_site *site, const void *host, bool post)
{
    c->host_gpr[site->s1] = (uint64_t)(uintptr_t)host;
    c->host_gpr[site->s2] = 0;
    uint32_t at = post ? c->soft->blocks[site->block].cold + site->post : site->resume;
    c->resume = (uint64_t)(uintptr_t)(c->soft->cache + at);
}

/* The access can't be done with one pointer into a page of the TLB. */
static uint64_t special(struct soft_vcpu *c, const struct soft_site *site, uint64_t linear)
{
    bool write = site->flags & SITE_WRITE;
    unsigned access = write ? ACCESS_WRITE : ACCESS_READ;
    unsigned first = 4096 - (unsigned)(linear & 4095);

    if (first > site->size)
        first = site->size;
    int rc = soft_translate(c, linear, access, &c->post.gpa[0]);
    if (rc == SOFT_NEXT && first < site->size) {
        uint64_t second = linear + first;
        rc = soft_translate(c, soft_is64(c) ? second : (uint32_t)second, access, &c->post.gpa[1]);
    }
    if (rc != SOFT_NEXT)
        return fault(c, site);
    c->post.first = (uint8_t)first;
    c->post.bounced = false;
    uint8_t *host = guest_memory_at(c->soft->memory, c->post.gpa[0], site->size);
    if (write && soft_is_rom(c->soft, c->post.gpa[0]))
        host = NULL;
    if (host && (first == site->size || c->post.gpa[1] == c->post.gpa[0] + first)) {
        go_on(c, site, host, write);
        return 0;
    }
    if ((site->flags & SITE_LOCKED) && soft_must_be_alone(c)) {
        merge_registers(c, site->slots);
        set_rip(c, site, site->insn);
        return LEFT_NEXT;
    }
    /* The same alignment as the guest's address, for instructions that insist on one. */
    host = c->bounce + (linear & 63);
    if (site->flags & SITE_READ) {
        soft_physical(c, c->post.gpa[0], host, first, false);
        if (first < site->size)
            soft_physical(c, c->post.gpa[1], host + first, site->size - first, false);
    }
    c->post.bounced = true;
    go_on(c, site, host, write);
    return 0;
}

uint64_t soft_slow_access(struct soft_vcpu *c, const struct soft_site *site)
{
    uint64_t linear;
    uint8_t *host = NULL;
    bool write = site->flags & SITE_WRITE;

    c->stats.slow_accesses++;
    if (linear_address(c, site, &linear) != SOFT_NEXT ||
        soft_check_alignment(c, linear, site->size) != SOFT_NEXT)
        return fault(c, site);
    if (c->key & KEY_DEBUG)
        c->debug_hits |= soft_debug_match(c, linear, site->size, write ? DEBUG_WRITE : DEBUG_READ);
    if ((linear & 4095) + site->size <= 4096) {
        if (soft_host_pointer(c, linear, write ? ACCESS_WRITE : ACCESS_READ, &host) != SOFT_NEXT)
            return fault(c, site);
        if (host) {
            go_on(c, site, host, false);
            return 0;
        }
    }
    return special(c, site, linear);
}

uint64_t soft_slow_post(struct soft_vcpu *c, const struct soft_site *site)
{
    unsigned second = site->size - c->post.first;
    const struct soft_block *b = &c->soft->blocks[site->block];

    if (c->post.bounced) {
        uint8_t *from = c->bounce + (c->post.gpa[0] & 63); /* pages keep the low bits */
        soft_physical(c, c->post.gpa[0], from, c->post.first, true);
        if (second)
            soft_physical(c, c->post.gpa[1], from + c->post.first, second, true);
    } else {
        soft_cache_written(c->soft, c->post.gpa[0], c->post.first);
        if (second)
            soft_cache_written(c->soft, c->post.gpa[1], second);
    }
    if (soft_block_valid(b) || (site->flags & SITE_LAST)) {
        c->resume = (uint64_t)(uintptr_t)(c->soft->cache + site->resume + site->after);
        return 0;
    }
    /* The store has changed the very block: what follows may not be what was translated. */
    merge_registers(c, site->slots_after);
    set_rip(c, site, site->insn + site->length);
    return LEFT_NEXT;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptor tables and the loading of data and stack segments (SDM vol. 3A chapters 3 and 5). Called by
 * handlers, far transfers and the delivery of exceptions, in the vCPU's own thread; no locks.
 *
 *  63      56 55 54 53 52 51    48 47 46 45 44 43   40 39             16 15           0
 * | base 31:24 | G | D | L |AVL| limit | P | DPL | S | type | base 23:0      | limit 15:0 |
 */
#include "base/bytes.h"
#include "engine/soft/handlers.h"

int soft_raise_selector(struct soft_vcpu *c, enum soft_vector vector, uint16_t selector, unsigned ext)
{
    return soft_raise_error(c, vector, (selector & 0xfffcu) | ext);
}

static void descriptor_decode(const struct soft_vcpu *c, uint16_t selector, struct soft_descriptor *d)
{
    uint64_t low = d->low;
    uint32_t limit = (low & 0xffff) | (low >> 32 & 0xf0000);

    d->seg.selector = selector;
    d->seg.attr = low >> 40 & 0xf0ff;
    d->seg.base = (low >> 16 & 0xffffff) | (low >> 32 & 0xff000000);
    d->seg.limit = d->seg.attr & CPU_ATTR_G ? limit << 12 | 0xfff : limit;
    if (soft_long(c) && !(d->seg.attr & CPU_ATTR_S))
        d->seg.base |= d->high << 32;
}

int soft_descriptor_try(struct soft_vcpu *c, uint16_t selector, struct soft_descriptor *d, bool *ok)
{
    bool local = selector & 4;
    uint32_t offset = selector & 0xfff8u;
    uint32_t limit = local ? c->ldtr.limit : c->gdt.limit;
    uint64_t base = local ? c->ldtr.base : c->gdt.base;
    uint8_t bytes[8];

    *ok = false;
    if (soft_selector_null(selector) || (local && !(c->ldtr.attr & CPU_ATTR_P)) || offset + 7 > limit)
        return SOFT_NEXT;
    d->linear = soft_long(c) ? base + offset : (uint32_t)(base + offset);
    if (soft_read(c, d->linear, bytes, sizeof(bytes), ACCESS_READ | ACCESS_SYSTEM))
        return SOFT_FAULT;
    d->low = get_le64(bytes);
    d->high = 0;
    if (soft_long(c) && !(d->low >> 40 & CPU_ATTR_S)) {
        if (offset + 15 > limit)
            return SOFT_NEXT;
        if (soft_read(c, d->linear + 8, bytes, sizeof(bytes), ACCESS_READ | ACCESS_SYSTEM))
            return SOFT_FAULT;
        d->high = get_le64(bytes);
    }
    descriptor_decode(c, selector, d);
    *ok = true;
    return SOFT_NEXT;
}

int soft_descriptor_read(struct soft_vcpu *c, uint16_t selector, enum soft_vector vector, unsigned ext,
                         struct soft_descriptor *d)
{
    bool ok;

    if (soft_descriptor_try(c, selector, d, &ok))
        return SOFT_FAULT;
    return ok ? SOFT_NEXT : soft_raise_selector(c, vector, selector, ext);
}

int soft_descriptor_mark_accessed(struct soft_vcpu *c, struct soft_descriptor *d)
{
    uint8_t type;

    if (d->seg.attr & CPU_ATTR_ACCESSED)
        return SOFT_NEXT;
    d->seg.attr |= CPU_ATTR_ACCESSED;
    d->low |= 1ull << 40;
    type = (uint8_t)(d->low >> 40);
    return soft_write(c, d->linear + 5, &type, 1, ACCESS_WRITE | ACCESS_SYSTEM);
}

int soft_stack_segment_read(struct soft_vcpu *c, uint16_t selector, unsigned dpl, enum soft_vector vector,
                            unsigned ext, struct soft_descriptor *d)
{
    const unsigned kind = CPU_ATTR_S | CPU_ATTR_CODE | CPU_ATTR_RW;

    if (soft_descriptor_read(c, selector, vector, ext, d))
        return SOFT_FAULT;
    if ((selector & 3u) != dpl || (d->seg.attr & kind) != (CPU_ATTR_S | CPU_ATTR_RW) ||
        soft_attr_dpl(d->seg.attr) != dpl)
        return soft_raise_selector(c, vector, selector, ext);
    if (!(d->seg.attr & CPU_ATTR_P))
        return soft_raise_selector(c, VEC_SS, selector, ext);
    return soft_descriptor_mark_accessed(c, d);
}

void soft_load_segment_real(struct soft_vcpu *c, unsigned seg, uint16_t selector)
{
    struct cpu_segment_state *s = &c->seg[seg];

    s->selector = selector;
    s->base = (uint64_t)selector << 4;
    /* Limit and size stay what protected mode left (big real mode), unless that was a null segment. */
    if (!(s->attr & CPU_ATTR_P))
        s->limit = 0xffff;
    if (seg != CPU_CS)
        s->attr = (s->attr & (CPU_ATTR_DB | CPU_ATTR_G)) | CPU_ATTR_P | CPU_ATTR_S | CPU_ATTR_RW |
                  CPU_ATTR_ACCESSED;
}

static int load_stack_segment(struct soft_vcpu *c, uint16_t selector)
{
    struct soft_descriptor d;

    if (soft_selector_null(selector)) {
        /* Allowed in 64-bit mode but at CPL 3: SS is not used there. */
        if (!soft_is64(c) || c->cpl == 3 || (selector & 3) != c->cpl)
            return soft_raise_error(c, VEC_GP, 0);
        c->seg[CPU_SS] = (struct cpu_segment_state){.selector = selector,
                                                    .attr = (uint16_t)(c->cpl << CPU_ATTR_DPL_SHIFT)};
        return SOFT_NEXT;
    }
    if (soft_stack_segment_read(c, selector, c->cpl, VEC_GP, 0, &d))
        return SOFT_FAULT;
    c->seg[CPU_SS] = d.seg;
    return SOFT_NEXT;
}

static int load_data_segment(struct soft_vcpu *c, unsigned seg, uint16_t selector)
{
    struct soft_descriptor d;
    unsigned attr;

    if (soft_selector_null(selector)) {
        c->seg[seg] = (struct cpu_segment_state){.selector = selector};
        return SOFT_NEXT;
    }
    if (soft_descriptor_read(c, selector, VEC_GP, 0, &d))
        return SOFT_FAULT;
    attr = d.seg.attr;
    if (!(attr & CPU_ATTR_S) || (attr & (CPU_ATTR_CODE | CPU_ATTR_RW)) == CPU_ATTR_CODE)
        return soft_raise_selector(c, VEC_GP, selector, 0);
    if ((attr & (CPU_ATTR_CODE | CPU_ATTR_CONFORMING)) != (CPU_ATTR_CODE | CPU_ATTR_CONFORMING)) {
        unsigned dpl = soft_attr_dpl(attr);

        if ((selector & 3u) > dpl || c->cpl > dpl)
            return soft_raise_selector(c, VEC_GP, selector, 0);
    }
    if (!(attr & CPU_ATTR_P))
        return soft_raise_selector(c, VEC_NP, selector, 0);
    if (soft_descriptor_mark_accessed(c, &d))
        return SOFT_FAULT;
    c->seg[seg] = d.seg;
    return SOFT_NEXT;
}

int soft_load_segment(struct soft_vcpu *c, unsigned seg, uint16_t selector)
{
    if (seg >= CPU_SEGMENTS || seg == CPU_CS)
        return soft_raise(c, VEC_UD);
    if (!soft_protected(c)) {
        soft_load_segment_real(c, seg, selector);
        return SOFT_NEXT;
    }
    return seg == CPU_SS ? load_stack_segment(c, selector) : load_data_segment(c, seg, selector);
}

void soft_null_data_segments(struct soft_vcpu *c)
{
    static const uint8_t data[] = {CPU_ES, CPU_FS, CPU_GS, CPU_DS};

    for (unsigned k = 0; k < ARRAY_SIZE(data); k++) {
        struct cpu_segment_state *s = &c->seg[data[k]];
        bool conforming =
            (s->attr & (CPU_ATTR_CODE | CPU_ATTR_CONFORMING)) == (CPU_ATTR_CODE | CPU_ATTR_CONFORMING);

        /* One that is null already loses its RPL, but keeps its base: in 64-bit mode FS and GS have theirs
         * from MSRs. */
        if (!(s->attr & CPU_ATTR_P))
            s->selector = 0;
        else if (!conforming && soft_attr_dpl(s->attr) < c->cpl)
            *s = (struct cpu_segment_state){0};
    }
}

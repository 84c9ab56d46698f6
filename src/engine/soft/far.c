/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Far transfers: CALL, JMP and RET to other code segments, directly or through call gates, and IRET (SDM vol.
 * 2, vol. 3A 5.8 and 6.12). Called by handlers of near and far forms of CALL, JMP and RET in op_flow.c, and
 * for IRET by the translator. The vCPU's own thread; no locks.
 *
 * There are no hardware tasks and no virtual-8086 mode: task gates, TSS selectors, IRET with NT and IRET to
 * VM86 raise #GP.
 */
#include "base/bytes.h"
#include "engine/soft/handlers.h"

void soft_set_cs(struct soft_vcpu *c, const struct soft_descriptor *d, unsigned cpl)
{
    c->seg[CPU_CS] = d->seg;
    c->seg[CPU_CS].selector = (uint16_t)((d->seg.selector & 0xfffc) | cpl);
    c->cpl = (uint8_t)cpl;
    /* Compatibility mode has no upper half of RSP. */
    if (soft_long(c) && !(d->seg.attr & CPU_ATTR_L))
        c->gpr[CPU_RSP] = (uint32_t)c->gpr[CPU_RSP];
}

static bool is_code(unsigned attr)
{
    return (attr & (CPU_ATTR_S | CPU_ATTR_CODE)) == (CPU_ATTR_S | CPU_ATTR_CODE);
}
static bool is_conforming(unsigned attr)
{
    return attr & CPU_ATTR_CONFORMING;
}
static bool is_code64(const struct soft_vcpu *c, const struct soft_descriptor *cs)
{
    return soft_long(c) && (cs->seg.attr & CPU_ATTR_L);
}

/* A target in segment `cs`: truncated as that segment's mode has it, and within its limit or canonical. */
static int check_rip(struct soft_vcpu *c, const struct soft_descriptor *cs, uint64_t *rip)
{
    if (is_code64(c, cs)) {
        if (!soft_canonical(*rip))
            return soft_raise(c, VEC_GP);
        return SOFT_NEXT;
    }
    if (!soft_is_amd(c)) /* AMD's hold all of an IRETQ's RIP against the limit */
        *rip = (uint32_t)*rip;
    return *rip > cs->seg.limit ? soft_raise(c, VEC_GP) : SOFT_NEXT;
}

/* Presence, and in IA-32e mode that not both L and D are set. */
static int check_code_usable(struct soft_vcpu *c, const struct soft_descriptor *cs)
{
    const unsigned both = CPU_ATTR_L | CPU_ATTR_DB;

    if (soft_long(c) && (cs->seg.attr & both) == both)
        return soft_raise_selector(c, VEC_GP, cs->seg.selector, 0);
    if (!(cs->seg.attr & CPU_ATTR_P))
        return soft_raise_selector(c, VEC_NP, cs->seg.selector, 0);
    return SOFT_NEXT;
}

/* ---- CALL and JMP ---- */

static int far_real(struct soft_vcpu *c, const struct soft_insn *i, uint16_t selector, uint64_t offset,
                    bool call)
{
    const uint64_t frame[] = {c->seg[CPU_CS].selector, soft_next_rip(c, i)};
    struct soft_stack st;

    if (offset > c->seg[CPU_CS].limit)
        return soft_raise(c, VEC_GP);
    if (call) {
        soft_stack_current(c, &st);
        if (soft_stack_push_all(c, &st, frame, ARRAY_SIZE(frame), i->operand_size))
            return SOFT_FAULT;
        soft_stack_commit(c, &st);
    }
    soft_load_segment_real(c, CPU_CS, selector);
    c->rip = offset;
    return SOFT_JUMP;
}

/* To a code segment at the same privilege level, pushing the return address in units of `size` for a call. */
static int enter_same_level(struct soft_vcpu *c, const struct soft_insn *i, struct soft_descriptor *cs,
                            uint64_t rip, bool call, unsigned size)
{
    const uint64_t frame[] = {c->seg[CPU_CS].selector, soft_next_rip(c, i)};
    struct soft_stack st;

    soft_stack_current(c, &st);
    if (soft_long(c) && st.flat != is_code64(c, cs)) {
        /* The return address goes where the new segment's mode has the stack. */
        st.flat = !st.flat;
        st.mask = st.flat ? UINT64_MAX : st.ss.attr & CPU_ATTR_DB ? 0xffffffffu : 0xffffu;
        st.sp &= st.mask;
    }
    /* The target is looked at after the pushes. */
    if (call && soft_stack_push_all(c, &st, frame, ARRAY_SIZE(frame), size))
        return SOFT_FAULT;
    if (check_rip(c, cs, &rip) || soft_descriptor_mark_accessed(c, cs))
        return SOFT_FAULT;
    if (call)
        soft_stack_commit(c, &st);
    soft_set_cs(c, cs, c->cpl);
    c->rip = rip;
    return SOFT_JUMP;
}

/* Parameters that a 16- or 32-bit call gate copies: the deepest first, as they are pushed again. */
static int read_parameters(struct soft_vcpu *c, unsigned count, unsigned size, uint64_t *values)
{
    struct soft_stack old;

    soft_stack_current(c, &old);
    for (unsigned k = count; k-- > 0;) {
        if (soft_stack_pop(c, &old, &values[k], size))
            return SOFT_FAULT;
    }
    return SOFT_NEXT;
}

/* A call through a gate to an inner level: a new stack from the TSS. */
static int enter_inner_level(struct soft_vcpu *c, const struct soft_insn *i, struct soft_descriptor *cs,
                             uint64_t rip, unsigned size, unsigned count)
{
    unsigned cpl = soft_attr_dpl(cs->seg.attr);
    struct soft_stack st = {.flat = true, .mask = UINT64_MAX};
    uint64_t frame[4 + 31];
    unsigned n = 0;

    if (size == 8) {
        if (soft_inner_stack_long(c, 4 + 8 * cpl, 0, &st.sp))
            return SOFT_FAULT;
        st.ss.selector = (uint16_t)cpl;
        st.ss.attr = (uint16_t)(cpl << CPU_ATTR_DPL_SHIFT);
        st.access = ACCESS_SYSTEM;
    } else if (soft_inner_stack_legacy(c, cpl, 0, &st)) {
        return SOFT_FAULT;
    }
    frame[n++] = c->seg[CPU_SS].selector;
    frame[n++] = c->gpr[CPU_RSP];
    if (read_parameters(c, count, size, frame + n))
        return SOFT_FAULT;
    n += count;
    frame[n++] = c->seg[CPU_CS].selector;
    frame[n++] = soft_next_rip(c, i);
    if (check_rip(c, cs, &rip) || soft_descriptor_mark_accessed(c, cs) ||
        soft_stack_push_all(c, &st, frame, n, size))
        return SOFT_FAULT;
    c->seg[CPU_SS] = st.ss;
    soft_stack_commit(c, &st);
    soft_set_cs(c, cs, cpl);
    c->rip = rip;
    return SOFT_JUMP;
}

static int far_gate(struct soft_vcpu *c, const struct soft_insn *i, const struct soft_descriptor *gate,
                    bool call)
{
    uint16_t selector = gate->seg.selector, target = (uint16_t)(gate->low >> 16);
    unsigned type = gate->seg.attr & CPU_ATTR_TYPE, dpl = soft_attr_dpl(gate->seg.attr);
    unsigned size = soft_long(c) ? 8 : type == TYPE_CALL ? 4 : 2;
    uint64_t rip = gate->low & 0xffff;
    struct soft_descriptor cs;
    bool inner;

    /* In IA-32e mode the second half's type field must be zero. */
    if ((type != TYPE_CALL && !(type == TYPE_CALL16 && size != 8)) || (gate->high >> 40 & 0x1f))
        return soft_raise_selector(c, VEC_GP, selector, 0);
    if (dpl < c->cpl || dpl < (selector & 3u))
        return soft_raise_selector(c, VEC_GP, selector, 0);
    if (!(gate->seg.attr & CPU_ATTR_P))
        return soft_raise_selector(c, VEC_NP, selector, 0);
    if (size > 2)
        rip |= gate->low >> 32 & 0xffff0000;
    if (size > 4)
        rip |= gate->high << 32;

    if (soft_selector_null(target))
        return soft_raise(c, VEC_GP);
    if (soft_descriptor_read(c, target, VEC_GP, 0, &cs))
        return SOFT_FAULT;
    dpl = soft_attr_dpl(cs.seg.attr);
    if (!is_code(cs.seg.attr) || dpl > c->cpl ||
        (size == 8 && (cs.seg.attr & (CPU_ATTR_L | CPU_ATTR_DB)) != CPU_ATTR_L))
        return soft_raise_selector(c, VEC_GP, target, 0);
    inner = !is_conforming(cs.seg.attr) && dpl < c->cpl;
    if (inner && !call)
        return soft_raise_selector(c, VEC_GP, target, 0);
    if (check_code_usable(c, &cs))
        return SOFT_FAULT;
    if (inner)
        return enter_inner_level(c, i, &cs, rip, size, size == 8 ? 0 : gate->low >> 32 & 0x1f);
    return enter_same_level(c, i, &cs, rip, call, size);
}

static int far_transfer(struct soft_vcpu *c, const struct soft_insn *i, uint16_t selector, uint64_t offset,
                        bool call)
{
    struct soft_descriptor d;
    unsigned dpl;

    if (!soft_protected(c))
        return far_real(c, i, selector, offset, call);
    if (soft_selector_null(selector))
        return soft_raise(c, VEC_GP);
    if (soft_descriptor_read(c, selector, VEC_GP, 0, &d))
        return SOFT_FAULT;
    if (!(d.seg.attr & CPU_ATTR_S))
        return far_gate(c, i, &d, call);
    dpl = soft_attr_dpl(d.seg.attr);
    if (!is_code(d.seg.attr))
        return soft_raise_selector(c, VEC_GP, selector, 0);
    if (is_conforming(d.seg.attr) ? dpl > c->cpl : (selector & 3u) > c->cpl || dpl != c->cpl)
        return soft_raise_selector(c, VEC_GP, selector, 0);
    if (check_code_usable(c, &d))
        return SOFT_FAULT;
    return enter_same_level(c, i, &d, offset, call, i->operand_size);
}

int soft_far_branch(struct soft_vcpu *c, const struct soft_insn *i, bool call)
{
    unsigned size = soft_pointer_size(c, i);
    uint8_t pointer[10] = {0};
    uint64_t linear;

    if (i->operand[0].kind != OPERAND_MEM)
        return far_transfer(c, i, i->imm2, soft_truncate(i->imm, size), call);
    if (soft_operand_linear(c, i, size + 2, false, &linear) ||
        soft_read(c, linear, pointer, size + 2, ACCESS_READ))
        return SOFT_FAULT;
    return far_transfer(c, i, get_le16(pointer + size), soft_truncate(get_le64(pointer), size), call);
}

/* ---- RET and IRET ---- */

struct far_return {
    uint64_t rip, rsp;
    uint16_t cs, ss;
    unsigned release; /* bytes of parameters, on both stacks */
};

static int check_return_cs(struct soft_vcpu *c, uint16_t selector, struct soft_descriptor *cs)
{
    unsigned rpl = selector & 3, dpl;

    if (soft_selector_null(selector))
        return soft_raise(c, VEC_GP);
    if (soft_descriptor_read(c, selector, VEC_GP, 0, cs))
        return SOFT_FAULT;
    dpl = soft_attr_dpl(cs->seg.attr);
    if (!is_code(cs->seg.attr) || rpl < c->cpl || (is_conforming(cs->seg.attr) ? dpl > rpl : dpl != rpl))
        return soft_raise_selector(c, VEC_GP, selector, 0);
    return check_code_usable(c, cs);
}

/* The stack segment to return to. It may be null in 64-bit mode but for CPL 3. */
static int check_return_ss(struct soft_vcpu *c, const struct soft_descriptor *cs, uint16_t selector,
                           struct soft_descriptor *ss)
{
    unsigned rpl = cs->seg.selector & 3;

    if (!soft_selector_null(selector))
        return soft_stack_segment_read(c, selector, rpl, VEC_GP, 0, ss);
    if (!is_code64(c, cs) || rpl == 3)
        return soft_raise(c, VEC_GP);
    ss->seg = (struct cpu_segment_state){.selector = selector, .attr = (uint16_t)(rpl << CPU_ATTR_DPL_SHIFT)};
    return SOFT_NEXT;
}

static int return_real(struct soft_vcpu *c, const struct far_return *r, struct soft_stack *st)
{
    if (r->rip > c->seg[CPU_CS].limit)
        return soft_raise(c, VEC_GP);
    st->sp += r->release;
    soft_stack_commit(c, st);
    soft_load_segment_real(c, CPU_CS, r->cs);
    c->rip = r->rip;
    return SOFT_JUMP;
}

/* All checks, then all changes, of a return to `cs`. `with_stack`: r holds SS:RSP, as it does for outer
 * levels.
 */
static int return_protected(struct soft_vcpu *c, const struct far_return *r, struct soft_descriptor *cs,
                            bool with_stack, struct soft_stack *st)
{
    unsigned rpl = r->cs & 3, old = c->cpl;
    struct soft_descriptor ss;
    uint64_t rip = r->rip;

    if (with_stack && check_return_ss(c, cs, r->ss, &ss))
        return SOFT_FAULT;
    if (check_rip(c, cs, &rip) || soft_descriptor_mark_accessed(c, cs))
        return SOFT_FAULT;
    if (with_stack) {
        c->seg[CPU_SS] = ss.seg;
        st->sp = r->rsp;
        st->mask = is_code64(c, cs) ? UINT64_MAX : ss.seg.attr & CPU_ATTR_DB ? 0xffffffffu : 0xffffu;
    }
    st->sp += r->release;
    soft_stack_commit(c, st);
    soft_set_cs(c, cs, rpl);
    if (rpl > old)
        soft_null_data_segments(c);
    c->rip = rip;
    return SOFT_JUMP;
}

int soft_far_return(struct soft_vcpu *c, const struct soft_insn *i, unsigned release)
{
    struct far_return r = {.release = release};
    unsigned size = i->operand_size;
    struct soft_descriptor cs;
    struct soft_stack st;
    uint64_t selector;
    bool outer;

    /* In the processor's order, which shows in page faults; of selectors it reads two bytes. */
    soft_stack_current(c, &st);
    if (soft_stack_peek(c, &st, size, &selector, 2) || soft_stack_peek(c, &st, 0, &r.rip, size))
        return SOFT_FAULT;
    st.sp = (st.sp + 2 * size) & st.mask;
    r.cs = (uint16_t)selector;
    if (!soft_protected(c))
        return return_real(c, &r, &st);
    if (check_return_cs(c, r.cs, &cs))
        return SOFT_FAULT;
    outer = (r.cs & 3) > c->cpl;
    if (outer) {
        if (soft_stack_peek(c, &st, release + size, &selector, 2) ||
            soft_stack_peek(c, &st, release, &r.rsp, size))
            return SOFT_FAULT;
        r.ss = (uint16_t)selector;
    }
    return return_protected(c, &r, &cs, outer, &st);
}

/* The flags that IRET of this operand size may change at this CPL. */
static uint64_t iret_mask(const struct soft_vcpu *c, unsigned size)
{
    uint64_t mask = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_TF | FLAG_DF | FLAG_OF | FLAG_NT;

    if (size > 2)
        mask |= FLAG_RF | FLAG_AC | FLAG_ID;
    if (c->cpl <= soft_iopl(c))
        mask |= FLAG_IF;
    if (c->cpl == 0)
        mask |= FLAG_IOPL | (size > 2 ? FLAG_VIF | FLAG_VIP : 0);
    return mask;
}

int op_iret(struct soft_vcpu *c, const struct soft_insn *i)
{
    unsigned size = i->operand_size;
    uint64_t mask = iret_mask(c, size);
    struct far_return r = {0};
    struct soft_descriptor cs;
    struct soft_stack st;
    uint64_t selector, flags;
    bool with_stack;
    int result;

    c->nmi_blocked = false; /* even if it faults (SDM vol. 3A 6.7.1) */
    if (c->nmi_pending)
        __atomic_store_n(&c->pending, 1, __ATOMIC_SEQ_CST); /* one came meanwhile */
    if (soft_protected(c) && (c->sysflags & FLAG_NT))
        return soft_raise(c, VEC_GP);
    soft_stack_current(c, &st);
    if (soft_stack_peek(c, &st, 2 * size, &flags, size) || soft_stack_peek(c, &st, size, &selector, 2) ||
        soft_stack_peek(c, &st, 0, &r.rip, size))
        return SOFT_FAULT;
    st.sp = (st.sp + 3 * size) & st.mask;
    r.cs = (uint16_t)selector;
    if (!soft_protected(c)) {
        result = return_real(c, &r, &st);
    } else {
        if (size > 2 && !soft_long(c) && c->cpl == 0 && (flags & FLAG_VM))
            return soft_raise(c, VEC_GP);
        if (check_return_cs(c, r.cs, &cs))
            return SOFT_FAULT;
        with_stack = soft_is64(c) || (r.cs & 3) > c->cpl;
        if (with_stack) {
            if (soft_stack_peek(c, &st, size, &selector, 2) || soft_stack_peek(c, &st, 0, &r.rsp, size))
                return SOFT_FAULT;
            r.ss = (uint16_t)selector;
        }
        result = return_protected(c, &r, &cs, with_stack, &st);
    }
    if (result == SOFT_JUMP)
        soft_set_rflags(c, flags, mask);
    return result;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Exceptions and interrupts: raising them, combining nested ones, and delivering them through the real-mode
 * vector table or the IDT (SDM vol. 3A chapter 6; INT n in vol. 2A). Called by the dispatcher, and by
 * handlers of software interrupts, in the vCPU's own thread; no locks.
 *
 * There are no hardware tasks: a task gate raises #GP with its TSS selector, as if that TSS were no TSS.
 */
#include "base/bytes.h"
#include "engine/soft/handlers.h"

#define DR6_BD (1u << 13)
#define DR7_GD (1u << 13)

static bool has_error_code(unsigned vector)
{
    return vector == VEC_DF || (vector >= VEC_TS && vector <= VEC_PF) || vector == VEC_AC;
}

int soft_raise_error(struct soft_vcpu *c, enum soft_vector vector, uint32_t error)
{
    c->fault = (struct soft_fault){
        .vector = (uint8_t)vector,
        .has_error = has_error_code(vector),
        .error = error,
    };
    return SOFT_FAULT;
}

int soft_raise(struct soft_vcpu *c, enum soft_vector vector)
{
    return soft_raise_error(c, vector, 0);
}

/* ---- gates ---- */

/* The error code of a fault that names an IDT entry. */
static uint32_t idt_error(const struct soft_event *ev, unsigned ext)
{
    return (uint32_t)ev->vector << 3 | 2 | ext;
}

static unsigned event_ext(const struct soft_event *ev)
{
    return ev->software ? 0 : 1;
}

static bool is_task_gate(unsigned attr)
{
    return (attr & (CPU_ATTR_S | CPU_ATTR_TYPE)) == TYPE_TASK_GATE;
}

/* Type, DPL and presence of a gate. `legacy`: those that IA-32e mode doesn't have are allowed. */
static int check_gate(struct soft_vcpu *c, const struct soft_event *ev, unsigned attr, bool legacy)
{
    unsigned ext = event_ext(ev);
    unsigned type = attr & (CPU_ATTR_S | 0xe); /* trap gates have the lowest bit set */

    if (type != TYPE_INT && !(legacy && (type == TYPE_INT16 || is_task_gate(attr))))
        return soft_raise_error(c, VEC_GP, idt_error(ev, ext));
    if (ev->software && soft_attr_dpl(attr) < c->cpl)
        return soft_raise_error(c, VEC_GP, idt_error(ev, ext));
    if (!(attr & CPU_ATTR_P))
        return soft_raise_error(c, VEC_NP, idt_error(ev, ext));
    return SOFT_NEXT;
}

/* The code segment that a gate names; `cpl` gets the privilege level of the handler. */
static int read_target(struct soft_vcpu *c, uint16_t selector, unsigned ext, struct soft_descriptor *d,
                       unsigned *cpl)
{
    unsigned attr;

    if (soft_selector_null(selector))
        return soft_raise_error(c, VEC_GP, ext);
    if (soft_descriptor_read(c, selector, VEC_GP, ext, d))
        return SOFT_FAULT;
    attr = d->seg.attr;
    if ((attr & (CPU_ATTR_S | CPU_ATTR_CODE)) != (CPU_ATTR_S | CPU_ATTR_CODE) || soft_attr_dpl(attr) > c->cpl)
        return soft_raise_selector(c, VEC_GP, selector, ext);
    if (!(attr & CPU_ATTR_P))
        return soft_raise_selector(c, VEC_NP, selector, ext);
    if (soft_long(c) && (attr & (CPU_ATTR_L | CPU_ATTR_DB)) != CPU_ATTR_L)
        return soft_raise_selector(c, VEC_GP, selector, ext);
    *cpl = attr & CPU_ATTR_CONFORMING ? c->cpl : soft_attr_dpl(attr);
    return SOFT_NEXT;
}

/* What every delivery ends with, when nothing can fail any more. */
static int enter_handler(struct soft_vcpu *c, uint64_t rip, bool interrupt_gate, uint64_t clear)
{
    c->rip = rip;
    soft_set_rflags(c, 0, clear | (interrupt_gate ? FLAG_IF : 0));
    c->halted = false;
    c->shadow = 0;
    c->entered = true;
    soft_update_key(c);
    return SOFT_JUMP;
}

/* ---- stacks from the TSS ---- */

static int tss_fault(struct soft_vcpu *c, unsigned ext)
{
    return soft_raise_selector(c, VEC_TS, c->tr.selector, ext);
}

int soft_inner_stack_long(struct soft_vcpu *c, unsigned offset, unsigned ext, uint64_t *rsp)
{
    uint8_t bytes[8];

    if (!(c->tr.attr & CPU_ATTR_P) || offset + 7 > c->tr.limit)
        return tss_fault(c, ext);
    if (soft_read(c, c->tr.base + offset, bytes, sizeof(bytes), ACCESS_READ | ACCESS_SYSTEM))
        return SOFT_FAULT;
    *rsp = get_le64(bytes);
    return SOFT_NEXT;
}

int soft_inner_stack_legacy(struct soft_vcpu *c, unsigned dpl, unsigned ext, struct soft_stack *st)
{
    bool wide = (c->tr.attr & 0xd) == TYPE_TSS;
    unsigned offset = wide ? 4 + 8 * dpl : 2 + 4 * dpl;
    unsigned last = offset + (wide ? 5 : 3);
    struct soft_descriptor d;
    uint8_t bytes[6];
    uint16_t selector;

    if (!(c->tr.attr & CPU_ATTR_P) || last > c->tr.limit)
        return tss_fault(c, ext);
    if (soft_read(c, (uint32_t)(c->tr.base + offset), bytes, wide ? 6 : 4, ACCESS_READ | ACCESS_SYSTEM))
        return SOFT_FAULT;
    selector = wide ? get_le16(bytes + 4) : get_le16(bytes + 2);
    if (soft_selector_null(selector))
        return soft_raise_error(c, VEC_TS, ext);
    if (soft_stack_segment_read(c, selector, dpl, VEC_TS, ext, &d))
        return SOFT_FAULT;
    *st = (struct soft_stack){
        .ss = d.seg,
        .sp = wide ? get_le32(bytes) : get_le16(bytes),
        .mask = d.seg.attr & CPU_ATTR_DB ? 0xffffffffu : 0xffffu,
        .access = ACCESS_SYSTEM,
        .error = (selector & 0xfffcu) | ext,
    };
    st->sp &= st->mask;
    return SOFT_NEXT;
}

/* ---- the three ways of delivery ---- */

static int deliver_real(struct soft_vcpu *c, const struct soft_event *ev)
{
    const uint64_t frame[] = {ev->rflags & 0xffff, c->seg[CPU_CS].selector, ev->rip & 0xffff};
    struct soft_stack st;
    uint8_t bytes[4];

    if (ev->vector * 4u + 3 > c->idt.limit)
        return soft_raise_error(c, VEC_GP, idt_error(ev, event_ext(ev)));
    if (soft_read(c, (uint32_t)(c->idt.base + ev->vector * 4u), bytes, 4, ACCESS_READ | ACCESS_SYSTEM))
        return SOFT_FAULT;
    if (get_le16(bytes) > c->seg[CPU_CS].limit)
        return soft_raise(c, VEC_GP);
    soft_stack_current(c, &st);
    if (soft_stack_push_all(c, &st, frame, ARRAY_SIZE(frame), 2))
        return SOFT_FAULT;
    soft_stack_commit(c, &st);
    soft_load_segment_real(c, CPU_CS, get_le16(bytes + 2));
    return enter_handler(c, get_le16(bytes), true, FLAG_TF | FLAG_AC | FLAG_RF);
}

/*
 * A gate of 8 bytes:  63 offset 31:16 48 | P DPL 0 D 1 1 T | 00000000 32 | selector | offset 15:0
 */
static int deliver_protected(struct soft_vcpu *c, const struct soft_event *ev)
{
    unsigned ext = event_ext(ev);
    struct soft_descriptor cs;
    struct soft_stack st;
    uint64_t frame[6], gate, rip;
    unsigned n = 0, attr, cpl, size;
    uint8_t bytes[8];

    if (ev->vector * 8u + 7 > c->idt.limit)
        return soft_raise_error(c, VEC_GP, idt_error(ev, ext));
    if (soft_read(c, (uint32_t)(c->idt.base + ev->vector * 8u), bytes, 8, ACCESS_READ | ACCESS_SYSTEM))
        return SOFT_FAULT;
    gate = get_le64(bytes);
    attr = gate >> 40 & 0xff;
    if (check_gate(c, ev, attr, true))
        return SOFT_FAULT;
    if (is_task_gate(attr))
        return soft_raise_selector(c, VEC_GP, (uint16_t)(gate >> 16), ext);
    if (read_target(c, (uint16_t)(gate >> 16), ext, &cs, &cpl))
        return SOFT_FAULT;
    size = (attr & CPU_ATTR_TYPE) >= TYPE_INT ? 4 : 2;
    rip = (gate & 0xffff) | (size == 4 ? gate >> 32 & 0xffff0000 : 0);
    if (cpl < c->cpl) {
        if (soft_inner_stack_legacy(c, cpl, ext, &st))
            return SOFT_FAULT;
        frame[n++] = c->seg[CPU_SS].selector;
        frame[n++] = c->gpr[CPU_RSP];
    } else {
        soft_stack_current(c, &st);
        st.access = cpl < 3 ? ACCESS_SYSTEM : 0;
        st.error = ext;
    }
    frame[n++] = ev->rflags;
    frame[n++] = c->seg[CPU_CS].selector;
    frame[n++] = ev->rip;
    if (ev->has_error)
        frame[n++] = ev->error;
    if (soft_descriptor_mark_accessed(c, &cs) || soft_stack_push_all(c, &st, frame, n, size))
        return SOFT_FAULT;
    if (rip > cs.seg.limit)
        return soft_raise_error(c, VEC_GP, ext);
    if (cpl < c->cpl)
        c->seg[CPU_SS] = st.ss;
    soft_stack_commit(c, &st);
    soft_set_cs(c, &cs, cpl);
    return enter_handler(c, rip, !(attr & 1), FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM);
}

/*
 * A gate of 16 bytes: as above with the IST number in bits 34-32, then offset 63:32, then 32 bits of zeroes.
 */
static int deliver_long(struct soft_vcpu *c, const struct soft_event *ev)
{
    unsigned ext = event_ext(ev);
    struct soft_descriptor cs;
    struct soft_stack st = {.flat = true, .mask = UINT64_MAX, .error = ext};
    uint64_t frame[6], gate, rip;
    unsigned n = 0, attr, cpl, ist;
    uint8_t bytes[16];

    if (ev->vector * 16u + 15 > c->idt.limit)
        return soft_raise_error(c, VEC_GP, idt_error(ev, ext));
    if (soft_read(c, c->idt.base + ev->vector * 16u, bytes, 16, ACCESS_READ | ACCESS_SYSTEM))
        return SOFT_FAULT;
    gate = get_le64(bytes);
    attr = gate >> 40 & 0xff;
    ist = gate >> 32 & 7;
    rip = (gate & 0xffff) | (gate >> 32 & 0xffff0000) | (uint64_t)get_le32(bytes + 8) << 32;
    if (check_gate(c, ev, attr, false) || read_target(c, (uint16_t)(gate >> 16), ext, &cs, &cpl))
        return SOFT_FAULT;
    st.sp = c->gpr[CPU_RSP];
    if (ist) {
        if (soft_inner_stack_long(c, 0x24 + 8 * (ist - 1), ext, &st.sp))
            return SOFT_FAULT;
    } else if (cpl < c->cpl) {
        if (soft_inner_stack_long(c, 4 + 8 * cpl, ext, &st.sp))
            return SOFT_FAULT;
    }
    st.sp &= ~15ull;
    st.access = cpl < 3 ? ACCESS_SYSTEM : 0;
    frame[n++] = c->seg[CPU_SS].selector;
    frame[n++] = soft_is64(c) ? c->gpr[CPU_RSP] : (uint32_t)c->gpr[CPU_RSP];
    frame[n++] = ev->rflags;
    frame[n++] = c->seg[CPU_CS].selector;
    frame[n++] = ev->rip;
    if (ev->has_error)
        frame[n++] = ev->error;
    if (soft_descriptor_mark_accessed(c, &cs) || soft_stack_push_all(c, &st, frame, n, 8))
        return SOFT_FAULT;
    if (!soft_canonical(rip))
        return soft_raise_error(c, VEC_GP, ext);
    if (cpl < c->cpl)
        c->seg[CPU_SS] = (struct cpu_segment_state){.selector = (uint16_t)cpl,
                                                    .attr = (uint16_t)(cpl << CPU_ATTR_DPL_SHIFT)};
    soft_stack_commit(c, &st);
    soft_set_cs(c, &cs, cpl);
    return enter_handler(c, rip, !(attr & 1), FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM);
}

int soft_deliver_event(struct soft_vcpu *c, const struct soft_event *ev)
{
    if (!soft_protected(c))
        return deliver_real(c, ev);
    return soft_long(c) ? deliver_long(c, ev) : deliver_protected(c, ev);
}

/* ---- faults ---- */

static bool contributory(unsigned vector)
{
    return vector == VEC_DE || (vector >= VEC_TS && vector <= VEC_GP);
}

/* SDM vol. 3A table 6-5: whether `second`, met while `first` was delivered, makes a double fault of the two.
 */
static bool makes_double_fault(unsigned first, unsigned second)
{
    if (contributory(second))
        return contributory(first) || first == VEC_PF;
    return second == VEC_PF && first == VEC_PF;
}

/* What the processor records outside the stack frame. */
static void record_fault(struct soft_vcpu *c, const struct soft_fault *f)
{
    if (f->vector == VEC_PF)
        c->cr2 = f->cr2;
    if (f->vector == VEC_DB) {
        c->dr[6] = (c->dr[6] & ~0xfull) | f->dr6;
        c->dr[7] &= ~(uint64_t)DR7_GD;
    }
}

/* Faults push RF set, so that their instruction's breakpoint doesn't hit again; traps don't (SDM vol. 3B
 * 17.3.1.1). */
static bool pushes_rf(const struct soft_fault *f)
{
    if (f->vector == VEC_DB)
        return f->dr6 & DR6_BD;
    return f->vector != VEC_BP && f->vector != VEC_OF && f->vector != VEC_NMI && f->vector != VEC_DF;
}

int soft_deliver_fault(struct soft_vcpu *c)
{
    struct soft_fault fault = c->fault;

    for (;;) {
        struct soft_event ev = {
            .vector = fault.vector,
            .has_error = fault.has_error,
            .error = fault.error,
            .rip = c->rip,
            .rflags = soft_rflags(c),
        };

        record_fault(c, &fault);
        if (pushes_rf(&fault))
            ev.rflags |= FLAG_RF;
        if (soft_deliver_event(c, &ev) == SOFT_JUMP)
            return SOFT_JUMP;
        if (fault.vector == VEC_DF)
            return SOFT_FAULT;
        if (makes_double_fault(fault.vector, c->fault.vector)) {
            record_fault(c, &c->fault);
            soft_raise(c, VEC_DF);
        }
        fault = c->fault;
    }
}

int soft_deliver_interrupt(struct soft_vcpu *c, uint8_t vector)
{
    struct soft_event ev = {.vector = vector, .rip = c->rip, .rflags = soft_rflags(c)};

    if (soft_deliver_event(c, &ev) == SOFT_JUMP)
        return SOFT_JUMP;
    return soft_deliver_fault(c);
}

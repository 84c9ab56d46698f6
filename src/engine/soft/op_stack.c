/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PUSH and POP in all forms, PUSHA, PUSHF, ENTER, LEAVE and their counterparts (SDM vol. 2). Called from
 * translated code; the translator has emitters of its own for the plain ones in 64-bit and flat 32-bit code.
 * The vCPU's own thread; no locks.
 */
#include "engine/soft/handlers.h"

int op_push(struct soft_vcpu *c, const struct soft_insn *i)
{
    unsigned size = i->operand_size;
    struct soft_stack st;
    uint64_t value;

    if (soft_operand_read(c, i, 0, &value))
        return SOFT_FAULT;
    soft_stack_current(c, &st);
    /* A segment register in a 32-bit slot: on Intel's processors the upper half of the slot stays as it is.
     */
    if (soft_stack_push_slot(c, &st, value,
                             i->operand[0].kind == OPERAND_SEGMENT && size == 4 && !soft_is_amd(c) ? 2 : size,
                             size))
        return SOFT_FAULT;
    soft_stack_commit(c, &st);
    return SOFT_NEXT;
}

/* Of the stack's slot Intel's processors read the selector's two bytes only. */
static int pop_segment(struct soft_vcpu *c, const struct soft_insn *i)
{
    unsigned seg = i->operand[0].reg;
    struct soft_stack st;
    uint64_t value;

    soft_stack_current(c, &st);
    if (soft_stack_peek(c, &st, 0, &value, soft_is_amd(c) ? i->operand_size : 2) ||
        soft_load_segment(c, seg, (uint16_t)value))
        return SOFT_FAULT;
    st.sp = (st.sp + i->operand_size) & st.mask;
    soft_stack_commit(c, &st);
    if (seg == CPU_SS)
        c->shadow = SHADOW_SS;
    return SOFT_NEXT;
}

int op_pop(struct soft_vcpu *c, const struct soft_insn *i)
{
    const struct soft_operand *o = &i->operand[0];
    uint64_t rsp = c->gpr[CPU_RSP], value;

    if (o->kind == OPERAND_SEGMENT)
        return pop_segment(c, i);
    if (soft_pop(c, &value, i->operand_size))
        return SOFT_FAULT;
    /* RSP as the base of a memory operand is the one after the pop, and a popped RSP is what was popped. */
    if (soft_operand_write(c, i, 0, value)) {
        c->gpr[CPU_RSP] = rsp;
        return SOFT_FAULT;
    }
    return SOFT_NEXT;
}

int op_pusha(struct soft_vcpu *c, const struct soft_insn *i)
{
    struct soft_stack st;

    soft_stack_current(c, &st);
    if (soft_stack_push_all(c, &st, c->gpr, 8, i->operand_size))
        return SOFT_FAULT;
    soft_stack_commit(c, &st);
    return SOFT_NEXT;
}

/* A fault in the middle leaves the registers that were popped before it, and ESP as it was: it starts anew.
 */
int op_popa(struct soft_vcpu *c, const struct soft_insn *i)
{
    struct soft_stack st;
    uint64_t value;

    soft_stack_current(c, &st);
    for (unsigned r = 8; r-- > 0;) {
        if (soft_stack_pop(c, &st, &value, i->operand_size))
            return SOFT_FAULT;
        if (r != CPU_RSP)
            soft_reg_write(c, r, i->operand_size, false, value);
    }
    soft_stack_commit(c, &st);
    return SOFT_NEXT;
}

int op_pushf(struct soft_vcpu *c, const struct soft_insn *i)
{
    return soft_push(c, soft_rflags(c) & ~(uint64_t)(FLAG_VM | FLAG_RF), i->operand_size);
}

int op_popf(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint64_t mask = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_TF | FLAG_DF | FLAG_OF | FLAG_NT;
    uint64_t value;

    if (soft_pop(c, &value, i->operand_size))
        return SOFT_FAULT;
    if (i->operand_size > 2)
        mask |= FLAG_AC | FLAG_ID;
    if (c->cpl <= soft_iopl(c))
        mask |= FLAG_IF;
    if (c->cpl == 0)
        mask |= FLAG_IOPL;
    soft_set_rflags(c, value, mask);
    soft_set_rflags(c, 0, FLAG_RF);
    return SOFT_NEXT;
}

/* The display of enclosing frames that ENTER copies: level - 1 pointers, then the new frame's own. */
static int push_display(struct soft_vcpu *c, struct soft_stack *st, unsigned level, unsigned size,
                        uint64_t frame)
{
    struct soft_stack outer = *st;
    uint64_t pointer;

    outer.sp = c->gpr[CPU_RBP];
    for (unsigned k = 1; k < level; k++) {
        outer.sp = (outer.sp - size) & outer.mask;
        /* The pop is only for its checked read: its change of outer.sp is undone by the next step down. */
        if (soft_stack_pop(c, &outer, &pointer, size) || soft_stack_push(c, st, pointer, size))
            return SOFT_FAULT;
        outer.sp = (outer.sp - size) & outer.mask;
    }
    return soft_stack_push(c, st, frame, size);
}

int op_enter(struct soft_vcpu *c, const struct soft_insn *i)
{
    unsigned size = i->operand_size, level = i->imm2 & 31;
    struct soft_stack st;
    uint64_t frame, linear;
    uint8_t *host;

    soft_stack_current(c, &st);
    if (soft_stack_push(c, &st, c->gpr[CPU_RBP], size))
        return SOFT_FAULT;
    frame = st.sp;
    if (level && push_display(c, &st, level, size, frame))
        return SOFT_FAULT;
    st.sp = (st.sp - (uint16_t)i->imm) & st.mask;
    /* The new top of the stack must be writable, though nothing is written. */
    if (soft_linear(c, CPU_SS, st.sp, size, true, &linear) ||
        soft_host_pointer(c, linear, ACCESS_WRITE, &host))
        return SOFT_FAULT;
    soft_reg_write(c, CPU_RBP, size, false, frame);
    soft_stack_commit(c, &st);
    return SOFT_NEXT;
}

int op_leave(struct soft_vcpu *c, const struct soft_insn *i)
{
    struct soft_stack st;
    uint64_t value;

    soft_stack_current(c, &st);
    st.sp = c->gpr[CPU_RBP] & st.mask;
    if (soft_stack_pop(c, &st, &value, i->operand_size))
        return SOFT_FAULT;
    soft_reg_write(c, CPU_RBP, i->operand_size, false, value);
    soft_stack_commit(c, &st);
    return SOFT_NEXT;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stack for code in C: pushes and pops of the current mode, and stacks that a transfer uses before they
 * become the current one. Called by handlers and by the delivery of exceptions, in the vCPU's own thread; no
 * locks.
 */
#include "base/bytes.h"
#include "engine/soft/handlers.h"

void soft_stack_current(const struct soft_vcpu *c, struct soft_stack *st)
{
    *st = (struct soft_stack){.ss = c->seg[CPU_SS], .flat = soft_is64(c)};
    if (st->flat)
        st->mask = UINT64_MAX;
    else
        st->mask = c->seg[CPU_SS].attr & CPU_ATTR_DB ? 0xffffffffu : 0xffffu;
    st->sp = c->gpr[CPU_RSP] & st->mask;
}

void soft_stack_commit(struct soft_vcpu *c, const struct soft_stack *st)
{
    uint64_t keep = st->mask == 0xffff ? ~0xffffull : 0;

    c->gpr[CPU_RSP] = (c->gpr[CPU_RSP] & keep) | (st->sp & st->mask);
}

static int stack_linear(struct soft_vcpu *c, const struct soft_stack *st, uint64_t sp, unsigned size,
                        bool write, uint64_t *linear)
{
    if (!st->flat)
        return soft_segment_linear(c, &st->ss, true, sp, size, write, st->error, linear);
    if (!soft_canonical(sp) || !soft_canonical(sp + size - 1))
        return soft_raise_error(c, VEC_SS, st->error);
    *linear = sp;
    return SOFT_NEXT;
}

int soft_stack_push_slot(struct soft_vcpu *c, struct soft_stack *st, uint64_t value, unsigned size,
                         unsigned slot)
{
    uint64_t sp = (st->sp - slot) & st->mask;
    uint8_t bytes[8];
    uint64_t linear;

    put_le64(bytes, value);
    if (stack_linear(c, st, sp, size, true, &linear) ||
        soft_write(c, linear, bytes, size, ACCESS_WRITE | st->access))
        return SOFT_FAULT;
    st->sp = sp;
    return SOFT_NEXT;
}

int soft_stack_push(struct soft_vcpu *c, struct soft_stack *st, uint64_t value, unsigned size)
{
    return soft_stack_push_slot(c, st, value, size, size);
}

int soft_stack_peek(struct soft_vcpu *c, const struct soft_stack *st, unsigned offset, uint64_t *value,
                    unsigned size)
{
    uint8_t bytes[8] = {0};
    uint64_t linear;

    if (stack_linear(c, st, (st->sp + offset) & st->mask, size, false, &linear) ||
        soft_read(c, linear, bytes, size, ACCESS_READ | st->access))
        return SOFT_FAULT;
    *value = get_le64(bytes);
    return SOFT_NEXT;
}

int soft_stack_pop(struct soft_vcpu *c, struct soft_stack *st, uint64_t *value, unsigned size)
{
    if (soft_stack_peek(c, st, 0, value, size))
        return SOFT_FAULT;
    st->sp = (st->sp + size) & st->mask;
    return SOFT_NEXT;
}

int soft_stack_push_all(struct soft_vcpu *c, struct soft_stack *st, const uint64_t *values, unsigned n,
                        unsigned size)
{
    uint8_t bytes[64 * 8 + 8];
    unsigned len = n * size;
    uint64_t low = (st->sp - len) & st->mask;
    uint64_t base = st->flat ? 0 : st->ss.base;
    uint64_t linear;

    if (n == 0 || n > 64)
        return SOFT_NEXT;
    /* One by one where the frame wraps or lies in two pages: a fault then has the address of the value that
     * the processor would have pushed first. */
    if (low > ((st->sp - 1) & st->mask) || ((base + low) & 0xfff) + len > 0x1000) {
        struct soft_stack work = *st;

        for (unsigned k = 0; k < n; k++) {
            if (soft_stack_push(c, &work, values[k], size))
                return SOFT_FAULT;
        }
        *st = work;
        return SOFT_NEXT;
    }
    /* The lowest first: what each of them writes too much is overwritten by the next. */
    for (unsigned k = n; k-- > 0;)
        put_le64(bytes + len - (k + 1) * size, values[k]);
    if (stack_linear(c, st, low, len, true, &linear) ||
        (!st->access && soft_check_alignment(c, linear, size)))
        return SOFT_FAULT;
    if (soft_write(c, linear, bytes, len, ACCESS_WRITE | ACCESS_ANY_ALIGNMENT | st->access)) {
        if (c->fault.vector == VEC_PF)
            c->fault.cr2 = linear + len - size;
        return SOFT_FAULT;
    }
    st->sp = low;
    return SOFT_NEXT;
}

int soft_push(struct soft_vcpu *c, uint64_t value, unsigned size)
{
    struct soft_stack st;

    soft_stack_current(c, &st);
    if (soft_stack_push(c, &st, value, size))
        return SOFT_FAULT;
    soft_stack_commit(c, &st);
    return SOFT_NEXT;
}

int soft_pop(struct soft_vcpu *c, uint64_t *value, unsigned size)
{
    struct soft_stack st;

    soft_stack_current(c, &st);
    if (soft_stack_pop(c, &st, value, size))
        return SOFT_FAULT;
    soft_stack_commit(c, &st);
    return SOFT_NEXT;
}

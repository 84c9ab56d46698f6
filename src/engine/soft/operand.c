/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operands of instructions that are carried out in C: registers by size, effective and linear addresses with
 * the checks of segmentation or canonical form, memory. Called by handlers, and by the translator's slow
 * paths for segments that are not flat. The vCPU's own thread; no locks.
 */
#include "base/bytes.h"
#include "engine/soft/handlers.h"

uint64_t soft_reg_read(const struct soft_vcpu *c, unsigned reg, unsigned size, bool high)
{
    uint64_t value = c->gpr[reg & 15];

    return soft_truncate(high ? value >> 8 : value, size);
}

void soft_reg_write(struct soft_vcpu *c, unsigned reg, unsigned size, bool high, uint64_t value)
{
    uint64_t *r = &c->gpr[reg & 15];

    switch (size) {
    case 1:
        if (high)
            *r = (*r & ~0xff00ull) | (value & 0xff) << 8;
        else
            *r = (*r & ~0xffull) | (value & 0xff);
        break;
    case 2:
        *r = (*r & ~0xffffull) | (value & 0xffff);
        break;
    case 4:
        *r = (uint32_t)value;
        break;
    default:
        *r = value;
    }
}

uint64_t soft_effective_address(const struct soft_vcpu *c, const struct soft_insn *i)
{
    uint64_t address = (uint64_t)i->disp;

    if (i->base == INSN_RIP)
        address += c->rip + i->length;
    else if (i->base != INSN_NO_REG)
        address += c->gpr[i->base & 15];
    if (i->index != INSN_NO_REG && !i->vsib)
        address += c->gpr[i->index & 15] * i->scale;
    return soft_truncate(address, i->address_size);
}

static int segment_fault(struct soft_vcpu *c, bool stack, uint32_t error)
{
    return soft_raise_error(c, stack ? VEC_SS : VEC_GP, error);
}

/* Whether the offsets from `offset` on lie in the segment (SDM vol. 3A 5.3). A segment that ends at 4 GiB
 * lets an access wrap around, as flat ones do in translated code. */
static bool within_limit(const struct cpu_segment_state *s, uint32_t offset, unsigned size)
{
    uint64_t last = (uint64_t)offset + size - 1;

    if ((s->attr & (CPU_ATTR_S | CPU_ATTR_CODE | CPU_ATTR_CONFORMING)) == (CPU_ATTR_S | CPU_ATTR_CONFORMING))
        return offset > s->limit && last <= (s->attr & CPU_ATTR_DB ? 0xffffffffu : 0xffffu);
    return last <= s->limit || s->limit == 0xffffffffu;
}

int soft_segment_linear(struct soft_vcpu *c, const struct cpu_segment_state *s, bool stack, uint64_t offset,
                        unsigned size, bool write, uint32_t error, uint64_t *linear)
{
    if (soft_protected(c)) {
        bool code = s->attr & CPU_ATTR_CODE;
        bool rw = s->attr & CPU_ATTR_RW;

        if (!(s->attr & CPU_ATTR_P))
            return segment_fault(c, stack, error);
        if (write ? code || !rw : code && !rw)
            return segment_fault(c, stack, error);
    }
    if (!within_limit(s, (uint32_t)offset, size))
        return segment_fault(c, stack, error);
    *linear = (uint32_t)(s->base + offset);
    return SOFT_NEXT;
}

int soft_linear(struct soft_vcpu *c, unsigned seg, uint64_t offset, unsigned size, bool write,
                uint64_t *linear)
{
    if (!soft_is64(c))
        return soft_segment_linear(c, &c->seg[seg], seg == CPU_SS, offset, size, write, 0, linear);
    uint64_t address = offset + (seg == CPU_FS || seg == CPU_GS ? c->seg[seg].base : 0);
    if (!soft_canonical(address) || !soft_canonical(address + size - 1) ||
        !soft_offset_allowed(c, seg, address, size))
        return segment_fault(c, seg == CPU_SS, 0);
    *linear = address;
    return SOFT_NEXT;
}

int soft_operand_linear(struct soft_vcpu *c, const struct soft_insn *i, unsigned size, bool write,
                        uint64_t *linear)
{
    return soft_linear(c, i->segment, soft_effective_address(c, i), size, write, linear);
}

int soft_probe(struct soft_vcpu *c, uint64_t linear, unsigned access)
{
    uint64_t gpa;

    return soft_translate(c, soft_long(c) ? linear : (uint32_t)linear, access, &gpa);
}

int soft_check_access(struct soft_vcpu *c, uint64_t linear, unsigned size, unsigned access)
{
    if (soft_probe(c, linear, access))
        return SOFT_FAULT;
    return (linear & 4095) + size > 4096 ? soft_probe(c, (linear | 4095) + 1, access) : SOFT_NEXT;
}

int soft_operand_read(struct soft_vcpu *c, const struct soft_insn *i, unsigned n, uint64_t *value)
{
    const struct soft_operand *o = &i->operand[n];
    uint8_t bytes[8] = {0};
    uint64_t linear;

    switch (o->kind) {
    case OPERAND_REG:
        *value = soft_reg_read(c, o->reg, o->size, o->high);
        return SOFT_NEXT;
    case OPERAND_IMM:
        *value = i->imm;
        return SOFT_NEXT;
    case OPERAND_SEGMENT:
        *value = c->seg[o->reg % CPU_SEGMENTS].selector;
        return SOFT_NEXT;
    case OPERAND_MEM:
        if (o->size > sizeof(bytes))
            return soft_raise(c, VEC_UD);
        if (soft_operand_linear(c, i, o->size, false, &linear) ||
            soft_read(c, linear, bytes, o->size, ACCESS_READ))
            return SOFT_FAULT;
        *value = get_le64(bytes);
        return SOFT_NEXT;
    default:
        return soft_raise(c, VEC_UD);
    }
}

int soft_operand_write(struct soft_vcpu *c, const struct soft_insn *i, unsigned n, uint64_t value)
{
    const struct soft_operand *o = &i->operand[n];
    uint8_t bytes[8];
    uint64_t linear;

    switch (o->kind) {
    case OPERAND_REG:
        soft_reg_write(c, o->reg, o->size, o->high, value);
        return SOFT_NEXT;
    case OPERAND_MEM:
        if (o->size > sizeof(bytes))
            return soft_raise(c, VEC_UD);
        put_le64(bytes, value);
        if (soft_operand_linear(c, i, o->size, true, &linear))
            return SOFT_FAULT;
        return soft_write(c, linear, bytes, o->size, ACCESS_WRITE);
    default:
        return soft_raise(c, VEC_UD);
    }
}

unsigned soft_modrm_reg(const struct soft_vcpu *c, const struct soft_insn *i)
{
    /* Where the opcode starts, after prefixes, by opcode map: its length. */
    static const uint8_t opcode_length[] = {1, 2, 3, 3};
    unsigned at = 0;

    /* A REX that does not count may stand among the prefixes. */
    while (at < sizeof(i->raw) &&
           (soft_is_prefix(i->raw[at]) || (soft_is64(c) && (i->raw[at] & 0xf0) == 0x40)))
        at++;
    at += opcode_length[i->opcode_map & 3];
    return at < sizeof(i->raw) ? (i->raw[at] >> 3) & 7 : 0;
}

/* The VEX payload byte that holds L and, in the long form, W; 0 if there is no VEX prefix. */
static uint8_t vex_payload(const struct soft_insn *i, bool *long_form)
{
    unsigned at = 0;

    *long_form = false;
    while (at < sizeof(i->raw) - 2 && soft_is_prefix(i->raw[at]))
        at++;
    if (i->raw[at] == 0xc5)
        return i->raw[at + 1];
    if (i->raw[at] != 0xc4 || at + 2 >= sizeof(i->raw))
        return 0;
    *long_form = true;
    return i->raw[at + 2];
}

bool soft_vex_l(const struct soft_insn *i)
{
    bool long_form;

    return vex_payload(i, &long_form) & 0x04;
}

bool soft_vex_w(const struct soft_insn *i)
{
    bool long_form;
    uint8_t payload = vex_payload(i, &long_form);

    return long_form && (payload & 0x80);
}

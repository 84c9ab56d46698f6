/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Vector instructions that touch several places of memory, or some elements only: masked moves and gathers
 * (SDM vol. 2 MASKMOVDQU, VMASKMOV, VPMASKMOV, VGATHER). Everything else of SSE and AVX is copied to the
 * host. Called from translated code in the vCPU's own thread; no locks.
 */
#include "base/bytes.h"
#include "engine/soft/handlers.h"

/* ---- masked stores ---- */

/*
 * Writes the elements of `size` bytes whose mask byte's top bit is set to offset, offset + size, ... in
 * `seg`. The mask byte of an element is its last one. All are checked before the first is written.
 */
static int store_masked(struct soft_vcpu *c, const struct soft_insn *i, uint64_t offset, unsigned n,
                        unsigned size, const uint8_t *mask, const uint8_t *data)
{
    uint64_t linear[32];

    for (unsigned k = 0; k < n; k++) {
        if (!(mask[(k + 1) * size - 1] & 0x80))
            continue;
        if (soft_linear(c, i->segment, soft_truncate(offset + k * size, i->address_size), size, true,
                        &linear[k]) ||
            soft_check_writable(c, linear[k], size))
            return SOFT_FAULT;
    }
    for (unsigned k = 0; k < n; k++) {
        if (!(mask[(k + 1) * size - 1] & 0x80))
            continue;
        if (soft_write(c, linear[k], data + k * size, size, ACCESS_WRITE))
            return SOFT_FAULT;
    }
    return SOFT_NEXT;
}

int op_maskmovdqu(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint8_t data[32], mask[32];

    soft_xstate_normalise(c);
    soft_vector_read(c, i->operand[0].reg, data);
    soft_vector_read(c, i->operand[1].reg, mask);
    return store_masked(c, i, soft_truncate(c->gpr[CPU_RDI], i->address_size), 16, 1, mask, data);
}

int op_maskmovq(struct soft_vcpu *c, const struct soft_insn *i)
{
    unsigned top, data_reg = i->operand[0].reg, mask_reg = i->operand[1].reg;
    uint8_t data[8], mask[8];

    soft_xstate_modify(c, XSTATE_X87);
    if (soft_x87_check(c))
        return SOFT_FAULT;
    /* MMX register n is the mantissa of physical register n, which is ST(n - TOP). */
    top = get_le16(c->xsave + XSAVE_FSW) >> 11 & 7;
    memcpy(data, c->xsave + XSAVE_ST + 16 * ((data_reg - top) & 7), 8);
    memcpy(mask, c->xsave + XSAVE_ST + 16 * ((mask_reg - top) & 7), 8);
    if (store_masked(c, i, soft_truncate(c->gpr[CPU_RDI], i->address_size), 8, 1, mask, data))
        return SOFT_FAULT;
    soft_x87_set_top(c, 0);
    c->xsave[XSAVE_FTW] = 0xff;
    return SOFT_NEXT;
}

/* ---- VMASKMOV, VPMASKMOV ---- */

static int load_masked(struct soft_vcpu *c, const struct soft_insn *i, unsigned n, unsigned size)
{
    uint64_t offset = soft_effective_address(c, i), linear;
    uint8_t data[32] = {0}, mask[32];

    soft_xstate_modify(c, XSTATE_SSE | XSTATE_AVX);
    soft_vector_read(c, i->operand[1].reg, mask);
    for (unsigned k = 0; k < n; k++) {
        if (!(mask[(k + 1) * size - 1] & 0x80))
            continue;
        if (soft_linear(c, i->segment, soft_truncate(offset + k * size, i->address_size), size, false,
                        &linear) ||
            soft_read(c, linear, data + k * size, size, ACCESS_READ))
            return SOFT_FAULT;
    }
    soft_vector_write(c, i->operand[0].reg, data);
    return SOFT_NEXT;
}

static int masked_move(struct soft_vcpu *c, const struct soft_insn *i, unsigned size)
{
    unsigned n = (soft_vex_l(i) ? 32 : 16) / size;
    uint8_t data[32], mask[32];

    if (i->operand[0].kind != OPERAND_MEM)
        return load_masked(c, i, n, size);
    soft_xstate_normalise(c);
    soft_vector_read(c, i->operand[1].reg, mask);
    soft_vector_read(c, i->operand[2].reg, data);
    return store_masked(c, i, soft_effective_address(c, i), n, size, mask, data);
}

int op_vmaskmov4(struct soft_vcpu *c, const struct soft_insn *i)
{
    return masked_move(c, i, 4);
}
int op_vmaskmov8(struct soft_vcpu *c, const struct soft_insn *i)
{
    return masked_move(c, i, 8);
}

/* ---- gathers ---- */

static int64_t index_value(const uint8_t *index, unsigned k, unsigned size)
{
    return size == 4 ? (int32_t)get_le32(index + 4 * k) : (int64_t)get_le64(index + 8 * k);
}

/*
 * Operands: destination, memory with a vector index, mask. Elements go from the lowest up; each one that is
 * done has its mask cleared, so that a fault in between leaves what is left to do.
 */
static int gather(struct soft_vcpu *c, const struct soft_insn *i, unsigned index_size, unsigned size)
{
    unsigned n = (soft_vex_l(i) ? 32 : 16) / (index_size > size ? index_size : size);
    unsigned to = i->operand[0].reg, mask_reg = i->operand[2].reg;
    uint8_t data[32], mask[32], index[32];
    uint64_t base = (uint64_t)i->disp + (i->base == INSN_NO_REG ? 0 : c->gpr[i->base & 15]);

    if (to == mask_reg || to == i->index || mask_reg == i->index)
        return soft_raise(c, VEC_UD);
    soft_xstate_modify(c, XSTATE_SSE | XSTATE_AVX);
    soft_vector_read(c, to, data);
    soft_vector_read(c, mask_reg, mask);
    soft_vector_read(c, i->index, index);
    for (unsigned k = 0; k < n; k++) {
        uint64_t offset = base + (uint64_t)index_value(index, k, index_size) * i->scale;
        uint64_t linear;

        if (!(mask[(k + 1) * size - 1] & 0x80))
            continue;
        if (soft_linear(c, i->segment, soft_truncate(offset, i->address_size), size, false, &linear) ||
            soft_read(c, linear, data + k * size, size, ACCESS_READ)) {
            soft_vector_write(c, to, data);
            soft_vector_write(c, mask_reg, mask);
            return SOFT_FAULT;
        }
        memset(mask + k * size, 0, size);
    }
    memset(data + n * size, 0, sizeof(data) - n * size);
    memset(mask, 0, sizeof(mask));
    soft_vector_write(c, to, data);
    soft_vector_write(c, mask_reg, mask);
    return SOFT_NEXT;
}

/* Index size first, then the element's. */
int op_gather_d4(struct soft_vcpu *c, const struct soft_insn *i)
{
    return gather(c, i, 4, 4);
}
int op_gather_d8(struct soft_vcpu *c, const struct soft_insn *i)
{
    return gather(c, i, 4, 8);
}
int op_gather_q4(struct soft_vcpu *c, const struct soft_insn *i)
{
    return gather(c, i, 8, 4);
}
int op_gather_q8(struct soft_vcpu *c, const struct soft_insn *i)
{
    return gather(c, i, 8, 8);
}

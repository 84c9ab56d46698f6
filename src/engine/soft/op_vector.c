/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Vector instructions that touch several places of memory, or some elements only: masked moves and gathers
 * (SDM vol. 2 MASKMOVDQU, VMASKMOV, VPMASKMOV, VGATHER). Everything else of SSE and AVX is copied to the
 * host. Called from translated code in the vCPU's own thread; no locks.
 */
#include "base/bytes.h"
#include "engine/soft/handlers.h"

/* ---- masked stores ---- */

static bool enabled(const uint8_t *mask, unsigned k, unsigned size)
{
    return mask[(k + 1) * size - 1] & 0x80; /* the top bit of the element */
}

/*
 * MASKMOVDQU and MASKMOVQ: `len` bytes at DS:rDI, in halves of 8. Both, the upper first, must be writable
 * whatever the mask is.
 */
static int store_bytes(struct soft_vcpu *c, const struct soft_insn *i, unsigned len, const uint8_t *mask,
                       const uint8_t *data)
{
    uint64_t linear[2];

    for (unsigned half = len / 8; half-- > 0;) {
        uint64_t offset = soft_truncate(c->gpr[CPU_RDI] + 8 * half, i->address_size);

        if (soft_linear(c, i->segment, offset, 8, true, &linear[half]) ||
            soft_check_access(c, linear[half], 8, ACCESS_WRITE))
            return SOFT_FAULT;
    }
    for (unsigned k = 0; k < len; k++) {
        if (enabled(mask, k, 1) && soft_write(c, linear[k / 8] + k % 8, data + k, 1, ACCESS_WRITE))
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
    return store_bytes(c, i, 16, mask, data);
}

int op_maskmovq(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint8_t data[8], mask[8];

    soft_xstate_modify(c, XSTATE_X87);
    if (soft_x87_check(c))
        return SOFT_FAULT;
    /* The change to MMX state comes first, also if the store faults. Then ST(n) is physical register n, whose
     * mantissa is MMX register n. */
    soft_x87_set_top(c, 0);
    c->xsave[XSAVE_FTW] = 0xff;
    memcpy(data, c->xsave + XSAVE_ST + 16 * (i->operand[0].reg & 7), 8);
    memcpy(mask, c->xsave + XSAVE_ST + 16 * (i->operand[1].reg & 7), 8);
    return store_bytes(c, i, 8, mask, data);
}

/* ---- VMASKMOV, VPMASKMOV ---- */

/* The linear address of the operand's first byte. Only what lies from the first enabled element to the last
 * one is checked against the segment; false in *any if there is none. */
static int masked_linear(struct soft_vcpu *c, const struct soft_insn *i, unsigned n, unsigned size,
                         const uint8_t *mask, bool write, uint64_t *linear, unsigned *first, unsigned *last,
                         bool *any)
{
    uint64_t offset = soft_effective_address(c, i);

    *any = false;
    for (unsigned k = 0; k < n; k++) {
        if (!enabled(mask, k, size))
            continue;
        if (!*any)
            *first = k * size;
        *last = (k + 1) * size - 1;
        *any = true;
    }
    if (!*any)
        return SOFT_NEXT;
    if (soft_linear(c, i->segment, offset + *first, *last - *first + 1, write, linear))
        return SOFT_FAULT;
    *linear -= *first;
    return SOFT_NEXT;
}

static int load_masked(struct soft_vcpu *c, const struct soft_insn *i, unsigned n, unsigned size)
{
    uint8_t data[32] = {0}, mask[32];
    unsigned first = 0, last = 0;
    uint64_t linear = 0;
    bool any;

    soft_xstate_modify(c, XSTATE_SSE | XSTATE_AVX);
    soft_vector_read(c, i->operand[1].reg, mask);
    if (masked_linear(c, i, n, size, mask, false, &linear, &first, &last, &any))
        return SOFT_FAULT;
    for (unsigned k = 0; any && k < n; k++) {
        if (enabled(mask, k, size) &&
            soft_read(c, linear + k * size, data + k * size, size, ACCESS_READ | ACCESS_ANY_ALIGNMENT))
            return SOFT_FAULT;
    }
    soft_vector_write(c, i->operand[0].reg, data);
    return SOFT_NEXT;
}

static int store_masked(struct soft_vcpu *c, const struct soft_insn *i, unsigned n, unsigned size)
{
    uint8_t data[32], mask[32];
    unsigned first = 0, last = 0;
    uint64_t linear = 0;
    bool any;

    soft_xstate_normalise(c);
    soft_vector_read(c, i->operand[1].reg, mask);
    soft_vector_read(c, i->operand[2].reg, data);
    if (masked_linear(c, i, n, size, mask, true, &linear, &first, &last, &any))
        return SOFT_FAULT;
    if (!any)
        return SOFT_NEXT;
    if (soft_probe(c, linear + first, ACCESS_WRITE) || soft_probe(c, linear + last, ACCESS_WRITE))
        return SOFT_FAULT;
    for (unsigned k = 0; k < n; k++) {
        if (enabled(mask, k, size) &&
            soft_write(c, linear + k * size, data + k * size, size, ACCESS_WRITE | ACCESS_ANY_ALIGNMENT))
            return SOFT_FAULT;
    }
    return SOFT_NEXT;
}

static int masked_move(struct soft_vcpu *c, const struct soft_insn *i, unsigned size)
{
    unsigned n = (soft_vex_l(i) ? 32 : 16) / size;

    return i->operand[0].kind == OPERAND_MEM ? store_masked(c, i, n, size) : load_masked(c, i, n, size);
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

/* Each mask element becomes all its top bit; beyond the vector's length there are zeroes. */
static void spread_mask(uint8_t mask[32], unsigned vector, unsigned size)
{
    for (unsigned k = 0; k < vector / size; k++)
        memset(mask + k * size, enabled(mask, k, size) ? 0xff : 0, size);
    memset(mask + vector, 0, 32 - vector);
}

/*
 * Operands: destination, memory with a vector index, mask. Elements go from the lowest up; each one that is
 * done has its mask cleared, so that a fault in between leaves what is left to do.
 */
static int gather(struct soft_vcpu *c, const struct soft_insn *i, unsigned index_size, unsigned size)
{
    unsigned vector = soft_vex_l(i) ? 32 : 16;
    unsigned n = vector / (index_size > size ? index_size : size);
    unsigned to = i->operand[0].reg, mask_reg = i->operand[2].reg;
    uint64_t base = (uint64_t)i->disp + (i->base == INSN_NO_REG ? 0 : c->gpr[i->base & 15]);
    uint8_t data[32], mask[32], index[32], left[32];
    int result = SOFT_NEXT;

    if (to == mask_reg || to == i->index || mask_reg == i->index)
        return soft_raise(c, VEC_UD);
    soft_xstate_modify(c, XSTATE_SSE | XSTATE_AVX);
    soft_vector_read(c, to, data);
    soft_vector_read(c, mask_reg, mask);
    soft_vector_read(c, i->index, index);
    memcpy(left, mask, sizeof(left));
    spread_mask(mask, vector, size);
    for (unsigned k = 0; k < n && result == SOFT_NEXT; k++) {
        uint64_t offset = base + (uint64_t)index_value(index, k, index_size) * i->scale;
        uint64_t linear;

        if (!enabled(mask, k, size)) {
            memset(left + k * size, 0, size);
            continue;
        }
        result = soft_linear(c, i->segment, soft_truncate(offset, i->address_size), size, false, &linear);
        if (result == SOFT_NEXT)
            result = soft_read(c, linear, data + k * size, size, ACCESS_READ | ACCESS_ANY_ALIGNMENT);
        if (result == SOFT_NEXT) {
            memset(mask + k * size, 0, size);
            memset(left + k * size, 0, size);
            if (!soft_is_amd(c)) /* theirs clear it at the end */
                memset(data + vector, 0, sizeof(data) - vector);
        }
    }
    if (result == SOFT_NEXT) {
        memset(data + n * size, 0, sizeof(data) - n * size);
        memset(mask, 0, sizeof(mask));
    }
    soft_vector_write(c, to, data);
    /* What is left to do is told by whole elements; AMD's processors leave that part as it was. */
    soft_vector_write(c, mask_reg, result == SOFT_NEXT || !soft_is_amd(c) ? mask : left);
    return result;
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

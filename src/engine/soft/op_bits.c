/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bit tests with a register or memory operand, decimal adjustment, and the small instructions that 64-bit
 * mode dropped or that use memory in their own way: XLAT, SALC, BOUND (SDM vol. 2). Called from translated
 * code in the vCPU's own thread; no locks.
 */
#include "base/bytes.h"
#include "engine/soft/handlers.h"

/* ---- BT, BTS, BTR, BTC ---- */

enum bit_change { BIT_TEST, BIT_SET, BIT_RESET, BIT_COMPLEMENT };

static uint64_t change_bit(uint64_t value, uint64_t bit, enum bit_change change)
{
    switch (change) {
    case BIT_SET:
        return value | bit;
    case BIT_RESET:
        return value & ~bit;
    case BIT_COMPLEMENT:
        return value ^ bit;
    default:
        return value;
    }
}

static void set_cf(struct soft_vcpu *c, bool set)
{
    c->flags = (c->flags & ~(uint64_t)FLAG_CF) | (set ? FLAG_CF : 0);
}

/* Where the bit is: a register offset reaches beyond the operand, in units of its size; an immediate doesn't.
 */
static int bit_linear(struct soft_vcpu *c, const struct soft_insn *i, unsigned size, bool write,
                      uint64_t *index, uint64_t *linear)
{
    uint64_t offset = soft_effective_address(c, i);
    int64_t bit;

    if (i->operand[1].kind == OPERAND_REG) {
        bit = (int64_t)soft_sign_extend(soft_reg_read(c, i->operand[1].reg, size, false), size);
        offset += (uint64_t)((bit >> (size == 8 ? 6 : size == 4 ? 5 : 4)) * (int64_t)size);
        offset = soft_truncate(offset, i->address_size);
    } else {
        bit = (int64_t)i->imm;
    }
    *index = (uint64_t)bit & (8 * size - 1);
    return soft_linear(c, i->segment, offset, size, write, linear);
}

/* The host's own instruction: atomic at any alignment. `index` is below the size in bits. */
#define LOCKED(name, suffix, type)                                                                           \
    __asm__ volatile("lock " name suffix " %1, (%2)"                                                         \
                     : "=@ccc"(old)                                                                          \
                     : "r"((type)index), "r"(host)                                                           \
                     : "memor"                                                                               \
                       "y")
#define LOCKED_BY_SIZE(name)                                                                                 \
    do {                                                                                                     \
        if (size == 2)                                                                                       \
            LOCKED(name, "w", uint16_t);                                                                     \
        else if (size == 4)                                                                                  \
            LOCKED(name, "l", uint32_t);                                                                     \
        else                                                                                                 \
            LOCKED(name, "q", uint64_t);                                                                     \
    } while (0)

static int change_locked(struct soft_vcpu *c, uint64_t linear, unsigned size, uint64_t index,
                         enum bit_change change, bool *bit)
{
    void *host;
    bool old;

    int rc = soft_rmw_begin(c, linear, size, &host);
    if (rc != SOFT_NEXT)
        return rc;
    if (change == BIT_SET)
        LOCKED_BY_SIZE("bts");
    else if (change == BIT_RESET)
        LOCKED_BY_SIZE("btr");
    else
        LOCKED_BY_SIZE("btc");
    *bit = old;
    return soft_rmw_end(c, linear, size);
}

static int change_plain(struct soft_vcpu *c, uint64_t linear, unsigned size, uint64_t index,
                        enum bit_change change, bool *bit)
{
    uint64_t mask = 1ull << index, old;
    unsigned access = change == BIT_TEST ? ACCESS_READ : ACCESS_WRITE;
    uint8_t bytes[8] = {0}, *host = NULL;

    /* Most are in RAM and in one page. */
    if ((linear & 4095) + size <= 4096) {
        if (soft_host_pointer(c, linear, access, &host))
            return SOFT_FAULT;
        if (host) {
            memcpy(bytes, host, size);
            old = get_le64(bytes);
            put_le64(bytes, change_bit(old, mask, change));
            *bit = old & mask;
            if (change != BIT_TEST)
                memcpy(host, bytes, size);
            return SOFT_NEXT;
        }
    }
    if (soft_check_access(c, linear, size, access) || soft_read(c, linear, bytes, size, ACCESS_READ))
        return SOFT_FAULT;
    old = get_le64(bytes);
    put_le64(bytes, change_bit(old, mask, change));
    *bit = old & mask;
    return change == BIT_TEST ? SOFT_NEXT : soft_write(c, linear, bytes, size, ACCESS_WRITE);
}

static int bit_test(struct soft_vcpu *c, const struct soft_insn *i, enum bit_change change)
{
    unsigned size = i->operand_size;
    uint64_t value, index, linear;
    bool bit;

    if (i->operand[0].kind == OPERAND_REG) {
        if (soft_operand_read(c, i, 1, &index))
            return SOFT_FAULT;
        index &= 8 * size - 1;
        value = soft_reg_read(c, i->operand[0].reg, size, false);
        bit = value >> index & 1;
        if (change != BIT_TEST)
            soft_reg_write(c, i->operand[0].reg, size, false, change_bit(value, 1ull << index, change));
    } else {
        if (bit_linear(c, i, size, change != BIT_TEST, &index, &linear))
            return SOFT_FAULT;
        int rc = i->lock ? change_locked(c, linear, size, index, change, &bit)
                         : change_plain(c, linear, size, index, change, &bit);
        if (rc != SOFT_NEXT)
            return rc;
    }
    set_cf(c, bit);
    return SOFT_NEXT;
}

int op_bt(struct soft_vcpu *c, const struct soft_insn *i)
{
    return bit_test(c, i, BIT_TEST);
}
int op_bts(struct soft_vcpu *c, const struct soft_insn *i)
{
    return bit_test(c, i, BIT_SET);
}
int op_btr(struct soft_vcpu *c, const struct soft_insn *i)
{
    return bit_test(c, i, BIT_RESET);
}
int op_btc(struct soft_vcpu *c, const struct soft_insn *i)
{
    return bit_test(c, i, BIT_COMPLEMENT);
}

/* ---- decimal adjustment ---- */

#define FLAGS_RESULT (FLAG_SF | FLAG_ZF | FLAG_PF)

static uint64_t result_flags(uint8_t value)
{
    return (value & 0x80 ? FLAG_SF : 0) | (value == 0 ? FLAG_ZF : 0) |
           (__builtin_parity(value) ? 0 : FLAG_PF);
}

static void set_flags(struct soft_vcpu *c, uint64_t mask, uint64_t flags)
{
    c->flags = (c->flags & ~mask) | flags;
}

/* DAA and DAS differ in the sign of the correction, and in how the borrow of the low digit counts. */
static int adjust_packed(struct soft_vcpu *c, bool subtract)
{
    uint8_t old = (uint8_t)c->gpr[CPU_RAX], value = old;
    bool carry_in = c->flags & FLAG_CF, carry = false, half = false;

    if ((old & 15) > 9 || (c->flags & FLAG_AF)) {
        half = true;
        carry = carry_in || (subtract ? old < 6 : old > 0xff - 6);
        value = (uint8_t)(subtract ? value - 6 : value + 6);
    }
    if (old > 0x99 || carry_in) {
        value = (uint8_t)(subtract ? value - 0x60 : value + 0x60);
        carry = true;
    } else if (!subtract) {
        carry = false;
    }
    soft_reg_write(c, CPU_RAX, 1, false, value);
    set_flags(c, FLAGS_RESULT | FLAG_CF | FLAG_AF,
              result_flags(value) | (carry ? FLAG_CF : 0) | (half ? FLAG_AF : 0));
    return SOFT_NEXT;
}

int op_daa(struct soft_vcpu *c, const struct soft_insn *i)
{
    return adjust_packed(c, false);
}
int op_das(struct soft_vcpu *c, const struct soft_insn *i)
{
    return adjust_packed(c, true);
}

static int adjust_unpacked(struct soft_vcpu *c, bool subtract)
{
    uint16_t ax = (uint16_t)c->gpr[CPU_RAX];
    bool adjust = (ax & 15) > 9 || (c->flags & FLAG_AF);

    if (adjust)
        ax = (uint16_t)(subtract ? ax - 0x106 : ax + 0x106);
    soft_reg_write(c, CPU_RAX, 2, false, ax & 0xff0f);
    set_flags(c, FLAG_CF | FLAG_AF, adjust ? FLAG_CF | FLAG_AF : 0);
    return SOFT_NEXT;
}

int op_aaa(struct soft_vcpu *c, const struct soft_insn *i)
{
    return adjust_unpacked(c, false);
}
int op_aas(struct soft_vcpu *c, const struct soft_insn *i)
{
    return adjust_unpacked(c, true);
}

int op_aam(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint8_t al = (uint8_t)c->gpr[CPU_RAX], base = (uint8_t)i->imm;

    if (base == 0)
        return soft_raise(c, VEC_DE);
    soft_reg_write(c, CPU_RAX, 2, false, (uint64_t)(al / base << 8 | al % base));
    set_flags(c, FLAGS_RESULT, result_flags(al % base));
    return SOFT_NEXT;
}

int op_aad(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint16_t ax = (uint16_t)c->gpr[CPU_RAX];
    uint8_t al = (uint8_t)(ax + (ax >> 8) * (uint8_t)i->imm);

    soft_reg_write(c, CPU_RAX, 2, false, al);
    set_flags(c, FLAGS_RESULT, result_flags(al));
    return SOFT_NEXT;
}

/* ---- others ---- */

int op_salc(struct soft_vcpu *c, const struct soft_insn *i)
{
    soft_reg_write(c, CPU_RAX, 1, false, c->flags & FLAG_CF ? 0xff : 0);
    return SOFT_NEXT;
}

int op_xlat(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint64_t offset = soft_truncate(c->gpr[CPU_RBX] + (uint8_t)c->gpr[CPU_RAX], i->address_size);
    uint64_t linear;
    uint8_t value;

    if (soft_linear(c, i->segment, offset, 1, false, &linear) || soft_read(c, linear, &value, 1, ACCESS_READ))
        return SOFT_FAULT;
    soft_reg_write(c, CPU_RAX, 1, false, value);
    return SOFT_NEXT;
}

static int read_bound(struct soft_vcpu *c, const struct soft_insn *i, unsigned at, int64_t *bound)
{
    uint64_t offset = soft_truncate(soft_effective_address(c, i) + at, i->address_size), linear;
    unsigned size = i->operand_size;
    uint8_t bytes[8] = {0};

    if (soft_linear(c, i->segment, offset, size, false, &linear) ||
        soft_read(c, linear, bytes, size, ACCESS_READ))
        return SOFT_FAULT;
    *bound = (int64_t)soft_sign_extend(get_le64(bytes), size);
    return SOFT_NEXT;
}

/* The bounds are signed and inclusive. The upper one is not looked at if the lower one isn't met. */
int op_bound(struct soft_vcpu *c, const struct soft_insn *i)
{
    unsigned size = i->operand_size;
    int64_t index = (int64_t)soft_sign_extend(soft_reg_read(c, i->operand[0].reg, size, false), size);
    int64_t bound, upper;

    if (read_bound(c, i, 0, &bound))
        return SOFT_FAULT;
    if (soft_is_amd(c) && read_bound(c, i, size, &upper)) /* theirs read both first */
        return SOFT_FAULT;
    if (index < bound)
        return soft_raise(c, VEC_BR);
    if (read_bound(c, i, size, &upper))
        return SOFT_FAULT;
    return index > upper ? soft_raise(c, VEC_BR) : SOFT_NEXT;
}

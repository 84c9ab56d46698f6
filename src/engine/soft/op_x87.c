/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The x87 environment in memory: FNSTENV, FLDENV, FNSAVE, FRSTOR in their 14- and 28-byte forms, for real and
 * protected mode (SDM vol. 1 8.1.10). Called from translated code in the vCPU's own thread; no locks.
 *
 * Like any processor that says so in CPUID (7 EBX 13), ours stores no selectors.
 */
#include "base/bytes.h"
#include "engine/soft/handlers.h"

#define FCW_INIT   0x037fu
#define EXCEPTIONS 0x003fu
#define FSW_ES     0x0080u
#define FSW_B      0x8000u
#define FOP_BITS   0x07ffu

#define TAG_VALID   0u
#define TAG_ZERO    1u
#define TAG_SPECIAL 2u
#define TAG_EMPTY   3u

static uint8_t *st_register(struct soft_vcpu *c, unsigned n)
{
    return c->xsave + XSAVE_ST + 16 * (n & 7);
}

static unsigned fsw_top(uint16_t fsw)
{
    return fsw >> 11 & 7;
}

/* What the full tag word says of a register that is not empty. */
static unsigned classify(const uint8_t *st)
{
    unsigned exponent = get_le16(st + 8) & 0x7fff;
    uint64_t mantissa = get_le64(st);

    if (exponent == 0)
        return mantissa ? TAG_SPECIAL : TAG_ZERO;
    if (exponent == 0x7fff || !(mantissa >> 63))
        return TAG_SPECIAL;
    return TAG_VALID;
}

static uint16_t full_tags(struct soft_vcpu *c)
{
    unsigned top = fsw_top(get_le16(c->xsave + XSAVE_FSW)), tags = 0;

    for (unsigned reg = 0; reg < 8; reg++) {
        bool used = c->xsave[XSAVE_FTW] >> reg & 1;

        tags |= (used ? classify(st_register(c, reg - top)) : TAG_EMPTY) << (2 * reg);
    }
    return (uint16_t)tags;
}

static uint8_t short_tags(uint16_t tags)
{
    unsigned used = 0;

    for (unsigned reg = 0; reg < 8; reg++) {
        if ((tags >> (2 * reg) & 3) != TAG_EMPTY)
            used |= 1u << reg;
    }
    return (uint8_t)used;
}

/* ---- the environment ---- */

static unsigned environment_size(const struct soft_insn *i)
{
    return i->operand_size == 2 ? 14 : 28;
}

/* Word or doubleword n of an environment; the latter's unused upper halves are all ones. */
static void put_word(uint8_t *env, unsigned unit, unsigned n, uint32_t value)
{
    if (unit == 2)
        put_le16(env + 2 * n, (uint16_t)value);
    else
        put_le32(env + 4 * n, value);
}

static void store_environment(struct soft_vcpu *c, uint8_t *env, unsigned unit)
{
    const uint32_t ones = 0xffff0000;
    uint32_t fip = get_le32(c->xsave + XSAVE_FIP), fdp = get_le32(c->xsave + XSAVE_FDP);
    uint32_t fop = get_le16(c->xsave + XSAVE_FOP) & FOP_BITS;

    put_word(env, unit, 0, ones | get_le16(c->xsave + XSAVE_FCW));
    put_word(env, unit, 1, ones | get_le16(c->xsave + XSAVE_FSW));
    put_word(env, unit, 2, ones | full_tags(c));
    if (soft_protected(c)) {
        put_word(env, unit, 3, fip);
        put_word(env, unit, 4, unit == 4 ? fop << 16 : 0);
        put_word(env, unit, 5, fdp);
        put_word(env, unit, 6, ones);
    } else {
        /* Linear addresses, split: bits 15-0, and the rest at bit 12 of the next word. */
        put_word(env, unit, 3, ones | (fip & 0xffff));
        put_word(env, unit, 4, (fip & 0xffff0000) >> 4 | fop);
        put_word(env, unit, 5, ones | (fdp & 0xffff));
        put_word(env, unit, 6, (fdp & 0xffff0000) >> 4);
    }
}

static uint32_t get_word(const uint8_t *env, unsigned unit, unsigned n)
{
    return unit == 2 ? get_le16(env + 2 * n) : get_le32(env + 4 * n);
}

/* Loads it but for TOP, which is returned: the caller decides what the registers are relative to. */
static unsigned load_environment(struct soft_vcpu *c, const uint8_t *env, unsigned unit)
{
    uint16_t fcw = (uint16_t)get_word(env, unit, 0), fsw = (uint16_t)get_word(env, unit, 1);
    uint16_t old = get_le16(c->xsave + XSAVE_FSW);
    uint32_t fip = get_word(env, unit, 3), fdp = get_word(env, unit, 5), fop = 0;

    soft_x87_settle(&fcw, &fsw);
    if (!soft_protected(c)) {
        uint32_t high = get_word(env, unit, 4);

        fop = high & FOP_BITS;
        fip = (fip & 0xffff) | (high & 0x0ffff000) << 4;
        fdp = (fdp & 0xffff) | (get_word(env, unit, 6) & 0x0ffff000) << 4;
    } else if (unit == 4) {
        fop = get_word(env, unit, 4) >> 16 & FOP_BITS;
    }
    put_le16(c->xsave + XSAVE_FCW, fcw);
    put_le16(c->xsave + XSAVE_FSW, (uint16_t)((fsw & ~0x3800u) | (old & 0x3800u)));
    c->xsave[XSAVE_FTW] = short_tags((uint16_t)get_word(env, unit, 2));
    put_le16(c->xsave + XSAVE_FOP, (uint16_t)fop);
    put_le64(c->xsave + XSAVE_FIP, fip);
    put_le64(c->xsave + XSAVE_FDP, fdp);
    return fsw_top(fsw);
}

/* ---- instructions ---- */

/* Where the operand is, after the page faults in the processor's order: the control word, the last byte, the
 * rest. */
static int image_linear(struct soft_vcpu *c, const struct soft_insn *i, unsigned size, bool write,
                        uint64_t *linear)
{
    unsigned access = write ? ACCESS_WRITE : ACCESS_READ, word = i->operand_size == 2 ? 2 : 4;

    if (soft_operand_linear(c, i, word, write, linear) || soft_check_access(c, *linear, word, access) ||
        soft_operand_linear(c, i, size, write, linear))
        return SOFT_FAULT;
    return soft_probe(c, *linear + size - 1, access);
}

int op_fnstenv(struct soft_vcpu *c, const struct soft_insn *i)
{
    unsigned size = environment_size(i);
    uint8_t env[28];
    uint64_t linear;

    soft_xstate_modify(c, XSTATE_X87);
    store_environment(c, env, size == 14 ? 2 : 4);
    if (image_linear(c, i, size, true, &linear) || soft_write(c, linear, env, size, ACCESS_WRITE))
        return SOFT_FAULT;
    /* All exceptions are masked then, so none waits. */
    put_le16(c->xsave + XSAVE_FCW, get_le16(c->xsave + XSAVE_FCW) | EXCEPTIONS);
    put_le16(c->xsave + XSAVE_FSW, get_le16(c->xsave + XSAVE_FSW) & (uint16_t) ~(FSW_ES | FSW_B));
    return SOFT_NEXT;
}

int op_fldenv(struct soft_vcpu *c, const struct soft_insn *i)
{
    unsigned size = environment_size(i);
    uint8_t env[28];
    uint64_t linear;

    soft_xstate_modify(c, XSTATE_X87);
    if (soft_x87_check(c) || image_linear(c, i, size, false, &linear) ||
        soft_read(c, linear, env, size, ACCESS_READ))
        return SOFT_FAULT;
    soft_x87_set_top(c, load_environment(c, env, size == 14 ? 2 : 4));
    return SOFT_NEXT;
}

int op_fnsave(struct soft_vcpu *c, const struct soft_insn *i)
{
    unsigned size = environment_size(i), total = size + 80;
    uint8_t image[28 + 80];
    uint64_t linear;

    soft_xstate_modify(c, XSTATE_X87);
    store_environment(c, image, size == 14 ? 2 : 4);
    for (unsigned n = 0; n < 8; n++)
        memcpy(image + size + 10 * n, st_register(c, n), 10);
    if (image_linear(c, i, total, true, &linear) || soft_write(c, linear, image, total, ACCESS_WRITE))
        return SOFT_FAULT;
    /* As FNINIT: all registers are empty, but keep their bits. */
    soft_x87_set_top(c, 0);
    memset(c->xsave, 0, XSAVE_MXCSR);
    put_le16(c->xsave + XSAVE_FCW, FCW_INIT);
    return SOFT_NEXT;
}

int op_frstor(struct soft_vcpu *c, const struct soft_insn *i)
{
    unsigned size = environment_size(i), total = size + 80;
    uint8_t image[28 + 80];
    uint64_t linear;

    soft_xstate_modify(c, XSTATE_X87);
    if (soft_x87_check(c) || image_linear(c, i, total, false, &linear) ||
        soft_read(c, linear, image, total, ACCESS_READ))
        return SOFT_FAULT;
    soft_x87_set_top(c, load_environment(c, image, size == 14 ? 2 : 4));
    for (unsigned n = 0; n < 8; n++) {
        memset(st_register(c, n), 0, 16);
        memcpy(st_register(c, n), image + size + 10 * n, 10);
    }
    return SOFT_NEXT;
}

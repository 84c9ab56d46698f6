/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the manual leaves undefined after an instruction, so that the two sides may differ there. From the
 * "Flags Affected" sections of SDM vol. 2, and their dependence on shift counts.
 */
#include "diff.h"

#include <string.h>

#define CF 0x001u
#define PF 0x004u
#define AF 0x010u
#define ZF 0x040u
#define SF 0x080u
#define OF 0x800u

static const struct {
    ZydisMnemonic mnemonic;
    uint32_t flags;
} table[] = {
    {ZYDIS_MNEMONIC_AAA, OF | SF | ZF | PF},
    {ZYDIS_MNEMONIC_AAS, OF | SF | ZF | PF},
    {ZYDIS_MNEMONIC_AAD, OF | AF | CF},
    {ZYDIS_MNEMONIC_AAM, OF | AF | CF},
    {ZYDIS_MNEMONIC_DAA, OF},
    {ZYDIS_MNEMONIC_DAS, OF},
    {ZYDIS_MNEMONIC_AND, AF},
    {ZYDIS_MNEMONIC_OR, AF},
    {ZYDIS_MNEMONIC_XOR, AF},
    {ZYDIS_MNEMONIC_TEST, AF},
    {ZYDIS_MNEMONIC_MUL, SF | ZF | AF | PF},
    {ZYDIS_MNEMONIC_IMUL, SF | ZF | AF | PF},
    {ZYDIS_MNEMONIC_DIV, CF | OF | SF | ZF | AF | PF},
    {ZYDIS_MNEMONIC_IDIV, CF | OF | SF | ZF | AF | PF},
    {ZYDIS_MNEMONIC_BT, OF | SF | AF | PF},
    {ZYDIS_MNEMONIC_BTS, OF | SF | AF | PF},
    {ZYDIS_MNEMONIC_BTR, OF | SF | AF | PF},
    {ZYDIS_MNEMONIC_BTC, OF | SF | AF | PF},
    {ZYDIS_MNEMONIC_BSF, CF | OF | SF | AF | PF},
    {ZYDIS_MNEMONIC_BSR, CF | OF | SF | AF | PF},
    {ZYDIS_MNEMONIC_LZCNT, OF | SF | PF | AF},
    {ZYDIS_MNEMONIC_TZCNT, OF | SF | PF | AF},
    {ZYDIS_MNEMONIC_ANDN, AF | PF},
    {ZYDIS_MNEMONIC_BEXTR, AF | SF | PF},
    {ZYDIS_MNEMONIC_BLSI, AF | PF},
    {ZYDIS_MNEMONIC_BLSMSK, AF | PF},
    {ZYDIS_MNEMONIC_BLSR, AF | PF},
    {ZYDIS_MNEMONIC_BZHI, AF | PF},
};

static bool shift_count(const struct diff_insn *i, const struct diff_state *in, unsigned n, unsigned *count)
{
    if (i->op[n].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        *count = (unsigned)i->op[n].imm.value.u & 0xff;
    else if (i->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && i->op[n].reg.value == ZYDIS_REGISTER_CL)
        *count = (unsigned)in->gpr[CPU_RCX] & 0xff;
    else
        return false;
    *count &= i->op[0].size == 64 ? 63 : 31;
    return true;
}

static void undefined_by_count(const struct diff_insn *i, const struct diff_state *in,
                               struct diff_undefined *out)
{
    unsigned count, size = i->op[0].size;

    switch (i->z.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
        if (!shift_count(i, in, 1, &count) || !count)
            return;
        out->flags |= AF | (count > 1 ? OF : 0);
        if (i->z.mnemonic != ZYDIS_MNEMONIC_SAR && count >= size)
            out->flags |= CF;
        return;
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
        if (shift_count(i, in, 1, &count) && count > 1)
            out->flags |= OF;
        return;
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
        if (!shift_count(i, in, 2, &count) || !count)
            return;
        out->flags |= AF | (count > 1 ? OF : 0);
        if (count > size) {
            out->flags |= CF | OF | SF | ZF | AF | PF;
            if (i->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER)
                out->gprs |= 1u << ZydisRegisterGetId(i->op[0].reg.value);
            else
                out->memory = true;
        }
        return;
    default:
        return;
    }
}

/* The transition to MMX state (TOP and tags) may have happened when the instruction ends in a fault. */
static bool uses_mmx(const struct diff_insn *i)
{
    for (unsigned n = 0; n < i->z.operand_count; n++)
        if (i->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(i->op[n].reg.value) == ZYDIS_REGCLASS_MMX)
            return true;
    return false;
}

/* Where x87 pointers are stored: SDM vol. 1 figures 8-9 to 8-12, vol. 2 table 3-43. */
static void find_hole(const struct diff_insn *i, const struct diff_state *in, struct diff_undefined *out)
{
    unsigned first, len;

    switch (i->z.mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
        first = i->z.operand_width == 16 ? 6 : 12;
        len = i->z.operand_width == 16 ? 8 : 16;
        break;
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
        first = 6;
        len = 18;
        break;
    default:
        return;
    }
    int64_t at = diff_data_offset(diff_effective_address(in, i, &i->op[0].mem) + first, len);
    if (at >= 0) {
        out->hole = at;
        out->hole_len = len;
    }
}

/* Several accesses, whose order is the processor's own: which one of them faults. */
static bool several_accesses(const struct diff_insn *i)
{
    switch (i->z.mnemonic) {
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
        return true;
    default:
        return i->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
    }
}

static bool is_cmps(const struct diff_insn *i)
{
    switch (i->z.mnemonic) {
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSD:
    case ZYDIS_MNEMONIC_CMPSQ:
        return i->z.meta.category == ZYDIS_CATEGORY_STRINGOP;
    default:
        return false;
    }
}

/*
 * In what order a processor looks for faults is its own affair where the manuals don't say. The soft engine's
 * is that of Intel's processors; AMD's read all that a return or an ENTER takes from the stack first, either
 * operand of CMPS, and both bounds of BOUND, look at the alignment of SHA's operands after their pages.
 */
static void undefined_on_amd(const struct diff_insn *i, struct diff_undefined *out)
{
    out->cr2 |= is_cmps(i) || i->z.mnemonic == ZYDIS_MNEMONIC_BOUND;
    out->order = out->cr2 || i->z.meta.isa_ext == ZYDIS_ISA_EXT_SHA;
}

void diff_undefined(const struct diff_insn *i, const struct diff_state *in, struct diff_undefined *out)
{
    memset(out, 0, sizeof(*out));
    if (!i->valid)
        return;
    for (unsigned n = 0; n < sizeof(table) / sizeof(table[0]); n++)
        if (i->z.mnemonic == table[n].mnemonic)
            out->flags |= table[n].flags;
    undefined_by_count(i, in, out);
    find_hole(i, in, out);
    out->x87_on_fault = uses_mmx(i);
    out->cr2 = several_accesses(i);
    if (diff_host_is_amd())
        undefined_on_amd(i, out);
    /* Overrides that 64-bit mode ignores are seen by some instructions of real processors. */
    out->stack_or_gp =
        i->bits == 64 && (i->z.attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_CS | ZYDIS_ATTRIB_HAS_SEGMENT_SS |
                                             ZYDIS_ATTRIB_HAS_SEGMENT_DS | ZYDIS_ATTRIB_HAS_SEGMENT_ES));
    switch (i->z.mnemonic) {
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR: /* of zero */
        out->gprs |= 1u << ZydisRegisterGetId(i->op[0].reg.value);
        break;
    case ZYDIS_MNEMONIC_BSWAP:
        if (i->op[0].size == 16)
            out->gprs |= 1u << ZydisRegisterGetId(i->op[0].reg.value);
        break;
    /* Long stores: how much of them is visible when they end in a fault is the processor's own. */
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_FBSTP:
    case ZYDIS_MNEMONIC_MOVBE:
        out->memory_on_fault = true;
        break;
    case ZYDIS_MNEMONIC_FSTP:
        out->memory_on_fault = i->op[0].size == 80;
        break;
    case ZYDIS_MNEMONIC_VCVTPS2PH:
        out->mxcsr_on_fault = true; /* the conversion may be done before the store is tried */
        break;
    default:
        break;
    }
}

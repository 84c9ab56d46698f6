/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From guest bytes to what the translator works on: Zydis's decoding, and what is derived from it once. */
#ifndef TABIQUE_ENGINE_SOFT_DECODE_H
#define TABIQUE_ENGINE_SOFT_DECODE_H

#include "engine/soft/insn.h"

#include <Zydis/Zydis.h>

/* How the guest's bytes are laid out; offsets from the first byte. */
struct soft_layout {
    uint8_t prefixes; /* legacy prefixes and REX, as bytes */
    uint8_t rex;      /* the REX that counts, or 0 */
    uint8_t opcode;   /* where the opcode (with its 0F, 0F38, 0F3A escape) starts; for VEX, the opcode byte */
    uint8_t vex;      /* where VEX starts, if vex_size */
    uint8_t vex_size;
    uint8_t modrm; /* 0: none */
    uint8_t imm;   /* where immediates start; = length if none */
};

/* Which check of the x87, SSE and AVX enable bits an instruction needs. */
enum soft_fpu_class { FPU_NONE, FPU_X87, FPU_WAIT, FPU_MMX, FPU_SSE, FPU_AVX };

struct soft_decoded {
    ZydisDecodedInstruction z;
    uint8_t bytes[15];
    struct soft_layout at;
    uint64_t rip;
    const struct soft_insn_row *row;
    uint16_t reads,
        writes; /* general registers; partial writes count as reads too; not those used for addresses only */
    uint16_t address_regs; /* base and index of memory operands */
    bool high_byte;        /* uses AH, CH, DH or BH: can't have a REX prefix */
    int8_t mem;            /* the one explicit memory operand, or -1 */
    uint8_t fpu_class;     /* enum soft_fpu_class: touches x87, MMX, SSE or AVX state if not FPU_NONE */
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
};

enum soft_decode_result { DECODE_OK, DECODE_MORE, DECODE_INVALID, DECODE_TOO_LONG };

/* bits: 16, 32 or 64. DECODE_MORE: `length` bytes are not enough. At most 15 are looked at:
 * what goes on after that is DECODE_TOO_LONG, which raises #GP(0) (SDM vol. 2 2.3.11). */
enum soft_decode_result soft_decode(struct soft_decoded *d, const uint8_t *bytes, unsigned length,
                                    unsigned bits, bool amd, uint64_t rip);

/* Only which instruction of 64-bit code it is, and its length. False: none, or `length` bytes are not enough.
 * Any thread. */
bool soft_decode_briefly(ZydisDecodedInstruction *z, const uint8_t *bytes, unsigned length, bool amd);

static inline enum soft_fpu_class soft_fpu_class(const struct soft_decoded *d)
{
    return (enum soft_fpu_class)d->fpu_class;
}

/* What Zydis knows of its registers, asked once: their number (AH's is that of RAX) and the width of general
 * ones in bits, which is 0 for all others. */
struct soft_register {
    uint8_t number, bits;
    uint8_t class; /* ZydisRegisterClass */
};
extern struct soft_register soft_registers[ZYDIS_REGISTER_MAX_VALUE + 1];

/* Its memory operand must be aligned to its size (SDM vol. 2 2.4, exception types 1 and 4 without VEX). */
bool soft_needs_alignment(const struct soft_decoded *d);
/* A pending x87 exception is raised before it does anything (SDM vol. 1 8.7.1, 12.5). */
bool soft_x87_waits(const struct soft_decoded *d);

/* Of what the handlers get, where a memory operand is: segment, base, index, scale, displacement. Base and
 * index must be INSN_NO_REG. */
void soft_make_memory(const ZydisDecodedOperand *o, struct soft_insn *i);
/* What the handlers get. */
void soft_make_insn(const struct soft_decoded *d, struct soft_insn *i);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A decoded instruction as the translator and the C handlers see it, and the table of those that are not
 * simply copied. Decoding itself is Zydis's; what is kept here is small enough to stay beside the translated
 * code.
 */
#ifndef TABIQUE_ENGINE_SOFT_INSN_H
#define TABIQUE_ENGINE_SOFT_INSN_H

#include <stdbool.h>
#include <stdint.h>

struct soft_vcpu;
struct soft_insn;

enum soft_operand_kind {
    OPERAND_NONE,
    OPERAND_REG,
    OPERAND_SEGMENT,
    OPERAND_CR,
    OPERAND_DR,
    OPERAND_VECTOR,
    OPERAND_MEM,
    OPERAND_IMM,
    OPERAND_OTHER
};

struct soft_operand {
    uint8_t kind; /* enum soft_operand_kind */
    uint8_t reg;  /* GPR, segment, CR, DR or vector register number (0-15) */
    uint8_t size; /* bytes; 16 XMM, 32 YMM */
    bool high;    /* AH, CH, DH, BH: reg is 0-3 */
};

#define INSN_NO_REG 0xff
#define INSN_RIP    0xfe

struct soft_insn {
    uint16_t mnemonic; /* ZydisMnemonic */
    uint8_t length;
    uint8_t operand_size; /* effective: 1, 2, 4 or 8 */
    uint8_t address_size; /* 2, 4 or 8 */
    uint8_t rep;          /* 0, 0xf2 or 0xf3 */
    bool lock;
    uint8_t opcode;     /* the last opcode byte */
    uint8_t opcode_map; /* 0 one-byte, 1 0F, 2 0F38, 3 0F3A */
    uint8_t n_operands; /* visible ones */
    struct soft_operand operand[4];
    uint64_t
        imm; /* the (first) immediate, sign-extended where the instruction does; a far pointer's offset */
    uint16_t imm2; /* ENTER's second immediate; a far pointer's selector */
    /* The memory operand: segment:[base + index * scale + disp]. */
    uint8_t segment;     /* enum cpu_segment, after overrides and defaults */
    uint8_t base, index; /* GPR, INSN_NO_REG or INSN_RIP */
    uint8_t scale;
    bool vsib; /* index is a vector register */
    int64_t disp;
    uint8_t raw[15];
};

/* Whether a byte is a legacy prefix (SDM vol. 2 2.1.1). */
static inline bool soft_is_prefix(uint8_t b)
{
    switch (b) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
        return true;
    default:
        return false;
    }
}

/* A handler in C. c->rip is the instruction's; returns an enum soft_result. */
typedef int soft_handler(struct soft_vcpu *c, const struct soft_insn *i);

/* Row flags. */
#define INSN_MODE                                                                                            \
    1u                /* may change what the block key is made of: the key is recomputed and the block ends  \
                       */
#define INSN_END   2u /* the block ends after it */
#define INSN_JUMPS 4u /* control transfer: always returns SOFT_JUMP or SOFT_FAULT */
#define INSN_CPL0  8u /* #GP(0) unless CPL is 0: the translator checks, the handler needn't */
#define INSN_FPU                                                                                             \
    16u /* touches x87, SSE or AVX state (in c->xsave when called); #NM and #UD checks like a copied one */
#define INSN_NO64 32u  /* #UD in 64-bit mode */
#define INSN_NOP  64u  /* does nothing here (hints); handler is NULL */
#define INSN_PE   128u /* #UD in real mode */

struct soft_insn_row {
    uint16_t mnemonic;
    uint16_t flags;
    soft_handler *handler;
    const char *name;
};

/* The row for a mnemonic, or NULL: the translator copies it or has an emitter of its own. */
const struct soft_insn_row *soft_insn_find(uint16_t mnemonic);

#endif

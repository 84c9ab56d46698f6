/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing host instructions, byte by byte: the few that the translator and the stubs add around the guest's
 * own. None of them changes flags unless its comment says so. SDM vol. 2 chapter 2.
 */
#ifndef TABIQUE_ENGINE_SOFT_EMIT_H
#define TABIQUE_ENGINE_SOFT_EMIT_H

#include "engine/soft/vcpu.h"

#include <stddef.h>
#include <string.h>

struct emitter {
    uint8_t *p;
};

#define FIELD(name) ((int32_t)offsetof(struct soft_vcpu, name))
#define GPR(r)      (FIELD(gpr) + 8 * (int32_t)(r))

static inline void emit1(struct emitter *e, uint8_t b)
{
    *e->p++ = b;
}
static inline void emit4(struct emitter *e, uint32_t v)
{
    memcpy(e->p, &v, 4);
    e->p += 4;
}
static inline void emit8(struct emitter *e, uint64_t v)
{
    memcpy(e->p, &v, 8);
    e->p += 8;
}
static inline void emit_bytes(struct emitter *e, const void *bytes, size_t n)
{
    memcpy(e->p, bytes, n);
    e->p += n;
}

/* <op> r, gs:[offset] with a one-byte opcode, 64 bits. */
static inline void emit_gs_op(struct emitter *e, uint8_t opcode, unsigned r, int32_t offset)
{
    emit1(e, 0x65);
    emit1(e, 0x48 | (r & 8 ? 4 : 0));
    emit1(e, opcode);
    emit1(e, 0x04 | (r & 7) << 3);
    emit1(e, 0x25);
    emit4(e, (uint32_t)offset);
}
static inline void emit_load(struct emitter *e, unsigned r, int32_t offset)
{
    emit_gs_op(e, 0x8b, r, offset);
}
/* movzx r32, word gs:[offset] */
static inline void emit_load16(struct emitter *e, unsigned r, int32_t offset)
{
    emit1(e, 0x65);
    if (r & 8)
        emit1(e, 0x44);
    emit_bytes(e, "\x0f\xb7", 2);
    emit1(e, 0x04 | (r & 7) << 3);
    emit1(e, 0x25);
    emit4(e, (uint32_t)offset);
}
static inline void emit_store(struct emitter *e, int32_t offset, unsigned r)
{
    emit_gs_op(e, 0x89, r, offset);
}
/* mov r, gs:[offset + index * 8] */
static inline void emit_load_indexed(struct emitter *e, unsigned r, int32_t offset, unsigned index)
{
    emit1(e, 0x65);
    emit1(e, 0x48 | (r & 8 ? 4 : 0) | (index & 8 ? 2 : 0));
    emit1(e, 0x8b);
    emit1(e, 0x04 | (r & 7) << 3);
    emit1(e, 0xc5 | (index & 7) << 3);
    emit4(e, (uint32_t)offset);
}
/* mov gs:[offset + index * 8], r */
static inline void emit_store_indexed(struct emitter *e, int32_t offset, unsigned index, unsigned r)
{
    emit1(e, 0x65);
    emit1(e, 0x48 | (r & 8 ? 4 : 0) | (index & 8 ? 2 : 0));
    emit1(e, 0x89);
    emit1(e, 0x04 | (r & 7) << 3);
    emit1(e, 0xc5 | (index & 7) << 3);
    emit4(e, (uint32_t)offset);
}
/* mov qword gs:[offset], simm32 */
static inline void emit_store_imm(struct emitter *e, int32_t offset, int32_t imm)
{
    emit1(e, 0x65);
    emit1(e, 0x48);
    emit1(e, 0xc7);
    emit1(e, 0x04);
    emit1(e, 0x25);
    emit4(e, (uint32_t)offset);
    emit4(e, (uint32_t)imm);
}
/* mov dword gs:[offset], imm32 */
static inline void emit_store_imm32(struct emitter *e, int32_t offset, uint32_t imm)
{
    emit_bytes(e, "\x65\xc7\x04\x25", 4);
    emit4(e, (uint32_t)offset);
    emit4(e, imm);
}
/* pext r, src, gs:[offset] */
static inline void emit_pext(struct emitter *e, unsigned r, unsigned src, int32_t offset)
{
    emit1(e, 0x65);
    emit1(e, 0xc4);
    emit1(e, (r & 8 ? 0 : 0x80) | 0x60 | 2);
    emit1(e, 0x80 | ((~src & 15) << 3) | 2);
    emit1(e, 0xf5);
    emit1(e, 0x04 | (r & 7) << 3);
    emit1(e, 0x25);
    emit4(e, (uint32_t)offset);
}
/* A ModRM (and SIB, displacement) for [base + index * scale + disp]; 255 for no base or index. */
static inline void emit_modrm_mem(struct emitter *e, unsigned reg, unsigned base, unsigned index,
                                  unsigned scale, int32_t disp)
{
    unsigned ss = scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;

    if (base == 255) {
        emit1(e, 0x04 | (reg & 7) << 3);
        emit1(e, (uint8_t)(ss << 6 | (index == 255 ? 4 : index & 7) << 3 | 5));
        emit4(e, (uint32_t)disp);
        return;
    }
    unsigned mod = disp == 0 && (base & 7) != 5 ? 0 : disp >= -128 && disp < 128 ? 1 : 2;
    emit1(e, (uint8_t)(mod << 6 | (reg & 7) << 3 | 4));
    emit1(e, (uint8_t)(ss << 6 | (index == 255 ? 4 : index & 7) << 3 | (base & 7)));
    if (mod == 1)
        emit1(e, (uint8_t)disp);
    else if (mod == 2)
        emit4(e, (uint32_t)disp);
}
static inline uint8_t emit_rex_bits(unsigned reg, unsigned base, unsigned index)
{
    return (uint8_t)((reg & 8 ? 4 : 0) | (index != 255 && index & 8 ? 2 : 0) |
                     (base != 255 && base & 8 ? 1 : 0));
}
/* lea r, [base + index * scale + disp]; width 8 or 4 bytes (4 clears the upper half) */
static inline void emit_lea(struct emitter *e, unsigned width, unsigned r, unsigned base, unsigned index,
                            unsigned scale, int32_t disp)
{
    emit1(e, 0x40 | (width == 8 ? 8 : 0) | emit_rex_bits(r, base, index));
    emit1(e, 0x8d);
    emit_modrm_mem(e, r, base, index, scale, disp);
}
/* lea r, [r + imm], always in seven bytes; not for RSP and R12 */
static inline void emit_add_imm(struct emitter *e, unsigned r, int32_t imm)
{
    emit1(e, 0x48 | (r & 8 ? 5 : 0));
    emit1(e, 0x8d);
    emit1(e, (uint8_t)(0x80 | (r & 7) << 3 | (r & 7)));
    emit4(e, (uint32_t)imm);
}
/* mov of 8 or 4 bytes between memory at [base + index + disp] and a register: opcode 8b loads, 89 stores */
static inline void emit_mov_mem(struct emitter *e, unsigned width, uint8_t opcode, unsigned r, unsigned base,
                                unsigned index, int32_t disp)
{
    emit1(e, (width == 8 ? 0x48 : 0x40) | emit_rex_bits(r, base, index));
    emit1(e, opcode);
    emit_modrm_mem(e, r, base, index, 1, disp);
}
/* mov r, imm in its shortest form */
static inline void emit_mov_imm(struct emitter *e, unsigned r, uint64_t imm)
{
    if (imm <= UINT32_MAX) {
        if (r & 8)
            emit1(e, 0x41);
        emit1(e, 0xb8 | (r & 7));
        emit4(e, (uint32_t)imm);
    } else if ((uint64_t)(int64_t)(int32_t)imm == imm) {
        emit1(e, 0x48 | (r & 8 ? 1 : 0));
        emit1(e, 0xc7);
        emit1(e, 0xc0 | (r & 7));
        emit4(e, (uint32_t)imm);
    } else {
        emit1(e, 0x48 | (r & 8 ? 1 : 0));
        emit1(e, 0xb8 | (r & 7));
        emit8(e, imm);
    }
}
static inline void emit_mov_reg(struct emitter *e, unsigned to, unsigned from)
{
    emit1(e, 0x48 | (from & 8 ? 4 : 0) | (to & 8 ? 1 : 0));
    emit1(e, 0x89);
    emit1(e, (uint8_t)(0xc0 | (from & 7) << 3 | (to & 7)));
}
/* movzx r32, r16 */
static inline void emit_movzx16(struct emitter *e, unsigned to, unsigned from)
{
    emit1(e, 0x40 | (to & 8 ? 4 : 0) | (from & 8 ? 1 : 0));
    emit1(e, 0x0f);
    emit1(e, 0xb7);
    emit1(e, (uint8_t)(0xc0 | (to & 7) << 3 | (from & 7)));
}
/* mov r32, r32 of the same: the upper half becomes 0 */
static inline void emit_zero_upper(struct emitter *e, unsigned r)
{
    if (r & 8)
        emit1(e, 0x45);
    emit1(e, 0x89);
    emit1(e, (uint8_t)(0xc0 | (r & 7) << 3 | (r & 7)));
}
/* rorx to, from, 32: the halves change places */
static inline void emit_swap_halves(struct emitter *e, unsigned to, unsigned from)
{
    emit1(e, 0xc4);
    emit1(e, (uint8_t)((to & 8 ? 0 : 0x80) | 0x40 | (from & 8 ? 0 : 0x20) | 3));
    emit_bytes(e, "\xfb\xf0", 2);
    emit1(e, (uint8_t)(0xc0 | (to & 7) << 3 | (from & 7)));
    emit1(e, 32);
}
static inline void emit_rel32_at(uint8_t *field, const uint8_t *target)
{
    int32_t rel = (int32_t)(target - (field + 4));
    memcpy(field, &rel, 4);
}
static inline void emit_jmp(struct emitter *e, const uint8_t *target)
{
    emit1(e, 0xe9);
    emit_rel32_at(e->p, target);
    e->p += 4;
}
/* A jmp rel32 to be filled in; returns its displacement field. */
static inline uint8_t *emit_jmp_later(struct emitter *e)
{
    emit1(e, 0xe9);
    e->p += 4;
    return e->p - 4;
}
/* lea r, [rip + target] */
static inline void emit_lea_rip(struct emitter *e, unsigned r, const void *target)
{
    emit1(e, 0x48 | (r & 8 ? 4 : 0));
    emit1(e, 0x8d);
    emit1(e, 0x05 | (r & 7) << 3);
    emit_rel32_at(e->p, target);
    e->p += 4;
}
/* jrcxz over the `n` bytes that follow it */
static inline void emit_jrcxz(struct emitter *e, int8_t n)
{
    emit1(e, 0xe3);
    emit1(e, (uint8_t)n);
}
/* jmp gs:[offset] */
static inline void emit_jmp_gs(struct emitter *e, int32_t offset)
{
    emit1(e, 0x65);
    emit1(e, 0xff);
    emit1(e, 0x24);
    emit1(e, 0x25);
    emit4(e, (uint32_t)offset);
}
/* Save the arithmetic flags in scratch[slot] through RAX, whose own value must be safe; and bring them back.
 */
static inline void emit_flags_save(struct emitter *e, int32_t offset)
{
    emit_bytes(e, "\x9f\x0f\x90\xc0", 4); /* lahf; seto al */
    emit_store(e, offset, CPU_RAX);
}
static inline void emit_flags_restore(struct emitter *e, int32_t offset)
{
    emit_load(e, CPU_RAX, offset);
    emit_bytes(e, "\x04\x7f\x9e", 3); /* add al, 0x7f; sahf */
}

#endif

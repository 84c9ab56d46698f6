/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * REP MOVS and REP STOS of at most a page, in pages that the TLB has: executed by the host's processor on its
 * own addresses. Compilers clear and copy structures so, kernels pages. Made once, as the other common stubs.
 * Of single bytes, which kernels copy to and from users' buffers, what lies in more pages than one is done
 * piece by piece. Pages that the TLB has not are put there first (soft_fast_string). What is not so goes to
 * the handler in C.
 *
 * 64-bit code with DF clear. In: rcx is the struct soft_call, the guest's RCX in its slot, all other
 * registers in place; no flag is changed.
 */
#include "engine/soft/emit.h"
#include "engine/soft/soft_priv.h"

#define TO_HOST  FIELD(scratch[2]) /* what is added to RDI */
#define FLAGS    FIELD(scratch[3])
#define PIECE    FIELD(scratch[4]) /* bytes */
#define FAR_JUMP 5

static int32_t tlb_at(enum soft_mmu mmu, bool write, size_t array)
{
    return FIELD(tlb) + (int32_t)sizeof(struct soft_tlb) * (2 * (int32_t)mmu + write) + (int32_t)array;
}

/* jrcxz over a jump to the handler. */
static void unless_zero(struct emitter *e, const uint8_t *slow)
{
    emit_jrcxz(e, FAR_JUMP);
    emit_jmp(e, slow);
}

/* RAX elements from [pointer] on are in a page of the TLB, whose addend is in RDX then. Clobbers RCX. */
static void check_side(struct emitter *e, unsigned pointer, unsigned shift, enum soft_mmu mmu, bool write,
                       const uint8_t *slow)
{
    emit_pext(e, CPU_RDX, pointer, FIELD(index_mask));
    emit_load_indexed(e, CPU_RCX, tlb_at(mmu, write, offsetof(struct soft_tlb, tag)), CPU_RDX);
    emit_lea(e, 8, CPU_RCX, CPU_RCX, pointer, 1, -1);
    emit_lea(e, 8, CPU_RCX, CPU_RCX, CPU_RAX, 1u << shift, 0);
    emit_pext(e, CPU_RCX, CPU_RCX, FIELD(page_mask));
    unless_zero(e, slow);
    emit_load_indexed(e, CPU_RDX, tlb_at(mmu, write, offsetof(struct soft_tlb, addend)), CPU_RDX);
}

/* to -= from, which is lost */
static void emit_subtract(struct emitter *e, unsigned to, unsigned from)
{
    emit_bytes(e, "\x48\xf7", 2); /* not */
    emit1(e, (uint8_t)(0xd0 | from));
    emit_lea(e, 8, to, to, from, 1, 1);
}

static void emit_instruction(struct emitter *e, enum soft_string_kind kind, unsigned shift)
{
    emit1(e, 0xf3);
    if (shift == 1)
        emit1(e, 0x66);
    if (shift == 3)
        emit1(e, 0x48);
    emit1(e, (uint8_t)((kind == STRING_MOVS ? 0xa4 : 0xaa) | (shift > 0)));
}

/* That RAX elements are there: RDX gets the addend of RDI's page, or for MOVS that of RSI's, and TO_HOST
 * RDI's. Clobbers RCX and RDX. */
static void find_sides(struct emitter *e, enum soft_string_kind kind, unsigned shift, enum soft_mmu mmu,
                       const uint8_t *slow)
{
    check_side(e, CPU_RDI, shift, mmu, true, slow);
    if (kind == STRING_MOVS) {
        emit_store(e, TO_HOST, CPU_RDX);
        check_side(e, CPU_RSI, shift, mmu, false, slow);
    }
}

/* After find_sides: RAX elements, by the host's addresses. Leaves the guest's RAX in place and RCX zero; RDX
 * is lost. */
static void do_elements(struct emitter *e, enum soft_string_kind kind, unsigned shift)
{
    if (kind == STRING_MOVS) {
        emit_lea(e, 8, CPU_RSI, CPU_RSI, CPU_RDX, 1, 0);
        emit_load(e, CPU_RCX, TO_HOST);
        emit_lea(e, 8, CPU_RDI, CPU_RDI, CPU_RCX, 1, 0);
    } else {
        emit_lea(e, 8, CPU_RDI, CPU_RDI, CPU_RDX, 1, 0);
    }
    emit_mov_reg(e, CPU_RCX, CPU_RAX);
    emit_load(e, CPU_RAX, GPR(CPU_RAX));
    emit_instruction(e, kind, shift);
    if (kind == STRING_MOVS) {
        emit_subtract(e, CPU_RSI, CPU_RDX);
        emit_load(e, CPU_RDX, TO_HOST);
    }
    emit_subtract(e, CPU_RDI, CPU_RDX);
}

/* On behind the instruction, RCX being zero. */
static void go_on(struct emitter *e)
{
    emit_load(e, CPU_RDX, STRING_CALL);
    emit_bytes(e, "\x48\x8b\x52", 3); /* mov rdx, [rdx + resume] */
    emit1(e, offsetof(struct soft_call, resume));
    emit_store(e, FIELD(resume), CPU_RDX);
    emit_load(e, CPU_RDX, GPR(CPU_RDX));
    emit_jmp_gs(e, FIELD(resume));
}

static void emit_lesser(struct emitter *e)
{
    emit_bytes(e, "\x39\xc1\x0f\x42\xc1", 5); /* cmp ecx, eax; cmovb eax, ecx */
}

/* EAX: how many bytes there are to the end of the page of RDI, and for MOVS of RSI's, at most those that are
 * left. */
static void measure_piece(struct emitter *e, enum soft_string_kind kind)
{
    emit_bytes(e, "\x89\xf8\x0d\x00\xf0\xff\xff\xf7\xd8", 9); /* mov eax, edi; or eax, -4096; neg eax */
    if (kind == STRING_MOVS) {
        /* mov ecx, esi; or ecx, -4096; neg ecx */
        emit_bytes(e, "\x89\xf1\x81\xc9\x00\xf0\xff\xff\xf7\xd9", 10);
        emit_lesser(e);
    }
    emit_load(e, CPU_RCX, GPR(CPU_RCX));
    emit_lesser(e);
}

/* Of bytes, up to a page of them, where not all are in one page: each piece that is, with the registers as
 * they are to be after it. Flags are kept aside. */
static const uint8_t *generate_pieces(struct emitter *e, enum soft_string_kind kind, enum soft_mmu mmu,
                                      const uint8_t *otherwise)
{
    const uint8_t *miss = e->p;

    emit_flags_restore(e, FLAGS);
    emit_jmp(e, otherwise);

    const uint8_t *start = e->p;
    emit_flags_save(e, FLAGS);
    const uint8_t *again = e->p;
    measure_piece(e, kind);
    find_sides(e, kind, 0, mmu, miss);
    emit_store(e, PIECE, CPU_RAX);
    do_elements(e, kind, 0);
    emit_load(e, CPU_RCX, GPR(CPU_RCX));
    emit_gs_op(e, 0x2b, CPU_RCX, PIECE); /* sub */
    emit_store(e, GPR(CPU_RCX), CPU_RCX);
    emit_bytes(e, "\x0f\x85", 2); /* jnz */
    emit_rel32_at(e->p, again);
    e->p += 4;
    emit_flags_restore(e, FLAGS);
    emit_load(e, CPU_RAX, GPR(CPU_RAX));
    go_on(e);
    return start;
}

static uint8_t *generate(struct soft *s, struct emitter *e, enum soft_string_kind kind, unsigned shift,
                         enum soft_mmu mmu)
{
    const uint8_t *slow = e->p;

    emit_load(e, CPU_RAX, GPR(CPU_RAX));
    emit_load(e, CPU_RDX, GPR(CPU_RDX));
    emit_load(e, CPU_RCX, STRING_CALL);
    emit_jmp(e, s->stubs.call);
    const uint8_t *again = e->p;
    uint8_t *to_start = emit_jmp_later(e);
    const uint8_t *miss = e->p;
    emit_load(e, CPU_RAX, GPR(CPU_RAX));
    emit_load(e, CPU_RDX, GPR(CPU_RDX));
    emit_mov_imm(e, CPU_RCX, (uint64_t)(uintptr_t)again);
    emit_jmp(e, s->stubs.string_fill);
    const uint8_t *not_at_once = shift ? miss : generate_pieces(e, kind, mmu, miss);

    uint8_t *start = e->p;
    emit_rel32_at(to_start, start);
    emit_store(e, STRING_CALL, CPU_RCX);
    emit_store(e, GPR(CPU_RAX), CPU_RAX);
    emit_store(e, GPR(CPU_RDX), CPU_RDX);
    emit_load(e, CPU_RAX, GPR(CPU_RCX));
    emit_lea(e, 8, CPU_RCX, CPU_RAX, 255, 1, -1); /* none at all is not for here either */
    emit_pext(e, CPU_RCX, CPU_RCX, FIELD(count_mask) + 8 * (int32_t)shift);
    unless_zero(e, slow);
    find_sides(e, kind, shift, mmu, not_at_once);
    do_elements(e, kind, shift);
    go_on(e);
    return start;
}

void soft_stubs_generate_strings(struct soft *s, struct emitter *e)
{
    for (unsigned kind = 0; s->use_pext && kind < STRING_KINDS; kind++) {
        for (unsigned shift = 0; shift < 4; shift++) {
            for (unsigned mmu = 0; mmu < MMU_MODES; mmu++)
                s->stubs.string[kind][shift][mmu] =
                    generate(s, e, (enum soft_string_kind)kind, shift, (enum soft_mmu)mmu);
        }
    }
}

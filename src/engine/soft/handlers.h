/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the C handlers share among themselves: segments and stacks that are not loaded yet, descriptors,
 * events, and the encodings that struct soft_insn doesn't spell out. The translator needs vcpu.h only. Called
 * in the vCPU's own thread; no locks.
 */
#ifndef TABIQUE_ENGINE_SOFT_HANDLERS_H
#define TABIQUE_ENGINE_SOFT_HANDLERS_H

#include "engine/soft/insn.h"
#include "engine/soft/vcpu.h"

/* Every handler that a row of insn.def names. */
#define INSN(mnemonic, handler, flags) soft_handler handler;
#define INSN_HINT(mnemonic)
#include "engine/soft/insn.def"
#undef INSN
#undef INSN_HINT

#define CPU_ATTR_CODE       0x0008u /* type: code, else data */
#define CPU_ATTR_CONFORMING 0x0004u /* of code; expand-down of data */
#define CPU_ATTR_RW         0x0002u /* readable code, writable data */
#define CPU_ATTR_ACCESSED   0x0001u

/* System segment types (SDM vol. 3A 3.5). */
#define TYPE_TSS16     0x1u
#define TYPE_LDT       0x2u
#define TYPE_CALL16    0x4u
#define TYPE_TASK_GATE 0x5u
#define TYPE_INT16     0x6u
#define TYPE_TRAP16    0x7u
#define TYPE_TSS       0x9u /* 32 or 64 bits */
#define TYPE_CALL      0xcu
#define TYPE_INT       0xeu
#define TYPE_TRAP      0xfu
#define TYPE_BUSY      0x2u /* of a TSS */

static inline bool soft_protected(const struct soft_vcpu *c)
{
    return c->cr0 & CR0_PE;
}
static inline bool soft_long(const struct soft_vcpu *c)
{
    return c->efer & EFER_LMA;
}
static inline unsigned soft_iopl(const struct soft_vcpu *c)
{
    return (c->sysflags & FLAG_IOPL) >> 12;
}
static inline bool soft_selector_null(uint16_t selector)
{
    return (selector & 0xfffc) == 0;
}
static inline unsigned soft_attr_dpl(unsigned attr)
{
    return (attr & CPU_ATTR_DPL) >> CPU_ATTR_DPL_SHIFT;
}
/* The low `size` bytes (1, 2, 4, 8) of a value. */
static inline uint64_t soft_truncate(uint64_t value, unsigned size)
{
    return size >= 8 ? value : value & ((1ull << (8 * size)) - 1);
}
static inline uint64_t soft_sign_extend(uint64_t value, unsigned size)
{
    unsigned shift = 64 - 8 * size;

    return (uint64_t)((int64_t)(value << shift) >> shift);
}

/* The address after the instruction, before c->rip has changed. */
static inline uint64_t soft_next_rip(const struct soft_vcpu *c, const struct soft_insn *i)
{
    uint64_t next = c->rip + i->length;

    return soft_is64(c) ? next : (uint32_t)next;
}

/* Of the offset in a far pointer in memory: AMD's processors have none of 64 bits (APM vol. 3 CALL, LSS). */
static inline unsigned soft_pointer_size(const struct soft_vcpu *c, const struct soft_insn *i)
{
    return i->operand_size == 8 && soft_is_amd(c) ? 4 : i->operand_size;
}

/* The ModRM byte's reg field, of an instruction whose last opcode byte is followed by ModRM and that has no
 * VEX prefix. */
unsigned soft_modrm_reg(const struct soft_vcpu *c, const struct soft_insn *i);
/* VEX.L and VEX.W; false without a VEX prefix. */
bool soft_vex_l(const struct soft_insn *i);
bool soft_vex_w(const struct soft_insn *i);

/* ---- operand.c ---- */

/*
 * As soft_linear, for a segment that need not be loaded, with `error` as the code of #SS or #GP. `stack`: #SS
 * instead of #GP. FS and GS have a base in 64-bit mode as well: `based`.
 */
int soft_segment_linear(struct soft_vcpu *c, const struct cpu_segment_state *s, bool stack, uint64_t offset,
                        unsigned size, bool write, uint32_t error, uint64_t *linear);

/*
 * Faults ahead of other effects. Instructions with large operands don't touch them from the first byte to the
 * last, and the address of a page fault shows it: soft_probe has the fault of an access to one byte,
 * soft_check_access that of a plain one to `size` bytes (at most 4096).
 */
int soft_probe(struct soft_vcpu *c, uint64_t linear, unsigned access);
int soft_check_access(struct soft_vcpu *c, uint64_t linear, unsigned size, unsigned access);

/* ---- stack.c ---- */

/* A stack on which a transfer works before (or without) loading it into SS:RSP. */
struct soft_stack {
    struct cpu_segment_state ss;
    uint64_t sp;
    uint64_t mask;   /* the bits of the pointer that count: 16, 32 or 64 */
    bool flat;       /* 64-bit mode: no segment */
    unsigned access; /* ACCESS_SYSTEM or 0 */
    uint32_t error;  /* the code of #SS */
};
void soft_stack_current(const struct soft_vcpu *c, struct soft_stack *st);
/* Move st->sp as well. SOFT_NEXT or SOFT_FAULT (st unchanged). */
int soft_stack_push(struct soft_vcpu *c, struct soft_stack *st, uint64_t value, unsigned size);
/* Writes only `size` bytes of a slot of `slot` bytes. */
int soft_stack_push_slot(struct soft_vcpu *c, struct soft_stack *st, uint64_t value, unsigned size,
                         unsigned slot);
int soft_stack_pop(struct soft_vcpu *c, struct soft_stack *st, uint64_t *value, unsigned size);
/* Reads `size` bytes at `offset` from the top; moves nothing. */
int soft_stack_peek(struct soft_vcpu *c, const struct soft_stack *st, unsigned offset, uint64_t *value,
                    unsigned size);
/* Pushes n <= 64 values, the first at the highest address. */
int soft_stack_push_all(struct soft_vcpu *c, struct soft_stack *st, const uint64_t *values, unsigned n,
                        unsigned size);
/* RSP := st->sp, of which only SP or ESP may count. */
void soft_stack_commit(struct soft_vcpu *c, const struct soft_stack *st);

/* ---- segment.c ---- */

/* A descriptor as it is in the table. */
struct soft_descriptor {
    struct cpu_segment_state seg; /* what loading it gives; for gates only attr and selector count */
    uint64_t low, high;           /* its 8 bytes; for system descriptors in IA-32e mode 16 */
    uint64_t linear;              /* where it is */
};

/*
 * Reads the descriptor of a non-null selector from the GDT or LDT. Beyond the table's limit: `vector` with
 * the selector's error code + ext. System descriptors of IA-32e mode are read whole.
 */
int soft_descriptor_read(struct soft_vcpu *c, uint16_t selector, enum soft_vector vector, unsigned ext,
                         struct soft_descriptor *d);
/* As that, but false in *ok instead of an exception if beyond the limit: LAR, LSL, VERR, VERW. */
int soft_descriptor_try(struct soft_vcpu *c, uint16_t selector, struct soft_descriptor *d, bool *ok);
/* Sets the accessed bit of a code or data descriptor in memory and in d. */
int soft_descriptor_mark_accessed(struct soft_vcpu *c, struct soft_descriptor *d);
/* `vector` with the selector's error code + ext. SOFT_FAULT. */
int soft_raise_selector(struct soft_vcpu *c, enum soft_vector vector, uint16_t selector, unsigned ext);
/* Checks a stack segment for privilege level `dpl` in protected mode, whose selector is not null:
 * `vector` (#GP, or #TS from a TSS) or #SS if not present; the accessed bit is set. */
int soft_stack_segment_read(struct soft_vcpu *c, uint16_t selector, unsigned dpl, enum soft_vector vector,
                            unsigned ext, struct soft_descriptor *d);
/* Real mode: any segment register. */
void soft_load_segment_real(struct soft_vcpu *c, unsigned seg, uint16_t selector);
/* ES, DS, FS, GS that the new, outer CPL must not use are made null (return and IRET). */
void soft_null_data_segments(struct soft_vcpu *c);

/* ---- exception.c ---- */

struct soft_event {
    uint8_t vector;
    bool has_error;
    bool software; /* INT n, INT3, INTO: the gate's DPL is checked, EXT is 0 */
    uint32_t error;
    uint64_t rip; /* to be saved */
    uint64_t rflags;
};
/* SOFT_JUMP, or SOFT_FAULT with c->fault set and nothing changed. Recomputes the key. */
int soft_deliver_event(struct soft_vcpu *c, const struct soft_event *event);
/* SS and the stack pointer for privilege level `dpl` from a 16- or 32-bit TSS, checked: #TS or #SS. `st` gets
 * it. */
int soft_inner_stack_legacy(struct soft_vcpu *c, unsigned dpl, unsigned ext, struct soft_stack *st);
/* RSP at byte `offset` of the 64-bit TSS. */
int soft_inner_stack_long(struct soft_vcpu *c, unsigned offset, unsigned ext, uint64_t *rsp);

/* ---- far.c ---- */

/* After checks are done: CS with the CPL as its RPL; also sets c->cpl. */
void soft_set_cs(struct soft_vcpu *c, const struct soft_descriptor *d, unsigned cpl);
/* The far forms of CALL and JMP, and of RET with the bytes to release. SOFT_JUMP or SOFT_FAULT. */
int soft_far_branch(struct soft_vcpu *c, const struct soft_insn *i, bool call);
int soft_far_return(struct soft_vcpu *c, const struct soft_insn *i, unsigned release);

/* ---- xstate.c: the x87, SSE and AVX state in c->xsave, for handlers with INSN_FPU ---- */

/* State components (SDM vol. 1 13.1). */
#define XSTATE_X87 1u
#define XSTATE_SSE 2u
#define XSTATE_AVX 4u

/* Offsets in c->xsave. */
#define XSAVE_FCW        0
#define XSAVE_FSW        2
#define XSAVE_FTW        4 /* one bit a physical register: not empty */
#define XSAVE_FOP        6
#define XSAVE_FIP        8
#define XSAVE_FDP        16
#define XSAVE_MXCSR      24
#define XSAVE_MXCSR_MASK 28
#define XSAVE_ST         32 /* 8 times 16 bytes, ST(0) first */
#define XSAVE_XMM        160
#define XSAVE_UNUSED     464 /* from here to the header: by the processor */
#define XSAVE_LEGACY     512 /* size of the part that FXSAVE has; then the header */
#define XSAVE_BV         512
#define XSAVE_HEADER     576 /* where the header ends */
#define XSAVE_YMM        576
#define XSAVE_SIZE       832

/* Makes the bytes of components whose XSTATE_BV bit is clear what that stands for: the initial state. To be
 * called before they are read. */
void soft_xstate_normalise(struct soft_vcpu *c);
/* The handler changes these components: normalised and marked as in use. */
void soft_xstate_modify(struct soft_vcpu *c, unsigned components);
/* All 32 bytes of a vector register, of a normalised state; writing needs soft_xstate_modify before. */
void soft_vector_read(const struct soft_vcpu *c, unsigned reg, uint8_t value[32]);
void soft_vector_write(struct soft_vcpu *c, unsigned reg, const uint8_t value[32]);
/* FSW.TOP becomes `top`: the registers keep their physical places, so ST(i) moves in the image. */
void soft_x87_set_top(struct soft_vcpu *c, unsigned top);
/* Control and status word as the processor takes them from memory: constant bits, and whether an exception
 * waits, which follows from the masks. */
void soft_x87_settle(uint16_t *fcw, uint16_t *fsw);
/* #MF if an unmasked x87 exception waits. */
int soft_x87_check(struct soft_vcpu *c);

/* ---- op_control.c ---- */

/* The width of physical addresses that CPUID tells. */
unsigned soft_physical_bits(struct soft_vcpu *c);
/* A base address for a segment, table or MSR: #GP(0) unless canonical. */
static inline int soft_check_canonical(struct soft_vcpu *c, uint64_t address)
{
    return soft_canonical(address) ? SOFT_NEXT : soft_raise(c, VEC_GP);
}
/* #GP(0) at CPL 3 with CR4.UMIP. */
int soft_check_umip(struct soft_vcpu *c);

/* ---- op_io.c ---- */

/* IOPL and the TSS's permission bitmap for `size` ports. SOFT_NEXT or SOFT_FAULT. */
int soft_check_port(struct soft_vcpu *c, uint16_t port, unsigned size);

/* ---- msr.c ---- */

/* SOFT_NEXT or SOFT_FAULT (#GP). */
int soft_msr_read(struct soft_vcpu *c, uint32_t msr, uint64_t *value);
int soft_msr_write(struct soft_vcpu *c, uint32_t msr, uint64_t value);

#endif

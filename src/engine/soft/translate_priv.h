/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The translator's working state for one block, shared by its parts: translate.c (which instruction goes
 * which way), translate_memory.c (memory operands) and translate_flow.c (control transfers and the stack).
 *
 * Guest registers are in the host's registers of the same name. A memory operand needs three scratch
 * registers; those taken have their guest value in vcpu->gpr until somebody asks for it. So each register is
 * in one of three places.
 */
#ifndef TABIQUE_ENGINE_SOFT_TRANSLATE_PRIV_H
#define TABIQUE_ENGINE_SOFT_TRANSLATE_PRIV_H

#include "engine/soft/decode.h"
#include "engine/soft/emit.h"
#include "engine/soft/soft_priv.h"

enum place { IN_REG, IN_SLOT, IN_BOTH };

#define MAX_SITES   (BLOCK_INSNS * 3)
#define MAX_RECORDS (BLOCK_INSNS * 4)
#define BIT(r)      ((uint16_t)(1u << (r)))

/* The address of a memory operand before translation. */
struct guest_address {
    uint8_t segment;
    uint8_t base, index; /* INSN_NO_REG, INSN_RIP */
    uint8_t scale;
    uint8_t address_size;
    int64_t disp;
};

/* A slow path to be written after the block's own code. */
struct pending_site {
    struct soft_site *site;
    uint8_t *jump;           /* rel32 that goes there; NULL if the call of the slow path is inline */
    uint8_t *access, *after; /* the native access in the block; copied if it writes */
    unsigned first_record, n_records;
};

struct translator {
    struct emitter e;
    struct soft *soft;
    struct soft_vcpu *c;
    struct soft_block *block;
    uint32_t key;
    enum soft_mmu mmu;
    unsigned bits;
    uint64_t rip; /* of the block, as all addresses less page_rip */
    enum place place[CPU_GPRS];
    uint8_t uses[CPU_GPRS]; /* how many instructions of the block use it */
    bool fpu_loaded, x87_noted;
    const struct soft_decoded *d; /* the current instruction */
    struct pending_site sites[MAX_SITES];
    unsigned n_sites;
    struct soft_record records[MAX_RECORDS * 2];
    unsigned n_records;
    uint8_t *meta; /* next free byte of the metadata area */
    bool ended;    /* the current instruction left the block */
};

/* ---- translate.c: registers ---- */
/* The guest's value into the register, kept in its slot as well if it was there. */
void tr_need(struct translator *t, unsigned reg);
void tr_need_all(struct translator *t, uint16_t regs);
/* Free the register for other use: its guest value is in the slot afterwards. */
void tr_take(struct translator *t, unsigned reg);
/* The guest has written it. */
void tr_wrote(struct translator *t, uint16_t regs);
/* A scratch register outside `avoid`, never RSP or RCX. `low`: without REX. Taken (tr_take). */
unsigned tr_scratch(struct translator *t, uint16_t avoid, bool low);
uint16_t tr_slots(const struct translator *t);
void *tr_meta(struct translator *t, size_t size);
/* The host may fault on what is emitted next. */
void tr_record(struct translator *t);
/* Call the current instruction's handler (or `handler`); code goes on after it if it returns SOFT_NEXT. */
void tr_call(struct translator *t, soft_handler *handler);

/* ---- translate_memory.c ---- */
struct memory_access {
    uint8_t s1, s2;
    struct pending_site *pending;
};
/*
 * Emits the check of [address] for `size` bytes; afterwards the operand is at [s1 + s2] in the host.
 * Registers in `avoid` keep their values; all scratch registers are free again after tr_access_end, which
 * must follow the native access.
 */
void tr_access_begin(struct translator *t, const struct guest_address *a, unsigned size, unsigned flags,
                     uint16_t avoid, bool low, struct memory_access *m);
void tr_access_end(struct translator *t, struct memory_access *m);
/* The current instruction's explicit memory operand. */
void tr_operand_address(const struct translator *t, struct guest_address *a);
/* Copy the current instruction, its memory operand replaced by [s1 + s2] if m is given, re-encoded for 64-bit
 * mode. */
void tr_copy(struct translator *t, const struct memory_access *m);
/* The address `rip` (less page_rip) to `reg`. */
void tr_emit_rip(struct translator *t, unsigned reg, uint64_t rip);
/* LEA with the guest's address arithmetic, to `reg`, in address size. */
void tr_emit_address(struct translator *t, unsigned reg, const struct guest_address *a);
void tr_write_sites(struct translator *t);

/* ---- translate_flow.c ---- */
/* Near control transfers and stack instructions of 64-bit mode and of flat 32-bit code. False: not one of
 * them. */
bool tr_flow(struct translator *t);
bool tr_stack(struct translator *t);
/* Leave the block for a constant target. */
void tr_exit_direct(struct translator *t, uint64_t target);
/* The same, looking for interrupts on the way. */
void tr_exit_polled(struct translator *t, uint64_t target);
/* Leave through the dispatcher, which looks at the mode again. */
void tr_exit_next(struct translator *t, uint64_t target);

/* Next instruction's RIP, truncated to the mode's width. */
static inline uint64_t tr_truncate(const struct translator *t, uint64_t rip)
{
    return t->bits == 64 ? rip : t->bits == 32 ? (uint32_t)rip : (uint32_t)rip;
}
static inline uint64_t tr_next_rip(const struct translator *t)
{
    return tr_truncate(t, t->d->rip + t->d->z.length);
}

#endif

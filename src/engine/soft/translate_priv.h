/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The translator's working state for one block, shared by its parts: translate.c (which instruction goes
 * which way), translate_memory.c (memory operands) and translate_flow.c (control transfers and the stack).
 *
 * Guest registers are in the host's registers of the same name. A memory operand needs three scratch
 * registers; those taken have their guest value in vcpu->gpr until somebody asks for it. So each register's
 * value is in the register, in its slot there, or in both.
 */
#ifndef TABIQUE_ENGINE_SOFT_TRANSLATE_PRIV_H
#define TABIQUE_ENGINE_SOFT_TRANSLATE_PRIV_H

#include "engine/soft/decode.h"
#include "engine/soft/emit.h"
#include "engine/soft/soft_priv.h"

/* Accesses of a block that lie in one page by their addresses: one look-up serves them all. translate_group.c
 */
struct page_group {
    uint8_t base;
    bool write;
    uint8_t members;
    enum { NOT_YET, LOOKED_UP, OVER } state;
    int32_t low, high; /* of its accesses, from the base register's value when that was last set anew */
};
/* Where a block goes on if a group's look-up fails: each access for itself, from this instruction on. */
struct pending_plain {
    uint8_t *jump;
    uint64_t rip;
    uint16_t slots;
};

#define MAX_SITES   (BLOCK_INSNS * 3)
#define MAX_RECORDS (BLOCK_INSNS * 4)
#define MAX_EXITS   (ADDENDS + 4)
#define BIT(r)      ((uint16_t)(1u << (r)))

/* The address of a memory operand before translation. */
struct guest_address {
    uint8_t segment;
    uint8_t base, index; /* INSN_NO_REG, INSN_RIP */
    uint8_t scale;
    uint8_t address_size;
    int64_t disp;
};

/* A way out of the block to be written apart from its own code. */
struct pending_exit {
    struct soft_exit *exit;
    uint8_t *jump, *poll; /* rel32 of what goes there; the second with RCX in its slot already, or NULL */
    bool put_rcx;
};

/* A slow path to be written apart from the block's own code. */
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
    uint64_t rip;             /* of the block, as all addresses less page_rip */
    uint16_t in_reg, in_slot; /* where the guest's registers are, by bit */
    uint8_t held[CPU_GPRS]; /* 1 + the group whose addend a register holds, its guest value being in its slot;
                               or 0 */
    uint8_t uses[CPU_GPRS]; /* how many instructions of the block use it */
    bool fpu_loaded, x87_noted;
    const struct soft_decoded *d; /* the current instruction */
    unsigned n;                   /* its number */
    uint8_t n_groups, n_plains, n_exits;
    struct page_group groups[ADDENDS];
    struct pending_plain plains[ADDENDS];
    struct pending_exit exits[MAX_EXITS];
    /* By instruction: 1 + the group of its access, or 0; how far the base is from its value when it was set.
     */
    uint8_t group_of[BLOCK_INSNS];
    int32_t moved_of[BLOCK_INSNS];
    struct pending_site sites[MAX_SITES];
    unsigned n_sites;
    struct soft_record records[MAX_RECORDS * 2];
    unsigned n_records;
    uint8_t *return_point; /* a displacement to be: of the code that goes on after a call; or NULL */
    uint8_t *meta;         /* next free byte of the metadata area */
    bool ended;            /* the current instruction left the block */
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
/* The same by way of another stub; the registers' places afterwards are the caller's to tell. */
void tr_call_through(struct translator *t, soft_handler *handler, const uint8_t *stub);

/* Whether the row is for this instruction: a few mnemonics name both what is copied and what needs a handler.
 */
bool tr_row_applies(const struct soft_decoded *d);

/* ---- translate_memory.c ---- */
struct memory_access {
    uint8_t s1, s2;
    int32_t disp;
    struct pending_site *pending; /* NULL: it is one of a group */
};
/*
 * Emits the check of [address] for `size` bytes; afterwards the operand is at [s1 + s2 + disp] in the host.
 * Registers in `avoid` keep their values; all scratch registers are free again after tr_access_end, which
 * must follow the native access. RCX may be one of them (tr_take).
 */
void tr_access_begin(struct translator *t, const struct guest_address *a, unsigned size, unsigned flags,
                     uint16_t avoid, bool low, struct memory_access *m);
void tr_access_end(struct translator *t, struct memory_access *m);
/* The current instruction's explicit memory operand. */
void tr_operand_address(const struct translator *t, struct guest_address *a);
/* Without flags: whether RCX becomes 0 because [s1, s1 + size) is in the page of the TLB's entry, whose index
 * goes to s2; and the load of that entry's addend to s2. */
void tr_emit_check(struct translator *t, unsigned s1, unsigned s2, unsigned size, bool write);
void tr_emit_addend(struct translator *t, unsigned s2, bool write);
/* Copy the current instruction, its memory operand replaced by [s1 + s2 + disp] if m is given, re-encoded for
 * 64-bit mode. */
void tr_copy(struct translator *t, const struct memory_access *m);
/* The address `rip` (less page_rip) to `reg`. */
void tr_emit_rip(struct translator *t, unsigned reg, uint64_t rip);
/* LEA with the guest's address arithmetic, to `reg`, in address size. */
void tr_emit_address(struct translator *t, unsigned reg, const struct guest_address *a);
void tr_write_sites(struct translator *t);

/* ---- translate_group.c ---- */
/* Of a copied instruction with a memory operand: bytes that it touches (0 if it only names an address), and
 * SITE_READ, SITE_WRITE. */
unsigned tr_access_size(const struct soft_decoded *d, bool amd);
unsigned tr_access_rights(const struct soft_decoded *d);
/* Finds the groups among the block's instructions. */
void tr_find_groups(struct translator *t, const struct soft_decoded *insns, unsigned n);
/* The current instruction's access as one of a group; false: it must look for itself. */
bool tr_group_access(struct translator *t, const struct guest_address *a, uint16_t avoid, bool low,
                     struct memory_access *m);
/* What a handler does may change what was looked up. */
void tr_end_groups(struct translator *t);
void tr_write_plains(struct translator *t);

/* ---- translate_flow.c ---- */
/* The jump to the current instruction in a block with KEY_PLAIN; registers are in place. */
void tr_exit_plain(struct translator *t, uint64_t rip);
/* After all else: what the ways out have that is rarely run. */
void tr_write_exits(struct translator *t);
/* The same with another mode of the MMU, which vcpu->key has been told of. */
void tr_exit_mmu(struct translator *t, uint64_t target, enum soft_mmu mmu);
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

/* ---- translate_system.c ---- */
/* Of an instruction that has a row: whether it is emitted instead, and whether the block goes on then. */
enum tr_emitted { NOT_EMITTED, EMITTED, EMITTED_EXIT };
enum tr_emitted tr_emitted(const struct translator *t, const struct soft_decoded *d);
/* False: its handler must do it. */
bool tr_system(struct translator *t);

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

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The differential test of the soft processor: random instructions are executed by the host's own processor
 * and by the soft engine from equal inputs, and everything that software can see afterwards is compared.
 *
 * One process, one thread (and a watchdog). Both sides see the same virtual addresses: the native side in
 * this process's own address space, the soft side through page tables in guest RAM.
 */
#ifndef TABIQUE_TESTS_SOFT_DIFF_H
#define TABIQUE_TESTS_SOFT_DIFF_H

#include "device/guest_memory.h"
#include "engine/cpu_state.h"

#include <Zydis/Zydis.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* ---- the address space ----
 *
 * Two windows show the same pages, one below 4 GiB for 32-bit addresses and one far above. In each:
 *
 *   page   0        1   2    3        4   5   6    7        256...
 *          nothing  RW  RW   nothing  RW  RO  RO   nothing  code: groups of 3 pages and a hole
 */
#define DIFF_PAGE       4096ull
#define DIFF_LOW        0x20000000ull
#define DIFF_HIGH       0x200020000000ull
#define DIFF_DATA_PAGES 5 /* that exist: window pages 1, 2, 4, 5, 6 */
#define DIFF_RW_PAGES   3 /* the first of them */
#define DIFF_DATA_SIZE  (DIFF_DATA_PAGES * DIFF_PAGE)
#define DIFF_RW_SIZE    (DIFF_RW_PAGES * DIFF_PAGE)
#define DIFF_CODE       0x100000ull /* offset in the window */
#define DIFF_GROUPS     32
#define DIFF_GROUP_CODE (3 * DIFF_PAGE)
#define DIFF_GROUP      (4 * DIFF_PAGE)
#define DIFF_FILLER     0xf4 /* HLT: one byte that faults in ring 3, in every mode */

/* Where the soft side's kernel would be; nothing is executed there. */
#define DIFF_KERNEL 0xffffffff81000000ull

/* ---- executing ---- */

struct diff_state {
    uint64_t gpr[CPU_GPRS];
    uint64_t rip, rflags;
    uint64_t fs_base, gs_base;
    uint16_t seg[CPU_SEGMENTS];
    uint8_t xsave[832] __attribute__((aligned(64))); /* standard form: legacy, header, YMM high halves */
};

#define DIFF_STEPPED 0xff /* one instruction was executed, without exception */
#define DIFF_HUNG    0xfe /* it did not end */

struct diff_result {
    struct diff_state state;
    uint8_t vector; /* of the exception that ended it, or one of the above */
    uint32_t error;
    uint64_t cr2; /* with a page fault only */
};

struct diff_memory {
    struct guest_memory *ram; /* the soft side's; holds the code of both */
    uint8_t *code;            /* DIFF_GROUPS groups of DIFF_GROUP_CODE bytes, one after the other */
    uint8_t *native_data;     /* DIFF_DATA_SIZE bytes */
    uint8_t *soft_data;
    uint64_t code_gpa, data_gpa;
};

/* A side: runs from `in` to the next exception, or for one instruction. */
struct diff_side {
    const char *name;
    int (*open)(struct diff_memory *mem);
    void (*run)(const struct diff_state *in, bool step, struct diff_result *out);
    /* The bytes at this offset of mem->code are going to change or have changed. */
    void (*code_changed)(uint64_t offset, uint64_t len);
};
extern const struct diff_side diff_native, diff_native_again, diff_soft;
/* SOFT_WITHOUT_*: what the soft engine is to do without; before its side is opened. */
extern unsigned diff_soft_without;

/* The window page -> index of the data page, or -1. */
static inline int diff_data_page(uint64_t page)
{
    return page == 1 || page == 2 ? (int)page - 1 : page >= 4 && page <= 6 ? (int)page - 2 : -1;
}
/* The offset in a side's data of a virtual address, or -1 if it is none (of `len` bytes without a break). */
int64_t diff_data_offset(uint64_t va, unsigned len);
/* 0, or -errno with a message on stderr. */
int diff_memory_open(struct diff_memory *mem);

/* ---- randomness ---- */
struct diff_random {
    uint64_t state;
};
uint64_t diff_random(struct diff_random *r);
static inline uint32_t diff_below(struct diff_random *r, uint32_t n)
{
    return (uint32_t)(((diff_random(r) >> 32) * n) >> 32);
}
static inline bool diff_chance(struct diff_random *r, uint32_t percent)
{
    return diff_below(r, 100) < percent;
}
#define DIFF_PICK(r, array) ((array)[diff_below((r), sizeof(array) / sizeof((array)[0]))])

/* ---- encodings ---- */

/* A place in the opcode maps. */
struct diff_class {
    uint8_t space; /* 0-3: one-byte, 0F, 0F38, 0F3A; 4-6: VEX maps 1-3 */
    uint8_t opcode;
    uint8_t prefix; /* index into diff_mandatory */
    uint8_t w, l;
    uint8_t form; /* DIFF_FORM_* */
    uint8_t reg;  /* ModRM.reg where it matters, or DIFF_ANY */
    uint8_t rm;   /* ModRM.rm where it matters, or DIFF_ANY */
    uint16_t mnemonic;
    bool valid; /* Zydis knows it; otherwise both sides must refuse it */
    uint32_t executed;
};
#define DIFF_ANY 0xff
enum { DIFF_FORM_NONE, DIFF_FORM_REG, DIFF_FORM_MEM };
#define DIFF_SPACES 7

struct diff_classes {
    struct diff_class *class;
    uint32_t n, n_valid; /* the valid ones come first */
};

/* An instruction of random form. */
struct diff_insn {
    uint8_t bytes[16];
    uint8_t length;
    uint8_t bits; /* 64 or 32 */
    bool valid;   /* z and op mean something */
    uint64_t rip;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

void diff_decoders_init(void);
bool diff_decode(struct diff_insn *i, const uint8_t *bytes, unsigned len, unsigned bits);
/* Walks the opcode maps. 0 or -ENOMEM. `only`: a mnemonic in capitals, or NULL. */
int diff_classes_make(struct diff_classes *out, unsigned bits, const char *only);
/* An instruction of class `c` to stand at `rip`. `tame`: its memory operand is near one of the registers that
 * sequences keep as pointers (RBX, RSP, RBP, RSI), or in the data. False: not to be executed here (see
 * skip.c), or too long. */
bool diff_insn_make(struct diff_random *r, const struct diff_class *c, unsigned bits, uint64_t rip, bool tame,
                    struct diff_insn *out);
/* The host's processor is of AMD's or Hygon's, and so is the one that the soft engine shows. */
bool diff_host_is_amd(void);
/* Why an instruction is not executed on both sides, or NULL. */
const char *diff_skip(const struct diff_insn *i);

/* ---- inputs ---- */

#define DIFF_POKES 3
struct diff_poke {
    int64_t offset; /* in the data of a side */
    uint8_t len;
    uint8_t bytes[64];
};
struct diff_input {
    struct diff_state state;
    unsigned n_pokes;
    struct diff_poke poke[DIFF_POKES];
};
/* Random registers, then those that address memory such that the instruction's operands lie at interesting
 * places of window `base`. */
void diff_input_make(struct diff_random *r, const struct diff_insn *i, uint64_t base, struct diff_input *out);
/* The linear address of a memory operand. */
uint64_t diff_effective_address(const struct diff_state *s, const struct diff_insn *i,
                                const ZydisDecodedOperandMem *m);
/* The parts, for sequences. */
void diff_input_registers(struct diff_random *r, unsigned bits, uint64_t base, struct diff_state *s);
void diff_input_vectors(struct diff_random *r, struct diff_state *s);
void diff_data_fill(struct diff_random *r, uint8_t *data, uint64_t len);

/* ---- comparing ---- */

/* What may differ after one instruction (SDM vol. 2, vol. 1 appendix A). */
struct diff_undefined {
    uint64_t flags;
    uint32_t gprs;        /* bit per register */
    bool memory;          /* what the memory operand holds */
    bool memory_on_fault; /* the same, if it ended in a fault */
    bool x87_on_fault;    /* the x87 state, if it ended in a fault */
    bool mxcsr_on_fault;  /* MXCSR */
    bool cr2;             /* which part of the operands a page fault is about */
    bool order;           /* which of several faults comes first */
    bool stack_or_gp;     /* whether an address that is not canonical raises #SS or #GP */
    /* Bytes of the data that are not compared: where x87 pointers were stored. */
    int64_t hole;
    unsigned hole_len; /* 0: none */
};
void diff_undefined(const struct diff_insn *i, const struct diff_state *in, struct diff_undefined *out);

/* Whether the results are the same; otherwise says what differs on `f` (which may be NULL). `faulted`: it
 * ended at the (last) instruction itself. */
bool diff_equal(const struct diff_result *a, const struct diff_result *b, const struct diff_undefined *u,
                unsigned bits, bool step, bool faulted, FILE *f);
void diff_print_state(FILE *f, const struct diff_state *s, unsigned bits);
void diff_print_bytes(FILE *f, const uint8_t *p, unsigned n);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One virtual processor of the soft engine: the state that translated code, the C handlers of instructions
 * and the dispatcher share. Only the vCPU's own thread touches it, but for the fields that are said to be
 * atomic.
 *
 * While translated code runs, the guest's general registers, arithmetic flags and DF are in the host's own,
 * the vector and x87 state as well (unless `fpu_saved`), and the gs segment base points to this structure. In
 * C everything is here.
 */
#ifndef TABIQUE_ENGINE_SOFT_VCPU_H
#define TABIQUE_ENGINE_SOFT_VCPU_H

#include "engine/cpu_state.h"
#include "engine/soft/insn.h"
#include "engine/stats.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct soft;
struct soft_direct;
struct lapic;

/* ---- RFLAGS (SDM vol. 1 3.4.3) ---- */
#define FLAG_CF    (1u << 0)
#define FLAG_PF    (1u << 2)
#define FLAG_AF    (1u << 4)
#define FLAG_ZF    (1u << 6)
#define FLAG_SF    (1u << 7)
#define FLAG_TF    (1u << 8)
#define FLAG_IF    (1u << 9)
#define FLAG_DF    (1u << 10)
#define FLAG_OF    (1u << 11)
#define FLAG_IOPL  (3u << 12)
#define FLAG_NT    (1u << 14)
#define FLAG_RF    (1u << 16)
#define FLAG_VM    (1u << 17)
#define FLAG_AC    (1u << 18)
#define FLAG_VIF   (1u << 19)
#define FLAG_VIP   (1u << 20)
#define FLAG_ID    (1u << 21)
#define FLAGS_HOST (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_DF | FLAG_OF)

/* ---- control registers ---- */
#define CR0_PE         (1u << 0)
#define CR0_MP         (1u << 1)
#define CR0_EM         (1u << 2)
#define CR0_TS         (1u << 3)
#define CR0_ET         (1u << 4)
#define CR0_NE         (1u << 5)
#define CR0_WP         (1u << 16)
#define CR0_AM         (1u << 18)
#define CR0_NW         (1u << 29)
#define CR0_CD         (1u << 30)
#define CR0_PG         (1u << 31)
#define CR4_VME        (1u << 0)
#define CR4_PVI        (1u << 1)
#define CR4_TSD        (1u << 2)
#define CR4_DE         (1u << 3)
#define CR4_PSE        (1u << 4)
#define CR4_PAE        (1u << 5)
#define CR4_MCE        (1u << 6)
#define CR4_PGE        (1u << 7)
#define CR4_PCE        (1u << 8)
#define CR4_OSFXSR     (1u << 9)
#define CR4_OSXMMEXCPT (1u << 10)
#define CR4_UMIP       (1u << 11)
#define CR4_FSGSBASE   (1u << 16)
#define CR4_PCIDE      (1u << 17)
#define CR4_OSXSAVE    (1u << 18)
#define CR4_SMEP       (1u << 20)
#define CR4_SMAP       (1u << 21)
#define EFER_SCE       (1u << 0)
#define EFER_LME       (1u << 8)
#define EFER_LMA       (1u << 10)
#define EFER_NX        (1u << 11)

/* ---- exception vectors (SDM vol. 3A 6.3) ---- */
enum soft_vector {
    VEC_DE = 0,
    VEC_DB = 1,
    VEC_NMI = 2,
    VEC_BP = 3,
    VEC_OF = 4,
    VEC_BR = 5,
    VEC_UD = 6,
    VEC_NM = 7,
    VEC_DF = 8,
    VEC_TS = 10,
    VEC_NP = 11,
    VEC_SS = 12,
    VEC_GP = 13,
    VEC_PF = 14,
    VEC_MF = 16,
    VEC_AC = 17,
    VEC_MC = 18,
    VEC_XM = 19,
};

/* ---- the software TLB ---- */

/*
 * Which memory rights translated code assumes. Part of the block key, so that the table's address is a
 * constant in the code. MMU_KERNEL_AC is the kernel's while user pages are open to it (SMAP off, or RFLAGS.AC
 * set).
 */
enum soft_mmu { MMU_USER, MMU_KERNEL, MMU_KERNEL_AC, MMU_MODES };

#define TLB_BITS 11
#define TLB_SIZE (1u << TLB_BITS)
#define JC_BITS  15
#define JC_SIZE  (1u << JC_BITS)

/* An entry hits if (address + tag + size - 1) >> 12 is 0: tag is minus the page's guest-virtual address. The
 * host address is then address + addend. */
struct soft_tlb {
    uint64_t tag[TLB_SIZE];
    uint64_t addend[TLB_SIZE];
};

/* Where a virtual address's translated code is: hits if address + tag is 0. `tag` is atomic: others clear it.
 */
struct soft_jump_cache {
    struct {
        uint64_t tag, code;
    } at[JC_SIZE];
};

/*
 * Where calls are returned to: by the value of RSP at the return (its low bits but three), the return address
 * that was pushed there, complemented, and code that goes on at it. `code` is 0 where there is none. The
 * stack is where it was a moment ago: so this is in the host's nearest cache when it is looked at, as the
 * jump cache is not.
 */
#define RETURNS 256u
struct soft_returns {
    uint64_t tag[RETURNS];
    uint64_t code[RETURNS];
};

#define ADDENDS         16u
#define JUMPS_MAX       8192u
#define JUMP_PAGES      4096u
#define NONGLOBAL_MAX   64u
#define FLUSHED_MAX     16u
#define NONGLOBAL_WRITE 0x8000u

/* What a TLB or jump cache has taken in since it was emptied. */
struct soft_fills {
    unsigned n;
    unsigned nonglobal; /* those of them for pages without G */
    bool low;           /* in a jump cache: some are of the lower half of the address space */
};

/* Where large pages may be in the TLBs and jump caches, which have them piece by piece: INVLPG must drop all
 * pieces. Bits by the low bits of the address's number of 2 MiB, and of 1 GiB. */
#define LARGE_REGIONS 4096u
struct soft_large {
    uint64_t regions[LARGE_REGIONS / 64];
    uint64_t gigabytes;
    bool any;
};

/* Both hold interrupts back for one instruction; MOV SS and POP SS debug exceptions too (SDM vol. 3A 6.8.3).
 */
#define SHADOW_STI 1
#define SHADOW_SS  2

/* What a C handler returns. */
enum soft_result {
    SOFT_NEXT = 0, /* done: go on after the instruction */
    SOFT_JUMP = 1, /* done: go on at vcpu->rip, through the dispatcher */
    SOFT_FAULT =
        2, /* not done: vcpu->fault holds the exception, vcpu->rip the instruction that it belongs to */
};

struct soft_fault {
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint64_t cr2; /* for VEC_PF */
    /* dr6 bits to set, for VEC_DB. A trap's saved RIP is that of the next instruction: rip has been set
     * already. */
    uint64_t dr6;
};

/* Requests from other threads, in soft_vcpu.requests. */
#define REQUEST_STOP      (1u << 0) /* pause: wait outside guest code */
#define REQUEST_INTERRUPT (1u << 1) /* the local APIC has something */
#define REQUEST_FLUSH_WRITE                                                                                  \
    (1u << 2)                    /* a page became code: drop its writable TLB entries, then revalidate it */
#define REQUEST_SAMPLE (1u << 3) /* tell where it is: profile.h */

/* A look at a vCPU that is to be answered. */
struct soft_look {
    _Atomic uint32_t looks; /* so many, by the machine's thread; the first of them: */
    uint64_t time;
    uint8_t activity;
    uint64_t from, to; /* the branch by which translated code was left, and its target; 0 */
};

struct soft_vcpu {
    /* -- known to translated code by offset -- */
    uint64_t gpr[CPU_GPRS];
    uint64_t rip;       /* RIP, EIP or IP: an offset in CS where CS has a base */
    uint64_t flags;     /* the bits of FLAGS_HOST */
    uint64_t pending;   /* atomic; nonzero: leave translated code at the next poll */
    uint64_t host_rsp;  /* this thread's own stack while guest code runs */
    uint64_t fpu_saved; /* 1: the guest's x87, SSE and AVX state is in `xsave`; 0: in the registers */
    uint64_t iflag;     /* RFLAGS.IF, at its place: 0 or FLAG_IF */
    uint64_t shadow;    /* no interrupt before the next instruction has ended: SHADOW_STI or SHADOW_SS */
    uint64_t scratch[8];
    uint64_t slow_address, slow_host, slow_post, slow_site;
    uint64_t index_mask, page_mask, jump_mask, return_mask; /* operands for PEXT */
    uint64_t count_mask[4]; /* the same: elements of 1, 2, 4, 8 bytes beyond a page of them */
    uint64_t exit_link;     /* the struct soft_exit through which the last block was left, or 0 */
    uint64_t tsc_offset;    /* guest TSC - host TSC */
    /* What is to be added to addresses in the current block: the page that it runs in, or 0
     * (soft_key_moves). */
    uint64_t page_rip;
    uint64_t addend[ADDENDS]; /* host's less guest's address of pages that the current block has looked up */
    uint64_t x87_page;        /* page_rip at the last x87 instruction, if its block could be at any */
    struct cpu_segment_state seg[CPU_SEGMENTS];
    struct soft_returns returns[MMU_MODES];
    struct soft_tlb tlb[MMU_MODES][2]; /* [..][0] read, [..][1] write */
    struct soft_jump_cache jump[MMU_MODES];
    uint64_t host_gpr[CPU_GPRS];
    uint8_t bounce[128] __attribute__((aligned(64)));
    uint64_t resume;    /* where slow paths go on in translated code */
    uint64_t result;    /* what the last handler returned */
    uint64_t activity;  /* enum engine_activity; another thread looks at it now and then */
    uint64_t held_back; /* nonzero: something may be waiting for RFLAGS.IF */

    /* -- the rest of the architectural state -- */
    uint64_t sysflags; /* RFLAGS but for FLAGS_HOST, IF and the constant bit 1 */
    struct cpu_segment_state ldtr, tr;
    struct cpu_table_state gdt, idt;
    uint64_t cr0, cr2, cr3, cr4;
    uint64_t efer, xcr0;
    uint64_t dr[8];
    uint64_t star, lstar, cstar, fmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, tsc_aux, tsc_adjust, misc_enable, spec_ctrl;
    uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_var[16];
    uint8_t cpl;
    bool halted;
    bool wait_for_sipi;
    bool nmi_blocked;

    uint8_t xsave[832] __attribute__((aligned(64))); /* XSAVE's standard form */

    /* -- bookkeeping -- */
    uint32_t key;            /* what the current mode means to translated code: soft_update_key */
    struct soft_fault fault; /* with SOFT_FAULT */
    struct soft *soft;
    unsigned index; /* = APIC id */
    struct lapic *lapic;
    _Atomic uint32_t requests;
    _Atomic uint32_t asleep;
    _Atomic uint32_t in_code; /* between finding a block and leaving it: the cache may not be emptied */
    bool nmi_pending;
    struct engine_cpu_stats stats; /* written by its own thread, but for the samples */
    struct soft_look look;
    struct soft_direct *direct; /* direct execution; NULL: everything is translated */
    bool direct_user;           /* its idea of whether this is user mode */
    uint64_t flushes;           /* of the TLB */
    unsigned n_flushed;         /* since the last of them, single pages of the lower half: */
    uint64_t flushed[FLUSHED_MAX];
    struct soft_fills tlb_fills[MMU_MODES], jump_fills[MMU_MODES];
    uint16_t jump_at[MMU_MODES][JUMPS_MAX]; /* the first of jump_fills: index in the jump cache */
    /* Whether jump_fills has any of a page, by the low bits of its number. */
    uint64_t jump_pages[MMU_MODES][JUMP_PAGES / 64];
    /* The first of tlb_fills' nonglobal ones: index in the TLB, NONGLOBAL_WRITE added for the one of writes.
     * A kernel meets a few such pages only; then its TLB stays when the address space changes. */
    uint16_t nonglobal_at[MMU_MODES][NONGLOBAL_MAX];
    struct soft_large large[2];   /* [1]: with G */
    uint32_t jump_key[MMU_MODES]; /* the key that jump[] holds code for */
    _Atomic bool jump_stale;      /* jump[MMU_USER] may hold code that is not valid any more */
    uint64_t jump_cs_base[MMU_MODES];
    uint64_t debug_hits; /* DR6 bits of breakpoints met by the current instruction */
    uint64_t held_hits;  /* those that MOV SS keeps back until the next instruction has ended */
    bool alone;          /* no other vCPU is in translated code until this one allows it */
    bool wants_alone;    /* the next instruction is to be executed so */
    bool entered;        /* the current instruction has entered a handler, which is not stepped */
    struct {
        uint64_t gpa[2]; /* of the one or two pages of a bounced or code-page write */
        uint8_t first;   /* bytes in the first page */
        bool bounced;
    } post;
};

/* The block key: what translated code depends on beside the bytes themselves. */
#define KEY_CPL       0x3u  /* the CPL */
#define KEY_CODE32    0x4u  /* CS.D, not in 64-bit mode */
#define KEY_CODE64    0x8u  /* 64-bit mode; else 16 or 32 bits after CODE32 */
#define KEY_STACK32   0x10u /* SS.B */
#define KEY_FLAT      0x20u /* CS, DS, ES, SS have base 0 and no limit below 4 GiB: no checks needed */
#define KEY_PROTECTED 0x40u /* CR0.PE */
#define KEY_MMU_SHIFT 7     /* 2 bits: enum soft_mmu */
#define KEY_MMU       (3u << KEY_MMU_SHIFT)
#define KEY_EM        0x200u  /* CR0.EM: x87 raises #NM, MMX #UD */
#define KEY_NO_SSE    0x400u  /* SSE instructions raise #UD (CR0.EM, or CR4.OSFXSR clear) */
#define KEY_NO_AVX    0x800u  /* VEX vector instructions raise #UD (OSXSAVE or XCR0) */
#define KEY_TS        0x1000u /* CR0.TS: x87, MMX, SSE, AVX and (with MP) FWAIT raise #NM */
#define KEY_STEP      0x2000u /* RFLAGS.TF: one instruction, then #DB */
#define KEY_DEBUG                                                                                            \
    0x4000u /* a breakpoint is enabled in DR7: blocks of one instruction, checked by the dispatcher */
#define KEY_ONE      0x8000u   /* a block of one instruction (after an interrupt shadow) */
#define KEY_NO_RDTSC 0x10000u  /* RDTSC raises #GP (CR4.TSD at CPL 3) */
#define KEY_PLAIN    0x40000u  /* the rest of a block, in which each access looks for itself in the TLB */
#define KEY_SMAP     0x80000u  /* CPL 0 with CR4.SMAP: RFLAGS.AC is what the MMU says */
#define KEY_DF       0x100000u /* RFLAGS.DF */
#define KEY_AC                                                                                               \
    0x20000u /* accesses must be aligned (CR0.AM and RFLAGS.AC at CPL 3): all take the slow path             \
              */

static inline enum soft_mmu soft_key_mmu(uint32_t key)
{
    return (enum soft_mmu)((key & KEY_MMU) >> KEY_MMU_SHIFT);
}
/* Translations of users' 64-bit code hold at any virtual address, so that processes share those of a library:
 * the page is in vcpu->page_rip, and what a block knows of addresses is relative to it. The kernel stays
 * where it is; its addresses are constants. */
static inline bool soft_key_moves(uint32_t key)
{
    return (key & (KEY_CODE64 | KEY_CPL)) == (KEY_CODE64 | 3);
}
static inline uint64_t soft_page_rip(uint32_t key, uint64_t rip)
{
    return soft_key_moves(key) ? rip & ~4095ull : 0;
}
static inline bool soft_is64(const struct soft_vcpu *c)
{
    return c->key & KEY_CODE64;
}

/* 48-bit addresses: bits 63-47 are equal. */
static inline bool soft_canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

/* ---- state.c: RFLAGS, the key, conversion from and to struct cpu_state ---- */

/* The whole RFLAGS, as PUSHF would see it (RF and VM included). */
uint64_t soft_rflags(const struct soft_vcpu *c);
/* Takes the bits of `mask` from `value`; other bits stay. Bit 1 is constant. Call soft_update_key after
 * changes of TF or AC; sets `pending` if IF became 1 and an interrupt waits. */
void soft_set_rflags(struct soft_vcpu *c, uint64_t value, uint64_t mask);
/* Recomputes c->key from CR0, CR4, EFER, CS, SS, CPL, RFLAGS, DR7 and XCR0. To be called after any change of
 * these before translated code runs again; handlers whose row has the flag `MODE` needn't: the caller does.
 */
void soft_update_key(struct soft_vcpu *c);
void soft_set_state(struct soft_vcpu *c, const struct cpu_state *s);
void soft_get_state(const struct soft_vcpu *c, struct cpu_state *s);

/* ---- mmu.c: guest-virtual memory for C code ---- */

enum soft_access {
    ACCESS_READ = 0,
    ACCESS_WRITE = 1,
    ACCESS_EXEC = 2,
    ACCESS_KIND = 3,
    ACCESS_SYSTEM =
        4, /* an implicit supervisor access at any CPL: descriptor tables, TSS, interrupt stack frames */
    ACCESS_ANY_ALIGNMENT = 8, /* no #AC, whatever RFLAGS.AC says: elements of gathers and masked moves */
};

/*
 * Copies from or to linear (already segmented) addresses as the guest would access them at its CPL: paging
 * rights, accessed and dirty bits, page crossing, devices, code invalidation. SOFT_NEXT, or SOFT_FAULT with
 * c->fault set and nothing written (both pages of a crossing are checked first). Aligned accesses of 1, 2, 4
 * and 8 bytes are single copies (atomic). In 64-bit mode a non-canonical address raises #GP(0). len <= 4096.
 */
int soft_read(struct soft_vcpu *c, uint64_t linear, void *buf, unsigned len, unsigned access);
int soft_write(struct soft_vcpu *c, uint64_t linear, const void *buf, unsigned len, unsigned access);

/*
 * For string instructions and other bulk access: the host pointer of `linear` for reading or writing, valid
 * to the page's end; *host is NULL if it is not plain RAM (a device, a page with translated code when
 * writing, a data breakpoint): then use soft_read/soft_write. SOFT_NEXT or SOFT_FAULT.
 */
int soft_host_pointer(struct soft_vcpu *c, uint64_t linear, unsigned access, uint8_t **host);

/*
 * An atomic read-modify-write on guest memory for handlers of locked instructions (BTS m,r and such): gives a
 * host pointer to `size` bytes (1-16); after the change call soft_rmw_end with the same arguments. SOFT_JUMP:
 * leave all as it is and return that; the instruction is executed again with the other vCPUs stopped.
 */
int soft_rmw_begin(struct soft_vcpu *c, uint64_t linear, unsigned size, void **host);
int soft_rmw_end(struct soft_vcpu *c, uint64_t linear, unsigned size);
/* A locked operand can't be worked on in place: true if the others must be stopped first, which is then
 * noted. */
bool soft_must_be_alone(struct soft_vcpu *c);

/* Drop translations from the software TLBs and jump caches. `all`: global pages too. */
void soft_tlb_flush(struct soft_vcpu *c, bool all);
void soft_tlb_flush_page(struct soft_vcpu *c, uint64_t linear);

/* #AC if alignment is checked now and this operand of `size` bytes has not its own (SDM vol. 3A table 6-7):
 * that of 16 for more, of 8 for 10, none for sizes that are no power of two. It comes before page faults. */
int soft_check_alignment(struct soft_vcpu *c, uint64_t linear, unsigned size);

/* The physical address that `linear` maps to at this access; SOFT_NEXT or SOFT_FAULT. */
int soft_translate(struct soft_vcpu *c, uint64_t linear, unsigned access, uint64_t *gpa);

/* ---- exception.c: raising and delivering ---- */

/* Record an exception; all return SOFT_FAULT. */
int soft_raise(struct soft_vcpu *c, enum soft_vector vector);
int soft_raise_error(struct soft_vcpu *c, enum soft_vector vector, uint32_t error);

/*
 * Deliver c->fault through the IDT (or the real-mode table) with c->rip as the saved RIP: contributory faults
 * become #DF, a fault during #DF ends in shutdown. SOFT_JUMP, or SOFT_FAULT for a shutdown (triple fault).
 */
int soft_deliver_fault(struct soft_vcpu *c);
/* The same for an external interrupt or NMI. */
int soft_deliver_interrupt(struct soft_vcpu *c, uint8_t vector);

/* ---- for handlers: operands ---- */

/*
 * The linear address of the instruction's memory operand (or, for handlers with addresses of their own, of
 * `offset` in segment `seg`), checked for `size` bytes against the segment (limit, rights, null) or canonical
 * form. SOFT_NEXT or SOFT_FAULT (#GP or #SS). `write`: the segment must be writable.
 */
int soft_operand_linear(struct soft_vcpu *c, const struct soft_insn *i, unsigned size, bool write,
                        uint64_t *linear);
int soft_linear(struct soft_vcpu *c, unsigned seg, uint64_t offset, unsigned size, bool write,
                uint64_t *linear);
/* The memory operand's offset in its segment, truncated to the address size. */
uint64_t soft_effective_address(const struct soft_vcpu *c, const struct soft_insn *i);
/* Register by operand size in bytes; writing 4 bytes clears the upper half, 1 and 2 leave the rest. `high`:
 * AH..BH. */
uint64_t soft_reg_read(const struct soft_vcpu *c, unsigned reg, unsigned size, bool high);
void soft_reg_write(struct soft_vcpu *c, unsigned reg, unsigned size, bool high, uint64_t value);
/* Operand n (0-based, visible ones) of up to 8 bytes: register, memory or immediate. SOFT_NEXT or SOFT_FAULT.
 */
int soft_operand_read(struct soft_vcpu *c, const struct soft_insn *i, unsigned n, uint64_t *value);
int soft_operand_write(struct soft_vcpu *c, const struct soft_insn *i, unsigned n, uint64_t value);
/* The stack as the current mode has it (SS base and size; 64-bit flat). push is not done if it faults; pop
 * moves RSP. */
int soft_push(struct soft_vcpu *c, uint64_t value, unsigned size);
int soft_pop(struct soft_vcpu *c, uint64_t *value, unsigned size);

/* ---- debug registers (SDM vol. 3B 17.2) ---- */
enum soft_debug_kind { DEBUG_EXEC = 0, DEBUG_WRITE = 1, DEBUG_IO = 2, DEBUG_READ = 3 };
/* The DR6 bits (0-3) of enabled breakpoints that an access of this kind to [linear, linear + len) meets. A
 * write also meets breakpoints on reads and writes. */
uint64_t soft_debug_match(const struct soft_vcpu *c, uint64_t linear, unsigned len,
                          enum soft_debug_kind kind);

/* ---- what the engine gives to handlers ---- */
/*
 * Whether the guest sees a processor of AMD's or Hygon's, as it does on such a host. What AMD's manual (APM
 * vol. 2 and 3) has otherwise than Intel's, and what such processors are seen to do otherwise, is done their
 * way: copied instructions follow the host's vendor anyhow.
 */
bool soft_is_amd(const struct soft_vcpu *c);
/* Of an access to FS or GS in 64-bit mode, AMD's processors want the offset to be canonical as well as the
 * address, its first byte's and its last one's (seen on Zen 3; their manual speaks of the address alone). */
static inline bool soft_offset_allowed(const struct soft_vcpu *c, unsigned seg, uint64_t address,
                                       unsigned size)
{
    if (seg != CPU_FS && seg != CPU_GS)
        return true;
    uint64_t offset = address - c->seg[seg].base;
    return (soft_canonical(offset) && soft_canonical(offset + size - 1)) || !soft_is_amd(c);
}
void soft_cpuid(struct soft_vcpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
uint64_t soft_pio_read(struct soft_vcpu *c, uint16_t port, unsigned size);
void soft_pio_write(struct soft_vcpu *c, uint16_t port, unsigned size, uint64_t value);
struct pvclock;
/* The machine's paravirtual clock; NULL where there is none (tests). */
struct pvclock *soft_pvclock(struct soft_vcpu *c);
/* The guest's time-stamp counter. */
uint64_t soft_read_tsc(const struct soft_vcpu *c);

/* ---- segment.c ---- */
/* MOV to a data or stack segment register with all protected-mode checks (SDM vol. 3A 5). CS only by far
 * transfers. */
int soft_load_segment(struct soft_vcpu *c, unsigned seg, uint16_t selector);

#endif

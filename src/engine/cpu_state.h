/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The architectural state of one x86-64 processor, in no engine's own layout: what boot loaders set up, tests
 * compare and (later) snapshots store. SDM vol. 3A chapter 2.
 */
#ifndef TABIQUE_ENGINE_CPU_STATE_H
#define TABIQUE_ENGINE_CPU_STATE_H

#include <stdbool.h>
#include <stdint.h>

/* In the order of their encoding in ModRM. */
enum cpu_gpr {
    CPU_RAX,
    CPU_RCX,
    CPU_RDX,
    CPU_RBX,
    CPU_RSP,
    CPU_RBP,
    CPU_RSI,
    CPU_RDI,
    CPU_R8,
    CPU_R9,
    CPU_R10,
    CPU_R11,
    CPU_R12,
    CPU_R13,
    CPU_R14,
    CPU_R15,
    CPU_GPRS
};

/* In the order of their encoding in a segment-register field. */
enum cpu_segment { CPU_ES, CPU_CS, CPU_SS, CPU_DS, CPU_FS, CPU_GS, CPU_SEGMENTS };

struct cpu_segment_state {
    uint64_t base;
    uint32_t limit; /* in bytes, after applying G */
    /* Access rights as in a descriptor's bits 40-55: type 0-3, S 4, DPL 5-6, P 7, (limit 8-11: zero), AVL 12,
     * L 13, D/B 14, G 15. As the VMCS holds them (SDM vol. 3C 25.4.1). An unusable segment has P clear. */
    uint16_t attr;
    uint16_t selector;
};

#define CPU_ATTR_TYPE      0x000fu
#define CPU_ATTR_S         0x0010u
#define CPU_ATTR_DPL       0x0060u
#define CPU_ATTR_DPL_SHIFT 5
#define CPU_ATTR_P         0x0080u
#define CPU_ATTR_AVL       0x1000u
#define CPU_ATTR_L         0x2000u
#define CPU_ATTR_DB        0x4000u
#define CPU_ATTR_G         0x8000u

struct cpu_table_state {
    uint64_t base;
    uint16_t limit;
};

struct cpu_state {
    uint64_t gpr[CPU_GPRS];
    uint64_t rip;
    uint64_t rflags;
    struct cpu_segment_state seg[CPU_SEGMENTS];
    struct cpu_segment_state ldtr, tr;
    struct cpu_table_state gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8;
    uint64_t efer;
    uint64_t xcr0;
    uint64_t dr[8]; /* 4 and 5 unused */
    uint64_t star, lstar, cstar, fmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, tsc_aux;
    uint64_t apic_base;
    /* x87, SSE and AVX state as XSAVE's standard form has it: legacy area, header, and YMM high halves at
     * 576. */
    uint8_t xsave[832] __attribute__((aligned(64)));
    bool halted;        /* in HLT */
    bool wait_for_sipi; /* an application processor before its SIPI */
};

/*
 * Two MSRs are not as RESET leaves them but as firmware does, since a machine may have none and kernels then
 * give up on page attributes or on fast string instructions: MTRRs enabled, write-back by default;
 * IA32_MISC_ENABLE's fast-string bit set.
 */
#define CPU_MTRR_DEF_TYPE           0x806ull
#define CPU_MISC_ENABLE_FAST_STRING 1ull

/* The state after RESET (SDM vol. 3A table 10-1): real mode at F000:FFF0. `bsp`: the others wait for a SIPI.
 */
void cpu_state_reset(struct cpu_state *state, bool bsp);

#endif

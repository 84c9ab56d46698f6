/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The model-specific registers of a guest's processor (SDM vol. 4): a table of ranges with what reads and
 * writes them. What is in no row raises #GP, which is how guests find out that it isn't there. Called for
 * RDMSR and WRMSR in the vCPU's own thread; no locks.
 */
#include "base/bytes.h"
#include "engine/cpuid.h"
#include "engine/soft/handlers.h"
#include "engine/soft/lapic.h"
#include "engine/soft/pvclock.h"

#include <stddef.h>

/* A revision that no list of microcode with flaws goes up to. */
#define MICROCODE_REVISION (0xffffffffull << 32)

#define MTRR_VARIABLE      8u
#define MTRRCAP            (MTRR_VARIABLE | 1u << 8 | 1u << 10) /* fixed ranges, write combining */
#define MTRR_DEF_TYPE_BITS 0xcffu                               /* enable, fixed enable, type */
#define MTRR_MASK_VALID    (1u << 11)

#define FEATURE_CONTROL_LOCKED 1u

/* IBRS, STIBP, SSBD, BHI_DIS_S: kept, and without effect on an engine that predicts nothing of its own. */
#define SPEC_CTRL_KNOWN (7u | 1u << 10)
#define PRED_CMD_IBPB   1u
#define DEBUGCTL_KNOWN  3u /* LBR, BTF */

/* No branch trace store, no precise event based sampling. */
#define MISC_ENABLE_FIXED (1u << 11 | 1u << 12)

/* AMD: HWCR's TscFreqSel, DE_CFG's LFENCE serialization. */
#define HWCR_TSC_FREQ_SEL (1u << 24)
#define DE_CFG_LFENCE     (1u << 1)
#define EFER_WRITABLE     (EFER_SCE | EFER_LME | EFER_NX)

/* A range of registers that behave alike. The functions return false for #GP, which is also what NULL means.
 */
struct msr_row {
    uint32_t first, last;
    bool (*read)(struct soft_vcpu *c, uint32_t msr, uint64_t *value);
    bool (*write)(struct soft_vcpu *c, uint32_t msr, uint64_t value);
};

/* ---- what is just kept, or fixed ---- */

#define FIELD_READ(name, member)                                                                             \
    static bool read_##name(struct soft_vcpu *c, uint32_t msr, uint64_t *value)                              \
    {                                                                                                        \
        *value = (member);                                                                                   \
        return true;                                                                                         \
    }
#define FIELD_WRITE(name, member, valid)                                                                     \
    static bool write_##name(struct soft_vcpu *c, uint32_t msr, uint64_t value)                              \
    {                                                                                                        \
        if (!(valid))                                                                                        \
            return false;                                                                                    \
        (member) = value;                                                                                    \
        return true;                                                                                         \
    }

FIELD_READ(sysenter_cs, c->sysenter_cs)
FIELD_WRITE(sysenter_cs, c->sysenter_cs, value <= UINT32_MAX)
FIELD_READ(sysenter_esp, c->sysenter_esp)
FIELD_WRITE(sysenter_esp, c->sysenter_esp, soft_canonical(value))
FIELD_READ(sysenter_eip, c->sysenter_eip)
FIELD_WRITE(sysenter_eip, c->sysenter_eip, soft_canonical(value))
FIELD_READ(star, c->star)
FIELD_WRITE(star, c->star, true)
FIELD_READ(lstar, c->lstar)
FIELD_WRITE(lstar, c->lstar, soft_canonical(value))
FIELD_READ(cstar, c->cstar)
FIELD_WRITE(cstar, c->cstar, soft_canonical(value))
FIELD_READ(fmask, c->fmask)
FIELD_WRITE(fmask, c->fmask, value <= UINT32_MAX)
FIELD_READ(fs_base, c->seg[CPU_FS].base)
FIELD_WRITE(fs_base, c->seg[CPU_FS].base, soft_canonical(value))
FIELD_READ(gs_base, c->seg[CPU_GS].base)
FIELD_WRITE(gs_base, c->seg[CPU_GS].base, soft_canonical(value))
FIELD_READ(kernel_gs_base, c->kernel_gs_base)
FIELD_WRITE(kernel_gs_base, c->kernel_gs_base, soft_canonical(value))
FIELD_READ(tsc_aux, c->tsc_aux)
FIELD_WRITE(tsc_aux, c->tsc_aux, value <= UINT32_MAX)
FIELD_READ(spec_ctrl, c->spec_ctrl)
FIELD_WRITE(spec_ctrl, c->spec_ctrl, (value & ~(uint64_t)SPEC_CTRL_KNOWN) == 0)
FIELD_READ(misc_enable, c->misc_enable | MISC_ENABLE_FIXED)
FIELD_WRITE(misc_enable, c->misc_enable, true)
FIELD_READ(zero, 0)
FIELD_READ(microcode, MICROCODE_REVISION)
FIELD_READ(feature_control, FEATURE_CONTROL_LOCKED)
FIELD_READ(mtrrcap, MTRRCAP)
FIELD_READ(arch_capabilities, cpuid_arch_capabilities())
FIELD_READ(hwcr, HWCR_TSC_FREQ_SEL)
FIELD_READ(de_cfg, DE_CFG_LFENCE)

static bool write_ignore(struct soft_vcpu *c, uint32_t msr, uint64_t value)
{
    return true;
}
static bool write_zero(struct soft_vcpu *c, uint32_t msr, uint64_t value)
{
    return value == 0;
}
static bool write_pred_cmd(struct soft_vcpu *c, uint32_t msr, uint64_t value)
{
    return (value & ~(uint64_t)PRED_CMD_IBPB) == 0;
}
/* Neither branch records nor single steps on branches: as if no branch came. */
static bool write_debugctl(struct soft_vcpu *c, uint32_t msr, uint64_t value)
{
    return (value & ~(uint64_t)DEBUGCTL_KNOWN) == 0;
}

/* ---- EFER ---- */

FIELD_READ(efer, c->efer)

static bool write_efer(struct soft_vcpu *c, uint32_t msr, uint64_t value)
{
    uint64_t changed = (c->efer ^ value) & EFER_WRITABLE;

    /* LMA follows from LME and CR0.PG: what is written there has no effect. */
    if (value & ~(uint64_t)(EFER_WRITABLE | EFER_LMA))
        return false;
    if ((changed & EFER_LME) && (c->cr0 & CR0_PG))
        return false;
    c->efer ^= changed;
    if (changed & EFER_NX)
        soft_tlb_flush(c, true);
    return true;
}

/* ---- time ---- */

static bool read_tsc(struct soft_vcpu *c, uint32_t msr, uint64_t *value)
{
    *value = soft_read_tsc(c);
    return true;
}

static void step_tsc(struct soft_vcpu *c, uint64_t delta)
{
    struct pvclock *clock = soft_pvclock(c);

    c->tsc_offset += delta;
    c->tsc_adjust += delta;
    if (c->lapic)
        lapic_tsc_changed(c->lapic);
    if (clock)
        pvclock_tsc_changed(clock);
}

/* SDM vol. 3B 17.17.3: a write of either register shows as the same step in the other. */
static bool write_tsc(struct soft_vcpu *c, uint32_t msr, uint64_t value)
{
    step_tsc(c, value - soft_read_tsc(c));
    return true;
}

FIELD_READ(tsc_adjust, c->tsc_adjust)

static bool write_tsc_adjust(struct soft_vcpu *c, uint32_t msr, uint64_t value)
{
    step_tsc(c, value - c->tsc_adjust);
    return true;
}

static bool read_clock(struct soft_vcpu *c, uint32_t msr, uint64_t *value)
{
    struct pvclock *clock = soft_pvclock(c);

    return clock && pvclock_msr_read(clock, c->index, msr, value) == 0;
}

static bool write_clock(struct soft_vcpu *c, uint32_t msr, uint64_t value)
{
    struct pvclock *clock = soft_pvclock(c);

    return clock && pvclock_msr_write(clock, c->index, msr, value) == 0;
}

/* ---- the local APIC ---- */

static bool read_lapic(struct soft_vcpu *c, uint32_t msr, uint64_t *value)
{
    return c->lapic && lapic_msr_read(c->lapic, msr, value) == 0;
}

static bool write_lapic(struct soft_vcpu *c, uint32_t msr, uint64_t value)
{
    return c->lapic && lapic_msr_write(c->lapic, msr, value) == 0;
}

/* ---- memory types: kept and checked; memory is what it is ---- */

/* UC, WC, WT, WP, WB (SDM vol. 3A table 11-8); the PAT has UC- as well. */
static bool memory_type(unsigned type, bool pat)
{
    return type == 0 || type == 1 || (type >= 4 && type <= 6) || (pat && type == 7);
}

static bool memory_types(uint64_t value, bool pat)
{
    for (unsigned n = 0; n < 8; n++) {
        if (!memory_type(value >> (8 * n) & 0xff, pat))
            return false;
    }
    return true;
}

FIELD_READ(pat, c->pat)
FIELD_WRITE(pat, c->pat, memory_types(value, true))
FIELD_READ(mtrr_def_type, c->mtrr_def_type)
FIELD_WRITE(mtrr_def_type, c->mtrr_def_type,
            (value & ~(uint64_t)MTRR_DEF_TYPE_BITS) == 0 && memory_type(value & 0xff, false))
FIELD_READ(mtrr_var, c->mtrr_var[msr - 0x200])

static bool write_mtrr_var(struct soft_vcpu *c, uint32_t msr, uint64_t value)
{
    bool mask = msr & 1;

    if (value >> soft_physical_bits(c))
        return false;
    if (mask ? value & 0xfff & ~MTRR_MASK_VALID : (value & 0xf00) || !memory_type(value & 0xff, false))
        return false;
    c->mtrr_var[msr - 0x200] = value;
    return true;
}

/* 64 KiB ranges at 0x250, 16 KiB at 0x258 and 0x259, 4 KiB from 0x268 on. */
static unsigned fixed_index(uint32_t msr)
{
    return msr == 0x250 ? 0 : msr < 0x260 ? 1 + msr - 0x258 : 3 + msr - 0x268;
}

FIELD_READ(mtrr_fixed, c->mtrr_fixed[fixed_index(msr)])
FIELD_WRITE(mtrr_fixed, c->mtrr_fixed[fixed_index(msr)], memory_types(value, false))

/* ---- the table ---- */

/* By number, for the search. */
static const struct msr_row rows[] = {
    {0x00000010, 0x00000010, read_tsc, write_tsc},
    {PVCLOCK_MSR_WALL_CLOCK_OLD, PVCLOCK_MSR_SYSTEM_TIME_OLD, read_clock, write_clock},
    {0x00000017, 0x00000017, read_zero, NULL}, /* PLATFORM_ID */
    {LAPIC_MSR_BASE, LAPIC_MSR_BASE, read_lapic, write_lapic},
    {0x0000003a, 0x0000003a, read_feature_control, NULL},
    {0x0000003b, 0x0000003b, read_tsc_adjust, write_tsc_adjust},
    {0x00000048, 0x00000048, read_spec_ctrl, write_spec_ctrl},
    {0x00000049, 0x00000049, NULL, write_pred_cmd},
    {0x00000079, 0x00000079, NULL, write_ignore},           /* BIOS_UPDT_TRIG: a microcode update */
    {0x0000008b, 0x0000008b, read_microcode, write_ignore}, /* BIOS_SIGN_ID, AMD's PATCH_LEVEL */
    {0x000000ce, 0x000000ce, read_zero, NULL},              /* PLATFORM_INFO: no CPUID faulting */
    {0x000000fe, 0x000000fe, read_mtrrcap, NULL},
    {0x0000010a, 0x0000010a, read_arch_capabilities, NULL},
    {0x00000140, 0x00000140, read_zero, write_zero}, /* MISC_FEATURE_ENABLES */
    {0x00000174, 0x00000174, read_sysenter_cs, write_sysenter_cs},
    {0x00000175, 0x00000175, read_sysenter_esp, write_sysenter_esp},
    {0x00000176, 0x00000176, read_sysenter_eip, write_sysenter_eip},
    {0x00000179, 0x00000179, read_zero, NULL},       /* MCG_CAP: no banks */
    {0x0000017a, 0x0000017a, read_zero, write_zero}, /* MCG_STATUS */
    {0x00000198, 0x00000198, read_zero, NULL},       /* PERF_STATUS */
    {0x000001a0, 0x000001a0, read_misc_enable, write_misc_enable},
    {0x000001d9, 0x000001d9, read_zero, write_debugctl},
    {0x00000200, 0x0000020f, read_mtrr_var, write_mtrr_var},
    {0x00000250, 0x00000250, read_mtrr_fixed, write_mtrr_fixed},
    {0x00000258, 0x00000259, read_mtrr_fixed, write_mtrr_fixed},
    {0x00000268, 0x0000026f, read_mtrr_fixed, write_mtrr_fixed},
    {0x00000277, 0x00000277, read_pat, write_pat},
    {0x000002ff, 0x000002ff, read_mtrr_def_type, write_mtrr_def_type},
    {LAPIC_MSR_TSC_DEADLINE, LAPIC_MSR_TSC_DEADLINE, read_lapic, write_lapic},
    {LAPIC_MSR_X2APIC_FIRST, LAPIC_MSR_X2APIC_LAST, read_lapic, write_lapic},
    {PVCLOCK_MSR_WALL_CLOCK, PVCLOCK_MSR_SYSTEM_TIME, read_clock, write_clock},
    {0xc0000080, 0xc0000080, read_efer, write_efer},
    {0xc0000081, 0xc0000081, read_star, write_star},
    {0xc0000082, 0xc0000082, read_lstar, write_lstar},
    {0xc0000083, 0xc0000083, read_cstar, write_cstar},
    {0xc0000084, 0xc0000084, read_fmask, write_fmask},
    {0xc0000100, 0xc0000100, read_fs_base, write_fs_base},
    {0xc0000101, 0xc0000101, read_gs_base, write_gs_base},
    {0xc0000102, 0xc0000102, read_kernel_gs_base, write_kernel_gs_base},
    {0xc0000103, 0xc0000103, read_tsc_aux, write_tsc_aux},
    /* AMD, where CPUID says so: SYSCFG, HWCR, NB_CFG, INT_PENDING, LS_CFG, IC_CFG, DC_CFG, DE_CFG, BU_CFG2 */
    {0xc0010010, 0xc0010010, read_zero, write_ignore},
    {0xc0010015, 0xc0010015, read_hwcr, write_ignore},
    {0xc001001f, 0xc001001f, read_zero, write_ignore},
    {0xc0010055, 0xc0010055, read_zero, write_ignore},
    {0xc0011020, 0xc0011022, read_zero, write_ignore},
    {0xc0011029, 0xc0011029, read_de_cfg, write_ignore},
    {0xc001102a, 0xc001102a, read_zero, write_ignore},
};

static const struct msr_row *find_row(uint32_t msr)
{
    size_t low = 0, high = ARRAY_SIZE(rows);

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (msr > rows[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < ARRAY_SIZE(rows) && msr >= rows[low].first ? &rows[low] : NULL;
}

int soft_msr_read(struct soft_vcpu *c, uint32_t msr, uint64_t *value)
{
    const struct msr_row *row = find_row(msr);

    if (!row || !row->read || !row->read(c, msr, value))
        return soft_raise(c, VEC_GP);
    return SOFT_NEXT;
}

int soft_msr_write(struct soft_vcpu *c, uint32_t msr, uint64_t value)
{
    const struct msr_row *row = find_row(msr);

    if (!row || !row->write || !row->write(c, msr, value))
        return soft_raise(c, VEC_GP);
    return SOFT_NEXT;
}

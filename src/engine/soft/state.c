/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RFLAGS, the block key, and the exchange of whole processor states. Called in the vCPU's thread or while it
 * is paused. */
#include "engine/soft/soft_priv.h"

#include "engine/soft/lapic.h"

#include <string.h>

uint64_t soft_rflags(const struct soft_vcpu *c)
{
    return c->flags | c->sysflags | c->iflag | 2;
}

void soft_set_rflags(struct soft_vcpu *c, uint64_t value, uint64_t mask)
{
    uint64_t sys = mask & ~(uint64_t)(FLAGS_HOST | FLAG_IF | 2);

    c->flags = (c->flags & ~(mask & FLAGS_HOST)) | (value & mask & FLAGS_HOST);
    c->sysflags = (c->sysflags & ~sys) | (value & sys);
    if (mask & FLAG_IF) {
        if (!c->iflag && (value & FLAG_IF) && c->lapic && lapic_has_work(c->lapic))
            __atomic_store_n(&c->pending, 1, __ATOMIC_SEQ_CST);
        c->iflag = value & FLAG_IF;
    }
}

static bool flat(const struct cpu_segment_state *s)
{
    return s->base == 0 && s->limit == UINT32_MAX && (s->attr & CPU_ATTR_P) && (s->attr & CPU_ATTR_S);
}

/* Readable and writable without checks, expand-up. */
static bool flat_data(const struct cpu_segment_state *s)
{
    return flat(s) && (s->attr & 0xe) == 2;
}

/* A jump cache holds code of one key. */
static void prepare_jumps(struct soft_vcpu *c, enum soft_mmu mmu, uint32_t key, uint64_t cs_base)
{
    if (c->jump_key[mmu] == key && c->jump_cs_base[mmu] == cs_base)
        return;
    soft_jump_flush(c, mmu);
    c->jump_key[mmu] = key;
    c->jump_cs_base[mmu] = cs_base;
}

void soft_update_key(struct soft_vcpu *c)
{
    const struct cpu_segment_state *cs = &c->seg[CPU_CS];
    uint32_t key = c->cpl;
    enum soft_mmu mmu;

    if (c->cr0 & CR0_PE)
        key |= KEY_PROTECTED;
    if ((c->efer & EFER_LMA) && (cs->attr & CPU_ATTR_L)) {
        key |= KEY_CODE64;
    } else {
        if (cs->attr & CPU_ATTR_DB)
            key |= KEY_CODE32;
        if (c->seg[CPU_SS].attr & CPU_ATTR_DB)
            key |= KEY_STACK32;
        if ((key & KEY_PROTECTED) && flat(cs) && (cs->attr & 0xa) == 0xa && flat_data(&c->seg[CPU_DS]) &&
            flat_data(&c->seg[CPU_ES]) && flat_data(&c->seg[CPU_SS]))
            key |= KEY_FLAT;
    }
    if (c->cpl == 3)
        mmu = MMU_USER;
    else
        mmu = (c->cr4 & CR4_SMAP) && !(c->sysflags & FLAG_AC) ? MMU_KERNEL : MMU_KERNEL_AC;
    key |= (uint32_t)mmu << KEY_MMU_SHIFT;
    if (!c->cpl && (c->cr4 & CR4_SMAP))
        key |= KEY_SMAP;
    if (c->flags & FLAG_DF)
        key |= KEY_DF;
    if (c->cr0 & CR0_EM)
        key |= KEY_EM | KEY_NO_SSE;
    if (!(c->cr4 & CR4_OSFXSR))
        key |= KEY_NO_SSE;
    if (!(c->cr4 & CR4_OSXSAVE) || (c->xcr0 & 6) != 6)
        key |= KEY_NO_AVX;
    if (c->cr0 & CR0_TS)
        key |= KEY_TS;
    if (c->sysflags & FLAG_TF)
        key |= KEY_STEP;
    if (c->dr[7] & 0xff)
        key |= KEY_DEBUG;
    if (c->cpl == 3 && (c->cr4 & CR4_TSD))
        key |= KEY_NO_RDTSC;
    if (c->cpl == 3 && (c->cr0 & CR0_AM) && (c->sysflags & FLAG_AC))
        key |= KEY_AC;
    if ((key ^ c->key) & KEY_DEBUG)
        soft_tlb_flush(c, true); /* watched pages must leave the TLB */
    c->key = key;
    if (key & (KEY_STEP | KEY_DEBUG))
        return;
    uint64_t cs_base = key & KEY_CODE64 ? 0 : cs->base;
    prepare_jumps(c, mmu, key, cs_base);
    /* STAC and CLAC lead from one to the other without a look at this. */
    if (key & KEY_SMAP) {
        mmu = mmu == MMU_KERNEL ? MMU_KERNEL_AC : MMU_KERNEL;
        prepare_jumps(c, mmu, (key & ~KEY_MMU) | (uint32_t)mmu << KEY_MMU_SHIFT, cs_base);
    }
}

void soft_set_state(struct soft_vcpu *c, const struct cpu_state *s)
{
    memcpy(c->gpr, s->gpr, sizeof(c->gpr));
    c->rip = s->rip;
    c->flags = s->rflags & FLAGS_HOST;
    c->iflag = s->rflags & FLAG_IF;
    c->sysflags = s->rflags & ~(uint64_t)(FLAGS_HOST | FLAG_IF | 2);
    memcpy(c->seg, s->seg, sizeof(c->seg));
    c->ldtr = s->ldtr;
    c->tr = s->tr;
    c->gdt = s->gdt;
    c->idt = s->idt;
    c->cr0 = s->cr0;
    c->cr2 = s->cr2;
    c->cr3 = s->cr3;
    c->cr4 = s->cr4;
    c->efer = s->efer;
    c->xcr0 = s->xcr0;
    memcpy(c->dr, s->dr, sizeof(c->dr));
    c->star = s->star;
    c->lstar = s->lstar;
    c->cstar = s->cstar;
    c->fmask = s->fmask;
    c->kernel_gs_base = s->kernel_gs_base;
    c->sysenter_cs = s->sysenter_cs;
    c->sysenter_esp = s->sysenter_esp;
    c->sysenter_eip = s->sysenter_eip;
    c->pat = s->pat;
    c->tsc_aux = s->tsc_aux;
    memcpy(c->xsave, s->xsave, sizeof(c->xsave));
    memset(c->xsave + 512, 0, 64);
    c->xsave[512] = soft_xstate_components(c->soft); /* XSTATE_BV: all of it is given */
    c->fpu_saved = 1;
    c->cpl = c->cr0 & CR0_PE ? (uint8_t)((c->seg[CPU_SS].attr & CPU_ATTR_DPL) >> CPU_ATTR_DPL_SHIFT) : 0;
    c->halted = s->halted;
    c->wait_for_sipi = s->wait_for_sipi;
    c->shadow = 0;
    c->nmi_blocked = false;
    c->exit_link = 0;
    soft_tlb_flush(c, true);
    soft_update_key(c);
}

void soft_get_state(const struct soft_vcpu *c, struct cpu_state *s)
{
    memset(s, 0, sizeof(*s));
    memcpy(s->gpr, c->gpr, sizeof(s->gpr));
    s->rip = c->rip;
    s->rflags = soft_rflags(c);
    memcpy(s->seg, c->seg, sizeof(s->seg));
    s->ldtr = c->ldtr;
    s->tr = c->tr;
    s->gdt = c->gdt;
    s->idt = c->idt;
    s->cr0 = c->cr0;
    s->cr2 = c->cr2;
    s->cr3 = c->cr3;
    s->cr4 = c->cr4;
    s->cr8 = c->lapic ? lapic_get_cr8(c->lapic) : 0;
    s->efer = c->efer;
    s->xcr0 = c->xcr0;
    memcpy(s->dr, c->dr, sizeof(s->dr));
    s->star = c->star;
    s->lstar = c->lstar;
    s->cstar = c->cstar;
    s->fmask = c->fmask;
    s->kernel_gs_base = c->kernel_gs_base;
    s->sysenter_cs = c->sysenter_cs;
    s->sysenter_esp = c->sysenter_esp;
    s->sysenter_eip = c->sysenter_eip;
    s->pat = c->pat;
    s->tsc_aux = c->tsc_aux;
    uint64_t base = 0;
    if (c->lapic && lapic_msr_read(c->lapic, LAPIC_MSR_BASE, &base) == 0)
        s->apic_base = base;
    memcpy(s->xsave, c->xsave, sizeof(s->xsave));
    s->halted = c->halted;
    s->wait_for_sipi = c->wait_for_sipi;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Control and debug registers: MOV to and from them, CLTS, LMSW, SMSW, XGETBV, XSETBV (SDM vol. 3A 2.5, vol.
 * 3B 17.2). The row of MOV also gets segment registers. Called from translated code in the vCPU's own thread;
 * no locks.
 */
#include "base/bytes.h"
#include "engine/soft/handlers.h"
#include "engine/soft/lapic.h"
#include "engine/soft/soft_priv.h"

#define CR0_KNOWN                                                                                            \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
/* Everything that CPUID announces. */
#define CR4_KNOWN                                                                                            \
    (CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT |      \
     CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE | CR4_SMEP | CR4_SMAP)
/* Bits that change what is in a TLB. */
#define CR4_PAGING (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP)

/* Bits whose change makes PAE paging load its page-directory pointers. */
#define CR0_PDPTES (CR0_PG | CR0_CD | CR0_NW)
#define CR4_PDPTES (CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP)

#define PDPTE_PRESENT  1u
#define PDPTE_RESERVED 0x1e6u /* and what is beyond the physical address */

#define CR3_NO_FLUSH (1ull << 63)

#define DR6_ONES  0xffff0ff0u
#define DR6_KNOWN 0x0000e00fu /* B0-B3, BD, BS, BT */
#define DR6_BD    (1u << 13)
#define DR7_ONES  0x00000400u
#define DR7_KNOWN 0xffff23ffu
#define DR7_GD    (1u << 13)
#define DR7_ON    0x000000ffu

#define CPUID1_ECX_XSAVE (1u << 26)
#define XCR0_X87         1u
#define XCR0_SSE         2u
#define XCR0_AVX         4u

unsigned soft_physical_bits(struct soft_vcpu *c)
{
    uint32_t out[4];

    soft_cpuid(c, 0x80000008, 0, out);
    return out[0] & 0xff;
}

int soft_check_umip(struct soft_vcpu *c)
{
    return c->cpl && (c->cr4 & CR4_UMIP) ? soft_raise(c, VEC_GP) : SOFT_NEXT;
}

/* PAE paging loads its four page-directory pointers with CR3: reserved bits show then (SDM vol. 3A 4.4.1). */
static int check_pdptes(struct soft_vcpu *c, uint64_t cr0, uint64_t cr3, uint64_t cr4)
{
    const uint8_t *table = guest_memory_at(c->soft->memory, cr3 & 0xffffffe0, 32);
    uint64_t reserved = PDPTE_RESERVED | UINT64_MAX << soft_physical_bits(c);

    if (!(cr0 & CR0_PG) || !(cr4 & CR4_PAE) || (c->efer & EFER_LME))
        return SOFT_NEXT;
    for (unsigned n = 0; table && n < 4; n++) {
        uint64_t entry = get_le64(table + 8 * n);

        if ((entry & PDPTE_PRESENT) && (entry & reserved))
            return soft_raise(c, VEC_GP);
    }
    return SOFT_NEXT;
}

/* ---- CR0 ---- */

/* Paging goes on: what IA-32e mode asks for, if that was enabled. */
static int check_paging_on(struct soft_vcpu *c)
{
    if (!(c->efer & EFER_LME))
        return SOFT_NEXT;
    if (!(c->cr4 & CR4_PAE) || (c->seg[CPU_CS].attr & CPU_ATTR_L) ||
        (c->tr.attr & (CPU_ATTR_S | 0xd)) == TYPE_TSS16)
        return soft_raise(c, VEC_GP);
    return SOFT_NEXT;
}

static int write_cr0(struct soft_vcpu *c, uint64_t value)
{
    uint64_t changed;

    if (value >> 32 || ((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
        return soft_raise(c, VEC_GP);
    value = (value & CR0_KNOWN) | CR0_ET;
    changed = c->cr0 ^ value;
    if ((changed & CR0_PDPTES) && check_pdptes(c, value, c->cr3, c->cr4))
        return SOFT_FAULT;
    if (changed & CR0_PG) {
        if (value & CR0_PG) {
            if (check_paging_on(c))
                return SOFT_FAULT;
        } else if (soft_is64(c) || (c->cr4 & CR4_PCIDE)) {
            return soft_raise(c, VEC_GP);
        }
        if ((value & CR0_PG) && (c->efer & EFER_LME))
            c->efer |= EFER_LMA;
        else
            c->efer &= ~(uint64_t)EFER_LMA;
    }
    c->cr0 = value;
    if (changed & (CR0_PG | CR0_WP | CR0_PE))
        soft_tlb_flush(c, true);
    return SOFT_NEXT;
}

/* ---- CR3, CR4, CR8 ---- */

static int write_cr3(struct soft_vcpu *c, uint64_t value)
{
    bool pcid = c->cr4 & CR4_PCIDE;

    if (pcid)
        value &= ~CR3_NO_FLUSH;
    /* 36 bits are always there: spares most writes the look at CPUID. */
    if (value >> 36 && (!soft_long(c) || value >> soft_physical_bits(c))) {
        if (soft_long(c))
            return soft_raise(c, VEC_GP);
        value = (uint32_t)value;
    }
    if (!soft_long(c) && check_pdptes(c, c->cr0, value, c->cr4))
        return SOFT_FAULT;
    c->cr3 = value;
    /* The TLB knows no PCIDs, so it can't keep what bit 63 lets it keep. */
    soft_tlb_flush(c, !(c->cr4 & CR4_PGE));
    return SOFT_NEXT;
}

static int write_cr4(struct soft_vcpu *c, uint64_t value)
{
    uint64_t changed = c->cr4 ^ value, known = CR4_KNOWN;
    uint32_t out[4];

    if (changed & CR4_OSXSAVE) {
        soft_cpuid(c, 1, 0, out);
        known |= out[2] & CPUID1_ECX_XSAVE ? CR4_OSXSAVE : 0;
    } else {
        known |= CR4_OSXSAVE;
    }
    if (value & ~known)
        return soft_raise(c, VEC_GP);
    if (soft_long(c) && !(value & CR4_PAE))
        return soft_raise(c, VEC_GP);
    if ((changed & value & CR4_PCIDE) && (!soft_long(c) || (c->cr3 & 0xfff)))
        return soft_raise(c, VEC_GP);
    if ((changed & CR4_PDPTES) && check_pdptes(c, c->cr0, c->cr3, value))
        return SOFT_FAULT;
    c->cr4 = value;
    if (changed & CR4_PAGING)
        soft_tlb_flush(c, true);
    return SOFT_NEXT;
}

static int write_cr8(struct soft_vcpu *c, uint64_t value)
{
    if (value > 15)
        return soft_raise(c, VEC_GP);
    if (c->lapic)
        lapic_set_cr8(c->lapic, value);
    return SOFT_NEXT;
}

static int write_cr(struct soft_vcpu *c, unsigned n, uint64_t value)
{
    switch (n) {
    case 0:
        return write_cr0(c, value);
    case 2:
        c->cr2 = value;
        return SOFT_NEXT;
    case 3:
        return write_cr3(c, value);
    case 4:
        return write_cr4(c, value);
    case 8:
        return write_cr8(c, value);
    default:
        return soft_raise(c, VEC_UD);
    }
}

static int read_cr(struct soft_vcpu *c, unsigned n, uint64_t *value)
{
    switch (n) {
    case 0:
        *value = c->cr0;
        return SOFT_NEXT;
    case 2:
        *value = c->cr2;
        return SOFT_NEXT;
    case 3:
        *value = c->cr3;
        return SOFT_NEXT;
    case 4:
        *value = c->cr4;
        return SOFT_NEXT;
    case 8:
        *value = c->lapic ? lapic_get_cr8(c->lapic) : 0;
        return SOFT_NEXT;
    default:
        return soft_raise(c, VEC_UD);
    }
}

/* ---- debug registers ---- */

/* DR4 and DR5 are DR6 and DR7, unless CR4.DE says otherwise. Then CPL and DR7.GD. */
static int check_dr(struct soft_vcpu *c, unsigned *n)
{
    if (*n > 7 || ((*n == 4 || *n == 5) && (c->cr4 & CR4_DE)))
        return soft_raise(c, VEC_UD);
    if (c->cpl)
        return soft_raise(c, VEC_GP);
    if (c->dr[7] & DR7_GD) {
        soft_raise(c, VEC_DB);
        c->fault.dr6 = DR6_BD;
        return SOFT_FAULT;
    }
    if (*n == 4 || *n == 5)
        *n += 2;
    return SOFT_NEXT;
}

static int write_dr(struct soft_vcpu *c, unsigned n, uint64_t value)
{
    if (check_dr(c, &n))
        return SOFT_FAULT;
    if (n >= 6 && value >> 32)
        return soft_raise(c, VEC_GP);
    if (n == 6) {
        c->dr[6] = (value & DR6_KNOWN) | DR6_ONES;
        return SOFT_NEXT;
    }
    if (n == 7)
        value = (value & DR7_KNOWN) | DR7_ONES;
    /* Pages that are watched, or no longer, must be found anew. */
    if ((c->dr[7] | (n == 7 ? value : 0)) & DR7_ON)
        soft_tlb_flush(c, true);
    c->dr[n] = value;
    return SOFT_NEXT;
}

/* ---- handlers ---- */

static int mov_segment(struct soft_vcpu *c, const struct soft_insn *i)
{
    const struct soft_operand *to = &i->operand[0];
    uint8_t bytes[2];
    uint64_t value, linear;

    if (to->kind != OPERAND_SEGMENT)
        return soft_operand_write(c, i, 0, c->seg[i->operand[1].reg % CPU_SEGMENTS].selector);
    if (to->reg == CPU_CS)
        return soft_raise(c, VEC_UD);
    if (i->operand[1].kind == OPERAND_MEM) {
        if (soft_operand_linear(c, i, 2, false, &linear) || soft_read(c, linear, bytes, 2, ACCESS_READ))
            return SOFT_FAULT;
        value = (uint64_t)(bytes[0] | bytes[1] << 8);
    } else if (soft_operand_read(c, i, 1, &value)) {
        return SOFT_FAULT;
    }
    if (soft_load_segment(c, to->reg, (uint16_t)value))
        return SOFT_FAULT;
    if (to->reg == CPU_SS)
        c->shadow = SHADOW_SS;
    return SOFT_NEXT;
}

int op_mov(struct soft_vcpu *c, const struct soft_insn *i)
{
    const struct soft_operand *to = &i->operand[0], *from = &i->operand[1];
    unsigned size = soft_is64(c) ? 8 : 4;
    uint64_t value;

    if (to->kind == OPERAND_SEGMENT || from->kind == OPERAND_SEGMENT)
        return mov_segment(c, i);
    if (to->kind == OPERAND_DR)
        return write_dr(c, to->reg, soft_reg_read(c, from->reg, size, false));
    if (from->kind == OPERAND_DR) {
        unsigned n = from->reg;

        if (check_dr(c, &n))
            return SOFT_FAULT;
        soft_reg_write(c, to->reg, size, false, c->dr[n]);
        return SOFT_NEXT;
    }
    /* Which register it is comes first: CR1 and CR5 are #UD at any CPL. */
    if (to->kind == OPERAND_CR) {
        if (read_cr(c, to->reg, &value))
            return SOFT_FAULT;
        return c->cpl ? soft_raise(c, VEC_GP)
                      : write_cr(c, to->reg, soft_reg_read(c, from->reg, size, false));
    }
    if (from->kind != OPERAND_CR)
        return soft_raise(c, VEC_UD);
    if (read_cr(c, from->reg, &value))
        return SOFT_FAULT;
    if (c->cpl)
        return soft_raise(c, VEC_GP);
    soft_reg_write(c, to->reg, size, false, value);
    return SOFT_NEXT;
}

int op_clts(struct soft_vcpu *c, const struct soft_insn *i)
{
    c->cr0 &= ~(uint64_t)CR0_TS;
    return SOFT_NEXT;
}

int op_lmsw(struct soft_vcpu *c, const struct soft_insn *i)
{
    const uint64_t status = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
    uint64_t value;

    if (soft_operand_read(c, i, 0, &value))
        return SOFT_FAULT;
    /* It can set PE but not clear it. */
    return write_cr0(c, (c->cr0 & ~(status & ~(uint64_t)CR0_PE)) | (value & status));
}

int op_smsw(struct soft_vcpu *c, const struct soft_insn *i)
{
    if (soft_check_umip(c))
        return SOFT_FAULT;
    return soft_operand_write(c, i, 0, c->cr0);
}

int op_xgetbv(struct soft_vcpu *c, const struct soft_insn *i)
{
    if (!(c->cr4 & CR4_OSXSAVE))
        return soft_raise(c, VEC_UD);
    if ((uint32_t)c->gpr[CPU_RCX] != 0)
        return soft_raise(c, VEC_GP);
    c->gpr[CPU_RAX] = (uint32_t)c->xcr0;
    c->gpr[CPU_RDX] = c->xcr0 >> 32;
    return SOFT_NEXT;
}

int op_xsetbv(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint64_t value = (uint32_t)c->gpr[CPU_RAX] | c->gpr[CPU_RDX] << 32;
    uint32_t out[4];

    if (!(c->cr4 & CR4_OSXSAVE))
        return soft_raise(c, VEC_UD);
    if (c->cpl || (uint32_t)c->gpr[CPU_RCX] != 0)
        return soft_raise(c, VEC_GP);
    soft_cpuid(c, 0xd, 0, out);
    if ((value & ~(uint64_t)out[0]) || !(value & XCR0_X87) || ((value & XCR0_AVX) && !(value & XCR0_SSE)))
        return soft_raise(c, VEC_GP);
    c->xcr0 = value;
    return SOFT_NEXT;
}

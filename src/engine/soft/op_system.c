/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rest of the system instructions: halting, interrupt and alignment flags, TLB and cache management, time
 * stamps, CPUID, model-specific registers, and what raises #UD on this processor (SDM vol. 2). Called from
 * translated code in the vCPU's own thread; no locks.
 */
#include "base/bytes.h"
#include "engine/soft/handlers.h"

int op_undefined(struct soft_vcpu *c, const struct soft_insn *i)
{
    return soft_raise(c, VEC_UD);
}

int op_hlt(struct soft_vcpu *c, const struct soft_insn *i)
{
    c->halted = true;
    c->rip = soft_next_rip(c, i);
    return SOFT_JUMP;
}

/* ---- flags ---- */

int op_cli(struct soft_vcpu *c, const struct soft_insn *i)
{
    if (c->cpl > soft_iopl(c))
        return soft_raise(c, VEC_GP);
    soft_set_rflags(c, 0, FLAG_IF);
    return SOFT_NEXT;
}

int op_sti(struct soft_vcpu *c, const struct soft_insn *i)
{
    if (c->cpl > soft_iopl(c))
        return soft_raise(c, VEC_GP);
    if (!c->iflag)
        c->shadow = SHADOW_STI;
    /* The block goes on; what has waited comes in at its next look at `pending`. */
    soft_set_rflags(c, FLAG_IF, FLAG_IF);
    return SOFT_NEXT;
}

int op_cld(struct soft_vcpu *c, const struct soft_insn *i)
{
    soft_set_rflags(c, 0, FLAG_DF);
    return SOFT_NEXT;
}

int op_std(struct soft_vcpu *c, const struct soft_insn *i)
{
    soft_set_rflags(c, FLAG_DF, FLAG_DF);
    return SOFT_NEXT;
}

int op_clac(struct soft_vcpu *c, const struct soft_insn *i)
{
    if (c->cpl)
        return soft_raise(c, VEC_UD);
    soft_set_rflags(c, 0, FLAG_AC);
    return SOFT_NEXT;
}

int op_stac(struct soft_vcpu *c, const struct soft_insn *i)
{
    if (c->cpl)
        return soft_raise(c, VEC_UD);
    soft_set_rflags(c, FLAG_AC, FLAG_AC);
    return SOFT_NEXT;
}

/* ---- caches and TLBs ---- */

/* What other vCPUs have changed is seen at the block's end, and what this one has changed at once. */
int op_serialize(struct soft_vcpu *c, const struct soft_insn *i)
{
    return SOFT_NEXT;
}

/* Guest memory is coherent, whatever its memory type. */
int op_wbinvd(struct soft_vcpu *c, const struct soft_insn *i)
{
    return SOFT_NEXT;
}

/* CLFLUSH, CLFLUSHOPT, CLWB: only the address is looked at, as a read of one byte. */
int op_clflush(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint64_t linear, gpa;

    if (soft_operand_linear(c, i, 1, false, &linear))
        return SOFT_FAULT;
    return soft_translate(c, linear, ACCESS_READ, &gpa);
}

int op_invlpg(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint64_t linear = soft_effective_address(c, i);

    /* No checks of the segment; a non-canonical address does nothing. */
    if (!soft_is64(c))
        linear = (uint32_t)(linear + c->seg[i->segment].base);
    else if (i->segment == CPU_FS || i->segment == CPU_GS)
        linear += c->seg[i->segment].base;
    if (!soft_is64(c) || soft_canonical(linear))
        soft_tlb_flush_page(c, linear);
    return SOFT_NEXT;
}

enum invpcid_type { INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL_GLOBAL, INVPCID_ALL };

int op_invpcid(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint64_t type = soft_reg_read(c, i->operand[0].reg, soft_is64(c) ? 8 : 4, false);
    uint8_t descriptor[16];
    uint64_t linear, pcid, address;

    if (soft_operand_linear(c, i, sizeof(descriptor), false, &linear) ||
        soft_read(c, linear, descriptor, sizeof(descriptor), ACCESS_READ))
        return SOFT_FAULT;
    pcid = get_le64(descriptor);
    address = get_le64(descriptor + 8);
    if (type > INVPCID_ALL || pcid >> 12)
        return soft_raise(c, VEC_GP);
    if (type <= INVPCID_CONTEXT && pcid && !(c->cr4 & CR4_PCIDE))
        return soft_raise(c, VEC_GP);
    if (type == INVPCID_ADDRESS && soft_check_canonical(c, address))
        return SOFT_FAULT;
    /* The TLB holds the current PCID's entries only, and other ones' global pages. */
    if (type == INVPCID_ADDRESS)
        soft_tlb_flush_page(c, address);
    else
        soft_tlb_flush(c, type == INVPCID_ALL_GLOBAL);
    return SOFT_NEXT;
}

/* ---- time, identity, counters ---- */

static int check_tsd(struct soft_vcpu *c)
{
    return c->cpl && (c->cr4 & CR4_TSD) ? soft_raise(c, VEC_GP) : SOFT_NEXT;
}

static void write_edx_eax(struct soft_vcpu *c, uint64_t value)
{
    c->gpr[CPU_RAX] = (uint32_t)value;
    c->gpr[CPU_RDX] = value >> 32;
}

int op_rdtsc(struct soft_vcpu *c, const struct soft_insn *i)
{
    if (check_tsd(c))
        return SOFT_FAULT;
    write_edx_eax(c, soft_read_tsc(c));
    return SOFT_NEXT;
}

int op_rdtscp(struct soft_vcpu *c, const struct soft_insn *i)
{
    if (check_tsd(c))
        return SOFT_FAULT;
    write_edx_eax(c, soft_read_tsc(c));
    c->gpr[CPU_RCX] = (uint32_t)c->tsc_aux;
    return SOFT_NEXT;
}

int op_rdpid(struct soft_vcpu *c, const struct soft_insn *i)
{
    return soft_operand_write(c, i, 0, (uint32_t)c->tsc_aux);
}

/* No performance counters are announced: every index is out of range. */
int op_rdpmc(struct soft_vcpu *c, const struct soft_insn *i)
{
    return soft_raise(c, VEC_GP);
}

int op_cpuid(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint32_t out[4];

    soft_cpuid(c, (uint32_t)c->gpr[CPU_RAX], (uint32_t)c->gpr[CPU_RCX], out);
    c->gpr[CPU_RAX] = out[0];
    c->gpr[CPU_RBX] = out[1];
    c->gpr[CPU_RCX] = out[2];
    c->gpr[CPU_RDX] = out[3];
    return SOFT_NEXT;
}

int op_rdmsr(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint64_t value;

    if (soft_msr_read(c, (uint32_t)c->gpr[CPU_RCX], &value))
        return SOFT_FAULT;
    write_edx_eax(c, value);
    return SOFT_NEXT;
}

int op_wrmsr(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint64_t value = (uint32_t)c->gpr[CPU_RAX] | c->gpr[CPU_RDX] << 32;

    return soft_msr_write(c, (uint32_t)c->gpr[CPU_RCX], value);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Control transfers: CALL, JMP and RET (their far forms go on in far.c), Jcc, LOOP, JCXZ, software interrupts
 * and the fast system calls (SDM vol. 2). Called from translated code; the translator has emitters of its own
 * for the near ones in 64-bit mode and flat 32-bit code. The vCPU's own thread; no locks.
 */
#include "engine/soft/handlers.h"

/* ---- near ---- */

/* The size of RIP that a near branch computes: in 64-bit mode the operand-size prefix is for AMD's processors
 * only. */
static unsigned branch_size(const struct soft_vcpu *c, const struct soft_insn *i)
{
    return soft_is64(c) && !(soft_is_amd(c) && i->operand_size == 2) ? 8 : i->operand_size;
}

/* Truncates the target and checks it. */
static int check_target(struct soft_vcpu *c, unsigned size, uint64_t *target)
{
    *target = soft_truncate(*target, size);
    if (size == 8 ? !soft_canonical(*target) : *target > c->seg[CPU_CS].limit)
        return soft_raise(c, VEC_GP);
    return SOFT_NEXT;
}

static int near_target(struct soft_vcpu *c, const struct soft_insn *i, uint64_t *target)
{
    if (i->operand[0].kind == OPERAND_IMM)
        *target = soft_next_rip(c, i) + i->imm;
    else if (soft_operand_read(c, i, 0, target))
        return SOFT_FAULT;
    return check_target(c, branch_size(c, i), target);
}

static int jump_relative(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint64_t target = soft_next_rip(c, i) + i->imm;

    if (check_target(c, branch_size(c, i), &target))
        return SOFT_FAULT;
    c->rip = target;
    return SOFT_JUMP;
}

static int fall_through(struct soft_vcpu *c, const struct soft_insn *i)
{
    c->rip = soft_next_rip(c, i);
    return SOFT_JUMP;
}

/* 9A and EA have a pointer in the instruction, FF /3 and FF /5 in memory. */
static bool is_far(const struct soft_vcpu *c, const struct soft_insn *i)
{
    if (i->opcode == 0x9a || i->opcode == 0xea)
        return true;
    return i->opcode == 0xff && (soft_modrm_reg(c, i) & 1);
}

int op_jmp(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint64_t target;

    if (is_far(c, i))
        return soft_far_branch(c, i, false);
    if (near_target(c, i, &target))
        return SOFT_FAULT;
    c->rip = target;
    return SOFT_JUMP;
}

int op_call(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint64_t target;

    if (is_far(c, i))
        return soft_far_branch(c, i, true);
    if (near_target(c, i, &target) || soft_push(c, soft_next_rip(c, i), branch_size(c, i)))
        return SOFT_FAULT;
    c->rip = target;
    return SOFT_JUMP;
}

int op_ret(struct soft_vcpu *c, const struct soft_insn *i)
{
    /* C2 and CA release parameters. */
    unsigned release = i->opcode & 1 ? 0 : (uint16_t)i->imm;
    unsigned size = branch_size(c, i);
    struct soft_stack st;
    uint64_t target;

    if (i->opcode >= 0xca)
        return soft_far_return(c, i, release);
    soft_stack_current(c, &st);
    if (soft_stack_pop(c, &st, &target, size) || check_target(c, size, &target))
        return SOFT_FAULT;
    st.sp += release;
    soft_stack_commit(c, &st);
    c->rip = target;
    return SOFT_JUMP;
}

static bool condition(uint64_t flags, unsigned code)
{
    bool sign_differs = !(flags & FLAG_SF) != !(flags & FLAG_OF);
    bool result;

    switch (code >> 1 & 7) {
    case 0:
        result = flags & FLAG_OF;
        break;
    case 1:
        result = flags & FLAG_CF;
        break;
    case 2:
        result = flags & FLAG_ZF;
        break;
    case 3:
        result = flags & (FLAG_CF | FLAG_ZF);
        break;
    case 4:
        result = flags & FLAG_SF;
        break;
    case 5:
        result = flags & FLAG_PF;
        break;
    case 6:
        result = sign_differs;
        break;
    default:
        result = sign_differs || (flags & FLAG_ZF);
    }
    return result != (code & 1);
}

int op_jcc(struct soft_vcpu *c, const struct soft_insn *i)
{
    return condition(c->flags, i->opcode & 15) ? jump_relative(c, i) : fall_through(c, i);
}

int op_jcxz(struct soft_vcpu *c, const struct soft_insn *i)
{
    return soft_reg_read(c, CPU_RCX, i->address_size, false) ? fall_through(c, i) : jump_relative(c, i);
}

/* E0 LOOPNE, E1 LOOPE, E2 LOOP: the count is of the address size. */
int op_loop(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint64_t count = soft_truncate(c->gpr[CPU_RCX] - 1, i->address_size);
    bool taken = count != 0;

    if (i->opcode != 0xe2)
        taken = taken && !(c->flags & FLAG_ZF) == (i->opcode == 0xe0);
    if (taken ? jump_relative(c, i) == SOFT_FAULT : fall_through(c, i) == SOFT_FAULT)
        return SOFT_FAULT;
    soft_reg_write(c, CPU_RCX, i->address_size, false, count);
    return SOFT_JUMP;
}

/* ---- software interrupts ---- */

static int interrupt(struct soft_vcpu *c, const struct soft_insn *i, uint8_t vector, bool software)
{
    const struct soft_event event = {
        .vector = vector,
        .software = software,
        .rip = soft_next_rip(c, i),
        .rflags = soft_rflags(c),
    };

    return soft_deliver_event(c, &event);
}

int op_int(struct soft_vcpu *c, const struct soft_insn *i)
{
    return interrupt(c, i, (uint8_t)i->imm, true);
}

int op_int3(struct soft_vcpu *c, const struct soft_insn *i)
{
    return interrupt(c, i, VEC_BP, true);
}

/* As the processor's own debug trap: no DPL check. */
int op_int1(struct soft_vcpu *c, const struct soft_insn *i)
{
    return interrupt(c, i, VEC_DB, false);
}

int op_into(struct soft_vcpu *c, const struct soft_insn *i)
{
    return c->flags & FLAG_OF ? interrupt(c, i, VEC_OF, true) : SOFT_NEXT;
}

/* ---- SYSCALL, SYSENTER and their returns ---- */

#define ATTR_FLAT   (CPU_ATTR_P | CPU_ATTR_S | CPU_ATTR_G | CPU_ATTR_RW | CPU_ATTR_ACCESSED)
#define ATTR_CODE64 (ATTR_FLAT | CPU_ATTR_CODE | CPU_ATTR_L)
#define ATTR_CODE32 (ATTR_FLAT | CPU_ATTR_CODE | CPU_ATTR_DB)
#define ATTR_STACK  (ATTR_FLAT | CPU_ATTR_DB)

/* These instructions load fixed flat segments, whatever the descriptor tables hold. */
static void load_flat(struct soft_vcpu *c, unsigned cs, unsigned ss, bool code64, unsigned cpl)
{
    unsigned dpl = cpl << CPU_ATTR_DPL_SHIFT;

    c->seg[CPU_CS] = (struct cpu_segment_state){
        .limit = UINT32_MAX,
        .attr = (uint16_t)((code64 ? ATTR_CODE64 : ATTR_CODE32) | dpl),
        .selector = (uint16_t)cs,
    };
    c->seg[CPU_SS] = (struct cpu_segment_state){
        .limit = UINT32_MAX,
        .attr = (uint16_t)(ATTR_STACK | dpl),
        .selector = (uint16_t)ss,
    };
    c->cpl = (uint8_t)cpl;
}

/* In compatibility mode only AMD's processors have it; there it is how Linux's 32-bit programs call their
 * kernel. */
int op_syscall(struct soft_vcpu *c, const struct soft_insn *i)
{
    unsigned selector = c->star >> 32 & 0xfffc;

    if (!soft_long(c) || !(c->efer & EFER_SCE) || (!soft_is64(c) && !soft_is_amd(c)))
        return soft_raise(c, VEC_UD);
    c->gpr[CPU_RCX] = soft_next_rip(c, i);
    c->gpr[CPU_R11] = soft_rflags(c) & ~(uint64_t)FLAG_RF;
    c->rip = soft_is64(c) ? c->lstar : c->cstar;
    soft_set_rflags(c, 0, c->fmask | FLAG_RF);
    load_flat(c, selector, selector + 8, true, 0);
    c->entered = !(c->sysflags & FLAG_TF);
    return SOFT_JUMP;
}

int op_sysret(struct soft_vcpu *c, const struct soft_insn *i)
{
    const uint64_t mask = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_TF | FLAG_IF | FLAG_DF |
                          FLAG_OF | FLAG_IOPL | FLAG_NT | FLAG_AC | FLAG_VIF | FLAG_VIP | FLAG_ID;
    unsigned selector = c->star >> 48;
    bool to64 = soft_is64(c) && i->operand_size == 8;

    /* AMD's processors return from compatibility mode as well (APM vol. 3 SYSRET). */
    if (!(soft_is64(c) || (soft_is_amd(c) && soft_long(c))) || !(c->efer & EFER_SCE))
        return soft_raise(c, VEC_UD);
    if (c->cpl != 0 || (to64 && !soft_canonical(c->gpr[CPU_RCX])))
        return soft_raise(c, VEC_GP);
    c->rip = soft_truncate(c->gpr[CPU_RCX], to64 ? 8 : 4);
    soft_set_rflags(c, c->gpr[CPU_R11], mask | FLAG_RF | FLAG_VM);
    soft_set_rflags(c, 0, FLAG_RF | FLAG_VM);
    load_flat(c, (selector + (to64 ? 16 : 0)) | 3, (selector + 8) | 3, to64, 3);
    /* The trap of the SYSCALL that it returns from comes now. */
    if (c->sysflags & FLAG_TF) {
        c->fault = (struct soft_fault){.vector = VEC_DB, .dr6 = 1u << 14};
        return SOFT_FAULT;
    }
    return SOFT_JUMP;
}

int op_sysenter(struct soft_vcpu *c, const struct soft_insn *i)
{
    unsigned selector = c->sysenter_cs & 0xfffc;
    unsigned size = soft_long(c) ? 8 : 4;

    if (soft_is_amd(c) && soft_long(c)) /* APM vol. 3 SYSENTER: legacy mode only */
        return soft_raise(c, VEC_UD);
    if (!soft_protected(c) || selector == 0)
        return soft_raise(c, VEC_GP);
    soft_set_rflags(c, 0, FLAG_IF | FLAG_VM | FLAG_RF);
    c->rip = soft_truncate(c->sysenter_eip, size);
    c->gpr[CPU_RSP] = soft_truncate(c->sysenter_esp, size);
    load_flat(c, selector, selector + 8, soft_long(c), 0);
    return SOFT_JUMP;
}

int op_sysexit(struct soft_vcpu *c, const struct soft_insn *i)
{
    bool to64 = soft_is64(c) && i->operand_size == 8;
    unsigned selector = (c->sysenter_cs & 0xfffc) + (to64 ? 32 : 16);

    if (!soft_protected(c) || (c->sysenter_cs & 0xfffc) == 0 || c->cpl != 0)
        return soft_raise(c, VEC_GP);
    if (soft_is_amd(c) && soft_long(c))
        return soft_raise(c, VEC_UD);
    if (to64 && (!soft_canonical(c->gpr[CPU_RCX]) || !soft_canonical(c->gpr[CPU_RDX])))
        return soft_raise(c, VEC_GP);
    c->rip = soft_truncate(c->gpr[CPU_RDX], to64 ? 8 : 4);
    c->gpr[CPU_RSP] = soft_truncate(c->gpr[CPU_RCX], to64 ? 8 : 4);
    load_flat(c, selector | 3, (selector + 8) | 3, to64, 3);
    return SOFT_JUMP;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Instructions on segments and descriptor tables: LDS and its kin, LAR, LSL, VERR, VERW, ARPL, the loads and
 * stores of GDTR, IDTR, LDTR and TR, FS and GS bases (SDM vol. 2, vol. 3A chapters 3 and 5). Called from
 * translated code in the vCPU's own thread; no locks.
 */
#include "base/bytes.h"
#include "engine/soft/handlers.h"

static void set_zf(struct soft_vcpu *c, bool set)
{
    c->flags = (c->flags & ~(uint64_t)FLAG_ZF) | (set ? FLAG_ZF : 0);
}

/* A 16-bit operand: of memory only two bytes are read, whatever the operand size. */
static int read_selector(struct soft_vcpu *c, const struct soft_insn *i, unsigned n, uint16_t *selector)
{
    uint8_t bytes[2];
    uint64_t value;

    if (i->operand[n].kind == OPERAND_MEM) {
        if (soft_operand_linear(c, i, 2, false, &value) || soft_read(c, value, bytes, 2, ACCESS_READ))
            return SOFT_FAULT;
        *selector = get_le16(bytes);
        return SOFT_NEXT;
    }
    if (soft_operand_read(c, i, n, &value))
        return SOFT_FAULT;
    *selector = (uint16_t)value;
    return SOFT_NEXT;
}

/* ---- far pointers ---- */

static int load_far_pointer(struct soft_vcpu *c, const struct soft_insn *i, unsigned seg)
{
    unsigned size = soft_pointer_size(c, i);
    uint64_t address = soft_effective_address(c, i), linear;
    uint8_t offset[8] = {0}, selector[2];

    if (soft_linear(c, i->segment, address, size, false, &linear) ||
        soft_read(c, linear, offset, size, ACCESS_READ) ||
        soft_linear(c, i->segment, soft_truncate(address + size, i->address_size), 2, false, &linear) ||
        soft_read(c, linear, selector, 2, ACCESS_READ) || soft_load_segment(c, seg, get_le16(selector)))
        return SOFT_FAULT;
    return soft_operand_write(c, i, 0, get_le64(offset));
}

int op_lds(struct soft_vcpu *c, const struct soft_insn *i)
{
    return load_far_pointer(c, i, CPU_DS);
}
int op_les(struct soft_vcpu *c, const struct soft_insn *i)
{
    return load_far_pointer(c, i, CPU_ES);
}
int op_lss(struct soft_vcpu *c, const struct soft_insn *i)
{
    return load_far_pointer(c, i, CPU_SS);
}
int op_lfs(struct soft_vcpu *c, const struct soft_insn *i)
{
    return load_far_pointer(c, i, CPU_FS);
}
int op_lgs(struct soft_vcpu *c, const struct soft_insn *i)
{
    return load_far_pointer(c, i, CPU_GS);
}

/* ---- questions about descriptors ---- */

/* Descriptor types that LAR and LSL accept, as bit masks by type, and what is left of them in IA-32e mode. */
#define LAR_TYPES      0x1a3eu /* TSSs, LDT, call gates, task gate */
#define LAR_TYPES_LONG 0x1a04u
#define LSL_TYPES      0x0a0eu /* TSSs, LDT */
#define LSL_TYPES_LONG 0x0a04u

/* Reads the descriptor that operand n selects; *ok if there is one and CPL and RPL may see it. */
static int visible_descriptor(struct soft_vcpu *c, const struct soft_insn *i, unsigned n, unsigned types,
                              struct soft_descriptor *d, bool *ok)
{
    const unsigned conforming = CPU_ATTR_S | CPU_ATTR_CODE | CPU_ATTR_CONFORMING;
    uint16_t selector;
    unsigned dpl;

    if (read_selector(c, i, n, &selector) || soft_descriptor_try(c, selector, d, ok))
        return SOFT_FAULT;
    if (!*ok)
        return SOFT_NEXT;
    if (!(d->seg.attr & CPU_ATTR_S))
        *ok = types >> (d->seg.attr & CPU_ATTR_TYPE) & 1;
    dpl = soft_attr_dpl(d->seg.attr);
    if ((d->seg.attr & conforming) != conforming && (c->cpl > dpl || (selector & 3u) > dpl))
        *ok = false;
    return SOFT_NEXT;
}

int op_lar(struct soft_vcpu *c, const struct soft_insn *i)
{
    struct soft_descriptor d;
    bool ok;

    if (visible_descriptor(c, i, 1, soft_long(c) ? LAR_TYPES_LONG : LAR_TYPES, &d, &ok))
        return SOFT_FAULT;
    set_zf(c, ok);
    return ok ? soft_operand_write(c, i, 0, d.low >> 32 & 0x00ffff00) : SOFT_NEXT;
}

int op_lsl(struct soft_vcpu *c, const struct soft_insn *i)
{
    struct soft_descriptor d;
    bool ok;

    if (visible_descriptor(c, i, 1, soft_long(c) ? LSL_TYPES_LONG : LSL_TYPES, &d, &ok))
        return SOFT_FAULT;
    set_zf(c, ok);
    return ok ? soft_operand_write(c, i, 0, d.seg.limit) : SOFT_NEXT;
}

int op_verr(struct soft_vcpu *c, const struct soft_insn *i)
{
    struct soft_descriptor d;
    bool ok;

    if (visible_descriptor(c, i, 0, 0, &d, &ok))
        return SOFT_FAULT;
    set_zf(c, ok && (d.seg.attr & (CPU_ATTR_CODE | CPU_ATTR_RW)) != CPU_ATTR_CODE);
    return SOFT_NEXT;
}

int op_verw(struct soft_vcpu *c, const struct soft_insn *i)
{
    struct soft_descriptor d;
    bool ok;

    if (visible_descriptor(c, i, 0, 0, &d, &ok))
        return SOFT_FAULT;
    set_zf(c, ok && (d.seg.attr & (CPU_ATTR_CODE | CPU_ATTR_RW)) == CPU_ATTR_RW);
    return SOFT_NEXT;
}

int op_arpl(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint64_t to, from;
    bool lower;

    if (soft_operand_read(c, i, 0, &to) || soft_operand_read(c, i, 1, &from))
        return SOFT_FAULT;
    lower = (to & 3) < (from & 3);
    if (lower && soft_operand_write(c, i, 0, (to & ~3ull) | (from & 3)))
        return SOFT_FAULT;
    set_zf(c, lower);
    return SOFT_NEXT;
}

/* ---- LDTR and TR ---- */

int op_sldt(struct soft_vcpu *c, const struct soft_insn *i)
{
    return soft_check_umip(c) ? SOFT_FAULT : soft_operand_write(c, i, 0, c->ldtr.selector);
}

int op_str(struct soft_vcpu *c, const struct soft_insn *i)
{
    return soft_check_umip(c) ? SOFT_FAULT : soft_operand_write(c, i, 0, c->tr.selector);
}

/* A present system descriptor in the GDT of one of `types`. */
static int read_system(struct soft_vcpu *c, uint16_t selector, unsigned types, struct soft_descriptor *d)
{
    if (selector & 4)
        return soft_raise_selector(c, VEC_GP, selector, 0);
    if (soft_descriptor_read(c, selector, VEC_GP, 0, d))
        return SOFT_FAULT;
    if ((d->seg.attr & CPU_ATTR_S) || !(types >> (d->seg.attr & CPU_ATTR_TYPE) & 1))
        return soft_raise_selector(c, VEC_GP, selector, 0);
    if (!(d->seg.attr & CPU_ATTR_P))
        return soft_raise_selector(c, VEC_NP, selector, 0);
    return SOFT_NEXT;
}

int op_lldt(struct soft_vcpu *c, const struct soft_insn *i)
{
    struct soft_descriptor d;
    uint16_t selector;

    if (read_selector(c, i, 0, &selector))
        return SOFT_FAULT;
    if (soft_selector_null(selector)) {
        c->ldtr = (struct cpu_segment_state){.selector = selector};
        return SOFT_NEXT;
    }
    if (read_system(c, selector, 1u << TYPE_LDT, &d))
        return SOFT_FAULT;
    c->ldtr = d.seg;
    return SOFT_NEXT;
}

int op_ltr(struct soft_vcpu *c, const struct soft_insn *i)
{
    struct soft_descriptor d;
    uint16_t selector;
    uint8_t type;

    if (read_selector(c, i, 0, &selector))
        return SOFT_FAULT;
    if (soft_selector_null(selector))
        return soft_raise(c, VEC_GP);
    if (read_system(c, selector, 1u << TYPE_TSS | (soft_long(c) ? 0 : 1u << TYPE_TSS16), &d))
        return SOFT_FAULT;
    type = (uint8_t)(d.low >> 40 | TYPE_BUSY);
    if (soft_write(c, d.linear + 5, &type, 1, ACCESS_WRITE | ACCESS_SYSTEM))
        return SOFT_FAULT;
    d.seg.attr |= TYPE_BUSY;
    c->tr = d.seg;
    return SOFT_NEXT;
}

/* ---- GDTR and IDTR ---- */

static int load_table(struct soft_vcpu *c, const struct soft_insn *i, struct cpu_table_state *table)
{
    unsigned size = soft_is64(c) ? 8 : 4;
    uint8_t bytes[10] = {0};
    uint64_t linear, base;

    if (soft_operand_linear(c, i, size + 2, false, &linear) ||
        soft_read(c, linear, bytes, size + 2, ACCESS_READ))
        return SOFT_FAULT;
    base = get_le64(bytes + 2);
    if (soft_check_canonical(c, base))
        return SOFT_FAULT;
    if (size == 4)
        base &= i->operand_size == 2 ? 0xffffff : 0xffffffff;
    table->base = base;
    table->limit = get_le16(bytes);
    return SOFT_NEXT;
}

static int store_table(struct soft_vcpu *c, const struct soft_insn *i, const struct cpu_table_state *table)
{
    unsigned size = soft_is64(c) ? 8 : 4;
    uint8_t bytes[10];
    uint64_t linear;

    if (soft_check_umip(c))
        return SOFT_FAULT;
    put_le16(bytes, table->limit);
    put_le64(bytes + 2, table->base);
    if (soft_operand_linear(c, i, size + 2, true, &linear))
        return SOFT_FAULT;
    return soft_write(c, linear, bytes, size + 2, ACCESS_WRITE);
}

int op_lgdt(struct soft_vcpu *c, const struct soft_insn *i)
{
    return load_table(c, i, &c->gdt);
}
int op_lidt(struct soft_vcpu *c, const struct soft_insn *i)
{
    return load_table(c, i, &c->idt);
}
int op_sgdt(struct soft_vcpu *c, const struct soft_insn *i)
{
    return store_table(c, i, &c->gdt);
}
int op_sidt(struct soft_vcpu *c, const struct soft_insn *i)
{
    return store_table(c, i, &c->idt);
}

/* ---- FS and GS bases ---- */

int op_swapgs(struct soft_vcpu *c, const struct soft_insn *i)
{
    uint64_t base = c->seg[CPU_GS].base;

    if (!soft_is64(c))
        return soft_raise(c, VEC_UD);
    if (c->cpl)
        return soft_raise(c, VEC_GP);
    c->seg[CPU_GS].base = c->kernel_gs_base;
    c->kernel_gs_base = base;
    return SOFT_NEXT;
}

static int check_fsgsbase(struct soft_vcpu *c)
{
    return soft_is64(c) && (c->cr4 & CR4_FSGSBASE) ? SOFT_NEXT : soft_raise(c, VEC_UD);
}

static int write_base(struct soft_vcpu *c, const struct soft_insn *i, unsigned seg)
{
    uint64_t value;

    if (check_fsgsbase(c) || soft_operand_read(c, i, 0, &value) || soft_check_canonical(c, value))
        return SOFT_FAULT;
    c->seg[seg].base = value;
    return SOFT_NEXT;
}

int op_rdfsbase(struct soft_vcpu *c, const struct soft_insn *i)
{
    return check_fsgsbase(c) ? SOFT_FAULT : soft_operand_write(c, i, 0, c->seg[CPU_FS].base);
}
int op_rdgsbase(struct soft_vcpu *c, const struct soft_insn *i)
{
    return check_fsgsbase(c) ? SOFT_FAULT : soft_operand_write(c, i, 0, c->seg[CPU_GS].base);
}
int op_wrfsbase(struct soft_vcpu *c, const struct soft_insn *i)
{
    return write_base(c, i, CPU_FS);
}
int op_wrgsbase(struct soft_vcpu *c, const struct soft_insn *i)
{
    return write_base(c, i, CPU_GS);
}

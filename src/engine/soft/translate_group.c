/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Accesses that share a look-up in the TLB. Most of what a block touches lies at constant distances from a
 * few registers: fields of a structure, the stack. If all that it touches through one register is in one
 * page, the first of these accesses looks that page up for all, and the others add what it found:
 *
 *     mov   s, gs:[addend]
 *     <the instruction> [base + s + disp]
 *
 * If not (the TLB has no entry, the structure lies over two pages, it is a device), the block goes on in
 * another translation of its rest, where each access looks for itself (KEY_PLAIN). Nothing has happened by
 * then that the guest could see.
 */
#include "engine/soft/translate_priv.h"

/* From the first byte to the last that one look-up is made for: rarely over two pages. */
#define SPAN_MAX 512
/* No displacements that might overflow when they are added. */
#define DISP_MAX (1 << 20)

/* Bytes that the instruction touches. */
unsigned tr_access_size(const struct soft_decoded *d, bool amd)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB:
        return 1;
    case ZYDIS_MNEMONIC_MOVSXD: /* to 16 bits Intel's read as many; Zydis says 32 */
        return d->z.operand_width == 16 && !amd ? 2 : 4;
    default:
        return d->ops[d->mem].size / 8;
    }
}

unsigned tr_access_rights(const struct soft_decoded *d)
{
    ZydisOperandActions actions = d->ops[d->mem].actions;
    unsigned flags = 0;

    if (actions & (ZYDIS_OPERAND_ACTION_MASK_READ | ZYDIS_OPERAND_ACTION_CONDWRITE))
        flags |= SITE_READ;
    if (actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
        flags |= SITE_WRITE;
    return flags ? flags : SITE_READ;
}

/* ---- which accesses belong together ---- */

/* While a block is looked through: how far a register is from its value when it was last set to something
 * unknown, and the group of accesses through it since. */
struct base_state {
    int32_t moved;
    uint8_t group; /* 1 + index, or 0 */
};

struct access {
    uint8_t base;
    unsigned size;
    bool write;
    int64_t disp;
};

static unsigned gpr_of(ZydisRegister reg)
{
    return soft_registers[reg].number;
}

static bool is_gpr64(const ZydisDecodedOperand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER && soft_registers[o->reg.value].bits == 64;
}

/* Pushes, pops, calls and returns that tr_stack, tr_flow and tr_system make one access of. `moved`: what RSP
 * changes by.
 */
static bool stack_access(const struct soft_decoded *d, struct access *a, int32_t *moved)
{
    bool memory = d->z.operand_count_visible && d->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY;

    if (d->z.operand_width != 64 || memory || d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return false;
    *a = (struct access){.base = CPU_RSP, .size = 8};
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        if (d->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER && !is_gpr64(&d->ops[0]))
            return false;
        a->write = true;
        a->disp = *moved = -8;
        return true;
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_PUSHFQ:
        a->write = true;
        a->disp = *moved = -8;
        return true;
    case ZYDIS_MNEMONIC_POP:
        if (!is_gpr64(&d->ops[0]) || gpr_of(d->ops[0].reg.value) == CPU_RSP)
            return false;
        *moved = 8;
        return true;
    case ZYDIS_MNEMONIC_RET:
        *moved = 8;
        return true;
    default:
        return false;
    }
}

static bool operand_access(const struct soft_decoded *d, bool amd, struct access *a)
{
    if (d->mem < 0 || (d->row && tr_row_applies(d)))
        return false;
    const ZydisDecodedOperand *o = &d->ops[d->mem];
    if (o->mem.type != ZYDIS_MEMOP_TYPE_MEM || d->z.address_width != 64 ||
        o->mem.index != ZYDIS_REGISTER_NONE || soft_registers[o->mem.base].bits != 64 ||
        o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS)
        return false;
    *a = (struct access){.base = (uint8_t)gpr_of(o->mem.base),
                         .size = tr_access_size(d, amd),
                         .write = tr_access_rights(d) & SITE_WRITE,
                         .disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0};
    return a->size && a->size <= 64 && a->disp < DISP_MAX && a->disp > -DISP_MAX;
}

/* An addition of a constant to a 64-bit register. */
static bool known_move(const struct soft_decoded *d, unsigned *reg, int32_t *moved)
{
    int64_t by;

    if ((d->z.mnemonic != ZYDIS_MNEMONIC_ADD && d->z.mnemonic != ZYDIS_MNEMONIC_SUB) ||
        !is_gpr64(&d->ops[0]) || d->ops[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return false;
    by = d->z.mnemonic == ZYDIS_MNEMONIC_ADD ? d->ops[1].imm.value.s : -d->ops[1].imm.value.s;
    if (by >= DISP_MAX || by <= -DISP_MAX)
        return false;
    *reg = gpr_of(d->ops[0].reg.value);
    *moved = (int32_t)by;
    return true;
}

static uint8_t join(struct translator *t, struct base_state *b, const struct access *a)
{
    int32_t low = b->moved + (int32_t)a->disp, high = low + (int32_t)a->size;
    struct page_group *g = b->group ? &t->groups[b->group - 1] : NULL;

    if (g && (high > g->high ? high : g->high) - (low < g->low ? low : g->low) <= SPAN_MAX) {
        g->low = low < g->low ? low : g->low;
        g->high = high > g->high ? high : g->high;
        g->write |= a->write;
        g->members++;
        return b->group;
    }
    if (t->n_groups == ADDENDS) {
        b->group = 0;
        return 0;
    }
    t->groups[t->n_groups++] =
        (struct page_group){.base = a->base, .write = a->write, .members = 1, .low = low, .high = high};
    b->group = t->n_groups;
    return b->group;
}

void tr_find_groups(struct translator *t, const struct soft_decoded *insns, unsigned n)
{
    struct base_state bases[CPU_GPRS] = {0};

    memset(t->group_of, 0, sizeof(t->group_of));
    if (t->bits != 64 || t->block->gpa2 != NO_PAGE ||
        (t->key & (KEY_STEP | KEY_ONE | KEY_DEBUG | KEY_AC | KEY_PLAIN)))
        return;
    for (unsigned i = 0; i < n; i++) {
        const struct soft_decoded *d = &insns[i];
        uint16_t writes = d->writes;
        int32_t moved = 0;
        unsigned reg = CPU_RSP;
        struct access a;

        if (stack_access(d, &a, &moved) || operand_access(d, t->soft->amd, &a)) {
            t->moved_of[i] = bases[a.base].moved;
            t->group_of[i] = join(t, &bases[a.base], &a);
        } else if (d->row && tr_row_applies(d) && !(d->row->flags & INSN_NOP) && !tr_emitted(t, d)) {
            writes = 0xffff; /* a handler: tr_end_groups */
        }
        if (!moved)
            known_move(d, &reg, &moved);
        if (moved) {
            writes &= (uint16_t)~BIT(reg);
            bases[reg].moved += moved;
            if (bases[reg].moved >= DISP_MAX || bases[reg].moved <= -DISP_MAX)
                writes |= BIT(reg);
        }
        for (unsigned left = writes; left; left &= left - 1)
            bases[__builtin_ctz(left)] = (struct base_state){0};
    }
    for (unsigned i = 0; i < n; i++) {
        if (t->group_of[i] && t->groups[t->group_of[i] - 1].members < 2)
            t->group_of[i] = 0;
    }
}

/* ---- their code ---- */

void tr_end_groups(struct translator *t)
{
    for (unsigned n = 0; n < t->n_groups; n++)
        if (t->groups[n].state == LOOKED_UP)
            t->groups[n].state = OVER;
}

/* The look-up of a group's page at its first access; its addend ends in the register that is returned. */
static unsigned look_up(struct translator *t, struct page_group *g, uint16_t avoid, bool low)
{
    struct emitter *e = &t->e;
    uint16_t no = avoid | (t->soft->use_pext ? 0 : BIT(CPU_RAX));

    tr_need(t, g->base);
    unsigned s1 = tr_scratch(t, no, false);
    unsigned s2 = tr_scratch(t, (uint16_t)(no | BIT(s1)), low);
    tr_take(t, CPU_RCX); /* which may be the base: its register holds it still */
    emit_lea(e, 8, s1, g->base, 255, 1, g->low - t->moved_of[t->n]);
    tr_emit_check(t, s1, s2, (unsigned)(g->high - g->low), g->write);
    emit_jrcxz(e, 5);
    t->plains[t->n_plains++] =
        (struct pending_plain){.jump = emit_jmp_later(e), .rip = t->d->rip, .slots = tr_slots(t)};
    tr_emit_addend(t, s2, g->write);
    emit_store(e, FIELD(addend[0]) + 8 * (int32_t)(g - t->groups), s2);
    t->held[s2] = (uint8_t)(g - t->groups + 1);
    g->state = LOOKED_UP;
    return s2;
}

bool tr_group_access(struct translator *t, const struct guest_address *a, uint16_t avoid, bool low,
                     struct memory_access *m)
{
    struct page_group *g = &t->groups[t->group_of[t->n] - 1];
    unsigned s = CPU_GPRS;

    avoid |= BIT(g->base);
    if (g->state == OVER)
        return false;
    if (g->state == NOT_YET)
        s = look_up(t, g, avoid, low);
    for (unsigned r = 0; r < CPU_GPRS && s == CPU_GPRS; r++) {
        if (t->held[r] == g - t->groups + 1 && !(avoid & BIT(r)) && (!low || r < 8))
            s = r;
    }
    tr_need(t, g->base);
    if (s == CPU_GPRS) {
        s = tr_scratch(t, avoid, low);
        emit_load(&t->e, s, FIELD(addend[0]) + 8 * (int32_t)(g - t->groups));
        t->held[s] = (uint8_t)(g - t->groups + 1);
    }
    m->s1 = g->base;
    m->s2 = (uint8_t)s;
    m->disp = (int32_t)a->disp;
    return true;
}

/* After the block's own code: the registers into their places, then on to the other translation. */
void tr_write_plains(struct translator *t)
{
    for (unsigned n = 0; n < t->n_plains; n++) {
        const struct pending_plain *p = &t->plains[n];

        emit_rel32_at(p->jump, t->e.p);
        for (unsigned r = 0; r < CPU_GPRS; r++) {
            if (p->slots & BIT(r))
                emit_load(&t->e, r, GPR(r));
        }
        tr_exit_plain(t, p->rip);
    }
}

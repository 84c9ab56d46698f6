/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory operands: the inlined look-up in the software TLB, without touching flags, and the guest's
 * instruction re-encoded around the host address that it gives.
 *
 *     lea   s1, [guest address]
 *     pext  s2, s1, gs:[index_mask]           index of the page's entry
 *     mov   rcx, gs:[tlb.tag + s2 * 8]        minus the page's address
 *     lea   rcx, [rcx + s1 + size - 1]        offset of the last byte in the page, if it is this page
 *     pext  rcx, rcx, gs:[page_mask]          what exceeds a page
 *     jrcxz hit
 *     jmp   slow
 *  hit: mov s2, gs:[tlb.addend + s2 * 8]
 *     <the instruction> [s1 + s2]
 *
 * Hosts without (fast) PEXT shift and mask instead, with the flags kept aside in RAX's place.
 */
#include "engine/soft/translate_priv.h"

void tr_operand_address(const struct translator *t, struct guest_address *a)
{
    const ZydisDecodedOperand *o = &t->d->ops[t->d->mem];
    struct soft_insn i = {.base = INSN_NO_REG, .index = INSN_NO_REG};

    soft_make_memory(o, &i);
    *a = (struct guest_address){.segment = i.segment,
                                .base = i.base,
                                .index = i.index,
                                .scale = i.scale,
                                .address_size = (uint8_t)(t->d->z.address_width / 8),
                                .disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0};
}

void tr_emit_rip(struct translator *t, unsigned reg, uint64_t rip)
{
    struct emitter *e = &t->e;
    int64_t rest = (int64_t)rip;

    if (!soft_key_moves(t->key)) {
        emit_mov_imm(e, reg, rip);
        return;
    }
    emit_load(e, reg, FIELD(page_rip));
    /* At most 2 GiB and a page away. */
    for (int32_t step; rest; rest -= step) {
        step = rest > INT32_MAX ? INT32_MAX : rest < INT32_MIN ? INT32_MIN : (int32_t)rest;
        emit_lea(e, 8, reg, reg, 255, 1, step);
    }
}

void tr_emit_address(struct translator *t, unsigned reg, const struct guest_address *a)
{
    struct emitter *e = &t->e;
    unsigned width = a->address_size == 8 ? 8 : 4;

    if (a->base == INSN_RIP) {
        tr_emit_rip(t, reg, t->d->rip + t->d->z.length + (uint64_t)a->disp);
        if (width == 4)
            emit_lea(e, 4, reg, reg, 255, 1, 0);
        return;
    }
    if (a->base == INSN_NO_REG && a->index == INSN_NO_REG) {
        uint64_t v = (uint64_t)a->disp;
        emit_mov_imm(e, reg, a->address_size == 8 ? v : a->address_size == 4 ? (uint32_t)v : (uint16_t)v);
        return;
    }
    if (a->base != INSN_NO_REG)
        tr_need(t, a->base);
    if (a->index != INSN_NO_REG)
        tr_need(t, a->index);
    emit_lea(e, width, reg, a->base == INSN_NO_REG ? 255 : a->base, a->index == INSN_NO_REG ? 255 : a->index,
             a->scale, (int32_t)a->disp);
    if (a->address_size == 2)
        emit_movzx16(e, reg, reg);
}

/* Whether the segment's base and limit must be looked at for each access. */
static bool needs_segment_check(const struct translator *t, unsigned segment)
{
    if (t->bits == 64)
        return false;
    /* CS may be flat, but it is never writable. */
    return !(t->key & KEY_FLAT) || segment == CPU_FS || segment == CPU_GS || segment == CPU_CS;
}

void tr_emit_check(struct translator *t, unsigned s1, unsigned s2, unsigned size, bool write)
{
    struct emitter *e = &t->e;
    int32_t tag = FIELD(tlb) + (int32_t)sizeof(struct soft_tlb) * (2 * (int)t->mmu + write);

    if (t->soft->use_pext) {
        emit_pext(e, s2, s1, FIELD(index_mask));
        emit_load_indexed(e, CPU_RCX, tag, s2);
        emit_lea(e, 8, CPU_RCX, CPU_RCX, s1, 1, (int32_t)size - 1);
        emit_pext(e, CPU_RCX, CPU_RCX, FIELD(page_mask));
        return;
    }
    emit_store(e, FIELD(scratch[1]), CPU_RAX);
    emit_flags_save(e, FIELD(scratch[2]));
    emit_mov_reg(e, s2, s1);
    emit1(e, 0x48 | (s2 & 8 ? 1 : 0)); /* shr s2, 12 */
    emit1(e, 0xc1);
    emit1(e, 0xe8 | (s2 & 7));
    emit1(e, 12);
    if (s2 & 8)
        emit1(e, 0x41);
    emit1(e, 0x81); /* and s2d, TLB_SIZE - 1 */
    emit1(e, 0xe0 | (s2 & 7));
    emit4(e, TLB_SIZE - 1);
    emit_load_indexed(e, CPU_RCX, tag, s2);
    emit_lea(e, 8, CPU_RCX, CPU_RCX, s1, 1, (int32_t)size - 1);
    emit_bytes(e, "\x48\xc1\xe9\x0c", 4); /* shr rcx, 12 */
    emit_flags_restore(e, FIELD(scratch[2]));
    emit_load(e, CPU_RAX, FIELD(scratch[1]));
}

void tr_emit_addend(struct translator *t, unsigned s2, bool write)
{
    emit_load_indexed(&t->e, s2,
                      FIELD(tlb) + (int32_t)sizeof(struct soft_tlb) * (2 * (int)t->mmu + write) +
                          (int32_t)offsetof(struct soft_tlb, addend),
                      s2);
}

void tr_access_begin(struct translator *t, const struct guest_address *a, unsigned size, unsigned flags,
                     uint16_t avoid, bool low, struct memory_access *m)
{
    struct emitter *e = &t->e;

    m->disp = 0;
    m->pending = NULL;
    if (t->group_of[t->n] && tr_group_access(t, a, avoid, low, m))
        return;
    struct pending_site *p = &t->sites[t->n_sites++];
    struct soft_site *site = tr_meta(t, sizeof(*site));
    bool checked = needs_segment_check(t, a->segment);

    /* Without PEXT the check goes through RAX. */
    uint16_t no = avoid | (t->soft->use_pext ? 0 : BIT(CPU_RAX));
    if (a->base < CPU_GPRS)
        tr_need(t, a->base);
    if (a->index < CPU_GPRS)
        tr_need(t, a->index);
    m->s1 = (uint8_t)tr_scratch(t, no, low);
    m->s2 = (uint8_t)tr_scratch(t, (uint16_t)(no | BIT(m->s1)), low);
    tr_take(t, CPU_RCX);
    /* The base may be one of the three: its register still holds it up to here. */
    uint16_t in_reg = t->in_reg;
    if (a->base < CPU_GPRS)
        t->in_reg |= BIT(a->base);
    if (a->index < CPU_GPRS)
        t->in_reg |= BIT(a->index);
    tr_emit_address(t, m->s1, a);
    t->in_reg = in_reg;
    if (t->bits == 64 && (a->segment == CPU_FS || a->segment == CPU_GS)) {
        emit_load(e, m->s2, FIELD(seg) + (int32_t)sizeof(struct cpu_segment_state) * a->segment);
        emit_lea(e, 8, m->s1, m->s1, m->s2, 1, 0);
    }
    uint16_t insn = (uint16_t)(t->d->rip - t->rip);
    *site = (struct soft_site){.block = (uint32_t)(t->block - t->soft->blocks),
                               .insn = insn,
                               .length = t->d->z.length,
                               .slots = tr_slots(t),
                               .s1 = m->s1,
                               .s2 = m->s2,
                               .size = (uint8_t)size,
                               .flags = (uint8_t)(flags | (checked ? SITE_CHECKED : 0)),
                               .segment = a->segment};
    *p = (struct pending_site){.site = site};
    if (checked || (t->key & KEY_AC)) {
        emit_lea_rip(e, CPU_RCX, site);
        emit_jmp(e, t->soft->stubs.slow[m->s1]);
    } else {
        tr_emit_check(t, m->s1, m->s2, size, flags & SITE_WRITE);
        emit_jrcxz(e, 5);
        p->jump = emit_jmp_later(e);
        tr_emit_addend(t, m->s2, flags & SITE_WRITE);
    }
    p->access = e->p;
    p->first_record = t->n_records;
    m->pending = p;
}

void tr_access_end(struct translator *t, struct memory_access *m)
{
    if (!m->pending)
        return;
    m->pending->after = t->e.p;
    m->pending->n_records = t->n_records - m->pending->first_record;
    m->pending->site->slots_after = tr_slots(t);
}

/* The out-of-line part of each access. */
void tr_write_sites(struct translator *t)
{
    struct emitter *e = &t->e;
    uint8_t *cache = t->soft->cache;

    for (unsigned n = 0; n < t->n_sites; n++) {
        struct pending_site *p = &t->sites[n];
        struct soft_site *site = p->site;

        if (p->jump) {
            emit_rel32_at(p->jump, e->p);
            emit_lea_rip(e, CPU_RCX, site);
            emit_jmp(e, t->soft->stubs.slow[site->s1]);
        }
        site->resume = (uint32_t)(p->access - cache);
        site->after = (uint16_t)(p->after - p->access);
        if (!(site->flags & SITE_WRITE))
            continue;
        /* The copy depends on no address of its own, so it is the very bytes. */
        int64_t moved = e->p - p->access;
        site->post = (uint16_t)(e->p - (cache + t->block->cold));
        for (unsigned r = 0; r < p->n_records; r++) {
            struct soft_record copy = t->records[p->first_record + r];
            copy.host = (uint32_t)(copy.host + moved);
            t->records[t->n_records++] = copy;
        }
        emit_bytes(e, p->access, (size_t)(p->after - p->access));
        emit_store(e, FIELD(scratch[0]), CPU_RCX);
        emit_lea_rip(e, CPU_RCX, site);
        emit_jmp(e, t->soft->stubs.post);
    }
}

/* Prefixes as they stand, less those that only make the address, with 66 set as the operand size asks for. */
static void emit_prefixes(struct translator *t)
{
    const struct soft_decoded *d = t->d;
    bool legacy_size = t->bits == 16 && soft_fpu_class(d) == FPU_NONE;
    bool had66 = false;

    for (unsigned n = 0; n < d->at.prefixes; n++) {
        uint8_t b = d->bytes[n];
        if (t->bits == 64 && (b & 0xf0) == 0x40)
            continue;
        if (b == 0xf0 || b == 0xf2 || b == 0xf3)
            emit1(&t->e, b);
        else if (b == 0x66 && !legacy_size && !had66) {
            emit1(&t->e, b);
            had66 = true;
        }
    }
    if (legacy_size && d->z.operand_width == 16)
        emit1(&t->e, 0x66);
}

/* VEX.W is the size of a general register or of an operand like one: ignored outside 64-bit mode. */
static bool w_is_size(const struct soft_decoded *d)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VPINSRD:
        return true;
    default:
        return d->reads || d->writes;
    }
}

static void emit_vex(struct translator *t, const struct memory_access *m)
{
    const struct soft_decoded *d = t->d;
    const uint8_t *v = d->bytes + d->at.vex;
    uint8_t rxb, map, wvlp;

    if (d->at.vex_size == 2) {
        rxb = (v[1] & 0x80) | 0x60;
        map = 1;
        wvlp = v[1] & 0x7f;
    } else {
        rxb = v[1] & 0xe0;
        map = v[1] & 0x1f;
        wvlp = v[2];
    }
    if (t->bits != 64) {
        wvlp |= 0x40;
        if (w_is_size(d))
            wvlp &= 0x7f;
    }
    if (m)
        rxb = (uint8_t)((rxb & 0x80) | (m->s2 & 8 ? 0 : 0x40) | (m->s1 & 8 ? 0 : 0x20));
    emit1(&t->e, 0xc4);
    emit1(&t->e, rxb | map);
    emit1(&t->e, wvlp);
}

/* Outside 64-bit mode there are eight vector registers: those are what VZEROUPPER and VZEROALL clear. */
static bool emit_zero_vectors(struct translator *t)
{
    const struct soft_decoded *d = t->d;
    bool all = d->z.mnemonic == ZYDIS_MNEMONIC_VZEROALL;

    if (t->bits == 64 || (!all && d->z.mnemonic != ZYDIS_MNEMONIC_VZEROUPPER))
        return false;
    for (unsigned r = 0; r < 8; r++) {
        emit1(&t->e, 0xc5);
        emit1(&t->e, all ? (uint8_t)(0xf8 ^ r << 3) : 0xf8);
        emit1(&t->e, all ? 0x57 : 0x28); /* vxorps x, x, x or vmovaps x, x */
        emit1(&t->e, (uint8_t)(0xc0 | r << 3 | r));
    }
    return true;
}

/* A register in bits 4-7 of an immediate: three bits of it count outside 64-bit mode. */
static bool has_register_immediate(const struct soft_decoded *d)
{
    return d->z.mnemonic == ZYDIS_MNEMONIC_VBLENDVPD || d->z.mnemonic == ZYDIS_MNEMONIC_VBLENDVPS ||
           d->z.mnemonic == ZYDIS_MNEMONIC_VPBLENDVB;
}

/* INC, DEC and MOV with forms that 64-bit mode lacks, or whose memory operand has no ModRM. True if written.
 */
static bool emit_special_forms(struct translator *t, const struct memory_access *m)
{
    const struct soft_decoded *d = t->d;
    uint8_t op = d->z.opcode;

    if (d->z.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT || d->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return false;
    if (t->bits != 64 && op >= 0x40 && op <= 0x4f) {
        emit_prefixes(t);
        emit1(&t->e, 0xff);
        emit1(&t->e, (uint8_t)((op & 8 ? 0xc8 : 0xc0) | (op & 7)));
        return true;
    }
    if (t->bits != 64 && op == 0x82) { /* the alias of 80 that 64-bit mode dropped */
        emit_prefixes(t);
        if (m)
            emit1(&t->e, 0x40 | emit_rex_bits(0, m->s1, m->s2));
        emit1(&t->e, 0x80);
        if (m)
            emit_modrm_mem(&t->e, d->z.raw.modrm.reg, m->s1, m->s2, 1, m->disp);
        else
            emit1(&t->e, d->bytes[d->at.modrm]);
        emit1(&t->e, d->bytes[d->at.imm]);
        return true;
    }
    if (m && op >= 0xa0 && op <= 0xa3) {
        emit_prefixes(t);
        emit1(&t->e, 0x40 | (d->z.operand_width == 64 ? 8 : 0) | emit_rex_bits(0, m->s1, m->s2));
        emit1(&t->e, (uint8_t)(0x88 | (op & 1) | (op & 2 ? 0 : 2)));
        emit_modrm_mem(&t->e, CPU_RAX, m->s1, m->s2, 1, m->disp);
        return true;
    }
    return false;
}

void tr_copy(struct translator *t, const struct memory_access *m)
{
    const struct soft_decoded *d = t->d;
    struct emitter *e = &t->e;

    if (!m && t->bits == 64) {
        emit_bytes(e, d->bytes, d->z.length);
        return;
    }
    if (emit_special_forms(t, m) || emit_zero_vectors(t))
        return;
    emit_prefixes(t);
    unsigned opcode_end = d->at.modrm ? d->at.modrm : d->at.imm;
    if (d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
        emit_vex(t, m);
    } else {
        uint8_t rex = d->at.rex;
        if (m) {
            uint8_t bits = emit_rex_bits(0, m->s1, m->s2);
            rex = (uint8_t)((rex & 0x4c) | bits | (bits ? 0x40 : 0));
        }
        if (rex)
            emit1(e, rex);
    }
    emit_bytes(e, d->bytes + d->at.opcode, opcode_end - d->at.opcode);
    if (m)
        emit_modrm_mem(e, d->z.raw.modrm.reg, m->s1, m->s2, 1, m->disp);
    else if (d->at.modrm)
        emit1(e, d->bytes[d->at.modrm]);
    if (t->bits != 64 && has_register_immediate(d))
        emit1(e, d->bytes[d->at.imm] & 0x7f);
    else
        emit_bytes(e, d->bytes + d->at.imm, (size_t)(d->z.length - d->at.imm));
}

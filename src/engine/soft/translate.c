/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The translator: one basic block of guest code to host code. Called by the dispatcher with the code cache's
 * lock held. This part keeps track of registers and decides which way each instruction goes: an emitter for
 * control flow and the stack, a C handler where insn.def has a row, else a copy.
 */
#include "engine/soft/translate_priv.h"

#include "base/bytes.h"
#include "engine/soft/decode_cache.h"

/* ---- registers ---- */

void tr_need(struct translator *t, unsigned reg)
{
    tr_need_all(t, BIT(reg));
}

void tr_need_all(struct translator *t, uint16_t regs)
{
    for (unsigned missing = regs & ~(unsigned)t->in_reg; missing; missing &= missing - 1) {
        unsigned reg = (unsigned)__builtin_ctz(missing);

        emit_load(&t->e, reg, GPR(reg));
        t->in_reg |= BIT(reg);
        t->held[reg] = 0;
    }
}

void tr_take(struct translator *t, unsigned reg)
{
    if (!(t->in_slot & BIT(reg)))
        emit_store(&t->e, GPR(reg), reg);
    t->in_slot |= BIT(reg);
    t->in_reg &= (uint16_t)~BIT(reg);
    t->held[reg] = 0;
}

void tr_wrote(struct translator *t, uint16_t regs)
{
    t->in_reg |= regs;
    t->in_slot &= (uint16_t)~regs;
    for (unsigned left = regs; left; left &= left - 1)
        t->held[__builtin_ctz(left)] = 0;
}

unsigned tr_scratch(struct translator *t, uint16_t avoid, bool low)
{
    unsigned best = CPU_GPRS, best_cost = UINT32_MAX;

    avoid |= BIT(CPU_RSP) | BIT(CPU_RCX);
    for (unsigned left = (low ? 0xffu : 0xffffu) & ~(unsigned)avoid; left && best_cost; left &= left - 1) {
        unsigned r = (unsigned)__builtin_ctz(left);
        /* What is in its slot costs nothing now; then those that the block uses least. */
        unsigned cost = t->uses[r] * 4u;
        if (t->in_reg & BIT(r))
            cost += t->in_slot & BIT(r) ? 2 : 3;
        else if (t->held[r])
            cost += 1;
        if (cost < best_cost) {
            best = r;
            best_cost = cost;
        }
    }
    tr_take(t, best);
    return best;
}

uint16_t tr_slots(const struct translator *t)
{
    return (uint16_t)~t->in_reg;
}

void *tr_meta(struct translator *t, size_t size)
{
    void *p = t->meta;

    t->meta += ALIGN_UP(size, 8);
    return p;
}

void tr_record(struct translator *t)
{
    t->records[t->n_records++] = (struct soft_record){.host = (uint32_t)(t->e.p - t->soft->cache),
                                                      .insn = (uint16_t)(t->d->rip - t->rip),
                                                      .slots = tr_slots(t)};
}

/* ---- calls of C ---- */

void tr_call_through(struct translator *t, soft_handler *handler, const uint8_t *stub)
{
    struct soft_call *call = tr_meta(t, sizeof(*call));

    soft_make_insn(t->d, &call->insn);
    call->rip = t->d->rip;
    call->handler = handler;
    tr_need_all(t, 0xffff & ~BIT(CPU_RCX));
    tr_take(t, CPU_RCX);
    emit_lea_rip(&t->e, CPU_RCX, call);
    emit_jmp(&t->e, stub);
    call->resume = t->e.p;
    t->fpu_loaded = false;
    tr_end_groups(t);
}

void tr_call(struct translator *t, soft_handler *handler)
{
    tr_call_through(t, handler, t->soft->stubs.call);
    t->in_reg = t->in_slot = 0xffff;
}

static int raise_ud(struct soft_vcpu *c, const struct soft_insn *i)
{
    return soft_raise(c, VEC_UD);
}
static int raise_nm(struct soft_vcpu *c, const struct soft_insn *i)
{
    return soft_raise(c, VEC_NM);
}
static int raise_gp(struct soft_vcpu *c, const struct soft_insn *i)
{
    return soft_raise_error(c, VEC_GP, 0);
}
static int check_wait(struct soft_vcpu *c, const struct soft_insn *i)
{
    return c->cr0 & CR0_MP ? soft_raise(c, VEC_NM) : SOFT_NEXT;
}

static void raise_always(struct translator *t, soft_handler *handler)
{
    tr_call(t, handler);
    t->ended = true;
}

/* ---- which instructions the guest may have ---- */

/* Forms that AMD's processors refuse: PREFETCH and PREFETCHW of a register, and outside 64-bit mode VPINSRD
 * and VPEXTRD with VEX.W, which Intel's ignore. */
static bool amd_refuses(const struct translator *t, const struct soft_decoded *d)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
        return d->z.opcode_map == ZYDIS_OPCODE_MAP_0F && d->z.opcode == 0x0d && d->mem < 0;
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VPEXTRD:
        return t->bits != 64 && d->z.raw.vex.W;
    default:
        return false;
    }
}

/* Instructions of an extension that CPUID does not announce are #UD, even if the host has them. */
static bool isa_allowed(const struct soft *s, const struct soft_decoded *d)
{
    if (d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ||
        d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX || d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_XOP ||
        d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_3DNOW)
        return false;
    if (d->z.meta.isa_ext == ZYDIS_ISA_EXT_CET)
        return d->row != NULL; /* the hints; the rest needs CR4.CET, which guests have not */
    return s->isa[d->z.meta.isa_ext];
}

/* The x87, SSE and AVX enable bits: false if an exception has been emitted instead. */
static bool check_fpu(struct translator *t)
{
    bool ts = t->key & KEY_TS, em = t->key & KEY_EM;

    switch (soft_fpu_class(t->d)) {
    case FPU_NONE:
        return true;
    case FPU_WAIT:
        if (ts)
            tr_call(t, check_wait);
        return true;
    case FPU_X87:
        if (ts || em) {
            raise_always(t, raise_nm);
            return false;
        }
        return true;
    case FPU_MMX:
        if (em) {
            raise_always(t, raise_ud);
            return false;
        }
        break;
    case FPU_SSE:
        if (t->key & KEY_NO_SSE) {
            raise_always(t, raise_ud);
            return false;
        }
        break;
    case FPU_AVX:
        if ((t->key & KEY_NO_AVX) || !(t->key & KEY_PROTECTED)) {
            raise_always(t, raise_ud);
            return false;
        }
        break;
    }
    if (ts) {
        raise_always(t, raise_nm);
        return false;
    }
    return true;
}

/* The vector state into the registers, at the first instruction of the block that wants it. */
static void load_fpu(struct translator *t)
{
    struct emitter *e = &t->e;

    if (t->fpu_loaded)
        return;
    tr_take(t, CPU_RCX);
    emit_load(e, CPU_RCX, FIELD(fpu_saved));
    emit_jrcxz(e, 12);
    emit_lea_rip(e, CPU_RCX, e->p + 12);
    emit_jmp(e, t->soft->stubs.fpu_load);
    t->fpu_loaded = true;
}

/* The unit has its own place in a block that may be anywhere: hide_host_pointers wants to know which that
 * was. */
static void note_x87_page(struct translator *t)
{
    if (!soft_key_moves(t->key) || t->x87_noted || soft_fpu_class(t->d) != FPU_X87)
        return;
    tr_take(t, CPU_RCX);
    emit_load(&t->e, CPU_RCX, FIELD(page_rip));
    emit_store(&t->e, FIELD(x87_page), CPU_RCX);
    t->x87_noted = true;
}

/* ---- copies ---- */

static void translate_lea(struct translator *t)
{
    const struct soft_decoded *d = t->d;
    struct guest_address a;

    unsigned dest = soft_registers[d->ops[0].reg.value].number;
    tr_operand_address(t, &a);
    tr_need_all(t, d->address_regs);
    if (d->z.operand_width != 16) {
        /* A 64-bit address to a 32-bit register: LEA with 32 bits does just that. */
        if (a.address_size == 8 && d->z.operand_width == 32)
            a.address_size = 4;
        tr_emit_address(t, dest, &a);
        tr_wrote(t, BIT(dest));
        return;
    }
    tr_need(t, dest);
    unsigned s = tr_scratch(t, (uint16_t)(BIT(dest) | d->address_regs), false);
    tr_emit_address(t, s, &a);
    emit1(&t->e, 0x66); /* mov dest16, s16 */
    emit1(&t->e, 0x40 | (s & 8 ? 4 : 0) | (dest & 8 ? 1 : 0));
    emit1(&t->e, 0x89);
    emit1(&t->e, (uint8_t)(0xc0 | (s & 7) << 3 | (dest & 7)));
    tr_wrote(t, BIT(dest));
}

/* Whether the host may raise an exception for a copied instruction without a memory operand. */
static bool may_fault(const struct soft_decoded *d)
{
    return soft_fpu_class(d) != FPU_NONE || d->z.meta.isa_ext != ZYDIS_ISA_EXT_BASE ||
           d->z.mnemonic == ZYDIS_MNEMONIC_DIV || d->z.mnemonic == ZYDIS_MNEMONIC_IDIV;
}

/* Names memory without touching it. */
static bool is_hint(const struct soft_decoded *d)
{
    switch (d->z.meta.category) {
    case ZYDIS_CATEGORY_NOP:
    case ZYDIS_CATEGORY_WIDENOP:
    case ZYDIS_CATEGORY_PREFETCH:
    case ZYDIS_CATEGORY_PREFETCHWT1:
        return true;
    default:
        return false;
    }
}

static void translate_copy(struct translator *t)
{
    const struct soft_decoded *d = t->d;
    uint16_t regs = d->reads | d->writes;

    if (is_hint(d))
        return;
    if (d->mem >= 0 && d->ops[d->mem].mem.type == ZYDIS_MEMOP_TYPE_MEM && tr_access_size(d, t->soft->amd)) {
        struct guest_address a;
        struct memory_access m;
        unsigned flags = tr_access_rights(d);

        if (soft_needs_alignment(d))
            flags |= SITE_ALIGNED;
        if ((d->z.attributes & ZYDIS_ATTRIB_HAS_LOCK) || d->z.mnemonic == ZYDIS_MNEMONIC_XCHG)
            flags |= SITE_LOCKED;
        if (soft_x87_waits(d))
            flags |= SITE_WAITS;
        tr_operand_address(t, &a);
        tr_need_all(t, d->reads & (uint16_t)~BIT(CPU_RCX));
        tr_access_begin(t, &a, tr_access_size(d, t->soft->amd), flags, regs, d->high_byte, &m);
        if (regs & BIT(CPU_RCX))
            tr_need(t, CPU_RCX);
        tr_record(t);
        tr_copy(t, &m);
        tr_wrote(t, d->writes);
        tr_access_end(t, &m);
        return;
    }
    if (d->mem >= 0)
        return;
    tr_need_all(t, regs);
    if (may_fault(d))
        tr_record(t);
    tr_copy(t, NULL);
    tr_wrote(t, d->writes);
}

/* ---- handlers ---- */

/* Segment, control, debug. */
static bool is_system_register(const ZydisDecodedOperand *o)
{
    unsigned class = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? soft_registers[o->reg.value].class : 0;

    return class == ZYDIS_REGCLASS_SEGMENT || class == ZYDIS_REGCLASS_CONTROL ||
           class == ZYDIS_REGCLASS_DEBUG;
}

/* A few mnemonics name both what is copied and what needs a handler. */
bool tr_row_applies(const struct soft_decoded *d)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
        return is_system_register(&d->ops[0]) || is_system_register(&d->ops[1]);
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_CMPSD:
        return d->z.meta.category == ZYDIS_CATEGORY_STRINGOP;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        return d->mem == 0 && d->ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
    default:
        return true;
    }
}

/* MOV that only reads a segment, control or debug register changes nothing of the mode. */
static unsigned row_flags(const struct soft_decoded *d)
{
    if (d->z.mnemonic == ZYDIS_MNEMONIC_MOV && !is_system_register(&d->ops[0]))
        return d->row->flags & ~(INSN_MODE | INSN_END);
    return d->row->flags;
}

static void translate_row(struct translator *t, const struct soft_insn_row *row)
{
    unsigned flags = row_flags(t->d);

    if ((flags & INSN_NO64) && t->bits == 64) {
        raise_always(t, raise_ud);
        return;
    }
    if ((flags & INSN_PE) && !(t->key & KEY_PROTECTED)) {
        raise_always(t, raise_ud);
        return;
    }
    if ((flags & INSN_CPL0) && (t->key & KEY_CPL)) {
        raise_always(t, raise_gp);
        return;
    }
    if (flags & INSN_NOP)
        return;
    if ((flags & INSN_FPU) && !check_fpu(t))
        return;
    tr_call(t, row->handler);
    if (flags & INSN_JUMPS)
        t->ended = true;
    else if (flags & INSN_MODE)
        tr_exit_next(t, tr_next_rip(t));
    else if (flags & INSN_END)
        tr_exit_direct(t, tr_next_rip(t));
}

static void translate_insn(struct translator *t)
{
    const struct soft_decoded *d = t->d;

    if (!isa_allowed(t->soft, d) || (t->soft->amd && amd_refuses(t, d)) ||
        (d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && !(t->key & KEY_PROTECTED))) {
        raise_always(t, raise_ud);
        return;
    }
    if (tr_flow(t) || tr_stack(t) || tr_system(t))
        return;
    if (d->row && tr_row_applies(d)) {
        translate_row(t, d->row);
        return;
    }
    if (d->z.mnemonic == ZYDIS_MNEMONIC_LEA) {
        translate_lea(t);
        return;
    }
    if (soft_fpu_class(d) != FPU_NONE) {
        if (!check_fpu(t))
            return;
        load_fpu(t);
    }
    translate_copy(t);
    note_x87_page(t);
}

/* ---- blocks ---- */

struct block_source {
    struct soft_decoded insns[BLOCK_INSNS];
    unsigned n;
    bool invalid_at_end; /* the bytes after the last one are no instruction */
    bool too_long;       /* but the beginning of one that does not end in 15 bytes */
};

static bool ends_block(const struct translator *t, const struct soft_decoded *d)
{
    /* POP's row ends a block for the sake of segment registers. */
    if (d->z.mnemonic == ZYDIS_MNEMONIC_POP && d->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
        soft_registers[d->ops[0].reg.value].class != ZYDIS_REGCLASS_SEGMENT)
        return false;
    switch (d->z.meta.category) {
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
        return true;
    default:
        return d->row && tr_row_applies(d) && (row_flags(d) & (INSN_JUMPS | INSN_MODE | INSN_END)) &&
               tr_emitted(t, d) != EMITTED;
    }
}

/* STI, MOV SS and POP SS hold interrupts back until the next instruction has ended. */
static bool makes_shadow(const struct soft_decoded *d)
{
    if (d->z.mnemonic == ZYDIS_MNEMONIC_STI)
        return true;
    return (d->z.mnemonic == ZYDIS_MNEMONIC_MOV || d->z.mnemonic == ZYDIS_MNEMONIC_POP) &&
           d->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER && d->ops[0].reg.value == ZYDIS_REGISTER_SS;
}

/*
 * Decode up to the block's end: a control transfer, the page's end, or BLOCK_INSNS. An instruction that
 * crosses into the next page makes a block of its own.
 */
static int read_source(struct translator *t, struct block_source *src, uint64_t gpa)
{
    struct soft_vcpu *c = t->c;
    uint8_t bytes[16 + 15];
    uint64_t linear = c->rip + (t->bits == 64 ? 0 : t->block->cs_base);
    if (t->bits != 64)
        linear = (uint32_t)linear;
    unsigned in_page = (unsigned)(GUEST_PAGE_SIZE - (gpa & 4095));
    const uint8_t *host = soft_ram_page(t->soft, gpa) + (gpa & 4095);
    unsigned offset = 0;
    unsigned most = t->key & (KEY_STEP | KEY_ONE | KEY_DEBUG) ? 1 : BLOCK_INSNS;

    while (src->n < most && offset < in_page) {
        struct soft_decoded *d = &src->insns[src->n];
        uint64_t rip = tr_truncate(t, t->rip + offset);
        unsigned have = in_page - offset;

        memcpy(bytes, host + offset, have < 15 ? have : 15);
        enum soft_decode_result r =
            soft_decode_cached(t->soft->decoded, d, bytes, have < 15 ? have : 15, t->bits, t->soft->amd, rip);
        if (r == DECODE_MORE) {
            if (src->n)
                return SOFT_NEXT; /* it gets its own block */
            struct soft_walk w;
            uint64_t next = (linear & ~4095ull) + 4096;
            if (t->bits != 64)
                next = (uint32_t)next;
            int rc = soft_walk(c, next, ACCESS_EXEC, t->mmu, &w);
            if (rc != SOFT_NEXT)
                return rc;
            t->block->gpa2 = w.gpa & ~4095ull;
            const uint8_t *more = soft_ram_page(t->soft, w.gpa);
            if (!more || !soft_cache_mark_page_locked(t->soft, c, w.gpa))
                return soft_raise_error(c, VEC_GP, 0);
            memcpy(bytes + have, more, 15 - have);
            r = soft_decode_cached(t->soft->decoded, d, bytes, 15, t->bits, t->soft->amd, rip);
        }
        if (r != DECODE_OK) {
            src->invalid_at_end = true;
            src->too_long = r == DECODE_TOO_LONG;
            d->rip = rip;
            d->z.length = 1;
            return SOFT_NEXT;
        }
        offset += d->z.length;
        src->n++;
        if (ends_block(t, d) || t->block->gpa2 != NO_PAGE)
            break;
        /* The instruction after an interrupt shadow ends its block, so that what waits comes in. */
        if (src->n > 1 && makes_shadow(&src->insns[src->n - 2]))
            break;
    }
    return SOFT_NEXT;
}

static void count_uses(struct translator *t, const struct block_source *src)
{
    for (unsigned n = 0; n < src->n; n++) {
        for (unsigned left = src->insns[n].reads | src->insns[n].writes; left; left &= left - 1)
            t->uses[__builtin_ctz(left)]++;
    }
}

/* FNV-1a over the guest's bytes. */
static uint32_t hash_bytes(uint32_t h, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 16777619u;
    return h;
}

uint32_t soft_block_hash(const struct soft *s, const struct soft_block *b)
{
    unsigned in_page = (unsigned)(4096 - (b->gpa & 4095));
    unsigned first = b->length < in_page ? b->length : in_page;
    uint32_t h = hash_bytes(2166136261u, soft_ram_page(s, b->gpa) + (b->gpa & 4095), first);

    if (b->gpa2 != NO_PAGE && b->length > first)
        h = hash_bytes(h, soft_ram_page(s, b->gpa2), b->length - first);
    return h;
}

static void finish_block(struct translator *t)
{
    struct soft_block *b = t->block;
    struct soft *s = t->soft;

    b->code_length = (uint32_t)(t->e.p - (s->cache + b->code));
    s->code_used = ALIGN_UP((uint32_t)(t->e.p - s->cache), 16);
    t->e.p = s->cache + b->cold;
    tr_write_sites(t);
    tr_write_plains(t);
    tr_write_exits(t);
    b->cold_length = (uint32_t)(t->e.p - (s->cache + b->cold));
    s->cold_used = b->cold + b->cold_length;
    b->records = tr_meta(t, t->n_records * sizeof(struct soft_record));
    memcpy(b->records, t->records, t->n_records * sizeof(struct soft_record));
    b->n_records = t->n_records;
    s->meta_used = (uint32_t)(t->meta - (s->cache + CODE_SIZE));
    b->valid = true;
}

struct soft_block *soft_translate_block_locked(struct soft_vcpu *c, uint64_t gpa, uint32_t key, int *result)
{
    struct soft *s = c->soft;
    struct block_source src;
    struct translator t;

    src.n = 0;
    src.invalid_at_end = src.too_long = false;
    memset(&t, 0, offsetof(struct translator, sites));
    t.n_sites = t.n_records = 0;
    t.in_reg = 0xffff;
    t.soft = s;
    t.c = c;
    t.key = key;
    t.mmu = soft_key_mmu(c->key);
    t.bits = c->key & KEY_CODE64 ? 64 : c->key & KEY_CODE32 ? 32 : 16;
    t.rip = c->rip - soft_page_rip(c->key, c->rip);
    t.e.p = s->cache + s->code_used;
    t.meta = s->cache + CODE_SIZE + s->meta_used;
    t.fpu_loaded = t.x87_noted = t.ended = false;
    t.return_point = NULL;
    struct soft_block *b = t.block = &s->blocks[s->n_blocks];
    *b = (struct soft_block){.rip = t.rip,
                             .cs_base = t.bits == 64 ? 0 : (uint32_t)c->seg[CPU_CS].base,
                             .gpa = gpa,
                             .gpa2 = NO_PAGE,
                             .key = key,
                             .code = s->code_used,
                             .cold = s->cold_used};
    if (!soft_cache_mark_page_locked(s, c, gpa)) {
        *result = soft_raise_error(c, VEC_GP, 0); /* code outside RAM */
        return NULL;
    }
    *result = read_source(&t, &src, gpa);
    if (*result != SOFT_NEXT)
        return NULL;
    count_uses(&t, &src);
    tr_find_groups(&t, src.insns, src.n);
    bool shadow = false, polled = false;
    for (unsigned n = 0; n < src.n && !t.ended; n++) {
        t.d = &src.insns[n];
        t.n = n;
        b->length = (uint16_t)(b->length + t.d->z.length);
        if (shadow)
            emit_store_imm(&t.e, FIELD(shadow), 0);
        shadow = makes_shadow(t.d);
        translate_insn(&t);
        polled = n > 0 && makes_shadow(&src.insns[n - 1]);
    }
    if (!t.ended && src.invalid_at_end) {
        t.d = &src.insns[src.n];
        b->length = (uint16_t)(b->length + 15);
        raise_always(&t, src.too_long ? raise_gp : raise_ud);
    }
    if (!t.ended) {
        uint64_t next = tr_next_rip(&t);
        if ((t.key & (KEY_STEP | KEY_ONE | KEY_DEBUG)) || shadow)
            tr_exit_next(&t, next);
        else if (polled)
            tr_exit_polled(&t, next);
        else
            tr_exit_direct(&t, next);
    }
    finish_block(&t);
    b->source_hash = soft_block_hash(s, b);
    s->n_blocks++;
    soft_cache_insert_locked(s, b);
    return b;
}

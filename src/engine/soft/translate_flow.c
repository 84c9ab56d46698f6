/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Leaving a block, and the near control transfers and stack instructions of 64-bit code, and of 32-bit code
 * in flat segments. (Otherwise handlers in C do these.)
 *
 * A direct branch within its page is a jump that is linked to its target's block once that exists: the
 * mapping of the page held when the block was entered, so it holds for the target. All others look in the
 * vCPU's jump cache, which is emptied with the TLB. Backward branches and look-ups poll for interrupts.
 */
#include "engine/soft/translate_priv.h"

/* Bytes of an address, and of what is pushed and popped. */
static unsigned slot(const struct translator *t)
{
    return t->bits == 64 ? 8 : 4;
}

/* 64-bit mode, or flat segments that make 32-bit code just as simple. */
static bool is_simple(const struct translator *t)
{
    const uint32_t flat = KEY_PROTECTED | KEY_FLAT | KEY_STACK32;

    return t->bits == 64 || (t->bits == 32 && (t->key & flat) == flat);
}

static void go(struct translator *t, const uint8_t *stub)
{
    emit_jmp(&t->e, stub);
}

/* The ways out of a block want the guest's RCX in its slot: then the register is free, and mostly it is there
 * already. */
static void put_rcx(struct translator *t)
{
    if (!(t->in_slot & BIT(CPU_RCX)))
        emit_store(&t->e, GPR(CPU_RCX), CPU_RCX);
}

/* Put an address in vcpu->rip; may use RCX, whose guest value must be in its slot already. */
static void store_rip(struct translator *t, uint64_t rip)
{
    if (!soft_key_moves(t->key) && (uint64_t)(int64_t)(int32_t)rip == rip) {
        emit_store_imm(&t->e, FIELD(rip), (int32_t)rip);
        return;
    }
    tr_emit_rip(t, CPU_RCX, rip);
    emit_store(&t->e, FIELD(rip), CPU_RCX);
}

static void exit_next(struct translator *t, uint64_t target)
{
    put_rcx(t);
    store_rip(t, target);
    emit_load(&t->e, CPU_RCX, GPR(CPU_RCX));
    go(t, t->soft->stubs.exit_next);
}

void tr_exit_next(struct translator *t, uint64_t target)
{
    tr_need_all(t, 0xffff);
    exit_next(t, target);
    t->ended = true;
}

static void go_lookup(struct translator *t)
{
    go(t, soft_key_moves(t->key) ? t->soft->stubs.lookup_moves : t->soft->stubs.lookup[t->mmu]);
}

static void go_return(struct translator *t)
{
    go(t, soft_key_moves(t->key) ? t->soft->stubs.lookup_return_moves : t->soft->stubs.lookup_return[t->mmu]);
}

/* All registers are in place but RCX, which is in its slot; vcpu->rip holds the target. */
static void exit_lookup(struct translator *t, struct soft_exit *x, bool returns)
{
    if (t->key & (KEY_STEP | KEY_ONE | KEY_DEBUG)) {
        emit_load(&t->e, CPU_RCX, GPR(CPU_RCX));
        go(t, t->soft->stubs.exit_next);
        return;
    }
    emit_lea_rip(&t->e, CPU_RCX, x);
    if (returns)
        go_return(t);
    else
        go_lookup(t);
}

static struct soft_exit *new_exit(struct translator *t, uint64_t target, uint8_t kind)
{
    struct soft_exit *x = tr_meta(t, sizeof(*x));

    *x = (struct soft_exit){.target = target, .kind = kind};
    return x;
}

static struct soft_link *new_link(struct translator *t, uint64_t target, uint8_t kind)
{
    struct soft_link *x = tr_meta(t, sizeof(*x));

    *x = (struct soft_link){.exit = {.target = target, .kind = kind},
                            .from = (uint32_t)(t->block - t->soft->blocks)};
    return x;
}

static bool same_page(const struct translator *t, uint64_t target)
{
    uint64_t base = t->block->cs_base;

    return ((t->rip + base) ^ (target + base)) < 4096 && t->block->gpa2 == NO_PAGE;
}

/*
 * To an address that no link may remember; registers are in place, but for RCX, which may be in its slot
 * only. Where the address is a constant, so is its place in the jump cache. `poll`: look for interrupts
 * first.
 */
static void exit_far(struct translator *t, uint64_t target, enum soft_mmu mmu, bool poll)
{
    struct emitter *e = &t->e;
    struct soft_exit *x = new_exit(t, target, EXIT_KIND_FAR_PAGE);
    const int32_t entry = FIELD(jump[mmu].at[0]) + 16 * (int32_t)soft_jump_index(target);

    put_rcx(t);
    if (soft_key_moves(t->key) || (uint64_t)(int64_t)(int32_t)target != target) {
        emit_lea_rip(e, CPU_RCX, x);
        go(t, soft_key_moves(t->key) ? t->soft->stubs.lookup_exit_moves : t->soft->stubs.lookup_exit[mmu]);
        return;
    }
    struct pending_exit *p = &t->exits[t->n_exits++];
    *p = (struct pending_exit){.exit = x};
    if (poll) {
        emit_load(e, CPU_RCX, FIELD(pending));
        emit_jrcxz(e, 5);
        p->poll = emit_jmp_later(e);
    }
    emit_load(e, CPU_RCX, entry);
    emit_add_imm(e, CPU_RCX, (int32_t)target);
    emit_jrcxz(e, 5);
    p->jump = emit_jmp_later(e);
    emit_load(e, CPU_RCX, GPR(CPU_RCX));
    emit_jmp_gs(e, entry + 8);
}

/* Displacements that are changed while other vCPUs run through them are aligned: so each is in one store. */
static uint8_t *emit_jmp_to_patch(struct translator *t)
{
    while (((uintptr_t)t->e.p + 1) & 3)
        emit1(&t->e, 0x90);
    return emit_jmp_later(&t->e);
}

/* A jump that can be linked. `poll`: another jump to the unlinked way out, where RCX is in its slot already.
 */
static void emit_link(struct translator *t, struct soft_link *x, uint8_t *poll)
{
    uint8_t *patch = emit_jmp_to_patch(t);

    x->patch = (uint32_t)(patch - t->soft->cache);
    t->exits[t->n_exits++] = (struct pending_exit){
        .exit = &x->exit, .jump = patch, .poll = poll, .put_rcx = !(t->in_slot & BIT(CPU_RCX))};
    x->next_outgoing = t->block->exits;
    t->block->exits = soft_link_offset(t->soft, x);
}

static void write_unlinked(struct translator *t, const struct pending_exit *p)
{
    struct soft_link *x = (struct soft_link *)p->exit;

    x->unlinked = (uint32_t)(t->e.p - t->soft->cache);
    if (p->put_rcx)
        emit_store(&t->e, GPR(CPU_RCX), CPU_RCX);
    if (p->poll)
        emit_rel32_at(p->poll, t->e.p);
    emit_lea_rip(&t->e, CPU_RCX, x);
    uint8_t *leave = emit_jmp_to_patch(t);
    emit_rel32_at(leave, t->soft->stubs.exit_link);
    if (x->exit.kind == EXIT_KIND_DIRECT)
        x->exit.leave = (uint8_t)(leave - (t->soft->cache + x->unlinked));
}

void tr_write_exits(struct translator *t)
{
    for (unsigned n = 0; n < t->n_exits; n++) {
        const struct pending_exit *p = &t->exits[n];

        emit_rel32_at(p->jump, t->e.p);
        if (p->exit->kind != EXIT_KIND_FAR_PAGE) {
            write_unlinked(t, p);
            continue;
        }
        if (p->poll)
            emit_rel32_at(p->poll, t->e.p);
        emit_lea_rip(&t->e, CPU_RCX, p->exit);
        go(t, t->soft->stubs.exit_target);
    }
}

/* The jump to `target`; registers are in place. Nothing here touches flags. */
static void exit_to(struct translator *t, uint64_t target)
{
    struct emitter *e = &t->e;

    bool back = target <= t->d->rip;

    if (t->key & (KEY_STEP | KEY_ONE | KEY_DEBUG)) {
        exit_next(t, target);
        return;
    }
    if (!same_page(t, target)) {
        exit_far(t, target, t->mmu, back);
        return;
    }
    struct soft_link *x = new_link(t, target, EXIT_KIND_DIRECT);
    uint8_t *poll = NULL;
    if (back) {
        put_rcx(t);
        emit_load(e, CPU_RCX, FIELD(pending));
        emit_jrcxz(e, 5);
        poll = emit_jmp_later(e);
        emit_load(e, CPU_RCX, GPR(CPU_RCX));
    }
    emit_link(t, x, poll);
}

void tr_exit_plain(struct translator *t, uint64_t rip)
{
    emit_link(t, new_link(t, rip, EXIT_KIND_PLAIN), NULL);
}

void tr_exit_polled(struct translator *t, uint64_t target)
{
    tr_need_all(t, 0xffff);
    exit_far(t, target, t->mmu, true);
    t->ended = true;
}

void tr_exit_mmu(struct translator *t, uint64_t target, enum soft_mmu mmu)
{
    tr_need_all(t, 0xffff & ~BIT(CPU_RCX));
    exit_far(t, target, mmu, false);
    t->ended = true;
}

void tr_exit_direct(struct translator *t, uint64_t target)
{
    bool far = !(t->key & (KEY_STEP | KEY_ONE | KEY_DEBUG)) && !same_page(t, target);

    tr_need_all(t, far ? 0xffff & ~BIT(CPU_RCX) : 0xffff);
    exit_to(t, target);
    t->ended = true;
}

/* ---- branches ---- */

static uint64_t branch_target(const struct translator *t)
{
    return tr_truncate(t, t->d->rip + t->d->z.length + (uint64_t)t->d->z.raw.imm[0].value.s);
}

/* Jcc rel32 over the exit of the branch not taken. */
static void conditional(struct translator *t)
{
    struct emitter *e = &t->e;

    tr_need_all(t, 0xffff);
    emit1(e, 0x0f);
    emit1(e, 0x80 | (t->d->z.opcode & 15));
    uint8_t *taken = e->p;
    e->p += 4;
    exit_to(t, tr_next_rip(t));
    emit_rel32_at(taken, e->p);
    exit_to(t, branch_target(t));
    t->ended = true;
}

/* LOOP, LOOPE, LOOPNE, JRCXZ: the instruction itself, around two exits. */
static void count_branch(struct translator *t)
{
    struct emitter *e = &t->e;

    tr_need_all(t, 0xffff);
    if (t->d->z.address_width == 32)
        emit1(e, 0x67);
    emit1(e, t->d->z.opcode);
    emit1(e, 5);
    tr_wrote(t, t->d->writes);
    uint8_t *not_taken = emit_jmp_later(e);
    exit_to(t, branch_target(t));
    emit_rel32_at(not_taken, e->p);
    exit_to(t, tr_next_rip(t));
    t->ended = true;
}

/* Where a push stores. */
static struct guest_address below_stack(const struct translator *t)
{
    return (struct guest_address){.segment = CPU_SS,
                                  .base = CPU_RSP,
                                  .index = INSN_NO_REG,
                                  .scale = 1,
                                  .address_size = (uint8_t)slot(t),
                                  .disp = -(int)slot(t)};
}

/* Whether calls are to be noted for their returns: those that end a block in the page of the return address.
 */
static bool notes_returns(const struct translator *t)
{
    return t->bits == 64 && t->soft->use_pext && !(t->key & (KEY_STEP | KEY_ONE | KEY_DEBUG)) &&
           same_page(t, tr_next_rip(t));
}

/* RCX holds the return address, which has just been pushed; `s` is free. */
static void note_return(struct translator *t, unsigned s)
{
    struct emitter *e = &t->e;

    t->held[s] = 0;
    emit_pext(e, s, CPU_RSP, FIELD(return_mask));
    emit_bytes(e, "\x48\xf7\xd1", 3); /* not rcx */
    emit_store_indexed(e, FIELD(returns[t->mmu].tag), s, CPU_RCX);
    emit_lea_rip(e, CPU_RCX, e->p);
    t->return_point = e->p - 4;
    emit_store_indexed(e, FIELD(returns[t->mmu].code), s, CPU_RCX);
}

/* The code that a return comes to: a link to its address, which the mapping that the call ran under holds for
 * as long as vcpu->returns knows of it. */
static void write_return_point(struct translator *t)
{
    if (!t->return_point)
        return;
    emit_rel32_at(t->return_point, t->e.p);
    t->in_slot |= BIT(CPU_RCX);
    emit_link(t, new_link(t, tr_next_rip(t), EXIT_KIND_DIRECT), NULL);
}

/* Store a constant below RSP and move RSP. */
static void push_constant(struct translator *t, uint64_t value, bool is_rip)
{
    struct guest_address a = below_stack(t);
    struct memory_access m;

    tr_access_begin(t, &a, slot(t), SITE_WRITE | (is_rip ? SITE_LAST : 0), 0, false, &m);
    tr_take(t, CPU_RCX);
    if (is_rip)
        tr_emit_rip(t, CPU_RCX, value);
    else
        emit_mov_imm(&t->e, CPU_RCX, t->bits == 64 ? value : (uint32_t)value);
    tr_record(t);
    emit_mov_mem(&t->e, slot(t), 0x89, CPU_RCX, m.s1, m.s2, m.disp);
    emit_lea(&t->e, slot(t), CPU_RSP, CPU_RSP, 255, 1, -(int)slot(t));
    tr_access_end(t, &m);
    if (is_rip && notes_returns(t))
        note_return(t, m.s2);
}

/* Read the address or value at the instruction's memory operand into a field. */
static void read_operand(struct translator *t, int32_t field)
{
    struct guest_address a;
    struct memory_access m;

    tr_operand_address(t, &a);
    tr_access_begin(t, &a, slot(t), SITE_READ, 0, false, &m);
    tr_record(t);
    emit_mov_mem(&t->e, slot(t), 0x8b, CPU_RCX, m.s1, m.s2, m.disp);
    emit_store(&t->e, field, CPU_RCX);
    tr_access_end(t, &m);
}

static unsigned operand_register(const struct soft_decoded *d, unsigned n)
{
    return soft_registers[d->ops[n].reg.value].number;
}

/* The target of an indirect CALL or JMP to a field. */
static void fetch_target(struct translator *t, int32_t field)
{
    if (t->d->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
        read_operand(t, field);
        return;
    }
    unsigned r = operand_register(t->d, 0);
    tr_need(t, r);
    if (t->bits != 64) { /* it may have anything in its upper half */
        tr_take(t, CPU_RCX);
        emit_lea(&t->e, 4, CPU_RCX, r, 255, 1, 0);
        r = CPU_RCX;
    }
    emit_store(&t->e, field, r);
}

/* To vcpu->rip. */
static void indirect(struct translator *t, int undo_rsp, bool returns)
{
    struct soft_exit *x = new_exit(t, t->d->rip, EXIT_KIND_INDIRECT);

    x->undo_rsp = undo_rsp;
    tr_take(t, CPU_RCX);
    tr_need_all(t, 0xffff & ~BIT(CPU_RCX));
    exit_lookup(t, x, returns);
    t->ended = true;
}

static void near_return(struct translator *t)
{
    struct guest_address a = {.segment = CPU_SS,
                              .base = CPU_RSP,
                              .index = INSN_NO_REG,
                              .scale = 1,
                              .address_size = (uint8_t)slot(t)};
    struct memory_access m;
    int pop = (int)slot(t) + (t->d->z.opcode == 0xc2 ? (int)(uint16_t)t->d->z.raw.imm[0].value.u : 0);

    tr_access_begin(t, &a, slot(t), SITE_READ, 0, false, &m);
    tr_take(t, CPU_RCX);
    tr_record(t);
    emit_mov_mem(&t->e, slot(t), 0x8b, CPU_RCX, m.s1, m.s2, m.disp);
    emit_store(&t->e, FIELD(rip), CPU_RCX);
    emit_lea(&t->e, slot(t), CPU_RSP, CPU_RSP, 255, 1, pop);
    tr_access_end(t, &m);
    indirect(t, -pop, t->bits == 64 && pop == 8);
}

static bool is_far(const struct soft_decoded *d)
{
    return d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

bool tr_flow(struct translator *t)
{
    const struct soft_decoded *d = t->d;

    /* Branches of 16 bits: with a prefix in 32-bit code, and in 64-bit code as AMD's processors have it. */
    if (!is_simple(t) || d->z.operand_width == 16)
        return false;
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
        if (is_far(d))
            return false;
        if (d->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
            tr_exit_direct(t, branch_target(t));
        } else {
            fetch_target(t, FIELD(rip));
            indirect(t, 0, false);
        }
        return true;
    case ZYDIS_MNEMONIC_CALL:
        if (is_far(d))
            return false;
        if (d->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
            push_constant(t, tr_next_rip(t), true);
            tr_exit_direct(t, branch_target(t));
        } else {
            fetch_target(t, FIELD(scratch[5]));
            push_constant(t, tr_next_rip(t), true);
            tr_take(t, CPU_RCX);
            emit_load(&t->e, CPU_RCX, FIELD(scratch[5]));
            emit_store(&t->e, FIELD(rip), CPU_RCX);
            indirect(t, (int)slot(t), false);
        }
        write_return_point(t);
        return true;
    case ZYDIS_MNEMONIC_RET:
        if (is_far(d))
            return false;
        near_return(t);
        return true;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JRCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
        if (d->z.address_width == 16)
            return false;
        count_branch(t);
        return true;
    case ZYDIS_MNEMONIC_JCXZ:
        return false;
    default:
        if (d->z.meta.category != ZYDIS_CATEGORY_COND_BR || d->z.meta.isa_ext != ZYDIS_ISA_EXT_BASE)
            return false;
        conditional(t);
        return true;
    }
}

/* ---- the stack ---- */

static void push_register(struct translator *t, unsigned r)
{
    struct guest_address a = below_stack(t);
    struct memory_access m;

    if (r != CPU_RCX)
        tr_need(t, r);
    tr_access_begin(t, &a, slot(t), SITE_WRITE, BIT(r), false, &m);
    tr_need(t, r);
    tr_record(t);
    emit_mov_mem(&t->e, slot(t), 0x89, r, m.s1, m.s2, m.disp);
    emit_lea(&t->e, slot(t), CPU_RSP, CPU_RSP, 255, 1, -(int)slot(t));
    tr_access_end(t, &m);
}

static void push_operand(struct translator *t)
{
    struct guest_address a = below_stack(t);
    struct memory_access m;

    read_operand(t, FIELD(scratch[5]));
    tr_access_begin(t, &a, slot(t), SITE_WRITE, 0, false, &m);
    emit_load(&t->e, CPU_RCX, FIELD(scratch[5]));
    tr_record(t);
    emit_mov_mem(&t->e, slot(t), 0x89, CPU_RCX, m.s1, m.s2, m.disp);
    emit_lea(&t->e, slot(t), CPU_RSP, CPU_RSP, 255, 1, -(int)slot(t));
    tr_access_end(t, &m);
}

static void pop_register(struct translator *t, unsigned r)
{
    struct guest_address a = {.segment = CPU_SS,
                              .base = CPU_RSP,
                              .index = INSN_NO_REG,
                              .scale = 1,
                              .address_size = (uint8_t)slot(t)};
    struct memory_access m;

    tr_access_begin(t, &a, slot(t), SITE_READ, BIT(r), false, &m);
    tr_record(t);
    emit_mov_mem(&t->e, slot(t), 0x8b, r, m.s1, m.s2, m.disp);
    if (r != CPU_RSP)
        emit_lea(&t->e, slot(t), CPU_RSP, CPU_RSP, 255, 1, (int)slot(t));
    tr_wrote(t, BIT(r));
    tr_access_end(t, &m);
}

/* RSP = RBP, then POP RBP; RSP changes only after the read has succeeded. */
static void leave_frame(struct translator *t)
{
    struct guest_address a = {.segment = CPU_SS,
                              .base = CPU_RBP,
                              .index = INSN_NO_REG,
                              .scale = 1,
                              .address_size = (uint8_t)slot(t)};
    struct memory_access m;

    tr_need(t, CPU_RBP);
    tr_access_begin(t, &a, slot(t), SITE_READ, BIT(CPU_RBP), false, &m);
    tr_record(t);
    emit_mov_mem(&t->e, slot(t), 0x8b, CPU_RCX, m.s1, m.s2, m.disp);
    emit_lea(&t->e, slot(t), CPU_RSP, CPU_RBP, 255, 1, (int)slot(t));
    emit_mov_reg(&t->e, CPU_RBP, CPU_RCX);
    tr_wrote(t, BIT(CPU_RBP));
    tr_access_end(t, &m);
}

bool tr_stack(struct translator *t)
{
    const struct soft_decoded *d = t->d;
    bool is_register = d->z.operand_count_visible && d->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER;

    if (!is_simple(t) || d->z.operand_width != 8 * slot(t))
        return false;
    if (is_register && soft_registers[d->ops[0].reg.value].bits != (t->bits == 64 ? 64 : 32))
        return false;
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        if (is_register)
            push_register(t, operand_register(d, 0));
        else if (d->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            push_constant(t, (uint64_t)d->z.raw.imm[0].value.s, false);
        else
            push_operand(t);
        return true;
    case ZYDIS_MNEMONIC_POP:
        if (!is_register)
            return false; /* the address may depend on the RSP after the pop: in C */
        pop_register(t, operand_register(d, 0));
        return true;
    case ZYDIS_MNEMONIC_LEAVE:
        leave_frame(t);
        return true;
    default:
        return false;
    }
}

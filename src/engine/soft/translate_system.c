/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a kernel executes all the time: interrupts off and on, the flags to the stack, its own gs base, user
 * memory opened and closed, the time. Emitted where the handlers in C would find nothing to check.
 */
#include "engine/soft/translate_priv.h"

/* Without CPL 0, IOPL and more decide. */
static bool is_kernel(const struct translator *t)
{
    return !(t->key & KEY_CPL);
}

/* What has waited for RFLAGS.IF comes in at the next look at `pending`. */
static void set_iflag(struct translator *t)
{
    struct emitter *e = &t->e;

    tr_take(t, CPU_RCX);
    emit_load(e, CPU_RCX, FIELD(iflag));
    emit_jrcxz(e, 2);
    emit_bytes(e, "\xeb\x0d", 2); /* jmp over the store: no shadow if interrupts were on */
    emit_store_imm(e, FIELD(shadow), SHADOW_STI);
    emit_store_imm(e, FIELD(iflag), FLAG_IF);
    emit_load(e, CPU_RCX, FIELD(held_back));
    emit_jrcxz(e, 13);
    emit_store_imm(e, FIELD(pending), 1);
}

/* The host's own flags are pushed on this thread's stack. What they have that the guest's have not is the
 * same all the time. */
static void push_flags(struct translator *t)
{
    struct emitter *e = &t->e;
    struct guest_address a = {
        .segment = CPU_SS, .base = CPU_RSP, .index = INSN_NO_REG, .scale = 1, .address_size = 8, .disp = -8};
    struct memory_access m;

    tr_access_begin(t, &a, 8, SITE_WRITE, 0, false, &m);
    tr_take(t, CPU_RCX);
    emit_store(e, GPR(CPU_RSP), CPU_RSP);
    emit_load(e, CPU_RSP, FIELD(host_rsp));
    emit_bytes(e, "\x9c\x59", 2); /* pushfq; pop rcx */
    emit_load(e, CPU_RSP, FIELD(sysflags));
    emit_lea(e, 8, CPU_RCX, CPU_RSP, CPU_RCX, 1, 2 - (int32_t)t->soft->host_flags);
    emit_load(e, CPU_RSP, FIELD(iflag));
    emit_lea(e, 8, CPU_RCX, CPU_RSP, CPU_RCX, 1, 0);
    emit_load(e, CPU_RSP, GPR(CPU_RSP));
    tr_record(t);
    emit_mov_mem(e, 8, 0x89, CPU_RCX, m.s1, m.s2, m.disp);
    emit_lea(e, 8, CPU_RSP, CPU_RSP, 255, 1, -8);
    tr_access_end(t, &m);
}

static void swap_gs(struct translator *t)
{
    const int32_t base = FIELD(seg) + (int32_t)sizeof(struct cpu_segment_state) * CPU_GS;
    struct emitter *e = &t->e;

    unsigned s = tr_scratch(t, 0, false);
    tr_take(t, CPU_RCX);
    emit_load(e, CPU_RCX, base);
    emit_load(e, s, FIELD(kernel_gs_base));
    emit_store(e, FIELD(kernel_gs_base), CPU_RCX);
    emit_store(e, base, s);
}

static void read_time(struct translator *t, bool with_aux)
{
    struct emitter *e = &t->e;

    if (!with_aux)
        tr_take(t, CPU_RCX);
    if (with_aux)
        emit_bytes(e, "\x0f\x01\xf9", 3); /* rdtscp, which waits for what comes before it */
    else
        emit_bytes(e, "\x0f\x31", 2); /* rdtsc */
    emit_swap_halves(e, CPU_RCX, CPU_RDX);
    emit_lea(e, 8, CPU_RAX, CPU_RAX, CPU_RCX, 1, 0);
    emit_load(e, CPU_RCX, FIELD(tsc_offset));
    emit_lea(e, 8, CPU_RAX, CPU_RAX, CPU_RCX, 1, 0);
    emit_swap_halves(e, CPU_RDX, CPU_RAX);
    emit_zero_upper(e, CPU_RDX);
    emit_zero_upper(e, CPU_RAX);
    tr_wrote(t, BIT(CPU_RAX) | BIT(CPU_RDX));
    if (!with_aux)
        return;
    emit_load(e, CPU_RCX, FIELD(tsc_aux));
    emit_zero_upper(e, CPU_RCX);
    tr_wrote(t, BIT(CPU_RCX));
}

/* STAC and CLAC where the MMU's mode tells what RFLAGS.AC is. */
static bool opens(const struct soft_decoded *d)
{
    return d->z.mnemonic == ZYDIS_MNEMONIC_STAC;
}

static void change_ac(struct translator *t)
{
    struct emitter *e = &t->e;
    bool open = opens(t->d);
    enum soft_mmu mmu = open ? MMU_KERNEL_AC : MMU_KERNEL;

    tr_take(t, CPU_RCX);
    emit_load(e, CPU_RCX, FIELD(sysflags));
    emit_lea(e, 8, CPU_RCX, CPU_RCX, 255, 1, open ? (int32_t)FLAG_AC : -(int32_t)FLAG_AC);
    emit_store(e, FIELD(sysflags), CPU_RCX);
    emit_store_imm32(e, FIELD(key), (t->key & ~(KEY_MMU | KEY_PLAIN)) | (uint32_t)mmu << KEY_MMU_SHIFT);
    tr_exit_mmu(t, tr_next_rip(t), mmu);
}

/* MOV from CR0, CR2, CR3 or CR4. */
static bool reads_cr(const struct soft_decoded *d)
{
    const ZydisDecodedOperand *from = &d->ops[1];

    return from->type == ZYDIS_OPERAND_TYPE_REGISTER &&
           (from->reg.value == ZYDIS_REGISTER_CR0 || from->reg.value == ZYDIS_REGISTER_CR2 ||
            from->reg.value == ZYDIS_REGISTER_CR3 || from->reg.value == ZYDIS_REGISTER_CR4);
}

/* MOV from a segment register to a general one of more than 16 bits. */
static bool reads_segment(const struct soft_decoded *d)
{
    return d->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER && soft_registers[d->ops[0].reg.value].bits >= 32 &&
           d->ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           soft_registers[d->ops[1].reg.value].class == ZYDIS_REGCLASS_SEGMENT;
}

static void read_segment(struct translator *t)
{
    unsigned to = soft_registers[t->d->ops[0].reg.value].number;
    int32_t seg = (int32_t)sizeof(struct cpu_segment_state) * soft_registers[t->d->ops[1].reg.value].number;

    emit_load16(&t->e, to, FIELD(seg[0].selector) + seg);
    tr_wrote(t, BIT(to));
}

static void read_cr(struct translator *t)
{
    static const int32_t fields[] = {FIELD(cr0), FIELD(cr0), FIELD(cr2), FIELD(cr3), FIELD(cr4)};
    unsigned to = soft_registers[t->d->ops[0].reg.value].number;

    emit_load(&t->e, to, fields[t->d->ops[1].reg.value - ZYDIS_REGISTER_CR0]);
    tr_wrote(t, BIT(to));
}

enum tr_emitted tr_emitted(const struct translator *t, const struct soft_decoded *d)
{
    bool whole = t->bits == 64 && d->z.operand_width == 64;

    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
        return is_kernel(t) ? EMITTED : NOT_EMITTED;
    case ZYDIS_MNEMONIC_SWAPGS:
        return is_kernel(t) && t->bits == 64 ? EMITTED : NOT_EMITTED;
    case ZYDIS_MNEMONIC_PUSHFQ:
        return whole ? EMITTED : NOT_EMITTED;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
        return t->soft->use_pext && !(t->key & KEY_NO_RDTSC) ? EMITTED : NOT_EMITTED;
    case ZYDIS_MNEMONIC_CLD:
        return t->key & KEY_DF ? NOT_EMITTED : EMITTED;
    case ZYDIS_MNEMONIC_STD:
        return t->key & KEY_DF ? EMITTED : NOT_EMITTED;
    case ZYDIS_MNEMONIC_MOV:
        return t->bits == 64 && ((reads_cr(d) && is_kernel(t)) || reads_segment(d)) ? EMITTED : NOT_EMITTED;
    case ZYDIS_MNEMONIC_SERIALIZE:
        return t->key & (KEY_STEP | KEY_ONE | KEY_DEBUG) ? NOT_EMITTED : EMITTED_EXIT;
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
        if (!(t->key & KEY_SMAP) || t->bits != 64 || (t->key & (KEY_STEP | KEY_ONE | KEY_DEBUG)))
            return NOT_EMITTED;
        return (t->mmu == MMU_KERNEL_AC) == opens(d) ? EMITTED : EMITTED_EXIT;
    default:
        return NOT_EMITTED;
    }
}

/* REP MOVS and STOS: by a stub, which leaves to the handler what is not simple. */
static bool repeat_string(struct translator *t)
{
    const struct soft_decoded *d = t->d;
    const uint32_t special = KEY_DF | KEY_STEP | KEY_ONE | KEY_DEBUG | KEY_AC;
    uint8_t op = d->z.opcode & 0xfe;
    unsigned size = d->z.opcode & 1 ? d->z.operand_width / 8u : 1;

    if (d->z.meta.category != ZYDIS_CATEGORY_STRINGOP || (op != 0xa4 && op != 0xaa) || t->bits != 64 ||
        d->z.address_width != 64 || !(d->z.attributes & ZYDIS_ATTRIB_HAS_REP) || (t->key & special) ||
        (d->z.attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS)) || !t->soft->use_pext)
        return false;
    enum soft_string_kind kind = op == 0xa4 ? STRING_MOVS : STRING_STOS;
    tr_call_through(t, d->row->handler, t->soft->stubs.string[kind][__builtin_ctz(size)][t->mmu]);
    t->in_reg = 0xffff;
    t->in_slot = 0;
    return true;
}

bool tr_system(struct translator *t)
{
    enum tr_emitted how = tr_emitted(t, t->d);

    if (how == NOT_EMITTED)
        return repeat_string(t);
    switch (t->d->z.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
        emit_store_imm(&t->e, FIELD(iflag), 0);
        break;
    case ZYDIS_MNEMONIC_STI:
        set_iflag(t);
        break;
    case ZYDIS_MNEMONIC_SWAPGS:
        swap_gs(t);
        break;
    case ZYDIS_MNEMONIC_PUSHFQ:
        push_flags(t);
        break;
    case ZYDIS_MNEMONIC_MOV:
        if (reads_segment(t->d))
            read_segment(t);
        else
            read_cr(t);
        break;
    case ZYDIS_MNEMONIC_SERIALIZE:
        tr_exit_polled(t, tr_next_rip(t));
        break;
    case ZYDIS_MNEMONIC_RDTSC:
        read_time(t, false);
        break;
    case ZYDIS_MNEMONIC_RDTSCP:
        read_time(t, true);
        break;
    default:
        if (how == EMITTED_EXIT)
            change_ac(t);
        break;
    }
    return true;
}

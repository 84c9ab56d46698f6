/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The common stubs at the start of the code cache: the ways into translated code, out of it, and into C in
 * between. Made once, when the engine is created; they address the running vCPU through gs and so serve all
 * of them.
 *
 * On entry to C the guest's registers are in vcpu->gpr (or host_gpr, where some of them held no guest value),
 * the flags in vcpu->flags, and the vector state in vcpu->xsave with `fpu_saved` set, unless it is there
 * already.
 */
#include "engine/soft/emit.h"
#include "engine/soft/soft_priv.h"

/* Masked exceptions, round to nearest: what C code expects. */
static const uint32_t default_mxcsr = 0x1f80;

/* All general registers but RSP to `field`, then RSP, then our own stack. */
static void save_registers(struct emitter *e, int32_t field)
{
    for (unsigned r = 0; r < CPU_GPRS; r++)
        emit_store(e, field + 8 * (int32_t)r, r);
    emit_load(e, CPU_RSP, FIELD(host_rsp));
}

static void save_flags(struct emitter *e)
{
    emit_bytes(e, "\x9c\x58\xfc\x25", 4); /* pushfq; pop rax; cld; and eax, imm32 */
    emit4(e, FLAGS_HOST);
    emit_store(e, FIELD(flags), CPU_RAX);
}

/* The guest's registers and flags, of which RCX is in its slot already. */
static void save_but_rcx(struct emitter *e)
{
    for (unsigned r = 0; r < CPU_GPRS; r++) {
        if (r != CPU_RCX)
            emit_store(e, GPR(r), r);
    }
    emit_load(e, CPU_RSP, FIELD(host_rsp));
    save_flags(e);
}

static void load_flags(struct emitter *e)
{
    emit_bytes(e, "\x65\xff\x34\x25", 4); /* push gs:[flags] */
    emit4(e, (uint32_t)FIELD(flags));
    emit1(e, 0x9d); /* popfq */
}

static void load_registers(struct emitter *e, int32_t field)
{
    for (unsigned r = 0; r < CPU_GPRS; r++) {
        if (r != CPU_RSP)
            emit_load(e, r, field + 8 * (int32_t)r);
    }
    emit_load(e, CPU_RSP, field + 8 * CPU_RSP);
}

/* xsave64/xrstor64 gs:[xsave] with the mask of x87, SSE and AVX (or fxsave64/fxrstor64); clobbers EAX and
 * EDX. */
static void move_fpu(const struct soft *s, struct emitter *e, bool save)
{
    emit_mov_imm(e, CPU_RAX, soft_xstate_components(s));
    emit_mov_imm(e, CPU_RDX, 0);
    emit_bytes(e, "\x65\x48\x0f\xae", 4);
    unsigned reg = s->have_xsave ? (save ? 4 : 5) : (save ? 0 : 1);
    emit1(e, (uint8_t)(0x04 | reg << 3));
    emit1(e, 0x25);
    emit4(e, (uint32_t)FIELD(xsave));
}

/* If the state is in the registers: save it. Clobbers RAX, RCX, RDX. */
static void save_fpu(const struct soft *s, struct emitter *e)
{
    emit_load(e, CPU_RCX, FIELD(fpu_saved));
    emit_bytes(e, "\xe3\x05", 2); /* jrcxz to the saving part */
    uint8_t *skip = emit_jmp_later(e);
    move_fpu(s, e, true);
    /* C code must not meet the guest's x87 exceptions, nor its registers in use. */
    emit_bytes(e, "\xdb\xe3", 2); /* fninit */
    if (s->have_avx)
        emit_bytes(e, "\xc5\xf8\x77", 3); /* vzeroupper */
    emit_bytes(e, "\x0f\xae\x15", 3);     /* ldmxcsr [rip + rel] */
    emit_rel32_at(e->p, (const uint8_t *)s->cache);
    e->p += 4;
    emit_store_imm(e, FIELD(fpu_saved), 1);
    emit_rel32_at(skip, e->p);
}

/* mov rax, function; call rax: the C functions are further away than 2 GiB */
static void call_c(struct emitter *e, const void *function)
{
    emit_store_imm(e, FIELD(activity), ENGINE_HELPING);
    emit_mov_imm(e, CPU_RAX, (uint64_t)(uintptr_t)function);
    emit_bytes(e, "\xff\xd0", 2);
    emit_store_imm(e, FIELD(activity), ENGINE_TRANSLATED);
}

/* mov rdi, gs:[self]: the vCPU is at the gs base, of which only rdgsbase would tell; it is kept in
 * scratch[7]. */
static void load_self(struct emitter *e)
{
    emit_load(e, CPU_RDI, FIELD(scratch[7]));
}

/* Back to the C caller of `enter`, with the reason in RAX. */
static void leave(struct emitter *e)
{
    emit_store_imm(e, FIELD(activity), ENGINE_HELPING);
    emit_bytes(e, "\x48\x83\xc4\x08", 4); /* add rsp, 8 */
    emit_bytes(e, "\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5b\x5d\xc3", 11);
}

/* Save everything and return `reason` from enter. Guest registers are all in place. */
static uint8_t *generate_exit(struct soft *s, struct emitter *e, unsigned reason)
{
    uint8_t *start = e->p;

    save_registers(e, FIELD(gpr));
    save_flags(e);
    save_fpu(s, e);
    emit_mov_imm(e, CPU_RAX, reason);
    leave(e);
    return start;
}

static void generate_enter(struct soft *s, struct emitter *e)
{
    s->stubs.enter = (uint64_t(*)(struct soft_vcpu *, const void *))(uintptr_t)e->p;
    emit_bytes(e, "\x55\x53\x41\x54\x41\x55\x41\x56\x41\x57", 10); /* push rbp, rbx, r12..r15 */
    emit_bytes(e, "\x48\x83\xec\x08", 4);                          /* sub rsp, 8 */
    emit_store(e, FIELD(host_rsp), CPU_RSP);
    emit_store(e, FIELD(scratch[7]), CPU_RDI);
    emit_store(e, FIELD(scratch[6]), CPU_RSI);
    emit_store_imm(e, FIELD(activity), ENGINE_TRANSLATED);
    load_flags(e);
    load_registers(e, FIELD(gpr));
    emit_jmp_gs(e, FIELD(scratch[6]));
}

/*
 * rcx: struct soft_call; the guest's rcx is in gpr already. The FPU state is left in xsave: a block reloads
 * it before its next vector instruction.
 */
static void generate_call(struct soft *s, struct emitter *e)
{
    s->stubs.call = e->p;
    emit_store(e, FIELD(scratch[6]), CPU_RCX);
    save_but_rcx(e);
    save_fpu(s, e);
    load_self(e);
    emit_load(e, CPU_RSI, FIELD(scratch[6]));
    call_c(e, (const void *)soft_call_handler);
    emit_bytes(e, "\x85\xc0\x74", 3); /* test eax, eax; jz on */
    uint8_t *on = e->p++;
    leave(e);
    *on = (uint8_t)(e->p - (on + 1));
    load_flags(e);
    load_registers(e, FIELD(gpr));
    emit_jmp_gs(e, FIELD(resume));
}

/* rcx: struct soft_site. Calls C, then goes on at c->resume with all registers of host_gpr and the FPU as it
 * was. */
static uint8_t *generate_slow(struct soft *s, struct emitter *e, const void *fast, const void *function,
                              bool rcx_in_scratch)
{
    uint8_t *start = e->p, *quick = NULL;

    emit_store(e, FIELD(slow_site), CPU_RCX);
    if (rcx_in_scratch)
        emit_load(e, CPU_RCX, FIELD(scratch[0]));
    save_registers(e, FIELD(host_gpr));
    save_flags(e);
    if (fast) {
        load_self(e);
        emit_load(e, CPU_RSI, FIELD(slow_site));
        call_c(e, fast);
        emit_bytes(e, "\x85\xc0\x0f\x84", 4); /* test eax, eax; jz done */
        quick = e->p;
        e->p += 4;
    }
    emit_bytes(e, "\x48\x83\xec\x10", 4); /* sub rsp, 16 */
    emit_load(e, CPU_RAX, FIELD(fpu_saved));
    emit_bytes(e, "\x48\x89\x04\x24", 4); /* mov [rsp], rax */
    save_fpu(s, e);
    load_self(e);
    emit_load(e, CPU_RSI, FIELD(slow_site));
    call_c(e, function);
    emit_bytes(e, "\x48\x8b\x0c\x24", 4); /* mov rcx, [rsp] */
    emit_bytes(e, "\x48\x83\xc4\x10", 4); /* add rsp, 16 */
    emit_bytes(e, "\x85\xc0\x74", 3);     /* test eax, eax; jz on */
    uint8_t *on = e->p++;
    leave(e);
    *on = (uint8_t)(e->p - (on + 1));
    emit_bytes(e, "\xe3\x05", 2); /* jrcxz: it was in the registers */
    uint8_t *skip = emit_jmp_later(e);
    move_fpu(s, e, false);
    emit_store_imm(e, FIELD(fpu_saved), 0);
    emit_rel32_at(skip, e->p);
    if (quick)
        emit_rel32_at(quick, e->p);
    load_flags(e);
    load_registers(e, FIELD(host_gpr));
    emit_jmp_gs(e, FIELD(resume));
    return start;
}

/* Guest's RCX in its slot, the struct soft_call in STRING_CALL, and in RCX where to go on if the TLB has got
 * something; else in the handler. Either way with the call in RCX and all other registers as they were. */
static void generate_string_fill(struct soft *s, struct emitter *e)
{
    s->stubs.string_fill = e->p;
    emit_store(e, FIELD(resume), CPU_RCX);
    save_but_rcx(e);
    load_self(e);
    emit_load(e, CPU_RSI, STRING_CALL);
    call_c(e, (const void *)soft_fast_string);
    emit_bytes(e, "\x85\xc0\x74", 3); /* test eax, eax; jz on */
    uint8_t *on = e->p++;
    emit_mov_imm(e, CPU_RAX, (uint64_t)(uintptr_t)s->stubs.call);
    emit_store(e, FIELD(resume), CPU_RAX);
    *on = (uint8_t)(e->p - (on + 1));
    load_flags(e);
    load_registers(e, FIELD(gpr));
    emit_load(e, CPU_RCX, STRING_CALL);
    emit_jmp_gs(e, FIELD(resume));
}

/* rcx: where to go on. RAX and RDX are saved here, RCX is the caller's to restore. */
static void generate_fpu_load(struct soft *s, struct emitter *e)
{
    s->stubs.fpu_load = e->p;
    emit_store(e, FIELD(resume), CPU_RCX);
    emit_store(e, FIELD(scratch[1]), CPU_RAX);
    emit_store(e, FIELD(scratch[2]), CPU_RDX);
    move_fpu(s, e, false);
    emit_store_imm(e, FIELD(fpu_saved), 0);
    emit_load(e, CPU_RAX, FIELD(scratch[1]));
    emit_load(e, CPU_RDX, FIELD(scratch[2]));
    emit_jmp_gs(e, FIELD(resume));
}

/* Not in the jump cache: go on in the code that C finds for RIP, or leave. Guest registers are all in place.
 */
static void generate_find(struct soft *s, struct emitter *e)
{
    s->stubs.find = e->p;
    save_registers(e, FIELD(gpr));
    save_flags(e);
    load_self(e);
    call_c(e, (const void *)soft_fast_find);
    emit_store(e, FIELD(resume), CPU_RAX);
    emit_mov_reg(e, CPU_RCX, CPU_RAX);
    emit_jrcxz(e, 5);
    uint8_t *on = emit_jmp_later(e);
    save_fpu(s, e);
    emit_mov_imm(e, CPU_RAX, LEFT_LOOKUP);
    leave(e);
    emit_rel32_at(on, e->p);
    load_flags(e);
    load_registers(e, FIELD(gpr));
    emit_jmp_gs(e, FIELD(resume));
}

static void generate_exit_link(struct soft *s, struct emitter *e)
{
    s->stubs.exit_link = e->p;
    emit_store(e, FIELD(exit_link), CPU_RCX);
    emit_load(e, CPU_RCX, GPR(CPU_RCX));
    generate_exit(s, e, LEFT_LINK);
    s->stubs.exit_target = e->p;
    emit_store(e, FIELD(exit_link), CPU_RCX);
    emit_bytes(e, "\x48\x8b\x49", 3); /* mov rcx, [rcx + target] */
    emit1(e, offsetof(struct soft_exit, target));
    emit_store(e, FIELD(rip), CPU_RCX);
    emit_load(e, CPU_RCX, GPR(CPU_RCX));
    generate_find(s, e);
}

/* The index of the jump cache for the address in RAX, to RDX: soft_jump_index. */
static void emit_jump_index(const struct soft *s, struct emitter *e)
{
    if (s->use_pext) {
        emit_bytes(e, "\xc4\xe3\xfb\xf0\xd0", 5); /* rorx rdx, rax, JUMP_MIX */
        emit1(e, JUMP_MIX);
        emit_lea(e, 8, CPU_RDX, CPU_RDX, CPU_RAX, 1, 0);
        emit_pext(e, CPU_RDX, CPU_RDX, FIELD(jump_mask));
        return;
    }
    emit_flags_save(e, FIELD(scratch[4]));
    emit_load(e, CPU_RAX, FIELD(rip));
    emit_bytes(e, "\x48\x89\xc2\x48\xc1\xca", 6); /* rdx = ror(rax, JUMP_MIX) */
    emit1(e, JUMP_MIX);
    emit_bytes(e, "\x48\x01\xc2\xc1\xea\x02\x81\xe2", 8); /* edx = (rdx + rax) >> 2 & (JC_SIZE - 1) */
    emit4(e, JC_SIZE - 1);
    emit_flags_restore(e, FIELD(scratch[4]));
    emit_load(e, CPU_RAX, FIELD(rip));
}

/* page_rip for the address in RAX. Clobbers RCX. */
static void emit_page_rip(const struct soft *s, struct emitter *e)
{
    if (s->use_pext) {
        emit_pext(e, CPU_RCX, CPU_RAX, FIELD(page_mask));
        emit_bytes(e, "\xc4\xe3\xfb\xf0\xc9\x34", 6); /* rorx rcx, rcx, 64 - 12 */
    } else {
        emit_flags_save(e, FIELD(scratch[4]));
        emit_load(e, CPU_RCX, FIELD(rip));
        emit_bytes(e, "\x48\x81\xe1\x00\xf0\xff\xff", 7); /* and rcx, ~4095 */
        emit_flags_restore(e, FIELD(scratch[4]));
    }
    emit_store(e, FIELD(page_rip), CPU_RCX);
}

static void save_for_lookup(struct emitter *e)
{
    emit_store(e, FIELD(scratch[1]), CPU_RAX);
    emit_store(e, FIELD(scratch[2]), CPU_RCX);
    emit_store(e, FIELD(scratch[3]), CPU_RDX);
}

static void go_on_at_resume(struct emitter *e)
{
    emit_load(e, CPU_RAX, FIELD(scratch[1]));
    emit_load(e, CPU_RDX, FIELD(scratch[3]));
    emit_load(e, CPU_RCX, GPR(CPU_RCX));
    emit_jmp_gs(e, FIELD(resume));
}

/* A return: to `other` where it does not go back to a call that we know. That looks in the jump cache, with
 * the address in RAX; to `pending` if something else comes first. */
static uint8_t *generate_return(const struct soft *s, struct emitter *e, enum soft_mmu mmu, bool moves,
                                const uint8_t *other, const uint8_t *pending)
{
    uint8_t *start = e->p;

    save_for_lookup(e);
    emit_load(e, CPU_RCX, FIELD(pending));
    emit_jrcxz(e, 5);
    emit_jmp(e, pending);
    emit_lea(e, 8, CPU_RDX, CPU_RSP, 255, 1, -8);
    emit_pext(e, CPU_RDX, CPU_RDX, FIELD(return_mask));
    emit_load(e, CPU_RAX, FIELD(rip));
    emit_load_indexed(e, CPU_RCX, FIELD(returns[mmu].tag), CPU_RDX);
    emit_lea(e, 8, CPU_RCX, CPU_RCX, CPU_RAX, 1, 1);
    emit_jrcxz(e, 5);
    emit_jmp(e, other);
    emit_load_indexed(e, CPU_RCX, FIELD(returns[mmu].code), CPU_RDX);
    emit_jrcxz(e, 2);
    emit_bytes(e, "\xeb\x05", 2); /* jmp over the other way */
    emit_jmp(e, other);
    emit_store(e, FIELD(resume), CPU_RCX);
    if (moves)
        emit_page_rip(s, e);
    go_on_at_resume(e);
    return start;
}

/* `from_exit`: the way in for RCX's exit to its own target. `from_return`: for a return. */
static uint8_t *generate_lookup(struct soft *s, struct emitter *e, enum soft_mmu mmu, bool moves,
                                uint8_t **from_exit, uint8_t **from_return)
{
    *from_exit = e->p;
    save_for_lookup(e);
    emit_load(e, CPU_RAX, FIELD(page_rip));
    emit_bytes(e, "\x48\x8b\x51", 3); /* mov rdx, [rcx + target] */
    emit1(e, offsetof(struct soft_exit, target));
    emit_lea(e, 8, CPU_RAX, CPU_RAX, CPU_RDX, 1, 0);
    emit_store(e, FIELD(rip), CPU_RAX);
    uint8_t *on = emit_jmp_later(e);

    uint8_t *start = e->p;
    save_for_lookup(e);
    emit_load(e, CPU_RAX, FIELD(rip));
    emit_rel32_at(on, e->p);
    emit_load(e, CPU_RCX, FIELD(pending));
    emit_jrcxz(e, 5);
    uint8_t *pending = emit_jmp_later(e);
    const uint8_t *look = e->p;
    emit_jump_index(s, e);
    emit_lea(e, 8, CPU_RDX, CPU_RDX, CPU_RDX, 1, 0); /* entries of two words */
    emit_load_indexed(e, CPU_RCX, FIELD(jump[mmu].at[0].tag), CPU_RDX);
    emit_lea(e, 8, CPU_RCX, CPU_RCX, CPU_RAX, 1, 0);
    emit_jrcxz(e, 5);
    uint8_t *miss = emit_jmp_later(e);
    if (moves)
        emit_page_rip(s, e);
    emit_load_indexed(e, CPU_RAX, FIELD(jump[mmu].at[0].code), CPU_RDX);
    emit_store(e, FIELD(resume), CPU_RAX);
    go_on_at_resume(e);
    const uint8_t *out = e->p;
    emit_rel32_at(pending, out);
    emit_rel32_at(miss, out);
    emit_load(e, CPU_RCX, FIELD(scratch[2]));
    emit_store(e, FIELD(exit_link), CPU_RCX);
    emit_load(e, CPU_RAX, FIELD(scratch[1]));
    emit_load(e, CPU_RDX, FIELD(scratch[3]));
    emit_load(e, CPU_RCX, GPR(CPU_RCX));
    emit_jmp(e, s->stubs.find);
    *from_return = s->use_pext ? generate_return(s, e, mmu, moves, look, out) : start;
    return start;
}

void soft_stubs_generate(struct soft *s)
{
    struct emitter e = {s->cache};

    emit4(&e, default_mxcsr);
    e.p = s->cache + 64;
    generate_enter(s, &e);
    generate_call(s, &e);
    const uint8_t *slow =
        generate_slow(s, &e, (const void *)soft_fast_access, (const void *)soft_slow_access, false);
    for (unsigned r = 0; r < CPU_GPRS; r++) {
        s->stubs.slow[r] = e.p;
        emit_store(&e, FIELD(slow_address), r);
        emit_jmp(&e, slow);
    }
    s->stubs.post = generate_slow(s, &e, NULL, (const void *)soft_slow_post, true);
    generate_fpu_load(s, &e);
    generate_exit_link(s, &e);
    s->stubs.exit_next = generate_exit(s, &e, LEFT_NEXT);
    s->stubs.exit_fault = generate_exit(s, &e, LEFT_FAULT);
    for (unsigned mmu = 0; mmu < MMU_MODES; mmu++)
        s->stubs.lookup[mmu] = generate_lookup(s, &e, (enum soft_mmu)mmu, false, &s->stubs.lookup_exit[mmu],
                                               &s->stubs.lookup_return[mmu]);
    s->stubs.lookup_moves =
        generate_lookup(s, &e, MMU_USER, true, &s->stubs.lookup_exit_moves, &s->stubs.lookup_return_moves);
    generate_string_fill(s, &e);
    soft_stubs_generate_strings(s, &e);
    s->code_start = (uint32_t)((e.p - s->cache + 63) & ~63);
}

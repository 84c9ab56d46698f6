/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sequences of instructions, executed as translated blocks: data flow, flags that live across memory accesses
 * and branches, loops, calls, indirect jumps, faults in the middle.
 *
 * Some registers keep pointers into the data, so that most memory operands are good ones; a counter ends the
 * loops. Flags that the manual leaves undefined are followed along the code: nothing that would read them is
 * generated, and they are not compared.
 */
#include "diff_run.h"

#include <inttypes.h>
#include <string.h>

#define MAX_ITEMS 24
#define MAX_BYTES 512
#define INPUTS    6

#define FLAGS_ALL 0x8d5u

struct item {
    struct diff_insn insn;
    uint64_t offset;       /* from the first */
    uint32_t undefined_in; /* flags before it */
    bool memory_on_fault, x87_on_fault, mxcsr_on_fault, cr2, stack_or_gp, order;
    bool inside; /* not to be jumped to */
};

struct sequence {
    struct item item[MAX_ITEMS + 8];
    unsigned n, bits;
    uint64_t start, length; /* address, bytes */
    uint8_t code[MAX_BYTES + 64];
    uint32_t undefined;            /* flags after the last item */
    uint32_t join[MAX_ITEMS + 16]; /* flags that a forward branch to item n leaves undefined */
    /* Forward branches that wait for their target's address. */
    struct {
        unsigned from, to;
    } forward[8];
    unsigned n_forward;
};

/* RBX, RSP, RBP and RSI point to data; R15 (EDI in 32-bit code) counts. */
static uint32_t reserved_registers(unsigned bits)
{
    return 1u << CPU_RBX | 1u << CPU_RSP | 1u << CPU_RBP | 1u << CPU_RSI |
           (bits == 64 ? 1u << CPU_R15 : 1u << CPU_RDI);
}

/* ---- choosing instructions ---- */

static bool wanted_extension(ZydisISAExt ext)
{
    switch (ext) {
    case ZYDIS_ISA_EXT_BASE:
    case ZYDIS_ISA_EXT_LONGMODE:
    case ZYDIS_ISA_EXT_X87:
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_SSE4:
    case ZYDIS_ISA_EXT_AVX:
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_AVX2GATHER:
    case ZYDIS_ISA_EXT_FMA:
    case ZYDIS_ISA_EXT_BMI1:
    case ZYDIS_ISA_EXT_BMI2:
    case ZYDIS_ISA_EXT_LZCNT:
    case ZYDIS_ISA_EXT_MOVBE:
    case ZYDIS_ISA_EXT_ADOX_ADCX:
        return true;
    default:
        return false;
    }
}

/* What ends a sequence for sure, changes the mode, or stores what is not compared. */
static bool unwanted(const struct diff_insn *i)
{
    switch (i->z.meta.category) {
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_SEGOP:
        return true;
    default:
        break;
    }
    switch (i->z.mnemonic) {
    case ZYDIS_MNEMONIC_POPF: /* TF and AC */
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_FNSTENV: /* the x87 pointers */
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_LEAVE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_HLT:
        return true;
    default:
        return false;
    }
}

static bool is_repeated(const struct diff_insn *i)
{
    return i->z.attributes &
           (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE | ZYDIS_ATTRIB_HAS_REPNZ);
}

static bool writes_reserved(const struct diff_insn *i)
{
    uint32_t keep = reserved_registers(i->bits);
    bool stack = i->z.meta.category == ZYDIS_CATEGORY_PUSH || i->z.meta.category == ZYDIS_CATEGORY_POP;

    for (unsigned n = 0; n < i->z.operand_count; n++) {
        const ZydisDecodedOperand *o = &i->op[n];
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, o->reg.value);
        if (full >= ZYDIS_REGISTER_ES && full <= ZYDIS_REGISTER_GS)
            return true;
        if (full < ZYDIS_REGISTER_RAX || full > ZYDIS_REGISTER_R15)
            continue;
        if (full == ZYDIS_REGISTER_RSP && stack && o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
            continue;
        if (keep >> (full - ZYDIS_REGISTER_RAX) & 1)
            return true;
    }
    return false;
}

/* See mask_bad_store in input.c: only where the operand is a good one for sure. */
static bool risky_store(const struct diff_insn *i)
{
    const ZydisDecodedOperand *o = &i->op[0];

    if ((i->z.meta.isa_ext != ZYDIS_ISA_EXT_X87 && i->z.mnemonic != ZYDIS_MNEMONIC_FISTTP &&
         i->z.mnemonic != ZYDIS_MNEMONIC_VCVTPS2PH) ||
        o->type != ZYDIS_OPERAND_TYPE_MEMORY || !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
        return false;
    ZydisRegister base = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, o->mem.base);
    return i->z.address_width != i->bits || o->mem.index != ZYDIS_REGISTER_NONE || i->z.raw.disp.size != 8 ||
           o->mem.segment == ZYDIS_REGISTER_CS || o->mem.segment == ZYDIS_REGISTER_FS ||
           o->mem.segment == ZYDIS_REGISTER_GS || (base != ZYDIS_REGISTER_RBX && base != ZYDIS_REGISTER_RBP);
}

/* For any input: shifts by CL may be by anything. */
static bool undefined_by_any_input(const struct diff_insn *i, struct diff_undefined *u)
{
    static struct diff_state in;

    memset(u, 0, sizeof(*u));
    for (unsigned count = 1; count < 64; count += 15) { /* 1, 16, 31, 46, 61 */
        struct diff_undefined one;
        in.gpr[CPU_RCX] = count;
        diff_undefined(i, &in, &one);
        u->flags |= one.flags;
        u->gprs |= one.gprs;
        u->memory |= one.memory;
        u->memory_on_fault |= one.memory_on_fault;
        u->x87_on_fault |= one.x87_on_fault;
        u->stack_or_gp |= one.stack_or_gp;
        u->cr2 |= one.cr2;
        u->mxcsr_on_fault |= one.mxcsr_on_fault;
        u->order |= one.order;
    }
    return u->gprs || u->memory;
}

static uint32_t flags_read(const struct diff_insn *i)
{
    return i->z.cpu_flags ? i->z.cpu_flags->tested : 0;
}

static uint32_t flags_defined(const struct diff_insn *i, const struct diff_undefined *u)
{
    const ZydisAccessedFlags *f = i->z.cpu_flags;

    /* A shift by a count of zero changes none. */
    if (!f || i->z.meta.category == ZYDIS_CATEGORY_SHIFT || i->z.meta.category == ZYDIS_CATEGORY_ROTATE ||
        is_repeated(i))
        return 0;
    return (f->modified | f->set_0 | f->set_1) & ~(uint32_t)u->flags;
}

/* ---- building ---- */

static uint64_t end_of(const struct sequence *q)
{
    return q->start + q->length;
}

static bool append(struct sequence *q, const struct diff_insn *i)
{
    struct item *t = &q->item[q->n];
    struct diff_undefined u;

    q->undefined |= q->join[q->n];
    if (q->length + i->length > MAX_BYTES)
        return false;
    undefined_by_any_input(i, &u);
    t->insn = *i;
    t->offset = q->length;
    t->undefined_in = q->undefined;
    t->memory_on_fault = u.memory_on_fault;
    t->x87_on_fault = u.x87_on_fault;
    t->stack_or_gp = u.stack_or_gp;
    t->cr2 = u.cr2;
    t->mxcsr_on_fault = u.mxcsr_on_fault;
    t->order = u.order;
    memcpy(q->code + q->length, i->bytes, i->length);
    q->length += i->length;
    q->undefined = (q->undefined & ~flags_defined(i, &u)) | (uint32_t)u.flags;
    q->n++;
    return true;
}

static bool append_bytes(struct sequence *q, const uint8_t *bytes, unsigned len)
{
    struct diff_insn i;

    memset(i.bytes, DIFF_FILLER, sizeof(i.bytes));
    memcpy(i.bytes, bytes, len);
    i.rip = end_of(q);
    if (!diff_decode(&i, i.bytes, len, q->bits) || i.z.length != len)
        return false;
    i.length = (uint8_t)len;
    return append(q, &i);
}

static bool add_random(struct sequence *q, struct diff_run *run, struct diff_random *r)
{
    struct diff_insn i;
    struct diff_undefined u;
    uint32_t undefined = q->undefined | q->join[q->n];

    for (unsigned attempt = 0; attempt < 60; attempt++) {
        struct diff_class *c = &run->classes.class[diff_below(r, run->classes.n_valid)];
        if (!diff_insn_make(r, c, q->bits, end_of(q), diff_chance(r, 95), &i) || !i.valid)
            continue;
        if (!wanted_extension(i.z.meta.isa_ext) || unwanted(&i) || undefined_by_any_input(&i, &u) ||
            (flags_read(&i) & undefined))
            continue;
        if (writes_reserved(&i) || risky_store(&i))
            continue;
        if ((is_repeated(&i) || i.z.meta.category == ZYDIS_CATEGORY_STRINGOP) && !diff_chance(r, 15))
            continue;
        /* Illegal LOCK, and operands that need luck to be aligned, end most sequences too early. */
        if ((i.z.attributes & ZYDIS_ATTRIB_HAS_LOCK) && i.op[0].type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        c->executed++;
        run->counts.mnemonic[i.z.mnemonic]++;
        return append(q, &i);
    }
    return false;
}

/* A branch over the next few items. */
static bool add_forward(struct sequence *q, struct diff_random *r)
{
    uint8_t bytes[6] = {0, 0, 0, 0, 0, 0};
    unsigned len, over = 1 + diff_below(r, 3);
    struct diff_insn i;

    if (q->n_forward == sizeof(q->forward) / sizeof(q->forward[0]))
        return true;
    switch (diff_below(r, 6)) {
    case 0:
        bytes[0] = 0xe9;
        len = 5;
        break;
    case 1:
        bytes[0] = diff_chance(r, 50) ? 0xe3 : 0xe2; /* JRCXZ, LOOP */
        len = 2;
        break;
    case 2:
    case 3:
        bytes[0] = (uint8_t)(0x70 | diff_below(r, 16));
        len = 2;
        break;
    default:
        bytes[0] = 0x0f;
        bytes[1] = (uint8_t)(0x80 | diff_below(r, 16));
        len = 6;
    }
    if (!diff_decode(&i, bytes, len, q->bits) || (flags_read(&i) & (q->undefined | q->join[q->n])))
        return true;
    q->forward[q->n_forward].from = q->n;
    q->forward[q->n_forward].to = q->n + 1 + over;
    q->n_forward++;
    uint32_t flags = q->undefined | q->join[q->n];
    q->join[q->n + 1 + over] |= flags;
    return append_bytes(q, bytes, len);
}

/* The next `n` items belong together: nothing may jump into their midst, which could be a loop without end.
 */
static void together(struct sequence *q, unsigned n)
{
    for (unsigned k = 1; k < n; k++) {
        for (unsigned b = 0; b < q->n_forward; b++)
            if (q->forward[b].to == q->n + k)
                q->forward[b].to = q->n;
        q->join[q->n] |= q->join[q->n + k];
        q->join[q->n + k] = 0;
        q->item[q->n + k].inside = true;
    }
}

/* Count down, and back to an earlier item while the counter is above zero. */
static bool add_backward(struct sequence *q, struct diff_random *r)
{
    static const uint8_t sub64[] = {0x41, 0x83, 0xef, 0x01}, sub32[] = {0x83, 0xef, 0x01};
    const struct item *to;
    uint8_t jump[6] = {0x0f, 0x8f};

    do
        to = &q->item[diff_below(r, q->n)];
    while (to->inside); /* the first one never is */
    together(q, 2);

    if (!append_bytes(q, q->bits == 64 ? sub64 : sub32, q->bits == 64 ? 4 : 3))
        return false;
    int32_t distance = (int32_t)(to->offset - (q->length + 6));
    memcpy(jump + 2, &distance, 4);
    return append_bytes(q, jump, 6);
}

/* CALL to a RET that is jumped over on the way on; or a jump through RAX. */
static bool add_call(struct sequence *q, struct diff_random *r)
{
    static const uint8_t call[] = {0xe8, 2, 0, 0, 0}, over[] = {0xeb, 1}, ret[] = {0xc3};
    static const uint8_t lea[] = {0x48, 0x8d, 0x05, 2, 0, 0, 0}, jump[] = {0xff, 0xe0};
    uint8_t mov[5] = {0xb8};

    bool by_call = diff_chance(r, 60);
    together(q, by_call ? 3 : 2);
    if (by_call)
        return append_bytes(q, call, 5) && append_bytes(q, over, 2) && append_bytes(q, ret, 1);
    if (q->bits == 64)
        return append_bytes(q, lea, 7) && append_bytes(q, jump, 2);
    uint32_t target = (uint32_t)end_of(q) + 7;
    memcpy(mov + 1, &target, 4);
    return append_bytes(q, mov, 5) && append_bytes(q, jump, 2);
}

static void link_forward(struct sequence *q)
{
    for (unsigned n = 0; n < q->n_forward; n++) {
        const struct item *from = &q->item[q->forward[n].from];
        uint64_t next = from->offset + from->insn.length;
        uint64_t to = q->forward[n].to < q->n ? q->item[q->forward[n].to].offset : q->length;
        int32_t distance = (int32_t)(to - next);
        unsigned size = from->insn.z.raw.imm[0].size / 8;
        unsigned at = from->insn.z.raw.imm[0].offset;

        if (size == 1 && distance > 127)
            distance = 0;
        memcpy(q->code + from->offset + at, &distance, size);
    }
}

static void build(struct sequence *q, struct diff_run *run, struct diff_random *r)
{
    unsigned want = 2 + diff_below(r, 19);

    while (q->n < want) {
        uint32_t k = diff_below(r, 100);
        bool more = k < 12               ? add_forward(q, r)
                    : k < 16 && q->n > 1 ? add_backward(q, r)
                    : k < 19             ? add_call(q, r)
                                         : add_random(q, run, r);
        if (!more)
            break;
    }
    for (unsigned n = q->n; n < sizeof(q->join) / sizeof(q->join[0]); n++)
        q->undefined |= q->join[n];
    link_forward(q);
}

/* ---- running ---- */

static void describe(FILE *f, const void *what)
{
    const struct sequence *q = what;
    ZydisFormatter formatter;

    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    for (unsigned n = 0; n < q->n; n++) {
        struct diff_insn i = q->item[n].insn;
        char text[128] = "?";
        if (diff_decode(&i, q->code + q->item[n].offset, i.length, q->bits))
            ZydisFormatterFormatInstruction(&formatter, &i.z, i.op, i.z.operand_count_visible, text,
                                            sizeof(text), i.rip, NULL);
        fprintf(f, " %016" PRIx64 ": ", i.rip);
        diff_print_bytes(f, q->code + q->item[n].offset, i.length);
        fprintf(f, "  %s\n", text);
    }
}

static void make_input(struct diff_random *r, const struct sequence *q, uint64_t base, struct diff_input *in)
{
    static const uint8_t pointers[] = {CPU_RBX, CPU_RSP, CPU_RBP, CPU_RSI};

    in->n_pokes = 0;
    diff_input_registers(r, q->bits, base, &in->state);
    diff_input_vectors(r, &in->state);
    in->state.rip = q->start;
    for (unsigned n = 0; n < 4; n++) {
        uint64_t to = base + (diff_chance(r, 70) ? 2 * DIFF_PAGE + diff_below(r, 1024) - 512
                                                 : 4 * DIFF_PAGE + 256 + diff_below(r, 3500));
        in->state.gpr[pointers[n]] = diff_chance(r, 75) ? to & ~31ull : to;
    }
    in->state.gpr[q->bits == 64 ? CPU_R15 : CPU_RDI] = diff_below(r, 6);
    in->state.rflags &= diff_chance(r, 80) ? ~0x400ull : ~0ull;
}

void diff_sequence_batch(struct diff_run *run, struct diff_random *r, uint64_t batch, unsigned group,
                         uint64_t base)
{
    static struct sequence q;
    static struct diff_input in;
    static struct diff_result native;
    uint64_t place =
        diff_chance(r, 80) ? diff_below(r, DIFF_GROUP_CODE - MAX_BYTES - 64) : DIFF_PAGE - diff_below(r, 200);

    memset(&q, 0, sizeof(q));
    q.bits = run->options.bits;
    q.start = base + DIFF_CODE + group * DIFF_GROUP + place;
    build(&q, run, r);
    if (!q.n)
        return;
    run->sequences++;
    diff_code_put(run, group, place, q.code, q.length);
    for (unsigned n = 0; n < INPUTS; n++) {
        /* What is undefined depends on where it ends, which the native side tells. */
        struct diff_undefined at_end[MAX_ITEMS + 9];
        struct diff_undefined_by_rip by = {.start = q.start, .n = q.n + 1, .at = at_end};

        memset(at_end, 0, sizeof(at_end));
        for (unsigned k = 0; k <= q.n; k++) {
            at_end[k].flags = k < q.n ? q.item[k].undefined_in : q.undefined;
            at_end[k].memory_on_fault = k < q.n && q.item[k].memory_on_fault;
            at_end[k].x87_on_fault = k < q.n && q.item[k].x87_on_fault;
            at_end[k].stack_or_gp = k < q.n && q.item[k].stack_or_gp;
            at_end[k].cr2 = k < q.n && q.item[k].cr2;
            at_end[k].mxcsr_on_fault = k < q.n && q.item[k].mxcsr_on_fault;
            at_end[k].order = k < q.n && q.item[k].order;
            by.offset[k] = k < q.n ? q.item[k].offset : q.length;
        }
        make_input(r, &q, base, &in);
        bool same = diff_run_both_by_rip(run, &in, &by, &native, batch, describe, &q);
        run->counts.sequence_items += q.n;
        run->counts.sequence_ends += native.state.rip == q.start + q.length;
        if (!same)
            return;
    }
}

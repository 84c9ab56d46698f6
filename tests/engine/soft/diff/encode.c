/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Instructions of every encoding class: the opcode maps are walked once, byte by byte, and each place that
 * differs from its neighbours becomes a class; random instructions are then made of each class. What an
 * instruction is comes from Zydis; there is no list of instructions here.
 */
#include "diff.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Mandatory prefixes, in the order that they are emitted. */
static const struct {
    uint8_t n;
    uint8_t byte[2];
} mandatory[] = {{0, {0, 0}},    {1, {0x66, 0}},    {1, {0xf2, 0}},
                 {1, {0xf3, 0}}, {2, {0x66, 0xf2}}, {2, {0x66, 0xf3}}};
#define N_MANDATORY 6
#define N_VEX_PP    4

static ZydisDecoder decoder64, decoder32;

void diff_decoders_init(void)
{
    ZydisDecoder *const both[] = {&decoder64, &decoder32};

    ZydisDecoderInit(&decoder64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderEnableMode(&decoder64, ZYDIS_DECODER_MODE_AMD_BRANCHES, diff_host_is_amd());
    ZydisDecoderInit(&decoder32, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
    /* Without MPX its instructions are hints on any processor. */
    for (unsigned n = 0; n < 2; n++) {
        ZydisDecoderEnableMode(both[n], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
        ZydisDecoderEnableMode(both[n], ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
        ZydisDecoderEnableMode(both[n], ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    }
}

bool diff_decode(struct diff_insn *i, const uint8_t *bytes, unsigned len, unsigned bits)
{
    i->bits = (uint8_t)bits;
    i->valid = ZYAN_SUCCESS(ZydisDecoderDecodeFull(bits == 64 ? &decoder64 : &decoder32, bytes,
                                                   len > 15 ? 15 : len, &i->z, i->op));
    return i->valid;
}

/* ---- the maps ---- */

/* What in a class's encoding is not fixed by the class itself. */
struct form {
    uint8_t before[6]; /* redundant prefixes */
    uint8_t n_before;
    uint8_t rex; /* R, X, B, and 0x40 for a REX that need not be there */
    uint8_t vvvv;
    bool short_vex;
    uint8_t modrm, sib;
    uint8_t rest[12]; /* displacement, immediates */
};

static unsigned put_vex(const struct diff_class *c, const struct form *f, uint8_t *out)
{
    uint8_t last = (uint8_t)((~f->vvvv & 15) << 3 | c->l << 2 | c->prefix);

    if (f->short_vex && c->space == 4 && !c->w && !(f->rex & 3)) {
        out[0] = 0xc5;
        out[1] = (uint8_t)((f->rex & 4 ? 0 : 0x80) | last);
        return 2;
    }
    out[0] = 0xc4;
    out[1] = (uint8_t)((~f->rex & 7) << 5 | (c->space - 3));
    out[2] = (uint8_t)(c->w << 7 | last);
    return 3;
}

/* VEX.pp: none, 66, F3, F2; diff_class.prefix counts none, 66, F2, F3. */
static unsigned put(const struct diff_class *c, const struct form *f, unsigned bits, uint8_t *out)
{
    static const uint8_t escape[4][2] = {{0, 0}, {0x0f, 0}, {0x0f, 0x38}, {0x0f, 0x3a}};
    unsigned n = f->n_before;

    memcpy(out, f->before, n);
    if (c->space >= 4) {
        struct diff_class vex = *c;
        vex.prefix = c->prefix == 2 ? 3 : c->prefix == 3 ? 2 : c->prefix;
        n += put_vex(&vex, f, out + n);
    } else {
        for (unsigned p = 0; p < mandatory[c->prefix].n; p++)
            out[n++] = mandatory[c->prefix].byte[p];
        if (bits == 64 && (c->w || f->rex))
            out[n++] = (uint8_t)(0x40 | c->w << 3 | f->rex);
        for (unsigned e = 0; e < 2 && escape[c->space][e]; e++)
            out[n++] = escape[c->space][e];
    }
    out[n++] = c->opcode;
    out[n++] = f->modrm;
    out[n++] = f->sib;
    memcpy(out + n, f->rest, sizeof(f->rest));
    n += sizeof(f->rest);
    return n < 15 ? n : 15;
}

/* Bytes that are prefixes or escapes in this space, not opcodes. */
static bool not_an_opcode(unsigned space, unsigned opcode, unsigned bits)
{
    if (space == 1)
        return opcode == 0x38 || opcode == 0x3a || opcode == 0x0f;
    if (space)
        return false;
    switch (opcode) {
    case 0x0f:
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
        return true;
    case 0x62: /* EVEX where it is not BOUND: AVX-512 is not announced to the guest */
        return bits == 64;
    case 0xc4:
    case 0xc5:
        return bits == 64; /* VEX has spaces of its own; LES and LDS come with a memory operand */
    default:
        return bits == 64 && opcode >= 0x40 && opcode <= 0x4f;
    }
}

/* ModRM.rm selects the instruction in a register form. */
static bool rm_matters(unsigned space, unsigned opcode)
{
    if (space == 0)
        return opcode >= 0xd8 && opcode <= 0xdf;
    return space == 1 && (opcode == 0x01 || opcode == 0xae || opcode == 0x1e);
}

struct maker {
    struct diff_classes *out;
    uint32_t room;
    const char *only;
};

static bool add(struct maker *m, const struct diff_class *c)
{
    if (m->only && (!c->valid || strcasecmp(ZydisMnemonicGetString(c->mnemonic), m->only)))
        return true;
    if (m->out->n == m->room) {
        m->room = m->room ? m->room * 2 : 16384;
        struct diff_class *p = realloc(m->out->class, m->room * sizeof(*p));
        if (!p)
            return false;
        m->out->class = p;
    }
    m->out->class[m->out->n++] = *c;
    return true;
}

static bool probe(struct diff_class *c, unsigned bits, bool *has_modrm, bool *skipped)
{
    struct diff_insn i;
    uint8_t bytes[32];
    struct form f = {.modrm =
                         (uint8_t)((c->form == DIFF_FORM_MEM ? 0 : 0xc0) |
                                   (c->reg == DIFF_ANY ? 0 : c->reg) << 3 | (c->rm == DIFF_ANY ? 1 : c->rm))};

    if (c->space >= 4)
        f.rest[0] = 0x40; /* a register in bits 4-7 of an immediate is fine in any mode below 8 */
    unsigned n = put(c, &f, bits, bytes);
    c->valid = diff_decode(&i, bytes, n, bits);
    if (!c->valid && c->space >= 4) {
        f.vvvv = 1;
        n = put(c, &f, bits, bytes);
        c->valid = diff_decode(&i, bytes, n, bits);
    }
    if (!c->valid && c->space >= 4 && c->form == DIFF_FORM_MEM) {
        f.modrm = (uint8_t)(4 | (c->reg == DIFF_ANY ? 0 : c->reg) << 3); /* gathers want a SIB */
        f.sib = 0x11;
        f.vvvv = 3;
        n = put(c, &f, bits, bytes);
        c->valid = diff_decode(&i, bytes, n, bits);
    }
    c->mnemonic = c->valid ? (uint16_t)i.z.mnemonic : 0;
    *skipped = c->valid && diff_skip(&i);
    *has_modrm = !c->valid || (i.z.attributes & ZYDIS_ATTRIB_HAS_MODRM);
    return c->valid;
}

/* The eight values of a three-bit field, or one class if they are all the same instruction. */
static bool add_form(struct maker *m, struct diff_class c, unsigned bits)
{
    struct diff_class each[8][8];
    unsigned rms = c.form == DIFF_FORM_REG && rm_matters(c.space, c.opcode) ? 8 : 1;
    bool same = true, has_modrm = true, skipped[8][8];

    for (uint8_t reg = 0; reg < 8; reg++)
        for (uint8_t rm = 0; rm < rms; rm++) {
            struct diff_class *e = &each[reg][rm];
            *e = c;
            e->reg = reg;
            e->rm = rms > 1 ? rm : DIFF_ANY;
            probe(e, bits, &has_modrm, &skipped[reg][rm]);
            if (!has_modrm)
                break;
            same = same && e->valid == each[0][0].valid && e->mnemonic == each[0][0].mnemonic;
        }
    if (!has_modrm) {
        /* Reported once, with the register form. */
        each[0][0].reg = each[0][0].rm = DIFF_ANY;
        bool second = c.form == DIFF_FORM_MEM;
        each[0][0].form = DIFF_FORM_NONE;
        return second || skipped[0][0] || add(m, &each[0][0]);
    }
    if (same) {
        each[0][0].reg = each[0][0].rm = DIFF_ANY;
        return skipped[0][0] || add(m, &each[0][0]);
    }
    for (uint8_t reg = 0; reg < 8; reg++)
        for (uint8_t rm = 0; rm < rms; rm++)
            if (!skipped[reg][rm] && !add(m, &each[reg][rm]))
                return false;
    return true;
}

int diff_classes_make(struct diff_classes *out, unsigned bits, const char *only)
{
    struct maker m = {.out = out, .only = only};

    memset(out, 0, sizeof(*out));
    for (unsigned space = 0; space < DIFF_SPACES; space++)
        for (unsigned opcode = 0; opcode < 256; opcode++)
            for (unsigned prefix = 0; prefix < (space < 4 ? N_MANDATORY : N_VEX_PP); prefix++)
                for (unsigned wl = 0; wl < 4; wl++)
                    for (unsigned form = DIFF_FORM_REG; form <= DIFF_FORM_MEM; form++) {
                        struct diff_class c = {.space = (uint8_t)space,
                                               .opcode = (uint8_t)opcode,
                                               .prefix = (uint8_t)prefix,
                                               .w = wl & 1,
                                               .l = (uint8_t)(wl >> 1),
                                               .form = (uint8_t)form,
                                               .reg = DIFF_ANY,
                                               .rm = DIFF_ANY};
                        if (not_an_opcode(space, opcode, bits) || (space < 4 && c.l) ||
                            (space < 4 && bits == 32 && c.w))
                            continue;
                        if (bits == 32 && space == 0 && form == DIFF_FORM_REG &&
                            (opcode == 0xc4 || opcode == 0xc5 || opcode == 0x62))
                            continue; /* VEX and EVEX */
                        if (!add_form(&m, c, bits))
                            return -ENOMEM;
                    }
    /* The valid ones first, otherwise in the order of the walk. */
    uint32_t n = 0;
    struct diff_class *sorted = malloc((out->n + 1) * sizeof(*sorted));
    if (!sorted)
        return -ENOMEM;
    for (int want = 1; want >= 0; want--) {
        for (uint32_t k = 0; k < out->n; k++)
            if (out->class[k].valid == want)
                sorted[n++] = out->class[k];
        if (want)
            out->n_valid = n;
    }
    free(out->class);
    out->class = sorted;
    return 0;
}

/* ---- random instructions ---- */

static void choose_prefixes(struct diff_random *r, const struct diff_class *c, unsigned bits, struct form *f)
{
    static const uint8_t segment[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x64, 0x65};

    if (diff_chance(r, 12))
        f->before[f->n_before++] = DIFF_PICK(r, segment);
    if (diff_chance(r, 8))
        f->before[f->n_before++] = 0x67;
    if (diff_chance(r, c->form == DIFF_FORM_MEM && c->space < 4 ? 8 : 1))
        f->before[f->n_before++] = 0xf0;
    /* Illegal before VEX, without meaning (or with one of its own) elsewhere. */
    if (diff_chance(r, 1))
        f->before[f->n_before++] = mandatory[1 + diff_below(r, 3)].byte[0];
    if (bits == 64 && diff_chance(r, 1))
        f->before[f->n_before++] = (uint8_t)(0x40 | diff_below(r, 16)); /* REX that does not count, or #UD */
}

static void choose_modrm(struct diff_random *r, const struct diff_class *c, struct form *f)
{
    uint8_t reg = c->reg == DIFF_ANY ? (uint8_t)diff_below(r, 8) : c->reg;
    uint8_t rm = c->rm == DIFF_ANY ? (uint8_t)diff_below(r, 8) : c->rm;
    uint8_t mod = c->form == DIFF_FORM_MEM ? (uint8_t)diff_below(r, 3) : 3;

    f->modrm = (uint8_t)(mod << 6 | reg << 3 | rm);
    f->sib = (uint8_t)diff_random(r);
    /* Half of the SIB forms: without index, or with the base that means none. */
    if (diff_chance(r, 25))
        f->sib = (uint8_t)((f->sib & 0xc7) | 4 << 3);
    if (diff_chance(r, 15))
        f->sib = (uint8_t)((f->sib & 0xf8) | 5);
}

/* [pointer + disp8], or whatever choose_modrm found that needs no register. */
static void tame_form(struct diff_random *r, const struct diff_class *c, struct form *f)
{
    static const uint8_t rms[] = {CPU_RBX, CPU_RBP, CPU_RSI, 4};

    if (diff_chance(r, 90))
        f->n_before = 0;
    if (c->form != DIFF_FORM_MEM || (f->modrm & 0xc7) == 5)
        return;
    f->rex &= 0x44; /* base and index without REX */
    f->modrm = (uint8_t)((f->modrm & 0x38) | 0x40 | DIFF_PICK(r, rms));
    f->sib = (uint8_t)(4 << 3 | (diff_chance(r, 50) ? CPU_RSP : CPU_RBX));
}

static void choose_form(struct diff_random *r, const struct diff_class *c, unsigned bits, struct form *f)
{
    memset(f, 0, sizeof(*f));
    choose_prefixes(r, c, bits, f);
    if (bits == 64 && diff_chance(r, 60))
        f->rex = (uint8_t)(diff_below(r, 8) | (c->space < 4 ? 0x40 : 0));
    f->vvvv = diff_chance(r, 30) ? 0 : (uint8_t)diff_below(r, bits == 64 ? 16 : 8);
    f->short_vex = diff_chance(r, 50);
    choose_modrm(r, c, f);
    for (unsigned n = 0; n < sizeof(f->rest); n++)
        f->rest[n] = (uint8_t)diff_random(r);
}

static void put_le(uint8_t *p, uint64_t v, unsigned bits)
{
    memcpy(p, &v, bits / 8);
}

static uint64_t interesting_immediate(struct diff_random *r, unsigned bits)
{
    switch (diff_below(r, 6)) {
    case 0:
        return diff_below(r, 4) - 1u;
    case 1:
        return (1ull << (bits - 1)) - diff_below(r, 3) + 1;
    case 2:
        return diff_below(r, 70);
    default:
        return diff_random(r);
    }
}

/* Somewhere in the group of code that `rip` lies in, or (rarely) where nothing can be executed; never inside
 * the instruction itself, whose middle would be an instruction that nobody has looked at. */
static uint64_t branch_target(struct diff_random *r, const struct diff_insn *i, unsigned bits)
{
    uint64_t group = i->rip & ~(DIFF_GROUP - 1), end = i->rip + i->length;

    for (;;) {
        uint64_t to;
        if (bits == 8)
            to = end + (uint64_t)(int8_t)diff_random(r);
        else if (diff_chance(r, 85))
            to = group + diff_below(r, DIFF_GROUP_CODE);
        else if (diff_chance(r, 50))
            to = group + DIFF_GROUP_CODE + diff_below(r, 3) - 1;
        else
            to = (i->rip & ~0xfffffffull) + DIFF_PAGE * (1 + diff_below(r, 2)); /* data */
        if (to >= end || to < i->rip)
            return to;
    }
}

static void choose_immediates(struct diff_random *r, struct diff_insn *i)
{
    static const uint16_t selector[] = {0, 3, 0x23, 0x2b, 0x33, 0x10, 0x28, 0x40, 0x7b, 4, 0xfff8};

    for (unsigned n = 0; n < 2; n++) {
        unsigned bits = i->z.raw.imm[n].size;
        uint64_t v;

        if (!bits)
            continue;
        if (i->z.raw.imm[n].is_relative) {
            v = branch_target(r, i, bits) - (i->rip + i->length);
        } else if (i->op[0].type == ZYDIS_OPERAND_TYPE_POINTER && n == 1) {
            v = DIFF_PICK(r, selector);
        } else if (i->op[0].type == ZYDIS_OPERAND_TYPE_POINTER) {
            v = branch_target(r, i, bits);
        } else if (i->z.mnemonic == ZYDIS_MNEMONIC_ENTER && diff_chance(r, 80)) {
            v = diff_below(r, n ? 4 : 256);
        } else if (i->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && diff_chance(r, 50)) {
            continue; /* may hold a register */
        } else {
            v = interesting_immediate(r, bits);
        }
        put_le(i->bytes + i->z.raw.imm[n].offset, v, bits);
    }
}

static void choose_displacement(struct diff_random *r, struct diff_insn *i, bool tame)
{
    static const int32_t tame_near[] = {0, 8, -8, 32, -32, 64, -64, 96, 16, -127, 1};
    static const int32_t near[] = {0, 1, -1, 8, -8, 64, -128, 127, 0x1000, -0x1000, 0x7ff0};
    unsigned bits = i->z.raw.disp.size;
    uint64_t window = i->rip & ~0xfffffffull;
    bool rip_relative = i->bits == 64 && (i->z.raw.modrm.mod == 0 && i->z.raw.modrm.rm == 5);
    bool absolute = i->z.raw.modrm.mod == 0 && (i->z.raw.modrm.rm == 5 || i->z.raw.modrm.rm == 4);
    /* Whole data pages and their edges. */
    uint64_t target = window + DIFF_PAGE + diff_below(r, 6 * DIFF_PAGE);

    if (!bits)
        return;
    if (diff_chance(r, 40))
        target &= ~63ull;
    if (!(i->z.attributes & ZYDIS_ATTRIB_HAS_MODRM)) /* MOV with moffs */
        put_le(i->bytes + i->z.raw.disp.offset, diff_chance(r, 90) ? target : diff_random(r), bits);
    else if (bits == 32 && rip_relative)
        put_le(i->bytes + i->z.raw.disp.offset, target - (i->rip + i->length), bits);
    else if (bits == 32 && absolute)
        put_le(i->bytes + i->z.raw.disp.offset, target - window + DIFF_LOW, bits);
    else if (tame)
        put_le(i->bytes + i->z.raw.disp.offset, (uint64_t)DIFF_PICK(r, tame_near), bits);
    else if (diff_chance(r, 60))
        put_le(i->bytes + i->z.raw.disp.offset, (uint64_t)DIFF_PICK(r, near), bits);
}

bool diff_insn_make(struct diff_random *r, const struct diff_class *c, unsigned bits, uint64_t rip, bool tame,
                    struct diff_insn *out)
{
    struct form f;

    for (unsigned attempt = 0; attempt < 24; attempt++) {
        choose_form(r, c, bits, &f);
        if (tame)
            tame_form(r, c, &f);
        if (attempt >= 8)
            f.n_before = 0;
        if (attempt >= 12)
            f.vvvv = 0;
        if (bits == 32)
            f.rex = 0;
        out->rip = rip;
        memset(out->bytes, DIFF_FILLER, sizeof(out->bytes));
        out->length = (uint8_t)put(c, &f, bits, out->bytes);
        if (!diff_decode(out, out->bytes, out->length, bits)) {
            /* An encoding that is to be refused. Valid classes keep a few of their illegal forms. */
            if (c->valid && !diff_chance(r, 5))
                continue;
            return !diff_skip(out);
        }
        if (diff_skip(out))
            continue;
        out->length = out->z.length;
        choose_displacement(r, out, tame);
        choose_immediates(r, out);
        memset(out->bytes + out->length, DIFF_FILLER, sizeof(out->bytes) - out->length);
        if (diff_decode(out, out->bytes, out->length, bits) && out->z.length == out->length &&
            !diff_skip(out))
            return true;
    }
    return false;
}

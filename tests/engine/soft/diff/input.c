/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inputs for an instruction: values that are known for trouble in the registers, then address registers such
 * that each memory operand lies where it makes a difference: aligned, crossing a page, half unmapped,
 * read-only, not canonical.
 */
#include "diff.h"

#include <string.h>

#define FLAGS_ARITHMETIC 0x8d5u
#define FLAG_DF          0x400u

/* ---- values ---- */

static uint64_t interesting(struct diff_random *r, uint64_t base)
{
    static const uint64_t limits[] = {0,
                                      1,
                                      ~0ull,
                                      0x7f,
                                      0x80,
                                      0xff,
                                      0x7fff,
                                      0x8000,
                                      0xffff,
                                      0x7fffffff,
                                      0x80000000,
                                      0xffffffff,
                                      0x7fffffffffffffff,
                                      0x8000000000000000,
                                      0x00007fffffffffff,
                                      0xffff800000000000};

    switch (diff_below(r, 8)) {
    case 0:
    case 1:
        return DIFF_PICK(r, limits);
    case 2:
        return diff_below(r, 70);
    case 3:
        return base + DIFF_PAGE + diff_below(r, 6 * DIFF_PAGE);
    case 4:
        return 1ull << diff_below(r, 64);
    case 5:
        return (uint64_t) - (int64_t)diff_below(r, 300);
    default:
        return diff_random(r);
    }
}

static uint64_t float64(struct diff_random *r)
{
    static const uint64_t special[] = {0,
                                       0x8000000000000000,
                                       0x3ff0000000000000,
                                       0xbff0000000000000,
                                       0x7ff0000000000000,
                                       0xfff0000000000000,
                                       0x7ff8000000000000,
                                       0xfff8000000000001,
                                       0x7ff0000000000001,
                                       0x0000000000000001,
                                       0x800fffffffffffff,
                                       0x0010000000000000,
                                       0x7fefffffffffffff,
                                       0x41dfffffffc00000,
                                       0xc1e0000000000000,
                                       0x43e0000000000000,
                                       0x4008000000000000,
                                       0x3fe0000000000000};

    if (diff_chance(r, 45))
        return DIFF_PICK(r, special);
    if (diff_chance(r, 60)) /* of moderate size, so that sums and products mean something */
        return (diff_random(r) & 0x800fffffffffffff) | (uint64_t)(1000 + diff_below(r, 60)) << 52;
    return diff_random(r);
}

static uint32_t float32(struct diff_random *r)
{
    static const uint32_t special[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000,
                                       0x7fc00000, 0x7f800001, 0x00000001, 0x807fffff, 0x00800000, 0x7f7fffff,
                                       0x4f000000, 0xcf000000, 0x5f000000, 0x40400000, 0x3f000000};

    if (diff_chance(r, 45))
        return DIFF_PICK(r, special);
    if (diff_chance(r, 60))
        return ((uint32_t)diff_random(r) & 0x807fffff) | (110 + diff_below(r, 34)) << 23;
    return (uint32_t)diff_random(r);
}

static uint64_t lane(struct diff_random *r)
{
    switch (diff_below(r, 4)) {
    case 0:
        return float64(r);
    case 1:
        return float32(r) | (uint64_t)float32(r) << 32;
    case 2:
        return diff_random(r);
    default:
        return interesting(r, DIFF_HIGH);
    }
}

void diff_data_fill(struct diff_random *r, uint8_t *data, uint64_t len)
{
    for (uint64_t n = 0; n < len; n += 8) {
        uint64_t v = lane(r);
        memcpy(data + n, &v, 8);
    }
}

/* An 80-bit real, its unsupported forms included. */
static void put_real(struct diff_random *r, uint8_t *p)
{
    static const uint16_t exponent[] = {0, 0x7fff, 0x3fff, 0x4000, 0x403e, 0x403f, 1, 0x7ffe, 0x3ffe, 0xbfff};
    static const uint64_t mantissa[] = {0,          1ull << 63, 3ull << 62,           ~0ull,
                                        1ull << 62, 1,          0x8000000000000001ull};
    uint16_t e = DIFF_PICK(r, exponent);
    uint64_t m = DIFF_PICK(r, mantissa);

    if (diff_chance(r, 60)) {
        e = (uint16_t)(0x3fff - 40 + diff_below(r, 80));
        m = diff_random(r) | 1ull << 63;
        if (diff_chance(r, 30))
            m &= ~0ull << diff_below(r, 63);
    }
    if (diff_chance(r, 50))
        e ^= 0x8000;
    memcpy(p, &m, 8);
    memcpy(p + 8, &e, 2);
    memset(p + 10, 0, 6);
}

/* Offsets in the XSAVE area: SDM vol. 1 table 13-1, 10-2. */
void diff_input_vectors(struct diff_random *r, struct diff_state *s)
{
    uint16_t fcw = 0x37f, fsw = 0;
    uint8_t ftw = 0xff;
    uint32_t mxcsr = 0x1f80, mask = 0xffff;
    uint64_t bv = 7;

    memset(s->xsave, 0, 576);
    if (diff_chance(r, 50))
        fcw = (uint16_t)(0x7f | (diff_below(r, 16) << 8));
    if (diff_chance(r, 12))
        fcw = (uint16_t)(0x40 | (diff_random(r) & 0xf3f));
    if (diff_chance(r, 60))
        fsw = (uint16_t)(diff_random(r) & 0x7f7f);
    if (diff_chance(r, 40))
        ftw = diff_chance(r, 50) ? 0 : (uint8_t)diff_random(r);
    /* Pending and unmasked: ES and B are what they must be (SDM vol. 1 8.1.3.3). */
    if (diff_chance(r, 75))
        fsw &= (uint16_t) ~(~fcw & 0x3f);
    if (fsw & ~fcw & 0x3f)
        fsw |= 0x8080;
    if (diff_chance(r, 50))
        mxcsr = 0x1f80 | (diff_below(r, 4) << 13) | (diff_below(r, 2) << 15) | (diff_below(r, 2) << 6);
    if (diff_chance(r, 50))
        mxcsr |= diff_below(r, 64);
    if (diff_chance(r, 12))
        mxcsr &= ~(uint32_t)(diff_random(r) & 0x1f80);
    memcpy(s->xsave, &fcw, 2);
    memcpy(s->xsave + 2, &fsw, 2);
    s->xsave[4] = ftw;
    memcpy(s->xsave + 24, &mxcsr, 4);
    memcpy(s->xsave + 28, &mask, 4);
    for (unsigned n = 0; n < 8; n++)
        put_real(r, s->xsave + 32 + 16 * n);
    for (unsigned n = 0; n < 32; n++) {
        uint64_t v = lane(r);
        memcpy(s->xsave + 160 + 8 * n, &v, 8);
        v = lane(r);
        memcpy(s->xsave + 576 + 8 * n, &v, 8);
    }
    if (diff_chance(r, 10))
        bv = 3;
    memcpy(s->xsave + 512, &bv, 8);
    if (bv == 3)
        memset(s->xsave + 576, 0, 256);
}

void diff_input_registers(struct diff_random *r, unsigned bits, uint64_t base, struct diff_state *s)
{
    static const uint16_t plain[CPU_SEGMENTS] = {0x2b, 0x33, 0x2b, 0x2b, 0, 0};

    for (unsigned n = 0; n < CPU_GPRS; n++) {
        s->gpr[n] = interesting(r, base);
        if (bits == 32)
            s->gpr[n] &= 0xffffffff;
    }
    s->rflags = 0x202 | (diff_random(r) & FLAGS_ARITHMETIC);
    if (diff_chance(r, 20))
        s->rflags |= FLAG_DF;
    memcpy(s->seg, plain, sizeof(plain));
    s->fs_base = s->gs_base = 0;
    if (bits == 32) {
        s->seg[CPU_CS] = 0x23;
        s->seg[CPU_FS] = s->seg[CPU_GS] = 0x2b;
        return;
    }
    s->fs_base = diff_chance(r, 60) ? base + DIFF_PAGE * diff_below(r, 7) : diff_below(r, 4096);
    s->gs_base = diff_chance(r, 60) ? base + diff_below(r, 64) : ~0xfffull;
}

/* ---- addresses ---- */

/* Where an operand of `size` bytes is to lie. */
static uint64_t choose_target(struct diff_random *r, uint64_t base, unsigned size, unsigned bits)
{
    static const uint8_t rw[] = {1, 2, 4}, all[] = {1, 2, 4, 5, 6};
    uint32_t k = diff_below(r, 100);
    uint32_t inner = size < DIFF_PAGE ? (uint32_t)(DIFF_PAGE - size + 1) : 1;

    if (k < 45)
        return base + DIFF_PICK(r, rw) * DIFF_PAGE + (diff_below(r, inner) & ~63u);
    if (k < 62)
        return base + DIFF_PICK(r, rw) * DIFF_PAGE + diff_below(r, inner);
    if (k < 70) /* from one writable page to the next */
        return base + 2 * DIFF_PAGE - diff_below(r, size + 1);
    if (k < 75)
        return base + DIFF_PICK(r, all) * DIFF_PAGE + diff_below(r, inner);
    if (k < 79)
        return base + 5 * DIFF_PAGE - diff_below(r, size + 1); /* writable to read-only */
    if (k < 84)
        return base + 3 * DIFF_PAGE - diff_below(r, size + 1); /* to unmapped */
    if (k < 87)
        return base + 1 * DIFF_PAGE - diff_below(r, size + 1); /* from unmapped */
    if (k < 91)
        return base + 5 * DIFF_PAGE + diff_below(r, inner);
    if (k < 95)
        return base + 3 * DIFF_PAGE + diff_below(r, DIFF_PAGE);
    if (bits == 32)
        return diff_below(r, 4096);
    if (k < 98)
        return (1ull << 47 << diff_below(r, 16)) | (diff_random(r) & 0xffff);
    /* Across the edge of what is canonical: only where the operand is accessed as one piece. */
    if (k < 99 && (size == 1 || size == 2 || size == 4 || size == 8 || size == 16))
        return (diff_chance(r, 50) ? 1ull << 47 : 0) - diff_below(r, size + 2);
    return DIFF_KERNEL + diff_below(r, 4096);
}

static int gpr_of(ZydisRegister reg)
{
    ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);

    return full >= ZYDIS_REGISTER_RAX && full <= ZYDIS_REGISTER_R15 ? (int)(full - ZYDIS_REGISTER_RAX) : -1;
}

static uint64_t segment_base(const struct diff_state *s, ZydisRegister segment)
{
    return segment == ZYDIS_REGISTER_FS ? s->fs_base : segment == ZYDIS_REGISTER_GS ? s->gs_base : 0;
}

static uint64_t width_mask(unsigned width)
{
    return width == 64 ? ~0ull : (1ull << width) - 1;
}

static uint64_t register_value(const struct diff_state *s, ZydisRegister reg)
{
    int n = gpr_of(reg);
    unsigned width = ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, reg);

    return n < 0 ? 0 : s->gpr[n] & width_mask(width);
}

/* Sets a register such that [base + index * scale + disp] becomes `target`, as far as it can be done. */
static void aim(struct diff_state *s, const struct diff_insn *i, const ZydisDecodedOperandMem *m,
                uint64_t target)
{
    int base = gpr_of(m->base), index = gpr_of(m->index);
    uint64_t mask = width_mask(i->z.address_width);
    uint64_t want = target - segment_base(s, m->segment) - (uint64_t)m->disp.value;

    if (base >= 0 && base == index)
        s->gpr[base] = (want & mask) / (1u + m->scale);
    else if (base >= 0)
        s->gpr[base] = (want - (index >= 0 ? register_value(s, m->index) * m->scale : 0)) & mask;
    else if (index >= 0 && m->scale)
        s->gpr[index] = (want & mask) / m->scale;
}

uint64_t diff_effective_address(const struct diff_state *s, const struct diff_insn *i,
                                const ZydisDecodedOperandMem *m)
{
    uint64_t a = (uint64_t)m->disp.value;

    if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP)
        a += i->rip + i->length;
    else
        a += register_value(s, m->base);
    if (m->index != ZYDIS_REGISTER_NONE && gpr_of(m->index) >= 0)
        a += register_value(s, m->index) * m->scale;
    return (a & width_mask(i->z.address_width)) + segment_base(s, m->segment);
}

/* What 32-bit addresses must not look at. */
static void fill_upper_halves(struct diff_random *r, const struct diff_insn *i, struct diff_state *s)
{
    for (unsigned n = 0; n < i->z.operand_count; n++) {
        const ZydisDecodedOperandMem *m = &i->op[n].mem;

        if (i->op[n].type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        if (gpr_of(m->base) >= 0 && s->gpr[gpr_of(m->base)] >> 32 == 0)
            s->gpr[gpr_of(m->base)] |= diff_random(r) << 32;
        if (gpr_of(m->index) >= 0 && s->gpr[gpr_of(m->index)] >> 32 == 0)
            s->gpr[gpr_of(m->index)] |= diff_random(r) << 32;
    }
}

/* Gathers: the base in the middle of the data, elements around it, a few of them astray. */
static void aim_gather(struct diff_random *r, struct diff_state *s, const struct diff_insn *i,
                       const ZydisDecodedOperandMem *m, uint64_t base)
{
    unsigned reg = (unsigned)ZydisRegisterGetId(m->index) & 15;
    bool wide = i->z.mnemonic == ZYDIS_MNEMONIC_VPGATHERQD || i->z.mnemonic == ZYDIS_MNEMONIC_VPGATHERQQ ||
                i->z.mnemonic == ZYDIS_MNEMONIC_VGATHERQPS || i->z.mnemonic == ZYDIS_MNEMONIC_VGATHERQPD;
    bool astray = diff_chance(r, 30);

    if (gpr_of(m->base) >= 0)
        s->gpr[gpr_of(m->base)] =
            (base + 2 * DIFF_PAGE - segment_base(s, m->segment) - (uint64_t)m->disp.value) &
            width_mask(i->z.address_width);
    for (unsigned n = 0; n < (wide ? 4u : 8u); n++) {
        int64_t v = (int64_t)diff_below(r, 6000 / m->scale) - (int64_t)(3000 / m->scale);
        unsigned at = n * (wide ? 8 : 4);

        if (astray && diff_chance(r, 15))
            v = (int64_t)diff_random(r) >> diff_below(r, 60);
        memcpy(s->xsave + (at < 16 ? 160 + 16 * reg + at : 576 + 16 * reg + at - 16), &v, wide ? 8 : 4);
    }
}

/* BT and its kin with a register operand address memory by bits. */
static bool is_bit_string(const struct diff_insn *i)
{
    return (i->z.mnemonic == ZYDIS_MNEMONIC_BT || i->z.mnemonic == ZYDIS_MNEMONIC_BTS ||
            i->z.mnemonic == ZYDIS_MNEMONIC_BTR || i->z.mnemonic == ZYDIS_MNEMONIC_BTC) &&
           i->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY && i->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
}

/* ---- memory contents that an instruction understands ---- */

static void poke(struct diff_input *in, uint64_t va, const void *bytes, unsigned len)
{
    int64_t offset = diff_data_offset(va, len);

    if (offset < 0 || in->n_pokes == DIFF_POKES)
        return;
    struct diff_poke *p = &in->poke[in->n_pokes++];
    p->offset = offset;
    p->len = (uint8_t)len;
    memcpy(p->bytes, bytes, len);
}

static uint64_t code_pointer(struct diff_random *r, const struct diff_insn *i)
{
    uint64_t group = i->rip & ~(DIFF_GROUP - 1);

    switch (diff_below(r, 8)) {
    case 0:
        return interesting(r, i->rip & ~0xfffffffull);
    case 1:
        return group + DIFF_GROUP_CODE; /* unmapped */
    default:
        /* Not the instruction itself. */
        return i->rip - group > 256 ? group + diff_below(r, 128) : i->rip + 64 + diff_below(r, 128);
    }
}

static uint16_t code_selector(struct diff_random *r, unsigned bits)
{
    static const uint16_t other[] = {0, 3, 0x10, 0x23, 0x2b, 0x33, 0x30, 0x20, 0x53, 0x73, 0x7b, 7, 0xffff};

    return diff_chance(r, 60) ? (bits == 64 ? 0x33 : 0x23) : DIFF_PICK(r, other);
}

/* Far pointers and interrupt frames: offset, selector, then flags, stack pointer, stack selector. */
static void poke_far(struct diff_random *r, const struct diff_insn *i, struct diff_input *in, uint64_t va,
                     bool frame, bool packed)
{
    static const uint16_t stack[] = {0x2b, 0x2b, 0x2b, 0x2b, 0, 3, 0x28, 0x33, 0x7b, 0xffff};
    unsigned size = i->z.operand_width / 8;
    uint64_t item[5] = {code_pointer(r, i), code_selector(r, i->bits),
                        /* Not TF. Not AC: Linux takes the #AC of a misaligned frame for a split lock. */
                        (diff_random(r) & 0x214ed5) | 2, in->state.gpr[CPU_RSP], DIFF_PICK(r, stack)};
    uint8_t bytes[40];
    unsigned n = 0;

    for (unsigned k = 0; k < (frame ? 5u : 2u); k++) {
        memcpy(bytes + n, &item[k], size);
        n += packed && k == 1 ? 2 : size;
    }
    poke(in, va, bytes, n);
}

static void poke_control(struct diff_random *r, const struct diff_insn *i, struct diff_input *in)
{
    uint64_t to = code_pointer(r, i), stack = in->state.gpr[CPU_RSP];
    bool far = i->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;

    if (i->bits == 32)
        stack &= 0xffffffff;
    if (i->z.meta.category == ZYDIS_CATEGORY_RET) {
        bool iret = i->z.mnemonic == ZYDIS_MNEMONIC_IRET || i->z.mnemonic == ZYDIS_MNEMONIC_IRETD ||
                    i->z.mnemonic == ZYDIS_MNEMONIC_IRETQ;
        if (far || iret)
            poke_far(r, i, in, stack, iret, false);
        else
            poke(in, stack, &to, 8);
    } else if (i->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
        uint64_t va = diff_effective_address(&in->state, i, &i->op[0].mem);
        /* Into compatibility mode, processors push by ESP: keep the stack where that makes no difference. */
        if (far && i->op[0].mem.base != ZYDIS_REGISTER_RSP && i->op[0].mem.index != ZYDIS_REGISTER_RSP)
            in->state.gpr[CPU_RSP] = DIFF_LOW + DIFF_PAGE + 256 + diff_below(r, 1024);
        if (far)
            poke_far(r, i, in, va, false, true);
        else
            poke(in, va, &to, 8);
    } else if (i->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_of(i->op[0].reg.value) >= 0) {
        in->state.gpr[gpr_of(i->op[0].reg.value)] = to;
    }
}

/* What makes an instruction do its work rather than refuse its input. */
static void poke_special(struct diff_random *r, const struct diff_insn *i, struct diff_input *in)
{
    static const uint16_t selectors[] = {0, 1, 3, 0x10, 0x23, 0x2b, 0x2b, 0x28, 0x33, 0x7b, 0x40, 4, 0xfff8};
    const ZydisDecodedOperand *m = &i->op[i->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY ? 0 : 1];
    bool mem = i->z.operand_count > 0 && m->type == ZYDIS_OPERAND_TYPE_MEMORY;
    uint64_t va = mem ? diff_effective_address(&in->state, i, &m->mem) : in->state.gpr[CPU_RSP];
    uint64_t *gpr = in->state.gpr;
    uint16_t selector = DIFF_PICK(r, selectors);

    switch (i->z.mnemonic) {
    case ZYDIS_MNEMONIC_CMPXCHG:
        poke(in, va, &gpr[CPU_RAX], i->z.operand_width / 8);
        break;
    case ZYDIS_MNEMONIC_CMPXCHG8B:
        poke(in, va, (uint32_t[]){(uint32_t)gpr[CPU_RAX], (uint32_t)gpr[CPU_RDX]}, 8);
        break;
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        poke(in, va, (uint64_t[]){gpr[CPU_RAX], gpr[CPU_RDX]}, 16);
        break;
    case ZYDIS_MNEMONIC_DIV:
        gpr[CPU_RDX] = diff_below(r, 16);
        break;
    case ZYDIS_MNEMONIC_IDIV:
        gpr[CPU_RDX] = gpr[CPU_RAX] >> 63 ? ~0ull : 0;
        break;
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
        poke(in, va, &(uint32_t){(uint32_t)(diff_random(r) & 0xffff)}, 4);
        break;
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
        poke(in, va, &selector, 2);
        for (unsigned n = 0; n < 2; n++)
            if (i->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_of(i->op[n].reg.value) >= 0)
                gpr[gpr_of(i->op[n].reg.value)] = selector;
        break;
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
        poke(in, va + i->z.operand_width / 8, &selector, 2);
        break;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        poke(in, va, in->state.xsave, 32);
        break;
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
        if (gpr_of(i->op[0].reg.value) >= 0)
            gpr[gpr_of(i->op[0].reg.value)] = in->state.fs_base;
        break;
    default:
        break;
    }
}

/* ---- the whole ---- */

static bool uses_vectors(const struct diff_insn *i)
{
    if (i->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX || i->z.meta.isa_ext == ZYDIS_ISA_EXT_X87)
        return true;
    for (unsigned n = 0; n < i->z.operand_count; n++) {
        if (i->op[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        ZydisRegisterClass c = ZydisRegisterGetClass(i->op[n].reg.value);
        if (c == ZYDIS_REGCLASS_XMM || c == ZYDIS_REGCLASS_YMM || c == ZYDIS_REGCLASS_MMX ||
            c == ZYDIS_REGCLASS_X87 || i->op[n].reg.value == ZYDIS_REGISTER_MXCSR)
            return true;
    }
    return i->z.meta.isa_ext >= ZYDIS_ISA_EXT_SSE && i->z.meta.isa_ext <= ZYDIS_ISA_EXT_SSE4A;
}

/*
 * An x87 store (or VCVTPS2PH) that meets an unmasked exception may or may not look at its operand first (SDM
 * vol. 3A table 6-2 leaves the order open): if the operand is not a good one, mask the exceptions.
 */
static void mask_bad_store(const struct diff_insn *i, struct diff_state *s)
{
    const ZydisDecodedOperand *o = &i->op[0];

    if ((i->z.meta.isa_ext != ZYDIS_ISA_EXT_X87 && i->z.mnemonic != ZYDIS_MNEMONIC_FISTTP &&
         i->z.mnemonic != ZYDIS_MNEMONIC_VCVTPS2PH) ||
        o->type != ZYDIS_OPERAND_TYPE_MEMORY || !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
        return;
    int64_t at = diff_data_offset(diff_effective_address(s, i, &o->mem), o->size / 8);
    bool code_segment = i->bits == 32 && o->mem.segment == ZYDIS_REGISTER_CS;
    if (at >= 0 && at + o->size / 8 <= (int64_t)DIFF_RW_SIZE && !code_segment)
        return;
    s->xsave[25] |= 0x1f; /* MXCSR */
    s->xsave[24] |= 0x80;
    s->xsave[0] |= 0x3f;
    s->xsave[2] &= 0x7f; /* and nothing is pending any more */
    s->xsave[3] &= 0x7f;
}

/* Accessed in parts, in an order of the processor's own. */
static bool in_pieces(const struct diff_insn *i)
{
    return i->z.mnemonic == ZYDIS_MNEMONIC_MOVBE || i->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

static void aim_operands(struct diff_random *r, const struct diff_insn *i, uint64_t base,
                         struct diff_input *in)
{
    for (unsigned n = 0; n < i->z.operand_count; n++) {
        const ZydisDecodedOperand *o = &i->op[n];
        unsigned size = o->size / 8;

        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
            continue;
        if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
            aim_gather(r, &in->state, i, &o->mem, base);
            continue;
        }
        uint64_t window = i->z.address_width == 64 && i->bits == 64 ? base : DIFF_LOW;
        uint64_t target = choose_target(r, window, in_pieces(i) ? 0 : size, i->bits);
        if (n == 0 && is_bit_string(i) && diff_chance(r, 85)) {
            int source = gpr_of(i->op[1].reg.value);
            in->state.gpr[source] = (uint64_t)((int64_t)diff_below(r, 20000) - 10000);
        }
        aim(&in->state, i, &o->mem, target);
    }
    if (i->bits == 64 && i->z.address_width == 32 && diff_chance(r, 50))
        fill_upper_halves(r, i, &in->state);
    mask_bad_store(i, &in->state);
}

void diff_input_make(struct diff_random *r, const struct diff_insn *i, uint64_t base, struct diff_input *out)
{
    out->n_pokes = 0;
    diff_input_registers(r, i->bits, base, &out->state);
    out->state.rip = i->rip;
    if (!i->valid) {
        return;
    }
    if (uses_vectors(i))
        diff_input_vectors(r, &out->state);
    if ((i->z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) &&
        diff_chance(r, 90))
        out->state.gpr[CPU_RCX] = diff_below(r, diff_chance(r, 80) ? 40 : 3000);
    /* Fast strings look for overlap by linear address: source and destination must not be in different
     * windows. */
    if (i->z.meta.category == ZYDIS_CATEGORY_STRINGOP && i->z.address_width == 32)
        out->state.fs_base = out->state.gs_base = 8;
    aim_operands(r, i, base, out);
    if (i->z.meta.category == ZYDIS_CATEGORY_UNCOND_BR || i->z.meta.category == ZYDIS_CATEGORY_CALL ||
        i->z.meta.category == ZYDIS_CATEGORY_RET) {
        if (diff_chance(r, 85))
            poke_control(r, i, out);
    } else if (diff_chance(r, 60)) {
        poke_special(r, i, out);
    }
    if (i->bits == 32)
        for (unsigned n = 0; n < CPU_GPRS; n++)
            out->state.gpr[n] &= 0xffffffff;
}

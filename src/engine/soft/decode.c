/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Decoding. Called by the translator with the code cache's lock held; the decoders are constant after start.
 */
#include "engine/soft/decode.h"

#include "engine/cpu_state.h"
#include "engine/cpuid.h"
#include "engine/soft/soft_priv.h"

#include <pthread.h>
#include <string.h>

static ZydisDecoder decoders[4]; /* the last: 64-bit code as AMD's processors have it */
static pthread_once_t decoders_once = PTHREAD_ONCE_INIT;

struct soft_register soft_registers[ZYDIS_REGISTER_MAX_VALUE + 1];

static void init_registers(void)
{
    for (unsigned n = 0; n <= ZYDIS_REGISTER_MAX_VALUE; n++) {
        ZydisRegister reg = (ZydisRegister)n;
        struct soft_register *r = &soft_registers[n];

        r->class = (uint8_t)ZydisRegisterGetClass(reg);
        if (r->class >= ZYDIS_REGCLASS_GPR8 && r->class <= ZYDIS_REGCLASS_GPR64) {
            r->bits = (uint8_t)(8u << (r->class - ZYDIS_REGCLASS_GPR8));
            reg = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
        }
        r->number = (uint8_t)ZydisRegisterGetId(reg);
    }
}

static void init_decoders(void)
{
    init_registers();
    ZydisDecoderInit(&decoders[0], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    ZydisDecoderInit(&decoders[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&decoders[2], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderInit(&decoders[3], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (int i = 0; i < 4; i++) {
        /* Not announced to guests: their encodings are other instructions or #UD. */
        ZydisDecoderEnableMode(&decoders[i], ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoders[i], ZYDIS_DECODER_MODE_AMD_BRANCHES, i == 3);
        ZydisDecoderEnableMode(&decoders[i], ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoders[i], ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoders[i], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    }
}

static void find_layout(struct soft_decoded *d, unsigned bits)
{
    struct soft_layout *at = &d->at;
    unsigned n = 0;

    for (;; n++) {
        if (soft_is_prefix(d->bytes[n]))
            at->rex = 0;
        else if (bits == 64 && (d->bytes[n] & 0xf0) == 0x40)
            at->rex = d->bytes[n];
        else
            break;
    }
    /* A REX counts only right before the opcode. */
    if (n && at->rex && (d->bytes[n - 1] & 0xf0) != 0x40)
        at->rex = 0;
    at->prefixes = (uint8_t)n;
    at->opcode = (uint8_t)n;
    if (d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
        at->vex = (uint8_t)n;
        at->vex_size = d->z.raw.vex.size;
        at->opcode = (uint8_t)(n + at->vex_size);
    }
    at->modrm = d->z.raw.modrm.offset;
    at->imm = d->z.raw.imm[0].size ? d->z.raw.imm[0].offset : d->z.length;
}

static void note_register(struct soft_decoded *d, ZydisRegister reg, ZydisOperandActions actions)
{
    unsigned bits = soft_registers[reg].bits;

    if (!bits)
        return;
    if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
        d->high_byte = true;
    uint16_t bit = (uint16_t)(1u << soft_registers[reg].number);
    if (actions & ZYDIS_OPERAND_ACTION_MASK_READ)
        d->reads |= bit;
    if (actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) {
        d->writes |= bit;
        if (bits < 32 || (actions & ZYDIS_OPERAND_ACTION_CONDWRITE))
            d->reads |= bit;
        /* BSF and BSR leave their destination alone when the source is zero; Zydis has it as a plain write.
         */
        if (d->z.mnemonic == ZYDIS_MNEMONIC_BSF || d->z.mnemonic == ZYDIS_MNEMONIC_BSR)
            d->reads |= bit;
    }
}

static uint16_t address_bit(ZydisRegister reg)
{
    return soft_registers[reg].bits ? (uint16_t)(1u << soft_registers[reg].number) : 0;
}

/* Zydis 4.0 takes R13 for the base of a 32-bit address whose SIB byte has none, if REX.B is set. */
static void repair_base(struct soft_decoded *d)
{
    if (d->z.address_width != 32 || d->z.raw.modrm.mod != 0 || d->z.raw.modrm.rm != 4 ||
        d->z.raw.sib.base != 5)
        return;
    for (int n = 0; n < d->z.operand_count; n++) {
        ZydisDecodedOperand *o = &d->ops[n];

        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.base == ZYDIS_REGISTER_R13D) {
            o->mem.base = ZYDIS_REGISTER_NONE;
            o->mem.disp.has_displacement = ZYAN_TRUE;
            o->mem.disp.value = d->z.raw.disp.value;
        }
    }
}

static void note_operands(struct soft_decoded *d)
{
    d->mem = -1;
    for (int n = 0; n < d->z.operand_count; n++) {
        const ZydisDecodedOperand *o = &d->ops[n];

        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            note_register(d, o->reg.value, o->actions);
        } else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            d->address_regs |= address_bit(o->mem.base) | address_bit(o->mem.index);
            if (o->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN && d->mem < 0)
                d->mem = (int8_t)n;
        }
    }
}

static enum soft_fpu_class find_fpu_class(const struct soft_decoded *d)
{
    bool mmx = false, vector = false;

    if (d->z.meta.isa_ext == ZYDIS_ISA_EXT_BASE)
        return FPU_NONE;
    if (d->z.mnemonic == ZYDIS_MNEMONIC_FWAIT)
        return FPU_WAIT;
    if (d->z.meta.category == ZYDIS_CATEGORY_X87_ALU || d->z.meta.isa_ext == ZYDIS_ISA_EXT_X87)
        return FPU_X87;
    for (int n = 0; n < d->z.operand_count; n++) {
        if (d->ops[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        switch (soft_registers[d->ops[n].reg.value].class) {
        case ZYDIS_REGCLASS_MMX:
            mmx = true;
            break;
        case ZYDIS_REGCLASS_XMM:
        case ZYDIS_REGCLASS_YMM:
            vector = true;
            break;
        default:
            if (d->ops[n].reg.value == ZYDIS_REGISTER_MXCSR)
                vector = true;
            break;
        }
    }
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_EMMS:
        return FPU_MMX;
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_CVTSS2SI: /* from memory to a general register */
    case ZYDIS_MNEMONIC_CVTSD2SI:
    case ZYDIS_MNEMONIC_CVTTSS2SI:
    case ZYDIS_MNEMONIC_CVTTSD2SI:
        return FPU_SSE;
    case ZYDIS_MNEMONIC_VCVTSS2SI:
    case ZYDIS_MNEMONIC_VCVTSD2SI:
    case ZYDIS_MNEMONIC_VCVTTSS2SI:
    case ZYDIS_MNEMONIC_VCVTTSD2SI:
        return FPU_AVX;
    case ZYDIS_MNEMONIC_VZEROALL:
    case ZYDIS_MNEMONIC_VZEROUPPER:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
        return FPU_AVX;
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return FPU_X87;
    default:
        break;
    }
    if (vector)
        return d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? FPU_AVX : FPU_SSE;
    return mmx ? FPU_MMX : FPU_NONE;
}

bool soft_needs_alignment(const struct soft_decoded *d)
{
    if (d->mem < 0)
        return false;
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_CMPXCHG16B:
    case ZYDIS_MNEMONIC_CVTPD2PI:
    case ZYDIS_MNEMONIC_CVTTPD2PI:
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
        return true;
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
        return false;
    default:
        return d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && d->ops[d->mem].size == 128 &&
               soft_fpu_class(d) == FPU_SSE;
    }
}

bool soft_x87_waits(const struct soft_decoded *d)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return false;
    default:
        break;
    }
    enum soft_fpu_class class = soft_fpu_class(d);
    return class == FPU_X87 || class == FPU_MMX;
}

/* AMD's processors have near branches of 16 bits in 64-bit mode. Zydis knows the length of their
 * displacement, but not that RIP, what is pushed and what is popped have 16 bits too. */
static void make_short_branch(struct soft_decoded *d)
{
    ZydisDecodedOperand *o = &d->ops[0];

    if (d->z.meta.branch_type != ZYDIS_BRANCH_TYPE_SHORT && d->z.meta.branch_type != ZYDIS_BRANCH_TYPE_NEAR)
        return;
    if (!(d->z.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE) || (d->at.rex & 8))
        return;
    d->z.operand_width = 16;
    if (d->z.operand_count_visible && o->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        o->size = 16;
}

enum soft_decode_result soft_decode(struct soft_decoded *d, const uint8_t *bytes, unsigned length,
                                    unsigned bits, bool amd, uint64_t rip)
{
    pthread_once(&decoders_once, init_decoders);
    const ZydisDecoder *decoder = &decoders[bits == 64 ? (amd ? 3 : 2) : bits == 32 ? 1 : 0];

    memset(&d->at, 0, sizeof(d->at));
    d->reads = d->writes = d->address_regs = 0;
    d->high_byte = false;
    d->row = NULL;
    d->rip = rip;
    if (length > sizeof(d->bytes))
        length = sizeof(d->bytes);
    memset(d->bytes, 0, sizeof(d->bytes));
    memcpy(d->bytes, bytes, length);
    ZyanStatus status = ZydisDecoderDecodeFull(decoder, bytes, length, &d->z, d->ops);
    if (status == ZYDIS_STATUS_NO_MORE_DATA)
        return length < sizeof(d->bytes) ? DECODE_MORE : DECODE_TOO_LONG;
    if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        return DECODE_TOO_LONG;
    if (!ZYAN_SUCCESS(status))
        return DECODE_INVALID;
    find_layout(d, bits);
    repair_base(d);
    if (amd && bits == 64)
        make_short_branch(d);
    note_operands(d);
    d->row = soft_insn_find((uint16_t)d->z.mnemonic);
    d->fpu_class = (uint8_t)find_fpu_class(d);
    return DECODE_OK;
}

bool soft_decode_briefly(ZydisDecodedInstruction *z, const uint8_t *bytes, unsigned length, bool amd)
{
    pthread_once(&decoders_once, init_decoders);
    return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoders[amd ? 3 : 2], NULL, bytes, length, z));
}

static const struct {
    uint8_t isa_ext;
    uint8_t reg, bit;
    bool always;
    uint32_t leaf;
} isa_rows[] = {
#define ISA_ALWAYS(name)              {.isa_ext = ZYDIS_ISA_EXT_##name, .always = true},
#define ISA_EXT(name, leaf, reg, bit) {ZYDIS_ISA_EXT_##name, CPUID_##reg, bit, false, leaf},
#include "engine/soft/isa.def"
};
_Static_assert(ZYDIS_ISA_EXT_MAX_VALUE < SOFT_ISA_EXTS, "struct soft");

bool soft_is_amd(const struct soft_vcpu *c)
{
    return c->soft->amd;
}

void soft_isa_init(struct soft *s)
{
    const struct cpuid_entry *vendor = cpuid_find(s->cpuid, 0, 0);
    uint32_t ebx = vendor ? vendor->reg[CPUID_EBX] : 0;

    s->amd = ebx == 0x68747541 || ebx == 0x6f677948; /* Auth(enticAMD), Hygo(nGenuine) */
    memset(s->isa, 0, sizeof(s->isa));
    for (unsigned n = 0; n < sizeof(isa_rows) / sizeof(isa_rows[0]); n++) {
        uint32_t subleaf = isa_rows[n].leaf == 0xd ? 1 : 0;
        const struct cpuid_entry *e = cpuid_find(s->cpuid, isa_rows[n].leaf, subleaf);

        s->isa[isa_rows[n].isa_ext] =
            isa_rows[n].always || (e && (e->reg[isa_rows[n].reg] >> isa_rows[n].bit & 1));
    }
}

/* Zydis numbers its segment registers in the order of their encoding, as we do. */
static uint8_t segment_of(ZydisRegister reg)
{
    return soft_registers[reg].number < CPU_SEGMENTS ? soft_registers[reg].number : CPU_DS;
}

static void make_operand(const struct soft_decoded *d, const ZydisDecodedOperand *o, struct soft_operand *to)
{
    to->size = (uint8_t)(o->size / 8);
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        to->kind = OPERAND_MEM;
        return;
    }
    if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE || o->type == ZYDIS_OPERAND_TYPE_POINTER) {
        to->kind = OPERAND_IMM;
        return;
    }
    ZydisRegister reg = o->reg.value;
    switch (soft_registers[reg].class) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        to->kind = OPERAND_REG;
        to->reg = soft_registers[reg].number;
        to->high = reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
        break;
    case ZYDIS_REGCLASS_SEGMENT:
        to->kind = OPERAND_SEGMENT;
        to->reg = segment_of(reg);
        break;
    case ZYDIS_REGCLASS_CONTROL:
        to->kind = OPERAND_CR;
        to->reg = soft_registers[reg].number;
        break;
    case ZYDIS_REGCLASS_DEBUG:
        to->kind = OPERAND_DR;
        to->reg = soft_registers[reg].number;
        break;
    case ZYDIS_REGCLASS_MMX:
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
        to->kind = OPERAND_VECTOR;
        to->reg = soft_registers[reg].number;
        break;
    default:
        to->kind = OPERAND_OTHER;
        break;
    }
}

void soft_make_memory(const ZydisDecodedOperand *o, struct soft_insn *i)
{
    i->segment = segment_of(o->mem.segment);
    i->scale = o->mem.scale ? o->mem.scale : 1;
    i->disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
    if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP)
        i->base = INSN_RIP;
    else if (o->mem.base != ZYDIS_REGISTER_NONE)
        i->base = soft_registers[o->mem.base].number;
    if (o->mem.index != ZYDIS_REGISTER_NONE) {
        unsigned class = soft_registers[o->mem.index].class;

        i->vsib = class == ZYDIS_REGCLASS_XMM || class == ZYDIS_REGCLASS_YMM;
        i->index = soft_registers[o->mem.index].number;
    }
}

void soft_make_insn(const struct soft_decoded *d, struct soft_insn *i)
{
    memset(i, 0, sizeof(*i));
    i->mnemonic = (uint16_t)d->z.mnemonic;
    i->length = d->z.length;
    i->operand_size = (uint8_t)(d->z.operand_width / 8);
    i->address_size = (uint8_t)(d->z.address_width / 8);
    if (d->z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
        i->rep = 0xf3;
    else if (d->z.attributes & ZYDIS_ATTRIB_HAS_REPNE)
        i->rep = 0xf2;
    i->lock = (d->z.attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0;
    i->opcode = d->z.opcode;
    i->opcode_map = (uint8_t)d->z.opcode_map;
    i->n_operands = d->z.operand_count_visible < 4 ? d->z.operand_count_visible : 4;
    i->base = i->index = INSN_NO_REG;
    i->segment = CPU_DS;
    for (int n = 0; n < i->n_operands; n++)
        make_operand(d, &d->ops[n], &i->operand[n]);
    for (int n = 0; n < d->z.operand_count; n++) {
        if (d->ops[n].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            d->ops[n].visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
            soft_make_memory(&d->ops[n], i);
            break;
        }
    }
    /* String instructions and the like have hidden operands only: the override applies to the DS one. */
    if (d->mem < 0 || d->z.meta.category == ZYDIS_CATEGORY_STRINGOP ||
        d->z.meta.category == ZYDIS_CATEGORY_IOSTRINGOP) {
        i->segment = CPU_DS;
        if (d->z.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_ES)
            i->segment = CPU_ES;
        else if (d->z.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_CS)
            i->segment = CPU_CS;
        else if (d->z.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_SS)
            i->segment = CPU_SS;
        else if (d->z.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS)
            i->segment = CPU_FS;
        else if (d->z.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS)
            i->segment = CPU_GS;
    }
    i->imm = d->z.raw.imm[0].value.u;
    i->imm2 = (uint16_t)d->z.raw.imm[1].value.u;
    for (int n = 0; n < d->z.operand_count; n++) {
        if (d->ops[n].type == ZYDIS_OPERAND_TYPE_POINTER) {
            i->imm = d->ops[n].ptr.offset;
            i->imm2 = d->ops[n].ptr.segment;
        }
    }
    memcpy(i->raw, d->bytes, sizeof(i->raw));
}

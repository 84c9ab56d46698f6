/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What has been executed: counted by place in the maps, instruction, form of operand, prefix and outcome, and
 * compared with what a full run must reach. A test that silently stops testing something fails here.
 */
#include "diff_run.h"

#include <inttypes.h>
#include <string.h>

static void count_prefixes(struct diff_counts *n, const struct diff_insn *i)
{
    n->prefix_lock += (i->z.attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0;
    n->prefix_address += (i->z.attributes & ZYDIS_ATTRIB_HAS_ADDRESSSIZE) != 0;
    n->prefix_segment += (i->z.attributes & ZYDIS_ATTRIB_HAS_SEGMENT) != 0;
    n->prefix_rep +=
        (i->z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) != 0;
    n->prefix_66 += (i->z.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE) != 0;
    n->rex += (i->z.attributes & ZYDIS_ATTRIB_HAS_REX) != 0;
}

static void count_operands(struct diff_counts *n, const struct diff_insn *i)
{
    switch (i->z.operand_width) {
    case 8:
        n->operand_bits[0]++;
        break;
    case 16:
        n->operand_bits[1]++;
        break;
    case 32:
        n->operand_bits[2]++;
        break;
    case 64:
        n->operand_bits[3]++;
        break;
    default:
        n->operand_bits[4]++;
    }
    if (!(i->z.attributes & ZYDIS_ATTRIB_HAS_MODRM))
        return;
    unsigned mod = i->z.raw.modrm.mod, rm = i->z.raw.modrm.rm;
    n->modrm[mod][rm]++;
    n->rip_relative += i->bits == 64 && mod == 0 && rm == 5;
    if (!(i->z.attributes & ZYDIS_ATTRIB_HAS_SIB))
        return;
    n->sib_scale[i->z.raw.sib.scale]++;
    n->sib_no_index += i->z.raw.sib.index == 4 && !i->z.raw.rex.X;
    n->sib_no_base += i->z.raw.sib.base == 5 && mod == 0;
}

void diff_count(struct diff_run *run, const struct diff_insn *i, const struct diff_class *c,
                const struct diff_result *result)
{
    struct diff_counts *n = &run->counts;

    n->vector[result->vector]++;
    n->space[c->space]++;
    if (result->vector == 14) {
        n->fetch_faults += (result->error & 0x10) != 0;
        if (!(result->error & 0x10))
            n->faults_rw[result->error & 1][result->error >> 1 & 1]++;
    }
    n->page_crossing += (i->rip & (DIFF_PAGE - 1)) + i->length > DIFF_PAGE;
    n->completed += result->vector == DIFF_STEPPED || result->state.rip != i->rip;
    if (!i->valid) {
        n->undecodable++;
        return;
    }
    n->taken_branches += result->state.rip != i->rip && result->state.rip != i->rip + i->length;
    n->mnemonic[i->z.mnemonic]++;
    n->extension[i->z.meta.isa_ext]++;
    count_prefixes(n, i);
    count_operands(n, i);
}

static bool must(const char *what, uint64_t n, uint64_t least)
{
    if (n < least)
        printf("NOT COVERED: %s: %" PRIu64 " executions, at least %" PRIu64 " expected\n", what, n, least);
    return n >= least;
}

static bool check_extensions(const struct diff_counts *n, uint64_t least)
{
    static const ZydisISAExt wanted[] = {
        ZYDIS_ISA_EXT_BASE,      ZYDIS_ISA_EXT_X87,   ZYDIS_ISA_EXT_MMX,   ZYDIS_ISA_EXT_SSE,
        ZYDIS_ISA_EXT_SSE2,      ZYDIS_ISA_EXT_SSE3,  ZYDIS_ISA_EXT_SSSE3, ZYDIS_ISA_EXT_SSE4,
        ZYDIS_ISA_EXT_AES,       ZYDIS_ISA_EXT_AVX,   ZYDIS_ISA_EXT_AVX2,  ZYDIS_ISA_EXT_AVX2GATHER,
        ZYDIS_ISA_EXT_PCLMULQDQ, ZYDIS_ISA_EXT_FMA,   ZYDIS_ISA_EXT_F16C,  ZYDIS_ISA_EXT_BMI1,
        ZYDIS_ISA_EXT_BMI2,      ZYDIS_ISA_EXT_LZCNT, ZYDIS_ISA_EXT_MOVBE, ZYDIS_ISA_EXT_ADOX_ADCX,
    };
    bool ok = true;

    for (unsigned k = 0; k < sizeof(wanted) / sizeof(wanted[0]); k++)
        ok &= must(ZydisISAExtGetString(wanted[k]), n->extension[wanted[k]], least / 10);
    return ok;
}

static bool check_forms(const struct diff_counts *n, unsigned bits, uint64_t least)
{
    char what[64];
    bool ok = true;

    for (unsigned mod = 0; mod < 4; mod++)
        for (unsigned rm = 0; rm < 8; rm++) {
            snprintf(what, sizeof(what), "ModRM with mod %u, rm %u", mod, rm);
            ok &= must(what, n->modrm[mod][rm], least);
        }
    for (unsigned scale = 0; scale < 4; scale++) {
        snprintf(what, sizeof(what), "SIB with scale %u", 1u << scale);
        ok &= must(what, n->sib_scale[scale], least);
    }
    ok &= must("SIB without index", n->sib_no_index, least);
    ok &= must("SIB without base", n->sib_no_base, least);
    ok &= must("LOCK", n->prefix_lock, least);
    ok &= must("address size override", n->prefix_address, least);
    ok &= must("segment override", n->prefix_segment, least);
    ok &= must("repeat prefix", n->prefix_rep, least);
    ok &= must("operand size override", n->prefix_66, least);
    if (bits == 64) {
        ok &= must("REX", n->rex, least);
        ok &= must("RIP-relative", n->rip_relative, least);
        ok &= must("64-bit operands", n->operand_bits[3], least);
    }
    ok &= must("8-bit operands", n->operand_bits[0], least);
    ok &= must("16-bit operands", n->operand_bits[1], least);
    ok &= must("32-bit operands", n->operand_bits[2], least);
    return ok;
}

static bool check_outcomes(const struct diff_counts *n, unsigned bits, uint64_t least)
{
    bool ok = must("completed", n->completed, least * 100);

    ok &= must("branches taken", n->taken_branches, least);
    ok &= must("instructions across pages", n->page_crossing, least);
    ok &= must("#DE", n->vector[0], least / 2);
    ok &= must("#BP", n->vector[3], 1);
    ok &= must("#UD", n->vector[6], least);
    ok &= must("#GP", n->vector[13], least);
    ok &= must("#MF", n->vector[16], least);
    ok &= must("#XM", n->vector[19], least);
    ok &= must("page fault, absent, reading", n->faults_rw[0][0], least);
    ok &= must("page fault, absent, writing", n->faults_rw[0][1], least);
    ok &= must("page fault, read-only, writing", n->faults_rw[1][1], least);
    ok &= must("page fault, fetching", n->fetch_faults, least);
    ok &= must("undecodable", n->undecodable, least);
    if (bits == 64)
        ok &= must("#SS", n->vector[12], least / 2);
    if (bits == 32) {
        ok &= must("#OF", n->vector[4], 1);
        ok &= must("#BR", n->vector[5], 1);
    }
    return ok;
}

static void print_statistics(const struct diff_run *run)
{
    const struct diff_counts *n = &run->counts;
    static const char *const spaces[DIFF_SPACES] = {"one-byte", "0F",       "0F38",    "0F3A",
                                                    "VEX 0F",   "VEX 0F38", "VEX 0F3A"};

    for (unsigned k = 0; k < DIFF_SPACES; k++)
        printf("map %s: %" PRIu64 "\n", spaces[k], n->space[k]);
    for (unsigned k = 0; k <= ZYDIS_ISA_EXT_MAX_VALUE; k++)
        if (n->extension[k])
            printf("extension %s: %" PRIu64 "\n", ZydisISAExtGetString((ZydisISAExt)k), n->extension[k]);
    for (unsigned k = 0; k <= ZYDIS_MNEMONIC_MAX_VALUE; k++)
        if (n->mnemonic[k])
            printf("%s: %" PRIu64 "\n", ZydisMnemonicGetString((ZydisMnemonic)k), n->mnemonic[k]);
}

bool diff_coverage(const struct diff_run *run)
{
    const struct diff_counts *n = &run->counts;
    /* A short run is held to less, a full one to a thousand executions of each kind. */
    uint64_t least = run->executions / 5000;
    bool ok = true;

    if (run->options.statistics)
        print_statistics(run);
    printf("sequences: %" PRIu64 " instructions, %" PRIu64 " executions to the end\nended by:",
           n->sequence_items, n->sequence_ends);
    for (unsigned k = 0; k < 256; k++)
        if (n->vector[k])
            printf(" %s%.0u %" PRIu64,
                   k == DIFF_STEPPED ? "step"
                   : k == DIFF_HUNG  ? "HANG"
                                     : "vector ",
                   k < 32 ? k : 0, n->vector[k]);
    printf("\n");
    if (least > 1000)
        least = 1000;
    /* Each class has its turn again and again, but one turn in ten or so goes to something else. */
    if (run->instructions >= 8ull * run->classes.n_valid) {
        uint32_t missed = 0;
        for (uint32_t k = 0; k < run->classes.n_valid; k++)
            if (!run->classes.class[k].executed && missed++ < 10)
                printf("NOT COVERED: map %u, opcode %02x, prefix %u, W %u, L %u, reg %u: %s\n",
                       run->classes.class[k].space, run->classes.class[k].opcode,
                       run->classes.class[k].prefix, run->classes.class[k].w, run->classes.class[k].l,
                       run->classes.class[k].reg,
                       ZydisMnemonicGetString((ZydisMnemonic)run->classes.class[k].mnemonic));
        ok &= missed == 0;
    }
    for (unsigned k = 0; k < DIFF_SPACES; k++)
        ok &= must("a map", n->space[k], least);
    if (run->options.sequences)
        ok &= must("sequences that end after their last instruction", n->sequence_ends, least);
    ok &= check_extensions(n, least);
    ok &= check_forms(n, run->options.bits, least);
    ok &= check_outcomes(n, run->options.bits, least);
    ok &= must("nothing that hangs", n->vector[DIFF_HUNG] == 0, 1);
    return ok;
}

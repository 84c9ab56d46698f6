/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Batches of single instructions: make one, place it, run it with several inputs on both sides. */
#include "diff_run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUTS 8

/* ---- opening ---- */

static void shuffle(struct diff_run *run)
{
    struct diff_random r = {run->options.seed};
    uint32_t n = run->classes.n_valid;

    for (uint32_t k = 0; k < run->classes.n; k++)
        run->order[k] = k;
    for (uint32_t k = n; k > 1; k--) {
        uint32_t other = diff_below(&r, k), t = run->order[k - 1];
        run->order[k - 1] = run->order[other];
        run->order[other] = t;
    }
}

/* Filling the data anew for each batch would take longer than the executions: copied from a pool. */
#define POOL_SIZE (1u << 20)
static uint8_t pool[POOL_SIZE];

static void fill_data(struct diff_run *run, struct diff_random *r)
{
    const uint8_t *from = pool + 8 * diff_below(r, (POOL_SIZE - DIFF_DATA_SIZE) / 8);

    memcpy(run->memory.native_data, from, DIFF_DATA_SIZE);
    memcpy(run->memory.soft_data, from, DIFF_DATA_SIZE);
}

int diff_run_open(struct diff_run *run, const struct diff_options *options)
{
    run->options = *options;
    run->other = options->self ? &diff_native_again : &diff_soft;
    diff_decoders_init();
    int rc = diff_classes_make(&run->classes, options->bits, options->only);
    if (rc)
        return rc;
    if (!run->classes.n_valid) {
        fprintf(stderr, "soft-diff: no instruction is called %s\n", options->only);
        return -EINVAL;
    }
    run->order = calloc(run->classes.n, sizeof(*run->order));
    if (!run->order)
        return -ENOMEM;
    shuffle(run);
    diff_data_fill(&(struct diff_random){options->seed}, pool, POOL_SIZE);
    rc = diff_memory_open(&run->memory);
    /* The soft engine's signal handlers first: the native side passes on what is not its own. */
    if (!rc)
        rc = run->other->open(&run->memory);
    if (!rc)
        rc = diff_native.open(&run->memory);
    return rc;
}

/* ---- code ---- */

void diff_code_put(struct diff_run *run, unsigned group, uint64_t offset, const uint8_t *bytes, uint64_t len)
{
    uint8_t *code = run->memory.code + group * DIFF_GROUP_CODE;
    uint64_t *dirty = run->code_dirty[group];

    if (dirty[1]) {
        memset(code + dirty[0], DIFF_FILLER, dirty[1]);
        run->other->code_changed(group * DIFF_GROUP_CODE + dirty[0], dirty[1]);
    }
    if (len > DIFF_GROUP_CODE - offset)
        len = DIFF_GROUP_CODE - offset;
    memcpy(code + offset, bytes, len);
    dirty[0] = offset;
    dirty[1] = len;
    run->other->code_changed(group * DIFF_GROUP_CODE + offset, len);
}

/* Where in its group an instruction is placed: mostly in the middle of a page; at the end of the last one;
 * across two; with its end in the hole. */
static uint64_t choose_place(struct diff_random *r)
{
    uint32_t k = diff_below(r, 100);

    if (k < 86)
        return 512 + diff_below(r, 3000);
    if (k < 92)
        return DIFF_PAGE - 1 - diff_below(r, 15);
    return DIFF_GROUP_CODE - 1 - diff_below(r, 16);
}

/* ---- running ---- */

static void apply_pokes(struct diff_run *run, const struct diff_input *in)
{
    for (unsigned n = 0; n < in->n_pokes; n++) {
        memcpy(run->memory.native_data + in->poke[n].offset, in->poke[n].bytes, in->poke[n].len);
        memcpy(run->memory.soft_data + in->poke[n].offset, in->poke[n].bytes, in->poke[n].len);
    }
}

static bool equal_memory(struct diff_run *run, FILE *f)
{
    const uint8_t *a = run->memory.native_data, *b = run->memory.soft_data;
    unsigned shown = 0;

    if (!memcmp(a, b, DIFF_DATA_SIZE))
        return true;
    for (uint64_t n = 0; f && n < DIFF_DATA_SIZE && shown < 4; n += 8)
        if (memcmp(a + n, b + n, 8)) {
            fprintf(f, "  data + %05" PRIx64 ": ", n);
            diff_print_bytes(f, a + n, 8);
            fprintf(f, " | ");
            diff_print_bytes(f, b + n, 8);
            fprintf(f, "\n");
            shown++;
        }
    return false;
}

struct report {
    uint64_t batch;
    bool step;
    uint64_t last_rip; /* of the instruction that it may have ended in */
    void (*describe)(FILE *f, const void *what);
    const void *what;
};

static void print_mismatch(const struct diff_run *run, const struct diff_input *in,
                           const struct report *report, const struct diff_result *native)
{
    const struct diff_options *o = &run->options;

    printf("MISMATCH (--bits %u --seed %" PRIu64 " --batch %" PRIu64
           "%s%s%s --sequences %u)%s: native | %s\n",
           o->bits, o->seed, report->batch, o->only ? " --only " : "", o->only ? o->only : "",
           o->self ? " --self" : "", o->sequences, report->step ? ", stepped" : "", run->other->name);
    report->describe(stdout, report->what);
    printf(" input:\n");
    diff_print_state(stdout, &in->state, o->bits);
    for (unsigned n = 0; n < in->n_pokes; n++) {
        printf("  data + %05" PRIx64 " = ", (uint64_t)in->poke[n].offset);
        diff_print_bytes(stdout, in->poke[n].bytes, in->poke[n].len);
        printf("\n");
    }
    printf(" differences (native vector %u, error %x, cr2 %" PRIx64 ", rip %" PRIx64 "):\n", native->vector,
           native->error, native->cr2, native->state.rip);
}

static bool compare(struct diff_run *run, const struct diff_input *in, const struct report *report,
                    const struct diff_undefined *u, const struct diff_result *native,
                    const struct diff_result *other)
{
    bool faulted = native->vector != DIFF_STEPPED && native->state.rip == report->last_rip;
    unsigned bits = run->options.bits;
    bool same =
        diff_equal(native, other, u, bits, report->step, faulted, NULL) && native->vector != DIFF_HUNG;

    if (u->hole_len)
        memcpy(run->memory.soft_data + u->hole, run->memory.native_data + u->hole, u->hole_len);
    if (u->memory || (u->memory_on_fault && faulted))
        memcpy(run->memory.soft_data, run->memory.native_data, DIFF_DATA_SIZE);
    else
        same = equal_memory(run, NULL) && same;
    if (same)
        return true;
    run->mismatches++;
    print_mismatch(run, in, report, native);
    diff_equal(native, other, u, bits, report->step, faulted, stdout);
    equal_memory(run, stdout);
    return false;
}

bool diff_run_both(struct diff_run *run, const struct diff_input *in, bool step,
                   const struct diff_undefined *u, struct diff_result *native, uint64_t batch,
                   void (*describe)(FILE *f, const void *what), const void *what)
{
    static struct diff_result other;
    const struct report report = {batch, step, in->state.rip, describe, what};

    apply_pokes(run, in);
    diff_native.run(&in->state, step, native);
    run->other->run(&in->state, step, &other);
    run->executions++;
    return compare(run, in, &report, u, native, &other);
}

bool diff_run_both_by_rip(struct diff_run *run, const struct diff_input *in,
                          const struct diff_undefined_by_rip *by, struct diff_result *native, uint64_t batch,
                          void (*describe)(FILE *f, const void *what), const void *what)
{
    static struct diff_result other;
    struct diff_undefined u = {0};

    diff_native.run(&in->state, false, native);
    run->other->run(&in->state, false, &other);
    run->executions++;
    for (unsigned n = 0; n < by->n; n++)
        if (native->state.rip - by->start == by->offset[n])
            u = by->at[n];
    const struct report report = {batch, false, native->state.rip, describe, what};
    return compare(run, in, &report, &u, native, &other);
}

static void describe_insn(FILE *f, const void *what)
{
    const struct diff_insn *i = what;
    ZydisFormatter formatter;
    char text[128] = "(undecodable)";

    if (i->valid) {
        ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
        ZydisFormatterFormatInstruction(&formatter, &i->z, i->op, i->z.operand_count_visible, text,
                                        sizeof(text), i->rip, NULL);
    }
    fprintf(f, " %016" PRIx64 ": ", i->rip);
    diff_print_bytes(f, i->bytes, i->length);
    fprintf(f, "  %s\n", text);
}

/* ---- single instructions ---- */

/* Single-stepping is visible to instructions that handle TF, and stops inside repeated ones. */
static bool may_step(const struct diff_insn *i)
{
    if (!i->valid || (i->z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
                                         ZYDIS_ATTRIB_HAS_REPNE | ZYDIS_ATTRIB_HAS_REPNZ)))
        return false;
    if (i->z.meta.category == ZYDIS_CATEGORY_STRINGOP || i->z.meta.category == ZYDIS_CATEGORY_INTERRUPT)
        return false;
    switch (i->z.mnemonic) {
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_LSS:
        return false;
    default:
        break;
    }
    if (i->z.meta.isa_ext == ZYDIS_ISA_EXT_AVX2GATHER) /* with a trap waiting, it need not go on to a fault */
        return false;
    /* A load of SS holds traps off for one more instruction. */
    return !(i->z.operand_count && i->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
             i->op[0].reg.value == ZYDIS_REGISTER_SS);
}

static bool is_branch(const struct diff_insn *i)
{
    return i->valid && i->z.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE;
}

static bool unknown_here(const struct diff_insn *i)
{
    if (!i->valid)
        return true;
    switch (i->z.meta.isa_ext) {
    case ZYDIS_ISA_EXT_AMD3DNOW:
    case ZYDIS_ISA_EXT_FMA4:
    case ZYDIS_ISA_EXT_SSE4A:
    case ZYDIS_ISA_EXT_TBM:
    case ZYDIS_ISA_EXT_XOP:
        return true;
    case ZYDIS_ISA_EXT_VTX:
        return diff_host_is_amd();
    default: /* Intel's take UD0 and UD1 to have an operand */
        return diff_host_is_amd() &&
               (i->z.mnemonic == ZYDIS_MNEMONIC_UD0 || i->z.mnemonic == ZYDIS_MNEMONIC_UD1);
    }
}

void diff_run_batch(struct diff_run *run, uint64_t batch)
{
    static struct diff_insn insn;
    static struct diff_input in;
    static struct diff_result native;
    struct diff_random r = {run->options.seed * 0x9e3779b97f4a7c15ull ^ (batch * 0xd1342543de82ef95ull)};
    unsigned group = diff_below(&r, DIFF_GROUPS);
    uint64_t base = run->options.bits == 32 || diff_chance(&r, 30) ? DIFF_LOW : DIFF_HIGH;

    fill_data(run, &r);
    memset(&in, 0, sizeof(in));
    diff_input_vectors(&r, &in.state);
    if (diff_chance(&r, run->options.sequences)) {
        diff_sequence_batch(run, &r, batch, group, base);
        return;
    }
    const struct diff_classes *all = &run->classes;
    uint32_t k = run->order[batch % all->n_valid];
    if (all->n > all->n_valid && diff_chance(&r, 4))
        k = all->n_valid + diff_below(&r, all->n - all->n_valid);
    struct diff_class *c = &all->class[k];
    uint64_t place = choose_place(&r);
    if (!diff_insn_make(&r, c, run->options.bits, base + DIFF_CODE + group * DIFF_GROUP + place, false,
                        &insn))
        return;
    /* How many bytes of an instruction that it does not know a processor fetches is its own affair. */
    if (unknown_here(&insn) && place + 15 > DIFF_GROUP_CODE)
        return;
    diff_code_put(run, group, place, insn.bytes, insn.length);
    run->instructions++;
    for (unsigned n = 0; n < INPUTS; n++) {
        struct diff_undefined u;
        bool step = may_step(&insn) && diff_chance(&r, is_branch(&insn) ? 30 : 8);

        diff_input_make(&r, &insn, base, &in);
        diff_undefined(&insn, &in.state, &u);
        c->executed++;
        bool same = diff_run_both(run, &in, step, &u, &native, batch, describe_insn, &insn);
        diff_count(run, &insn, c, &native);
        if (!same)
            return;
    }
}

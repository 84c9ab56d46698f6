/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One run of the differential test: batches, and what has been covered. */
#ifndef TABIQUE_TESTS_SOFT_DIFF_RUN_H
#define TABIQUE_TESTS_SOFT_DIFF_RUN_H

#include "diff.h"

struct diff_options {
    uint64_t count, seed;
    unsigned bits;
    const char *only;    /* mnemonic, or NULL */
    uint64_t only_batch; /* or UINT64_MAX */
    unsigned sequences;  /* percent of batches */
    unsigned reports;
    bool self, statistics;
};

/* Executions by what must not be forgotten. */
struct diff_counts {
    uint64_t space[DIFF_SPACES];
    uint64_t mnemonic[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    uint64_t extension[ZYDIS_ISA_EXT_MAX_VALUE + 1];
    uint64_t vector[256];
    uint64_t modrm[4][8], sib_scale[4], sib_no_index, sib_no_base, rip_relative;
    uint64_t prefix_lock, prefix_address, prefix_segment, prefix_rep, prefix_66, rex;
    uint64_t operand_bits[5]; /* 8, 16, 32, 64, other */
    uint64_t faults_rw[2][2]; /* page faults: not present, protection; read, write */
    uint64_t fetch_faults, page_crossing, taken_branches, completed;
    uint64_t undecodable;
    uint64_t sequence_items, sequence_ends; /* instructions in sequences; sequences that ran to their end */
};

struct diff_run {
    struct diff_options options;
    struct diff_memory memory;
    struct diff_classes classes;
    uint32_t *order; /* the classes, shuffled */
    const struct diff_side *other;
    struct diff_counts counts;
    uint64_t executions, instructions, sequences, mismatches;
    uint64_t code_dirty[DIFF_GROUPS][2]; /* what is not filler */
};

int diff_run_open(struct diff_run *run, const struct diff_options *options);
void diff_run_batch(struct diff_run *run, uint64_t batch);

/* Puts code into a group (offset and length within it), the rest of which becomes filler. */
void diff_code_put(struct diff_run *run, unsigned group, uint64_t offset, const uint8_t *bytes, uint64_t len);
/* Runs both sides on `in` (pokes applied) and compares. `title` and i (may be NULL) are for the report. */
bool diff_run_both(struct diff_run *run, const struct diff_input *in, bool step,
                   const struct diff_undefined *u, struct diff_result *native, uint64_t batch,
                   void (*describe)(FILE *f, const void *what), const void *what);

/* The same where what is undefined depends on the place at which the native side stopped. */
#define DIFF_PLACES 40
struct diff_undefined_by_rip {
    uint64_t start;
    unsigned n;
    uint64_t offset[DIFF_PLACES]; /* ascending, from start */
    const struct diff_undefined *at;
};
bool diff_run_both_by_rip(struct diff_run *run, const struct diff_input *in,
                          const struct diff_undefined_by_rip *by, struct diff_result *native, uint64_t batch,
                          void (*describe)(FILE *f, const void *what), const void *what);

/* sequence.c */
void diff_sequence_batch(struct diff_run *run, struct diff_random *r, uint64_t batch, unsigned group,
                         uint64_t base);

/* coverage.c */
void diff_count(struct diff_run *run, const struct diff_insn *i, const struct diff_class *c,
                const struct diff_result *result);
/* Prints; false if something that must be covered was not. */
bool diff_coverage(const struct diff_run *run);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The differential test's program: options, the order of the work, statistics and verdict.
 *
 *     soft-diff [--count N] [--seed N] [--bits 32|64] [--only MNEMONIC] [--batch N] [--self]
 *               [--without-pext]
 *
 * Work comes in batches: one instruction (or one sequence) with several inputs. A batch depends on the seed
 * and its number only, so that `--seed S --batch N` repeats it alone.
 */
#include "diff_run.h"

#include "engine/soft/soft.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_REPORTS 20

static struct diff_options options = {.count = 5000000, .seed = 1, .bits = 64, .only_batch = UINT64_MAX};

static int usage(int status)
{
    fprintf(status ? stderr : stdout,
            "usage: soft-diff [--count N] [--seed N] [--bits 32|64] [--only MNEMONIC] [--batch N]\n"
            "                 [--sequences PERCENT] [--self] [--without-pext] [--statistics] [--reports N]\n"
            "Compares the soft engine with this computer's processor.\n"
            "  --count N       executions (default 5000000)\n"
            "  --seed N        of the random numbers (default 1)\n"
            "  --bits 32|64    mode of the processor (default 64)\n"
            "  --only NAME     instructions of this name alone\n"
            "  --batch N       this batch alone, as a mismatch names it\n"
            "  --sequences P   percent of the batches that are sequences of instructions\n"
            "  --self          the host's processor with itself: finds faults of the test\n"
            "  --without-pext  the soft engine as on processors that have no (fast) PEXT\n"
            "  --statistics    executions by instruction\n"
            "  --reports N     stop after N mismatches (default 20)\n");
    return status;
}

static int parse(int argc, char **argv)
{
    enum { COUNT = 1, SEED, BITS, ONLY, BATCH, SEQUENCES, SELF, WITHOUT_PEXT, STATISTICS, REPORTS, HELP };
    static const struct option longs[] = {{"count", required_argument, NULL, COUNT},
                                          {"seed", required_argument, NULL, SEED},
                                          {"bits", required_argument, NULL, BITS},
                                          {"only", required_argument, NULL, ONLY},
                                          {"batch", required_argument, NULL, BATCH},
                                          {"sequences", required_argument, NULL, SEQUENCES},
                                          {"self", no_argument, NULL, SELF},
                                          {"without-pext", no_argument, NULL, WITHOUT_PEXT},
                                          {"statistics", no_argument, NULL, STATISTICS},
                                          {"help", no_argument, NULL, HELP},
                                          {"reports", required_argument, NULL, REPORTS},
                                          {NULL, 0, NULL, 0}};

    options.sequences = 15;
    options.reports = MAX_REPORTS;
    for (int o; (o = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        uint64_t v = optarg ? strtoull(optarg, NULL, 0) : 0;
        switch (o) {
        case COUNT:
            options.count = v;
            break;
        case SEED:
            options.seed = v;
            break;
        case BITS:
            if (v != 32 && v != 64)
                return usage(2);
            options.bits = (unsigned)v;
            break;
        case ONLY:
            options.only = optarg;
            options.sequences = 0;
            break;
        case BATCH:
            options.only_batch = v;
            break;
        case SEQUENCES:
            options.sequences = (unsigned)v;
            break;
        case SELF:
            options.self = true;
            break;
        case WITHOUT_PEXT:
            diff_soft_without = SOFT_WITHOUT_PEXT;
            break;
        case STATISTICS:
            options.statistics = true;
            break;
        case REPORTS:
            options.reports = (unsigned)v;
            break;
        case HELP:
            exit(usage(0));
        default:
            return usage(2);
        }
    }
    return optind == argc ? 0 : usage(2);
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    static struct diff_run run;
    int rc = parse(argc, argv);

    if (rc)
        return rc;
    setvbuf(stdout, NULL, _IOLBF, 0);
#ifdef __SANITIZE_ADDRESS__
    /* Its shadow memory, terabytes at the very addresses that the guest finds unmapped, changes what the host
     * does. */
    puts("skipped: AddressSanitizer has mapped the addresses that must be free; the plain build runs it");
    return 77;
#endif
    rc = diff_run_open(&run, &options);
    if (rc < 0) {
        fprintf(stderr, "soft-diff: can't start: %s\n", strerror(-rc));
        return 1;
    }
    double start = seconds();
    printf("%u bits, seed %" PRIu64 ": %u classes of encoding, %u of them of known instructions\n",
           options.bits, options.seed, run.classes.n, run.classes.n_valid);
    if (options.only_batch != UINT64_MAX) {
        diff_run_batch(&run, options.only_batch);
    } else {
        for (uint64_t batch = 0; run.executions < options.count && run.mismatches < options.reports; batch++)
            diff_run_batch(&run, batch);
    }
    double took = seconds() - start;
    printf("%" PRIu64 " executions of %" PRIu64 " instructions and %" PRIu64 " sequences in %.1f s; %" PRIu64
           " mismatches\n",
           run.executions, run.instructions, run.sequences, took, run.mismatches);
    bool complete = options.only || options.only_batch != UINT64_MAX || diff_coverage(&run);
    return run.mismatches || !complete ? 1 : 0;
}

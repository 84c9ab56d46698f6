/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs a fuzz target over the files given, directories with all that they hold: libFuzzer's part of the work
 * in builds without it, so that every seed, and every input that once crashed, stays a test.
 */
#include "base/cleanup.h"

#include <errno.h>
#include <fts.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
    cleanup_fclose FILE *file = fopen(path, "rbe");
    cleanup_free char *buffer = NULL;
    size_t size = 0;
    cleanup_fclose FILE *memory = open_memstream(&buffer, &size);
    char block[4096];
    size_t n;

    if (!file || !memory) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    while ((n = fread(block, 1, sizeof(block), file)) > 0)
        fwrite(block, 1, n, memory);
    if (ferror(file) || fflush(memory) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    /* A copy of the exact size, so that a sanitizer sees the first byte behind it. */
    cleanup_free uint8_t *input = malloc(size ? size : 1);
    if (!input)
        return -1;
    memcpy(input, buffer, size);
    LLVMFuzzerTestOneInput(input, size);
    return 0;
}

int main(int argc, char **argv)
{
    unsigned done = 0, failed = 0;

    if (argc < 2) {
        fprintf(stderr, "usage: %s FILE-OR-DIRECTORY...\n", argv[0]);
        return 2;
    }
    FTS *walk = fts_open(argv + 1, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    for (FTSENT *e; walk && (e = fts_read(walk));) {
        if (e->fts_info == FTS_F) {
            if (replay(e->fts_accpath) == 0)
                done++;
            else
                failed++;
        } else if (e->fts_info == FTS_ERR || e->fts_info == FTS_NS || e->fts_info == FTS_DNR) {
            fprintf(stderr, "%s: %s\n", e->fts_path, strerror(e->fts_errno));
            failed++;
        }
    }
    if (walk)
        fts_close(walk);
    printf("%u inputs replayed, %u failed\n", done, failed);
    /* An empty corpus tests nothing. */
    return failed || !done;
}

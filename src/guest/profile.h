/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes down where a guest's processors have been found, for programs that draw it. Takes the answers to the
 * request `profile` (docs/control-protocol.md). Called by the verb `profile`. No locks.
 */
#ifndef TABIQUE_GUEST_PROFILE_H
#define TABIQUE_GUEST_PROFILE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct error;
struct profile;
struct symbols;

enum profile_format {
    PROFILE_FOLDED, /* a line for each stack, the outermost first, by semicolons, and how often it was found
                     */
    PROFILE_PERF,   /* as `perf script` prints samples */
};

struct profile_config {
    FILE *out;
    enum profile_format format;
    bool activities;         /* the innermost frame is what the processor's thread was at */
    struct symbols *symbols; /* not settled yet; stays the caller's */
};

/* NULL if there is no memory. The configuration is copied. */
struct profile *profile_new(const struct profile_config *config);
void profile_free(struct profile *profile);

/* Takes an answer. 0; or -EPROTO with *err. */
int profile_add(struct profile *profile, const json_t *answer, struct error **err);
/* Writes what is left. 0 or -errno with *err. */
int profile_end(struct profile *profile, struct error **err);

/* All looks so far, and those of them that have been lost. */
uint64_t profile_looks(const struct profile *profile, uint64_t *lost);

#endif

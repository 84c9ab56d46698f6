/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk whose every sector says which write it is from, and a record of what was asked for: so that after an
 * end at any moment it can be told whether each sector holds what was flushed or something written later, and
 * not what was never there.
 */
#ifndef TABIQUE_TESTS_DISK_STAMPS_H
#define TABIQUE_TESTS_DISK_STAMPS_H

#include "image.h"

struct stamps {
    uint64_t random;
    uint32_t n;       /* sectors */
    uint32_t version; /* of the last operation */
    /* Of each sector: the last operation, the last one that is sure to stay, the last zeroing, the last
     * discard. */
    struct stamp {
        uint32_t issued, flushed, zeroed, discarded;
    } sectors[];
};

/* In memory that a child process shares. Free with stamps_free. */
struct stamps *stamps_new(uint32_t n_sectors, uint64_t seed);
void stamps_free(struct stamps *s);
uint64_t stamps_random(struct stamps *s, uint64_t below);

/* Several random requests at once, waited for. With `flush` one more, a flush, that is recorded. */
void stamps_batch(struct stamps *s, struct image *image, bool flush);
/* All that was recorded as flushed must be there. Takes what is there for the state to go on with. */
void stamps_check(struct stamps *s, struct image *image);

#endif

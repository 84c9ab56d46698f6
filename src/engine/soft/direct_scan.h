/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which pages of code must not be executed in a stub: those with instructions that tell of the host's
 * processor what is different in the guest's. Their bytes stand within other instructions as well, and in
 * tables, so it is found out where instructions begin. No state of its own.
 */
#ifndef TABIQUE_ENGINE_SOFT_DIRECT_SCAN_H
#define TABIQUE_ENGINE_SOFT_DIRECT_SCAN_H

#include <stdbool.h>
#include <stdint.h>

struct direct_scan {
    bool amd;
    bool more_state; /* the host has more of XCR0's components than the guest */
};

/* Where they are: of each the byte after the escape byte 0F, as an offset in the page. */
#define DIRECT_SITES 48u
struct direct_sites {
    unsigned n;
    uint16_t at[DIRECT_SITES];
};

enum direct_verdict {
    DIRECT_HARMLESS,
    DIRECT_CERTAIN, /* sites: all that there are, and beyond doubt instructions */
    DIRECT_DOUBTFUL,
};

/* Whether the page holds such instructions, or the end of one. `before`: the page that lies before it in the
 * address space, or NULL where that is not known. */
enum direct_verdict direct_scan_page(const struct direct_scan *scan, const uint8_t *before,
                                     const uint8_t *page, struct direct_sites *sites);

/* Of all that the verdict hangs on; never 0. */
uint64_t direct_scan_hash(const struct direct_scan *scan, const uint8_t *before, const uint8_t *page);

#endif

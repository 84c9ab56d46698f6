/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checking a qcow2 file, which may be damaged in any way or made with ill intent. How often each cluster is
 * used is counted anew from what refers to it, and held against what the file says:
 *
 *   1. the tables whose place the header tells, and the L2 tables    what shares bytes with one is wrong
 *   2. what L2 tables refer to
 *   3. refcount blocks and their table
 *   4. each count is compared; then each COPIED flag
 *
 * Memory: 4 bytes for each cluster of the file that is in use, in pages; CHECK_MEMORY at most. One thread.
 */
#ifndef TABIQUE_DISK_QCOW2_CHECK_PRIV_H
#define TABIQUE_DISK_QCOW2_CHECK_PRIV_H

#include "disk/qcow2_priv.h"

#define CHECK_MEMORY (1ull << 30)

/* ---- qcow2_counts.c: a number for each cluster of a file of any size ---- */

#define COUNT_MASK  0x0fffffffu /* it stays at that */
#define COUNT_TABLE (1u << 31)  /* some table lies here */
#define COUNT_L2    (1u << 30)  /* an L2 table */
/* What the file has as refcount, once that is known: neither of them is 0. */
#define COUNT_IS_1    (1u << 28)
#define COUNT_IS_MORE (1u << 29)

struct counts {
    void *root;
    unsigned levels;
    uint64_t bytes; /* of memory */
    uint64_t page;  /* the one that was used last, and its number */
    uint32_t *last;
};

/* For `n` clusters. 0 or -errno. */
int counts_init(struct counts *c, uint64_t n);
void counts_free(struct counts *c);
/* The number of a cluster, 0 where none was set. */
uint32_t counts_get(struct counts *c, uint64_t cluster);
/* Its place; NULL if there is no memory for it. */
uint32_t *counts_at(struct counts *c, uint64_t cluster);
/* The first cluster from `from` on that may have a number; UINT64_MAX if there is none. */
uint64_t counts_next(const struct counts *c, uint64_t from);

/* ---- qcow2_check.c ---- */

struct qcow2_check {
    struct disk_check *c;
    struct qcow2_header h;
    int fd;
    uint64_t file_end, n_clusters;
    uint32_t cluster_size, n_entries, entry_size; /* of an L2 table */
    bool own_data;                                /* data clusters are in this file */
    uint64_t *l1;
    uint64_t *reftable;
    uint64_t n_reftable;
    bool rebuild; /* the refcounts are to be written anew */
    bool changed; /* something was written */
    bool dry;     /* counts are compared, and nobody is told */
    bool too_low; /* some count is */
    struct qcow2_snapshots snapshots;
    bool drop_snapshots; /* some can't be kept: `kept` says which can */
    bool *kept;
    struct counts counts;
    uint8_t *table, *block; /* a cluster each */
    uint64_t highest;       /* the last cluster that anything refers to */
    uint64_t l2_seen, l2_all;
};

static inline bool qcow2_check_repairs(const struct qcow2_check *k)
{
    return k->c->repair == DISK_REPAIR_ALL;
}

/* One reference more to each cluster of these bytes. With `flags` a table lies there; *shared: something else
 * did already. 0 or -errno. */
int qcow2_check_mark(struct qcow2_check *k, uint64_t offset, uint64_t len, uint32_t flags, bool *shared);
/* One less. */
void qcow2_check_unmark(struct qcow2_check *k, uint64_t offset, uint64_t len);
/* Whether a table lies in these bytes. */
bool qcow2_check_hits_table(struct qcow2_check *k, uint64_t offset, uint64_t len);
/* Whether the bytes are a hole of the file, so that they are zeros and need not be read. */
bool qcow2_check_is_hole(const struct qcow2_check *k, uint64_t offset, uint64_t len);
/* Whether something of this length may be at this offset of the file. */
bool qcow2_check_fits(const struct qcow2_check *k, uint64_t offset, uint64_t len);

/* ---- qcow2_check_map.c ---- */

/* Marks what an L1 table refers to. `index`: of the snapshot, -1: the disk's own. 0 or -errno. */
int qcow2_check_l1(struct qcow2_check *k, uint64_t *l1, uint64_t offset, uint32_t n, int64_t index);
/* Marks what all L2 tables refer to that were marked. */
int qcow2_check_l2s(struct qcow2_check *k);
/* Holds the COPIED flags of the disk's own tables against the refcounts; and tells how the disk lies. */
int qcow2_check_flags(struct qcow2_check *k);

/* ---- qcow2_check_refcounts.c ---- */

/* Marks blocks and their table. */
int qcow2_check_blocks(struct qcow2_check *k);
/* Compares all counts, and mends them. */
int qcow2_check_counts(struct qcow2_check *k, struct error **err);

#endif

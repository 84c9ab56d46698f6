/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the two readings of statistics share. */
#ifndef TABIQUE_CONTAINER_CGROUP_STATS_PRIV_H
#define TABIQUE_CONTAINER_CGROUP_STATS_PRIV_H

#include "container/cgroup_priv.h"

void stats_put(json_t *object, const char *name, int64_t value);
/* The number that is in a file; false where there is none. `directory` may be NULL. */
bool stats_put_file(json_t *object, const char *name, const char *directory, const char *file);
/* A file of lines "key number" as an object; empty where there is none. */
json_t *stats_flat(const char *directory, const char *file);
/* Pressure stall information as "psi". */
void stats_put_pressure(json_t *object, const char *directory, const char *file);
/* A file with a set as "0-3,7" as a list of numbers. */
void stats_put_set(json_t *object, const char *name, const char *directory, const char *file);
json_t *stats_block_entry(uint32_t major, uint32_t minor, const char *op, int64_t value);
/* Huge pages by their size, each with usage, max and failcnt; the arguments are the ends of the files' names.
 */
json_t *stats_hugetlb(const char *directory, const char *usage, const char *max, const char *failed);

void stats_fill_v1(json_t *stats, const struct cgroup *cgroup);
void stats_fill_v2(json_t *stats, const struct cgroup *cgroup);

#endif

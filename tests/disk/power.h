/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A host that loses power: all writes of the program to files are logged, by standing in for the C library's
 * calls, and a file is built anew from the log up to a chosen moment: everything before the last sync, and
 * after it each write or sector or not, in any combination.
 */
#ifndef TABIQUE_TESTS_DISK_POWER_H
#define TABIQUE_TESTS_DISK_POWER_H

#include "stamps.h"

/* Begins with an empty log; ends logging. Images must be opened with IMAGE_NO_URING: what its ring writes is
 * not seen here. */
void power_log_begin(void);
void power_log_end(void);
/* Goes on with the log as it is. */
void power_log_go_on(void);
void power_log_free(void);
/* How many entries there are. */
unsigned power_log_length(void);
/* So many of the next syncs fail; how many are left. */
void power_fail_syncs(unsigned n);
unsigned power_syncs_to_fail(void);

/* The image has a second file at `path`, which was a copy of `start`; NULL: it has one alone. power_build
 * makes it anew under its own name. */
void power_also(const char *path, const char *start);
/* Makes `path` what the file `start` may be when power went before log entry `cut`. */
void power_build(struct stamps *s, const char *start, const char *path, unsigned cut);

#endif

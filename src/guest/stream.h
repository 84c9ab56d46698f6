/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk of a guest that runs is filled with all that it is based on (disk/fill.h), and stands alone from
 * then on; what nothing else needs of the rest is deleted. Called by the command line.
 */
#ifndef TABIQUE_GUEST_STREAM_H
#define TABIQUE_GUEST_STREAM_H

#include "disk/job.h"

struct error;
struct home;

/* `disk`: "vda"; NULL: the only one. `rate`: bytes a second; 0: no limit. 0 or -errno with *err; then the
 * disk is still based on what it was, and what was copied is not lost. */
int guest_stream(const struct home *home, const char *guest, const char *disk, uint64_t rate,
                 const struct disk_job *job, struct error **err);

#endif

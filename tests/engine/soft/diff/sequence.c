/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sequences: see diff_sequence_batch. */
#include "diff_run.h"
void diff_sequence_batch(struct diff_run *run, struct diff_random *r, uint64_t batch, unsigned group,
                         uint64_t base)
{
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random requests on an image. See random.c. */
#ifndef TABIQUE_TESTS_DISK_RANDOM_H
#define TABIQUE_TESTS_DISK_RANDOM_H

#include "image.h"

/* Chooses the seed, and prints it; TABIQUE_SEED repeats a run, TABIQUE_TESTS is a pattern of the names of
 * those that are run. */
void random_begin(void);
/* QEMU does not know what the images are, so it is not asked. */
void random_without_qemu(bool without);
/* On an image of 24 MiB at most. A batch has up to 12 requests, 6 in the mean. */
void random_run(const char *path, const char *format, unsigned batches);
/* The same; between batches with `sizes` the disk becomes larger and smaller, with `snapshots` some are made,
 * applied and deleted: what they have had, they have. TABIQUE_STEPS: how many batches and other operations,
 * instead. */
void random_life(const char *path, const char *format, bool sizes, bool snapshots, unsigned steps);
/* And with a bitmap, which must know of all that changes; on top of another image, into which it is committed
 * now and then. */
enum random_with { RANDOM_BITMAP = 1, RANDOM_BASE = 2 };
void random_life_with(const char *path, const char *format, unsigned with, bool sizes, bool snapshots,
                      unsigned steps);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random requests on an image. See random.c. */
#ifndef TABIQUE_TESTS_DISK_RANDOM_H
#define TABIQUE_TESTS_DISK_RANDOM_H

#include "image.h"

/* Chooses the seed, and prints it; TABIQUE_SEED repeats a run. */
void random_begin(void);
/* On an image of 24 MiB at most. A batch has up to 12 requests, 6 in the mean. */
void random_run(const char *path, const char *format, unsigned batches);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a process has open. No state. */
#ifndef TABIQUE_HOST_DESCRIPTORS_H
#define TABIQUE_HOST_DESCRIPTORS_H

#include <stddef.h>

/* Closes all descriptors from `first` on but the `n` of `keep`, in any order; negative ones among them are
 * none. 0 or -errno. */
int descriptors_close_but(int first, const int *keep, size_t n);

#endif

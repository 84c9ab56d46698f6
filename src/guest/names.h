/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The names of guests: which are allowed, and new ones for those who are given none. */
#ifndef TABIQUE_GUEST_NAMES_H
#define TABIQUE_GUEST_NAMES_H

#include <stddef.h>

struct error;

#define NAME_MAX_LENGTH 63

/* 0, or -EINVAL with *err. */
int name_check(const char *name, struct error **err);

/* Makes up a name of two words; from the `attempt`-th on (0, 1, ...) with a number, so that one is free. */
void name_invent(char *buf, size_t len, unsigned attempt);

#endif

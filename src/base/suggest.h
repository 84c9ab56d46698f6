/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "Did you mean ...?": which known name a mistyped one is nearest to. */
#ifndef TABIQUE_BASE_SUGGEST_H
#define TABIQUE_BASE_SUGGEST_H

#include <stddef.h>

/* Which of `n` names is nearest to `text` and near enough to be meant, or NULL. */
const char *suggest_nearest(const char *text, const char *const *names, size_t n);

#endif

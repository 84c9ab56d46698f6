/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "diff.h"
const struct diff_side diff_soft = {"soft", NULL, NULL, NULL};

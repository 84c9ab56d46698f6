/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What must hold after an input, whatever it was. */
#ifndef TABIQUE_FUZZ_REQUIRE_H
#define TABIQUE_FUZZ_REQUIRE_H

#include <stdio.h>
#include <stdlib.h>

#define REQUIRE(condition)                                                                                   \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                   \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#endif

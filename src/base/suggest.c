/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "Did you mean ...?": the nearest of some names. Called where a person names something. No state. */
#include "base/suggest.h"

#include <stdint.h>
#include <string.h>

#define LENGTH_MAX 32

/*
 * How many insertions, deletions, substitutions and swaps of neighbours turn `a` into `b` (optimal string
 * alignment): row i of the matrix holds the costs for a's first i characters.
 */
static size_t distance(const char *a, const char *b)
{
    size_t row[3][LENGTH_MAX + 1];
    size_t la = strlen(a), lb = strlen(b);

    if (la > LENGTH_MAX || lb > LENGTH_MAX)
        return SIZE_MAX;
    for (size_t j = 0; j <= lb; j++)
        row[0][j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t *now = row[i % 3], *before = row[(i + 2) % 3], *two_before = row[(i + 1) % 3];

        now[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t best = before[j - 1] + (a[i - 1] != b[j - 1]);

            if (best > before[j] + 1)
                best = before[j] + 1;
            if (best > now[j - 1] + 1)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                best > two_before[j - 2] + 1)
                best = two_before[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[la % 3][lb];
}

const char *suggest_nearest(const char *text, const char *const *names, size_t n)
{
    const char *nearest = NULL;
    size_t least = SIZE_MAX;

    for (size_t i = 0; i < n; i++) {
        size_t d = distance(text, names[i]);
        size_t len = strlen(text);

        /* The beginning of a name is meant as an abbreviation. */
        if (len >= 2 && strncmp(text, names[i], len) == 0)
            d = 1;
        /* More than a quarter of it wrong, and one, is another word. */
        if (d > 1 + strlen(names[i]) / 4 || d >= strlen(names[i]))
            continue;
        if (d < least) {
            least = d;
            nearest = names[i];
        }
    }
    return nearest;
}

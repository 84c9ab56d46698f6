/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See show.h. No locks, no state. */
#include "cli/show.h"

#include <stdio.h>
#include <string.h>

const char *cli_human_size(uint64_t bytes, char buf[16])
{
    static const char units[] = "BKMGT";
    double n = (double)bytes;
    int unit = 0;

    for (; n >= 1024 && unit < 4; unit++)
        n /= 1024;
    bool whole = n >= 10 || n == (double)(uint64_t)n;
    snprintf(buf, 16, whole ? "%.0f%c" : "%.1f%c", n, units[unit]);
    return buf;
}

void cli_bar_show(struct cli_bar *bar, const char *what, double fraction)
{
    char filled[31], text[96];

    if (!bar->terminal) {
        if (strcmp(bar->last, what) != 0)
            fprintf(stderr, "%s\n", what);
        snprintf(bar->last, sizeof(bar->last), "%s", what);
        return;
    }
    for (int i = 0; i < 30; i++)
        filled[i] = i < (int)(fraction * 30 + 0.5) ? '#' : '.';
    filled[30] = '\0';
    snprintf(text, sizeof(text), "[%s] %3d%% %.40s", filled, (int)(fraction * 100), what);
    if (strcmp(text, bar->last) == 0)
        return;
    fprintf(stderr, "\r%s\033[K", text);
    snprintf(bar->last, sizeof(bar->last), "%s", text);
}

void cli_bar_end(struct cli_bar *bar)
{
    if (bar->terminal && bar->last[0])
        fputs("\r\033[K", stderr);
}

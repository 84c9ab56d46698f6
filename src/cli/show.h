/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What commands show a person: sizes, and bars for what takes a while. */
#ifndef TABIQUE_CLI_SHOW_H
#define TABIQUE_CLI_SHOW_H

#include <stdbool.h>
#include <stdint.h>

/* With one digit behind the point where it says something: "4G", "371M", "1.5K". */
const char *cli_human_size(uint64_t bytes, char buf[16]);

struct cli_bar {
    bool terminal;
    char last[96]; /* what is shown */
};

/* On a terminal a bar; elsewhere a line whenever `what` changes. */
void cli_bar_show(struct cli_bar *bar, const char *what, double fraction);
/* Wipes the bar away. */
void cli_bar_end(struct cli_bar *bar);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What this host can do for guests: processor, engines, and the parts of Linux that isolate. Called by
 * `tabique check`. Changes nothing on the host; forks short-lived children to try what only trying tells.
 */
#ifndef TABIQUE_GUEST_CHECK_H
#define TABIQUE_GUEST_CHECK_H

#include <stdbool.h>
#include <stddef.h>

#define CHECK_ITEMS_MAX   16
#define CHECK_ENGINES_MAX 8

struct check_item {
    const char *name; /* one word or two, of static storage */
    bool ok;
    char *found;        /* what is there, one line */
    const char *advice; /* what to do about it, of static storage; NULL where nothing is to be done */
};

struct check_engine {
    const char *name;
    const char *summary;
    bool usable;
    char *reason; /* why not, and what would help; NULL if usable */
};

struct check_report {
    struct check_item items[CHECK_ITEMS_MAX];
    size_t n_items;
    struct check_engine engines[CHECK_ENGINES_MAX];
    size_t n_engines;
    const char *automatic; /* the engine that `auto` takes, or NULL */
};

/* Fills *report; what can't be found out is told as such. Free with check_report_clear. */
void check_host(struct check_report *report);
void check_report_clear(struct check_report *report);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the verbs on guests have in common. */
#ifndef TABIQUE_CLI_GUESTS_H
#define TABIQUE_CLI_GUESTS_H

#include "cli/cli.h"
#include "guest/control.h"
#include "guest/guest.h"

#include <jansson.h>

/* A guest's row for programs; `whole` with its configuration and its files. To be released; NULL if there is
 * no memory. */
json_t *cli_guest_json(const struct home *home, const struct guest_row *row, bool whole);
/* Prints JSON and a newline. 0 or -errno with *err. Releases `json`, which may be NULL: no memory. */
int cli_print_json(json_t *json, size_t flags, struct error **err);

/* "2026-01-31T12:00:00.123Z" */
void cli_format_time(char *buf, size_t len, int64_t ns);
/* How long, in two words at most: "3 minutes". */
void cli_format_span(char *buf, size_t len, int64_t ns);
/* "512M": in the largest unit that leaves no remainder; `exact` false: rounded, as "1.5G". */
void cli_format_bytes(char *buf, size_t len, uint64_t bytes, bool exact);

/* run_config.c: the flags of `run` as a guest's configuration (guest/config.h); to be freed. NULL with *err.
 */
char *cli_run_config(const struct cli_values *values, struct error **err);
/* 1500 is 1.5, and 2000 is 2. */
json_t *cli_decimal_json(uint64_t thousandths);

/* snapshot.c: what --freeze says. */
enum control_freeze cli_freeze(const struct cli_values *values);

/* start.c: starts a guest that does not run. 0 or -errno with *err. */
int cli_start_guest(const struct home *home, const char *name, struct error **err);

/* Calls fn for each of the names; one that fails is told and does not keep the others from being tried. Sets
 * *status. 0. */
int cli_each_name(const struct home *home, const struct cli_values *values, const char *const *names,
                  size_t n, int *status,
                  int (*fn)(const struct home *home, const char *name, void *opaque, struct error **err),
                  void *opaque);
/* The same for each value of the operation's NAME. 0 or -errno with *err. */
int cli_each_guest(const struct cli_values *values, int *status, struct error **err,
                   int (*fn)(const struct home *home, const char *name, void *opaque, struct error **err),
                   void *opaque);

#endif

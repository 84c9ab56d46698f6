/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What check.c collects from: one function a topic. */
#ifndef TABIQUE_GUEST_CHECK_PRIV_H
#define TABIQUE_GUEST_CHECK_PRIV_H

#include "guest/check.h"

/* Adds an item; beyond CHECK_ITEMS_MAX it is dropped. `advice` only shows where `ok` is false. */
void check_add(struct check_report *report, const char *name, bool ok, const char *advice, const char *format,
               ...) __attribute__((format(printf, 5, 6)));

void check_processor(struct check_report *report);
void check_cgroups(struct check_report *report);
void check_namespaces(struct check_report *report);
void check_seccomp(struct check_report *report);
void check_confinement(struct check_report *report);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who starts a VM, and where: root or an ordinary user, on a host that permits namespaces or in a container
 * that does not. For tests of the confinement; each case runs in a child of its own.
 */
#ifndef TABIQUE_TESTS_CONFINE_FIXTURE_H
#define TABIQUE_TESTS_CONFINE_FIXTURE_H

#include <stdbool.h>

enum fixture_case {
    AS_ROOT,
    AS_USER,           /* nobody */
    AS_CONTAINER_ROOT, /* root without CAP_SYS_ADMIN, under a filter as container tools set it by default */
    AS_CONTAINER_USER, /* nobody there */
    FIXTURE_CASES
};

const char *fixture_name(enum fixture_case c);
/* Whether the test's own user may become that. */
bool fixture_possible(enum fixture_case c);
/* Makes the calling process one of the kind; ends the process with a message where that fails. */
void fixture_become(enum fixture_case c);
/* Whether a process of the kind may make namespaces here: the test's host may be such a container itself. */
bool fixture_permits_namespaces(enum fixture_case c);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * run_as CASE PROGRAM ARGUMENT...: runs a program as one of those who may start a guest (confine_fixture.h):
 * root, user, container-root, container-user. Exit status 77 where the test's own user can't become that.
 */
#include "confine_fixture.h"

#include <err.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static const char *const names[FIXTURE_CASES] = {
        [AS_ROOT] = "root",
        [AS_USER] = "user",
        [AS_CONTAINER_ROOT] = "container-root",
        [AS_CONTAINER_USER] = "container-user",
    };

    for (enum fixture_case c = 0; argc > 2 && c < FIXTURE_CASES; c++) {
        if (strcmp(argv[1], names[c]) != 0)
            continue;
        if (!fixture_possible(c)) {
            fprintf(stderr, "only root can become %s\n", names[c]);
            return 77;
        }
        fixture_become(c);
        execv(argv[2], argv + 2);
        err(1, "%s", argv[2]);
    }
    fputs("usage: run_as root|user|container-root|container-user PROGRAM ARGUMENT...\n", stderr);
    return 2;
}

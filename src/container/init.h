/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The process that becomes a container's first. */
#ifndef TABIQUE_CONTAINER_INIT_H
#define TABIQUE_CONTAINER_INIT_H

struct container_setup;

/* From its birth in the new namespaces to the execution of the container's program. */
void init_main(struct container_setup *setup) __attribute__((noreturn));

#endif

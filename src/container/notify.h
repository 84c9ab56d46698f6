/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Seccomp notices: handing the descriptor to the agent (config-linux.md, "The Container Process State"). */
#ifndef TABIQUE_CONTAINER_NOTIFY_H
#define TABIQUE_CONTAINER_NOTIFY_H

struct container;
struct container_config;
struct error;

int notify_send(const struct container_config *config, const struct container *container, int listener,
                struct error **err);

#endif

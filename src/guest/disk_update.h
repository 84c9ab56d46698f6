/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Changing a virtual machine's disk: its limits, its size. Called by the verb `update` and by the supervisor.
 */
#ifndef TABIQUE_GUEST_DISK_UPDATE_H
#define TABIQUE_GUEST_DISK_UPDATE_H

#include <jansson.h>
#include <stdint.h>

struct control_request;
struct error;
struct home;

/* What a CONTROL_UPDATE of a disk says, of a guest that runs or not. 0 or -errno with *err. */
int guest_update_disk(const struct home *home, const char *name, const struct control_request *request,
                      struct error **err);

/* The disk of that number in a configuration, one that is written; NULL with *err. */
json_t *guest_disk_of(json_t *config, uint64_t number, struct error **err);
void guest_disk_set_limits(json_t *disk, const struct control_request *request);

/* A path in the configuration, as it is from everywhere; to be freed. NULL if there is no memory. */
char *guest_disk_path(const json_t *config, const char *path);

#endif

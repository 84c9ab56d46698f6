/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest's configuration: what `tabique run` was told, as JSON with the flags' names as keys, so that it can
 * be stored, shown, and started from again. Read into plain values here, once for all who start guests.
 */
#ifndef TABIQUE_GUEST_CONFIG_H
#define TABIQUE_GUEST_CONFIG_H

#include "guest/net_options.h"
#include "guest/policy.h"
#include "machine/vm.h"

#include <jansson.h>

struct error;

struct guest_config {
    json_t *json;
    bool container;      /* its kind; then of `vm` only the terminal's size counts */
    struct vm_config vm; /* what it points to belongs to `json`, or to this structure */
    struct net_options nets;
    struct policy restart;
};

/* Reads the text; `name` is the guest's, from which its network cards get their addresses. 0 with *out, which
 * must not be moved, and is to be cleared; or -EINVAL with *err. */
int guest_config_parse(struct guest_config *out, const char *text, const char *name, struct error **err);
/* After its list of disks in `json` was replaced. 0, -ENOMEM. */
int guest_config_reload_disks(struct guest_config *config);
void guest_config_clear(struct guest_config *config);

#endif
